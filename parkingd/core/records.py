"""Records: what is kept of the cars, as exact tuples so that a million of them fit.

A stay is one car inside; a mark is what an exit leaves until every member has seen it (DESIGN
section 4). Both begin with their dot, the seq first: tuples of one origin then compare by age. A
remembered request is what a repeated request id is answered from (P9).

The fields are read by the index constants below; a stay has 7 fields and a mark has 9.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from parkingd.core.ids import HybridTime, ReplicaId

StayExtra: TypeAlias = tuple[str | None, int | None, int]
"""(raw, since, flags): the plate as it was given, wall milliseconds for display, FLAG_* bits."""

Stay: TypeAlias = tuple[int, ReplicaId, HybridTime, str, int, bytes | None, StayExtra | None]
"""(seq, origin, time, plate, gate, cause, extra); extra is None when it would say nothing, a
cause of None means its own dot."""

Mark: TypeAlias = tuple[
    int, ReplicaId, HybridTime, str, int, bytes | None, tuple[bytes, ...], int, int | None
]
"""(seq, origin, time, plate, gate, request, causes, matched, since); since is the wall time in
milliseconds at which the stay it matched began."""

Record: TypeAlias = Stay | Mark

RequestEffect: TypeAlias = tuple[HybridTime, int, str, ReplicaId, int, int, int, int | None]
"""(time, verb, plate, origin, seq, gate, matched, since)."""

SEQ: Final = 0
ORIGIN: Final = 1
TIME: Final = 2
PLATE: Final = 3
GATE: Final = 4

CAUSE: Final = 5
"""Of a stay."""
EXTRA: Final = 6
"""Of a stay."""
EXTRA_RAW: Final = 0
EXTRA_SINCE: Final = 1
EXTRA_FLAGS: Final = 2

REQUEST: Final = 5
"""Of a mark."""
CAUSES: Final = 6
"""Of a mark."""
MATCHED: Final = 7
"""Of a mark."""
SINCE: Final = 8
"""Of a mark."""

STAY_FIELDS: Final = 7
MARK_FIELDS: Final = 9

EFFECT_TIME: Final = 0
EFFECT_VERB: Final = 1
EFFECT_PLATE: Final = 2
EFFECT_ORIGIN: Final = 3
EFFECT_SEQ: Final = 4
EFFECT_GATE: Final = 5
EFFECT_MATCHED: Final = 6
EFFECT_SINCE: Final = 7
EFFECT_FIELDS: Final = 8
