"""Who must have seen a mark before it may go: the roster and what is known of its disks.

The roster is every replica named in the own context or in any vector heard, unless sealed. It is
never the live view and never shortened by time or silence: both make ghosts and lasting
divergence (model-checked). Collection rule: mark (o, s) may be dropped when for every replica j
of the roster `M[j][o] >= s` and own vector `[j] >= M[j][j]`, where M holds the last *durable*
vectors heard. The second clause says that everything j minted before it knew the mark is here;
whatever j mints later has a greater hybrid time than the mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from parkingd.core.ids import ReplicaId, Vector


class Roster:
    """The matrix M of durable vectors, own row included."""

    def __init__(self) -> None:
        self.durable: dict[ReplicaId, Vector] = {}
        self.named: dict[ReplicaId, None] = {}
        """Replicas named in any vector heard."""
        self._covered: Vector = {}
        """What `covered_by_all` gave last, as long as no row has changed since."""
        self._covered_of: tuple[frozenset[ReplicaId], frozenset[ReplicaId]] | None = None
        """The origins and the sealed replicas it was asked for; None: a row has changed."""

    def heard(self, replica: ReplicaId, durable: Vector) -> None:
        """``replica`` says that its disk holds this much of each origin."""
        known = self.durable.get(replica)
        if known is None:
            known = self.durable[replica] = {}
            self._covered_of = None
        for origin, upto in durable.items():
            if upto > known.get(origin, 0):
                known[origin] = upto
                self.named[origin] = None
                self._covered_of = None

    def name(self, replicas: Iterable[ReplicaId]) -> None:
        """These replicas exist: nothing is dropped before they have seen it."""
        for replica in replicas:
            self.named[replica] = None
            self._covered_of = None

    def members(
        self, vector: Mapping[ReplicaId, int], sealed: Mapping[ReplicaId, object]
    ) -> list[ReplicaId]:
        """The roster, ascending."""
        return sorted([r for r in {**vector, **self.named} if r not in sealed])

    def _rows(
        self, vector: Mapping[ReplicaId, int], sealed: Mapping[ReplicaId, object]
    ) -> dict[ReplicaId, Vector]:
        """What every disk of the roster holds; empty as long as one has not said so."""
        rows = {}
        for member in {**vector, **self.named}:
            if member not in sealed:
                row = self.durable.get(member)
                if row is None:
                    return {}
                rows[member] = row
        return rows

    def covered_by_all(
        self, vector: Mapping[ReplicaId, int], sealed: Mapping[ReplicaId, object]
    ) -> Vector:
        """For each origin the seq up to which every disk of the roster holds it; only to read."""
        of = frozenset(vector), frozenset(sealed)
        if self._covered_of != of:
            self._covered_of = of
            held = [row.get for row in self._rows(vector, sealed).values()]
            self._covered = (
                {origin: min([upto(origin, 0) for upto in held]) for origin in vector}
                if held
                else {}
            )
        return self._covered

    def collectable(
        self, vector: Mapping[ReplicaId, int], sealed: Mapping[ReplicaId, int]
    ) -> Vector:
        """Up to which seq the marks of each origin may be dropped now; empty: none.

        ``sealed`` maps a sealed replica to the highest seq that exists of it.
        """
        for member, row in self._rows(vector, sealed).items():
            if vector.get(member, 0) < row.get(member, 0):
                return {}
        for replica, final in sealed.items():
            if vector.get(replica, 0) < final:
                return {}
        return self.covered_by_all(vector, sealed)
