"""Events as arrays: [kind, time, *fields of the body], without the dot, which the run implies.

Covers are flat, [origin, seq, ...], and an origin of 0 stands for the event's own: most events
close what their own origin created. Fields at the end that say nothing are left out, so that a
plain enter takes 39 bytes. An event is passed on as the bytes it came in; fields that a newer
version appended are ignored here and travel on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, cast

from parkingd.core.causal import Span
from parkingd.core.events import (
    MATCHED_CONFLICT,
    MATCHED_NONE,
    Body,
    Capacity,
    Claim,
    Correction,
    Enter,
    Event,
    Exit,
    Fence,
    Found,
    Join,
    Removal,
    Seal,
    Setting,
    Transfer,
)
from parkingd.core.ids import REQUEST_ID_BYTES, SEQ_MAX, Dot, ReplicaId
from parkingd.core.registers import is_key
from parkingd.protocol import checks
from parkingd.protocol.limits import (
    CAUSES_MAX,
    COVERS_MAX,
    GATES_MAX,
    INTERVALS_MAX,
    SPACES_MAX,
)

Fields: TypeAlias = tuple[object, ...]

FLAGS_MAX: Final = 255
SETTING_MAX: Final = 2**63 - 1

KIND_JOIN: Final = 1
KIND_FOUND: Final = 2
KIND_ENTER: Final = 3
KIND_EXIT: Final = 4
KIND_REMOVAL: Final = 5
KIND_CORRECTION: Final = 6
KIND_CLAIM: Final = 7
KIND_SETTING: Final = 8
KIND_CAPACITY: Final = 9
KIND_TRANSFER: Final = 10
KIND_FENCE: Final = 11
KIND_SEAL: Final = 12


def event_fields(event: Event) -> Fields:
    """The array of an event, ready to be packed."""
    origin, _, time, body = event
    if type(body) is Enter:  # nine of ten events
        return _enter_fields(origin, time, body)
    kind, pack = _PACK[type(body)]
    return (kind, time, *pack(body, origin))


def event_of(origin: ReplicaId, seq: int, array: object) -> Event:
    """The event with this dot, from its unpacked array. Raises WireError."""
    fields = checks.fields(array, 2, "event")
    kind = fields[0]
    time = fields[1]
    if type(time) is not int or not 0 <= time <= checks.TIME_MAX:
        raise checks.malformed("time")
    if kind == KIND_ENTER and type(kind) is int:
        return Event(origin, seq, time, _enter(fields, origin))
    unpack = _UNPACK.get(kind) if type(kind) is int else None
    if unpack is None:
        raise checks.malformed("event kind")
    count_min, body = unpack
    return Event(origin, seq, time, body(checks.fields(fields, count_min + 2, "event")[2:], origin))


def flat_dots(dots: tuple[Dot, ...], own: ReplicaId = 0) -> tuple[int, ...]:
    """The flat form of dots; see `checks.dots`."""
    if not dots:
        return ()
    return tuple([n for origin, seq in dots for n in (0 if origin == own else origin, seq)])


def flat_spans(spans: tuple[Span, ...]) -> tuple[int, ...]:
    """The flat form of intervals; see `checks.intervals`."""
    return tuple([number for span in spans for number in span]) if spans else ()


def _enter_fields(origin: ReplicaId, time: int, body: Enter) -> Fields:
    plate, gate, cause, covers, raw, since, flags = body
    if flags:
        return (
            KIND_ENTER, time, plate, gate, cause, flat_dots(covers, origin), raw, since, flags,
        )  # fmt: skip
    if since is not None:
        return (KIND_ENTER, time, plate, gate, cause, flat_dots(covers, origin), raw, since)
    if raw is not None:
        return (KIND_ENTER, time, plate, gate, cause, flat_dots(covers, origin), raw)
    if covers:
        return (KIND_ENTER, time, plate, gate, cause, flat_dots(covers, origin))
    return (KIND_ENTER, time, plate, gate, cause)


_PLAIN: Final = ((), None, None)
"""Covers, raw and since of an entry that says nothing but its flags, as imports make them."""


def _enter(fields: Fields, origin: ReplicaId) -> Enter:
    count = len(fields)
    if count < 5:
        raise checks.malformed("enter")
    plate, gate, cause = fields[2], fields[3], fields[4]
    if type(gate) is not int or not 0 <= gate <= GATES_MAX:
        raise checks.malformed("gate")
    if cause is not None and (type(cause) is not bytes or len(cause) != REQUEST_ID_BYTES):
        raise checks.malformed("cause")
    plate = checks.plate(plate)
    if count == 5:
        return Enter(plate, gate, cause)
    if count == 9 and fields[5:8] == _PLAIN:
        flags = checks.integer(fields[8], 0, FLAGS_MAX, "flags")
        return Enter(plate, gate, cause, (), None, None, flags)
    return Enter(
        plate,
        gate,
        cause,
        checks.dots(fields[5], COVERS_MAX, origin),
        checks.raw_plate(fields[6]) if count > 6 else None,
        _since(fields[7]) if count > 7 else None,
        checks.integer(fields[8], 0, FLAGS_MAX, "flags") if count > 8 else 0,
    )


def _since(value: object) -> int | None:
    return checks.optional_integer(value, 0, checks.WALL_MS_MAX, "since")


def _request(value: object) -> bytes | None:
    return checks.optional_binary(value, REQUEST_ID_BYTES, "request")


def _gate(value: object) -> int:
    return checks.integer(value, 0, GATES_MAX, "gate")


def _join_fields(body: Join, _: ReplicaId) -> Fields:
    return (body.name, body.ephemeral)


def _join(fields: Fields, _: ReplicaId) -> Join:
    return Join(checks.name(fields[0]), checks.boolean(fields[1], "ephemeral"))


def _found_fields(body: Found, _: ReplicaId) -> Fields:
    return (body.lot, body.spaces, body.gates, body.admission)


def _found(fields: Fields, _: ReplicaId) -> Found:
    return Found(
        checks.binary(fields[0], 16, "lot"),
        checks.integer(fields[1], 0, SPACES_MAX, "spaces"),
        checks.integer(fields[2], 1, GATES_MAX, "gates"),
        checks.name(fields[3], "admission"),
    )


def _exit_fields(body: Exit, origin: ReplicaId) -> Fields:
    plate, gate, request, covers, causes, matched, since, raw = body
    head = (plate, gate, request, flat_dots(covers, origin), causes, matched)
    if raw is not None:
        return (*head, since, raw)
    return (*head, since) if since is not None else head


def _exit(fields: Fields, origin: ReplicaId) -> Exit:
    return Exit(
        checks.plate(fields[0]),
        _gate(fields[1]),
        _request(fields[2]),
        checks.dots(fields[3], COVERS_MAX, origin),
        checks.request_ids(fields[4], CAUSES_MAX, "causes"),
        checks.integer(fields[5], MATCHED_NONE, MATCHED_CONFLICT, "matched"),
        _since(fields[6]) if len(fields) > 6 else None,
        checks.raw_plate(fields[7]) if len(fields) > 7 else None,
    )


def _removal_fields(body: Removal, origin: ReplicaId) -> Fields:
    return (body.plate, body.request, flat_dots(body.covers, origin))


def _removal(fields: Fields, origin: ReplicaId) -> Removal:
    return Removal(
        checks.plate(fields[0]), _request(fields[1]), checks.dots(fields[2], COVERS_MAX, origin)
    )


def _correction_fields(body: Correction, origin: ReplicaId) -> Fields:
    return (
        body.old_plate,
        flat_dots(body.covers, origin),
        body.plate,
        body.gate,
        body.cause,
        body.request,
        body.since,
        body.raw,
        body.flags,
    )


def _correction(fields: Fields, origin: ReplicaId) -> Correction:
    return Correction(
        checks.plate(fields[0]),
        checks.dots(fields[1], COVERS_MAX, origin),
        checks.plate(fields[2]),
        _gate(fields[3]),
        checks.binary(fields[4], REQUEST_ID_BYTES, "cause"),
        _request(fields[5]),
        checks.integer(fields[6], 0, checks.WALL_MS_MAX, "since"),
        checks.raw_plate(fields[7]),
        checks.integer(fields[8], 0, FLAGS_MAX, "flags"),
    )


def _claim_fields(body: Claim, _: ReplicaId) -> Fields:
    return (body.gate, body.epoch, body.owner, body.incarnation, body.phase, body.target)


def _claim(fields: Fields, _: ReplicaId) -> Claim:
    return Claim(
        _gate(fields[0]),
        checks.integer(fields[1], 0, SEQ_MAX, "epoch"),
        checks.name(fields[2], "owner"),
        checks.integer(fields[3], 0, checks.INCARNATION_MAX, "incarnation"),
        checks.integer(fields[4], 0, 1, "phase"),
        None if fields[5] is None else checks.name(fields[5], "target"),
    )


def _setting_fields(body: Setting, _: ReplicaId) -> Fields:
    head = (body.key, body.value, body.request)
    if body.old is not None:
        return (*head, body.reason, body.old)
    return (*head, body.reason) if body.reason else head


def _setting(fields: Fields, _: ReplicaId) -> Setting:
    key = checks.text(fields[0], "key")
    if not is_key(key):
        raise checks.malformed("key")
    old = fields[4] if len(fields) > 4 else None
    return Setting(
        key,
        _value(fields[1], "value"),
        _request(fields[2]),
        checks.text(fields[3], "reason") if len(fields) > 3 else "",
        None if old is None else _value(old, "old"),
    )


def _value(value: object, what: str) -> int | str:
    if type(value) is str:
        return checks.text(value, what)
    return checks.integer(value, -SETTING_MAX, SETTING_MAX, what)


def _capacity_fields(body: Capacity, _: ReplicaId) -> Fields:
    return (body.delta,)


def _capacity(fields: Fields, _: ReplicaId) -> Capacity:
    return Capacity(checks.integer(fields[0], -SPACES_MAX, SPACES_MAX, "delta"))


def _transfer_fields(body: Transfer, _: ReplicaId) -> Fields:
    return (body.to, body.total)


def _transfer(fields: Fields, _: ReplicaId) -> Transfer:
    return Transfer(checks.replica_id(fields[0]), checks.integer(fields[1], 0, SEQ_MAX, "total"))


def _fence_fields(body: Fence, _: ReplicaId) -> Fields:
    return (body.replica,)


def _fence(fields: Fields, _: ReplicaId) -> Fence:
    return Fence(checks.replica_id(fields[0]))


def _seal_fields(body: Seal, _: ReplicaId) -> Fields:
    return (body.replica, body.upto, flat_spans(body.intervals))


def _seal(fields: Fields, _: ReplicaId) -> Seal:
    upto = checks.integer(fields[1], 0, SEQ_MAX, "upto")
    return Seal(
        checks.replica_id(fields[0]), upto, checks.intervals(fields[2], upto, INTERVALS_MAX)
    )


_PACK: Final[dict[type, tuple[int, Callable[[Body, ReplicaId], Fields]]]] = {}
_UNPACK: Final[dict[int, tuple[int, Callable[[Fields, ReplicaId], Body]]]] = {}


def _register(
    kind: int,
    body: type,
    count_min: int,
    pack: object,
    unpack: Callable[[Fields, ReplicaId], Body],
) -> None:
    """One row of the table; ``pack`` is only ever called with a body of its own type."""
    _PACK[body] = (kind, cast("Callable[[Body, ReplicaId], Fields]", pack))
    _UNPACK[kind] = (count_min, unpack)


_register(KIND_JOIN, Join, 2, _join_fields, _join)
_register(KIND_FOUND, Found, 4, _found_fields, _found)
_register(KIND_EXIT, Exit, 6, _exit_fields, _exit)
_register(KIND_REMOVAL, Removal, 3, _removal_fields, _removal)
_register(KIND_CORRECTION, Correction, 9, _correction_fields, _correction)
_register(KIND_CLAIM, Claim, 6, _claim_fields, _claim)
_register(KIND_SETTING, Setting, 3, _setting_fields, _setting)
_register(KIND_CAPACITY, Capacity, 1, _capacity_fields, _capacity)
_register(KIND_TRANSFER, Transfer, 2, _transfer_fields, _transfer)
_register(KIND_FENCE, Fence, 1, _fence_fields, _fence)
_register(KIND_SEAL, Seal, 3, _seal_fields, _seal)
