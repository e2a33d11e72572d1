"""Cars, clones, careless operators and imports, and the record of what physically happened.

A car enters at some node's gate, asking (see `arrivals`) or merely recorded, stays, leaves at any
node's gate, and may come again; between two of its gate events lie at least `GAP_MS`. A client
sends one request id with each gate event and repeats it, on the same or another node, when it gets
no answer. What became of every gate event is kept, so that the healed cluster can be held against
it (`judge`).

Messy plates get anything from anybody: they are judged by the reference function alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parkingd.protocol import outcomes
from parkingd.protocol.commands import (
    Command,
    Correct,
    ImportRow,
    ImportRows,
    ReadLot,
    ReadVehicles,
    RecordExit,
    Remove,
    Track,
    Where,
)
from parkingd.protocol.effects import Reply
from tests.sim.admissions import Acknowledged
from tests.sim.arrivals import Arrival
from tests.sim.barriers import Barriers
from tests.sim.clock import EPOCH_MS
from tests.sim.options import FAULTS_MS, GAP_MS

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

ATTEMPTS_MAX = 3
IMPORT_ROWS = 12
RUSH_EVERY_MS = 8_000
QUIET_MS = 8_000
"""Before the end of the faults nothing new begins, so that every request has its answer."""


@dataclass(slots=True)
class GateEvent:
    """One thing a car did, and what the record knows of it."""

    entering: bool
    request: bytes
    time_ms: int
    recorded: bool = True
    """False: it happened, and nobody told any node."""
    happened: bool = True
    """False: a car asked to be let in, and no barrier opened for it; there may be a record."""
    acknowledged: list[Acknowledged] = field(default_factory=list)


@dataclass(slots=True)
class Car:
    """A plate, and everything it did, in order."""

    plate: str
    events: list[GateEvent] = field(default_factory=list)


@dataclass(slots=True)
class Imported:
    """One accepted row."""

    plate: str
    request: bytes
    machine: int
    disk_age: int


class Asking:
    """One request of one client, over its attempts."""

    def __init__(
        self,
        workload: Workload,
        command: Command,
        *,
        on_done: Callable[[Asking], None],
        home: Machine | None = None,
    ) -> None:
        self.workload = workload
        self.command = command
        self.on_done = on_done
        self.home = home
        self.attempts = 0
        self.done = False
        self.acknowledged: list[Acknowledged] = []
        self.outcome: outcomes.Outcome | None = None
        self.by: Machine | None = None

    def attempt(self) -> None:
        """Ask a node that runs; nobody there counts as an attempt too."""
        if self.done:
            return
        workload = self.workload
        cluster = workload.cluster
        if self.attempts == ATTEMPTS_MAX:
            self.finish()
            return
        self.attempts += 1
        machine = self.home
        if machine is None or self.attempts > 1:
            machine = workload.pick()
        wait_ms = cluster.options.client_wait_ms
        number = self.attempts
        cluster.at(cluster.time_ms + wait_ms + 1, self._late, number)
        if machine is not None:
            cluster.submit(machine, self.command, wait_ms, self.answered)

    def answered(self, machine: Machine, reply: Reply) -> None:
        """The node said something, perhaps too late: what it named is acknowledged all the same."""
        outcome = reply.outcome
        if isinstance(outcome, outcomes.Entry | outcomes.Exit):
            time_ms = self.workload.cluster.time_ms
            self.acknowledged.append(
                Acknowledged(outcome.dot, machine.index, machine.disk_age, time_ms)
            )
        if isinstance(outcome, outcomes.Decision) and outcome.request is not None:
            vouched = self.workload.cluster.checkers.vouched
            self.acknowledged.extend(vouched.get(outcome.request, ()))
        if self.done or not reply.last:
            return
        self.outcome, self.by = outcome, machine
        failed = _failed(outcome)
        if failed is not None:
            self.workload.failures[failed] = self.workload.failures.get(failed, 0) + 1
            if failed in RETRIED:
                cluster = self.workload.cluster
                delay_ms = self.workload.dice.randrange(50, 400)
                cluster.at(cluster.time_ms + delay_ms, self._again, self.attempts)
                return
        self.finish()

    def _again(self, number: int) -> None:
        if number == self.attempts:
            self.attempt()

    def _late(self, number: int) -> None:
        if not self.done and number == self.attempts:
            self.workload.late += 1
            self.attempt()

    def finish(self) -> None:
        """No more attempts."""
        if not self.done:
            self.done = True
            self.on_done(self)


RETRIED = frozenset(
    {
        outcomes.ErrorCode.NOT_READY,
        outcomes.ErrorCode.STORAGE_FAILED,
        outcomes.ErrorCode.TIMED_OUT,
        outcomes.ErrorCode.OVERLOADED,
        outcomes.ErrorCode.DRAINING,
        "no_owner",
    }
)


def _failed(outcome: outcomes.Outcome) -> str | None:
    """Why nothing was decided or done; None if something was."""
    if isinstance(outcome, outcomes.Failure):
        return outcome.code
    if isinstance(outcome, outcomes.Decision) and outcome.reason in RETRIED:
        return outcome.reason
    return None


class Workload:
    """Everybody who asks something of the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.dice = cluster.streams.stream("workload")
        self.cars = [Car(f"CAR{number}") for number in range(cluster.options.cars)]
        self.twins = [Car(f"TWIN{number}") for number in range(cluster.options.twins)]
        self.messy = [f"MESSY{number}" for number in range(cluster.options.messy)]
        self.imported: list[Imported] = []
        self.barriers = Barriers(cluster)
        self.failures: dict[str, int] = {}
        self.denials: dict[str, int] = {}
        """Why cars that asked were not let in."""
        self.late = 0
        self.asked = 0

    def begin(self) -> None:
        """Put everybody's first act into the loop."""
        dice, at, options = self.dice, self.cluster.at, self.cluster.options
        for car in self.cars:
            at(self._rush_ms(dice.randrange(500, 30_000)), self.enter, car)
        for twin in self.twins:
            at(dice.randrange(5_000, 80_000), self._twins_enter, twin)
        if self.messy:
            at(dice.randrange(2_000, 8_000), self._mess)
        for number in range(options.imports):
            at(dice.randrange(3_000, 80_000), self._import, number)
        at(5_000, self._read)

    @property
    def is_over(self) -> bool:
        """Nothing new begins."""
        return self.cluster.time_ms > FAULTS_MS - QUIET_MS

    def pick(self) -> Machine | None:
        """A node that somebody drives up to; not always one that runs."""
        machine = self.dice.choice(self.cluster.machines)
        if machine.node is None:
            running = self.cluster.running()
            machine = self.dice.choice(running) if running else machine
        return machine if machine.node is not None else None

    def ask(
        self, command: Command, on_done: Callable[[Asking], None], home: Machine | None = None
    ) -> None:
        """A client's request, with its repetitions."""
        self.asked += 1
        asking = Asking(self, command, on_done=on_done, home=home or self.pick())
        asking.attempt()

    def _request(self) -> bytes:
        return self.dice.randbytes(16)

    def gate(self) -> int:
        """Any of the gates that the lot began with."""
        return self.dice.randrange(1, self.cluster.options.gates + 1)

    def drivers_delay_ms(self) -> int:
        """From the answer to the barrier."""
        return self.dice.choice((0, 5, 20, 300, 4_000))

    def _pause_ms(self, mean_ms: int) -> int:
        return int(self.dice.expovariate(1 / mean_ms))

    # --- cars ------------------------------------------------------------------------------------

    def gate_event(self, car: Car, *, entering: bool) -> GateEvent:
        """Something that this car does now."""
        event = GateEvent(entering, self._request(), self.cluster.time_ms)
        car.events.append(event)
        return event

    def _rush_ms(self, at_ms: int) -> int:
        """In a calm cluster all cars that come within a while come at the same moment."""
        if not self.cluster.options.calm:
            return at_ms
        return at_ms - at_ms % RUSH_EVERY_MS + RUSH_EVERY_MS + self.dice.randrange(0, 30)

    def enter(self, car: Car) -> None:
        """It comes: it asks, or somebody just writes it down."""
        if self.is_over:
            return
        event = self.gate_event(car, entering=True)
        if self.dice.random() < self.cluster.options.asking:
            event.happened = False
            Arrival(self, car, event).ask()
            return
        self.ask(Track(car.plate, self.gate(), event.request), self.then(car, event, self.leave))

    def leave(self, car: Car) -> None:
        """It goes."""
        if self.is_over:
            return
        event = self.gate_event(car, entering=False)
        if self.dice.random() < self.cluster.options.missed_exit:
            event.recorded = False
            self.come_and_go(car, self.enter)
            return
        command = RecordExit(car.plate, self.gate(), event.request)
        self.ask(command, self.then(car, event, self.enter))

    def then(
        self, car: Car, event: GateEvent, following: Callable[[Car], None]
    ) -> Callable[[Asking], None]:
        """What to do when this has been answered, or given up."""

        def done(asking: Asking) -> None:
            event.acknowledged = asking.acknowledged
            self.come_and_go(car, following)

        return done

    def come_and_go(self, car: Car, following: Callable[[Car], None]) -> None:
        """The next thing this car does."""
        at_ms = self.cluster.time_ms + GAP_MS + self._pause_ms(self.cluster.options.stay_mean_ms)
        if following == self.enter:
            at_ms = self._rush_ms(at_ms)
        self.cluster.at(at_ms, following, car)

    # --- cloned plates ---------------------------------------------------------------------------

    def _twins_enter(self, twin: Car) -> None:
        """Two cars with one plate at two gates, at nearly the same time."""
        running = self.cluster.running()
        if len(running) < 2:
            return
        homes = self.dice.sample(running, 2)
        for home in homes:
            event = GateEvent(True, self._request(), self.cluster.time_ms)
            twin.events.append(event)
            command = Track(twin.plate, self.gate(), event.request)

            def done(asking: Asking, event: GateEvent = event) -> None:
                event.acknowledged = asking.acknowledged

            delay_ms = self.dice.randrange(0, 1_000)
            self.cluster.at(self.cluster.time_ms + delay_ms, self.ask, command, done, home)

    # --- careless operators ----------------------------------------------------------------------

    def _mess(self) -> None:
        if self.is_over:
            return
        dice = self.dice
        plate = dice.choice(self.messy)
        request = self._request()
        command: Command
        kind = dice.choices(("track", "exit", "correct", "remove"), (5, 3, 2, 1))[0]
        if kind == "track":
            command = Track(plate, self.gate(), request if dice.random() < 0.9 else None)
        elif kind == "exit":
            command = RecordExit(plate, self.gate(), request if dice.random() < 0.9 else None)
        elif kind == "correct":
            command = Correct(plate, dice.choice(self.messy), request)
        else:
            command = Remove(plate, None, request)
        self.ask(command, _nothing)
        if dice.random() < 0.3:
            delay_ms = dice.randrange(0, 1_500)
            self.cluster.at(self.cluster.time_ms + delay_ms, self.ask, command, _nothing)
        pause_ms = 1 + self._pause_ms(self.cluster.options.messy_every_ms)
        self.cluster.at(self.cluster.time_ms + pause_ms, self._mess)

    # --- imports and reads -----------------------------------------------------------------------

    def _import(self, number: int) -> None:
        rows = tuple(
            ImportRow(
                line=line + 1,
                plate=f"IMP{number}X{line}",
                gate=self.gate(),
                since_ms=EPOCH_MS - 3_600_000,
                request=self._request(),
            )
            for line in range(IMPORT_ROWS)
        )

        def done(asking: Asking) -> None:
            outcome = asking.outcome
            if not isinstance(outcome, outcomes.ImportResult) or asking.by is None:
                return
            refused = {failure.line for failure in outcome.failed}
            for row in rows:
                if row.line not in refused:
                    by = asking.by
                    self.imported.append(Imported(row.plate, row.request, by.index, by.disk_age))

        self.ask(ImportRows(rows), done)

    def _read(self) -> None:
        if self.is_over:
            return
        command = self.dice.choice(
            (ReadLot(), ReadVehicles(), Where(self.dice.choice(self.cars).plate))
        )
        self.ask(command, _nothing)
        self.cluster.at(self.cluster.time_ms + self.dice.randrange(1_000, 6_000), self._read)


def _nothing(_: Asking) -> None:
    """Nobody is interested in the answer."""
