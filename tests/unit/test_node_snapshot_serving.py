"""The sender of snapshots: to whom, how many at a time, how many chunks in flight."""

from __future__ import annotations

from parkingd.core.events import Event, Exit
from parkingd.protocol.codec import pack_event
from parkingd.protocol.limits import CHUNK_CREDIT, CHUNK_RECORDS_MAX, EARLY_MAX
from parkingd.protocol.messages import (
    Delta,
    Run,
    SnapshotAbort,
    SnapshotAck,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
)
from tests.unit.scripted import Stage
from tests.unit.test_node_snapshots import PARTS, a_joiner, header


def test_a_snapshot_is_refused_while_the_join_of_the_asker_is_not_here() -> None:
    stage = Stage()
    a, _ = stage.found("a", "b")
    c = stage.box("c", 3).start(knows=["a"])
    stage.pass_ms(2_000)
    assert a.node.lot is not None
    a.receive(c.sender(c.route), SnapshotRequest(7, a.node.lot, 99))
    (abort,) = a.has_sent(SnapshotAbort)
    assert "join" in abort.reason


def test_only_so_many_chunks_are_in_flight() -> None:
    stage, _, _ = a_joiner((CHUNK_CREDIT + 3) * CHUNK_RECORDS_MAX)
    assert len(stage.waiting(SnapshotChunk)) == CHUNK_CREDIT
    stage.deliver(header(stage))
    stage.holds = (*PARTS, SnapshotAck)
    stage.deliver(stage.waiting(SnapshotChunk)[0])
    assert len(stage.waiting(SnapshotChunk)) == CHUNK_CREDIT - 1
    stage.deliver(stage.waiting(SnapshotAck)[0])
    assert len(stage.waiting(SnapshotChunk)) == CHUNK_CREDIT


def test_a_node_serves_four_at_a_time_and_tells_a_fifth_to_come_again() -> None:
    stage = Stage()
    a, *_ = stage.found("a", "b", "c", "d", "e", "f")
    assert a.node.lot is not None
    stage.holds = (*PARTS, SnapshotAck)
    for name in "bcdef":
        box = stage.boxes[name]
        a.receive(box.sender(box.route), SnapshotRequest(5, a.node.lot, 0))
    assert len(stage.waiting(SnapshotHeader)) == 4
    assert [abort.reason for abort in a.has_sent(SnapshotAbort)] == ["busy"]
    stage.pass_ms(11_000)
    f = stage.boxes["f"]
    a.receive(f.sender(f.route), SnapshotRequest(6, a.node.lot, 0))
    assert len(stage.waiting(SnapshotHeader, f)) == 1, "who takes nothing for ten seconds is let go"


def test_a_sender_that_lacks_too_much_itself_sends_no_snapshot() -> None:
    """Its early removals would not fit the header, and the receiver would refuse it."""
    stage = Stage()
    a, b = stage.found("a", "b")
    assert a.node.lot is not None
    time, first = a.node.state.clock.last, b.node.own_seq + 1
    packed = [
        pack_event(Event(b.replica, seq, time + seq, Exit(f"KA{seq}", 1, None, ((9, 2 * seq),))))
        for seq in range(first, first + EARLY_MAX + 1)
    ]
    a.receive(b.sender(None), Delta((Run(b.replica, first, tuple(packed)),)))
    assert len(a.node.state.stays.early) == EARLY_MAX + 1
    a.receive(b.sender(b.route), SnapshotRequest(5, a.node.lot, 0))
    assert not a.has_sent(SnapshotHeader)
    assert len(a.has_sent(SnapshotAbort)) == 1
