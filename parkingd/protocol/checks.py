"""Narrowing: from an untrusted object to a value of ours, or `WireError("malformed")`.

Every value that came out of a frame, a packed event or a packed record passes one of these before
anybody else sees it. They compare exact types: a bool is no int, and nothing of ours is a
subclass. ``what`` names the field in the refusal.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, cast

from parkingd.core.causal import Span
from parkingd.core.ids import REPLICA_MAX, REQUEST_ID_BYTES, SEQ_MAX, Dot, ReplicaId
from parkingd.core.plates import is_key
from parkingd.errors import WireError
from parkingd.protocol.limits import NAME_LENGTH_MAX, RAW_LENGTH_MAX, TEXT_LENGTH_MAX

TIME_MAX: Final = 2**63 - 1
"""Of a hybrid time: the year 6429. Above it a merged time would leave no room to mint."""
WALL_MS_MAX: Final = 2**48 - 1
INCARNATION_MAX: Final = 2**63 - 1
NONCE_MAX: Final = 2**64 - 1

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)

NAMES_MAX: Final = 1_024
"""Names of which it is remembered whether they are any: every frame has the same few."""


def malformed(what: str) -> WireError:
    """The refusal of a field, to be raised."""
    return WireError("malformed", what)


def integer(value: object, low: int, high: int, what: str) -> int:
    """An int of ``low`` to ``high``, both inclusive."""
    if type(value) is int and low <= value <= high:
        return value
    raise malformed(what)


def optional_integer(value: object, low: int, high: int, what: str) -> int | None:
    """As `integer`, or None."""
    return None if value is None else integer(value, low, high, what)


def boolean(value: object, what: str) -> bool:
    """True or False, not 1 or 0."""
    if type(value) is bool:
        return value
    raise malformed(what)


def replica_id(value: object) -> ReplicaId:
    """1 to 2**64 - 1; 0 is nobody."""
    if type(value) is int and 1 <= value <= REPLICA_MAX:
        return value
    raise malformed("replica")


def text(value: object, what: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    """Any text, possibly empty, of at most ``length_max`` characters."""
    if type(value) is str and len(value) <= length_max:
        return value
    raise malformed(what)


def name(value: object, what: str = "name") -> str:
    """1-63 of letters, digits, dot, underscore, hyphen; the first a letter or digit."""
    if type(value) is str and len(value) <= NAME_LENGTH_MAX and _is_name(value):
        return value
    raise malformed(what)


@lru_cache(maxsize=NAMES_MAX)
def _is_name(short: str) -> bool:
    return _NAME.fullmatch(short) is not None


def plate(value: object) -> str:
    """A plate as it is used for a key."""
    if type(value) is str and is_key(value):
        return value
    raise malformed("plate")


def raw_plate(value: object) -> str | None:
    """A plate as it was given, or None."""
    return None if value is None else text(value, "raw", RAW_LENGTH_MAX)


def binary(value: object, length: int, what: str) -> bytes:
    """Exactly ``length`` bytes."""
    if type(value) is bytes and len(value) == length:
        return value
    raise malformed(what)


def optional_binary(value: object, length: int, what: str) -> bytes | None:
    """As `binary`, or None."""
    return None if value is None else binary(value, length, what)


def array(value: object, length_max: int, what: str) -> tuple[object, ...]:
    """An array of at most ``length_max`` items."""
    if type(value) is tuple and len(value) <= length_max:
        return value
    raise malformed(what)


def fields(value: object, count_min: int, what: str) -> tuple[object, ...]:
    """An array of at least ``count_min`` items; what a newer minor version adds is ignored."""
    if type(value) is tuple and len(value) >= count_min:
        return value
    raise malformed(what)


def request_ids(value: object, count_max: int, what: str) -> tuple[bytes, ...]:
    """An array of 16-byte ids."""
    ids = array(value, count_max, what)
    for each in ids:
        if type(each) is not bytes or len(each) != REQUEST_ID_BYTES:
            raise malformed(what)
    return cast("tuple[bytes, ...]", ids)


def dots(value: object, count_max: int, own: ReplicaId = 0) -> tuple[Dot, ...]:
    """Dots from their flat form [origin, seq, origin, seq, ...].

    An origin of 0 stands for ``own`` where there is one.
    """
    flat = array(value, 2 * count_max, "dots")
    if not flat:
        return ()
    if len(flat) % 2:
        raise malformed("dots")
    pairs = []
    for place in range(0, len(flat), 2):
        origin = own if own and flat[place] == 0 else replica_id(flat[place])
        pairs.append((origin, integer(flat[place + 1], 1, SEQ_MAX, "seq")))
    return tuple(pairs)


def intervals(value: object, upto: int, count_max: int) -> tuple[Span, ...]:
    """Inclusive spans above ``upto`` from their flat form [first, last, first, last, ...].

    They ascend and touch neither each other nor ``upto``.
    """
    flat = array(value, 2 * count_max, "intervals")
    if len(flat) % 2:
        raise malformed("intervals")
    spans = []
    end = upto
    for place in range(0, len(flat), 2):
        first = integer(flat[place], end + 2, SEQ_MAX, "intervals")
        end = integer(flat[place + 1], first, SEQ_MAX, "intervals")
        spans.append((first, end))
    return tuple(spans)
