"""The ground truth: every event that was ever minted, and what a set of events must show.

The reference function is the definition of DESIGN section 4 written down as plainly as possible,
over indexes of all events, with no early set, no collection and no incremental counters. A view
of a replica must equal it for the events of that replica's own context, at every step.

Events enter when their origin hands them to its disk. A crash takes back what the disk did not
keep: such a dot never existed, because nothing may name it before it is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from parkingd.core.causal import CausalContext
from parkingd.core.events import Correction, Enter, Event, Exit, Found, Removal, Seal
from parkingd.core.ids import Dot, HybridTime, ReplicaId, dot_cause
from parkingd.protocol.limits import CAUSES_MAX

COMING: Final = (Enter, Correction)
"""Kinds of events that make a stay."""


class Violation(AssertionError):
    """A promise was broken. ``subjects`` are plates and dots to look for in a trace."""

    def __init__(self, promise: str, text: str, *subjects: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise
        self.subjects = subjects


class KnownStay(NamedTuple):
    """A stay that some event created."""

    origin: ReplicaId
    seq: int
    time: HybridTime
    plate: str
    cause: bytes

    @property
    def rank(self) -> tuple[HybridTime, ReplicaId, int]:
        """Of two stays of one cause the greater is shown."""
        return (self.time, self.origin, self.seq)


class History:
    """All events, indexed for the reference function."""

    def __init__(self, unpack: Callable[[ReplicaId, int, bytes], Event]) -> None:
        self._unpack = unpack
        self.packed: dict[Dot, bytes] = {}
        self.events: dict[Dot, Event] = {}
        self.highest: dict[ReplicaId, int] = {}
        self.stays: dict[str, list[KnownStay]] = {}
        self.by_cause: dict[bytes, list[KnownStay]] = {}
        self.exits: dict[str, list[Event]] = {}
        self.coverers: dict[Dot, list[Dot]] = {}
        self.closers: dict[bytes, list[Dot]] = {}
        self.seals: dict[ReplicaId, list[Event]] = {}
        self.owner: dict[ReplicaId, str] = {}
        self.founded: dict[bytes, Event] = {}
        self.minted = 0

    # --- growing and taking back ----------------------------------------------------------

    def see(self, node: str, origin: ReplicaId, seq: int, packed: bytes) -> Event | None:
        """An origin hands this event to its disk; the event if it is new."""
        dot = (origin, seq)
        known = self.packed.get(dot)
        if known is not None:
            if known != packed:
                raise Violation(
                    "dot uniqueness",
                    f"{node} mints {origin:016x}.{seq} a second time with another payload",
                    _dot_text(dot),
                )
            return None
        event = self._unpack(origin, seq, packed)
        self.add(event, packed, node)
        return event

    def add(self, event: Event, packed: bytes, node: str) -> None:
        """Take a new event into the indexes."""
        dot = (event.origin, event.seq)
        self.minted += 1
        self.packed[dot] = packed
        self.events[dot] = event
        self.owner[event.origin] = node
        if event.seq > self.highest.get(event.origin, 0):
            self.highest[event.origin] = event.seq
        body = event.body
        match body:
            case Enter() | Correction():
                cause = body.cause if body.cause is not None else dot_cause(dot)
                stay = KnownStay(event.origin, event.seq, event.time, body.plate, cause)
                self.stays.setdefault(body.plate, []).append(stay)
                self.by_cause.setdefault(cause, []).append(stay)
            case Exit():
                self.exits.setdefault(body.plate, []).append(event)
                for cause in body.causes:
                    self.closers.setdefault(cause, []).append(dot)
            case Seal():
                self.seals.setdefault(body.replica, []).append(event)
            case Found():
                self.founded[body.lot] = event
            case _:
                pass
        for covered in covers_of(event):
            self.coverers.setdefault(covered, []).append(dot)

    def take_back(self, origin: ReplicaId, above: int) -> None:
        """The events of this origin above this seq died with an uncommitted transaction."""
        for seq in range(self.highest.get(origin, 0), above, -1):
            dot = (origin, seq)
            event = self.events.pop(dot, None)
            if event is None:
                continue
            del self.packed[dot]
            self.minted -= 1
            body = event.body
            match body:
                case Enter() | Correction():
                    cause = body.cause if body.cause is not None else dot_cause(dot)
                    for listed in (self.stays[body.plate], self.by_cause[cause]):
                        listed[:] = [s for s in listed if (s.origin, s.seq) != dot]
                case Exit():
                    self.exits[body.plate].remove(event)
                    for cause in body.causes:
                        self.closers[cause].remove(dot)
                case Seal():
                    self.seals[body.replica].remove(event)
                case Found():
                    del self.founded[body.lot]
                case _:
                    pass
            for covered in covers_of(event):
                self.coverers[covered].remove(dot)
        if above < self.highest.get(origin, 0):
            self.highest[origin] = above

    # --- what exists ------------------------------------------------------------------------

    def is_void(self, context: CausalContext, origin: ReplicaId, seq: int) -> bool:
        """Whether a seal that this context holds says that the dot does not exist."""
        return any(
            context.contains(seal.origin, seal.seq) and not sealed_in(seal.body, seq)
            for seal in self.seals.get(origin, ())
            if isinstance(seal.body, Seal)
        )

    def holds(self, context: CausalContext, origin: ReplicaId, seq: int) -> bool:
        """Whether the event of this dot is in this context and exists."""
        if seq > context.vector.get(origin, 0) and not context.contains(origin, seq):
            return False
        return origin not in self.seals or not self.is_void(context, origin, seq)

    # --- the reference function ---------------------------------------------------------------

    def is_candidate(self, context: CausalContext, stay: KnownStay) -> bool:
        """In the context, not covered, later than every exit of its plate, its cause open."""
        origin, seq, time, plate, cause = stay
        if not self.holds(context, origin, seq):
            return False
        for by, number in self.coverers.get((origin, seq), ()):
            if self.holds(context, by, number):
                return False
        for event in self.exits.get(plate, ()):
            if event.time >= time and self.holds(context, event.origin, event.seq):
                return False
        return not (cause in self.closers and self.is_closed(context, cause))

    def is_closed(self, context: CausalContext, cause: bytes) -> bool:
        """Whether an exit of this context closes the cause.

        A later exit that covers the mark passes its causes on, the newest `CAUSES_MAX` of them:
        what falls off the end of a full list is open again.
        """
        return any(
            self.holds(context, *dot) and self._still_closes(context, dot, cause)
            for dot in self.closers.get(cause, ())
        )

    def _still_closes(self, context: CausalContext, dot: Dot, cause: bytes) -> bool:
        later = [other for other in self.coverers.get(dot, ()) if self.holds(context, *other)]
        for other in later:
            body = self.events[other].body
            if not isinstance(body, Exit) or cause not in body.causes:
                if isinstance(body, Exit) and len(body.causes) == CAUSES_MAX:
                    continue
                return True
            if self._still_closes(context, other, cause):
                return True
        return not later

    def visible(self, context: CausalContext, plate: str) -> set[Dot]:
        """The stays of this plate that a replica with this context must show."""
        shown = set()
        left_at = self._left_at(context, plate)
        for stay in self.stays.get(plate, ()):
            if stay.time <= left_at or not self.is_candidate(context, stay):
                continue
            siblings = self.by_cause[stay.cause]
            if len(siblings) == 1 or not any(
                other.rank > stay.rank and self.is_candidate(context, other) for other in siblings
            ):
                shown.add((stay.origin, stay.seq))
        return shown

    def _left_at(self, context: CausalContext, plate: str) -> HybridTime:
        """When this plate last left, as the context says; before all times if it never did."""
        left_at = -1
        for event in reversed(self.exits.get(plate, ())):
            if event.time > left_at and self.holds(context, event.origin, event.seq):
                left_at = event.time
        return left_at

    def plates_of(self, event: Event) -> dict[str, None]:
        """Every plate whose view this event may change, as keys: in an order that is fixed."""
        body = event.body
        plates: dict[str, None] = {}
        causes: tuple[bytes, ...] = ()
        match body:
            case Enter():
                plates[body.plate] = None
                causes = (body.cause if body.cause is not None else dot_cause(event[:2]),)
            case Exit():
                plates[body.plate] = None
                causes = body.causes
                for stay in self.stays.get(body.plate, ()):
                    if len(self.by_cause[stay.cause]) > 1:
                        causes = (*causes, stay.cause)
            case Correction():
                plates[body.plate] = plates[body.old_plate] = None
                causes = (body.cause,)
            case Removal():
                plates[body.plate] = None
            case _:
                return plates
        for dot in body.covers:
            covered = self.events.get(dot)
            if covered is not None and isinstance(covered.body, COMING):
                plates[covered.body.plate] = None
                causes = (*causes, covered.body.cause or dot_cause(dot))
        for cause in causes:
            for stay in self.by_cause.get(cause, ()):
                plates[stay.plate] = None
        return plates


def covers_of(event: Event) -> tuple[Dot, ...]:
    """The dots that this event closes."""
    covers: tuple[Dot, ...] = getattr(event.body, "covers", ())
    return covers


def sealed_in(seal: Seal, seq: int) -> bool:
    """Whether this dot exists of the sealed replica."""
    return seq <= seal.upto or any(first <= seq <= last for first, last in seal.intervals)


def _dot_text(dot: Dot) -> str:
    return f"{dot[0]:016x}"[-4:] + f".{dot[1]}"
