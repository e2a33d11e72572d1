"""Two owners at once, and how that is avoided: partitions, pauses, deaths."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from parkingd.core.gates import Barrier, fence_of
from parkingd.protocol.commands import AskToEnter, Leave, Track
from parkingd.protocol.limits import DISPUTES_MAX
from parkingd.protocol.messages import Delta, EnterAsk, Heartbeat, PullReply
from tests.unit.scripted import Box, Stage
from tests.unit.watching import (
    ask_in,
    beats,
    claim,
    claims,
    gate_states,
    is_whole,
    rows,
    serves,
    state,
    states,
    status,
    wait_until,
    warnings,
)

CUTS = [("abc", "a", 3_000), ("abc", "a", 15_000), ("abcd", "ab", 30_000), ("abcde", "c", 15_000)]

# --- greater claims --------------------------------------------------------------------------


def parted(stage: Stage, ms: int = 10_000) -> tuple[Box, Box, Box]:
    """a on one side, b and c on the other, for so long that each side serves every gate."""
    a, b, c = stage.found("a", "b", "c")
    stage.cut("a")
    stage.pass_ms(ms)
    assert serves(a) == {1, 2, 3, 4}
    assert serves(b) | serves(c) == {1, 2, 3, 4}
    return a, b, c


def test_an_owner_steps_down_the_moment_a_greater_claim_is_here() -> None:
    """Before any tick: the next question is not decided any more."""
    stage = Stage()
    a, b, _ = parted(stage)
    lost = next(g for g in (1, 2, 3, 4) if fence_of(claim(a, g)) < fence_of(claim(b, g)))
    event = b.node.state.record.claim_event(lost)
    assert event is not None
    assert lost in serves(a)
    stage.flows = False
    a.give(b, (event.origin, event.seq))
    seq = a.node.own_seq
    handle = ask_in(a, "KA1", lost)
    assert a.node.own_seq == seq
    assert a.answer(handle) is None
    assert lost not in serves(a)


def test_after_a_partition_each_gate_has_the_owner_with_the_greatest_fence() -> None:
    stage = Stage()
    a, b, c = parted(stage)
    greatest = {
        gate: max(fence_of(claim(a, gate)), fence_of(claim(b, gate))) for gate in (1, 2, 3, 4)
    }
    stage.heal()
    wait_until(stage, lambda: is_whole([a, b, c]), 5_000)
    first = {gate: fence_of(claim(a, gate)) for gate in (1, 2, 3, 4)}
    assert all(first[gate] >= greatest[gate] for gate in greatest)
    assert any(first[gate] == greatest[gate] for gate in greatest)
    stage.pass_ms(15_000)
    assert is_whole([a, b, c])
    assert all(serves(box) for box in (a, b, c))


def disputed(box: Box) -> set[int]:
    """The gates that its status says two had."""
    lines = [line for line in status(box).warnings if line.startswith("contested")]
    return {int(number) for line in lines for number in re.findall(r"\d+", line)}


def disputes(box: Box) -> dict[int | None, set[object]]:
    """(gate: who had it) as its journal tells; each dispute is one line."""
    lines = box.lines("gate_contested")
    told = {line.gate: set(dict(line.detail)["claims"]) for line in lines}  # type: ignore[call-overload]
    assert len(told) == len(lines)
    return told


@pytest.mark.parametrize(("names", "alone", "ms"), CUTS)
def test_every_node_comes_to_tell_of_all_gates_that_two_had(
    names: str, alone: str, ms: int
) -> None:
    """On either side, and of gates of others too; who had a gate is in what each tells of it."""
    stage = Stage()
    boxes = stage.found(*names, gates=5)
    stage.cut(*alone)
    stage.pass_ms(ms)
    sides = [
        [box for box in boxes if (box.name in alone) is is_alone] for is_alone in (True, False)
    ]
    for side in sides:
        assert set().union(*map(serves, side)) == {1, 2, 3, 4, 5}
        assert not any(map(disputed, side)), "nobody can know yet"
    stage.heal()
    stage.pass_ms(3_000)
    assert [disputed(box) for box in boxes] == [{1, 2, 3, 4, 5}] * len(boxes)
    for box in boxes:
        assert gate_states(box) == {"served"}
        assert set(disputes(box)) == {1, 2, 3, 4, 5}
        assert all(len(had) > 1 for had in disputes(box).values())
    stage.pass_ms(60_000)
    assert all(set(disputes(box)) == {1, 2, 3, 4, 5} for box in boxes), "told once"


def test_who_could_not_hear_the_dispute_when_it_was_found_is_told_as_soon_as_it_can() -> None:
    """a meets b, and c, who was never cut off from b, meets a some seconds later."""
    stage = Stage()
    a, b, c = parted(stage)
    stage.heal()
    stage.cuts.add(frozenset(("a", "c")))
    stage.pass_ms(4_000)
    stage.heal()
    stage.pass_ms(1_000)
    assert disputed(a) == disputed(b) == disputed(c) == {1, 2, 3, 4}


def test_two_owners_are_noticed_even_if_one_has_stepped_down_before_the_other_hears_it() -> None:
    """a comes to know of the claims of b through c, and b hears a only after that."""
    stage = Stage()
    a, b, _ = parted(stage, 3_000)
    taken = {gate for gate in (1, 2, 3, 4) if claim(b, gate).owner == "b" != claim(a, gate).owner}
    lost = {gate for gate in taken if fence_of(claim(a, gate)) < fence_of(claim(b, gate))}
    assert lost
    stage.heal()
    stage.cuts.add(frozenset(("a", "b")))
    stage.pass_ms(500)
    assert not serves(a) & lost
    assert not disputed(b) & lost
    stage.heal()
    stage.pass_ms(1_000)
    assert lost <= disputed(b)


def test_a_gate_is_contested_while_somebody_hears_two_nodes_that_serve_it() -> None:
    """a and b cannot hear each other, c hears both; and the claims cannot pass."""
    stage = Stage()
    a, b, c = parted(stage)
    stage.holds = (Delta, PullReply)
    stage.cuts = {frozenset(("a", "b"))}
    stage.pass_ms(1_000)
    both = serves(a) & serves(b)
    assert both
    assert status(c).gates_contested == tuple(sorted(both))
    row = rows(c)[min(both)]
    assert (row.state, set(row.claims)) == ("contested", {"a", "b"})
    assert row.owner in row.claims
    stage.heal()
    stage.release()
    stage.pass_ms(500)
    assert is_whole([a, b, c])


def test_who_hears_that_a_gate_is_served_under_a_greater_claim_steps_down_before_that_comes() -> (
    None
):
    """The claims cannot pass, the heartbeats can: one owner for each gate, and all know it."""
    stage = Stage()
    a, b, c = parted(stage)
    stage.holds = (Delta, PullReply)
    stage.heal()
    stage.pass_ms(1_000)
    assert gate_states(a) == gate_states(b) == gate_states(c) == {"served"}
    before = [claims(box) for box in (a, b, c)]
    assert sorted([*serves(a), *serves(b), *serves(c)]) == [1, 2, 3, 4]
    assert serves(a), "its claims are the greater ones at some gate"
    assert serves(a) != {1, 2, 3, 4}, "and not at all of them"
    stage.pass_ms(10_000)
    assert [claims(box) for box in (a, b, c)] == before, "nobody takes for an orphan what is served"
    stage.release()
    stage.pass_ms(500)
    assert is_whole([a, b, c])
    assert "contested" in warnings(a)


def test_a_claim_that_was_only_heard_of_bars_nobody_once_its_owner_is_gone() -> None:
    """a steps down for b, whose claims never come, and b is gone; is back; and is gone for good."""
    stage = Stage()
    a, b, _ = parted(stage)
    stage.holds = (Delta, PullReply)
    stage.heal()
    stage.pass_ms(1_000)
    stepped_down = {1, 2, 3, 4} - serves(a)
    assert stepped_down & serves(b)
    stage.cut("a")
    wait_until(stage, lambda: serves(a) == {1, 2, 3, 4}, 5_000)
    stage.heal()
    wait_until(stage, lambda: serves(a) == {1, 2, 3, 4} - stepped_down, 1_500)
    b.kill()
    stage.cut("a")
    wait_until(stage, lambda: serves(a) == {1, 2, 3, 4}, 5_000)


def test_a_claim_that_was_only_heard_of_counts_no_more_when_its_owner_has_given_the_gate_up() -> (
    None
):
    stage = Stage()
    a, b = stage.found("a", "b")
    stage.cut("a")
    stage.pass_ms(5_000)
    stage.holds = (Delta, PullReply)
    stage.heal()
    stage.pass_ms(1_000)
    stepped_down = {1, 2, 3, 4} - serves(a)
    assert stepped_down
    assert stepped_down <= serves(b)
    b.disk.fail("disk full")
    b.submit(Track("KB1", 1, None))
    stage.pass_ms(1_800)
    assert not stepped_down & serves(a)
    stage.pass_ms(1_000)
    assert serves(a) == {1, 2, 3, 4}


def test_no_fence_is_lower_than_one_that_the_gate_has_seen() -> None:
    """Through a partition, its end, a death and a restart: what a barrier would have let pass."""
    stage = Stage()
    a, b, c = parted(stage)
    barrier = Barrier()
    boxes = [a, b, c]

    def look() -> None:
        whole = is_whole([box for box in boxes if box.runs])
        for box in boxes:
            for gate in serves(box) if whole and box.runs else ():
                assert barrier.admits(gate, fence_of(claim(box, gate)))

    steps: list[Callable[[], object]] = [
        stage.heal,
        b.kill,
        lambda: b.start(knows=["a", "c"]),
        lambda: c.start(knows=["a", "b"]),
        lambda: stage.cut("c"),
        stage.heal,
    ]
    for step in steps:
        step()
        for _ in range(150):
            stage.pass_ms(100)
            look()
    assert is_whole(boxes)


# --- pauses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["sockets", "timers", "command", "question"])
def test_gates_stop_before_anything_else_after_a_pause_of_two_seconds(first: str) -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    gate = min(serves(b))
    held = claim(b, gate)
    seq = b.node.own_seq
    b.pause()
    stage.pass_ms(1_700)
    if first == "question":
        stage.holds = (EnterAsk,)
        ask_in(a, "KA1", gate)
        stage.holds = ()
    stage.flows = False
    stage.pass_ms(300)
    b.is_paused = False
    if first == "sockets":
        stage.deliver(next(each for each in stage.letters if each.target == "b"))
    elif first == "timers":
        b.tick()
    elif first == "command":
        b.submit(AskToEnter("KB1", gate, None))
    else:
        stage.deliver(stage.waiting(EnterAsk, b)[0])
    assert b.heard("gates_stopped")
    assert b.node.own_seq == seq, "nothing was decided"
    assert claim(b, gate) == held, "the claim is still the greatest it knows"
    assert not serves(b)
    b.tick()
    assert not serves(b)
    assert beats(b)[-1].gates is None


@pytest.mark.parametrize("sockets_first", [True, False])
def test_gates_go_on_after_an_exchange_and_not_before(sockets_first: bool) -> None:
    stage = Stage()
    _, b, _ = stage.found("a", "b", "c")
    kept = serves(b)
    before = claims(b)
    b.pause()
    stage.pass_ms(1_600)
    stage.holds = (PullReply,)
    b.wake(sockets_first=sockets_first)
    stage.pass_ms(700)
    assert not serves(b)
    stage.release()
    stage.pass_ms(200)
    assert serves(b) == kept
    assert claims(b) == before


@pytest.mark.parametrize("sockets_first", [True, False])
@pytest.mark.parametrize("ms", [2_500, 60_000])
def test_a_node_that_slept_until_others_had_its_gates_never_serves_them_beside_the_others(
    ms: int, sockets_first: bool
) -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    assert serves(b)
    b.pause()
    stage.pass_ms(ms)
    assert is_whole([a, c])
    b.wake(sockets_first=sockets_first)
    for _ in range(400):
        both = serves(b) & (serves(a) | serves(c))
        assert not both
        stage.pass_ms(5)
    stage.pass_ms(8_000)
    assert is_whole([a, b, c])
    assert serves(b)


@pytest.mark.parametrize("sockets_first", [True, False])
@pytest.mark.parametrize("ms", [600, 1_700, 2_500, 60_000])
def test_a_mere_pause_leaves_no_warning_of_two_owners(ms: int, sockets_first: bool) -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.pause()
    stage.pass_ms(ms)
    b.wake(sockets_first=sockets_first)
    stage.pass_ms(5_000)
    for box in (a, b, c):
        assert "contested" not in warnings(box)
        assert "gates_contested" not in box.node.counters


def test_who_wakes_cut_off_from_all_serves_nothing_before_they_are_dead_to_it() -> None:
    """To fall silent is not enough: they serve its gates, and the cut may be over in a moment."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    a.pause()
    stage.cut("a")
    stage.pass_ms(3_000)
    a.wake(sockets_first=False)
    while "alive" in states(a).values() or "suspect" in states(a).values():
        assert not serves(a)
        stage.pass_ms(50)
    stage.pass_ms(500)
    assert serves(a) == {1, 2, 3, 4}
    stage.heal()
    stage.pass_ms(3_000)
    assert is_whole([a, b, c])


@pytest.mark.parametrize("sockets_first", [True, False])
def test_who_was_alone_and_wakes_looks_first_who_has_come(sockets_first: bool) -> None:
    """It knew of nobody when it fell asleep: that is old news by now."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.cut("a")
    a.stop()
    stage.pass_ms(3_000)
    a.start()
    stage.pass_ms(1_000)
    assert not serves(a)
    a.pause()
    stage.heal()
    stage.pass_ms(6_000)
    a.wake(sockets_first=sockets_first)
    assert not serves(a)
    assert a.node.counters["gates_claimed"] == 0
    stage.pass_ms(5_000)
    assert is_whole([a, b, c])


def test_who_is_alone_serves_again_soon_after_it_woke() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.pause()
    stage.pass_ms(10_000)
    a.wake(sockets_first=False)
    assert not serves(a)
    stage.pass_ms(a.node.settings.pause_quiet_ms + 1_000)
    assert serves(a) == {1, 2, 3, 4}


@pytest.mark.parametrize("end", [Box.stop, Box.kill, lambda box: box.submit(Leave(), 10_000)])
def test_an_owner_that_is_gone_leaves_no_warning_of_two_owners(
    end: Callable[[Box], object],
) -> None:
    stage = Stage()
    a, b, c, d = stage.found("a", "b", "c", "d", gates=8)
    end(b)
    stage.pass_ms(10_000)
    assert not b.runs
    for box in (a, c, d):
        assert "contested" not in warnings(box)


@pytest.mark.parametrize("sockets_first", [True, False])
def test_a_death_that_a_node_slept_through_leaves_no_warning_of_two_owners(
    sockets_first: bool,
) -> None:
    """At its waking a finds the last heartbeats of b and what c has claimed since."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    assert serves(b)
    a.pause()
    stage.pass_ms(400)
    b.stop()
    stage.pass_ms(4_000)
    assert state(c, "b") == "dead"
    a.wake(sockets_first=sockets_first)
    stage.pass_ms(5_000)
    assert is_whole([a, c])
    for box in (a, c):
        assert "contested" not in warnings(box)


def with_a_failing_disk() -> tuple[Stage, Box, Box, Box]:
    """b can serve nothing any more."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.disk.fail("disk full")
    b.submit(Track("KB1", 1, None))
    return stage, a, b, c


def test_a_gate_whose_owner_gave_it_up_was_never_served_twice() -> None:
    """Its disk failed, others took its gates; later it is cut off, goes on running and returns."""
    stage, a, b, c = with_a_failing_disk()
    wait_until(stage, lambda: serves(a) | serves(c) == {1, 2, 3, 4}, 5_000)
    assert not any(map(disputed, (a, b, c)))
    stage.cut("b")
    stage.pass_ms(10_000)
    stage.heal()
    stage.pass_ms(3_000)
    assert not any(map(disputed, (a, b, c)))


def test_a_disk_that_recovers_when_others_have_its_gates_has_not_served_them_too() -> None:
    stage, a, b, c = with_a_failing_disk()
    wait_until(stage, lambda: serves(a) | serves(c) == {1, 2, 3, 4}, 5_000)
    b.disk.recover()
    b.persist()
    stage.pass_ms(3_000)
    assert is_whole([a, b, c])
    assert not any(map(disputed, (a, b, c)))


def test_a_disk_that_recovers_just_before_others_take_its_gates_has_not_either() -> None:
    """They have not heard yet that it names them again; they could hear each other all the time."""
    stage, a, b, c = with_a_failing_disk()
    had = {1, 2, 3, 4} - serves(a) - serves(c)
    stage.pass_ms(1_950)
    assert not had & (serves(a) | serves(c))
    stage.holds = (Heartbeat,)
    b.disk.recover()
    b.persist()
    assert serves(b) == had
    wait_until(stage, lambda: not serves(b), 500)
    stage.release()
    stage.pass_ms(3_000)
    assert is_whole([a, b, c])
    assert not any(map(disputed, (a, b, c)))


def test_more_gates_with_two_owners_than_a_heartbeat_may_name_take_turns() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=400)
    stage.cut("a")
    stage.pass_ms(3_000)
    stage.heal()
    stage.pass_ms(3_000)
    told = [beat.contested for box in (a, b, c) for beat in beats(box)]
    assert max(map(len, told)) == DISPUTES_MAX
    assert disputed(a) == disputed(b) == disputed(c) == set(range(1, 401))
