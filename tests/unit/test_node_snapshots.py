"""Snapshots between nodes: streamed into an empty joiner, staged by everybody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parkingd.core.ids import Dot
from parkingd.protocol.commands import ImportRow, ImportRows, Track
from parkingd.protocol.limits import CHUNK_RECORDS_MAX, IMPORT_ROWS_MAX
from parkingd.protocol.messages import (
    Message,
    Pull,
    PullReply,
    SnapshotAbort,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
)
from parkingd.protocol.outcomes import Entry, ErrorCode, Failure, ImportResult
from tests.unit.scripted import Box, Letter, Stage

PARTS = (SnapshotHeader, SnapshotChunk, SnapshotTrailer)
CARS = 2 * CHUNK_RECORDS_MAX + 10


def import_many(box: Box, count: int, first: int = 1) -> None:
    for start in range(first, first + count, IMPORT_ROWS_MAX):
        rows = tuple(
            ImportRow(number, f"KA{number}", 1, None, number.to_bytes(16, "big"))
            for number in range(start, min(start + IMPORT_ROWS_MAX, first + count))
        )
        assert box.ask(ImportRows(rows), ImportResult).accepted == len(rows)


def a_joiner(cars: int = CARS, *, skew_ms: int = 0) -> tuple[Stage, Box, Box]:
    """A lot of two whose logs are empty, and a third node about to get its snapshot."""
    stage = Stage()
    a, _ = stage.found("a", "b")
    import_many(a, cars)
    a.exit("KA1")
    stage.pass_ms(8_000)
    stage.holds = PARTS
    c = stage.box("c", 3)
    c.skew_ms = skew_ms
    c.start(knows=["a"])
    for _ in range(50):
        if stage.waiting(SnapshotHeader):
            break
        stage.pass_ms(20)
    assert len(c.has_sent(SnapshotRequest)) == 1
    return stage, a, c


def a_member_behind() -> tuple[Stage, Box, Box, Dot]:
    """A member that was away while the others' logs let go; it holds a car they saw leave."""
    stage = Stage()
    a, _, c = stage.found("a", "b", "c", log_events_max=50)
    gone = a.track("KB1")
    c.stop()
    a.exit("KB1")
    a.track("KB2")
    a.track("KB2")
    import_many(a, CARS)
    stage.pass_ms(3_000)
    stage.holds = PARTS
    c.start(knows=["a"])
    for _ in range(200):
        if stage.waiting(SnapshotHeader):
            break
        stage.pass_ms(20)
    return stage, a, c, gone


def deliver(stage: Stage, *kinds: type[Message], count: int = 100) -> int:
    """Deliver up to ``count`` held letters of these kinds, in order."""
    delivered = 0
    while delivered < count and (letters := stage.waiting(*kinds[:1]) if kinds else []):
        stage.deliver(letters[0])
        delivered += 1
    return delivered


def header(stage: Stage) -> Letter:
    (letter,) = stage.waiting(SnapshotHeader)
    return letter


# --- streamed ----------------------------------------------------------------------------------


def test_an_empty_joiner_has_the_whole_record_after_a_streamed_snapshot() -> None:
    stage, a, c = a_joiner()
    stage.release()
    stage.pass_ms(3_000)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.node.state.root() == a.node.state.root()
    assert c.node.state.stays.visible_count == CARS - 1
    assert c.node.is_synced()
    c.start(knows=["a"])
    assert c.node.state.root() == a.node.state.root()


def test_the_senders_context_has_the_joiners_join_before_it_freezes() -> None:
    stage, a, c = a_joiner(10)
    message = header(stage).message
    assert isinstance(message, SnapshotHeader)
    assert (c.replica, 1) in [part[:2] for part in message.context]
    assert a.node.state.context.upto(c.replica) == 1


def test_the_highest_hybrid_time_travels_in_the_header() -> None:
    """The exit was minted by a fast clock and its mark is collected: no record tells of it."""
    stage = Stage()
    a, b = stage.found("a", "b")
    b.skew_ms = 4_000
    b.exit("KA1")
    stage.pass_ms(8_000)
    assert a.node.state.stays.mark_count == 0
    high = a.node.state.clock.last
    c = stage.box("c", 3)
    c.skew_ms = -4_000
    c.start(knows=["a"])
    stage.pass_ms(3_000)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.node.state.clock.last >= high
    entry = c.track("KA1")
    stage.pass_ms(3_000)
    assert b.shown("KA1") == a.shown("KA1") == {entry}


def test_nothing_is_minted_or_answered_from_a_half_joined_state() -> None:
    stage, _, c = a_joiner()
    stage.deliver(header(stage))
    deliver(stage, SnapshotChunk, count=1)
    writing = c.submit(Track("KB1", 1, None), 20_000)
    late = c.submit(Track("KB2", 1, None), 100)
    stage.pass_ms(200)
    assert c.answer(writing) is None
    failure = c.answer(late)
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.NOT_READY
    assert c.node.own_seq == 1
    stage.release()
    stage.pass_ms(3_000)
    assert isinstance(c.answer(writing), Entry)


def test_events_inside_the_frozen_context_that_arrive_during_a_streamed_join_are_ignored() -> None:
    """E0, E1 covers 0 at A; freeze; chunk (1) is applied; 0 comes by another way."""
    stage = Stage()
    a, b = stage.found("a", "b")
    zero, one = a.track("KA1"), a.track("KA1")
    stage.pass_ms(8_000)
    stage.holds = PARTS
    c = stage.box("c", 3).start(knows=["a"])
    stage.pass_ms(500)
    stage.deliver(header(stage))
    deliver(stage, SnapshotChunk)
    c.give(b, zero)
    stage.release()
    stage.pass_ms(3_000)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.shown("KA1") == {one}
    c.give(b, zero)
    assert c.shown("KA1") == {one}


def test_events_that_were_ignored_during_a_streamed_join_come_again() -> None:
    stage, a, c = a_joiner(10)
    stage.deliver(header(stage))
    late = a.track("KB1")
    assert c.shown("KB1") == set()
    stage.release()
    stage.pass_ms(3_000)
    assert c.shown("KB1") == {late}


def test_an_answer_to_what_was_asked_before_the_snapshot_brings_no_second_one() -> None:
    """It names an event that the snapshot has not, and tells how far behind c was when it asked."""
    stage, a, c = a_joiner(10)
    stage.holds = (*PARTS, Pull, PullReply)
    for _ in range(50):
        if asked := stage.waiting(Pull, a):
            break
        stage.pass_ms(20)
    late = a.track("KB1")
    stage.deliver(asked[0])
    (answer,) = stage.waiting(PullReply, c)
    stage.release(Pull, PullReply)
    stage.pass_ms(20)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.shown("KB1") == set()
    stage.deliver(answer)
    stage.release()
    stage.pass_ms(3_000)
    assert c.shown("KB1") == {late}
    assert len(c.has_sent(SnapshotRequest)) == c.node.counters["snapshots_joined"] == 1


def test_a_member_that_lacks_an_event_does_not_take_a_snapshot_of_who_has_just_joined() -> None:
    """c has it by a snapshot, and so not in its log; in that of a it is."""
    stage = Stage()
    a, b = stage.found("a", "b", sync_ms=3_600_000)
    stage.pass_ms(8_000)
    stage.cuts.add(frozenset(("a", "b")))
    late = a.track("KB1")
    c = stage.box("c", 3).start(knows=["a", "b"])
    stage.pass_ms(500)
    assert c.node.counters["snapshots_joined"] == 1
    assert (b.shown("KB1"), c.shown("KB1")) == (set(), {late})
    stage.heal()
    b.node._replication._gaps.clear()
    b.node._replication.pull(next(m for m in b.node.members if m.name == "c"), b.now)
    b.tick()
    stage.pass_ms(5)
    assert b.shown("KB1") == {late}
    assert not b.has_sent(SnapshotRequest)


def assert_empty(c: Box) -> None:
    assert c.node.state.context.parts() == ((c.replica, 1, ()),)
    assert c.node.state.stays.records() == []
    assert c.node.state.stays.requests == {}
    assert c.node.state.record.founding() is None


@pytest.mark.parametrize("how", ["abort", "silence", "crash", "missing chunk", "wrong root"])
def test_an_aborted_streamed_join_leaves_nothing_in_memory_and_on_disk(how: str) -> None:
    stage, a, c = a_joiner()
    stage.deliver(header(stage))
    deliver(stage, SnapshotChunk, count=1)
    assert c.node.state.stays.visible_count > 2_000
    nonce = c.has_sent(SnapshotRequest)[-1].nonce
    link = a.sender(a.address)
    if how == "abort":
        c.receive(link, SnapshotAbort(nonce, "enough"))
    elif how == "silence":
        stage.letters.clear()
        stage.cut("a", "b")
        stage.pass_ms(2_500)
    elif how == "missing chunk":
        second = stage.waiting(SnapshotChunk)[1].message
        c.receive(link, second)
    elif how == "wrong root":
        while stage.waiting(SnapshotChunk):
            deliver(stage, SnapshotChunk)
        (trailer,) = stage.waiting(SnapshotTrailer)
        assert isinstance(trailer.message, SnapshotTrailer)
        c.receive(link, replace(trailer.message, root=b"x" * 16))
        c.tick()
    if how == "crash":
        c.stop()
        stage.letters.clear()
        stored = c.disk.load(0)
        assert stored.records == ()
        assert stored.requests == ()
    else:
        assert_empty(c)
        assert c.node.counters["snapshots_dropped"] == 1
    stage.letters.clear()
    stage.heal()
    stage.release()
    c.start(knows=["a", "b"])
    if how != "crash":
        assert_empty(c)
    stage.pass_ms(6_000)
    assert c.node.state.root() == a.node.state.root()
    assert c.shown("KA1") == set()


def test_a_streamed_join_commits_in_one_transaction() -> None:
    stage, _, c = a_joiner()
    c.batches.clear()
    stage.release()
    stage.pass_ms(3_000)
    carrying = [batch for batch in c.batches if batch.records]
    assert len(carrying) > 1
    assert all(batch.open_ended and not batch.meta for batch in carrying)
    after = c.batches[c.batches.index(carrying[-1]) + 1 :]
    closing = next(batch for batch in after if not batch.open_ended)
    assert {key for key, _ in closing.meta} >= {"context", "hybrid_high", "small"}


# --- staged ------------------------------------------------------------------------------------


def test_a_staged_join_changes_nothing_before_the_trailer() -> None:
    stage, a, c, gone = a_member_behind()
    before = (c.node.state.root(), c.node.state.context.parts())
    stage.deliver(header(stage))
    while stage.waiting(SnapshotChunk):
        deliver(stage, SnapshotChunk)
    assert c.shown("KB1") == {gone}
    assert (c.node.state.root(), c.node.state.context.parts()) == before
    stage.release()
    stage.pass_ms(3_000)
    assert c.shown("KB1") == set()
    assert c.node.state.root() == a.node.state.root()


@pytest.mark.parametrize("how", ["abort", "crash in the middle", "wrong count"])
def test_a_staged_join_is_all_or_nothing(how: str) -> None:
    stage, a, c, gone = a_member_behind()
    before = (c.node.state.root(), c.node.state.context.parts())
    stage.deliver(header(stage))
    while stage.waiting(SnapshotChunk):
        deliver(stage, SnapshotChunk)
    (letter,) = stage.waiting(SnapshotTrailer)
    trailer = letter.message
    assert isinstance(trailer, SnapshotTrailer)
    link = a.sender(a.address)
    if how == "abort":
        c.receive(link, SnapshotAbort(trailer.nonce, "enough"))
    elif how == "wrong count":
        c.receive(link, replace(trailer, chunks=trailer.chunks + 1))
    else:
        stage.deliver(letter)
        for _ in range(5):
            c.tick()
        assert c.node.state.stays.stay_count > 1_000
        c.stop()
        stage.letters.clear()
        c.start()
    assert c.shown("KB1") == {gone}
    assert (c.node.state.root(), c.node.state.context.parts()) == before
    stage.letters.clear()
    stage.release()
    c.start(knows=["a", "b"])
    stage.pass_ms(8_000)
    assert c.node.state.root() == a.node.state.root()


def test_own_events_of_a_member_survive_a_staged_join_and_reach_the_others() -> None:
    stage, a, c, _ = a_member_behind()
    own = c.track("KC1")
    stage.deliver(header(stage))
    between = c.track("KC2")
    stage.release()
    stage.pass_ms(5_000)
    for box in (a, c):
        assert box.shown("KC1") == {own}
        assert box.shown("KC2") == {between}
    assert c.node.state.root() == a.node.state.root()


def test_events_that_arrive_while_a_snapshot_is_staged_are_applied_as_ever() -> None:
    stage, a, c, _ = a_member_behind()
    stage.deliver(header(stage))
    late = a.track("KD1")
    stage.flow()
    assert c.shown("KD1") == {late}
    stage.release()
    stage.pass_ms(3_000)
    assert c.shown("KD1") == {late}
    assert c.node.state.root() == a.node.state.root()


def test_events_inside_the_frozen_context_that_arrive_between_two_slices_are_ignored() -> None:
    """E0, E1 covers 0 at A; 1 is in the snapshot, and 0 comes by another way."""
    stage, a, c, _ = a_member_behind()
    (one,) = a.shown("KB2")
    zero = (one[0], one[1] - 1)
    assert not c.node.state.context.contains(*zero)
    stage.deliver(header(stage))
    while stage.waiting(SnapshotChunk):
        deliver(stage, SnapshotChunk)
    deliver(stage, SnapshotTrailer)
    while not c.shown("KB2"):
        c.tick()
    c.give(a, zero)
    stage.release()
    stage.pass_ms(3_000)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.node.state.context.contains(*zero)
    assert c.shown("KB2") == {one}
    assert c.node.state.root() == a.node.state.root()
