"""Leaving in good order: the own head is safe with somebody, then goodbye."""

from __future__ import annotations

from parkingd.protocol.commands import Leave, ReadLot, Track
from parkingd.protocol.effects import Stop
from parkingd.protocol.messages import Delta, Goodbye, Pull, PullReply
from parkingd.protocol.outcomes import ErrorCode, Failure, Left, Lot
from tests.unit.scripted import Box, Stage


def leave(stage: Stage, box: Box, ms: int = 4_000) -> tuple[Left, int]:
    """The answer, and after how many milliseconds it came."""
    handle = box.submit(Leave(), 10_000)
    for passed in range(0, ms, 10):
        answer = box.answer(handle)
        if answer is not None:
            assert isinstance(answer, Left)
            return answer, passed
        stage.pass_ms(10)
    raise AssertionError("it does not leave")


def without_gate() -> tuple[Stage, Box, Box]:
    """Two nodes of which the second has no gate to hand over: only its head is to be saved."""
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    return stage, a, b


def test_a_node_leaves_when_a_members_disk_covers_its_head() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    entry = a.track("KA1")
    left, passed = leave(stage, a)
    assert left == Left(a.node.own_seq, "b")
    assert left.final_seq > entry[1], "its gates have been released"
    assert passed < 500
    assert isinstance(a.end, Stop)
    assert a.end.error is None
    (member,) = b.node.members
    assert member.state.value == "left"
    assert member.final_seq == left.final_seq
    assert b.heard("member_left")


def test_a_memory_is_not_safe_enough_to_leave() -> None:
    stage, a, b = without_gate()
    a.commits = False
    entry = b.track("KB1")
    handle = b.submit(Leave(), 10_000)
    stage.pass_ms(1_000)
    assert a.shown("KB1") == {entry}
    assert b.answer(handle) is None
    a.commits = True
    a.persist()
    stage.pass_ms(1_000)
    assert b.answer(handle) == Left(entry[1], "a")


def test_a_node_alone_leaves_at_once() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    entry = a.track("KA1")
    left, passed = leave(stage, a)
    assert left == Left(entry[1], None)
    assert passed < 50


def test_nobody_is_waited_for_longer_than_three_seconds() -> None:
    stage, _, b = without_gate()
    stage.holds = (Pull, PullReply, Delta)
    entry = b.track("KB1")
    left, passed = leave(stage, b)
    assert left == Left(entry[1], None)
    assert 2_900 <= passed <= 3_100


def test_the_own_disk_is_waited_for_and_a_failing_one_is_not() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.commits = False
    writing = a.submit(Track("KA1", 1, None), 10_000)
    handle = a.submit(Leave(), 10_000)
    stage.pass_ms(500)
    assert a.answer(handle) is None
    a.persist()
    stage.pass_ms(200)
    assert isinstance(a.answer(handle), Left)
    assert a.answer(writing) is not None

    (b,) = Stage().found("b")
    b.commits = False
    b.submit(Track("KB1", 1, None), 10_000)
    b.disk.fail("disk full")
    b.persist()
    left, passed = leave(b.stage, b)
    assert left.final_seq == b.node.own_seq - 1
    assert passed < 500


def test_who_leaves_takes_no_more_writes_and_still_answers_reads() -> None:
    stage = Stage()
    a, _ = stage.found("a", "b")
    stage.holds = (Pull, PullReply, Delta)
    a.track("KA1")
    a.submit(Leave(), 10_000)
    assert a.ask(Track("KA2", 1, None), Failure).code == ErrorCode.DRAINING
    assert a.ask(ReadLot(), Lot).inside == 1
    assert not a.node.is_ready()


def test_all_who_asked_for_it_are_answered() -> None:
    stage = Stage()
    a, _ = stage.found("a", "b")
    handles = [a.submit(Leave(), 10_000) for _ in range(3)]
    stage.pass_ms(1_000)
    assert all(isinstance(a.answer(handle), Left) for handle in handles)
    assert len(a.has_sent(Goodbye)) >= 1


def test_an_ephemeral_node_mints_nothing_after_its_own_seal() -> None:
    """While it waits to leave, the hour of another dead ephemeral node comes."""
    stage = Stage()
    ephemeral = {"ephemeral": True, "ephemeral_forget_ms": 10_000}
    e, d = (stage.box(name, replica, **ephemeral) for name, replica in (("e", 1), ("d", 2)))
    b = stage.box("b", 3)
    for box in (e, d, b):
        box.start(knows=[name for name in stage.boxes if name != box.name])
    stage.pass_ms(5_000)
    d.stop(keep=False)
    stage.pass_ms(9_000)
    stage.holds = (Pull, PullReply, Delta)
    _, passed = leave(stage, e)
    assert passed > 1_500
    assert e.node.own_seq == e.node.state.record.seals[e.replica].upto
    assert not e.node.state.record.fences
    assert b.runs


def test_ephemeral_nodes_that_leave_together_mint_nothing_after_their_own_seals() -> None:
    """Each hands its gates to another that turns out to leave as well."""
    stage = Stage()
    boxes = stage.found("a", "b", "c", ephemeral=True)
    a, b, c = boxes
    handles = [(box, box.submit(Leave(), 10_000)) for box in (a, b)]
    stage.pass_ms(4_000)
    for box, handle in handles:
        assert isinstance(box.answer(handle), Left)
        assert box.node.own_seq == c.node.state.record.seals[box.replica].upto
    assert c.runs
    assert c.node.is_synced()


def test_a_node_that_has_left_comes_back_with_its_record() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    entry = a.track("KA1")
    leave(stage, a)
    later = b.track("KB1")
    a.start(knows=["b"])
    stage.pass_ms(4_000)
    assert a.shown("KA1") == {entry}
    assert a.shown("KB1") == {later}
    assert [member.state.value for member in b.node.members] == ["alive"]
    a.track("KA2")
    assert b.shown("KA2")
