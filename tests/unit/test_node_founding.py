"""Founding a lot, joining one, and the meeting of two."""

from __future__ import annotations

import pytest

from parkingd.core.events import FLAG_MERGED
from parkingd.core.records import CAUSE, EXTRA, EXTRA_FLAGS, PLATE, TIME
from parkingd.core.stays import stay_since_ms
from parkingd.protocol.codec import unpack_record_untrusted
from parkingd.protocol.commands import ReadLot, ReadStatus, RecordExit, Track
from parkingd.protocol.effects import StartOver, StartOverReason
from parkingd.protocol.facts import Candidate
from parkingd.protocol.messages import Hello, PullReply, Sender, SnapshotHeader
from parkingd.protocol.outcomes import Entry, ErrorCode, Exit, Failure, Lot, Status
from tests.unit.scripted import Box, Stage

# --- founding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("patient", "window_ms"), [(False, 1_500), (True, 5_000)])
def test_a_node_that_finds_nobody_founds_a_lot_when_the_window_has_passed(
    patient: bool, window_ms: int
) -> None:
    stage = Stage()
    a = stage.box("a", 1, spaces=7, gates=3).start(patient=patient)
    stage.pass_ms(window_ms - 10)
    assert a.node.lot is None
    stage.pass_ms(110)
    lot = a.ask(ReadLot(), Lot)
    assert (lot.spaces, lot.inside, lot.admission) == (7, 0, "local")
    assert a.node.state.record.gates == 3
    assert a.node.is_ready()


def test_the_window_starts_when_discovery_has_ended_its_first_round() -> None:
    stage = Stage()
    a = stage.box("a", 1)
    original, a.observe = a.observe, lambda _: None  # type: ignore[method-assign]
    a.start()
    stage.pass_ms(60_000)
    assert a.node.lot is None
    a.observe = original  # type: ignore[method-assign]
    a.start()
    stage.pass_ms(1_600)
    assert a.node.lot is not None


def test_of_nodes_that_start_together_the_lowest_replica_founds() -> None:
    stage = Stage()
    boxes = [stage.box(name, replica) for name, replica in (("a", 30), ("b", 10), ("c", 20))]
    for box in boxes:
        box.start(knows=[other.name for other in boxes if other is not box])
    stage.pass_ms(4_500)
    assert len({box.node.lot for box in boxes}) == 1
    assert [box.heard("lot_founded") for box in boxes] == [False, True, False]
    assert all(box.node.is_synced() for box in boxes)


def test_a_node_that_starts_later_joins_instead_of_founding() -> None:
    stage = Stage()
    a = stage.box("a", 20).start()
    stage.pass_ms(2_000)
    b = stage.box("b", 10).start(knows=["a"])
    stage.pass_ms(300)
    assert b.node.lot == a.node.lot
    assert b.heard("lot_joined")
    stage.pass_ms(3_000)
    assert b.node.is_synced()
    entry = b.track("KB1")
    assert a.shown("KB1") == {entry}


def test_a_candidate_in_handshake_delays_the_founding_by_at_most_another_window() -> None:
    stage = Stage()
    z = stage.box("z", 99)  # There, but it never answers.
    a = stage.box("a", 1).start()
    stage.pass_ms(1_200)
    a.observe(Candidate(z.address, "static"))
    stage.pass_ms(1_300)
    assert a.node.lot is None
    stage.pass_ms(700)
    assert a.node.lot is not None


def test_a_lotless_node_with_a_lower_id_that_dies_is_not_waited_for() -> None:
    stage = Stage()
    a, b = stage.box("a", 1), stage.box("b", 2)
    a.start(knows=["b"])
    b.start(knows=["a"])
    stage.pass_ms(500)
    a.stop()
    stage.pass_ms(4_000)
    assert b.heard("lot_founded")


def test_a_lot_is_told_to_nobody_before_it_is_on_disk() -> None:
    stage = Stage()
    a, b = stage.box("a", 1), stage.box("b", 2)
    a.commits = False
    a.start(knows=["b"])
    b.start(knows=["a"])
    stage.pass_ms(4_000)
    assert a.heard("lot_founded")
    assert a.node.durable_seq == 0
    assert b.node.lot is None
    assert not any(message.founded for message in a.has_sent(Hello))
    a.commits = True
    a.persist()
    stage.pass_ms(6_000)
    assert b.node.lot == a.node.lot


# --- writes meanwhile --------------------------------------------------------------------------


def test_a_write_waits_for_the_lot_within_its_deadline() -> None:
    stage = Stage()
    a = stage.box("a", 1).start()
    early, patient = a.submit(Track("KA1", 1, None), 1_000), a.submit(Track("KA2", 1, None), 5_000)
    reading = a.submit(ReadLot(), 5_000)
    stage.pass_ms(990)
    assert [a.answer(each) for each in (early, patient, reading)] == [None] * 3
    stage.pass_ms(1_200)
    failure, entry, lot = (a.answer(each) for each in (early, patient, reading))
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.NOT_READY
    assert "nothing was recorded" in failure.hint
    assert isinstance(entry, Entry)
    assert isinstance(lot, Lot)
    assert a.node.state.stays.visible_count == 1


@pytest.mark.parametrize("sockets_first", [False, True])
def test_a_write_whose_deadline_has_passed_in_a_pause_is_not_recorded(sockets_first: bool) -> None:
    """The lot can be founded when the node goes on, and nobody waits for the answer any more."""
    stage = Stage()
    a = stage.box("a", 1).start()
    late = a.submit(Track("KA1", 1, None), 1_000)
    a.pause()
    stage.pass_ms(40_000)
    a.wake(sockets_first=sockets_first)
    stage.pass_ms(10_000)
    assert a.node.lot is not None
    failure = a.answer(late)
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.NOT_READY
    assert not a.shown("KA1")


def test_a_joiner_mints_nothing_but_its_join_before_a_member_has_that() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.track("KA1")
    stage.pass_ms(6_000)
    c = stage.box("c", 3)
    stage.holds = (SnapshotHeader, PullReply)
    c.start(knows=["a"])
    handle = c.submit(Track("KC1", 1, None), 60_000)
    stage.pass_ms(3_000)
    assert c.node.own_seq == 1
    assert c.answer(handle) is None
    stage.release()
    stage.pass_ms(6_000)
    answer = c.answer(handle)
    assert isinstance(answer, Entry)
    stage.pass_ms(3_000)
    assert a.shown("KC1") == b.shown("KC1") == {answer.dot}


def test_a_joiner_that_never_gets_the_record_starts_anew_without_a_lot() -> None:
    """The only disk that had it may be lost."""
    stage = Stage()
    a = stage.box("a", 20).start()
    stage.pass_ms(2_000)
    stage.holds = (PullReply,)
    b = stage.box("b", 10).start(knows=["a"])
    stage.pass_ms(500)
    assert b.node.lot == a.node.lot
    a.stop(keep=False)
    stage.pass_ms(9_000)
    assert b.end is None
    stage.pass_ms(2_000)
    assert isinstance(b.end, StartOver)
    assert b.end.reason is StartOverReason.ORPHANED
    stage.holds = ()
    b.succeed()
    stage.pass_ms(2_000)
    assert b.heard("lot_founded")
    b.track("KB1")


# --- two lots ----------------------------------------------------------------------------------

REQUEST = b"r" * 16


def two_lots() -> tuple[Stage, Box, Box]:
    """A founded first, B two seconds later; neither knows of the other."""
    stage = Stage()
    a = stage.box("a", 50).start()
    stage.pass_ms(2_000)
    b = stage.box("b", 10).start()
    stage.pass_ms(2_000)
    assert a.node.lot is not None
    assert b.node.lot is not None
    assert a.node.lot < b.node.lot
    return stage, a, b


def meet(stage: Stage, box: Box, other: Box) -> None:
    """They find each other; the younger lot's node starts over and joins."""
    box.start(knows=[other.name])
    for _ in range(100):
        stage.pass_ms(100)
        if box.end is not None:
            return
    raise AssertionError("they did not meet")


def test_the_lot_founded_earlier_stays_and_the_others_stays_are_recorded_anew() -> None:
    stage, a, b = two_lots()
    a.track("KA1")
    b.track("KB1", REQUEST)
    b.track("KB2")
    b.track("KB3")
    b.exit("KB3")
    (since,) = (stay_since_ms(stay) for stay in b.node.state.stays.visible("KB1"))
    stage.pass_ms(60_000)
    lot = a.node.lot
    meet(stage, b, a)
    end = b.end
    assert isinstance(end, StartOver)
    assert end.reason is StartOverReason.OLDER_LOT
    assert not end.keep
    assert sorted(unpack_record_untrusted(each)[PLATE] for each in end.pending) == ["KB1", "KB2"]
    old = b.replica
    b.succeed(knows=["a"])
    stage.pass_ms(6_000)
    assert a.node.lot == b.node.lot == lot
    assert b.replica != old
    assert old not in a.node.state.context.vector, "event sets of two lots are never mixed"
    for box in (a, b):
        cars = {stay[PLATE]: stay for stay in box.node.state.stays.all_visible()}
        assert sorted(cars) == ["KA1", "KB1", "KB2"]
        merged = cars["KB1"]
        assert merged[CAUSE] == REQUEST
        assert merged[EXTRA] is not None
        assert merged[EXTRA][EXTRA_FLAGS] == FLAG_MERGED
        assert stay_since_ms(merged) == since
        assert box.ask(ReadLot(), Lot).conflicts == ()
        assert any("lots_merged" in line for line in box.ask(ReadStatus(), Status).warnings)
    assert a.heard("younger_lot_met") or b.heard("older_lot_met")


def test_a_car_inside_in_both_lots_is_a_conflict_unless_its_cause_is_the_same() -> None:
    stage, a, b = two_lots()
    for box in (a, b):
        box.track("KS1", REQUEST)
        box.track("KD1")
    meet(stage, b, a)
    b.succeed(knows=["a"])
    stage.pass_ms(6_000)
    for box in (a, b):
        lot = box.ask(ReadLot(), Lot)
        assert (lot.inside, lot.conflicts) == (3, ("KD1",))
        assert len(box.shown("KS1")) == 1
    assert a.shown("KS1") == b.shown("KS1")


def test_stays_that_two_nodes_of_one_younger_lot_both_carry_over_count_once() -> None:
    stage, a, b = two_lots()
    c = stage.box("c", 30).start(knows=["b"])
    b.start(knows=["c"])
    stage.pass_ms(5_000)
    b.track("KB1")
    stage.pass_ms(500)
    assert c.shown("KB1")
    stage.cut("b", "c")
    for box in (b, c):
        box.start(knows=["a", "c" if box is b else "b"])
    stage.pass_ms(1_000)
    stage.heal()
    stage.pass_ms(8_000)
    ended = [box for box in (b, c) if isinstance(box.end, StartOver)]
    assert len(ended) == 2
    for box in (b, c):
        box.succeed(knows=["a"])
    stage.pass_ms(10_000)
    for box in (a, b, c):
        lot = box.ask(ReadLot(), Lot)
        assert (lot.inside, lot.conflicts) == (1, ())


def test_a_car_that_has_left_the_older_lot_since_is_not_carried_in_again() -> None:
    stage, a, b = two_lots()
    stage.box("c", 90).start(knows=["a"])  # Its dead disk keeps the mark.
    stage.pass_ms(4_000)
    stage.boxes["c"].stop()
    b.track("KB1")
    stage.pass_ms(10_000)
    a.exit("KB1")
    meet(stage, b, a)
    b.succeed(knows=["a"])
    stage.pass_ms(6_000)
    for box in (a, b):
        assert box.shown("KB1") == set()


def test_pending_stays_survive_a_crash_before_they_are_recorded() -> None:
    stage, a, b = two_lots()
    b.track("KB1")
    meet(stage, b, a)
    b.succeed()
    assert b.node._shared.replica.pending
    b.start(knows=["a"])
    stage.pass_ms(6_000)
    assert a.shown("KB1") == b.shown("KB1")
    assert len(a.shown("KB1")) == 1
    assert not b.node._shared.replica.pending
    b.start(knows=["a"])
    assert not b.node._shared.replica.pending
    stage.pass_ms(6_000)
    assert a.ask(ReadLot(), Lot).inside == 1


def test_a_node_that_goes_already_does_not_leave_its_lot_again() -> None:
    stage, a, b = two_lots()
    meet(stage, b, a)
    end, hello = b.end, a.has_sent(Hello)[-1]
    assert hello.lot is not None
    assert not b.node._founding.meet(Sender("a", a.replica, 1, None), hello, b.now)
    assert b.node._shared.outbox.end is end
    assert not b.node.take_effects().notices


def test_a_younger_lot_without_cars_is_left_without_a_warning() -> None:
    stage, a, b = two_lots()
    a.track("KA1")
    meet(stage, b, a)
    b.succeed(knows=["a"])
    stage.pass_ms(6_000)
    for box in (a, b):
        assert not any("lots_merged" in line for line in box.ask(ReadStatus(), Status).warnings)
    assert b.shown("KA1") == a.shown("KA1")


def test_messages_of_another_lot_are_refused_and_counted() -> None:
    stage, a, b = two_lots()
    mine = b.track("KB1")
    stage.flows = False
    b.node._peering.greet(a.address, b.now)
    b.tick()
    (letter,) = stage.waiting(Hello, a)
    stage.deliver(letter)
    a.give(b, mine)
    assert a.shown("KB1") == set()
    assert b.replica not in a.node.state.context.vector
    assert a.node.counters["refused_other_lot"] == 1


def test_a_configuration_that_differs_from_the_lot_is_a_warning() -> None:
    stage = Stage()
    a = stage.box("a", 1, spaces=100).start()
    stage.pass_ms(2_000)
    b = stage.box("b", 2, spaces=50)
    b.start(knows=["a"])
    b.node._shared.configured = frozenset({"spaces"})
    stage.pass_ms(3_000)
    assert a.node.state.record.spaces == b.node.state.record.spaces == 100
    warnings = b.ask(ReadStatus(), Status).warnings
    assert "spaces is 100 in the lot and 50 in this configuration" in warnings
    assert a.ask(ReadStatus(), Status).warnings == ()


def test_a_join_that_is_only_in_a_members_memory_does_not_count_as_known() -> None:
    """A crash would forget it: then nobody waits for the joiner, and a mark it has not seen goes.

    E0@C unsent; A, the only one that knows of C, crashes; X1@A; A, B collect 1; C comes back.
    """
    stage = Stage()
    a, b = stage.found("a", "b")
    stage.pass_ms(6_000)
    c = stage.box("c", 3)
    a.commits = False
    stage.cut("b")
    c.start(knows=["a"])
    stage.pass_ms(3_000)
    assert a.node.state.context.upto(c.replica) == 1, "it is in memory"
    stage.cut("c")
    handle = c.submit(Track("KC1", 1, None), 60_000)
    c.tick()
    stage.cuts -= {frozenset(("a", "b"))}
    a.commits = True
    a.start(knows=["b"])
    stage.pass_ms(4_000)
    assert a.node.state.context.upto(c.replica) == 0, "it is forgotten"
    left = a.ask(RecordExit("KC1", 1, None), Exit)
    assert b.node.state.stays.mark_count == 1
    high = a.node.state.clock.last
    stage.pass_ms(8_000)
    assert a.node.state.stays.mark_count == b.node.state.stays.mark_count == 0
    stage.heal()
    stage.pass_ms(10_000)
    assert isinstance(c.answer(handle), Entry)
    assert left.matched == "none"
    for box in (a, b, c):
        (stay,) = box.node.state.stays.visible("KC1")
        assert stay[TIME] > high, "a car that had left would be shown"
