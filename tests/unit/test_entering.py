"""`enter`: a car asks anywhere, the owner of the gate decides, and one id has one effect."""

from __future__ import annotations

import pytest

from parkingd.core.events import FLAG_ADMITTED, Claim
from parkingd.core.gates import PHASE_OWNED, Fence, fence_of
from parkingd.core.records import EXTRA, EXTRA_FLAGS
from parkingd.protocol.commands import AskToEnter, Leave, RecordExit, Track
from parkingd.protocol.messages import Delta, EnterAnswer, EnterAsk, Heartbeat, Pull, PullReply
from parkingd.protocol.outcomes import Decision, Entry, ErrorCode, Exit, Failure, Outcome
from tests.unit.scripted import Box, Stage
from tests.unit.watching import (
    REQUEST,
    ask_in,
    claim,
    claims,
    decision,
    enter,
    serves,
    wait_until,
)


def inside(*boxes: Box) -> set[int]:
    """How many cars are inside, as each shows it."""
    return {box.node.state.stays.visible_count for box in boxes}


def gate_of(box: Box) -> int:
    """One that it serves."""
    return min(serves(box))


def asked(box: Box) -> list[EnterAsk]:
    """Every question that it passed on."""
    return box.has_sent(EnterAsk)


def outcome(box: Box, handle: int) -> Outcome | None:
    """The answer, if there is one."""
    return box.answer(handle)


# --- who decides -----------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["a", "b", "c"])
def test_whoever_is_asked_the_owner_of_the_gate_decides(asker: str) -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    said = enter(stage.boxes[asker], "ka-1", gate, REQUEST)
    (dot,) = b.shown("KA1")
    assert dot[0] == b.replica
    assert said == Decision(
        "admitted",
        "ok",
        "KA1",
        gate,
        claim(b, gate).epoch,
        "b",
        99,
        fence_of(claim(b, gate)),
        REQUEST,
    )
    assert a.shown("KA1") == c.shown("KA1") == {dot}


def test_a_car_that_was_admitted_is_marked_so_and_one_that_was_tracked_is_not() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    enter(a, "KA1")
    a.track("KA2")
    flags = [a.node.state.stays.visible(plate)[0][EXTRA] for plate in ("KA1", "KA2")]
    assert flags[0] is not None
    assert flags[0][EXTRA_FLAGS] & FLAG_ADMITTED
    assert flags[1] is None or not flags[1][EXTRA_FLAGS] & FLAG_ADMITTED


def test_a_question_is_passed_on_once_and_never_a_second_time() -> None:
    """a takes b for the owner; the gate has moved to c."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(c)
    ask = EnterAsk(7, "KA1", gate, REQUEST, 1, "b", 4_000)
    b.receive(a.sender(a.route), ask)
    stage.pass_ms(1_000)
    assert not asked(b)
    (answer,) = b.has_sent(EnterAnswer)
    assert (answer.nonce, answer.answer) == (7, "not_owner")
    assert (answer.owner, answer.epoch) == ("c", claim(c, gate).epoch)
    assert inside(a, b, c) == {0}


def test_who_is_told_not_owner_asks_again_with_the_same_id_and_is_answered_by_the_owner() -> None:
    """The gate goes from b to c; a hears of it only after b has turned its question away."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    stage.holds = (Delta, Pull, PullReply, Heartbeat)
    b.submit(Leave(), 10_000)
    stage.pass_ms(1)
    for letter in stage.waiting(Delta, c):
        stage.deliver(letter)
    handle = ask_in(a, "KA1", gate, REQUEST)
    stage.pass_ms(300)
    assert a.node.counters["enter_not_owner"] >= 1
    assert outcome(a, handle) is None
    stage.release()
    stage.pass_ms(100)
    said = decision(a, handle)
    assert (said.decision, said.owner, said.epoch) == ("admitted", *claims(a)[gate][::-1])
    assert said.owner != "b"
    assert {ask.request for ask in asked(a)} == {REQUEST}
    assert {ask.owner for ask in asked(a)} >= {"b"}
    assert inside(a, c) == {1}


def test_an_owner_that_knows_less_than_the_asker_does_not_decide() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    gate = gate_of(b)
    ask = EnterAsk(7, "KA1", gate, REQUEST, claim(b, gate).epoch + 1, "c", 4_000)
    b.receive(a.sender(a.route), ask)
    assert [answer.answer for answer in b.has_sent(EnterAnswer)] == ["not_owner"]
    assert inside(a, b) == {0}
    b.receive(a.sender(a.route), EnterAsk(8, "KA1", gate, REQUEST, 1, "b", 4_000))
    assert [answer.answer for answer in b.has_sent(EnterAnswer)][1:] == ["admitted"]


# --- owners that die, answers that are lost ------------------------------------------------------


def test_when_the_owner_dies_before_it_decides_the_new_owner_does() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    stage.holds = (EnterAsk,)
    handle = ask_in(a, "KA1", gate, REQUEST, 10_000)
    b.stop()
    stage.release()
    stage.pass_ms(1_500)
    assert outcome(a, handle) is None
    wait_until(stage, lambda: outcome(a, handle) is not None, 3_000)
    said = decision(a, handle)
    assert (said.decision, said.owner) == ("admitted", claim(a, gate).owner)
    assert said.owner in "ac"
    stage.pass_ms(100)
    assert inside(a, c) == {1}


def test_when_the_owner_dies_after_it_decided_its_decision_stands() -> None:
    """Its event has come to c, and neither that nor its answer to a."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    stage.holds = (EnterAsk,)
    handle = ask_in(a, "KA1", gate, REQUEST, 10_000)
    stage.cut_one_way(b, a)
    stage.release()
    (dot,) = c.shown("KA1")
    assert dot[0] == b.replica
    stage.heal()
    b.kill()
    stage.pass_ms(500)
    assert decision(a, handle).decision == "admitted"
    assert a.shown("KA1") == c.shown("KA1") == {dot}


def test_an_answer_that_comes_twice_is_told_once() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    stage.holds = (EnterAnswer, Delta)
    handle = ask_in(a, "KA1", gate_of(b))
    (letter,) = stage.waiting(EnterAnswer, a)
    stage.deliver(letter, keep=True)
    stage.deliver(letter)
    assert decision(a, handle).decision == "admitted"
    assert len(a.replies[handle]) == 1
    assert a.node.counters["enter_answers_unasked"] == 1


def test_a_question_without_an_answer_is_asked_again_with_the_same_id_and_has_one_effect() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.holds = (EnterAnswer, Delta, PullReply)
    handle = ask_in(a, "KA1", gate_of(b), REQUEST)
    stage.pass_ms(950)
    assert len(asked(a)) == 1
    stage.letters = [each for each in stage.letters if not isinstance(each.message, EnterAnswer)]
    stage.holds = (Delta, PullReply)
    stage.pass_ms(100)
    assert [ask.request for ask in asked(a)] == [REQUEST, REQUEST]
    said = decision(a, handle)
    assert (said.decision, said.warnings) == ("admitted", ())
    stage.release()
    assert inside(a, b, c) == {1}


def test_a_car_whose_admission_is_heard_of_before_the_answer_is_not_told_that_it_repeats() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    stage.holds = (EnterAnswer,)
    said = enter(a, "KA1", gate_of(b), REQUEST)
    assert (said.decision, said.owner, said.warnings) == ("admitted", "b", ())
    stage.release()
    assert a.node.counters["enter_answers_unasked"] == 1


def test_a_question_that_comes_twice_has_one_effect() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.holds = (EnterAsk,)
    handle = ask_in(a, "KA1", gate_of(b), REQUEST)
    (letter,) = stage.waiting(EnterAsk, b)
    stage.deliver(letter, keep=True)
    stage.release()
    stage.pass_ms(100)
    assert decision(a, handle).decision == "admitted"
    assert inside(a, b, c) == {1}


def test_a_question_that_was_denied_and_comes_again_late_lets_nobody_in() -> None:
    """The car has left meanwhile; whoever asked has gone home."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    a.track("KA1")
    stage.holds = (EnterAsk,)
    handle = ask_in(a, "KA1", gate_of(b), REQUEST)
    (letter,) = stage.waiting(EnterAsk, b)
    stage.deliver(letter, keep=True)
    assert decision(a, handle).reason == "already_inside"
    a.exit("KA1")
    stage.pass_ms(10_000)
    stage.release()
    stage.pass_ms(1_000)
    assert inside(a, b, c) == {0}
    assert b.node.counters["enter_asks_repeated"] == 1


def test_a_denial_that_waits_for_the_disk_is_not_told_when_the_same_request_was_let_in() -> None:
    """b has not heard yet that the car has left, and its disk is slow; the client asks again."""
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    gate = gate_of(b)
    a.track("KA1")
    b.commits = False
    b.submit(Track("KB1", gate, None))
    first = ask_in(b, "KA1", gate, REQUEST)
    a.exit("KA1")
    again = ask_in(b, "KA1", gate, REQUEST)
    assert outcome(b, first) is outcome(b, again) is None
    b.commits = True
    b.persist()
    assert [decision(b, each).decision for each in (first, again)] == ["admitted", "admitted"]
    assert len(b.shown("KA1")) == 1


def test_at_the_deadline_the_answer_is_no_owner_with_the_id_to_repeat() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    gate = gate_of(b)
    b.pause()
    handle = ask_in(a, "ka-1", gate, REQUEST, 700)
    stage.pass_ms(699)
    assert outcome(a, handle) is None
    stage.pass_ms(1)
    said = decision(a, handle)
    assert (said.decision, said.reason) == ("denied", "no_owner")
    assert (said.plate, said.gate, said.request) == ("KA1", gate, REQUEST)
    assert (said.owner, said.epoch, said.fence) == (None, None, None)
    assert "same request id" in said.hint


def test_an_answer_after_the_deadline_is_nobodys_and_repeating_the_id_tells_the_effect() -> None:
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    gate = gate_of(b)
    stage.holds = (EnterAnswer, Delta, PullReply)
    handle = ask_in(a, "KA1", gate, REQUEST, 500)
    stage.pass_ms(600)
    assert decision(a, handle).reason == "no_owner"
    stage.release()
    assert len(a.replies[handle]) == 1
    again = enter(a, "KA1", gate, REQUEST)
    assert (again.decision, again.warnings) == ("admitted", ("repeated",))
    assert inside(a, b) == {1}


def test_a_car_that_asks_before_there_is_a_lot_is_let_in_when_there_is_one() -> None:
    stage = Stage()
    a = stage.box("a", 1).start()
    early, patient = ask_in(a, "KA1", 1, wait_ms=1_000), ask_in(a, "KA2", 1, wait_ms=5_000)
    stage.pass_ms(1_100)
    assert decision(a, early).reason == "not_ready"
    stage.pass_ms(1_000)
    assert decision(a, patient).decision == "admitted"
    assert inside(a) == {1}


# --- one id, one effect ----------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["a", "b", "c"])
def test_a_repeated_id_gets_the_first_answer_on_every_node_under_the_fence_of_today(
    asker: str,
) -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    first = enter(a, "KA1", gate, REQUEST)
    b.start(knows=["a", "c"])
    stage.pass_ms(10_000)
    again = enter(stage.boxes[asker], "KA1", gate, REQUEST)
    assert (again.decision, again.reason, again.warnings) == ("admitted", "ok", ("repeated",))
    assert first.fence is not None
    assert again.fence is not None
    assert again.fence == fence_of(claim(c, gate)) > first.fence
    assert (again.epoch, again.owner) == claims(c)[gate]
    assert inside(a, b, c) == {1}


def test_a_repeated_id_is_answered_even_after_the_car_has_left() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    enter(a, "KA1", 1, REQUEST)
    a.exit("KA1")
    again = enter(a, "KA1", 1, REQUEST)
    assert (again.decision, again.warnings) == ("admitted", ("repeated",))
    assert inside(a) == {0}


@pytest.mark.parametrize("asker", ["a", "b"])
def test_an_id_that_was_used_for_another_plate_is_request_reused(asker: str) -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    enter(a, "KA1", 1, REQUEST)
    handle = ask_in(stage.boxes[asker], "KA2", 1, REQUEST)
    failure = outcome(stage.boxes[asker], handle)
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.REQUEST_REUSED
    assert inside(a, b) == {1}


def test_an_id_that_was_used_for_another_verb_is_request_reused() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.ask(Track("KA1", 1, REQUEST), Entry)
    assert a.ask(AskToEnter("KA1", 1, REQUEST), Failure).code == ErrorCode.REQUEST_REUSED
    other = REQUEST[::-1]
    a.ask(RecordExit("KA1", 1, other), Exit)
    assert a.ask(AskToEnter("KA1", 1, other), Failure).code == ErrorCode.REQUEST_REUSED
    assert inside(a) == {0}


def test_a_denial_is_not_remembered_and_the_same_id_may_ask_again() -> None:
    stage = Stage()
    (a,) = stage.found("a", spaces=1)
    a.track("KA1")
    assert enter(a, "KA2", 1, REQUEST).reason == "full"
    a.exit("KA1")
    assert enter(a, "KA2", 1, REQUEST).decision == "admitted"


# --- denials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["a", "b"])
def test_a_plate_that_is_inside_is_denied_by_the_owner(asker: str) -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    gate = gate_of(b)
    a.track("KA1")
    said = enter(stage.boxes[asker], "ka 1", gate)
    assert (said.decision, said.reason, said.plate) == ("denied", "already_inside", "KA1")
    assert (said.owner, said.epoch, said.fence) == ("b", claim(b, gate).epoch, None)


@pytest.mark.parametrize("asker", ["a", "b"])
def test_a_full_lot_admits_nobody_and_one_exit_makes_room_for_one(asker: str) -> None:
    stage = Stage()
    a, b = stage.found("a", "b", spaces=2)
    box = stage.boxes[asker]
    a.track("KA1")
    a.track("KA2")
    said = enter(box, "KA3", gate_of(b))
    assert (said.decision, said.reason, said.free) == ("denied", "full", 0)
    a.exit("KA1")
    assert enter(box, "KA3", gate_of(b)).decision == "admitted"
    assert enter(box, "KA4", gate_of(b)).reason == "full"


@pytest.mark.parametrize("gate", [0, 5, 1_000, 1_000_000])
def test_a_gate_that_there_is_not_is_unknown(gate: int) -> None:
    stage = Stage()
    (a,) = stage.found("a")
    assert enter(a, "KA1", gate).reason == "unknown_gate"


def test_whoever_is_asked_says_whose_disk_fails() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    a.disk.fail("disk full")
    assert a.ask(Track("KA1", 1, None), Failure).code == ErrorCode.STORAGE_FAILED
    failed = b.ask(AskToEnter("KA2", 1, None), Failure)
    assert failed.code == ErrorCode.STORAGE_FAILED
    assert failed.reason.startswith("a, which serves gate 1, says: the disk of this node")


@pytest.mark.parametrize("plate", ["", "- -", "12345678901234567", "KA*1"])
def test_what_is_no_plate_is_an_invalid_plate(plate: str) -> None:
    stage = Stage()
    (a,) = stage.found("a")
    said = enter(a, plate)
    assert (said.decision, said.reason, said.plate) == ("denied", "invalid_plate", plate)


# --- barriers that have seen more than anybody knows ----------------------------------------------


def seen_at(gate: int, epoch: int, owner: str, incarnation: int) -> Fence:
    return fence_of(Claim(gate, epoch, owner, incarnation, PHASE_OWNED, None))


@pytest.mark.parametrize("asked_at", ["a", "b"])
def test_above_a_claim_that_is_lost_the_owner_claims_anew(asked_at: str) -> None:
    """Its only copy was on a disk that is gone, or it was made in a lot that is no more."""
    stage = Stage()
    boxes = stage.found("a", "b", "c")
    box, b = next(each for each in boxes if each.name == asked_at), boxes[1]
    gate = gate_of(b)
    before = claim(b, gate)
    first = decision(box, ask_in(box, "KA1", gate, REQUEST))
    assert first.fence == fence_of(before)
    seen = seen_at(gate, 40, "gone", 7)
    handle = box.submit(AskToEnter("KA1", gate, REQUEST, seen))
    stage.pass_ms(20)
    again = decision(box, handle)
    assert (again.decision, again.owner, again.epoch) == ("admitted", "b", 41)
    assert again.fence is not None
    assert again.fence > seen
    assert inside(*boxes) == {1}, "one id has one effect"
    stage.pass_ms(100)
    assert all(claim(each, gate).epoch == 41 for each in boxes)
    handle = box.submit(AskToEnter("KA1", gate, REQUEST, seen))
    stage.pass_ms(20)
    assert decision(box, handle).epoch == 41, "and once is enough"


def test_above_a_claim_of_an_earlier_life_of_a_living_member_the_owner_claims_at_once() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    seen = seen_at(gate, 6, "c", c.incarnation - 1)
    handle = a.submit(AskToEnter("KA1", gate, REQUEST, seen))
    stage.pass_ms(20)
    assert decision(a, handle).epoch == 7


def test_a_claim_whose_owner_lives_is_waited_for() -> None:
    """The barrier is quicker than the claim: c took the gate, and b has not heard of it."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    seen = seen_at(gate, claim(b, gate).epoch + 1, "c", c.incarnation)
    handle = a.submit(AskToEnter("KA1", gate, REQUEST, seen))
    stage.pass_ms(1_500)
    assert outcome(a, handle) is None
    assert claim(b, gate).epoch < seen.epoch
    stage.pass_ms(1_000)  # It never says so: that was another c, or it has given the gate up.
    assert decision(a, handle).epoch == seen.epoch + 1


def test_a_car_is_not_counted_twice_when_the_barrier_refuses_and_the_owner_is_gone() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    gate = gate_of(b)
    decision(a, ask_in(a, "KA1", gate, REQUEST))
    stage.pass_ms(500)
    seen = seen_at(gate, 12, "gone", 7)
    stage.cut("b")
    handle = a.submit(AskToEnter("KA1", gate, REQUEST, seen), 10_000)
    assert outcome(a, handle) is None, "nobody can open this barrier now"
    stage.pass_ms(4_000)
    said = decision(a, handle)
    assert said.epoch == 13
    assert said.owner in ("a", "c")
    assert inside(a, c) == {1}


def test_a_car_that_is_in_is_not_denied_because_the_owner_has_not_heard_of_it() -> None:
    """a has the record; b, which has the gate by now and lacks it, has another of that plate."""
    stage = Stage()
    a, b, _ = stage.found("a", "b", "c")
    stage.cut("a")
    stage.pass_ms(5_000)
    gate = next(g for g in serves(b) if fence_of(claim(b, g)) > fence_of(claim(a, g)))
    decision(a, ask_in(a, "KA1", gate, REQUEST))
    b.track("KA1", bytes(16), gate)
    stage.holds = (Delta, PullReply)
    stage.heal()
    stage.pass_ms(1_000)
    assert gate in serves(b)
    seen = seen_at(gate, 50, "gone", 7)
    handle = a.submit(AskToEnter("KA1", gate, REQUEST, seen))
    stage.pass_ms(500)
    assert a.has_sent(EnterAsk)
    assert a.answer(handle) is None
    stage.release()
    stage.pass_ms(1_500)
    assert decision(a, handle).decision == "admitted"
