"""Cars that ask to be let in: what the driver does, and what really happened at the barrier.

A car is inside only if a barrier opened for it. The node's decision carries a fence; the driver
shows it to the barrier a moment later, sometimes much later. A stale fence is refused, and the
same request is asked again, with what the barrier has seen, as the documents say. Who gets no
answer, or is refused too often, gives up: whether there is a record of it is unknown then, and the
attendant may record an exit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from parkingd.protocol import outcomes
from parkingd.protocol.commands import AskToEnter, RecordExit
from tests.sim.options import GAP_MS

if TYPE_CHECKING:
    from parkingd.core.gates import Fence
    from tests.sim.workload import Asking, Car, GateEvent, Workload

ROUNDS_MAX = 4
"""A driver who was refused this often drives away."""


class Arrival:
    """One car before one gate."""

    def __init__(self, workload: Workload, car: Car, event: GateEvent) -> None:
        self._workload = workload
        self._car = car
        self._event = event
        self._gate = workload.gate()
        self._rounds = 0
        self._seen: Fence | None = None

    def ask(self) -> None:
        """Ask some node, always with the same request id."""
        self._rounds += 1
        command = AskToEnter(self._car.plate, self._gate, self._event.request, self._seen)
        self._workload.ask(command, self._answered)

    def _answered(self, asking: Asking) -> None:
        event, workload = self._event, self._workload
        event.acknowledged.extend(asking.acknowledged)
        outcome = asking.outcome
        if not isinstance(outcome, outcomes.Decision):
            self._give_up("unanswered")
        elif outcome.fence is not None:
            cluster = workload.cluster
            delay_ms = workload.drivers_delay_ms()
            cluster.at(cluster.time_ms + delay_ms, self._drive_up, outcome)
        elif outcome.reason == "unknown_gate" and self._rounds < ROUNDS_MAX:
            self._gate, self._seen = 1, None
            self.ask()
        else:
            self._give_up(outcome.reason)

    def _drive_up(self, decision: outcomes.Decision) -> None:
        workload = self._workload
        assert decision.fence is not None
        if workload.barriers.opens(decision.gate, decision.fence, self._car.plate):
            self._event.happened = True
            workload.come_and_go(self._car, workload.leave)
        elif self._rounds < ROUNDS_MAX:
            self._seen = workload.barriers.seen(decision.gate)
            self.ask()
        else:
            self._give_up("barrier")

    def _give_up(self, reason: str) -> None:
        """It drives away. Where the record has the plate inside, the attendant corrects it."""
        workload, car = self._workload, self._car
        workload.denials[reason] = workload.denials.get(reason, 0) + 1
        if workload.is_over or not (reason == "already_inside" or workload.dice.random() < 0.3):
            workload.come_and_go(car, workload.enter)
            return
        workload.cluster.at(workload.cluster.time_ms + GAP_MS, self._clear)

    def _clear(self) -> None:
        workload, car = self._workload, self._car
        if workload.is_over:
            return
        event = workload.gate_event(car, entering=False)
        command = RecordExit(car.plate, workload.gate(), event.request)
        workload.ask(command, workload.then(car, event, workload.enter))


class LastArrivals:
    """When all is well again: one car before every gate, and all barriers must open."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self.open: dict[int, str] = {}
        """Gates whose barrier has not opened yet, and the last answer."""

    def begin(self, gates: int) -> None:
        """One car each, at whatever node."""
        for gate in range(1, gates + 1):
            self.open[gate] = "nobody has answered"
            request = self._workload.dice.randbytes(16)
            self._ask(AskToEnter(f"LAST{gate}", gate, request), ROUNDS_MAX)

    def _ask(self, command: AskToEnter, rounds: int) -> None:
        def answered(asking: Asking) -> None:
            outcome = asking.outcome
            self.open[command.gate] = str(outcome)
            if not isinstance(outcome, outcomes.Decision):
                return
            if outcome.reason == "full":
                del self.open[command.gate]
            elif outcome.fence is not None:
                barriers = self._workload.barriers
                if barriers.opens(outcome.gate, outcome.fence, command.plate):
                    del self.open[command.gate]
                elif rounds > 1:
                    seen = barriers.seen(outcome.gate)
                    self._ask(replace(command, seen=seen), rounds - 1)

        self._workload.ask(command, answered)
