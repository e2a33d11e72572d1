"""The identities of DESIGN section 2, as plain ints and tuples so that bulk state stays small."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

ReplicaId: TypeAlias = int
"""Random 64-bit identity that mints dots; one data directory, ever."""

Dot: TypeAlias = tuple[ReplicaId, int]
"""(replica, seq): the identity of one mutation. seq is gap-free from 1."""

HybridTime: TypeAlias = int
"""48 bit milliseconds since 1970 << 16 | 16 bit counter."""

Vector: TypeAlias = dict[ReplicaId, int]
"""replica -> highest contiguous seq."""

REQUEST_ID_BYTES: Final = 16
"""A request id, and the cause of a stay, is 16 bytes: collisions need 2**64 requests."""

REPLICA_MAX: Final = 2**64 - 1
SEQ_MAX: Final = 2**48 - 1
HYBRID_MAX: Final = 2**64 - 1


class Now(NamedTuple):
    """What the clocks say at one call: passed into every verb of the node."""

    mono_ms: int
    """Milliseconds of a clock that never jumps; only differences mean something."""
    wall_ms: int
    """Milliseconds since 1970 as this machine believes, right or wrong."""


def replica_hex(replica: ReplicaId) -> str:
    """16 lower-case hex digits, as people and scripts see it."""
    return f"{replica:016x}"


def dot_cause(dot: Dot) -> bytes:
    """The cause of a stay that was made without a request id: its own dot, as 16 bytes."""
    return struct.pack(">QQ", *dot)
