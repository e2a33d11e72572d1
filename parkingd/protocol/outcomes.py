"""Answers to commands: values, never exceptions. One class per JSON kind of the command contract.

Field names are those of the JSON. Types stay raw here: replica ids are ints, dots are
(replica, seq), times are wall milliseconds (fields that end in nothing else but are named
``since``, ``time``); whoever speaks to people turns them into hex and RFC 3339.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from parkingd.core.gates import Fence
from parkingd.core.ids import Dot, ReplicaId
from parkingd.core.registers import DEFAULT_THRESHOLDS, Thresholds


@dataclass(frozen=True, slots=True)
class Entry:
    """A car was recorded as inside."""

    plate: str
    gate: int
    dot: Dot
    time: int
    """Wall milliseconds."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the owner of a gate decided about a car, or why nobody could."""

    decision: str
    """``admitted`` or ``denied``."""
    reason: str
    """``ok``, ``full``, ``no_rights`` (in `escrow`, to come), ``already_inside``, ``gate_closed``,
    ``draining``, ``invalid_plate``, ``unknown_gate``, ``no_owner``, ``not_ready``."""
    plate: str
    """Normalised where it is a plate, else as typed."""
    gate: int
    epoch: int | None
    """Of the claim under which it was decided; None where nobody decided."""
    owner: str | None
    free: int | None
    """Spaces left in the replica that decided; None without a lot."""
    fence: Fence | None = None
    """What whoever opens the barrier compares with the highest it has seen; admitted only."""
    request: bytes | None = None
    """The id to repeat it with."""
    warnings: tuple[str, ...] = ()
    hint: str = ""


class GateRow(NamedTuple):
    """One gate as this node sees it."""

    gate: int
    owner: str | None
    """The living node that serves it; None: nobody."""
    epoch: int
    """Of the greatest claim known; 0: never claimed."""
    state: str
    """``served``, ``moving`` (released to another, not yet accepted), ``unowned``,
    ``contested``."""
    claims: tuple[str, ...]
    """Names of all living claimants, sorted."""
    target: str | None = None
    """To whom it is moving."""
    mode: str = "auto"
    """``open``: every car is let in; ``closed``: none is; ``auto``: the ordinary rules hold."""
    mode_reason: str = ""
    """Why, in the words of who set it."""


@dataclass(frozen=True, slots=True)
class GateList:
    """By number."""

    items: tuple[GateRow, ...]


@dataclass(frozen=True, slots=True)
class Exit:
    """A car was recorded as gone."""

    plate: str
    gate: int
    matched: str
    """``exact``, ``conflict`` or ``none``."""
    stay_s: float | None
    dot: Dot
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lot:
    """What is inside."""

    lot: str
    """32 hex digits."""
    spaces: int
    inside: int
    free: int
    overbooked: int
    state: str
    """``open``, ``almost_full``, ``full`` or ``closed``: every gate is."""
    admission: str
    conflicts: tuple[str, ...]
    """Plates that are inside more than once."""
    warnings: tuple[str, ...] = ()
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    """Where it becomes almost full and full, in percent of the spaces."""


VehicleRow: TypeAlias = tuple[str, int, int, str, ReplicaId, int, bool]
"""plate, since (wall ms), gate, entered_at_node, replica, seq, conflict."""


@dataclass(frozen=True, slots=True)
class VehicleList:
    """One row per stay; sent in pages."""

    rows: tuple[VehicleRow, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vehicle:
    """The stays of one plate."""

    plate: str
    inside: bool
    rows: tuple[VehicleRow, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConflictList:
    """The stays of plates that are inside more than once, those of one plate together."""

    rows: tuple[VehicleRow, ...]


UnmatchedRow: TypeAlias = tuple[str, int, int, str, ReplicaId, int, tuple[VehicleRow, ...]]
"""plate, time (wall ms), gate, node, replica, seq, and the most alike stays, best first."""


@dataclass(frozen=True, slots=True)
class UnmatchedList:
    """Exits that matched no car and that nobody has settled."""

    rows: tuple[UnmatchedRow, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member as this node sees it."""

    name: str
    state: str
    """``alive``, ``suspect``, ``dead``, ``left``."""
    replica: ReplicaId
    incarnation: int
    address: str | None
    """host:port; None for itself before it is bound."""
    last_heard_s: float
    rtt_ms: float | None
    gates: int
    version: str
    events_behind: int | None = None
    """So many of the events that are here are not known to be on its disk: it says every 2 s what
    is. None for itself, and before it has said so."""
    synced_s: float | None = None
    """Seconds since everything that it had was here; None for itself, and before that."""


@dataclass(frozen=True, slots=True)
class MemberList:
    """Itself first, then by name."""

    items: tuple[MemberRow, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """How this node and its cluster are."""

    replica: ReplicaId
    incarnation: int
    cluster: str
    uptime_s: float
    synced: bool
    ready: bool
    root: str
    lot: Lot | None
    members: tuple[tuple[str, int], ...]
    """(state, count)."""
    gates_total: int
    gates_owned: tuple[int, ...]
    gates_unowned: tuple[int, ...]
    gates_contested: tuple[int, ...]
    warnings: tuple[str, ...]
    counters: tuple[tuple[str, int], ...]
    journal_last: int = 0
    """The number of its newest line on disk."""
    journal_days: int = 0
    """For how long lines are kept."""


@dataclass(frozen=True, slots=True)
class DigestGroup:
    """Nodes whose resolved state is the same."""

    root: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """Roots, and who did not answer."""

    items: tuple[DigestGroup, ...]
    unreachable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One address that discovery proposed."""

    source: str
    address: str
    name: str | None
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class CandidateList:
    """What discovery found and what became of it."""

    items: tuple[CandidateRow, ...]


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One register: what it was, and what it is now."""

    key: str
    """As `settings` lists it."""
    old: int | str
    new: int | str


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting of the lot, and who changed it last."""

    key: str
    """``spaces``, ``gates``, ``admission``, ``almost-full``, ``almost-full-clear``, ``full``,
    ``full-clear``, or ``gate-N`` for the mode of a gate."""
    value: int | str
    old: int | str | None
    """What it was before; None: that is not known, or there was nothing before."""
    by: str | None
    """The node where it was changed, or that founded the lot; None: this is the default."""
    time: int | None
    """Wall milliseconds of that."""
    reason: str


@dataclass(frozen=True, slots=True)
class SettingList:
    """In a fixed order, the gates at the end."""

    items: tuple[SettingRow, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A repair, a removal, a setting or a forgotten member."""

    closed: tuple[Dot, ...]
    created: tuple[Dot, ...]
    warnings: tuple[str, ...] = ()
    what: str = ""
    """One sentence for people: what changed, from what to what."""
    settings: tuple[SettingChange, ...] = ()
    """What was set."""


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that was not imported, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Counts of one import request."""

    accepted: int
    skipped: int
    failed: tuple[RowFailure, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConditionState:
    """One condition of a wait and what it was at the end."""

    condition: str
    met: bool
    value: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Whether all conditions were met before the deadline."""

    met: bool
    conditions: tuple[ConditionState, ...]


LogRow: TypeAlias = tuple[ReplicaId, int, int, str, str | None, int | None, str | None]
"""replica, seq, time (wall ms), type, plate, gate, detail."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events of the log; sent in pages."""

    rows: tuple[LogRow, ...]


@dataclass(frozen=True, slots=True)
class Left:
    """The node has left: its head is safe with ``safe_with`` (None: it was alone)."""

    final_seq: int
    safe_with: str | None


class ErrorCode:
    """Codes of `Failure`, each with the exit status that parkingd-ctl gives it."""

    INVALID_PLATE = "invalid_plate"
    USAGE = "usage"
    UNKNOWN_GATE = "unknown_gate"
    NOT_INSIDE = "not_inside"
    UNKNOWN_EXIT = "unknown_exit"
    EXIT_SETTLED = "exit_settled"
    UNKNOWN_MEMBER = "unknown_member"
    REQUEST_REUSED = "request_reused"
    NOT_CURRENT = "not_current"
    ALREADY_INSIDE = "already_inside"
    IN_CONFLICT = "in_conflict"
    MEMBER_ALIVE = "member_alive"
    NOT_ANSWERED = "not_answered"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    STORAGE_FAILED = "storage_failed"
    TIMED_OUT = "timed_out"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Failure:
    """The command was not carried out (or, ``storage_failed``: it may have been)."""

    code: str
    reason: str
    hint: str = ""


Outcome: TypeAlias = (
    Entry
    | Decision
    | GateList
    | Exit
    | Lot
    | VehicleList
    | Vehicle
    | ConflictList
    | UnmatchedList
    | MemberList
    | Status
    | Digest
    | CandidateList
    | SettingList
    | Change
    | ImportResult
    | Wait
    | LogPage
    | Left
    | Failure
)
