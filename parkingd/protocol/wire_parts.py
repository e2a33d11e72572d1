"""What several messages carry, as arrays: contexts, runs of events, addresses, and single fields.

Contexts are arrays of [origin, upto, first, last, first, last, ...], ascending by origin. What
narrows an untrusted value raises WireError and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

from parkingd.core.causal import Part
from parkingd.core.ids import REPLICA_MAX, SEQ_MAX, ReplicaId
from parkingd.protocol import checks
from parkingd.protocol.limits import GATES_MAX, INTERVALS_MAX, REPLICAS_MAX
from parkingd.protocol.messages import Address, ContextWire, Run
from parkingd.protocol.wire_events import Fields, flat_spans

LOT_BYTES: Final = 16
ROOT_BYTES_MAX: Final = 32
ARRAY_LENGTH_MAX: Final = 4_096
"""Of any array in a frame: as many replicas as a vector may name. What nests below that costs at
most 32 MB for a moment, whatever lengths the bytes claim."""
EVENT_BYTES_MAX: Final = 24 * 1024
"""The largest event is a seal with 1,024 intervals."""


def nonce(value: object) -> int:
    """What tells answers apart."""
    return checks.integer(value, 0, checks.NONCE_MAX, "nonce")


def port(value: object) -> int:
    """A TCP port; 0 is none."""
    return checks.integer(value, 0, 65_535, "port")


def lot(value: object) -> bytes:
    """The id of a lot."""
    return checks.binary(value, LOT_BYTES, "lot")


def root(value: object) -> bytes:
    """The hash of a state."""
    if type(value) is bytes and 1 <= len(value) <= ROOT_BYTES_MAX:
        return value
    raise checks.malformed("root")


def context_fields(context: Iterable[Part]) -> Fields:
    """The array of a context."""
    return tuple([part_fields(part) if part[2] else part[:2] for part in context])


def context_of(value: object) -> ContextWire:
    """A context from its array. Raises WireError."""
    parts = tuple(map(part, checks.array(value, REPLICAS_MAX, "context")))
    before = 0
    for origin, _, _ in parts:
        if origin <= before:
            raise checks.malformed("context")
        before = origin
    return parts


def part_fields(part: Part) -> Fields:
    """The array of one part."""
    origin, upto, intervals = part
    return (origin, upto, *flat_spans(intervals)) if intervals else (origin, upto)


def part(value: object) -> Part:
    """What is held of one origin."""
    if type(value) is not tuple or len(value) < 2:
        raise checks.malformed("context")
    origin, upto = value[:2]
    if type(origin) is not int or not 1 <= origin <= REPLICA_MAX:
        raise checks.malformed("replica")
    if type(upto) is not int or not 0 <= upto <= SEQ_MAX:
        raise checks.malformed("context")
    if len(value) == 2:
        return origin, upto, ()
    return origin, upto, checks.intervals(value[2:], upto, INTERVALS_MAX)


def address(value: object) -> Address:
    """Where a ROUTER listens."""
    fields = checks.fields(value, 2, "peer")
    return Address(checks.text(fields[0], "peer"), port(fields[1]))


def replicas(value: object) -> tuple[ReplicaId, ...]:
    """Replica ids, in the order given."""
    return tuple(map(checks.replica_id, checks.array(value, REPLICAS_MAX, "replicas")))


def gate(value: object) -> int:
    """The number of a gate."""
    return checks.integer(value, 1, GATES_MAX, "gate")


def epoch(value: object) -> int:
    """The epoch of a claim; 0 is none."""
    return checks.integer(value, 0, SEQ_MAX, "epoch")


def owner(value: object) -> str:
    """A name, or nothing: nobody is known."""
    return "" if value == "" else checks.name(value)


def runs(value: object) -> tuple[Run, ...]:
    """Runs of packed events, none of them empty."""
    return tuple(map(_run, checks.array(value, REPLICAS_MAX, "runs")))


def _run(value: object) -> Run:
    fields = checks.fields(value, 3, "run")
    packed = events(fields[2])
    if not packed:
        raise checks.malformed("run")
    return Run(
        checks.replica_id(fields[0]),
        checks.integer(fields[1], 1, SEQ_MAX - len(packed) + 1, "seq"),
        packed,
    )


def events(value: object) -> tuple[bytes, ...]:
    """Packed events, not looked into."""
    packed = checks.array(value, ARRAY_LENGTH_MAX, "events")
    for event in packed:
        if type(event) is not bytes or not 1 <= len(event) <= EVENT_BYTES_MAX:
            raise checks.malformed("event")
    return cast("tuple[bytes, ...]", packed)
