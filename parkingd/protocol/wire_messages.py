"""Messages as arrays: one kind number, one packing and one checking function for each class.

A kind number is never used again for anything else. New fields are appended: a reader takes an
array that is longer than it knows and refuses a shorter one. What several messages carry is in
`wire_parts`, the messages of a snapshot are in `wire_snapshots`.

Named tuples whose fields are those of their array are packed as they are: runs, suspicions
and fences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar, cast

from parkingd.core.gates import SCORE_MAX, Fence
from parkingd.core.ids import REQUEST_ID_BYTES, SEQ_MAX
from parkingd.protocol import checks, wire_parts, wire_snapshots
from parkingd.protocol.limits import (
    DISPUTES_MAX,
    EPOCH_SEEN_MAX,
    GATES_MAX,
    HELLO_PEERS_MAX,
    NAME_LENGTH_MAX,
    RAW_LENGTH_MAX,
    SUSPICIONS_MAX,
)
from parkingd.protocol.messages import (
    Delta,
    EnterAnswer,
    EnterAsk,
    FenceReport,
    Goodbye,
    Heartbeat,
    Hello,
    Message,
    Pull,
    PullReply,
    Refused,
    RootAnswer,
    RootQuery,
    SnapshotAbort,
    SnapshotAck,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
    Suspicion,
    Want,
)
from parkingd.protocol.wire_events import Fields

SPANS_MAX: Final = wire_parts.ARRAY_LENGTH_MAX // 3
REMAINING_MS_MAX: Final = 24 * 3600 * 1000
WARNINGS_MAX: Final = 16

MessageT = TypeVar("MessageT", bound=Message)


def _hello_fields(message: Hello) -> Fields:
    return (
        message.answer,
        message.lot,
        message.port,
        message.pub_port,
        message.wall_ms,
        wire_parts.context_fields(message.context),
        message.ephemeral,
        message.version,
        message.founded,
        tuple([(peer.host, peer.port) for peer in message.peers]),
    )


def _hello(fields: Fields) -> Hello:
    return Hello(
        checks.boolean(fields[0], "answer"),
        checks.optional_binary(fields[1], wire_parts.LOT_BYTES, "lot"),
        wire_parts.port(fields[2]),
        wire_parts.port(fields[3]),
        checks.integer(fields[4], 0, checks.WALL_MS_MAX, "wall"),
        wire_parts.context_of(fields[5]),
        checks.boolean(fields[6], "ephemeral"),
        checks.text(fields[7], "version"),
        checks.boolean(fields[8], "founded"),
        tuple(map(wire_parts.address, checks.array(fields[9], HELLO_PEERS_MAX, "peers"))),
    )


def _refused_fields(message: Refused) -> Fields:
    if not message.held:
        return (message.reason, message.detail)
    return (message.reason, message.detail, wire_parts.context_fields(message.held))


def _refused(fields: Fields) -> Refused:
    return Refused(
        checks.text(fields[0], "reason", NAME_LENGTH_MAX),
        checks.text(fields[1], "detail"),
        wire_parts.context_of(fields[2]) if len(fields) > 2 else (),
    )


def _heartbeat_fields(message: Heartbeat) -> Fields:
    beat, head, wall, refutation, leaving, suspicions, gates, contested = message
    flat = _flat(gates) if gates else gates
    fields = (beat, head, wall, refutation, leaving, suspicions, flat)
    return (*fields, _flat(contested)) if contested else fields


def _heartbeat(fields: Fields) -> Heartbeat:
    integer = checks.integer
    beat, head, wall, refutation, leaving, suspicions, gates = fields[:7]
    return Heartbeat(
        integer(beat, 0, SEQ_MAX, "beat"),
        integer(head, 0, SEQ_MAX, "head"),
        integer(wall, 0, checks.WALL_MS_MAX, "wall"),
        integer(refutation, 0, SEQ_MAX, "refutation"),
        checks.boolean(leaving, "leaving"),
        _suspicions(suspicions) if suspicions != () else (),
        _served_gates(gates) if gates != () else (),
        _contested_gates(fields[7]) if len(fields) > 7 else (),
    )


def _flat(pairs: Iterable[tuple[int, int | str]]) -> Fields:
    return tuple([value for pair in pairs for value in pair])


def _contested_gates(value: object) -> tuple[tuple[int, str], ...]:
    flat = checks.array(value, 2 * DISPUTES_MAX, "contested")
    if len(flat) % 2:
        raise checks.malformed("contested")
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return tuple([(wire_parts.gate(gate), checks.name(name)) for gate, name in pairs])


def _served_gates(value: object) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    flat = checks.array(value, 2 * GATES_MAX, "gates")
    if len(flat) % 2:
        raise checks.malformed("gates")
    served = []
    for place in range(0, len(flat), 2):
        gate, epoch = flat[place], flat[place + 1]
        if type(gate) is not int or not 1 <= gate <= GATES_MAX:
            raise checks.malformed("gate")
        if type(epoch) is not int or not 0 <= epoch <= SEQ_MAX:
            raise checks.malformed("epoch")
        served.append((gate, epoch))
    return tuple(served)


def _suspicions(value: object) -> tuple[Suspicion, ...]:
    return tuple(map(_suspicion, checks.array(value, SUSPICIONS_MAX, "suspicions")))


def _suspicion(value: object) -> Suspicion:
    name, incarnation, refutation, refused = checks.fields(value, 4, "suspicion")[:4]
    return Suspicion(
        checks.name(name),
        checks.integer(incarnation, 0, checks.INCARNATION_MAX, "incarnation"),
        checks.integer(refutation, 0, SEQ_MAX, "refutation"),
        checks.boolean(refused, "refused"),
    )


def _goodbye_fields(message: Goodbye) -> Fields:
    return (message.final_seq,)


def _goodbye(fields: Fields) -> Goodbye:
    return Goodbye(checks.integer(fields[0], 0, SEQ_MAX, "final seq"))


def _delta_fields(message: Delta) -> Fields:
    return (message.runs,)


def _delta(fields: Fields) -> Delta:
    return Delta(wire_parts.runs(fields[0]))


def _pull_fields(message: Pull) -> Fields:
    return (
        message.nonce,
        message.lot,
        wire_parts.context_fields(message.context),
        None if message.durable is None else wire_parts.context_fields(message.durable),
        message.root,
    )


def _pull(fields: Fields) -> Pull:
    return Pull(
        wire_parts.nonce(fields[0]),
        wire_parts.lot(fields[1]),
        wire_parts.context_of(fields[2]),
        None if fields[3] is None else wire_parts.context_of(fields[3]),
        None if fields[4] is None else wire_parts.root(fields[4]),
    )


def _pull_reply_fields(message: PullReply) -> Fields:
    return (
        message.nonce,
        message.lot,
        message.runs,
        message.more,
        message.behind,
        wire_parts.context_fields(message.context),
        None if message.durable is None else wire_parts.context_fields(message.durable),
        message.root,
    )


def _pull_reply(fields: Fields) -> PullReply:
    return PullReply(
        wire_parts.nonce(fields[0]),
        wire_parts.lot(fields[1]),
        wire_parts.runs(fields[2]),
        checks.boolean(fields[3], "more"),
        checks.boolean(fields[4], "behind"),
        wire_parts.context_of(fields[5]),
        None if fields[6] is None else wire_parts.context_of(fields[6]),
        None if fields[7] is None else wire_parts.root(fields[7]),
    )


def _want_fields(message: Want) -> Fields:
    return (tuple(number for span in message.spans for number in span),)


def _want(fields: Fields) -> Want:
    flat = checks.array(fields[0], 3 * SPANS_MAX, "spans")
    if len(flat) % 3:
        raise checks.malformed("spans")
    spans = []
    for place in range(0, len(flat), 3):
        first = checks.integer(flat[place + 1], 1, SEQ_MAX, "spans")
        last = checks.integer(flat[place + 2], first, SEQ_MAX, "spans")
        spans.append((checks.replica_id(flat[place]), first, last))
    return Want(tuple(spans))


def _root_query_fields(message: RootQuery) -> Fields:
    return (message.nonce,)


def _root_query(fields: Fields) -> RootQuery:
    return RootQuery(wire_parts.nonce(fields[0]))


def _root_answer_fields(message: RootAnswer) -> Fields:
    return (message.nonce, message.root, wire_parts.context_fields(message.context))


def _root_answer(fields: Fields) -> RootAnswer:
    return RootAnswer(
        wire_parts.nonce(fields[0]), wire_parts.root(fields[1]), wire_parts.context_of(fields[2])
    )


def _fence_report_fields(message: FenceReport) -> Fields:
    return (wire_parts.part_fields(message.held), message.waited, message.gone)


def _fence_report(fields: Fields) -> FenceReport:
    return FenceReport(
        wire_parts.part(fields[0]), wire_parts.replicas(fields[1]), wire_parts.replicas(fields[2])
    )


def _enter_ask_fields(message: EnterAsk) -> Fields:
    return (
        message.nonce,
        message.plate,
        message.gate,
        message.request,
        message.epoch,
        message.owner,
        message.remaining_ms,
        message.seen,
    )


def _enter_ask(fields: Fields) -> EnterAsk:
    return EnterAsk(
        checks.integer(fields[0], 0, checks.NONCE_MAX, "nonce"),
        checks.text(fields[1], "plate", RAW_LENGTH_MAX),
        wire_parts.gate(fields[2]),
        checks.binary(fields[3], REQUEST_ID_BYTES, "request"),
        wire_parts.epoch(fields[4]),
        wire_parts.owner(fields[5]),
        checks.integer(fields[6], 0, REMAINING_MS_MAX, "remaining"),
        _fence(fields[7]),
    )


def _fence(value: object) -> Fence | None:
    if value is None:
        return None
    epoch, score, owner = checks.fields(value, 3, "fence")[:3]
    return Fence(
        checks.integer(epoch, 0, EPOCH_SEEN_MAX, "epoch"),
        checks.integer(score, 0, SCORE_MAX, "score"),
        checks.name(owner, "owner"),
    )


def _enter_answer_fields(message: EnterAnswer) -> Fields:
    return (
        message.nonce,
        message.answer,
        message.reason,
        message.epoch,
        message.owner,
        message.incarnation,
        message.free,
        message.detail,
        message.hint,
        message.warnings,
    )


def _enter_answer(fields: Fields) -> EnterAnswer:
    warnings = checks.array(fields[9], WARNINGS_MAX, "warnings")
    return EnterAnswer(
        checks.integer(fields[0], 0, checks.NONCE_MAX, "nonce"),
        checks.text(fields[1], "answer", NAME_LENGTH_MAX),
        checks.text(fields[2], "reason", NAME_LENGTH_MAX),
        wire_parts.epoch(fields[3]),
        wire_parts.owner(fields[4]),
        checks.integer(fields[5], 0, checks.INCARNATION_MAX, "incarnation"),
        checks.integer(fields[6], -SEQ_MAX, SEQ_MAX, "free"),
        checks.text(fields[7], "detail"),
        checks.text(fields[8], "hint"),
        tuple(checks.text(warning, "warning") for warning in warnings),
    )


# --- the table ---------------------------------------------------------------------------------

KIND_OF: Final[dict[type, int]] = {}
FIELDS_OF: Final[dict[int, Callable[[Message], Fields]]] = {}
MESSAGE_OF: Final[dict[int, tuple[int, Callable[[Fields], Message]]]] = {}
"""kind -> (fewest fields, checking function)."""


def _register(
    kind: int,
    message: type[MessageT],
    count_min: int,
    pack: Callable[[MessageT], Fields],
    unpack: Callable[[Fields], MessageT],
) -> None:
    """One row; ``pack`` is found by kind, and so is only called with a message of its class."""
    KIND_OF[message] = kind
    FIELDS_OF[kind] = cast("Callable[[Message], Fields]", pack)
    MESSAGE_OF[kind] = (count_min, unpack)


KIND_DELTA: Final = 5
KIND_PULL_REPLY: Final = 7
KIND_SNAPSHOT_HEADER: Final = 10
KIND_SNAPSHOT_CHUNK: Final = 11

_register(1, Hello, 10, _hello_fields, _hello)
_register(2, Refused, 2, _refused_fields, _refused)
_register(3, Heartbeat, 7, _heartbeat_fields, _heartbeat)
_register(4, Goodbye, 1, _goodbye_fields, _goodbye)
_register(KIND_DELTA, Delta, 1, _delta_fields, _delta)
_register(6, Pull, 5, _pull_fields, _pull)
_register(KIND_PULL_REPLY, PullReply, 8, _pull_reply_fields, _pull_reply)
_register(8, Want, 1, _want_fields, _want)
_register(9, SnapshotRequest, 3, wire_snapshots.request_fields, wire_snapshots.request_of)
_register(
    KIND_SNAPSHOT_HEADER, SnapshotHeader, 7, wire_snapshots.header_fields, wire_snapshots.header_of
)
_register(
    KIND_SNAPSHOT_CHUNK, SnapshotChunk, 3, wire_snapshots.chunk_fields, wire_snapshots.chunk_of
)
_register(12, SnapshotAck, 2, wire_snapshots.ack_fields, wire_snapshots.ack_of)
_register(13, SnapshotTrailer, 4, wire_snapshots.trailer_fields, wire_snapshots.trailer_of)
_register(14, SnapshotAbort, 2, wire_snapshots.abort_fields, wire_snapshots.abort_of)
_register(15, RootQuery, 1, _root_query_fields, _root_query)
_register(16, RootAnswer, 3, _root_answer_fields, _root_answer)
_register(17, FenceReport, 3, _fence_report_fields, _fence_report)
_register(18, EnterAsk, 8, _enter_ask_fields, _enter_ask)
_register(19, EnterAnswer, 10, _enter_answer_fields, _enter_answer)
