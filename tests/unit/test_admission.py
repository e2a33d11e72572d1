"""Room in the lot, and the disk: what an owner waits for before it lets a car in."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from parkingd.core.gates import fence_of
from parkingd.protocol.commands import Leave, ReadLot, SetSpaces
from parkingd.protocol.messages import Delta, EnterAnswer, EnterAsk, Pull, PullReply
from parkingd.protocol.outcomes import Change, Decision, ErrorCode, Failure, Lot
from tests.unit.scripted import Box, Stage
from tests.unit.watching import (
    REQUEST,
    ask_in,
    claim,
    decision,
    enter,
    serves,
    wait_until,
)


def gate_of(box: Box) -> int:
    """One that it serves."""
    return min(serves(box))


def fill(box: Box, cars: int) -> None:
    """So many cars are inside."""
    for number in range(cars):
        box.track(f"F{number}")


def inside(*boxes: Box) -> set[int]:
    """How many cars are inside, as each shows it."""
    return {box.ask(ReadLot(), Lot).inside for box in boxes}


def enter_soon(stage: Stage, box: Box, plate: str, gate: int) -> Decision:
    """The answer to a car for which the owner may have to ask the others first."""
    handle = ask_in(box, plate, gate)
    wait_until(stage, lambda: box.answer(handle) is not None, 100)
    return decision(box, handle)


# --- the disk --------------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["a", "b"])
def test_a_car_is_admitted_when_it_is_on_the_owners_disk_and_not_before(asker: str) -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.commits = False
    handle = ask_in(stage.boxes[asker], "KA1", gate_of(b))
    stage.pass_ms(900)
    assert b.shown("KA1"), "it is decided"
    assert stage.boxes[asker].answer(handle) is None
    assert not a.shown("KA1")
    b.commits = True
    b.persist()
    stage.pass_ms(10)
    assert decision(stage.boxes[asker], handle).decision == "admitted"


def test_a_gate_lost_while_the_disk_was_busy_is_answered_with_the_greatest_fence() -> None:
    """b decides, its disk stands still for five seconds, and a has the gate by then."""
    stage = Stage()
    a, b = stage.found("a", "b")
    gate = gate_of(b)
    old = fence_of(claim(b, gate))
    b.commits = False
    handle = ask_in(b, "KB1", gate, wait_ms=60_000)
    stage.cut("b")
    stage.pass_ms(5_000)
    stage.heal()
    stage.pass_ms(1_000)
    assert claim(b, gate).owner == "a"
    b.commits = True
    b.persist()
    said = decision(b, handle)
    assert (said.decision, said.owner) == ("admitted", "a")
    assert said.fence == fence_of(claim(a, gate)) > old


@pytest.mark.parametrize("asker", ["a", "b"])
def test_an_owner_whose_disk_has_failed_says_storage_failed(asker: str) -> None:
    stage = Stage()
    _, b = stage.found("a", "b")
    gate = gate_of(b)
    b.disk.fail("disk full")
    handle = ask_in(stage.boxes[asker], "KA1", gate, REQUEST)
    failure = stage.boxes[asker].answer(handle)
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.STORAGE_FAILED
    assert "request-id" in failure.hint
    again = stage.boxes[asker].answer(ask_in(stage.boxes[asker], "KA2", gate))
    assert isinstance(again, Failure)
    assert (again.code, b.shown("KA2")) == (ErrorCode.STORAGE_FAILED, set())


def test_a_car_that_met_a_failing_disk_is_let_in_once_when_it_asks_again() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    gate = gate_of(b)
    b.disk.fail("disk full")
    assert isinstance(b.answer(ask_in(b, "KA1", gate, REQUEST)), Failure)
    wait_until(stage, lambda: gate in serves(a))
    assert enter(a, "KA1", gate, REQUEST).decision == "admitted"
    b.disk.recover()
    b.persist()
    stage.pass_ms(3_000)
    assert inside(a, b) == {1}
    assert a.ask(ReadLot(), Lot).conflicts == ()


# --- leaving ---------------------------------------------------------------------------------


def test_who_leaves_alone_says_that_it_is_draining() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.submit(Leave(), 10_000)
    said = enter(a, "KA1")
    assert (said.decision, said.reason) == ("denied", "draining")


def test_a_car_that_asks_where_somebody_leaves_is_let_in_by_who_takes_the_gate() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    stage.holds = (Pull, PullReply)  # So that it does not leave at once.
    b.submit(Leave(), 10_000)
    handle = ask_in(b, "KB1", gate)
    stage.pass_ms(50)
    assert b.runs
    said = decision(b, handle)
    assert (said.decision, said.owner) == ("admitted", claim(a, gate).owner)
    assert said.owner in "ac"
    assert a.shown("KB1") == c.shown("KB1")


# --- room ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["a", "b", "c"])
def test_the_answer_says_how_many_spaces_are_left(asker: str) -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c", spaces=5)
    box = stage.boxes[asker]
    gate = gate_of(b)
    assert [enter_soon(stage, box, f"K{n}", gate).free for n in range(4)] == [4, 3, 2, 1]
    a.ask(SetSpaces(3, None), Change)
    said = enter(box, "K9", gate)
    assert (said.reason, said.free) == ("full", -1)
    a.exit("K0")
    a.exit("K1")
    assert enter_soon(stage, box, "K9", gate).free == 0


def test_the_last_space_is_given_away_once_when_all_owners_hear_each_other() -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c", spaces=10)
    fill(boxes[0], 9)
    for number, box in enumerate(boxes):
        said = enter(box, f"K{number}", gate_of(box))
        assert said.reason == ("ok" if number == 0 else "full")
    assert inside(*boxes) == {10}


def arrive(stage: Stage, boxes: list[Box], cars: int) -> Counter[str]:
    """So many cars ask at once, everywhere, at every gate; what the answers are."""
    dice = random.Random(cars)
    gates = [gate_of(box) for box in boxes]
    handles = [
        (box := dice.choice(boxes), ask_in(box, f"K{number}", dice.choice(gates), wait_ms=60_000))
        for number in range(cars)
    ]
    stage.flows = True
    stage.flow()
    wait_until(stage, lambda: all(box.answer(handle) is not None for box, handle in handles))
    return Counter(decision(box, handle).reason for box, handle in handles)


@pytest.mark.parametrize("mode", ["at once", "late", "busy disks"])
def test_of_600_arrivals_at_three_owners_of_100_spaces_at_most_102_are_let_in(mode: str) -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c", spaces=100, gates=3)
    if mode == "late":
        stage.flows = False  # Nobody hears of anybody before all have asked.
    elif mode == "busy disks":
        for box in boxes:
            box.commits = False
        stage.flows = False
        for number in range(60):
            box = boxes[number % 3]
            ask_in(box, f"E{number}", gate_of_owner(box, boxes), wait_ms=60_000)
        for box in boxes:
            box.commits = True
            box.persist()
        stage.flows = True
        stage.flow()
    reasons = arrive(stage, boxes, 600)
    stage.pass_ms(2_000)
    (cars,) = inside(*boxes)
    assert 100 <= cars <= 102
    assert set(reasons) == {"ok", "full"}
    before = 60 if mode == "busy disks" else 0
    assert reasons["ok"] == cars - before


def gate_of_owner(box: Box, boxes: list[Box]) -> int:
    """The gate that this box serves, by its claims: its disk may be busy."""
    return next(gate for gate in range(1, len(boxes) + 1) if claim(box, gate).owner == box.name)


def test_an_owner_that_does_not_answer_is_left_out_after_a_quarter_of_a_second() -> None:
    """c serves a gate, and stands still while a lets in the last cars."""
    stage = Stage()
    a, _, c = stage.found("a", "b", "c", spaces=10)
    fill(a, 8)
    stage.pass_ms(100)
    c.pause()
    first = enter(a, "K1", gate_of(a))
    assert first.reason == "ok"
    handle = ask_in(a, "K2", gate_of(a))
    stage.pass_ms(240)
    assert a.answer(handle) is None
    stage.pass_ms(60)
    assert decision(a, handle).reason == "ok"
    assert enter(a, "K3", gate_of(a)).reason == "full"


def test_an_owner_that_answers_is_waited_for_and_both_agree_on_the_last_space() -> None:
    """b's last admission is on its way to a."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", spaces=10)
    fill(a, 8)
    stage.holds = (Delta, Pull, PullReply)
    assert enter(b, "K1", gate_of(b)).reason == "ok"
    assert enter(a, "K2", gate_of(a)).reason == "ok"
    handle = ask_in(a, "K3", gate_of(a))
    stage.pass_ms(100)
    assert a.answer(handle) is None, "10 spaces, 9 cars that it knows of: it asks first"
    stage.release()
    stage.pass_ms(30)
    assert decision(a, handle).reason == "full"
    assert inside(a, b, c) == {10}


def test_who_waits_for_room_is_answered_by_its_deadline() -> None:
    stage = Stage()
    a, _, c = stage.found("a", "b", "c", spaces=10)
    fill(a, 8)
    c.pause()
    enter(a, "K1", gate_of(a))
    handle = ask_in(a, "K2", gate_of(a), REQUEST, wait_ms=100)
    stage.pass_ms(100)
    said = decision(a, handle)
    assert (said.decision, said.reason, said.request) == ("denied", "not_ready", REQUEST)


def test_a_partition_may_overbook_and_that_shows() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", spaces=10)
    fill(a, 8)
    stage.cut("a")
    stage.pass_ms(5_000)
    for box, letter in ((a, "A"), (b, "B")):
        gate = gate_of(box)
        said = [enter_soon(stage, box, f"K{letter}{n}", gate) for n in range(3)]
        assert [each.reason for each in said] == ["ok", "ok", "full"]
    stage.heal()
    stage.pass_ms(5_000)
    for box in (a, b, c):
        lot = box.ask(ReadLot(), Lot)
        assert (lot.inside, lot.overbooked, lot.state) == (12, 2, "full")


def test_questions_beyond_what_a_node_keeps_are_refused_at_once() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    gate = gate_of(b)
    b.pause()
    stage.flows = False
    handles = [ask_in(a, f"K{number}", gate, wait_ms=60_000) for number in range(4_097)]
    assert a.answer(handles[-2]) is None
    failure = a.answer(handles[-1])
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.OVERLOADED
    assert len(a.has_sent(EnterAsk)) == 4_096


def test_a_lot_that_shows_in_an_answer_is_the_one_the_owner_sees() -> None:
    """a has not heard of two cars that b has tracked."""
    stage = Stage()
    a, b = stage.found("a", "b", spaces=10)
    stage.holds = (Delta,)
    b.track("KB1")
    b.track("KB2")
    said = enter(a, "KA1", gate_of(b))
    assert isinstance(said, Decision)
    assert (said.free, said.owner) == (7, "b")
    assert b.has_sent(EnterAnswer)[-1].free == 7
