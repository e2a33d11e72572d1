"""What owners decide about cars: who vouches for a record, and how many are let in.

P2   whoever says *admitted* has the record on its disk: that disk vouches for it
P9   nobody records a request a second time, or denies it, who knows that it has been recorded
P7'  in a calm cluster where every car asks, at most one car for each owner of a gate is over the
     spaces (DESIGN section 12 allows the mode `local` that much)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from parkingd.core.events import FLAG_MERGED, Enter, Event, Exit
from parkingd.core.ids import Dot
from parkingd.protocol.effects import Send
from parkingd.protocol.messages import EnterAnswer, EnterAsk, Route
from parkingd.protocol.outcomes import Decision
from tests.sim.history import Violation
from tests.sim.network import route_of
from tests.sim.trace import dot_text

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

ADMITTED = "admitted"


class Acknowledged(NamedTuple):
    """A reply named this dot: the disk it was given from vouches for it."""

    dot: Dot
    machine: int
    disk_age: int
    time_ms: int


class Admissions:
    """The decisions of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._asked: dict[tuple[int, int, int], EnterAsk] = {}
        """(machine, process, nonce) -> what it asks another node."""
        self._answered: set[tuple[int, int, bytes]] = set()
        """(machine, process, request): another node has said *admitted* to it."""
        self.vouched: dict[bytes, list[Acknowledged]] = {}
        """By request: the records of it that disks vouch for."""
        self._inside: set[str] = set()

    def sent(self, machine: Machine, effect: Send) -> None:
        """A question to an owner, or its answer."""
        message = effect.message
        if isinstance(message, EnterAsk):
            self._asked[machine.index, machine.process, message.nonce] = message
        elif isinstance(message, EnterAnswer):
            assert isinstance(effect.to, Route)
            index, process = route_of(effect.to)
            ask = self._asked[index, process, message.nonce]
            if message.answer == ADMITTED:
                self._vouch(machine, ask.request)
                self._answered.add((index, process, ask.request))
            elif message.reason == "already_inside":
                self._check_denied(machine, ask.request, ask.plate)

    def replied(self, machine: Machine, decision: Decision) -> None:
        """A client is told; unless it only passes on what another said, this disk vouches too."""
        request = decision.request
        if request is None:
            return
        if decision.reason == "already_inside":
            self._check_denied(machine, request, decision.plate)
            return
        is_passed_on = (machine.index, machine.process, request) in self._answered
        if decision.decision == ADMITTED and not is_passed_on:
            self._vouch(machine, request)

    def _check_denied(self, machine: Machine, request: bytes, plate: str) -> None:
        """A car is not kept out by what was recorded when it asked before."""
        assert machine.node is not None
        shown = machine.node.state.stays.visible(plate)
        events = self._cluster.checkers.history.events
        causes = {getattr(events[stay[1], stay[0]].body, "cause", None) for stay in shown}
        if causes == {request}:
            what = (
                f"{machine.name} denies {plate}: it is inside by the very request that it repeats"
            )
            raise Violation("P9", what, plate)

    def _vouch(self, machine: Machine, request: bytes) -> None:
        assert machine.node is not None
        checkers = self._cluster.checkers
        context = machine.node.state.context
        held = [
            (stay.origin, stay.seq)
            for stay in checkers.history.by_cause.get(request, ())
            if context.contains(stay.origin, stay.seq)
            and (stay.origin != machine.replica or stay.seq <= machine.durable_seq)
        ]
        if not held:
            raise Violation(
                "commit first", f"{machine.name} admits {request.hex()[:8]}, its disk has nothing"
            )
        vouched = self.vouched.setdefault(request, [])
        for dot in held:
            one = Acknowledged(dot, machine.index, machine.disk_age, self._cluster.time_ms)
            vouched.append(one)
            checkers.acknowledged.append(one)

    def minted(self, machine: Machine, event: Event) -> None:
        """An entry or an exit is recorded."""
        body = event.body
        if isinstance(body, Enter):
            self._check_once(machine, event, body)
            self._inside.add(body.plate)
            if self._cluster.options.calm:
                self._check_room(machine, body)
        elif isinstance(body, Exit):
            self._inside.discard(body.plate)

    def _check_once(self, machine: Machine, event: Event, enter: Enter) -> None:
        if enter.cause is None or enter.flags & FLAG_MERGED:
            return
        assert machine.node is not None
        history, context = self._cluster.checkers.history, machine.node.state.context
        for stay in history.by_cause.get(enter.cause, ()):
            dot = (stay.origin, stay.seq)
            if dot != event[:2] and history.holds(context, *dot):
                raise Violation(
                    "P9",
                    f"{machine.name} records {enter.cause.hex()[:8]} again, and holds"
                    f" {dot_text(dot)}",
                    enter.plate,
                    dot_text(dot),
                )

    def _check_room(self, machine: Machine, enter: Enter) -> None:
        assert machine.node is not None
        cluster = self._cluster
        spaces = machine.node.state.record.spaces
        owners = cluster.checkers.owners.count()
        if len(self._inside) > spaces + owners:
            raise Violation(
                "P7",
                f"{machine.name} admits {enter.plate}: {len(self._inside)} cars in {spaces}"
                f" spaces, with {owners} owners",
                enter.plate,
            )
