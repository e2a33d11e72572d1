"""The control socket's frames: MessagePack maps, the same module on both sides.

A request is ``{v, id, verb, args, deadline_ms}``; the deadline is relative, because two processes
share no clock. A reply is ``{v, id, last, kind, node, at, body}``; ``at`` is wall milliseconds,
``last`` is false while more pages of the same answer follow. One frame holds one of either.

Invariants: `decode_request` and `decode_reply` return a checked value or raise WireError, whatever
the bytes; requests are at most 64 KiB, so that the worst of them decodes in a few milliseconds.

Source: DESIGN section 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn, cast

import msgpack  # type: ignore[import-untyped]

from parkingd.errors import WireError
from parkingd.protocol.limits import FRAME_BYTES_MAX

CONTROL_VERSION: Final = 1

REQUEST_BYTES_MAX: Final = FRAME_BYTES_MAX
REPLY_BYTES_MAX: Final = 16 * 1024 * 1024
"""A page of stays has about 100 KiB, a member list of 200 nodes 40; a daemon is trusted more
than its callers, but not without a bound."""

ID_MAX: Final = 2**63 - 1
VERB_LENGTH_MAX: Final = 32
DEADLINE_MS_MAX: Final = 24 * 3600 * 1000
"""A day: ``wait`` is the only one that may take long."""


class Request(NamedTuple):
    """What a client asks."""

    id: int
    verb: str
    args: dict[object, object]
    deadline_ms: int
    """From now; 1 to `DEADLINE_MS_MAX`."""


class Reply(NamedTuple):
    """One page of an answer; most have only one."""

    id: int
    last: bool
    kind: str
    node: str
    at_ms: int
    body: dict[str, Any]


class BadRequest(NamedTuple):
    """A frame that asks for nothing we can do, but says which id to answer."""

    id: int
    code: str
    reason: str


def encode_request(request: Request) -> bytes:
    """The frame; ValueError when its text is not valid Unicode, OverflowError past 64 bits."""
    fields = {
        "v": CONTROL_VERSION,
        "id": request.id,
        "verb": request.verb,
        "args": request.args,
        "deadline_ms": request.deadline_ms,
    }
    return cast(bytes, msgpack.packb(fields))


def decode_request_untrusted(frame: bytes) -> Request | BadRequest:
    """Raises WireError when there is not even an id to answer."""
    fields = _unpack_map(frame, REQUEST_BYTES_MAX)
    id_ = fields.get("id")
    if type(id_) is not int or not 0 <= id_ <= ID_MAX:
        raise WireError("id")
    if fields.get("v") != CONTROL_VERSION or type(fields["v"]) is not int:
        return BadRequest(
            id_, "protocol_version", f"this daemon speaks control protocol {CONTROL_VERSION}"
        )
    verb, args = fields.get("verb"), fields.get("args")
    deadline_ms = fields.get("deadline_ms")
    if not isinstance(verb, str) or not 1 <= len(verb) <= VERB_LENGTH_MAX:
        return BadRequest(id_, "usage", "the verb is missing or too long")
    if not isinstance(args, dict):
        return BadRequest(id_, "usage", "args is not a map")
    if type(deadline_ms) is not int or not 1 <= deadline_ms <= DEADLINE_MS_MAX:
        return BadRequest(id_, "usage", f"deadline_ms is not an int of 1 to {DEADLINE_MS_MAX}")
    return Request(id_, verb, args, deadline_ms)


def encode_reply(reply: Reply) -> bytes:
    """The frame."""
    fields = {
        "v": CONTROL_VERSION,
        "id": reply.id,
        "last": reply.last,
        "kind": reply.kind,
        "node": reply.node,
        "at": reply.at_ms,
        "body": reply.body,
    }
    try:
        return cast(bytes, msgpack.packb(fields))
    except UnicodeEncodeError:
        # A path or a system's message with bytes that are no text: the rest is still worth saying.
        return cast(bytes, msgpack.packb(fields, unicode_errors="replace"))


def decode_reply(frame: bytes | memoryview) -> Reply:
    """Raises WireError for anything that is not a reply of this version."""
    fields = _unpack_map(frame, REPLY_BYTES_MAX)
    match fields:
        case {
            "v": 1,
            "id": int(id_),
            "last": bool(last),
            "kind": str(kind),
            "node": str(node),
            "at": int(at_ms),
            "body": dict(body),
        }:
            return Reply(id_, last, kind, node, at_ms, body)
        case _:
            raise WireError("reply", "not a reply of this version")


def _unpack_map(frame: bytes | memoryview, bytes_max: int) -> Mapping[object, object]:
    if len(frame) > bytes_max:
        raise WireError("too_long")
    try:
        fields = msgpack.unpackb(frame, raw=False, ext_hook=_refuse_extension)
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as error:
        raise WireError("msgpack", type(error).__name__) from error
    if not isinstance(fields, dict):
        raise WireError("not_a_map")
    return fields


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} of {len(data)} bytes")
