"""Who is alive: suspicion, confirmation, refutation, and the own pauses."""

from __future__ import annotations

import pytest

from parkingd.protocol.commands import Leave, SetGates
from parkingd.protocol.facts import ConnectionFailed, LinkFailure, StorageFailed
from parkingd.protocol.messages import Heartbeat, Hello, Pull, RootQuery, Suspicion
from parkingd.protocol.outcomes import Change
from tests.unit.scripted import Box, Stage
from tests.unit.watching import (
    REQUEST,
    accused,
    beats,
    claim,
    claims,
    gate_states,
    is_whole,
    member,
    owners,
    say,
    serves,
    state,
    states,
    wait_until,
    warnings,
)


def silent_for(stage: Stage, box: Box, name: str, ms: int) -> None:
    """Let time pass until this box has not heard that member for so long."""
    stage.pass_ms(member(box, name).last_heard_ms + ms - stage.mono_ms)


# --- suspicion and confirmation --------------------------------------------------------------


def test_a_member_is_suspected_after_a_second_of_silence_and_the_others_are_told_at_once() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    b.stop()
    silent_for(stage, a, "b", 999)
    assert state(a, "b") == "alive"
    silent_for(stage, a, "b", 1_000)
    assert state(a, "b") == "suspect"
    stage.pass_ms(1)
    assert beats(a)[-1].suspicions == (Suspicion("b", b.incarnation, 0, refused=False),)


@pytest.mark.parametrize(
    ("others", "deaf", "dead"),
    [(1, 0, False), (1, 1, True), (2, 1, False), (2, 2, True), (4, 2, False), (4, 3, True)],
)
def test_a_suspect_is_dead_after_two_seconds_if_three_others_or_all_there_are_say_so(
    others: int, deaf: int, dead: bool
) -> None:
    """``deaf`` of the others do not hear it either."""
    stage = Stage()
    a, x, *rest = stage.found("a", "x", *"cdef"[:others])
    stage.cut_one_way(x, a, *rest[:deaf])
    silent_for(stage, a, "x", 1_999)
    assert state(a, "x") == "suspect"
    stage.pass_ms(20)
    assert (state(a, "x") == "dead") is dead
    stage.pass_ms(10_000)
    assert (state(a, "x") == "dead") is dead


def test_of_two_nodes_one_needs_nobody_to_confirm_the_death_of_the_other() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.stop()
    silent_for(stage, a, "b", 1_999)
    assert state(a, "b") == "suspect"
    silent_for(stage, a, "b", 2_000)
    assert state(a, "b") == "dead"


def test_silence_counts_also_where_connections_are_refused_again_and_again() -> None:
    """b, which cannot reach the machine of x, hears nothing of it; a is refused all the time."""
    stage = Stage()
    a, b, x = stage.found("a", "b", "x")
    stage.cuts.add(frozenset(("b", "x")))
    x.kill()
    for _ in range(12):
        stage.pass_ms(200)
        a.observe(ConnectionFailed(x.address, LinkFailure.REFUSED))
    assert state(a, "x") == state(b, "x") == "dead"


@pytest.mark.parametrize(("incarnation", "refutation"), [(0, 0), (-1, 1)])
def test_a_suspicion_of_an_earlier_refutation_or_incarnation_confirms_nothing(
    incarnation: int, refutation: int
) -> None:
    """c repeats what was true before b answered for itself, or was started again."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    a.receive(b.sender(None), Heartbeat(beats(b)[-1].beat + 1, 0, b.now.wall_ms, refutation=1))
    b.stop()
    c.pause()
    old = Suspicion("b", b.incarnation + incarnation, refutation)
    for beat in range(1_000, 1_020):
        say(c, a, beat, old)
        stage.pass_ms(200)
    assert state(a, "b") == "suspect"
    say(c, a, 1_020, Suspicion("b", b.incarnation, 1))
    stage.pass_ms(1)
    assert state(a, "b") == "dead"


def test_a_suspicion_that_was_not_repeated_for_a_second_confirms_nothing() -> None:
    """c says it once; then only other messages of c arrive."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.stop()
    c.pause()
    silent_for(stage, a, "b", 950)
    say(c, a, 1_000, Suspicion("b", b.incarnation, 0))
    for nonce in range(20):
        stage.pass_ms(100)
        a.receive(c.sender(c.route), RootQuery(nonce))
    assert states(a) == {"b": "suspect", "c": "alive"}


def test_who_reads_a_suspicion_of_itself_raises_its_number_and_answers_at_once() -> None:
    stage = Stage()
    _, b, c = stage.found("a", "b", "c")
    before = len(beats(b))
    say(c, b, 1_000, Suspicion("b", b.incarnation, 0))
    stage.pass_ms(1)
    assert [beat.refutation for beat in beats(b)[before:]] == [1]
    say(c, b, 1_001, Suspicion("b", b.incarnation, 0))
    say(c, b, 1_002, Suspicion("b", b.incarnation - 1, 7))
    stage.pass_ms(1)
    assert len(beats(b)) == before + 1, "an old suspicion needs no second answer"
    say(c, b, 1_003, Suspicion("b", b.incarnation, 1))
    stage.pass_ms(1)
    assert beats(b)[-1].refutation == 2


def test_a_suspect_that_is_heard_again_is_alive_and_has_lost_nothing() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    before = claims(a)
    stage.cut("b")
    silent_for(stage, a, "b", 1_800)
    assert state(a, "b") == state(c, "b") == "suspect"
    stage.heal()
    stage.pass_ms(300)
    assert state(a, "b") == state(c, "b") == state(b, "a") == "alive"
    stage.pass_ms(5_000)
    assert claims(a) == claims(b) == claims(c) == before


# --- who is over --------------------------------------------------------------------------------


def put_back(stage: Stage, box: Box, *others: Box) -> None:
    """It loses its disk, and comes back with a clock that shows a minute less."""
    box.stop(keep=False)
    wait_until(stage, lambda: {state(other, box.name) for other in others} == {"suspect"})
    box.skew_ms -= 60_000
    box.start(knows=[other.name for other in others])
    wait_until(stage, lambda: {state(other, box.name) for other in others} == {"alive"})


def test_who_has_missed_a_restart_is_told_by_the_others_that_the_one_before_is_over() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    before = c.incarnation
    c.stop()
    stage.cuts.add(frozenset(("a", "c")))
    c.start(knows=["b"])
    silent_for(stage, a, "c", 1_999)
    assert (state(a, "c"), state(b, "c")) == ("suspect", "alive")
    stage.pass_ms(300)
    assert (state(a, "c"), state(b, "c")) == ("dead", "alive")
    assert member(a, "c").incarnation == before < member(b, "c").incarnation


def test_two_who_know_that_one_has_left_do_not_tell_each_other_so_for_ever() -> None:
    stage = Stage()
    a, b, c, d = stage.found("a", "b", "c", "d")
    stage.cut_one_way(d, a)
    d.submit(Leave())
    wait_until(stage, lambda: state(a, "d") == "dead")
    assert (state(b, "d"), state(c, "d")) == ("left", "left")
    assert accused(beats(b)[-1]) == accused(beats(c)[-1]) == {"d"}
    a.stop()
    stage.pass_ms(12_000)
    assert accused(beats(b)[-1]) == accused(beats(c)[-1]) == {"a"}


def test_the_gates_of_one_that_was_replaced_by_one_with_an_earlier_clock_find_an_owner() -> None:
    """c comes back without its disk, and dies before it has heard what it owned."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.holds = (Pull,)
    put_back(stage, c, a, b)
    c.stop()
    stage.release()
    wait_until(stage, lambda: is_whole([a, b]), 6_000)


def test_a_claim_of_a_later_incarnation_is_no_evidence_that_the_one_we_know_is_over() -> None:
    """It may be of a disk that is lost. The last gate was c's, and there is no such gate while c
    comes back and a starts again; when there is one again, a hears nothing of c."""
    stage = Stage()
    boxes = stage.found("a", "b", "c")
    c = next(box for box in boxes if 4 in serves(box))
    a, b = (box for box in boxes if box is not c)
    a.ask(SetGates(3, REQUEST), Change)
    put_back(stage, c, a, b)
    a.stop()
    a.start(knows=[b.name, c.name])
    stage.pass_ms(6_000)
    assert claim(a, 4).incarnation > member(a, c.name).incarnation
    stage.cut_one_way(c, a)
    wait_until(stage, lambda: state(a, c.name) == "suspect")
    a.ask(SetGates(4, REQUEST[::-1]), Change)
    for _ in range(50):
        stage.pass_ms(100)
        assert state(a, c.name) == "suspect"
    stage.heal()
    wait_until(stage, lambda: is_whole(boxes))


def test_who_comes_back_with_an_earlier_clock_serves_its_gates_though_one_cannot_hear_it() -> None:
    """a knows it from before, as dead and with the greater number; b has met it. When the disk of b
    fails, a takes what b had served, and nothing of c."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=9)
    c.stop(keep=False)
    wait_until(stage, lambda: state(a, "c") == state(b, "c") == "dead")
    stage.cuts.add(frozenset(("a", "c")))
    c.skew_ms -= 60_000
    c.start(knows=["b"])
    wait_until(stage, lambda: "c" in {owner for _, owner in claims(a).values()})
    kept = serves(c)
    assert claim(a, min(kept)).incarnation == c.incarnation < member(a, "c").incarnation
    b.observe(StorageFailed("no space"))
    stage.pass_ms(5_000)
    assert kept <= serves(c)
    assert not kept & serves(a)
    assert serves(a) | serves(c) == set(range(1, 10))


# --- one-way links ---------------------------------------------------------------------------


def test_a_member_that_only_we_cannot_hear_stays_suspect_and_keeps_its_gates() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    before = claims(a)
    stage.cut_one_way(b, a)
    stage.pass_ms(30_000)
    assert (state(a, "b"), state(c, "b"), state(b, "a")) == ("suspect", "alive", "alive")
    assert claims(a) == claims(b) == claims(c) == before
    assert gate_states(a) == gate_states(b) == gate_states(c) == {"served"}


def test_the_warning_names_the_broken_link_where_it_is_broken_and_until_it_is_mended() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.cut_one_way(b, a)
    stage.pass_ms(5_000)
    assert "only this node does not hear b" in warnings(a)
    assert "does not hear" not in warnings(b) + warnings(c)
    stage.heal()
    stage.pass_ms(1_000)
    assert "does not hear" not in warnings(a)


# --- own pauses ------------------------------------------------------------------------------


@pytest.mark.parametrize("sockets_first", [True, False])
def test_a_node_that_stood_still_accuses_nobody_for_a_second(sockets_first: bool) -> None:
    """c dies while b stands still for 0.6 s: b says so a second after it woke, not before."""
    stage = Stage()
    _, b, c = stage.found("a", "b", "c")
    b.pause()
    c.stop()
    stage.pass_ms(600)
    before = len(beats(b))
    b.wake(sockets_first=sockets_first)
    stage.pass_ms(999)
    assert len(beats(b)) >= before + 3
    assert not any(accused(beat) for beat in beats(b)[before:])
    stage.pass_ms(2)
    assert accused(beats(b)[-1]) == {"c"}


@pytest.mark.parametrize("sockets_first", [True, False])
@pytest.mark.parametrize("ms", [600, 1_200, 1_900, 3_000, 60_000])
def test_a_node_that_stood_still_accuses_no_living_member(sockets_first: bool, ms: int) -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.pause()
    stage.pass_ms(ms)
    before = len(beats(b))
    b.wake(sockets_first=sockets_first)
    for _ in range(100):
        assert states(b) == {"a": "alive", "c": "alive"}
        stage.pass_ms(50)
    assert not any(accused(beat) for beat in beats(b)[before:])
    assert state(a, "b") == state(c, "b") == "alive"


def test_a_node_that_stood_still_counts_the_silence_of_others_from_its_waking() -> None:
    """c died when b fell asleep, and a says so: b waits for its own two seconds all the same."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    b.pause()
    c.stop()
    stage.pass_ms(1_400)
    b.wake(sockets_first=True)
    stage.pass_ms(1_100)
    assert (state(a, "c"), state(b, "c")) == ("dead", "suspect")
    stage.pass_ms(1_000)
    assert state(b, "c") == "dead"


def test_the_pause_of_one_and_a_half_seconds_costs_no_gate() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    before = claims(a)
    b.pause()
    stage.pass_ms(1_500)
    b.wake(sockets_first=False)
    stage.pass_ms(5_000)
    assert claims(a) == claims(b) == before


# --- strangers -------------------------------------------------------------------------------


def restart_all_but(stage: Stage, gone: Box) -> list[Box]:
    """Everything stops; all but this one start again and have never met it."""
    for box in stage.boxes.values():
        box.stop()
    stage.pass_ms(100)
    rest = [box for box in stage.boxes.values() if box is not gone]
    for box in rest:
        box.start(knows=[other.name for other in rest if other is not box])
    return rest


def test_an_owner_that_nobody_has_met_is_dead_after_two_seconds_and_its_gates_are_served() -> None:
    stage = Stage()
    a, c, x = stage.found("a", "c", "x")
    left_over = serves(x)
    assert left_over
    restart_all_but(stage, x)
    wait_until(stage, lambda: bool(serves(a) | serves(c)), 3_000)
    stage.pass_ms(1_500)
    assert not left_over & (serves(a) | serves(c)), "it may only be late"
    stage.pass_ms(1_000)
    assert serves(a) | serves(c) == {1, 2, 3, 4}
    assert gate_states(a) == gate_states(c) == {"served"}


def test_an_owner_that_nobody_has_met_needs_no_confirmation_when_we_are_alone() -> None:
    stage = Stage()
    a, x = stage.found("a", "x")
    restart_all_but(stage, x)
    stage.pass_ms(5_500)
    assert serves(a) == {1, 2, 3, 4}


def test_an_owner_that_we_have_not_met_keeps_its_gates_while_others_hear_it() -> None:
    stage = Stage()
    a, c, x = stage.found("a", "c", "x")
    kept = {gate: claims(a)[gate] for gate in serves(x)}
    assert kept
    a.stop()
    stage.pass_ms(500)
    stage.cuts.add(frozenset(("a", "x")))
    a.start(knows=["c"])
    stage.pass_ms(20_000)
    assert states(a) == {"c": "alive"}
    assert kept.items() <= claims(a).items()
    assert kept.keys() == serves(x)
    assert {owners(c)[gate] for gate in kept} == {"x"}


def test_an_owner_that_asks_us_something_lives_though_we_have_not_met_it() -> None:
    """x has heard the hello of a, and its answers are lost: of x arrives what it asks for only."""
    stage = Stage()
    a, x = stage.found("a", "x")
    kept = serves(x)
    assert kept
    a.stop()
    stage.holds = (Hello,)
    a.start(knows=["x"])
    stage.pass_ms(10)
    stage.deliver(stage.waiting(Hello, x)[0])
    for _ in range(20):
        stage.pass_ms(500)
        assert "x" not in states(a)
        assert not kept & serves(a)
    stage.release()
    wait_until(stage, lambda: is_whole([a, x]))
    assert kept <= serves(x)


def test_an_owner_that_was_heard_and_never_met_is_dead_when_it_asks_nothing_any_more() -> None:
    stage = Stage()
    a, x = stage.found("a", "x")
    a.stop()
    stage.holds = (Hello,)
    a.start(knows=["x"])
    stage.pass_ms(10)
    stage.deliver(stage.waiting(Hello, x)[0])
    stage.pass_ms(4_000)
    x.stop()
    wait_until(stage, lambda: serves(a) == {1, 2, 3, 4}, 6_000)


def test_a_joiner_whose_lot_is_not_known_yet_is_a_witness() -> None:
    """x hears b, and its word that it has joined is on its way to a."""
    stage = Stage()
    a, b = stage.found("a", "b")
    x = stage.box("x", 9)
    stage.holds = (Hello,)
    x.start(knows=["a", "b"])
    stage.pass_ms(10)
    for target in (a, b):
        stage.deliver(stage.waiting(Hello, target)[0])
    for answer in stage.waiting(Hello, x):
        stage.deliver(answer)
    assert states(x) == {"a": "alive", "b": "alive"}
    assert (member(a, "x").lot, x.node.lot) == (None, a.node.lot)
    stage.cut_one_way(b, a)
    stage.pass_ms(5_000)
    assert states(a) == {"b": "suspect", "x": "alive"}


@pytest.mark.parametrize("gates", [1, 4])
def test_a_joiner_that_has_never_met_the_dead_does_not_block_its_death(gates: int) -> None:
    """d is alive for the others when b has been silent for two seconds, so d must say it too;
    with one gate it knows of b only what they say, else b's claims too."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=gates)
    assert bool(serves(b)) is (gates > 1)
    b.stop()
    silent_for(stage, a, "b", 1_800)
    d = stage.box("d", 9).start(knows=["a", "c"])
    silent_for(stage, a, "b", 2_300)
    assert state(a, "d") == "alive"
    assert state(a, "b") == state(c, "b") == "dead"
    assert "b" not in states(d)
    silent_for(stage, a, "b", 3_700)  # d, which has fewest, gets the orphans, and judges too.
    assert gate_states(a) == gate_states(d) == {"served"}


def test_a_member_of_another_lot_does_not_block_a_death_either() -> None:
    """x is heard with a younger lot and hears nobody, so that it keeps it: it knows neither b nor
    any claim of b, and will never say that it suspects it."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    x = stage.box("x", 9)
    for box in (a, b, c):
        stage.cut_one_way(box, x)
    x.start(knows=["a", "c"])
    for box in (a, c):
        wait_until(stage, lambda box=box: "x" in states(box) and member(box, "x").lot is not None)
    b.stop()
    silent_for(stage, a, "b", 2_300)
    assert states(a) == {"b": "dead", "c": "alive", "x": "alive"}
    assert serves(a) | serves(c) == {1, 2, 3, 4}


def four_of_whom_two_never_met(stage: Stage) -> list[Box]:
    """a, b, c and x, where c has started again and cannot meet x, which serves nothing."""
    a, b, c, x = stage.found("a", "b", "c", "x", gates=1)
    c.stop()
    stage.cuts.add(frozenset(("c", "x")))
    c.start(knows=["a", "b"])
    stage.pass_ms(2_000)
    assert "x" not in states(c)
    return [a, b, c, x]


def test_who_never_met_the_dead_confirms_it_to_each_who_begins_to_suspect_it() -> None:
    """Only b could not hear x, and c has repeated that for a while and fallen silent."""
    stage = Stage()
    a, b, c, x = four_of_whom_two_never_met(stage)
    stage.cut_one_way(x, b)
    stage.pass_ms(8_000)
    assert (accused(beats(b)[-1]), accused(beats(c)[-1])) == ({"x"}, set())
    b.stop()
    x.stop()
    silent_for(stage, a, "x", 2_300)
    assert states(a) == {"b": "dead", "c": "alive", "x": "dead"}


def test_who_never_met_the_dead_confirms_it_again_to_who_has_said_so_for_long() -> None:
    """a never heard x, b did; now both are gone, and nobody else can tell."""
    stage = Stage()
    a, b, c, x = four_of_whom_two_never_met(stage)
    stage.cut_one_way(x, a)
    stage.pass_ms(8_000)
    assert (state(a, "x"), accused(beats(c)[-1])) == ("suspect", set())
    b.stop()
    x.stop()
    wait_until(stage, lambda: states(a) == {"b": "dead", "c": "alive", "x": "dead"}, 6_000)


def test_an_owner_that_nobody_has_met_is_not_accused_any_more_when_it_owns_nothing() -> None:
    stage = Stage()
    a, c, x = stage.found("a", "c", "x")
    restart_all_but(stage, x)
    wait_until(stage, lambda: accused(beats(a)[-1]) == accused(beats(c)[-1]) == {"x"})
    stage.pass_ms(20_000)
    assert serves(a) | serves(c) == {1, 2, 3, 4}
    assert not accused(beats(a)[-1]) | accused(beats(c)[-1])


def test_a_stranger_of_whom_nobody_speaks_any_more_is_not_accused() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    say(c, a, 1_000, Suspicion("ghost", 1, 0))
    stage.pass_ms(1_100)
    assert any(accused(beat) == {"ghost"} for beat in beats(a))
    stage.pass_ms(6_000)
    assert not accused(beats(a)[-1])
    assert not accused(beats(b)[-1])
    assert states(a) == {"b": "alive", "c": "alive"}
