"""Serving gates: who claims what and when, and who may not."""

from __future__ import annotations

from parkingd.protocol.commands import Condition, Leave, SetGates, Track, WaitFor
from parkingd.protocol.messages import (
    Delta,
    Goodbye,
    Heartbeat,
    Pull,
    PullReply,
    SnapshotRequest,
)
from parkingd.protocol.outcomes import Change, Wait
from tests.unit.scripted import Box, Letter, Stage
from tests.unit.watching import (
    ask_in,
    beats,
    claim,
    claims,
    enter,
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


def epochs(box: Box) -> dict[int, int]:
    """Of the greatest claims."""
    return {gate: epoch for gate, (epoch, _) in claims(box).items()}


def shares(boxes: list[Box]) -> list[int]:
    """How many gates each serves, fewest first."""
    return sorted(len(serves(box)) for box in boxes)


# --- claiming --------------------------------------------------------------------------------


def test_the_founder_claims_every_gate() -> None:
    stage = Stage()
    a = stage.box("a", 1, gates=5).start()
    stage.pass_ms(1_700)
    assert claims(a) == dict.fromkeys(range(1, 6), (1, "a"))
    assert serves(a) == {1, 2, 3, 4, 5}
    assert status(a).gates_owned == (1, 2, 3, 4, 5)


def test_a_claim_is_shown_to_nobody_before_it_is_on_disk() -> None:
    stage = Stage()
    a = stage.box("a", 1)
    a.start()
    stage.pass_ms(1_400)
    a.commits = False
    stage.pass_ms(1_000)
    assert claims(a)[1] == (1, "a")
    assert {beat.gates for beat in beats(a)} <= {None, ()}
    a.commits = True
    a.persist()
    stage.pass_ms(300)
    assert beats(a)[-1].gates == ((1, 1), (2, 1), (3, 1), (4, 1))


def test_a_joiner_claims_nothing_before_one_exchange() -> None:
    """It has heard of the lot, and of nothing that was claimed in it."""
    stage = Stage()
    (a,) = stage.found("a")
    stage.holds = (PullReply, Delta)
    b = stage.box("b", 2).start(knows=["a"])
    stage.pass_ms(8_000)
    assert {beat.gates for beat in beats(b)} == {None}
    assert claims(a) == dict.fromkeys(range(1, 5), (1, "a"))
    stage.release()
    wait_until(stage, lambda: len(serves(a)) == 2)
    assert is_whole([a, b])


def test_a_restarted_node_claims_nothing_before_one_exchange() -> None:
    """Its disk says that all gates are its own, and that was long ago."""
    stage = Stage()
    a, b = stage.found("a", "b")
    a.stop()
    stage.pass_ms(3_000)
    assert serves(b) == {1, 2, 3, 4}
    before = claims(b)
    stage.holds = (PullReply, Delta)
    a.start(knows=["b"])
    first = len(beats(a))
    stage.pass_ms(8_000)
    assert {beat.gates for beat in beats(a)[first:]} == {None}
    assert not serves(a)
    assert claims(b) == before
    stage.release()
    wait_until(stage, lambda: bool(serves(a)))
    assert is_whole([a, b])


def test_an_exchange_with_one_that_has_nothing_yet_is_none() -> None:
    """a starts again and hears c only, which has just joined and waits for its snapshot."""
    stage = Stage()
    a, b = stage.found("a", "b")
    a.stop()
    stage.pass_ms(3_000)
    stage.holds = (SnapshotRequest,)
    stage.cuts.add(frozenset(("a", "b")))
    c = stage.box("c", 3).start(knows=["b"])
    stage.pass_ms(300)
    a.start(knows=["c"])
    stage.pass_ms(1_500)
    assert states(a) == {"c": "alive"}
    assert a.node.counters["gates_claimed"] == 0
    stage.heal()
    stage.release()
    stage.pass_ms(10_000)
    assert is_whole([a, b, c])


def test_a_restarted_node_is_not_alone_because_the_first_that_it_met_has_left() -> None:
    """b left before it had answered what a lacks; c, which serves a gate that was a's, is slow."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    a.stop()
    stage.pass_ms(3_000)
    stage.holds = (PullReply, Delta)
    stage.cuts.add(frozenset(("a", "c")))
    a.start(knows=["b", "c"])
    wait_until(stage, lambda: states(a) == {"b": "alive"})
    a.receive(b.sender(None), Goodbye(b.node.durable_seq))
    b.stop()
    stage.pass_ms(1_000)
    assert states(a) == {"b": "left"}
    assert a.node.counters["gates_claimed"] == 0
    stage.heal()
    stage.release()
    wait_until(stage, lambda: is_whole([a, c]))


def test_what_a_member_just_met_may_serve_is_not_claimed_before_its_first_heartbeat() -> None:
    """Seed 60113348: a came back and had all that c has; b's claim had left the logs."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=3)
    (gate,) = serves(a)
    a.stop()
    stage.holds = (Delta, PullReply)
    wait_until(stage, lambda: gate in serves(b) | serves(c))
    taker, other = (b, c) if gate in serves(b) else (c, b)
    stage.holds = (Delta, PullReply, Heartbeat)
    a.start(knows=("b", "c"))
    wait_until(stage, lambda: bool(answers_of(stage, other, a)))
    for letter in answers_of(stage, other, a):
        stage.deliver(letter)
    stage.pass_ms(100)
    assert a.node.is_joined()
    assert gate not in serves(a)
    stage.release()
    stage.pass_ms(1_000)
    assert gate in serves(taker)
    assert gate not in serves(a)


def answers_of(stage: Stage, source: Box, target: Box) -> list[Letter]:
    """Of the first one to pulls of the other, on their way."""
    return [each for each in stage.waiting(PullReply, target) if each.source == source.name]


def test_a_restarted_node_that_is_alone_claims_its_gates_anew_at_a_higher_epoch() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.stop()
    a.start()
    stage.pass_ms(1_900)
    assert not serves(a), "somebody may still answer"
    stage.pass_ms(600)
    assert claims(a) == dict.fromkeys(range(1, 5), (2, "a"))
    assert serves(a) == {1, 2, 3, 4}


def test_who_serves_alone_says_so_too_while_it_has_not_exchanged_with_a_member_that_comes() -> None:
    """Else that one would take its gates for given up."""
    stage = Stage()
    a, b = stage.found("a", "b")
    for box in (a, b):
        box.stop()
    stage.pass_ms(100)
    a.start()
    stage.pass_ms(8_000)
    assert serves(a) == {1, 2, 3, 4}
    before = claims(a)
    stage.holds = (Pull, PullReply)
    b.start(knows=["a"])
    stage.pass_ms(6_000)
    assert states(a) == {"b": "alive"}
    assert beats(a)[-1].gates == tuple((gate, epoch) for gate, (epoch, _) in before.items())
    assert not serves(b)
    assert claims(a) == before


def test_a_node_started_again_under_its_name_serves_no_gate_under_an_old_claim() -> None:
    """b is back before anybody missed it."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    before = {gate: epochs(a)[gate] for gate in serves(b)}
    assert before
    b.start(knows=["a", "c"])
    for _ in range(200):
        stage.pass_ms(20)
        old = {gate for gate in serves(b) if claim(b, gate).incarnation != b.incarnation}
        assert not old
    stage.pass_ms(5_000)
    assert is_whole([a, b, c])
    assert all(epochs(a)[gate] > epoch for gate, epoch in before.items())


def test_orphans_are_claimed_the_moment_their_owner_is_dead() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=6)
    before = epochs(a)
    left_over = serves(b)
    b.stop()
    wait_until(stage, lambda: "dead" in (state(a, "b"), state(c, "b")))
    wait_until(stage, lambda: state(a, "b") == state(c, "b") == "dead", 300)
    stage.pass_ms(1)
    assert is_whole([a, c])
    assert {gate: epochs(a)[gate] - before[gate] for gate in left_over} == dict.fromkeys(
        left_over, 1
    )
    assert shares([a, c]) == [3, 3]


# --- how many there are ----------------------------------------------------------------------


def test_with_fewer_gates_than_nodes_each_is_served_once_and_nothing_moves() -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c", gates=1)
    stage.pass_ms(5_000)
    before = claims(boxes[0])
    stage.pass_ms(20_000)
    assert claims(boxes[0]) == before
    assert is_whole(boxes)
    assert shares(boxes) == [0, 0, 1]


def test_gates_that_are_added_are_claimed_and_shared_out() -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c", gates=3)
    boxes[1].ask(SetGates(9, None), Change)
    stage.pass_ms(100)
    assert is_whole(boxes)
    assert shares(boxes) == [3, 3, 3]


def test_gates_that_are_taken_away_are_served_by_nobody_and_admit_nobody() -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c", gates=6)
    boxes[0].ask(SetGates(2, None), Change)
    stage.pass_ms(1_000)
    assert set(rows(boxes[2])) == {1, 2}
    assert {gate for box in boxes for gate, _ in beats(box)[-1].gates or ()} <= {1, 2}
    assert [enter(box, "KA1", 3).reason for box in boxes] == ["unknown_gate"] * 3
    boxes[0].ask(SetGates(6, None), Change)
    stage.pass_ms(10_000)
    assert is_whole(boxes)


def test_who_starts_together_serves_every_gate_once() -> None:
    stage = Stage()
    names = "abcde"
    boxes = [stage.box(name, 9 - place, gates=11) for place, name in enumerate(names)]
    for box in boxes:
        box.start(knows=names.replace(box.name, ""))
    stage.pass_ms(12_000)
    assert is_whole(boxes)
    assert shares(boxes) == [2, 2, 2, 2, 3]
    assert not any("had two owners" in warnings(box) for box in boxes)


def test_who_stops_together_and_starts_again_serves_every_gate_once() -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c", gates=7)
    before = epochs(boxes[0])
    for box in boxes:
        box.stop()
    stage.pass_ms(60_000)
    for box in boxes:
        box.start(knows=[other.name for other in boxes if other is not box])
    stage.pass_ms(12_000)
    assert is_whole(boxes)
    assert shares(boxes) == [2, 2, 3]
    assert all(epoch > before[gate] for gate, epoch in epochs(boxes[0]).items())
    assert not any("had two owners" in warnings(box) for box in boxes)


# --- disks that fail -------------------------------------------------------------------------


def let_disk_fail(box: Box) -> None:
    """Its next commit fails, and it knows."""
    box.disk.fail("disk full")
    box.submit(Track("KX1", 1, None))


def mend_disk(box: Box) -> None:
    """What waited is committed."""
    box.disk.recover()
    box.persist()


def test_a_node_whose_disk_fails_gives_up_its_gates_and_others_take_them() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    given_up = serves(b)
    let_disk_fail(b)
    assert not serves(b)
    stage.pass_ms(300)
    assert beats(b)[-1].gates is None
    stage.pass_ms(1_500)
    assert {claim(a, gate).owner for gate in given_up} == {"b"}
    stage.pass_ms(1_000)
    assert is_whole([a, c])
    assert state(a, "b") == "alive"


def test_a_node_whose_disk_has_recovered_gets_gates_again() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    let_disk_fail(b)
    stage.pass_ms(5_000)
    mend_disk(b)
    wait_until(stage, lambda: bool(serves(b)))
    stage.pass_ms(1_000)
    assert is_whole([a, b, c])


def test_a_disk_that_recovers_soon_costs_no_gate() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    before = claims(a)
    let_disk_fail(b)
    stage.pass_ms(1_000)
    mend_disk(b)
    stage.pass_ms(5_000)
    assert claims(a) == claims(b) == before
    assert is_whole([a, b, c])


def test_with_nobody_who_can_serve_every_gate_is_unowned_until_somebody_can() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    let_disk_fail(a)
    stage.pass_ms(10_000)
    assert gate_states(a) == {"unowned"}
    assert "gates 1, 2, 3, 4 are unowned" in warnings(a)
    mend_disk(a)
    stage.pass_ms(500)
    assert is_whole([a])


# --- what is shown ---------------------------------------------------------------------------


def test_a_gate_is_moving_while_its_release_is_not_accepted() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    given = serves(b)
    stage.holds = (Delta, PullReply)
    b.submit(Leave(), 10_000)
    stage.pass_ms(1)
    shown = {gate: rows(b)[gate] for gate in given}
    assert {(row.state, row.owner, row.target) for row in shown.values()} == {("moving", None, "a")}
    assert {row.claims for row in shown.values()} == {()}
    stage.release()
    stage.pass_ms(10)
    assert is_whole([a])


def test_wait_for_gates_holds_when_each_is_served_once_and_none_is_contested() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    four, five = Condition("gates", 4, at_least=False), Condition("gates", 5, at_least=True)
    assert a.ask(WaitFor((four,)), Wait).met
    b.stop()
    stage.pass_ms(700)
    left_over = {gate for gate in rows(a) if claim(a, gate).owner == "b"}
    assert left_over
    for box in (a, c):
        box.disk.fail("disk full")
        ask_in(box, f"K{box.name}1", min(serves(box)))
    waiting, more = a.submit(WaitFor((four,)), 20_000), a.submit(WaitFor((five,)), 20_000)
    stage.pass_ms(5_000)
    assert a.answer(waiting) is None
    for box in (a, c):
        box.disk.recover()
        box.persist()
    stage.pass_ms(3_000)
    answer = a.answer(waiting)
    assert isinstance(answer, Wait)
    assert answer.met
    assert a.answer(more) is None
    a.ask(SetGates(5, None), Change)
    stage.pass_ms(100)
    reached = a.answer(more)
    assert isinstance(reached, Wait)
    assert reached.met


def test_a_wait_for_gates_that_are_not_whole_says_how_many_are_served() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    let_disk_fail(a)
    handle = a.submit(WaitFor((Condition("gates", 4, at_least=False),)), 1_000)
    stage.pass_ms(1_100)
    answer = a.answer(handle)
    assert isinstance(answer, Wait)
    assert not answer.met
    assert answer.conditions[0].value == "0 of 4"
