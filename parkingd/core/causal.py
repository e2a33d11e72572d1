"""The causal context: the set of dots whose effects a replica includes.

Each replica numbers its events from 1 without holes, so that nearly all of the set is one number
per replica: the *vector*, replica -> highest contiguous seq. What arrived above a hole is kept as
*intervals* (first, last), both inclusive; they vanish when the hole is filled.

Invariants: the intervals of an origin ascend, touch neither each other nor the contiguous part,
and lie above it; an origin without intervals has no key in `intervals`; every origin with
intervals has a key in `vector`, be it 0. Contexts under `join` are a lattice: sets under union.

Source: the causal context of Almeida, Shoker and Baquero, "Delta State Replicated Data Types"
(2018), section 7, in the interval form of DESIGN section 4.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import TypeAlias

from parkingd.core.ids import ReplicaId

Span: TypeAlias = tuple[int, int]
"""Inclusive (first, last) seqs of one origin."""

Part: TypeAlias = tuple[ReplicaId, int, tuple[Span, ...]]
"""(origin, upto, intervals): what is held of one origin."""


class CausalContext:
    """A set of dots, as a version vector and the intervals above it."""

    __slots__ = ("_parts", "intervals", "vector")

    vector: dict[ReplicaId, int]
    """replica -> highest contiguous seq; read it freely, change it only through the methods."""
    intervals: dict[ReplicaId, list[Span]]

    def __init__(self, vector: dict[ReplicaId, int] | None = None) -> None:
        self.vector = {} if vector is None else dict(vector)
        self.intervals = {}
        self._parts: tuple[Part, ...] | None = None
        """What `parts` gave last; None: something has changed since."""

    def contains(self, origin: ReplicaId, seq: int) -> bool:
        """Whether the dot (origin, seq) is in the set; seq counts from 1."""
        if seq <= self.vector.get(origin, 0):
            return True
        spans = self.intervals.get(origin)
        if spans is None:
            return False
        place = bisect_right(spans, seq, key=_first)
        return place > 0 and spans[place - 1][1] >= seq

    def add(self, origin: ReplicaId, seq: int) -> bool:
        """Include one dot. False if it was included already."""
        vector = self.vector
        upto = vector.get(origin, 0)
        if seq == upto + 1 and origin not in self.intervals:
            vector[origin] = seq
            self._parts = None
            return True
        if seq <= upto or self.contains(origin, seq):
            return False
        self.add_span(origin, seq, seq)
        return True

    def add_span(self, origin: ReplicaId, first: int, last: int) -> None:
        """Include ``first`` to ``last``, both inclusive, 1 <= first <= last."""
        assert 1 <= first <= last, (first, last)
        self._parts = None
        upto = self.vector.setdefault(origin, 0)
        if last <= upto:
            return
        spans = self.intervals.get(origin)
        if spans is None:
            if first <= upto + 1:
                self.vector[origin] = last
            else:
                self.intervals[origin] = [(first, last)]
            return
        # Everything from `low` up to (not including) `high` touches or overlaps the new span.
        low = bisect_right(spans, first - 2, key=_last)
        high = bisect_right(spans, last + 1, key=_first)
        if low < high:
            first = min(first, spans[low][0])
            last = max(last, spans[high - 1][1])
        if first <= upto + 1:
            self.vector[origin] = last
            del spans[:high]
        else:
            spans[low:high] = [(first, last)]
        if not spans:
            del self.intervals[origin]

    def touch(self, origin: ReplicaId) -> None:
        """Know this replica, even if none of its dots is held."""
        self._parts = None
        self.vector.setdefault(origin, 0)

    def join(self, other: CausalContext) -> None:
        """Include everything that ``other`` includes."""
        for origin, upto in other.vector.items():
            if upto:
                self.add_span(origin, 1, upto)
            else:
                self.touch(origin)
        for origin, spans in other.intervals.items():
            for first, last in spans:
                self.add_span(origin, first, last)

    def copy(self) -> CausalContext:
        """An independent context with the same dots."""
        twin = CausalContext(self.vector)
        twin.intervals = {origin: list(spans) for origin, spans in self.intervals.items()}
        return twin

    def covers(self, other: CausalContext) -> bool:
        """Whether every dot of ``other`` is in this set."""
        if other.intervals:
            return not any(self.missing(other, origin) for origin in other.vector)
        held = self.vector.get
        for origin, upto in other.vector.items():  # noqa: SIM110
            if upto > held(origin, 0):
                return False
        return True

    def upto(self, origin: ReplicaId) -> int:
        """Highest contiguous seq; 0 if unknown."""
        return self.vector.get(origin, 0)

    def highest(self, origin: ReplicaId) -> int:
        """Highest seq held, holes below it or not; 0 if none."""
        spans = self.intervals.get(origin)
        return spans[-1][1] if spans else self.vector.get(origin, 0)

    def has_intervals(self) -> bool:
        """Whether there is a hole anywhere."""
        return bool(self.intervals)

    def gaps(self, origin: ReplicaId) -> list[Span]:
        """The holes below the highest held seq, ascending."""
        return _holes(self.vector.get(origin, 0), self.intervals.get(origin, []))

    def missing(self, other: CausalContext, origin: ReplicaId) -> list[Span]:
        """The spans that ``other`` holds of this origin and self lacks, ascending."""
        highest = other.highest(origin)
        upto = self.vector.get(origin, 0)
        if highest <= upto:
            return []
        if origin not in self.intervals and origin not in other.intervals:
            return [(upto + 1, highest)]
        lacking = self.gaps(origin)
        end = self.highest(origin)
        if end < highest:
            lacking.append((end + 1, highest))
        held: list[Span] = other.intervals.get(origin, [])
        other_upto = other.vector.get(origin, 0)
        if other_upto:
            held = [(1, other_upto), *held]
        return _intersection(lacking, held)

    def replicas(self) -> list[ReplicaId]:
        """Every replica known, ascending."""
        return sorted(self.vector)

    def parts(self) -> tuple[Part, ...]:
        """The whole context as plain data, ascending by replica."""
        if self._parts is None:
            spans = self.intervals.get
            held = sorted(self.vector.items())
            self._parts = tuple([(origin, upto, tuple(spans(origin, ()))) for origin, upto in held])
        return self._parts

    @classmethod
    def from_parts(cls, parts: Iterable[Part]) -> CausalContext:
        """The inverse of `parts`. Raises ValueError unless the parts keep its form."""
        context = cls()
        vector = context.vector
        before = -1
        for origin, upto, intervals in parts:
            if origin <= before:
                raise ValueError("origins do not ascend")
            if upto < 0:
                raise ValueError("a negative seq")
            before = origin
            vector[origin] = upto
            if intervals:
                end = upto
                for first, last in intervals:
                    if first <= end + 1 or last < first:
                        raise ValueError("intervals touch, overlap or do not ascend")
                    end = last
                context.intervals[origin] = list(intervals)
        return context

    def __eq__(self, other: object) -> bool:
        """The same dots; knowing a replica of which nothing is held makes no difference."""
        if not isinstance(other, CausalContext):
            return NotImplemented
        if self.intervals != other.intervals:
            return False
        return self.vector == other.vector or _held(self.vector) == _held(other.vector)

    def __repr__(self) -> str:
        return f"CausalContext({self.parts()!r})"


def _first(span: Span) -> int:
    return span[0]


def _last(span: Span) -> int:
    return span[1]


def _held(vector: dict[ReplicaId, int]) -> dict[ReplicaId, int]:
    return {origin: upto for origin, upto in vector.items() if upto}


def _holes(upto: int, spans: list[Span]) -> list[Span]:
    holes = []
    for first, last in spans:
        holes.append((upto + 1, first - 1))
        upto = last
    return holes


def _intersection(left: list[Span], right: list[Span]) -> list[Span]:
    """What is in both of two ascending lists of disjoint spans."""
    common: list[Span] = []
    left_place = right_place = 0
    while left_place < len(left) and right_place < len(right):
        left_span, right_span = left[left_place], right[right_place]
        first = max(left_span[0], right_span[0])
        last = min(left_span[1], right_span[1])
        if first <= last:
            common.append((first, last))
        if left_span[1] < right_span[1]:
            left_place += 1
        else:
            right_place += 1
    return common
