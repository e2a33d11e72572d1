"""Faults that the simulator found, each told again by hand. `tests.sim.corpus` has the seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parkingd.core.events import Fence, Seal
from parkingd.core.ids import Now, ReplicaId
from parkingd.protocol.codec import pack_record
from parkingd.protocol.commands import Remove
from parkingd.protocol.effects import StartOver, StartOverReason
from parkingd.protocol.messages import (
    ContextWire,
    Heartbeat,
    Hello,
    Pull,
    Refused,
    SnapshotHeader,
    SnapshotRequest,
    let_go,
)
from parkingd.protocol.outcomes import Change
from tests.unit.scripted import WALL_MS, Box, Stage
from tests.unit.test_node_clock import clock_warnings, minted_ms
from tests.unit.test_node_snapshots import a_joiner, header

# --- stays that were taken along -----------------------------------------------------------------


def orphan(stage: Stage, *records: bytes) -> Box:
    """A node whose last id lost its lot before the record came, and took along what it had seen."""
    box = stage.box("c", 3)
    end = StartOver(StartOverReason.ORPHANED, keep=False, pending=records)
    box.disk.begin_again(end)
    return box.start(knows=["a", "b"])


@pytest.mark.parametrize("how", ["exit", "removal"])
def test_a_stay_that_this_very_lot_has_closed_is_not_recorded_anew(how: str) -> None:
    """Seed 40102: its mark was collected long ago, so nothing but its dot tells that it is known.

    It had no request id, so no effect of one is remembered either.
    """
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    a.track("KA1")
    (stay,) = a.node.state.stays.visible("KA1")
    if how == "exit":
        a.exit("KA1")
    else:
        a.ask(Remove("KA1", None, None), Change)
    stage.pass_ms(8_000)
    assert a.node.state.stays.mark_count == 0
    c = orphan(stage, pack_record(stay))
    stage.pass_ms(8_000)
    assert c.node.is_synced(), "nothing is pending"
    for box in (a, b, c):
        assert box.shown("KA1") == set()


def test_a_stay_that_this_very_lot_shows_is_not_recorded_anew() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    entry = a.track("KA1")
    (stay,) = a.node.state.stays.visible("KA1")
    c = orphan(stage, pack_record(stay))
    stage.pass_ms(8_000)
    assert c.node.is_synced()
    for box in (a, b, c):
        assert box.shown("KA1") == {entry}


# --- clocks --------------------------------------------------------------------------------------


def test_a_restarted_members_hello_that_comes_late_does_not_make_its_clock_look_slow() -> None:
    """Seed 40338: all others restarted while this node stood still, and their first hellos had
    waited in its sockets for a minute: it took itself for the one whose clock is wrong."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=1)
    stage.flows = False
    for box in (b, c):
        box.start(knows=["a"])
        box.tick()
    hellos = [stage.waiting(Hello, a)[0], stage.waiting(Hello, a)[-1]]
    assert {letter.source for letter in hellos} == {"b", "c"}
    stage.mono_ms += 60_000
    for letter in hellos:
        stage.deliver(letter)
    assert {box.name: box.incarnation for box in (b, c)} == {
        member.name: member.incarnation for member in a.node.members
    }
    assert clock_warnings(a) == []
    assert abs(minted_ms(a, "KA1") - (WALL_MS + stage.mono_ms)) < 1_000


def test_a_minute_of_old_heartbeats_makes_no_clock_look_slow_while_they_come() -> None:
    """Seed 867: as a node that stood still finds them in its sockets, before the newest."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=1)
    stage.flows = False
    for late in range(30):
        for box in (b, c):
            sent_ms = WALL_MS + stage.mono_ms - 60_000 + 1_000 * late
            a.receive(box.sender(None), Heartbeat(10_000 + late, 0, sent_ms))
        assert clock_warnings(a) == []
        assert abs(minted_ms(a, f"KA{late}") - (WALL_MS + stage.mono_ms)) < 1_000


# --- one freeze to one transfer ------------------------------------------------------------------


def test_a_snapshot_request_that_comes_twice_is_served_once() -> None:
    """Seed 3303: the second freeze went on where the first had been, under the same nonce."""
    stage, a, c = a_joiner()
    (request,) = c.has_sent(SnapshotRequest)
    late = a.track("KB1")
    a.receive(c.sender(c.route), request)
    assert len(a.has_sent(SnapshotHeader)) == 1
    stage.release()
    stage.pass_ms(3_000)
    assert c.node.counters["snapshots_joined"] == 1
    a.receive(c.sender(c.route), request)
    assert len(a.has_sent(SnapshotHeader)) == 1, "also when the transfer is over"
    assert c.shown("KB1") == {late}
    assert c.node.state.root() == a.node.state.root()


def test_another_process_may_use_a_nonce_again() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    assert a.node.lot is not None
    a.receive(b.sender(b.route), SnapshotRequest(7, a.node.lot, 0))
    stage.mono_ms += 1
    b.start(knows=["a"])
    stage.pass_ms(2_000)
    a.receive(b.sender(b.route), SnapshotRequest(7, a.node.lot, 0))
    assert len(a.has_sent(SnapshotHeader)) == 2


def test_a_copy_of_the_header_is_ignored_and_another_header_ends_the_transfer() -> None:
    """Seed 3303: chunks of the second freeze were joined under the context of the first."""
    stage, a, c = a_joiner()
    letter = header(stage)
    stage.deliver(letter, keep=True)
    stage.deliver(letter, keep=True)
    assert c.node.counters["snapshots_dropped"] == 0
    first = letter.message
    assert isinstance(first, SnapshotHeader)
    c.receive(a.sender(a.address), replace(first, records=first.records - 1))
    assert c.node.counters["snapshots_dropped"] == 1
    assert c.node.state.stays.records() == []
    stage.release()
    stage.pass_ms(5_000)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.node.state.root() == a.node.state.root()


# --- seals ---------------------------------------------------------------------------------------

LOST: ReplicaId = 9
"""A replica that is let go in every case below."""


def sealed(stage: Stage, box: Box, upto: int) -> None:
    """This node says that the lost replica ended there."""
    replica = box.node._shared.replica
    now: Now = box.now
    if LOST not in box.node.state.record.fences:
        replica.mint(Fence(LOST), now.wall_ms)
    replica.mint(Seal(LOST, upto, ()), now.wall_ms)
    box.tick()
    stage.pass_ms(1_000)


def with_a_lost_replica() -> tuple[Stage, Box, Box, list[tuple[ReplicaId, int]]]:
    """A and B have five events of a third node; A two of them, and B all."""
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    lost = stage.box("lost", LOST).start(knows=["a", "b"])
    stage.pass_ms(4_000)
    stage.flows = False
    while lost.node.own_seq < 5:
        lost.track(f"KL{lost.node.own_seq}")
    stage.letters.clear()
    lost.stop()
    dots = [(LOST, seq) for seq in range(2, 6)]
    a.give(lost, dots[0])
    b.give(lost, *dots)
    return stage, a, b, dots


def test_who_has_more_than_a_second_seal_leaves_starts_over() -> None:
    """Seed 7190: the first seal let it in, the second, made when its issuer was lost, took it
    back."""
    stage, a, b, _ = with_a_lost_replica()
    sealed(stage, b, 5)
    assert not b.node.state.has_voided_events
    stage.mono_ms += 1
    sealed(stage, a, 2)
    events = sorted(a.node.state.record.events.values())
    b.give(a, *(event[:2] for event in events if isinstance(event.body, Fence | Seal)))
    assert a.end is None
    assert isinstance(b.end, StartOver)
    assert b.end.reason is StartOverReason.FENCED
    stage.letters.clear()
    stage.flows = True
    b.succeed(knows=["a"])
    stage.pass_ms(6_000)
    assert b.node.state.root() == a.node.state.root()
    assert b.shown("KL3") == set()


def holder_of_void() -> tuple[Stage, Box, Box]:
    """A has sealed the lost replica without three events that B holds; B has not heard of it."""
    stage, a, b, _ = with_a_lost_replica()
    sealed(stage, a, 2)
    stage.letters.clear()
    assert a.node.state.is_voided(b.node.state.context)
    return stage, a, b


def wire_context(box: Box) -> ContextWire:
    return box.node._shared.context_wire()


def test_who_holds_void_events_is_told_when_it_asks_for_an_exchange() -> None:
    """Seed 26220397: the two never greeted each other again, and exchanged for ever."""
    stage, a, b = holder_of_void()
    assert b.node.lot is not None
    a.receive(b.sender(b.route), Pull(5, b.node.lot, wire_context(b), None, None))
    (letter,) = stage.waiting(Refused, b)
    stage.deliver(letter)
    assert isinstance(b.end, StartOver)
    assert b.end.reason is StartOverReason.FENCED


def test_who_holds_void_events_is_told_when_it_answers_a_hello() -> None:
    """Seed 26220397: only those that greeted were told, and not those that were greeted."""
    stage, a, b = holder_of_void()
    a.node._peering.greet(b.address, a.now)
    a.tick()
    stage.deliver(stage.waiting(Hello, b)[-1])
    (answer,) = [letter for letter in stage.waiting(Hello, a) if _is_answer(letter.message)]
    stage.deliver(answer)
    (letter,) = stage.waiting(Refused, b)
    stage.deliver(letter)
    assert isinstance(b.end, StartOver)


def _is_answer(message: object) -> bool:
    return isinstance(message, Hello) and message.answer


def test_a_refusal_that_was_meant_for_an_earlier_id_is_ignored() -> None:
    """Seed 26220397: it came after the node had begun anew, which so began anew once more."""
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    for replica in (b.replica + 1, a.replica):
        b.receive(a.sender(a.address), let_go(replica, ()))
        assert b.runs
    b.receive(a.sender(a.address), let_go(b.replica, ()))
    assert isinstance(b.end, StartOver)
