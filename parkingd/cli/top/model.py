"""What the dashboard knows: a pure fold over what was asked and told, in the order it came.

`after` takes a model and one message of the feed and gives the next model. Rates and the history
of the sparkline come from successive messages. There is no clock here: every message carries the
moment it came, and whoever draws says what time it is.

Cars in and out come from the event stream where the daemon has one. Else they are what the count
changed by between two looks, so that a car that came while another left is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

from parkingd.adapters.client import CODE_NO_DAEMON
from parkingd.adapters.document_values import Document
from parkingd.cli.top.reading import (
    Event,
    Gate,
    Group,
    Lot,
    Member,
    read_counters,
    read_event,
    read_gates,
    read_groups,
    read_lot,
    read_members,
    read_number,
    read_silent,
    read_text,
    read_time_ms,
)

BUCKET_S: Final = 10
BUCKETS: Final = 30
"""One bar of the sparkline is ten seconds; five minutes are kept."""

MINUTE_BUCKETS: Final = 60 // BUCKET_S

EVENTS_MAX: Final = 1_000
"""Lines that can be scrolled back to: some 300 KB."""

RATE_WINDOW_S: Final = 10.0
"""Rates are means of this long: a single look is too restless to read."""

STALE_AFTER_S: Final = 3.0
"""A daemon that lives but has not answered for this long is frozen, or its machine is."""
STALE_INTERVALS: Final = 2.5
"""The same for those who look less often, in intervals."""

NO_EVENTS: Final = "this daemon tells no events"

_DIRECTIONS: Final = {
    "admitted": "in",
    "entered": "in",
    "exited": "out",
    "unmatched_exit": "out",
}
"""Types of events, and where their car went."""

_RATED: Final = ("events_received", "bytes_in", "bytes_out")


class Moment(NamedTuple):
    """A time on both clocks: monotonic seconds for ages, wall milliseconds for display."""

    mono_s: float
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Polled:
    """One look at the node. ``gates`` is None while it has no lot."""

    at: Moment
    status: Document
    members: Document
    gates: Document | None


@dataclass(frozen=True, slots=True)
class Compared:
    """The roots of all members."""

    at: Moment
    digest: Document


@dataclass(frozen=True, slots=True)
class Told:
    """A page of the event stream. ``missed``: so many were lost before it."""

    at: Moment
    items: tuple[Mapping[str, Any], ...]
    missed: int = 0


@dataclass(frozen=True, slots=True)
class TellsNothing:
    """There is no event stream, and why."""

    at: Moment
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The daemon is gone."""

    at: Moment
    reason: str
    code: str = CODE_NO_DAEMON
    hint: str = ""


Message: TypeAlias = Polled | Compared | Told | TellsNothing | Lost


class LastCar(NamedTuple):
    """The last car at a gate."""

    plate: str
    direction: str
    at_ms: int


class Sample(NamedTuple):
    """Counters at one time."""

    mono_s: float
    counters: Mapping[str, int]


Flow: TypeAlias = tuple[int, int, int]
"""A bucket's number (wall seconds / `BUCKET_S`), cars in, cars out."""


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that can be shown. The first fields are of the last look."""

    polled: Moment | None = None
    """When that was; None: there was none yet."""
    cluster: str = ""
    node: str = ""
    version: str = ""
    incarnation: int = 0
    uptime_s: float = 0.0
    synced: bool = False
    ready: bool = False
    warnings: tuple[str, ...] = ()
    lot: Lot | None = None
    members: tuple[Member, ...] = ()
    gates: tuple[Gate, ...] = ()

    groups: tuple[Group, ...] | None = None
    """None: not compared yet."""
    silent: tuple[str, ...] = ()

    events: tuple[Event, ...] = ()
    """The newest last."""
    events_before: int = 0
    """How many came before the first of ``events``."""
    events_missed: int = 0
    tells_events: bool | None = None
    """None: not known yet."""
    no_events_reason: str = ""
    last_cars: Mapping[int, LastCar] = field(default_factory=dict)

    flows: tuple[Flow, ...] = ()
    samples: tuple[Sample, ...] = ()
    lost: Lost | None = None
    """Since when there is no daemon, and why."""

    def root_of(self, name: str) -> str | None:
        """The root of this member's replica, if it said it."""
        for group in self.groups or ():
            if name in group.nodes:
                return group.root
        return None

    def rate(self, counter: str) -> float | None:
        """Per second, over the last looks; None when there were too few."""
        if len(self.samples) < 2:
            return None
        first, last = self.samples[0], self.samples[-1]
        change = last.counters.get(counter, 0) - first.counters.get(counter, 0)
        return max(0.0, change / (last.mono_s - first.mono_s))

    def history(self, now: Moment) -> list[tuple[int, int]]:
        """Cars in and out of each of the last `BUCKETS`, the running one last."""
        by_bucket = {bucket: (entered, left) for bucket, entered, left in self.flows}
        last = now.wall_ms // 1_000 // BUCKET_S
        return [by_bucket.get(bucket, (0, 0)) for bucket in range(last - BUCKETS + 1, last + 1)]

    def per_minute(self, now: Moment) -> tuple[int, int]:
        """Cars in and out during the last minute."""
        minute = self.history(now)[-MINUTE_BUCKETS:]
        return sum(entered for entered, _ in minute), sum(left for _, left in minute)

    def age_s(self, now: Moment) -> float | None:
        """Since the last look."""
        return None if self.polled is None else max(0.0, now.mono_s - self.polled.mono_s)

    def is_stale(self, now: Moment, interval_s: float) -> bool:
        """The daemon lives, but has not answered for too long."""
        age_s = self.age_s(now)
        limit_s = max(STALE_AFTER_S, STALE_INTERVALS * interval_s)
        return self.lost is None and age_s is not None and age_s > limit_s

    def troubles(self) -> tuple[str, ...]:
        """What is not as it should be, in words; the node's own warnings first."""
        lines = list(self.warnings)
        if not self.ready:
            lines.append("the node is not ready yet")
        elif not self.synced:
            lines.append("the node is not in sync yet")
        for state in ("suspect", "dead"):
            names = [member.name for member in self.members if member.state == state]
            if names:
                lines.append(f"{state}: {', '.join(names)}")
        if self.groups is not None and len(self.groups) > 1:
            lines.append("the replicas differ at this moment")
        return tuple(lines)


def after(model: Model, message: Message) -> Model:
    """The model when this has come too."""
    match message:
        case Polled():
            return _polled(model, message)
        case Compared(digest=digest):
            return replace(model, groups=read_groups(digest), silent=read_silent(digest))
        case Told():
            return _told(model, message)
        case TellsNothing(reason=reason):
            return replace(model, tells_events=False, no_events_reason=reason)
        case Lost():
            return model if model.lost is not None else replace(model, lost=message)
        case _:
            assert_never(message)


def _polled(model: Model, message: Polled) -> Model:
    status = message.status
    members = read_members(message.members)
    lot = read_lot(status.get("lot"))
    incarnation = read_number(status.get("incarnation"))
    goes_on = incarnation == model.incarnation
    own = next((member for member in members if member.is_self), None)
    flows = model.flows
    if not model.tells_events and goes_on and lot is not None and model.lot is not None:
        change = lot.inside - model.lot.inside
        at_ms = read_time_ms(status.get("at"), message.at.wall_ms)
        flows = _counted(flows, at_ms, max(0, change), max(0, -change))
    counters = read_counters(status.get("counters"))
    sample = Sample(message.at.mono_s, {key: counters.get(key, 0) for key in _RATED})
    oldest_s = message.at.mono_s - RATE_WINDOW_S
    kept = [each for each in model.samples if goes_on and oldest_s <= each.mono_s < sample.mono_s]
    return replace(
        model,
        polled=message.at,
        cluster=read_text(status.get("cluster")),
        node=read_text(status.get("node")),
        version=own.version if own is not None else "",
        incarnation=incarnation,
        uptime_s=float(status.get("uptime_s") or 0.0),
        synced=bool(status.get("synced")),
        ready=bool(status.get("ready")),
        warnings=tuple(read_text(line) for line in status.get("warnings") or ()),
        lot=lot,
        members=members,
        gates=read_gates(message.gates) if message.gates is not None else (),
        flows=flows,
        samples=(*kept, sample),
        lost=None,
    )


def _told(model: Model, message: Told) -> Model:
    events = tuple(read_event(item, message.at.wall_ms) for item in message.items)
    flows, last_cars = model.flows, dict(model.last_cars)
    for event in events:
        direction = direction_of(event.type)
        if direction is None:
            continue
        flows = _counted(flows, event.at_ms, int(direction == "in"), int(direction == "out"))
        if event.gate is not None and event.plate is not None:
            last_cars[event.gate] = LastCar(event.plate, direction, event.at_ms)
    together = (*model.events, *events)
    dropped = max(0, len(together) - EVENTS_MAX)
    return replace(
        model,
        events=together[dropped:],
        events_before=model.events_before + dropped,
        events_missed=model.events_missed + message.missed,
        tells_events=True,
        last_cars=last_cars,
        flows=flows,
    )


def direction_of(type_: str) -> str | None:
    """``in`` or ``out`` for events of cars that came or went."""
    return _DIRECTIONS.get(type_)


def _counted(flows: tuple[Flow, ...], at_ms: int, entered: int, left: int) -> tuple[Flow, ...]:
    """With these cars in their bucket; at most `BUCKETS` buckets stay."""
    if not entered and not left:
        return flows
    bucket = at_ms // 1_000 // BUCKET_S
    counts = {number: (came, went) for number, came, went in flows}
    came, went = counts.get(bucket, (0, 0))
    counts[bucket] = came + entered, went + left
    return tuple((number, *counts[number]) for number in sorted(counts)[-BUCKETS:])
