"""Requests of the control socket, as the node takes them: a closed union.

Plates arrive as they were typed; the node normalises them. Everything else has been checked for
type and range by `parse_command`, the only way from an untrusted map to a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from parkingd.core.gates import Fence


@dataclass(frozen=True, slots=True)
class Track:
    """Record that a car entered, without asking."""

    plate: str
    gate: int
    request: bytes | None


@dataclass(frozen=True, slots=True)
class RecordExit:
    """Record that a car left."""

    plate: str
    gate: int
    request: bytes | None


@dataclass(frozen=True, slots=True)
class AskToEnter:
    """Ask the owner of the gate to admit a car."""

    plate: str
    gate: int
    request: bytes | None
    seen: Fence | None = None
    """The highest fence that the barrier has seen, if it has refused the one it was shown."""


@dataclass(frozen=True, slots=True)
class ReadGates:
    """Every gate and who serves it."""


@dataclass(frozen=True, slots=True)
class ReadLot:
    """Spaces, cars, state."""


@dataclass(frozen=True, slots=True)
class ReadVehicles:
    """Every stay."""


@dataclass(frozen=True, slots=True)
class Where:
    """One plate."""

    plate: str


@dataclass(frozen=True, slots=True)
class ReadConflicts:
    """Plates that are inside more than once."""


@dataclass(frozen=True, slots=True)
class ReadUnmatched:
    """Exits that matched no car: all that are open, or the one with this dot."""

    dot: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class ReadMembers:
    """The members this node knows."""


@dataclass(frozen=True, slots=True)
class ReadStatus:
    """How this node and its cluster are."""


@dataclass(frozen=True, slots=True)
class ReadDigest:
    """The root on every member."""


@dataclass(frozen=True, slots=True)
class ReadCandidates:
    """What discovery found and what became of it."""


@dataclass(frozen=True, slots=True)
class SetSpaces:
    """Change the number of spaces."""

    spaces: int
    request: bytes | None
    current: int | None = None
    """What they must be now, else nothing is changed; None: whatever they are."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetGates:
    """Change the number of gates."""

    gates: int
    request: bytes | None
    current: int | None = None
    """As for spaces."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetThreshold:
    """Change where the lot begins to be almost full, or full, and where it ceases to."""

    key: str
    """`registers.ALMOST_FULL` or `registers.FULL`."""
    percent: int
    clear: int | None
    """None: as far below as it is now."""
    request: bytes | None
    current: int | None = None
    """As for spaces."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetMode:
    """Hold a gate open or closed, or let the ordinary rules hold again."""

    gate: int
    mode: str
    """One of `registers.MODES`."""
    request: bytes | None
    reason: str = ""
    current: str | None = None
    """As for spaces."""


SetLot: TypeAlias = SetSpaces | SetGates | SetThreshold | SetMode
"""What changes a setting of the lot."""


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """Every setting of the lot: what it is, who changed it, when and why."""


@dataclass(frozen=True, slots=True)
class Correct:
    """Repair a misread plate."""

    old_plate: str
    new_plate: str
    request: bytes | None


@dataclass(frozen=True, slots=True)
class Remove:
    """Drop a ghost: all stays of the plate known here, or that of one dot, or those that began
    before an unmatched exit, which is settled by it."""

    plate: str
    dot: tuple[int, int] | None
    request: bytes | None
    exit: tuple[int, int] | None = None
    """The dot of the unmatched exit."""


@dataclass(frozen=True, slots=True)
class ForgetMember:
    """Stop waiting for a dead member."""

    name: str


@dataclass(frozen=True, slots=True)
class Condition:
    """``key`` one of members, gates, inside, synced, ready; ``at_least`` for KEY>=N."""

    key: str
    value: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Answer when all conditions hold, or at the deadline."""

    conditions: tuple[Condition, ...]


class ImportRow(NamedTuple):
    """One car of an import. ``line`` is its number in the file, for reports."""

    line: int
    plate: str
    gate: int
    since_ms: int | None
    request: bytes


@dataclass(frozen=True, slots=True)
class ImportRows:
    """At most `limits.IMPORT_ROWS_MAX` rows."""

    rows: tuple[ImportRow, ...]


@dataclass(frozen=True, slots=True)
class ReadLog:
    """The events still in the log, oldest first."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Hand over and stop the daemon."""


Command: TypeAlias = (
    Track
    | RecordExit
    | AskToEnter
    | ReadGates
    | ReadLot
    | ReadVehicles
    | Where
    | ReadConflicts
    | ReadUnmatched
    | ReadMembers
    | ReadStatus
    | ReadDigest
    | ReadCandidates
    | SetSpaces
    | SetGates
    | SetThreshold
    | SetMode
    | ReadSettings
    | Correct
    | Remove
    | ForgetMember
    | WaitFor
    | ImportRows
    | ReadLog
    | Leave
)
