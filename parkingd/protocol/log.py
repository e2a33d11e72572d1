"""The log: every event that some member may still lack, packed, by origin and seq.

Scuttlebutt order (van Renesse et al. 2008): what is sent of one origin is contiguous and oldest
first, so that a cut reply is a prefix and the receiver's vector stays truthful. An event leaves
when the durable vector of every replica in the roster covers it, or past a cap; the floor then
rises, and whoever is behind the floor takes a snapshot.

An import fills the log faster than disks and vectors let it empty, and memory that 100,000 small
objects have taken is not given back when they go. So every stretch of `BLOCK_EVENTS` events of
one origin that is complete becomes a block: their bytes end to end, a third of the memory, in pages
of its own that are given back with it. On the heap the blocks of an import of 100,000 left 6 MB of
holes behind that nothing else filled.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from itertools import accumulate, pairwise
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

from parkingd.core.causal import CausalContext
from parkingd.core.ids import ReplicaId
from parkingd.protocol.messages import Run

EVENT_OVERHEAD_BYTES: Final = 3
"""What a packed event costs inside a run beyond its own bytes."""

BLOCK_BITS: Final = 8
BLOCK_EVENTS: Final = 1 << BLOCK_BITS
"""Seqs that differ below this bit share a block. Larger: more work where a floor cuts one."""

_starts: Final = struct.Struct(f"{BLOCK_EVENTS + 1}I")
_start_and_end: Final = struct.Struct("2I")


class _Block:
    """All the events of one stretch: where each begins and the last one ends, then their bytes."""

    __slots__ = ("_memory",)

    def __init__(self, events: list[bytes]) -> None:
        starts = list(accumulate(map(len, events), initial=_starts.size))
        # Not `bytes`: a few pages each, which the kernel has back as soon as the block is dropped.
        self._memory = mmap(-1, starts[-1], flags=MAP_PRIVATE | MAP_ANONYMOUS)
        self._memory[:] = b"".join((_starts.pack(*starts), *events))

    def event(self, index: int) -> bytes:
        start, end = _start_and_end.unpack_from(self._memory, 4 * index)
        return self._memory[start:end]

    def events(self, first: int, last: int) -> list[bytes]:
        """Those with these indices, both inclusive."""
        memory = self._memory
        starts = array("I", memory[4 * first : 4 * (last + 2)])
        return [memory[start:end] for start, end in pairwise(starts)]


class _Origin:
    """The kept events of one origin: each is either loose or in a block."""

    __slots__ = ("blocks", "count", "loose", "loose_counts")

    def __init__(self) -> None:
        self.loose: dict[int, bytes] = {}
        self.loose_counts: dict[int, int] = {}
        """Stretch -> how many of its events are loose."""
        self.blocks: dict[int, _Block] = {}
        self.count = 0

    def get(self, seq: int) -> bytes | None:
        """One event, if it is kept."""
        packed = self.loose.get(seq)
        if packed is None and (block := self.blocks.get(seq >> BLOCK_BITS)) is not None:
            packed = block.event(seq % BLOCK_EVENTS)
        return packed

    def following(self, first: int, last: int) -> Iterator[bytes]:
        """The events from ``first`` to ``last``, up to the first that is not kept."""
        while first <= last:
            block = self.blocks.get(first >> BLOCK_BITS)
            if block is not None:
                upto = min(last, first | (BLOCK_EVENTS - 1))
                yield from block.events(first % BLOCK_EVENTS, upto % BLOCK_EVENTS)
                first = upto + 1
            elif (packed := self.loose.get(first)) is not None:
                yield packed
                first += 1
            else:
                return

    def add(self, seq: int, packed: bytes) -> bool:
        """Keep an event; False if it is kept already."""
        number = seq >> BLOCK_BITS
        if seq in self.loose or number in self.blocks:
            return False
        self.count += 1
        self.loose[seq] = packed
        held = self.loose_counts[number] = self.loose_counts.get(number, 0) + 1
        if held == BLOCK_EVENTS:
            first = number << BLOCK_BITS
            taken = [self.loose.pop(each) for each in range(first, first + BLOCK_EVENTS)]
            self.blocks[number] = _Block(taken)
            del self.loose_counts[number]
        return True

    def forget(self, upto: int) -> None:
        """Drop everything up to and with this seq."""
        cut = (upto + 1) >> BLOCK_BITS  # The stretch of the first seq that stays.
        for number in [number for number in self.blocks if number <= cut]:
            block = self.blocks.pop(number)
            self.count -= BLOCK_EVENTS
            if number == cut:
                for seq in range(upto + 1, (number + 1) << BLOCK_BITS):
                    self.add(seq, block.event(seq % BLOCK_EVENTS))
        dropped = [seq for seq in self.loose if seq <= upto]
        for seq in dropped:
            del self.loose[seq]
            self.loose_counts[seq >> BLOCK_BITS] -= 1
        self.loose_counts = {number: held for number, held in self.loose_counts.items() if held}
        self.count -= len(dropped)

    def seqs(self) -> list[int]:
        """What is kept, ascending."""
        blocks = (
            seq
            for number in self.blocks
            for seq in range(number << BLOCK_BITS, (number + 1) << BLOCK_BITS)
        )
        return sorted([*self.loose, *blocks])


class EventLog:
    """Packed events above a floor per origin."""

    def __init__(self) -> None:
        self._events: dict[ReplicaId, _Origin] = {}
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
            events = self._events[origin] = _Origin()
        self.count += events.add(seq, packed)

    def raise_floor(self, origin: ReplicaId, upto: int) -> bool:
        """Forget everything of ``origin`` up to ``upto``; False if that is no news."""
        if upto <= self._floors.get(origin, 0):
            return False
        self._floors[origin] = upto
        events = self._events.get(origin)
        if events is not None:
            before = events.count
            events.forget(upto)
            self.count -= before - events.count
        return True

    def oldest(self, origin: ReplicaId) -> int | None:
        """The lowest seq kept."""
        events = self._events.get(origin)
        if events is None:
            return None
        blocks = min(events.blocks, default=None)
        oldest = min(events.loose, default=None)
        if blocks is not None and (oldest is None or blocks << BLOCK_BITS < oldest):
            oldest = blocks << BLOCK_BITS
        return oldest

    def size(self, origin: ReplicaId) -> int:
        """How many events of this origin are kept."""
        events = self._events.get(origin)
        return events.count if events is not None else 0

    def origins(self) -> list[ReplicaId]:
        """Origins with events, ascending."""
        return sorted(origin for origin, events in self._events.items() if events.count)

    def entries(self) -> Iterator[tuple[ReplicaId, int, bytes]]:
        """Everything kept, by origin and seq."""
        for origin in self.origins():
            events = self._events[origin]
            for seq in events.seqs():
                packed = events.get(seq)
                assert packed is not None
                yield origin, seq, packed

    def span(
        self, origin: ReplicaId, first: int, last: int, bytes_max: int
    ) -> tuple[Run | None, int]:
        """Events ``first``..``last`` up to the first hole or the budget; and their bytes."""
        events = self._events.get(origin)
        taken: list[bytes] = []
        size = 0
        if events is not None:
            for packed in events.following(first, last):
                size_then = size + len(packed) + EVENT_OVERHEAD_BYTES
                if size_then > bytes_max:
                    break
                taken.append(packed)
                size = size_then
        return (Run(origin, first, tuple(taken)) if taken else None), size

    def missing_runs(
        self, holder: CausalContext, peer: CausalContext, bytes_max: int
    ) -> tuple[tuple[Run, ...], bool, bool]:
        """What ``peer`` lacks of ``holder``: runs, whether more is left, whether it is behind.

        Behind: it lacks something that is not in this log (any more). Every origin gets the same
        share of the budget, so that a busy one does not starve the others.
        """
        if peer.covers(holder):
            return (), False, False
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
        if wanted and not runs:
            # Known above a hole, from a snapshot: no later answer would bring it either.
            more, behind = False, True
        return tuple(runs), more, behind
