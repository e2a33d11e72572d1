"""The log: every event that some member may still lack, packed, by origin and seq.

Scuttlebutt order (van Renesse et al. 2008): what is sent of one origin is contiguous and oldest
first, so that a cut reply is a prefix and the receiver's vector stays truthful. An event leaves
when the durable vector of every replica in the roster covers it, or past a cap; the floor then
rises, and whoever is behind the floor takes a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator

from parkingd.core.causal import CausalContext
from parkingd.core.ids import ReplicaId
from parkingd.protocol.messages import Run

EVENT_OVERHEAD_BYTES = 3
"""What a packed event costs inside a run beyond its own bytes."""


class EventLog:
    """Packed events above a floor per origin."""

    def __init__(self) -> None:
        self._events: dict[ReplicaId, dict[int, bytes]] = {}
        self._floors: dict[ReplicaId, int] = {}
        self.count = 0

    def floor(self, origin: ReplicaId) -> int:
        """Everything of ``origin`` up to and with this seq may be missing here."""
        return self._floors.get(origin, 0)

    def floors(self) -> dict[ReplicaId, int]:
        """All floors above 0."""
        return dict(self._floors)

    def add(self, origin: ReplicaId, seq: int, packed: bytes) -> None:
        """Keep an event; below the floor it is not kept."""
        if seq <= self._floors.get(origin, 0):
            return
        events = self._events.get(origin)
        if events is None:
            events = self._events[origin] = {}
        if seq not in events:
            self.count += 1
        events[seq] = packed

    def packed(self, origin: ReplicaId, seq: int) -> bytes | None:
        """One event, if it is kept."""
        return self._events.get(origin, {}).get(seq)

    def raise_floor(self, origin: ReplicaId, upto: int) -> bool:
        """Forget everything of ``origin`` up to ``upto``; False if that is no news."""
        if upto <= self._floors.get(origin, 0):
            return False
        self._floors[origin] = upto
        events = self._events.get(origin)
        if events:
            # Most of it goes at once after an import; a new dict gives the memory back.
            kept = {seq: packed for seq, packed in events.items() if seq > upto}
            self.count -= len(events) - len(kept)
            self._events[origin] = kept
        return True

    def oldest(self, origin: ReplicaId) -> int | None:
        """The lowest seq kept."""
        events = self._events.get(origin)
        return min(events) if events else None

    def size(self, origin: ReplicaId) -> int:
        """How many events of this origin are kept."""
        return len(self._events.get(origin, ()))

    def origins(self) -> list[ReplicaId]:
        """Origins with events, ascending."""
        return sorted(origin for origin, events in self._events.items() if events)

    def entries(self) -> Iterator[tuple[ReplicaId, int, bytes]]:
        """Everything kept, by origin and seq."""
        for origin in self.origins():
            events = self._events[origin]
            for seq in sorted(events):
                yield origin, seq, events[seq]

    def span(
        self, origin: ReplicaId, first: int, last: int, bytes_max: int
    ) -> tuple[Run | None, int]:
        """Events ``first``..``last`` up to the first hole or the budget; and their bytes."""
        events = self._events.get(origin)
        taken: list[bytes] = []
        size = 0
        if events:
            for seq in range(first, last + 1):
                packed = events.get(seq)
                if packed is None or size + len(packed) + EVENT_OVERHEAD_BYTES > bytes_max:
                    break
                taken.append(packed)
                size += len(packed) + EVENT_OVERHEAD_BYTES
        return (Run(origin, first, tuple(taken)) if taken else None), size

    def missing_runs(
        self, holder: CausalContext, peer: CausalContext, bytes_max: int
    ) -> tuple[tuple[Run, ...], bool, bool]:
        """What ``peer`` lacks of ``holder``: runs, whether more is left, whether it is behind.

        Behind: it lacks something that has left this log. Every origin gets the same share of
        the budget, so that a busy one does not starve the others.
        """
        wanted = []
        behind = False
        for origin in holder.replicas():
            spans = peer.missing(holder, origin)
            if not spans:
                continue
            if spans[0][0] <= self.floor(origin):
                behind = True
                continue
            wanted.append((origin, spans))
        runs: list[Run] = []
        more = False
        left = bytes_max
        for position, (origin, spans) in enumerate(wanted):
            share = left // (len(wanted) - position)
            for first, last in spans:
                run, size = self.span(origin, first, last, share)
                if run is None:
                    more = True
                    break
                runs.append(run)
                share -= size
                left -= size
                if run.last < last:
                    more = True
                    break
        return tuple(runs), more, behind
