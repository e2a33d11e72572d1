"""Every bound, with its reason. What crosses one is refused and counted, never stretched."""

from __future__ import annotations

from typing import Final

from parkingd.core import registers

FRAME_BYTES_MAX: Final = 64 * 1024
"""One message is one frame. 64 KiB keeps decoding under 15 ms whatever the bytes say."""

CHUNK_FRAME_BYTES_MAX: Final = 256 * 1024
"""A snapshot chunk; also MAXMSGSIZE of the sockets."""

RUN_BYTES_MAX: Final = 48 * 1024
"""Events packed into one delta: leaves room for the envelope, the runs' heads and the vectors."""

CHUNK_RECORDS_MAX: Final = 2_500
"""Records in one snapshot chunk: decoded, joined and indexed in less than 20 ms."""

CHUNK_BYTES_MAX: Final = 1024 * 1024
"""A chunk after inflation: 2,500 of the largest records the codec lets pass fit."""

DELTA_BYTES_MAX: Final = 512 * 1024
"""A delta after inflation."""

CHUNK_CREDIT: Final = 6
"""Chunks in flight from a snapshot's sender to its joiner."""

NAME_LENGTH_MAX: Final = 63
PLATE_LENGTH_MAX: Final = 16
RAW_LENGTH_MAX: Final = 64
TEXT_LENGTH_MAX: Final = 200

GATES_MAX: Final = registers.GATES_MAX
EPOCH_SEEN_MAX: Final = 2**48
"""The highest epoch that a barrier may say it has seen: a claim a second for nine million years. It
leaves the wire's own bound (2**63) out of reach."""
SPACES_MAX: Final = registers.SPACES_MAX

REPLICAS_MAX: Final = 4_096
"""Replica ids in one vector: 200 live nodes and twenty years of replaced disks."""

INTERVALS_MAX: Final = 1_024
"""Runs above the contiguous part, per origin; more than that is asked for by snapshot."""

EARLY_MAX: Final = 2_048
"""Early removals in the header of a snapshot; who has more is far behind and sends none."""

COVERS_MAX: Final = 64
"""Dots that one event may close. A plate with more stays than that needs an operator."""

CAUSES_MAX: Final = 16
"""Causes an exit closes: those of the stays it lists, then inherited ones, newest first."""

SUSPICIONS_MAX: Final = 200
DISPUTES_MAX: Final = 200
"""Gates with two owners that one heartbeat names: 14 KiB at most. More take turns."""
CANDIDATES_MAX: Final = 256
"""Addresses a node keeps trying; discovery is untrusted and may invent ten thousand."""
CANDIDATES_WAITING_MAX: Final = 1_024
"""Addresses that wait for a place among those: each gets its turn. The rest is counted."""

LOOK_UPS_MAX: Final = 64
"""Failed look-ups that are shown; more of them are one fault seen many times."""

HELLO_PEERS_MAX: Final = 200
"""Addresses passed on in a hello: the largest full mesh."""

IMPORT_ROWS_MAX: Final = 500
"""Rows in one import request: about 20 KiB, one commit."""

REQUEST_MEMORY_MS: Final = 24 * 3600 * 1000
"""For this long a repeated request id finds its effect (P9)."""
