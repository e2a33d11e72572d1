"""Events: the mutations of the replicated state, the unit of logging, gossip and repair.

An event has exactly one dot (origin, seq), one hybrid time and one body. All bodies of the first
wire version are defined here, also those that only later parts of the program mint: a node cannot
stay gap-free over a kind that it does not know.

Events are named tuples: immutable, and a third of the price of frozen dataclasses where a hundred
thousand of them pass in a few seconds. They are transient; what is kept lives in `stays`
as exact tuples and in the log as packed bytes.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from parkingd.core.ids import Dot, HybridTime, ReplicaId

FLAG_MERGED: Final = 1
"""The stay was recorded anew after two lots met."""
FLAG_IMPORTED: Final = 2
"""The stay came from ``import``."""
FLAG_ADMITTED: Final = 4
"""The stay came from ``enter``: somebody decided to admit it."""

MATCHED_NONE: Final = 0
MATCHED_EXACT: Final = 1
MATCHED_CONFLICT: Final = 2


class Join(NamedTuple):
    """The first event of every replica: it counts in the roster from here on."""

    name: str
    ephemeral: bool


class Found(NamedTuple):
    """The act that creates a lot. ``lot`` is 16 bytes: hybrid time and replica of the founder."""

    lot: bytes
    spaces: int
    gates: int
    admission: str


class Enter(NamedTuple):
    """A car came in: creates a stay and supersedes the stays of that plate its origin saw."""

    plate: str
    gate: int
    cause: bytes | None
    """The request id that made it (16 bytes); None: its own dot is its cause."""
    covers: tuple[Dot, ...] = ()
    raw: str | None = None
    """The plate as it was given, when that differs from ``plate``."""
    since: int | None = None
    """Wall milliseconds for display, when they differ from the event's own time."""
    flags: int = 0


class Exit(NamedTuple):
    """A car left: closes what it lists and leaves a mark that hides every earlier stay."""

    plate: str
    gate: int
    request: bytes | None
    covers: tuple[Dot, ...] = ()
    """Dots of the stays and of the older marks of that plate its origin saw."""
    causes: tuple[bytes, ...] = ()
    """Causes of the stays it lists; every stay of such a cause is closed, on whatever plate."""
    matched: int = MATCHED_NONE
    since: int | None = None
    """Wall milliseconds at which the stay it matched began."""
    raw: str | None = None


class Removal(NamedTuple):
    """An operator dropped ghosts: closes exactly the dots it names and leaves no mark."""

    plate: str
    request: bytes | None
    covers: tuple[Dot, ...] = ()


class Correction(NamedTuple):
    """An operator repaired a misread plate: closes the old stay and creates the right one."""

    old_plate: str
    covers: tuple[Dot, ...]
    plate: str
    gate: int
    cause: bytes
    """The cause (else the dot) of the stay it replaces."""
    request: bytes | None
    since: int
    raw: str | None = None
    flags: int = 0


class Claim(NamedTuple):
    """A node serves a gate, releases it or accepts it (DESIGN section 6)."""

    gate: int
    epoch: int
    owner: str
    incarnation: int
    phase: int
    """0: owned; 1: released to ``target``."""
    target: str | None


class Setting(NamedTuple):
    """A register of the lot; the last writer by (hybrid time, replica) wins."""

    key: str
    """1-16 ASCII letters or digits, see `registers`."""
    value: int | str
    request: bytes | None
    reason: str = ""
    """Why, in the words of who changed it."""
    old: int | str | None = None
    """What it was where it was changed; None: nobody has said."""


class Capacity(NamedTuple):
    """Escrow: rights minted (positive) or burned (negative) by the issuer."""

    delta: int


class Transfer(NamedTuple):
    """Escrow: all the rights that the origin has ever given to ``to``."""

    to: ReplicaId
    total: int


class Fence(NamedTuple):
    """First phase of forgetting a replica: members freeze what they hold of it."""

    replica: ReplicaId


class Seal(NamedTuple):
    """Second phase: of this replica exactly these dots exist; what nobody holds is void."""

    replica: ReplicaId
    upto: int
    intervals: tuple[tuple[int, int], ...]
    """Inclusive (first, last) runs above ``upto``, ascending."""


Body: TypeAlias = (
    Join
    | Found
    | Enter
    | Exit
    | Removal
    | Correction
    | Claim
    | Setting
    | Capacity
    | Transfer
    | Fence
    | Seal
)


class Event(NamedTuple):
    """One mutation."""

    origin: ReplicaId
    seq: int
    time: HybridTime
    body: Body
