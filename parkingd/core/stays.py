"""Stays and exit marks: who is inside, as a pure function of the events seen.

How it works (DESIGN section 4; `research` names the evidence: the causal-context construction of
Almeida, Shoker and Baquero 2018 with the context hoisted to node level). An enter creates a stay.
Any event may cover dots: covered stays and marks are gone. An exit leaves a mark. A stay is a
*candidate* when it is later than the latest mark of its plate and its cause was not closed by an
exit. Of candidates of equal cause the greatest (time, origin, seq) represents all: a request that
was retried elsewhere, or two corrections of one stay, are one car. Representatives are *visible*.

Invariants:
  1. What is visible depends on the set of applied events alone, not on their order.
  2. `early` holds dots that were covered before they arrived; such an event is never inserted,
     but its own covers are processed by whoever applies it.
  3. A mark and all the stays it hides leave in one step (`collect`).
  4. `visible_count`, `conflicts` and `stays_sum` always equal what a full scan would give.

This module is the only one that knows the bulk layout: exact tuples (see `records`) in two
dicts, a single record without a list around it. 100,000 cars cost about 40 MB that way, and the
collector never has to look at them; slotted objects cost twice that and pauses of 30 ms.
"""

from __future__ import annotations

import struct
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from typing import Final, TypeVar, cast

from parkingd.core.causal import CausalContext
from parkingd.core.events import FLAG_ADMITTED, FLAG_IMPORTED
from parkingd.core.ids import Dot, HybridTime, ReplicaId, dot_cause
from parkingd.core.records import STAY_FIELDS, Mark, Record, RequestEffect, Stay, StayExtra

SUM_MODULUS: Final = 1 << 128

VERB_TRACK: Final = 0
VERB_EXIT: Final = 1
VERB_REMOVE: Final = 2
VERB_CORRECT: Final = 3
VERB_SET: Final = 4
VERB_ENTER: Final = 5
VERB_IMPORT: Final = 6

ANOMALIES_MAX: Final = 64
"""Recent ambiguous plates kept for `status`."""

FLAGS_ALONE: Final[dict[StayExtra | None, StayExtra]] = {
    extra: extra for extra in ((None, None, flags) for flags in range(1, 8))
}
"""Extras that say nothing but flags, as imports make them: one for all saves 64 bytes a car."""

_pack_identity: Final = struct.Struct(">QQQH").pack

_R = TypeVar("_R", Stay, Mark)
_K = TypeVar("_K", str, bytes)


def stay_hash(stay: Stay) -> int:
    """The contribution of a visible stay to the root: 128 bit, equal on every node."""
    seq, origin, time, plate, gate, _, _ = stay
    digest = blake2b(_pack_identity(origin, seq, time, gate) + plate.encode(), digest_size=16)
    return int.from_bytes(digest.digest(), "big")


def stay_cause(stay: Stay) -> bytes:
    """The request that made it, else its own dot."""
    return stay[5] if stay[5] is not None else dot_cause((stay[1], stay[0]))


def stay_since_ms(stay: Stay) -> int:
    """Wall milliseconds for display: as given, else the physical part of its time."""
    extra = stay[6]
    if extra is not None and extra[1] is not None:
        return extra[1]
    return stay[2] >> 16


def stay_effect(stay: Stay) -> RequestEffect:
    """What is remembered of the request that made this stay."""
    seq, origin, time, plate, gate, _, extra = stay
    flags = extra[2] if extra is not None else 0
    verb = VERB_TRACK
    if flags & FLAG_ADMITTED:
        verb = VERB_ENTER
    elif flags & FLAG_IMPORTED:
        verb = VERB_IMPORT
    return (time, verb, plate, origin, seq, gate, 0, None)


def _listed(entry: _R | tuple[_R, ...] | None) -> tuple[_R, ...]:
    """The records of a dict slot: none, one without a list around it, or several."""
    if entry is None:
        return ()
    if isinstance(entry[0], int):
        return (entry,)
    return entry


def _records(slots: dict[str, _R | tuple[_R, ...]], count: int) -> Iterable[_R]:
    """The ``count`` records of all slots."""
    if len(slots) == count:
        return cast("Iterable[_R]", slots.values())
    return chain.from_iterable(map(_listed, slots.values()))


def _slot(records: tuple[_R, ...]) -> _R | tuple[_R, ...]:
    return records[0] if len(records) == 1 else records


def _of_dot(records: tuple[_R, ...], dot: Dot) -> _R | None:
    origin, seq = dot
    for record in records:
        if record[0] == seq and record[1] == origin:
            return record
    return None


def _take_out(slots: dict[_K, _R | tuple[_R, ...]], key: _K, record: _R) -> None:
    """Leave in this slot what else is there."""
    rest = tuple([other for other in _listed(slots[key]) if other is not record])
    if rest:
        slots[key] = _slot(rest)
    else:
        del slots[key]


class Journal:
    """What changed since it was last taken: goes to the disk with the events that did it."""

    __slots__ = ("dropped", "expired", "records", "requests")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.dropped: dict[Dot, None] = {}
        self.requests: list[tuple[bytes, RequestEffect]] = []
        self.expired: list[bytes] = []


class Stays:
    """The cars inside, the marks of those that left, and what requests have done."""

    def __init__(self, ambiguous_ms: int = 2_000) -> None:
        self._entries: dict[str, Stay | tuple[Stay, ...]] = {}
        self._marks: dict[str, Mark | tuple[Mark, ...]] = {}
        self._by_cause: dict[bytes, Stay | tuple[Stay, ...]] = {}
        self._closed: dict[bytes, int] = {}
        self._mark_order: dict[ReplicaId, list[tuple[int, str]]] = {}
        self._ambiguous = ambiguous_ms << 16
        self.requests: dict[bytes, RequestEffect] = {}
        self.early: dict[Dot, None] = {}
        self.conflicts: dict[str, None] = {}
        self.anomalies: deque[str] = deque(maxlen=ANOMALIES_MAX)
        self.visible_count = 0
        self.stay_count = 0
        self.mark_count = 0
        self.stays_sum = 0
        self.journal = Journal()

    # --- what is inside ------------------------------------------------------------------

    def visible(self, plate: str) -> tuple[Stay, ...]:
        """The stays of this plate that count as inside; more than one is a conflict."""
        entry = self._entries.get(plate)
        if entry is None:
            return ()
        if isinstance(entry[0], int) and plate not in self._marks:  # Nearly all are like this.
            return (entry,) if self._represents(entry) else ()
        latest = self.latest_mark_time(plate)
        return tuple([s for s in _listed(entry) if s[2] > latest and self._represents(s)])

    def stays_of(self, plate: str) -> tuple[Stay, ...]:
        """All stays kept of this plate, also those that a mark hides."""
        return _listed(self._entries.get(plate))

    def marks_of(self, plate: str) -> tuple[Mark, ...]:
        """The marks still kept of this plate."""
        return _listed(self._marks.get(plate))

    def latest_mark_time(self, plate: str) -> HybridTime:
        """-1 where there is no mark."""
        entry = self._marks.get(plate)
        if entry is None:
            return -1
        return max([mark[2] for mark in _listed(entry)])

    def all_visible(self) -> Iterator[Stay]:
        """Every visible stay, in order of arrival of its plate."""
        for plate in list(self._entries):
            yield from self.visible(plate)

    def plates(self) -> Iterable[str]:
        """Every plate with a stay or a mark."""
        return [*self._entries, *(plate for plate in self._marks if plate not in self._entries)]

    def entry_plates(self) -> list[str]:
        """Every plate with a stay, visible or hidden: a consistent cut, cheap to take."""
        return list(self._entries)

    def records(self) -> list[Record]:
        """Every stay and mark: a consistent cut, as the tuples are immutable.

        10 ms for a million cars where no plate has two stays, which is nearly always.
        """
        cut: list[Record] = list(_records(self._entries, self.stay_count))
        cut.extend(_records(self._marks, self.mark_count))
        return cut

    def has(self, plate: str, dot: Dot) -> bool:
        """Whether a record of this dot is kept."""
        return (
            _of_dot(self.stays_of(plate), dot) is not None
            or _of_dot(self.marks_of(plate), dot) is not None
        )

    def marks_count(self) -> int:
        """Exit marks that not every member is known to have."""
        return self.mark_count

    def hidden_count(self) -> int:
        """Stays kept only because a mark, or another stay of their cause, hides them."""
        return self.stay_count - self.visible_count

    def _represents(self, stay: Stay) -> bool:
        cause = stay_cause(stay)
        if cause in self._closed:
            return False
        peers = self._by_cause[cause]
        if peers is stay:
            return True
        rank = (stay[2], stay[1], stay[0])
        return not any(
            (peer[2], peer[1], peer[0]) > rank and peer[2] > self.latest_mark_time(peer[3])
            for peer in _listed(peers)
        )

    # --- requests ------------------------------------------------------------------------

    def request_effect(self, request: bytes) -> RequestEffect | None:
        """What this request id has done, if it is known to have done anything."""
        effect = self.requests.get(request)
        if effect is not None:
            return effect
        entry = self._by_cause.get(request)
        return None if entry is None else stay_effect(_listed(entry)[0])

    def remember(self, request: bytes, effect: RequestEffect) -> None:
        """Keep the effect of a request beyond the record that shows it."""
        if request not in self.requests:
            self.requests[request] = effect
            self.journal.requests.append((request, effect))

    def remember_record(self, record: Record) -> None:
        """Keep the effect that a record shows which is not, or no longer, kept.

        That of a mark was remembered when it was made, and comes with every snapshot.
        """
        if len(record) == STAY_FIELDS and record[5] is not None:
            self.remember(record[5], stay_effect(record))

    def forget_requests(self, before: HybridTime) -> None:
        """Let go what is older than ``before``; takes from the front only, so it is cheap."""
        requests = self.requests
        while requests:
            request = next(iter(requests))
            if requests[request][0] >= before:
                return
            del requests[request]
            self.journal.expired.append(request)

    # --- changes -------------------------------------------------------------------------

    def cover(self, plate: str, covers: Iterable[Dot], context: CausalContext) -> None:
        """Remove these dots; those that have not arrived are remembered as early."""
        for dot in covers:
            if not context.contains(dot[0], dot[1]):
                self.early[dot] = None
            else:
                self.drop(plate, dot)

    def drop(self, plate: str, dot: Dot) -> bool:
        """Forget the stay or mark of this dot; False if it is not kept (any more)."""
        return self.remove_stay(plate, dot) or self._remove_mark_of(plate, dot)

    def add_stay(self, stay: Stay, *, save: bool = True) -> None:
        """Insert a stay whose dot is neither kept nor covered."""
        seq, origin, time, plate, gate, own_cause, extra = stay
        shared = FLAGS_ALONE.get(extra)
        if shared is not extra and shared is not None:
            stay = (seq, origin, time, plate, gate, own_cause, shared)
        cause = stay_cause(stay)
        if save:
            self.journal.records.append(stay)
        self.stay_count += 1
        entries = self._entries
        if (
            plate not in entries
            and plate not in self._marks
            and cause not in self._by_cause
            and cause not in self._closed
        ):
            entries[plate] = stay
            self._by_cause[cause] = stay
            self.visible_count += 1
            self.stays_sum = (self.stays_sum + stay_hash(stay)) % SUM_MODULUS
            return
        plates = self._plates_around(stay)
        self._uncount(plates)
        entries[plate] = _slot((*self.stays_of(plate), stay))
        self._by_cause[cause] = _slot((*_listed(self._by_cause.get(cause)), stay))
        self._count(plates)
        self._note_ambiguity(stay, self.marks_of(plate))

    def remove_stay(self, plate: str, dot: Dot) -> bool:
        """Forget the stay of this dot; False if it is not kept (any more)."""
        stay = _of_dot(self.stays_of(plate), dot)
        if stay is not None:
            self._remove_stay(stay)
        return stay is not None

    def discard(self, record: Record) -> None:
        """Forget exactly this record because it is damaged: it tells of no request's effect."""
        for stay in self.stays_of(record[3]):
            if stay is record:
                self._remove_stay(stay, remember=False)
                return
        self._remove_mark_of(record[3], (record[1], record[0]))

    def restore(self, record: Record) -> None:
        """Insert a sound record, perhaps in place of a discarded one of the same dot."""
        self.journal.dropped.pop((record[1], record[0]), None)
        if len(record) == STAY_FIELDS:
            self.add_stay(record)
        else:
            self.add_mark(record)

    def _remove_stay(self, stay: Stay, *, remember: bool = True) -> None:
        plate, cause = stay[3], stay_cause(stay)
        entries, by_cause = self._entries, self._by_cause
        if entries[plate] is stay and by_cause[cause] is stay:  # Nearly all are alone.
            self._uncount([plate])
            del entries[plate], by_cause[cause]
        else:
            plates = self._plates_around(stay)
            self._uncount(plates)
            _take_out(entries, plate, stay)
            _take_out(by_cause, cause, stay)
            self._count(plates)
        if remember:
            self.remember_record(stay)
        self.stay_count -= 1
        self.journal.dropped[stay[1], stay[0]] = None

    def add_mark(self, mark: Mark, *, save: bool = True) -> None:
        """Insert the mark of an exit: hides earlier stays of the plate, closes its causes."""
        seq, origin, _, plate, _, _, causes, _, _ = mark
        if save:
            self.journal.records.append(mark)
        plates = self._plates_of_causes(plate, causes)
        self._uncount(plates)
        self._marks[plate] = _slot((*self.marks_of(plate), mark))
        for cause in causes:
            self._closed[cause] = self._closed.get(cause, 0) + 1
        self._count(plates)
        self.mark_count += 1
        insort(self._mark_order.setdefault(origin, []), (seq, plate))
        self._note_ambiguity(mark, self.stays_of(plate))

    def _remove_mark_of(self, plate: str, dot: Dot) -> bool:
        mark = _of_dot(self.marks_of(plate), dot)
        if mark is not None:
            self._remove_mark(mark)
        return mark is not None

    def _remove_mark(self, mark: Mark) -> None:
        plate, causes = mark[3], mark[6]
        plates = self._plates_of_causes(plate, causes)
        self._uncount(plates)
        _take_out(self._marks, plate, mark)
        for cause in causes:
            if self._closed[cause] == 1:
                del self._closed[cause]
            else:
                self._closed[cause] -= 1
        self._count(plates)
        self.mark_count -= 1
        self.journal.dropped[mark[1], mark[0]] = None

    # --- collection ----------------------------------------------------------------------

    def collect(self, stable: dict[ReplicaId, int]) -> int:
        """Drop every mark (o, s) with s <= stable[o], each with the stays it hides.

        The caller has established that every replica of the roster durably holds those marks
        and that this replica holds everything any of them minted before (`roster`).
        """
        collected = 0
        for origin, order in self._mark_order.items():
            upto = stable.get(origin, 0)
            taken = 0
            for seq, plate in order:
                if seq > upto:
                    break
                taken += 1
                collected += self._collect_mark(plate, (origin, seq))
            if taken:
                del order[:taken]
        return collected

    def _collect_mark(self, plate: str, dot: Dot) -> int:
        mark = _of_dot(self.marks_of(plate), dot)
        if mark is None:
            return 0  # A later exit covered it.
        for stay in self.stays_of(plate):
            if stay[2] <= mark[2]:
                self._remove_stay(stay)
        for cause in mark[6]:
            for stay in self._stays_of_cause(cause):
                self._remove_stay(stay)
        self._remove_mark(mark)
        return 1

    def _stays_of_cause(self, cause: bytes) -> tuple[Stay, ...]:
        return _listed(self._by_cause.get(cause))

    # --- counters that follow every change -----------------------------------------------

    def _plates_around(self, stay: Stay) -> list[str]:
        plates = {stay[3]: None}
        for peer in self._stays_of_cause(stay_cause(stay)):
            plates[peer[3]] = None
        return list(plates)

    def _plates_of_causes(self, plate: str, causes: Iterable[bytes]) -> list[str]:
        plates = {plate: None} if plate in self._entries else {}
        for cause in causes:
            for stay in self._stays_of_cause(cause):
                plates[stay[3]] = None
        # A mark also decides which stay represents a cause whose other stay is elsewhere.
        for stay in self.stays_of(plate):
            for peer in self._stays_of_cause(stay_cause(stay)):
                plates[peer[3]] = None
        return list(plates)

    def _uncount(self, plates: list[str]) -> None:
        for plate in plates:
            shown = self.visible(plate)
            self.visible_count -= len(shown)
            for stay in shown:
                self.stays_sum = (self.stays_sum - stay_hash(stay)) % SUM_MODULUS
            if len(shown) > 1:
                del self.conflicts[plate]

    def _count(self, plates: list[str]) -> None:
        for plate in plates:
            shown = self.visible(plate)
            self.visible_count += len(shown)
            for stay in shown:
                self.stays_sum = (self.stays_sum + stay_hash(stay)) % SUM_MODULUS
            if len(shown) > 1:
                self.conflicts[plate] = None

    def _note_ambiguity(
        self, record: Stay | Mark, others: tuple[Stay, ...] | tuple[Mark, ...]
    ) -> None:
        origin, time, plate = record[1], record[2], record[3]
        # Of one origin the later one always saw the earlier one: that order is no guess.
        if others and any(o[1] != origin and abs(o[2] - time) < self._ambiguous for o in others):
            self.anomalies.append(plate)
