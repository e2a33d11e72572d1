"""Gates that change hands: moves, releases, acceptances, and what a leaver hands over."""

from __future__ import annotations

from parkingd.core.events import Claim
from parkingd.core.gates import PHASE_OWNED, PHASE_RELEASED
from parkingd.protocol.commands import Leave, ReadStatus, Track
from parkingd.protocol.effects import Stop
from parkingd.protocol.messages import Delta, Goodbye, Heartbeat, Pull, PullReply
from parkingd.protocol.outcomes import Status
from tests.unit.scripted import Box, Stage
from tests.unit.watching import (
    ask_in,
    beats,
    claim,
    claims,
    gate_states,
    is_whole,
    owners,
    rows,
    serves,
    state,
    states,
    wait_until,
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
    stage.pass_ms(800)
    assert len(serves(a)) == len(serves(b)) == 2
    assert is_whole([a, b])


def test_who_died_three_times_in_a_minute_gets_no_gate_for_half_a_minute_and_it_shows() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    for _ in range(3):
        b.kill()
        wait_until(stage, lambda: len(serves(a)) == 4)
        died_ms = stage.mono_ms
        b.start(knows=["a"])
        stage.pass_ms(1_000)
    assert any("b died 3 times" in line for line in a.ask(ReadStatus(), Status).warnings)
    wait_until(stage, lambda: len(serves(b)) > 0, 40_000)
    assert stage.mono_ms >= died_ms + 29_000
    assert not any("b died" in line for line in a.ask(ReadStatus(), Status).warnings)


def test_a_move_waits_until_the_view_has_been_stable_for_300_ms() -> None:
    """b has been there all the time, and can serve again since its disk has recovered."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.disk.fail("disk full")
    b.submit(Track("KB1", 1, None))
    stage.pass_ms(12_000)
    assert is_whole([a, c])
    b.disk.recover()
    b.persist()
    wait_until(stage, lambda: beats(b)[-1].gates is not None)
    able_ms = stage.mono_ms
    wait_until(stage, lambda: "moving" in gate_states(a) | gate_states(c) or bool(serves(b)))
    assert able_ms + 290 <= stage.mono_ms <= able_ms + 1_000


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
    stage.pass_ms(800)
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
    stage.pass_ms(700)
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
    assert stage.mono_ms < taken_ms + 6_000


def test_an_acceptance_that_comes_too_late_loses_against_the_taking_back() -> None:
    stage = Stage()
    a, b, gate = released_and_unheard(stage)
    stage.pass_ms(1_800)
    stage.holds = (Delta, PullReply, Heartbeat)
    stage.pass_ms(800)
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


def test_a_release_that_comes_when_the_owner_says_it_serves_again_is_not_accepted() -> None:
    stage = Stage()
    a, b, gate = released_and_unheard(stage)
    stage.pass_ms(2_900)
    assert dict(beats(a)[-1].gates or ())[gate] == claim(a, gate).epoch == 4
    stage.deliver(stage.waiting(Delta, b)[0])
    b.tick()
    assert claims(b)[gate] == (2, "a")


def test_a_release_whose_acceptance_was_only_heard_of_is_taken_back_when_that_owner_dies() -> None:
    stage = Stage()
    a, b, gate = released_and_unheard(stage)
    stage.deliver(stage.waiting(Delta, b)[0])
    stage.pass_ms(400)
    assert dict(beats(b)[-1].gates or ())[gate] == 3
    stage.pass_ms(3_000)
    assert claims(a)[gate] == (2, "a"), "it is served, and nobody takes it back"
    b.stop()
    wait_until(stage, lambda: serves(a) == {1, 2, 3, 4}, 4_000)


def test_nothing_moves_in_the_moment_in_which_a_node_wakes() -> None:
    """Whom it takes for alive may have gone meanwhile: what is in its sockets says so."""
    stage = Stage()
    (a,) = stage.found("a")
    b, joined_ms = joins(stage, "b", 2, "a")
    stage.pass_ms(joined_ms + 2_500 - stage.mono_ms)
    a.pause()
    stage.pass_ms(900)
    a.wake(sockets_first=False)
    stage.pass_ms(200)
    assert serves(a) == {1, 2, 3, 4}
    stage.pass_ms(3_000)
    assert len(serves(a)) == len(serves(b)) == 2


def test_nothing_moves_to_a_node_that_was_suspected_a_moment_ago() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    b, joined_ms = joins(stage, "b", 2, "a")
    stage.pass_ms(joined_ms + 2_300 - stage.mono_ms)
    stage.cut("b")
    wait_until(stage, lambda: state(a, "b") == "suspect")
    stage.heal()
    wait_until(stage, lambda: state(a, "b") == "alive")
    assert stage.mono_ms > joined_ms + 3_000, "old enough"
    stage.pass_ms(200)
    assert serves(a) == {1, 2, 3, 4}
    stage.pass_ms(3_000)
    assert len(serves(a)) == len(serves(b)) == 2


# --- leaving ---------------------------------------------------------------------------------


def test_who_leaves_has_handed_over_every_gate_before_its_goodbye() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=6)
    assert serves(b)
    b.submit(Leave(), 10_000)
    while not b.has_sent(Goodbye):
        served = [gate for gate in range(1, 7) if claim(b, gate).phase == PHASE_OWNED]
        assert b.runs
        stage.pass_ms(1)
    assert served == [1, 2, 3, 4, 5, 6]
    assert "b" not in owners(a).values()
    assert is_whole([a, c])
    assert isinstance(b.end, Stop)


def test_a_gate_released_by_who_leaves_is_served_again_in_the_same_moment() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=6)
    start_ms = stage.mono_ms
    b.submit(Leave(), 10_000)
    wait_until(stage, lambda: set(owners(a).values()) == {"a", "c"})
    assert stage.mono_ms - start_ms < 50
    assert is_whole([a, c])


def test_who_leaves_waits_until_the_last_of_its_gates_is_accepted() -> None:
    """c stands still; a has everything that b ever said on its disk, and that is not enough."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=6)
    c.pause()
    b.submit(Leave(), 10_000)
    stage.pass_ms(800)
    assert {row.target for row in rows(a).values() if row.state == "moving"} == {"c"}
    assert not b.has_sent(Goodbye)
    c.wake(sockets_first=True)
    stage.pass_ms(300)
    assert isinstance(b.end, Stop)
    assert is_whole([a, c])


def test_who_leaves_waits_for_the_acceptance_of_its_gates_but_not_for_ever() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    stage.holds = (Delta, PullReply, Pull)
    b.submit(Leave(), 10_000)
    stage.pass_ms(2_900)
    assert b.runs
    assert not b.has_sent(Goodbye)
    stage.pass_ms(300)
    assert isinstance(b.end, Stop)
    stage.release()
    stage.pass_ms(500)
    assert is_whole([a])


def test_who_leaves_gives_its_gates_to_those_it_hears() -> None:
    """c has left, and b has missed its goodbye."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=6)
    stage.cuts = {frozenset("bc")}
    c.submit(Leave(), 10_000)
    wait_until(stage, lambda: isinstance(c.end, Stop))
    stage.heal()
    wait_until(stage, lambda: state(b, "c") == "suspect")
    assert serves(b)
    b.submit(Leave(), 10_000)
    stage.pass_ms(100)
    assert serves(a) == {1, 2, 3, 4, 5, 6}
    assert isinstance(b.end, Stop)


def test_who_leaves_alone_leaves_at_once() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.submit(Leave(), 10_000)
    stage.pass_ms(1)
    assert isinstance(a.end, Stop)


def test_who_leaves_gets_no_gate_back_and_takes_no_orphan() -> None:
    """c dies while b leaves and its last word to a is held up."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=6)
    stage.holds = (Pull, PullReply)
    b.submit(Leave(), 10_000)
    stage.pass_ms(50)
    assert not serves(b)
    c.kill()
    stage.pass_ms(500)
    assert serves(a) == {1, 2, 3, 4, 5, 6}
    assert not serves(b)
