"""The header of a snapshot: when it comes, and what is done when it does not."""

from __future__ import annotations

import pytest

from parkingd.protocol.commands import Track
from parkingd.protocol.messages import (
    SnapshotAbort,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
)
from tests.unit.scripted import Box, Stage
from tests.unit.test_node_snapshots import a_joiner, deliver, header

HEADER_MS = 2_000
"""The default of `snapshot_header_ms`."""

SLACK_MS = 500
"""An exchange with a member finds out that this node is still behind, and asks again."""


def writes_without_a_pause(box: Box, number: int) -> None:
    """One commit ends, and the next transaction has begun already: the disk never catches up."""
    facts = box.disk.commit_next()
    box.submit(Track(f"KW{number}", 1, None))
    for fact in facts:
        box.observe(fact)
    assert box.node.durable_seq < box.node.own_seq


def a_busy_sender() -> tuple[Stage, Box, Box]:
    """A always has something that is not on its disk, and B asks it for a snapshot."""
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    a.commits = False
    a.submit(Track("KW0", 1, None))
    return stage, a, b


# --- the sender ----------------------------------------------------------------------------------


def test_a_sender_that_never_stops_writing_sends_what_it_had_when_it_was_asked() -> None:
    """It waited for a moment at which nothing of its own was on the way to its disk."""
    stage, a, b = a_busy_sender()
    assert a.node.lot is not None
    had = a.node.own_seq
    a.receive(b.sender(b.route), SnapshotRequest(5, a.node.lot, 0))
    for number in range(1, 4):
        writes_without_a_pause(a, number)
    (sent,) = a.has_sent(SnapshotHeader)
    assert (a.replica, had) in [part[:2] for part in sent.context]
    assert stage.boxes["b"] is b


def test_a_header_names_nothing_that_is_not_on_the_senders_disk() -> None:
    _, a, b = a_busy_sender()
    assert a.node.lot is not None
    a.receive(b.sender(b.route), SnapshotRequest(5, a.node.lot, 0))
    a.tick()
    assert not a.has_sent(SnapshotHeader)
    a.persist()
    (sent,) = a.has_sent(SnapshotHeader)
    own = next(upto for origin, upto, _ in sent.context if origin == a.replica)
    assert own == a.node.durable_seq


def test_who_asks_again_while_the_disk_is_waited_for_gets_one_answer_to_the_last_question() -> None:
    _, a, b = a_busy_sender()
    assert a.node.lot is not None
    had = a.node.own_seq
    a.receive(b.sender(b.route), SnapshotRequest(5, a.node.lot, 0))
    a.submit(Track("KW1", 1, None))
    a.receive(b.sender(b.route), SnapshotRequest(6, a.node.lot, 0))
    a.persist()
    (sent,) = a.has_sent(SnapshotHeader)
    assert sent.nonce == 6
    assert (a.replica, had) in [part[:2] for part in sent.context]
    assert {chunk.nonce for chunk in a.has_sent(SnapshotChunk)} <= {6}
    assert not a.has_sent(SnapshotAbort)


# --- the receiver --------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", ["nothing", "chunks", "everything"])
def test_a_header_that_does_not_come_is_asked_for_again(rest: str) -> None:
    """Chunks alone say nothing: without their header nobody knows where they belong."""
    stage, a, c = a_joiner()
    stage.letters.remove(header(stage))
    assert c.node._snapshots.is_receiving
    for _ in range(HEADER_MS // 200 - 1):
        stage.pass_ms(200)
        if rest != "nothing":
            deliver(stage, SnapshotChunk, count=1)
        if rest == "everything":
            deliver(stage, SnapshotTrailer)
    stage.release()
    stage.pass_ms(SLACK_MS)
    first, second = (request.nonce for request in c.has_sent(SnapshotRequest))
    assert second > first
    assert c.node.counters["snapshots_dropped"] == 1
    assert c.node.counters["snapshots_joined"] == 1
    assert c.node.state.root() == a.node.state.root()


def test_a_header_within_its_time_is_waited_for() -> None:
    stage, a, c = a_joiner()
    stage.pass_ms(HEADER_MS - 200)
    assert len(c.has_sent(SnapshotRequest)) == 1
    stage.release()
    stage.pass_ms(SLACK_MS)
    assert c.node.counters["snapshots_dropped"] == 0
    assert c.node.state.root() == a.node.state.root()


def test_what_follows_the_header_has_the_longer_time() -> None:
    stage, a, c = a_joiner()
    stage.deliver(header(stage))
    stage.pass_ms(2 * HEADER_MS)
    assert c.node._snapshots.is_receiving
    assert len(c.has_sent(SnapshotRequest)) == 1
    stage.release()
    stage.pass_ms(SLACK_MS)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.node.state.root() == a.node.state.root()
