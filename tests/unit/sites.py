"""Replicas at the level of the state: they act on what they see, and hear what they are told.

A `Site` is a `LotState` with the log of everything it applied. It mints as the desk does: what it
lists as covered is what it holds. Nothing passes between sites by itself: `take` applies events,
`hear` takes another's durable vector, `freeze` and `thaw` are the two ends of a snapshot.

Time is counted in steps of ten seconds, one for each operation anywhere; ``skew`` shifts one site's
clock by as many steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from parkingd.core.causal import CausalContext
from parkingd.core.events import (
    Body,
    Correction,
    Enter,
    Event,
    Exit,
    Found,
    Join,
    Removal,
)
from parkingd.core.ids import Dot, HybridTime, ReplicaId
from parkingd.core.lot import lot_id
from parkingd.core.records import Record, RequestEffect
from parkingd.core.state import Applied, LotState
from parkingd.core.stays import stay_cause, stay_since_ms
from parkingd.protocol.limits import CAUSES_MAX, COVERS_MAX

STEP_MS = 10_000
START_MS = 1_700_000_000_000


class Clock:
    """The steps that all sites share."""

    def __init__(self) -> None:
        self.steps = 0


class Frozen(NamedTuple):
    """A snapshot: what its header and its chunks carry."""

    context: CausalContext
    records: list[Record]
    early: tuple[Dot, ...]
    hybrid_high: HybridTime
    small: list[Event]
    requests: list[tuple[bytes, RequestEffect]]


class Site:
    """One replica."""

    def __init__(self, replica: ReplicaId, clock: Clock, skew: int = 0) -> None:
        self.id = replica
        self.clock = clock
        self.skew = skew
        self.state = LotState()
        self.seq = 0
        self.log: dict[Dot, Event] = {}

    # --- minting -------------------------------------------------------------------------

    def mint(self, body: Body) -> Event:
        self.clock.steps += 1
        physical_ms = START_MS + (self.clock.steps + self.skew) * STEP_MS
        self.seq += 1
        event = Event(self.id, self.seq, self.state.clock.mint(physical_ms), body)
        assert self.state.apply(event) is Applied.NEW
        self.log[dot(event)] = event
        return event

    def join(self) -> Event:
        return self.mint(Join(f"n{self.id}", ephemeral=False))

    def found(self) -> Event:
        lot = lot_id(START_MS << 16, self.id)
        return self.mint(Found(lot, spaces=10, gates=4, admission="local"))

    def enter(self, plate: str = "P", cause: bytes | None = None) -> Event:
        return self.mint(Enter(plate, 1, cause, self._stays(plate)))

    def exit(self, plate: str = "P", request: bytes | None = None) -> Event:
        stays = self.state.stays
        inside, marks = stays.visible(plate), stays.marks_of(plate)
        latest = max(inside, key=lambda stay: stay[2], default=None)
        causes = dict.fromkeys(stay_cause(stay) for stay in stays.stays_of(plate))
        for mark in sorted(marks, key=lambda mark: -mark[2]):
            causes.update(dict.fromkeys(mark[6]))
        covers = (*self._stays(plate), *((mark[1], mark[0]) for mark in marks))
        since = stay_since_ms(latest) if latest is not None else None
        body = Exit(
            plate,
            1,
            request,
            covers[:COVERS_MAX],
            tuple(causes)[:CAUSES_MAX],
            min(len(inside), 2),
            since,
        )
        return self.mint(body)

    def remove(self, plate: str = "P", only: Event | None = None) -> Event:
        covers = self._stays(plate) if only is None else (dot(only),)
        return self.mint(Removal(plate, None, covers))

    def correct(self, old: str, new: str) -> Event:
        (stay,) = self.state.stays.visible(old)
        since = stay_since_ms(stay)
        cause = stay_cause(stay)
        return self.mint(Correction(old, self._stays(old), new, stay[4], cause, None, since))

    def _stays(self, plate: str) -> tuple[Dot, ...]:
        return tuple((stay[1], stay[0]) for stay in self.state.stays.stays_of(plate))

    # --- hearing of others ---------------------------------------------------------------

    def take(self, *events: Event) -> Site:
        """Apply these events, in this order; those known change nothing."""
        for event in events:
            applied = self.state.apply(event)
            if applied is Applied.NEW:
                self.log[dot(event)] = event
        return self

    def hear(self, *others: Site) -> Site:
        """Their disks hold all that they hold; and so does the own disk."""
        for other in (self, *others):
            self.state.roster.heard(other.id, other.state.context.vector)
        return self

    def collect(self) -> int:
        return self.state.collect()

    # --- snapshots -----------------------------------------------------------------------

    def freeze(self) -> Frozen:
        state = self.state
        return Frozen(
            state.context.copy(),
            state.stays.records(),
            tuple(state.stays.early),
            state.clock.last,
            list(state.record.events.values()),
            list(state.stays.requests.items()),
        )

    def thaw(self, frozen: Frozen) -> Site:
        """The causal join, in the order in which `protocol.snapshots` takes its steps."""
        state = self.state
        own = state.stays.records()
        state.join_records(frozen.records)
        for request, effect in frozen.requests:
            state.stays.remember(request, effect)
        sent = {(record[1], record[0]) for record in frozen.records}
        state.drop_closed(own, frozen.context, dict.fromkeys(frozen.early), sent)
        state.join_context(frozen.context, frozen.early, frozen.hybrid_high, frozen.small)
        return self

    # --- what a test looks at ------------------------------------------------------------

    def shown(self, plate: str = "P") -> set[Dot]:
        return {(stay[1], stay[0]) for stay in self.state.stays.visible(plate)}


def dot(event: Event) -> Dot:
    return (event.origin, event.seq)


def dots(*events: Event) -> set[Dot]:
    return {dot(event) for event in events}


def sites(count: int, skews: Iterable[int] = ()) -> list[Site]:
    """Replicas 1, 2, ... of one lot; each knows the joins of all, and their vectors."""
    clock = Clock()
    shifts = [*skews, *([0] * count)]
    made = [Site(number, clock, shifts[number - 1]) for number in range(1, count + 1)]
    first = [made[0].found(), *(site.join() for site in made)]
    for site in made:
        site.take(*first).hear(*made)
    for site in made:
        site.hear(*made)
    return made
