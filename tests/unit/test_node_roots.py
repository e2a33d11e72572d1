"""Roots: what they compare, and the repair of a copy that is damaged under an intact context."""

from __future__ import annotations

import pytest

from parkingd.core.records import CAUSE, Stay
from parkingd.protocol.commands import ReadDigest, ReadStatus, Remove, Track
from parkingd.protocol.messages import (
    Delta,
    Pull,
    PullReply,
    RootAnswer,
    RootQuery,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
)
from parkingd.protocol.outcomes import Change, Digest, Entry, Status
from tests.unit.scripted import Box, Stage

# --- what is compared --------------------------------------------------------------------------


def test_equal_vectors_with_holes_above_them_are_not_compared() -> None:
    """E0, E1 covers 0 at A; B gets only 1; B and C have equal vectors and different views."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gap_wait_ms_min=3_600_000, gap_wait_ms_max=3_600_000)
    stage.cut("a")
    a.track("KA1")
    one = a.track("KA1")
    b.give(a, one)
    assert b.node.state.context.vector == c.node.state.context.vector
    assert b.node.state.context.has_intervals()
    a.stop()
    stage.heal()
    stage.flows = False
    for _ in range(60):
        stage.pass_ms(100)
        for letter in list(stage.letters):
            if isinstance(letter.message, PullReply) or letter not in stage.letters:
                continue
            stage.deliver(letter)
        for letter in stage.waiting(PullReply):
            reply = letter.message
            assert isinstance(reply, PullReply)
            if letter.source == "b" and b.node.state.context.has_intervals():
                assert reply.root is None
            stage.deliver(letter)
    assert b.shown("KA1") == c.shown("KA1") == {one}
    for box in (b, c):
        assert box.node.counters["divergences"] == 0


def test_a_digest_groups_the_nodes_by_their_root_and_names_who_is_silent() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    a.track("KA1")
    handle = a.submit(ReadDigest())
    a.tick()
    digest = a.answer(handle)
    assert isinstance(digest, Digest)
    assert [group.nodes for group in digest.items] == [("a", "b", "c")]
    assert digest.unreachable == ()
    damage(b, "lost stay")
    stage.cut("c")
    handle = a.submit(ReadDigest())
    stage.pass_ms(1_100)
    digest = a.answer(handle)
    assert isinstance(digest, Digest)
    assert sorted(group.nodes for group in digest.items) == [("a",), ("b",)]
    assert digest.unreachable == ("c",)
    assert c.runs


def test_a_node_ahead_of_its_disk_tells_no_root_rather_than_a_wrong_one() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.commits = False
    b.submit(Track("KB1", 1, None))
    handle = a.submit(ReadDigest())
    stage.pass_ms(1_100)
    digest = a.answer(handle)
    assert isinstance(digest, Digest)
    assert digest.unreachable == ("b",)
    assert not b.has_sent(RootAnswer)


# --- repair ------------------------------------------------------------------------------------

DAMAGES = ("lost stay", "ghost of a car that left", "another plate", "another gate", "another time")


def damage(box: Box, how: str) -> None:
    """Change the stays behind the back of everything that keeps them right."""
    stays = box.node.state.stays
    (stay,) = stays.visible("KA1")
    if stay[CAUSE] is not None:
        stays.requests.pop(stay[CAUSE], None)
    changed: Stay
    match how:
        case "lost stay":
            stays.discard(stay)
            return
        case "ghost of a car that left":
            stays.add_stay((1, box.replica, stay[2], "KG1", 1, None, None))
            return
        case "another plate":
            changed = (*stay[:3], "KX1", *stay[4:])
        case "another gate":
            changed = (*stay[:4], 3, *stay[5:])
        case _:
            changed = (*stay[:2], stay[2] + 77, *stay[3:])
    stays.discard(stay)
    stays.add_stay(changed)


def is_alarmed(box: Box) -> bool:
    """Whether its status tells of replicas that differ."""
    return any("differ" in line for line in box.ask(ReadStatus(), Status).warnings)


def damaged_one_of_three(how: str) -> tuple[Stage, Box, Box, Box]:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    a.track("KA1", b"r" * 16)
    b.track("KB1")
    c.track("KC1")
    stage.pass_ms(3_000)
    damage(b, how)
    assert b.node.state.root() != a.node.state.root()
    return stage, a, b, c


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_copy_raises_the_alarm_and_is_repaired_from_the_majority(how: str) -> None:
    stage, a, b, c = damaged_one_of_three(how)
    stage.pass_ms(15_000)
    assert any(box.heard("replicas_differ") for box in (a, b, c))
    assert b.node.state.root() == a.node.state.root() == c.node.state.root()
    assert [
        sorted(stay[3] for stay in box.node.state.stays.all_visible()) for box in (a, b, c)
    ] == [["KA1", "KB1", "KC1"]] * 3
    assert a.node.state.stays.visible("KA1") == b.node.state.stays.visible("KA1")
    assert not a.has_sent(SnapshotRequest)
    assert not c.has_sent(SnapshotRequest)
    for box in (a, b, c):
        assert box.ask(Track("KA1", 1, b"r" * 16), Entry).warnings == ("repeated",)
    before = sum(box.node.counters["divergences"] for box in (a, b, c))
    stage.pass_ms(10_000)
    assert sum(box.node.counters["divergences"] for box in (a, b, c)) == before
    assert not any(is_alarmed(box) for box in (a, b, c))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_repair_is_on_the_disk(how: str) -> None:
    stage, a, b, _ = damaged_one_of_three(how)
    stage.pass_ms(15_000)
    b.start(knows=["a"])
    assert b.node.state.root() == a.node.state.root()
    assert b.node.state.stays.stay_count == 3


def test_a_repair_does_not_bring_back_what_was_closed_after_the_snapshot_was_frozen() -> None:
    """The sender has not heard of a removal, which leaves no mark to hide the stay behind."""
    stage, a, b, c = damaged_one_of_three("lost stay")
    parts = (SnapshotHeader, SnapshotChunk, SnapshotTrailer)
    stage.holds = parts
    for _ in range(200):
        if stage.waiting(SnapshotHeader):
            break
        stage.pass_ms(100)
    assert stage.waiting(SnapshotHeader, b)
    quiet = (Delta, Pull, PullReply)
    stage.holds = (*quiet, *parts)
    b.ask(Remove("KB1", None, None), Change)
    again = b.ask(Track("KC1", 2, None), Entry).dot
    stage.release(*quiet)
    stage.pass_ms(200)
    assert b.node.counters["snapshots_joined"] == 1
    assert b.shown("KA1")
    assert b.shown("KB1") == set()
    assert b.shown("KC1") == {again}
    stage.release()
    stage.pass_ms(15_000)
    assert b.node.state.root() == a.node.state.root() == c.node.state.root()
    assert a.shown("KB1") == set()
    assert a.shown("KC1") == {again}


def test_the_alarm_ends_on_those_who_raised_it_too() -> None:
    stage, a, b, c = damaged_one_of_three("lost stay")
    for _ in range(200):  # Until both have asked the damaged one, which asks nobody.
        b.node._replication._next_sync_ms = stage.mono_ms + 6_000
        stage.pass_ms(100)
        if is_alarmed(a) and is_alarmed(c):
            break
    assert is_alarmed(a)
    assert is_alarmed(c)
    assert b.node.state.root() != a.node.state.root()
    stage.pass_ms(20_000)
    assert b.node.state.root() == a.node.state.root()
    assert not any(is_alarmed(box) for box in (a, b, c))


def test_of_two_that_differ_nobody_is_believed_and_an_operator_is_asked() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.track("KA1")
    stage.pass_ms(3_000)
    damage(b, "lost stay")
    stage.pass_ms(10_000)
    for box in (a, b):
        warnings = box.ask(ReadStatus(), Status).warnings
        assert any("restore one of them from a backup" in line for line in warnings)
        assert not box.has_sent(SnapshotRequest)
    assert a.shown("KA1")
    assert not b.shown("KA1")


def test_who_holds_more_events_has_no_vote() -> None:
    """A root belongs to a context: of another context it says nothing."""
    stage, a, b, c = damaged_one_of_three("lost stay")
    stage.holds = (RootQuery,)
    for _ in range(200):
        if stage.waiting(RootQuery):
            break
        stage.pass_ms(100)
    asker = stage.boxes[stage.waiting(RootQuery)[0].source]
    other = next(box for box in (a, b, c) if box is not asker)
    stage.flows = False
    for letter in stage.waiting(RootQuery):
        stage.letters.remove(letter)
        target = stage.boxes[letter.target]
        target.submit(Track(f"KN{letter.target.upper()}", 1, None))
        target.receive(letter.sender, letter.message)
    for letter in stage.waiting(RootAnswer):
        stage.deliver(letter)
    asker.tick()
    assert not asker.has_sent(SnapshotRequest)
    stage.flows = True
    stage.release()
    stage.pass_ms(20_000)
    assert b.node.state.root() == a.node.state.root() == c.node.state.root()
    assert other.runs
