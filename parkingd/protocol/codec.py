"""The wire form: MessagePack arrays in a versioned envelope, and the only place that knows it.

A frame is [wire version, kind, cluster, name, replica, incarnation, body]. It is refused in this
order: by size, by version, by cluster, by kind, by content; of another version nothing beyond the
first number is interpreted. What is long is deflated: where an array is expected a binary may
stand, which is the deflated MessagePack of that array, inflated only within a bound.

Functions that end in ``_untrusted`` raise `WireError` and nothing else, for any bytes, in time
and memory bounded by the frame's limit. Packing trusts its caller to keep the ranges and raises
ValueError only for what does not fit in a frame. Arrays are checked in `wire_messages`,
`wire_events` and `wire_records`.

Source: DESIGN sections 5 (envelope) and 9 (limits).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgpack  # type: ignore[import-untyped]

from parkingd.core.causal import Part
from parkingd.core.events import Event
from parkingd.core.ids import SEQ_MAX, ReplicaId, Vector
from parkingd.core.records import Record, RequestEffect
from parkingd.errors import WireError
from parkingd.protocol import checks
from parkingd.protocol.limits import (
    CHUNK_BYTES_MAX,
    CHUNK_FRAME_BYTES_MAX,
    CHUNK_RECORDS_MAX,
    DELTA_BYTES_MAX,
    FRAME_BYTES_MAX,
)
from parkingd.protocol.messages import WIRE_VERSION, Message
from parkingd.protocol.wire_events import event_fields, event_of
from parkingd.protocol.wire_messages import (
    FIELDS_OF,
    KIND_DELTA,
    KIND_OF,
    KIND_PULL_REPLY,
    KIND_SNAPSHOT_CHUNK,
    KIND_SNAPSHOT_HEADER,
    MESSAGE_OF,
)
from parkingd.protocol.wire_parts import (
    ARRAY_LENGTH_MAX,
    EVENT_BYTES_MAX,
    context_fields,
    context_of,
)
from parkingd.protocol.wire_records import (
    effects_of_rows,
    record_columns,
    record_of,
    record_row,
    records_of,
    records_of_rows,
    request_columns,
    requests_of,
)

ValueT = TypeVar("ValueT")

DEFLATE_FROM_BYTES: Final = 512
"""Shorter arrays gain less than the time it takes."""
DEFLATE_LEVEL: Final = 1
"""The fastest: 0.2 ms for 500 enters. Higher levels gain nothing: what is left are random ids."""

_DEFLATED: Final = {
    KIND_DELTA: (0, DELTA_BYTES_MAX),
    KIND_PULL_REPLY: (2, DELTA_BYTES_MAX),
    KIND_SNAPSHOT_HEADER: (5, DELTA_BYTES_MAX),
    KIND_SNAPSHOT_CHUNK: (2, CHUNK_BYTES_MAX + 16),
}
"""kind -> which field of the body may be deflated, and its most bytes when inflated."""

_ENVELOPE_FIELDS: Final = 7
_HEAD: Final = bytes((0x90 | _ENVELOPE_FIELDS, WIRE_VERSION))
"""How every frame of this version begins."""
_TEXT_BYTES_MAX: Final = 1_024
_PACKED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of what is unpacked without a frame around it, from a snapshot or the own disk."""

_pack: Final[Callable[[object], bytes]] = msgpack.Packer(use_bin_type=True, autoreset=True).pack
"""One packer for all: packing plain data never gives up the interpreter's lock."""


_ARRAY_32: Final = 0xDD
_array_head: Final = struct.Struct(">BI").pack


class Decoded(NamedTuple):
    """A message, and who sent it as its envelope claims."""

    name: str
    replica: ReplicaId
    incarnation: int
    message: Message


def encode(
    message: Message, *, cluster: str, name: str, replica: ReplicaId, incarnation: int
) -> bytes:
    """The frame of a message. Raises ValueError if it is over the limit of its kind."""
    kind = KIND_OF[type(message)]
    body = FIELDS_OF[kind](message)
    frame = _pack((WIRE_VERSION, kind, cluster, name, replica, incarnation, body))
    if len(frame) > DEFLATE_FROM_BYTES and kind in _DEFLATED:
        place, inflated_max = _DEFLATED[kind]
        body = (*body[:place], _deflated(body[place], inflated_max), *body[place + 1 :])
        frame = _pack((WIRE_VERSION, kind, cluster, name, replica, incarnation, body))
    if len(frame) > FRAME_BYTES_MAX and len(frame) > _frame_bytes_max(kind):
        raise ValueError(f"{type(message).__name__} of {len(frame)} bytes is over the limit")
    return frame


def decode_untrusted(frame: bytes, *, cluster: str) -> Decoded:
    """The message in a frame from this cluster.

    Raises WireError: ``oversize``, ``protocol_version``, ``other_cluster``, ``unknown_kind`` or
    ``malformed``.
    """
    if len(frame) > FRAME_BYTES_MAX and len(frame) > _frame_bytes_max(frame[2]):
        raise WireError("oversize", f"{len(frame)} bytes")
    if not frame.startswith(_HEAD):
        _refuse_by_head(frame, cluster)
    try:
        envelope = _unpack(frame)
    except WireError:
        _refuse_by_head(frame, cluster)
        raise
    fields = checks.fields(envelope, _ENVELOPE_FIELDS, "envelope")
    _, kind, of_cluster, name, replica, incarnation, array = fields[:_ENVELOPE_FIELDS]
    if of_cluster != cluster or type(kind) is not int or kind not in MESSAGE_OF:
        _refuse_by_head(frame, cluster)
        raise checks.malformed("envelope")
    count_min, message_of = MESSAGE_OF[kind]
    body = checks.fields(array, count_min, "body")
    if kind in _DEFLATED:
        place, inflated_max = _DEFLATED[kind]
        deflated = body[place]
        if type(deflated) is bytes:
            inflated = _unpack(_inflated_untrusted(deflated, inflated_max))
            body = (*body[:place], inflated, *body[place + 1 :])
    return Decoded(
        checks.name(name),
        checks.replica_id(replica),
        checks.integer(incarnation, 0, checks.INCARNATION_MAX, "incarnation"),
        message_of(body),
    )


def peek_untrusted(frame: bytes) -> tuple[int, str, str] | None:
    """(wire version, cluster, name) of a frame, if it has as much in common with ours."""
    head = _head_untrusted(frame)
    if len(head) < 4:
        return None
    wire, _, cluster, name = head[:4]
    try:
        return (
            checks.integer(wire, 0, checks.NONCE_MAX, "wire"),
            checks.name(cluster, "cluster"),
            checks.name(name),
        )
    except WireError:
        return None


# --- events ------------------------------------------------------------------------------------


def pack_event(event: Event) -> bytes:
    """An event without its dot."""
    return _pack(event_fields(event))


def unpack_event_untrusted(origin: ReplicaId, seq: int, packed: bytes) -> Event:
    """The event that ``packed`` is at this dot."""
    if len(packed) > EVENT_BYTES_MAX:
        raise WireError("oversize", "event")
    return event_of(origin, seq, _unpack(packed))


def pack_small(events: Iterable[Event]) -> tuple[bytes, ...]:
    """Each event with its dot in front, for the header of a snapshot."""
    return tuple(_pack((event.origin, event.seq, pack_event(event))) for event in events)


def unpack_small_untrusted(small: Iterable[bytes]) -> list[Event]:
    """The inverse of `pack_small`."""
    events = []
    for packed in small:
        fields = checks.fields(_unpack(packed), 3, "small")
        origin = checks.replica_id(fields[0])
        seq = checks.integer(fields[1], 1, SEQ_MAX, "seq")
        if type(fields[2]) is not bytes:
            raise checks.malformed("small")
        events.append(unpack_event_untrusted(origin, seq, fields[2]))
    return events


# --- records, requests, contexts -----------------------------------------------------------------


def pack_record(record: Record) -> bytes:
    """One stay or mark, as the disk keeps it."""
    return _pack(record_row(record))


def unpack_record_untrusted(packed: bytes) -> Record:
    """The inverse of `pack_record`."""
    return record_of(_unpack(packed))


def unpack_rows_untrusted(rows: Sequence[bytes]) -> list[Record]:
    """The records that `pack_record` packed, all stays before all marks.

    Eight times as fast as one by one: how a node reads a million cars from its disk.
    """
    return [record for array in _arrays_untrusted(rows) for record in records_of_rows(array)]


def pack_records(records: Sequence[Record]) -> bytes:
    """Up to `limits.CHUNK_RECORDS_MAX` records, as a snapshot carries them."""
    return _pack(record_columns(records))


def unpack_records_untrusted(packed: bytes) -> list[Record]:
    """The inverse of `pack_records`, except that all stays come before all marks."""
    return records_of(_unpack(packed))


def pack_request(effect: RequestEffect) -> bytes:
    """What one request did, as the disk keeps it."""
    return _pack(effect)


def unpack_effects_untrusted(rows: Sequence[bytes]) -> list[RequestEffect]:
    """The effects that `pack_request` packed, in the same order."""
    return [effect for array in _arrays_untrusted(rows) for effect in effects_of_rows(array)]


def pack_requests(requests: Sequence[tuple[bytes, RequestEffect]]) -> bytes:
    """Up to `limits.CHUNK_RECORDS_MAX` remembered requests, as a snapshot carries them."""
    return _pack(request_columns(requests))


def unpack_requests_untrusted(packed: bytes) -> list[tuple[bytes, RequestEffect]]:
    """The inverse of `pack_requests`."""
    return requests_of(_unpack(packed))


def pack_context(parts: Sequence[Part]) -> bytes:
    """A causal context, as the disk keeps it; see `CausalContext.parts`."""
    return _pack(context_fields(parts))


def pack_vector(vector: Vector) -> bytes:
    """A causal context without holes, as `pack_context` packs it."""
    return _pack(sorted(vector.items()))


def unpack_context_untrusted(packed: bytes) -> list[Part]:
    """The inverse of `pack_context`."""
    parts = context_of(_unpack(packed))
    return list(parts)


def _arrays_untrusted(rows: Sequence[bytes]) -> Iterator[object]:
    """What is packed one by one, as arrays that are each unpacked in one call."""
    for start in range(0, len(rows), CHUNK_RECORDS_MAX):
        part = rows[start : start + CHUNK_RECORDS_MAX]
        yield _unpack(_array_head(_ARRAY_32, len(part)) + b"".join(part))


# --- below -------------------------------------------------------------------------------------


def _frame_bytes_max(kind: int) -> int:
    return CHUNK_FRAME_BYTES_MAX if kind == KIND_SNAPSHOT_CHUNK else FRAME_BYTES_MAX


def _unpack(packed: bytes) -> object:
    """MessagePack to ints, texts, binaries, tuples and what `checks` refuses."""
    if len(packed) > _PACKED_BYTES_MAX:
        raise WireError("oversize", f"{len(packed)} bytes")
    try:
        unpacked: object = msgpack.unpackb(
            packed,
            use_list=False,
            max_str_len=_TEXT_BYTES_MAX,
            max_bin_len=_PACKED_BYTES_MAX,
            max_array_len=ARRAY_LENGTH_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
    except _UNPACK_ERRORS as error:
        raise checks.malformed("not the MessagePack expected") from error
    return unpacked


_UNPACK_ERRORS: Final = (
    ValueError,  # nearly all, also bad UTF-8
    TypeError,
    OverflowError,
    RecursionError,
    msgpack.exceptions.UnpackException,
)


def _head_untrusted(frame: bytes) -> tuple[object, ...]:
    """As many of the first four fields as can be read; what follows is not looked at."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=CHUNK_FRAME_BYTES_MAX,
        use_list=False,
        max_str_len=_TEXT_BYTES_MAX,
        max_bin_len=0,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    head: list[object] = []
    try:
        unpacker.feed(frame[:_TEXT_BYTES_MAX])
        count = min(4, unpacker.read_array_header())
        head.extend(unpacker.unpack() for _ in range(count))
    except _UNPACK_ERRORS:
        return tuple(head)
    return tuple(head)


def _refuse_by_head(frame: bytes, cluster: str) -> None:
    """Raise what the envelope is to be refused for, if anything, whatever its body is."""
    head = _head_untrusted(frame)
    if not head or type(head[0]) is not int:
        raise checks.malformed("envelope")
    if head[0] != WIRE_VERSION:
        raise WireError("protocol_version", str(head[0]))
    if len(head) < 4 or type(head[2]) is not str:
        raise checks.malformed("envelope")
    if head[2] != cluster:
        raise WireError("other_cluster", checks.text(head[2], "cluster"))
    if type(head[1]) is int and head[1] not in MESSAGE_OF:
        raise WireError("unknown_kind", str(head[1]))


def _deflated(value: object, inflated_max: int) -> object:
    """The array itself, or its deflated form if that is worth it."""
    packed: bytes = _pack(value)
    if len(packed) <= DEFLATE_FROM_BYTES:
        return value
    if len(packed) > inflated_max:
        raise ValueError(f"{len(packed)} bytes are over the limit of {inflated_max}")
    deflated = zlib.compress(packed, DEFLATE_LEVEL)
    return deflated if len(deflated) < len(packed) else value


def _inflated_untrusted(deflated: bytes, inflated_max: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(deflated, inflated_max + 1)
    except zlib.error as error:
        raise checks.malformed("deflated") from error
    if len(inflated) > inflated_max:
        raise WireError("oversize", "when inflated")
    if not inflater.eof or inflater.unused_data:
        raise checks.malformed("deflated")
    return inflated
