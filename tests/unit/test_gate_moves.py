"""Gates that change hands: moves, releases, partitions and pauses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from parkingd.core.events import Claim
from parkingd.core.gates import PHASE_OWNED, PHASE_RELEASED, Barrier, fence_of
from parkingd.protocol.commands import AskToEnter, Leave
from parkingd.protocol.messages import Delta, EnterAsk, PullReply
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
    states,
    status,
    wait_until,
    warnings,
)


def history(stage: Stage, gate: int) -> list[Claim]:
    """Every claim ever made to this gate, by epoch."""
    made = {
        (event.origin, event.seq): event.body
        for box in stage.boxes.values()
        for event in box.node.state.record.events.values()
        if isinstance(event.body, Claim) and event.body.gate == gate
    }
    return sorted(made.values(), key=lambda body: body.epoch)


def joins(stage: Stage, name: str, replica: int, *knows: str) -> tuple[Box, int]:
    """A box that has just become a member, and when."""
    box = stage.box(name, replica).start(knows=knows)
    others = [stage.boxes[other] for other in knows]
    wait_until(stage, lambda: all(name in states(other) for other in others))
    return box, stage.mono_ms


# --- moves -----------------------------------------------------------------------------------


def test_a_joiner_gets_its_share_when_it_has_lived_for_three_seconds() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    b, joined_ms = joins(stage, "b", 2, "a")
    stage.pass_ms(joined_ms + 2_950 - stage.mono_ms)
    assert not serves(b)
    stage.pass_ms(300)
    assert len(serves(a)) == len(serves(b)) == 2
    assert is_whole([a, b])


def test_a_move_waits_until_the_view_has_been_stable_for_300_ms() -> None:
    """c becomes a member just before the share of b is due."""
    stage = Stage()
    stage.found("a")
    b, joined_ms = joins(stage, "b", 2, "a")
    stage.pass_ms(joined_ms + 2_700 - stage.mono_ms)
    c = stage.box("c", 3).start(knows=["a", "b"])
    wait_until(stage, lambda: any(beat.gates is not None for beat in beats(c)))
    live_ms = stage.mono_ms
    assert live_ms < joined_ms + 3_000
    stage.pass_ms(joined_ms + 3_000 - stage.mono_ms)
    assert not serves(b)
    wait_until(stage, lambda: bool(serves(b)))
    assert live_ms + 300 <= stage.mono_ms <= live_ms + 700


def test_the_same_gate_moves_at_most_every_five_seconds() -> None:
    """b has just got two gates when c and d have a right to one each."""
    stage = Stage()
    (a,) = stage.found("a")
    b, joined_ms = joins(stage, "b", 2, "a")
    wait_until(stage, lambda: len(serves(b)) == 2)
    moved_ms = stage.mono_ms
    c, _ = joins(stage, "c", 3, "a", "b")
    d, _ = joins(stage, "d", 4, "a", "b")
    stage.pass_ms(moved_ms + 4_900 - stage.mono_ms)
    assert sorted(len(serves(box)) for box in (a, b, c, d)) == [0, 1, 1, 2]
    assert len(serves(b)) == 2
    stage.pass_ms(500)
    assert [len(serves(box)) for box in (a, b, c, d)] == [1, 1, 1, 1]
    assert joined_ms < moved_ms


def test_the_owner_releases_and_the_target_accepts_at_the_next_epoch() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    b, _ = joins(stage, "b", 2, "a")
    seen: dict[int, list[tuple[int, str, int, str | None]]] = {gate: [] for gate in range(1, 5)}
    while len(serves(b)) < 2:
        for gate, steps in seen.items():
            greatest = claim(a, gate)
            step = (greatest.epoch, greatest.owner, greatest.phase, greatest.target)
            if step not in steps:
                steps.append(step)
        stage.holds = (Delta,)
        stage.pass_ms(5)
        for box in (a, b):
            letters = stage.waiting(Delta, box)
            if letters:
                stage.deliver(letters[0])
    stage.release()
    for gate in serves(b):
        assert seen[gate] == [(1, "a", PHASE_OWNED, None), (2, "a", PHASE_RELEASED, "b")]
        assert claims(b)[gate] == (3, "b")


def test_an_owner_that_has_released_a_gate_serves_it_no_more() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    b, _ = joins(stage, "b", 2, "a")
    stage.holds = (Delta, PullReply)
    wait_until(stage, lambda: len(serves(a)) < 4)
    (gate,) = [gate for gate in (1, 2, 3, 4) if claim(a, gate).phase == PHASE_RELEASED][:1]
    assert rows(a)[gate].state == "moving"
    assert rows(a)[gate].claims == ()
    handle = ask_in(a, "KA1", gate, wait_ms=60_000)
    stage.pass_ms(200)
    assert a.answer(handle) is None
    assert gate not in dict(beats(a)[-1].gates or ())
    stage.release()
    stage.pass_ms(500)
    assert a.answer(handle).owner == "b"  # type: ignore[union-attr]
    assert gate in serves(b)


def released_and_unheard(stage: Stage) -> tuple[Box, Box, int]:
    """a, b, and a gate that a has released to b, which has not heard of it."""
    (a,) = stage.found("a")
    b, _ = joins(stage, "b", 2, "a")
    stage.holds = (Delta, PullReply)
    wait_until(stage, lambda: len(serves(a)) < 4)
    gate = next(gate for gate in (1, 2, 3, 4) if claim(a, gate).phase == PHASE_RELEASED)
    return a, b, gate


def test_an_unanswered_release_is_taken_back_after_two_seconds_at_two_epochs_more() -> None:
    stage = Stage()
    a, _, gate = released_and_unheard(stage)
    stage.pass_ms(1_900)
    assert (claim(a, gate).epoch, claim(a, gate).phase) == (2, PHASE_RELEASED)
    stage.pass_ms(200)
    assert claims(a)[gate] == (4, "a")
    assert gate in serves(a)
    assert a.node.counters["releases_unanswered"] >= 1


def test_a_gate_that_was_taken_back_is_not_offered_again_for_five_seconds() -> None:
    """Else it would be served by nobody as long as the target does not answer."""
    stage = Stage()
    a, _, gate = released_and_unheard(stage)
    wait_until(stage, lambda: gate in serves(a))
    taken_ms = stage.mono_ms
    stage.pass_ms(4_900)
    assert gate in serves(a)
    wait_until(stage, lambda: gate not in serves(a))
    assert stage.mono_ms < taken_ms + 5_500


def test_an_acceptance_that_comes_too_late_loses_against_the_taking_back() -> None:
    stage = Stage()
    a, b, gate = released_and_unheard(stage)
    stage.pass_ms(2_100)
    first, *later = stage.waiting(Delta, b)
    stage.deliver(first)
    b.tick()
    assert claims(b)[gate] == (3, "b")
    for letter in later:
        stage.deliver(letter)
    assert claims(b)[gate] == claims(a)[gate] == (4, "a")
    stage.release()
    stage.pass_ms(100)
    assert gate in serves(a)
    assert gate not in serves(b)


def test_a_gate_whose_target_died_is_taken_back_at_once() -> None:
    stage = Stage()
    a, b, gate = released_and_unheard(stage)
    b.kill()
    stage.pass_ms(200)
    assert claims(a)[gate] == (4, "a")
    assert is_whole([a])


def test_a_gate_whose_releaser_died_is_accepted_by_its_target() -> None:
    stage = Stage()
    a, b, gate = released_and_unheard(stage)
    (letter, *_) = stage.waiting(Delta, b)
    a.kill()
    stage.letters = [letter]
    stage.release()
    stage.pass_ms(1)
    assert claims(b)[gate] == (3, "b")
    stage.pass_ms(500)
    assert is_whole([b])


def test_a_gate_whose_releaser_and_target_died_is_claimed_by_another() -> None:
    """c has heard of the release, b has not."""
    stage = Stage()
    (a,) = stage.found("a")
    b, _ = joins(stage, "b", 2, "a")
    c, _ = joins(stage, "c", 3, "a")
    stage.holds = (Delta, PullReply)
    wait_until(stage, lambda: len(serves(a)) < 4)
    for letter in stage.waiting(Delta, c):
        stage.deliver(letter)
    given = {gate for gate in (1, 2, 3, 4) if claim(c, gate).phase == PHASE_RELEASED}
    assert given
    a.kill()
    b.kill()
    stage.letters.clear()
    stage.release()
    stage.pass_ms(500)
    assert is_whole([c])
    assert serves(c) == {1, 2, 3, 4}


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


def test_two_owners_that_meet_are_warned_of_on_both_sides_with_the_numbers_of_the_gates() -> None:
    stage = Stage()
    a, b, c = parted(stage)
    for box in (a, b, c):
        assert "contested" not in warnings(box), "nobody can know yet"
    stage.heal()
    stage.pass_ms(3_000)
    told = "contested: gates 1, 2, 3, 4 had two owners while nodes could not hear each other"
    assert told in warnings(a)
    assert any(told in warnings(box) for box in (b, c))
    assert gate_states(a) == gate_states(b) == gate_states(c) == {"served"}


def test_a_gate_is_contested_while_two_nodes_that_hear_each_other_serve_it() -> None:
    """The claims cannot pass, the heartbeats can."""
    stage = Stage()
    a, b, c = parted(stage)
    stage.holds = (Delta, PullReply)
    stage.heal()
    stage.pass_ms(1_000)
    for box in (a, b, c):
        assert gate_states(box) == {"contested"}
        assert status(box).gates_contested == (1, 2, 3, 4)
    row = rows(a)[1]
    assert row.owner in row.claims
    assert len(row.claims) == 2
    stage.release()
    stage.pass_ms(500)
    assert is_whole([a, b, c])


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
