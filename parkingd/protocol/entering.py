"""`enter`: cars that ask to be let in, wherever they ask.

How it works (DESIGN section 6). The owner of the gate decides. Asked elsewhere, a node passes the
question on once, to the owner it knows, with the request id and the time that is left; who is not
the owner says so and names whom it takes for it. The question is asked again, always with the same
id, when the gate changes hands, when the answer said `not_owner`, and when none came for a while;
until the deadline, and then the answer is `no_owner` with the id to repeat. As one id has one
effect (P9), nothing of this can let a car in twice.

A barrier may have seen a greater fence than anybody here knows: the disk with that claim is lost,
or the lot it was made in. Who was refused there asks again, with what the barrier has seen, and the
owner claims the gate anew above it, unless who made that claim may still be serving.

Only effects are remembered: who was denied may ask again. A decision to admit is answered when it
is on disk; if the gate was lost meanwhile, the answer carries the fence of the greatest claim that
is known by then, and never a stale one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from parkingd.core.events import FLAG_ADMITTED, Claim, Enter
from parkingd.core.gates import Fence, fence_of
from parkingd.core.ids import REQUEST_ID_BYTES, Now, ReplicaId
from parkingd.core.plates import normalise_plate
from parkingd.core.registers import CLOSED, OPEN
from parkingd.core.stays import VERB_ENTER
from parkingd.protocol.admission import Admission
from parkingd.protocol.commands import AskToEnter
from parkingd.protocol.desk import WARNING_REPEATED, open_dots, reused
from parkingd.protocol.gates import Gates
from parkingd.protocol.limits import GATES_MAX
from parkingd.protocol.members import GONE
from parkingd.protocol.messages import EnterAnswer, EnterAsk, Route, Sender
from parkingd.protocol.outbox import storage_failure
from parkingd.protocol.outcomes import Decision, ErrorCode, Failure, Outcome
from parkingd.protocol.shared import Shared

ADMITTED: Final = "admitted"
DENIED: Final = "denied"
NOT_OWNER: Final = "not_owner"
FAILED: Final = "failed"

ALREADY_INSIDE: Final = "already_inside"

CARS_MAX: Final = 4_096
"""Cars that wait for a decision at one node; more are refused at once."""
LOOK_AGAIN_MS: Final = 20
"""After `not_owner`, and while a car waits for the other owners' counts: a few round trips."""
NONCES_MAX: Final = 64
"""Questions of one member that are known again; older ones count as known. More than overtake each
other on their way."""
OWNER_LOOK_MS: Final = 200
"""While a gate has no owner: its next claim is noticed at once, this is for what else may help."""


@dataclass(slots=True, eq=False)
class Car:
    """One question that has not been answered yet."""

    plate: str
    """As it was typed."""
    gate: int
    request: bytes
    deadline_ms: int
    handle: int | None
    """Of the client that asks; None when another node does."""
    route: Route | None = None
    nonce: int = 0
    """Of that node's question."""
    believed: tuple[int, str] = (0, "")
    """(epoch, owner) that it believes in."""
    seen: Fence | None = None
    """What the barrier has seen, if it refused."""
    asked: int | None = None
    """Nonce of our own question to the owner."""
    asked_fence: Fence | None = None
    questions: int = 0
    """How often the owner was asked: an effect found after that is that of this very car."""
    next_ms: int = 0
    """When to ask again, monotonic milliseconds."""
    key: str = ""
    """The plate, normalised."""


class Entering:
    """All cars that ask at this node, and those that other nodes ask about."""

    def __init__(
        self,
        shared: Shared,
        gates: Gates,
        admission: Admission,
        may_mint: Callable[[Now], bool],
    ) -> None:
        self._shared = shared
        self._gates = gates
        self._admission = admission
        self._may_mint = may_mint
        self.waiting: dict[Car, None] = {}
        """Cars not answered yet; read only."""
        self._asked: dict[int, Car] = {}
        self._heard: dict[str, tuple[tuple[ReplicaId, int], list[int]]] = {}
        """By member: its process, and the last of its questions, ascending."""
        self.has_news = False
        """Something has changed that a waiting car may have waited for."""

    # --- questions -----------------------------------------------------------------------

    def take(self, handle: int, command: AskToEnter, deadline_ms: int, now: Now) -> None:
        """A client asks; exactly one answer follows, by the deadline."""
        request = command.request
        if request is None:
            request = self._shared.rng.randbytes(REQUEST_ID_BYTES)
        car = Car(command.plate, command.gate, request, deadline_ms, handle, seen=command.seen)
        if len(self.waiting) >= CARS_MAX:
            reason = "too many cars wait for a decision at this node"
            self._tell(car, Failure(ErrorCode.OVERLOADED, reason, "try later"))
            return
        self._consider(car, now)

    def receive_ask(self, sender: Sender, ask: EnterAsk, now: Now) -> None:
        """Another node asks about a car at a gate that it thinks is ours."""
        if not isinstance(sender.link, Route) or len(self.waiting) >= CARS_MAX:
            self._shared.counters["enter_asks_dropped"] += 1
            return
        if self._is_late_copy(sender, ask.nonce):
            self._shared.counters["enter_asks_repeated"] += 1
            return
        deadline_ms = now.mono_ms + ask.remaining_ms
        believed = (ask.epoch, ask.owner)
        car = Car(
            ask.plate,
            ask.gate,
            ask.request,
            deadline_ms,
            None,
            sender.link,
            ask.nonce,
            believed,
            ask.seen,
        )
        self._consider(car, now)

    def _is_late_copy(self, sender: Sender, nonce: int) -> bool:
        """This very question was here before. Only effects are remembered: a car that was denied
        then, as it was inside, would be let in when it has left."""
        process = sender.replica, sender.incarnation
        known, nonces = self._heard.get(sender.name, (process, []))
        if known != process:
            nonces = []
        self._heard[sender.name] = process, nonces
        if nonce in nonces or (len(nonces) == NONCES_MAX and nonce < nonces[0]):
            return True
        insort(nonces, nonce)
        del nonces[:-NONCES_MAX]
        return False

    def receive_answer(self, answer: EnterAnswer, now: Now) -> None:
        """The owner has decided, or it is not the owner. A second answer says nothing new."""
        car = self._asked.pop(answer.nonce, None)
        if car is None or car not in self.waiting:
            self._shared.counters["enter_answers_unasked"] += 1
            return
        car.asked = None
        if answer.answer == NOT_OWNER or (answer.answer == DENIED and self._is_recorded(car)):
            self._shared.counters["enter_not_owner"] += 1
            car.asked_fence, car.next_ms = None, now.mono_ms + LOOK_AGAIN_MS
            return  # It is asked again then, or when the claims, or our record, are there.
        del self.waiting[car]
        if answer.answer == FAILED:
            # The words are the owner's: its "this node" is not the one that was asked.
            whose = f"{answer.owner}, which serves gate {car.gate}, says: " if answer.owner else ""
            self._tell(car, Failure(answer.reason, whose + answer.detail, answer.hint))
            return
        claim = Claim(car.gate, answer.epoch, answer.owner, answer.incarnation, 0, None)
        is_admitted = answer.answer == ADMITTED
        warnings = answer.warnings if car.questions == 1 else ()  # `repeated` by ourselves.
        self._tell(
            car,
            Decision(
                ADMITTED if is_admitted else DENIED,
                answer.reason,
                car.key,
                car.gate,
                answer.epoch,
                answer.owner,
                answer.free,
                fence_of(claim) if is_admitted else None,
                car.request,
                warnings,
            ),
        )

    # --- considering ---------------------------------------------------------------------

    def _consider(self, car: Car, now: Now) -> None:
        """Decide, ask the owner, or let it wait."""
        if not self._settle(car, now):
            if car.asked is None:
                is_ours = self._gates.served_under(car.gate) is not None
                car.next_ms = now.mono_ms + (LOOK_AGAIN_MS if is_ours else OWNER_LOOK_MS)
            self.waiting[car] = None

    def _settle(self, car: Car, now: Now) -> bool:
        """True when nothing more is to be done for this car."""
        shared = self._shared
        key = normalise_plate(car.plate)
        car.key = key if key is not None else car.plate
        if key is None:
            return self._deny(car, "invalid_plate", now)
        if not shared.has_lot:
            return self._expire(car, "not_ready", now)
        if not 1 <= car.gate <= min(shared.replica.state.record.gates, GATES_MAX):
            return self._deny(car, "unknown_gate", now)
        is_served = self._is_served(car, now)
        if (is_served or not self._is_shut(car)) and self._is_repeated(car):
            return True
        if self._gates.is_leaving and not shared.peers_in_lot():
            return self._deny(car, "draining", now)
        if is_served:
            return self._decide(car, now)
        if shared.replica.failing and self._gates.is_own(car.gate):
            self._tell(car, storage_failure(recorded=False))
            return True
        if car.handle is None:
            self._answer(car, NOT_OWNER, NOT_OWNER)
            return True
        self._pass_on(car, now)
        return self._expire(car, "no_owner", now)

    def _is_served(self, car: Car, now: Now) -> bool:
        """Whether this node may decide, under a fence that the barrier will not refuse."""
        fence = self._gates.served_under(car.gate)
        if fence is None or self._gates.is_leaving or self._is_stale(car, fence):
            return False
        return car.seen is None or self._gates.rise_above(car.gate, car.seen, now)

    def _is_shut(self, car: Car) -> bool:
        """The barrier would refuse whatever could be answered here and now."""
        claim = self._shared.replica.state.record.claim(car.gate)
        return car.seen is not None and (claim is None or fence_of(claim) < car.seen)

    def _is_stale(self, car: Car, fence: Fence) -> bool:
        """Whoever asks knows a later claim than we do: we may not be the owner any more."""
        epoch, owner = car.believed
        is_other = owner not in ("", self._shared.settings.name)
        return epoch > fence.epoch and is_other

    def _is_recorded(self, car: Car) -> bool:
        """The owner, which was asked to raise its fence only, has not heard that the car is in."""
        return self._shared.replica.state.stays.request_effect(car.request) is not None

    def _is_repeated(self, car: Car) -> bool:
        """This request id has had its effect: the same answer, under the claim of today."""
        shared = self._shared
        effect = shared.replica.state.stays.request_effect(car.request)
        if effect is None:
            return False
        _, verb, plate, _, _, gate = effect[:6]
        if verb != VERB_ENTER or plate != car.key:
            self._tell(car, reused())
            return True
        claim = shared.replica.state.record.claim(gate)
        car.gate = gate
        self._admit(car, claim, () if car.questions else (WARNING_REPEATED,))
        return True

    def _decide(self, car: Car, now: Now) -> bool:
        """This node owns the gate: the mode `local` of DESIGN section 7."""
        shared = self._shared
        replica = shared.replica
        stays = replica.state.stays
        if not self._may_mint(now):  # Nor read: a snapshot may be half joined.
            return self._expire(car, "not_ready", now)
        mode = replica.state.record.mode(car.gate)
        if mode == CLOSED:
            return self._deny(car, "gate_closed", now)
        if stays.visible(car.key):
            return self._deny(car, ALREADY_INSIDE, now)
        if mode != OPEN:  # A raised barrier asks nobody whether there is room.
            if self._admission.free <= 0:
                return self._deny(car, "full", now)
            if not self._admission.may_admit(now):
                return self._expire(car, "not_ready", now)
        covers = open_dots(stays.stays_of(car.key))
        raw = car.plate if car.plate != car.key else None
        body = Enter(car.key, car.gate, car.request, covers, raw, None, FLAG_ADMITTED)
        event = replica.mint(body, shared.physical_ms(now))
        self._admission.admitted(event.seq)
        claim = replica.state.record.claim(car.gate)
        assert claim is not None
        self._admit(car, claim, ())
        return True

    def _admit(self, car: Car, claim: Claim | None, warnings: tuple[str, ...]) -> None:
        """Answer when it is on disk, under the claim that is the greatest by then."""
        decision = Decision(
            ADMITTED,
            "ok",
            car.key,
            car.gate,
            None if claim is None else claim.epoch,
            None if claim is None else claim.owner,
            self._admission.free,
            None if claim is None else fence_of(claim),
            car.request,
            warnings,
        )
        self._shared.replies.when_durable(decision, partial(self._tell, car))

    def _deny(self, car: Car, reason: str, now: Now, hint: str = "") -> bool:
        replica = self._shared.replica
        self._shared.journal.note_denied(
            None if reason == "invalid_plate" else car.key, car.gate, reason, car.request, now
        )
        claim = replica.state.record.claim(car.gate)
        decided = self._gates.served_under(car.gate) is not None and claim is not None
        decision = Decision(
            DENIED,
            reason,
            car.key,
            car.gate,
            claim.epoch if decided and claim is not None else None,
            claim.owner if decided and claim is not None else None,
            self._admission.free if self._shared.has_lot else None,
            None,
            car.request,
            (),
            hint,
        )
        if reason in ("already_inside", "full", "gate_closed"):
            self._shared.replies.when_durable(decision, partial(self._tell, car), is_read=True)
        else:
            self._tell(car, decision)
        return True

    def _pass_on(self, car: Car, now: Now) -> None:
        """Ask the owner, unless it was asked under this claim and may still answer."""
        shared = self._shared
        claim = shared.replica.state.record.claim(car.gate)
        owner = self._gates.owner_of(car.gate, now)
        if claim is None or owner is None:
            return
        member = shared.members.get(owner)
        fence = fence_of(claim)
        if member is None or member.state in GONE:
            return
        if car.asked_fence == fence and now.mono_ms < car.next_ms:
            return
        if car.asked is not None:
            self._asked.pop(car.asked, None)
        car.questions += 1
        car.asked, car.asked_fence = shared.next_nonce(), fence
        car.next_ms = now.mono_ms + shared.settings.forward_retry_ms
        self._asked[car.asked] = car
        remaining_ms = max(0, car.deadline_ms - now.mono_ms)
        shared.counters["enters_passed_on"] += 1
        shared.outbox.send(
            member.address,
            EnterAsk(
                car.asked,
                car.plate,
                car.gate,
                car.request,
                claim.epoch,
                owner,
                remaining_ms,
                car.seen,
            ),
        )

    def _expire(self, car: Car, reason: str, now: Now) -> bool:
        """At the deadline: nobody has decided. True then."""
        if now.mono_ms < car.deadline_ms:
            return False
        if car.asked is not None:
            self._asked.pop(car.asked, None)
        hint = "repeat it with the same request id: it may have been admitted"
        return self._deny(car, reason, now, hint)

    # --- answers -------------------------------------------------------------------------

    def _tell(self, car: Car, outcome: Outcome) -> None:
        assert isinstance(outcome, Decision | Failure), outcome
        if isinstance(outcome, Decision) and outcome.decision == ADMITTED:
            outcome = self._renewed(car, outcome)
        is_inside = isinstance(outcome, Decision) and outcome.reason == ALREADY_INSIDE
        if is_inside and self._is_repeated(car):
            return  # The same request was let in while the disk was busy, by another way.
        if car.handle is not None:
            self._shared.outbox.reply(car.handle, outcome)
        elif isinstance(outcome, Failure):
            self._answer(car, FAILED, outcome.code, outcome)
        else:
            self._answer(car, outcome.decision, outcome.reason, outcome)

    def _renewed(self, car: Car, decision: Decision) -> Decision:
        """The gate may have changed hands while the disk was busy."""
        claim = self._shared.replica.state.record.claim(car.gate)
        if claim is None or decision.fence == fence_of(claim):
            return decision
        return replace(decision, epoch=claim.epoch, owner=claim.owner, fence=fence_of(claim))

    def _answer(
        self, car: Car, answer: str, reason: str, outcome: Decision | Failure | None = None
    ) -> None:
        assert car.route is not None
        shared = self._shared
        claim = shared.replica.state.record.claim(car.gate) if shared.has_lot else None
        failure = outcome if isinstance(outcome, Failure) else None
        shared.outbox.send(
            car.route,
            EnterAnswer(
                car.nonce,
                answer,
                reason,
                0 if claim is None else claim.epoch,
                "" if claim is None else claim.owner,
                0 if claim is None else claim.incarnation,
                self._admission.free if shared.has_lot else 0,
                "" if failure is None else failure.reason,
                "" if failure is None else failure.hint,
                outcome.warnings if isinstance(outcome, Decision) else (),
            ),
        )

    # --- time ----------------------------------------------------------------------------

    def look_again(self, now: Now) -> None:
        """Claims, counts or the time have changed: consider every waiting car again."""
        if not self.waiting:
            return
        everybody, self.has_news = self.has_news, False
        for car in list(self.waiting):
            if everybody or now.mono_ms >= min(car.next_ms, car.deadline_ms):
                del self.waiting[car]
                self._consider(car, now)
        if not self.waiting:
            self._admission.nobody_waits()

    def unanswered(self) -> list[tuple[int, AskToEnter, int]]:
        """Clients that still wait, for another node to take; with their deadlines."""
        waiting, self.waiting = self.waiting, {}
        return [
            (car.handle, AskToEnter(car.plate, car.gate, car.request), car.deadline_ms)
            for car in waiting
            if car.handle is not None
        ]

    def next_deadline(self, now_ms: int) -> int | None:
        """When to look again, monotonic milliseconds."""
        if not self.waiting:
            return None
        return min(min(car.next_ms, car.deadline_ms) for car in self.waiting)
