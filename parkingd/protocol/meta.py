"""The rows of meta: what the disk keeps of a replica beside events, records and requests.

What is written here is read here: the context and the highest hybrid time that a batch covers, the
small part of the lot, and how far the log was let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from parkingd.core.causal import CausalContext
from parkingd.core.events import Event
from parkingd.core.ids import Dot, ReplicaId
from parkingd.core.lot import Key, LotRecord
from parkingd.core.state import LotState
from parkingd.protocol.codec import (
    pack_context,
    pack_small,
    pack_vector,
    unpack_context_untrusted,
    unpack_small_untrusted,
)
from parkingd.protocol.limits import INTERVALS_MAX
from parkingd.protocol.log import EventLog

META_CONTEXT = "context"
META_HYBRID = "hybrid_high"
META_SMALL = "small"
META_EARLY = "early"
META_FLOORS = "floors"
META_LOT = "lot"
META_JOIN_KNOWN = "join_known"
"""The replica id whose join a member is known to hold."""


def load_meta(meta: dict[str, bytes], state: LotState, log: EventLog) -> None:
    """Put into an empty state and log what the disk has of them.

    Raises WireError if it is not what was written.
    """
    if META_CONTEXT in meta:
        state.context = CausalContext.from_parts(unpack_context_untrusted(meta[META_CONTEXT]))
        state.clock.merge(int.from_bytes(meta[META_HYBRID], "big"))
        for part in _unframed(meta.get(META_EARLY, b"")):
            state.stays.early.update(dict.fromkeys(_dots_untrusted(part)))
    if META_FLOORS in meta:
        for origin, upto, _ in unpack_context_untrusted(meta[META_FLOORS]):
            log.raise_floor(origin, upto)
    if META_SMALL in meta:
        for event in unpack_small_untrusted(_unframed(meta[META_SMALL])):
            state.record.absorb(event)


def pack_held(context: CausalContext) -> bytes:
    """All that a batch covers."""
    if context.intervals:
        return pack_context(context.parts())
    return pack_vector(context.vector)


def pack_early(early: Iterable[Dot]) -> bytes:
    """Dots that came before what they close."""
    return _framed(_pack_dots(early))


def pack_floors(floors: dict[ReplicaId, int]) -> bytes:
    """Up to where the log of each replica was let go."""
    return pack_vector(floors)


class PackedLot:
    """The small part of the lot as the disk keeps it: only what has changed is packed anew."""

    def __init__(self) -> None:
        self._packed: dict[Key, tuple[Event, bytes]] = {}

    def pack(self, record: LotRecord) -> bytes:
        """All of it, as it is now."""
        before, packed = self._packed, dict[Key, tuple[Event, bytes]]()
        for key, event in record.events.items():
            held = before.get(key)
            if held is None or held[0] is not event:
                held = event, _framed(pack_small([event]))
            packed[key] = held
        self._packed = packed
        return b"".join([framed for _, framed in packed.values()])


def pack_id(replica: ReplicaId) -> bytes:
    """Eight bytes."""
    return replica.to_bytes(8, "big")


def _pack_dots(dots: Iterable[Dot]) -> Iterator[bytes]:
    """A set of dots as contexts, each small enough to be read back."""
    held = CausalContext()  # A set of dots is a set of dots.
    for dot in dots:
        held.add(*dot)
    for origin, upto, spans in held.parts():
        yield pack_context([(origin, upto, spans[:INTERVALS_MAX])])
        for start in range(INTERVALS_MAX, len(spans), INTERVALS_MAX):
            yield pack_context([(origin, 0, spans[start : start + INTERVALS_MAX])])


def _dots_untrusted(packed: bytes) -> Iterator[Dot]:
    for origin, upto, spans in unpack_context_untrusted(packed):
        for first, last in ((1, upto), *spans):
            yield from ((origin, seq) for seq in range(first, last + 1))


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _unframed(blob: bytes) -> list[bytes]:
    parts = []
    position = 0
    while position < len(blob):
        size = int.from_bytes(blob[position : position + 4], "big")
        parts.append(blob[position + 4 : position + 4 + size])
        position += 4 + size
    return parts
