"""Push, gap repair and anti-entropy between nodes, letter by letter."""

from __future__ import annotations

from parkingd.core.ids import Dot
from parkingd.protocol.commands import ImportRow, ImportRows
from parkingd.protocol.limits import FRAME_BYTES_MAX, IMPORT_ROWS_MAX, INTERVALS_MAX
from parkingd.protocol.messages import (
    Delta,
    Heartbeat,
    Pull,
    PullReply,
    SnapshotRequest,
    Want,
)
from parkingd.protocol.outcomes import ImportResult
from tests.unit.scripted import Box, Letter, Stage


def trio() -> tuple[Stage, Box, Box, Box]:
    """Three nodes in sync, and from here on every letter is delivered by hand. The lot is never
    almost full: nobody mints a word about that between its cars."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", spaces=100_000)
    stage.flows = False
    return stage, a, b, c


def only(letters: list[Letter]) -> Letter:
    assert len(letters) == 1, letters
    return letters[0]


def import_many(box: Box, first: int, count: int) -> None:
    for start in range(first, first + count, IMPORT_ROWS_MAX):
        rows = tuple(
            ImportRow(number, f"KA{number}", 1, None, number.to_bytes(16, "big"))
            for number in range(start, min(start + IMPORT_ROWS_MAX, first + count))
        )
        assert box.ask(ImportRows(rows), ImportResult).accepted == len(rows)


# --- push --------------------------------------------------------------------------------------


def test_own_events_are_pushed_in_order_as_soon_as_they_are_durable() -> None:
    stage, a, b, _ = trio()
    first, second = a.track("KA1"), a.track("KA2")
    pushed = [letter for letter in stage.waiting(Delta, b) if letter.sender.link is None]
    runs = [run for letter in pushed for run in letter.message.runs]  # type: ignore[union-attr]
    assert [(run.origin, run.first) for run in runs] == [first, second]


def test_a_delta_that_comes_twice_changes_nothing() -> None:
    stage, a, b, _ = trio()
    entry = a.track("KA1")
    letter = only(stage.waiting(Delta, b))
    stage.deliver(letter, keep=True)
    root, batches = b.node.state.root(), len(b.batches)
    stage.deliver(letter, keep=True)
    assert b.shown("KA1") == {entry}
    assert b.node.state.root() == root
    assert len(b.batches) == batches


def test_a_delta_adds_only_the_dots_it_was_given() -> None:
    stage, a, b, _ = trio()
    first, second = a.track("KA1"), a.track("KA2")
    b.give(a, second)
    context = b.node.state.context
    assert context.upto(a.replica) == first[1] - 1
    assert context.intervals == {a.replica: [(second[1], second[1])]}
    assert b.shown("KA1") == set()
    assert stage.letters


def test_nothing_is_passed_on_that_was_not_asked_for() -> None:
    """What is pushed by its origin is not echoed."""
    stage, a, b, _ = trio()
    a.track("KA1")
    stage.deliver(only(stage.waiting(Delta, b)))
    assert [letter for letter in stage.waiting(Delta) if letter.source == "b"] == []


# --- gaps --------------------------------------------------------------------------------------


def lose_the_first_of_two(stage: Stage, a: Box, b: Box) -> tuple[Dot, Dot]:
    first, second = a.track("KA1"), a.track("KA2")
    stage.letters.clear()
    b.give(a, second)
    return first, second


def wants(stage: Stage) -> list[Letter]:
    return stage.waiting(Want)


def test_a_gap_is_asked_for_at_its_origin_after_a_jitter() -> None:
    stage, a, b, _ = trio()
    first, _ = lose_the_first_of_two(stage, a, b)
    stage.pass_ms(19)
    assert wants(stage) == []
    stage.pass_ms(32)
    letter = only(wants(stage))
    assert (letter.source, letter.target) == ("b", "a")
    assert letter.message == Want(((*first, first[1]),))
    stage.deliver(letter)
    stage.deliver(only([each for each in stage.waiting(Delta) if each.target == "b"]))
    assert b.shown("KA1") == {first}
    assert not b.node.state.context.has_intervals()


def test_a_gap_that_closes_by_itself_is_not_asked_for() -> None:
    stage, a, b, _ = trio()
    first, _ = lose_the_first_of_two(stage, a, b)
    stage.pass_ms(10)
    b.give(a, first)
    stage.pass_ms(100)
    assert wants(stage) == []


def test_a_head_in_a_heartbeat_tells_of_a_lost_tail() -> None:
    stage, a, b, _ = trio()
    entry = a.track("KA1")
    stage.letters.clear()
    stage.pass_ms(300)
    beat = next(each for each in stage.waiting(Heartbeat, b) if each.source == "a")
    stage.deliver(beat)
    stage.pass_ms(60)
    letter = next(each for each in wants(stage) if each.source == "b")
    assert letter.target == "a"
    assert letter.message == Want(((*entry, entry[1]),))


def test_after_two_failures_at_the_origin_anybody_is_asked_and_after_four_nobody() -> None:
    stage = Stage()
    a, b, *_ = stage.found("a", "b", "c", "d", "e", "f", gates=1)
    stage.flows = False
    lose_the_first_of_two(stage, a, b)
    asked = []
    for _ in range(19):  # Nothing arrives but heartbeats: all count as alive.
        stage.pass_ms(100)
        asked += [letter.target for letter in wants(stage) if letter.source == "b"]
        for beat in stage.waiting(Heartbeat):
            stage.deliver(beat)
        stage.letters.clear()
    assert asked[:2] == ["a", "a"]
    assert len(asked) == 4
    assert set(asked[2:]) - {"a"}
    assert b.node.counters["gap_requests"] == 4


def test_a_gap_of_a_dead_origin_is_asked_for_elsewhere() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", sync_ms=3_600_000)
    stage.flows = False
    first, second = a.track("KA1"), a.track("KA2")
    a.stop()
    c.give(a, first, second)
    stage.letters.clear()
    stage.pass_ms(1_900)
    for letter in stage.waiting(Heartbeat):
        stage.deliver(letter)
    stage.pass_ms(200)
    assert b.heard("member_dead")
    stage.letters.clear()
    b.give(c, second)
    stage.pass_ms(60)
    letter = only(wants(stage))
    assert (letter.source, letter.target) == ("b", "c")
    stage.flows = True
    stage.flow()
    assert b.shown("KA1") == {first}


# --- anti-entropy ------------------------------------------------------------------------------


def first_pull(stage: Stage, source: Box, target: Box) -> Letter:
    """The next exchange that ``source`` begins with ``target``."""
    for _ in range(200):
        stage.pass_ms(100)
        for letter in list(stage.letters):
            way = (letter.source, letter.target)
            if isinstance(letter.message, Pull) and way == (source.name, target.name):
                return letter
            if isinstance(letter.message, Heartbeat):
                stage.deliver(letter)
            else:
                stage.letters.remove(letter)
    raise AssertionError("no pull")


def test_one_round_trip_repairs_both_sides() -> None:
    stage, a, b, _ = trio()
    ours, theirs = a.track("KA1"), b.track("KB1")
    stage.letters.clear()
    pull = first_pull(stage, a, b)
    stage.letters.clear()
    b.receive(pull.sender, pull.message)
    reply = only(stage.waiting(PullReply, a))
    stage.deliver(reply)
    assert a.shown("KB1") == {theirs}
    back = only([each for each in stage.waiting(Delta, b) if each.source == "a"])
    stage.deliver(back)
    assert b.shown("KA1") == {ours}
    assert a.node.state.root() == b.node.state.root()


def test_a_reply_that_nobody_asked_for_is_counted_and_dropped() -> None:
    stage, a, b, _ = trio()
    entry = b.track("KB1")
    pull = first_pull(stage, a, b)
    stage.letters.clear()
    b.receive(pull.sender, pull.message)
    reply = only(stage.waiting(PullReply, a))
    stage.deliver(reply, keep=True)
    a.receive(reply.sender, reply.message)
    assert a.node.counters["answers_unasked"] == 1
    assert a.shown("KB1") == {entry}


def test_a_long_backlog_comes_in_frames_with_more_until_all_is_there() -> None:
    stage, a, b, _ = trio()
    import_many(a, 1, 3_000)
    stage.letters.clear()
    pull = first_pull(stage, b, a)
    stage.letters.clear()
    a.receive(pull.sender, pull.message)
    letter = only(stage.waiting(PullReply, b))
    reply = letter.message
    assert isinstance(reply, PullReply)
    assert reply.more
    assert not reply.behind
    assert len(letter.frame) <= FRAME_BYTES_MAX
    stage.deliver(letter)
    had = b.node.state.stays.visible_count
    assert 0 < had < 3_000
    assert b.node.state.context.upto(a.replica) < a.node.own_seq, "only what came was added"
    stage.flows = True
    stage.flow()
    stage.pass_ms(5)
    for _ in range(20):
        stage.pass_ms(1)
    assert b.node.state.stays.visible_count == 3_000
    assert b.node.state.root() == a.node.state.root()


def test_a_backlog_is_sent_back_in_a_few_frames_and_the_rest_is_pulled() -> None:
    stage, a, b, _ = trio()
    import_many(a, 1, 8_000)
    stage.letters.clear()
    pull = first_pull(stage, a, b)
    stage.letters.clear()
    b.receive(pull.sender, pull.message)
    stage.deliver(only(stage.waiting(PullReply, a)))
    back = [each for each in stage.waiting(Delta, b) if each.sender.link is not None]
    assert len(back) == 4
    assert all(len(each.frame) <= FRAME_BYTES_MAX for each in back)
    stage.flows = True
    stage.flow()
    stage.pass_ms(4_000)
    assert b.node.state.root() == a.node.state.root()


def test_when_a_member_falls_silent_two_others_are_asked_at_once() -> None:
    """Its last messages may be known to one node only."""
    stage = Stage()
    a, b, c, d = stage.found("a", "b", "c", "d", sync_ms=3_600_000)
    stage.flows = False
    last = a.track("KA1")
    stage.letters.clear()
    b.give(a, last)
    a.stop()
    stage.flows = True
    stage.pass_ms(2_600)
    for box in (b, c, d):
        assert box.heard("member_dead")
        assert box.shown("KA1") == {last}


# --- the log and its floor -----------------------------------------------------------------------


def test_events_that_every_disk_of_the_roster_has_leave_the_log() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    import_many(a, 1, 10)
    stage.pass_ms(10_000)
    for box in (a, b):
        log = box.node._shared.replica.log
        assert log.count == 0
        assert log.floor(a.replica) == a.node.own_seq


def test_events_that_somebody_lacks_stay_in_the_log_however_long_it_is_silent() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=1)
    c.stop()
    import_many(a, 1, 10)
    stage.pass_ms(60_000)
    assert a.node._shared.replica.log.size(a.replica) == 10
    c.start(knows=["a", "b"])
    stage.pass_ms(4_000)
    assert c.node.state.root() == a.node.state.root() == b.node.state.root()
    assert c.node.counters["snapshots_joined"] == 0


def test_past_its_cap_the_log_lets_the_oldest_go_and_who_lacks_them_takes_a_snapshot() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", log_events_max=100)
    gone = c.track("KB5")
    c.stop()
    import_many(a, 1, 300)
    b.exit("KB5")
    stage.pass_ms(3_000)
    assert a.node._shared.replica.log.count <= 100
    assert b.node._shared.replica.log.count <= 100
    c.start(knows=["a", "b"])
    stage.pass_ms(6_000)
    assert c.has_sent(SnapshotRequest)
    assert c.node.counters["snapshots_joined"] == 1
    assert gone not in c.shown("KB5")
    assert c.node.state.root() == a.node.state.root() == b.node.state.root()


def test_a_floor_survives_a_restart() -> None:
    stage = Stage()
    a, _ = stage.found("a", "b")
    import_many(a, 1, 10)
    stage.pass_ms(10_000)
    floor = a.node._shared.replica.log.floor(a.replica)
    assert floor == a.node.own_seq
    a.start(knows=["b"])
    assert a.node._shared.replica.log.floor(a.replica) == floor
    assert a.node.state.stays.visible_count == 10


def test_more_holes_than_a_message_can_name_are_not_taken_in() -> None:
    """Else this node's vector would be refused by everybody, and by its own next start."""
    stage, a, b, _ = trio()
    holes = INTERVALS_MAX + 76
    import_many(a, 1, 2 * holes)
    stage.letters.clear()
    first = a.node.own_seq - 2 * holes + 1
    b.give(a, *((a.replica, seq) for seq in range(first + 1, first + 2 * holes, 2)))
    assert len(b.node.state.context.intervals[a.replica]) <= INTERVALS_MAX
    b.start(knows=["a", "c"])
    stage.flows = True
    stage.pass_ms(6_000)
    assert b.node.state.root() == a.node.state.root()


def test_more_early_removals_than_a_message_can_name_survive_a_restart() -> None:
    """Exits at A of cars whose entries have not come: they arrive before what they cover."""
    stage, a, b, c = trio()
    count = 2 * (INTERVALS_MAX + 76)
    import_many(c, 1, count)
    first = c.node.own_seq - count + 1
    entries = [(c.replica, seq) for seq in range(first, first + count)]
    a.give(c, *entries)
    exits = [a.exit(f"KA{number}") for number in range(1, count, 2)]
    stage.letters.clear()
    b.give(a, *exits)
    early = set(b.node.state.stays.early)
    assert early == set(entries[::2])
    b.start(knows=["a", "c"])
    assert set(b.node.state.stays.early) == early
    stage.flows = True
    stage.pass_ms(8_000)
    assert not b.node.state.stays.early
    assert b.node.state.stays.visible_count == count // 2
    assert b.node.state.root() == a.node.state.root()
