"""The messages of a snapshot as arrays; see `wire_messages`."""

from __future__ import annotations

from typing import Final

from parkingd.core.ids import SEQ_MAX
from parkingd.protocol import checks, wire_parts
from parkingd.protocol.limits import CHUNK_BYTES_MAX, EARLY_MAX
from parkingd.protocol.messages import (
    SnapshotAbort,
    SnapshotAck,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
)
from parkingd.protocol.wire_events import Fields, flat_dots

CHUNKS_MAX: Final = 2**20
RECORDS_MAX: Final = 2**40


def request_fields(message: SnapshotRequest) -> Fields:
    """The array of its fields."""
    return (message.nonce, message.lot, message.join_seq)


def request_of(fields: Fields) -> SnapshotRequest:
    """The inverse. Raises WireError."""
    return SnapshotRequest(
        wire_parts.nonce(fields[0]),
        wire_parts.lot(fields[1]),
        checks.integer(fields[2], 0, SEQ_MAX, "join seq"),
    )


def header_fields(message: SnapshotHeader) -> Fields:
    """The array of its fields."""
    return (
        message.nonce,
        message.lot,
        wire_parts.context_fields(message.context),
        flat_dots(message.early),
        message.hybrid_high,
        message.small,
        message.records,
    )


def header_of(fields: Fields) -> SnapshotHeader:
    """The inverse. Raises WireError."""
    return SnapshotHeader(
        wire_parts.nonce(fields[0]),
        wire_parts.lot(fields[1]),
        wire_parts.context_of(fields[2]),
        checks.dots(fields[3], EARLY_MAX),
        checks.integer(fields[4], 0, checks.TIME_MAX, "time"),
        wire_parts.events(fields[5]),
        checks.integer(fields[6], 0, RECORDS_MAX, "records"),
    )


def chunk_fields(message: SnapshotChunk) -> Fields:
    """The array of its fields."""
    return (message.nonce, message.index, (message.records,))


def chunk_of(fields: Fields) -> SnapshotChunk:
    """The inverse. Raises WireError."""
    (records, *_) = checks.fields(fields[2], 1, "records")
    if type(records) is not bytes or len(records) > CHUNK_BYTES_MAX:
        raise checks.malformed("records")
    return SnapshotChunk(wire_parts.nonce(fields[0]), _chunk_count(fields[1]), records)


def ack_fields(message: SnapshotAck) -> Fields:
    """The array of its fields."""
    return (message.nonce, message.index)


def ack_of(fields: Fields) -> SnapshotAck:
    """The inverse. Raises WireError."""
    return SnapshotAck(wire_parts.nonce(fields[0]), _chunk_count(fields[1]))


def trailer_fields(message: SnapshotTrailer) -> Fields:
    """The array of its fields."""
    return (message.nonce, message.chunks, message.records, message.root)


def trailer_of(fields: Fields) -> SnapshotTrailer:
    """The inverse. Raises WireError."""
    return SnapshotTrailer(
        wire_parts.nonce(fields[0]),
        _chunk_count(fields[1]),
        checks.integer(fields[2], 0, RECORDS_MAX, "records"),
        wire_parts.root(fields[3]),
    )


def abort_fields(message: SnapshotAbort) -> Fields:
    """The array of its fields."""
    return (message.nonce, message.reason)


def abort_of(fields: Fields) -> SnapshotAbort:
    """The inverse. Raises WireError."""
    return SnapshotAbort(wire_parts.nonce(fields[0]), checks.text(fields[1], "reason"))


def _chunk_count(value: object) -> int:
    return checks.integer(value, 0, CHUNKS_MAX, "chunk")
