"""What has to happen after a verb of the node, as data, in the order in which it must happen.

(1) persist, (2) publish and send, (3) reply, (4) notify. The order is the durability design: the
node names nothing of its own in (2) and (3) before `Persisted` has covered it, so an executor
that keeps the order, and may crash between any two steps, breaks no promise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from parkingd.core.ids import Dot, ReplicaId
from parkingd.protocol.messages import Address, Message, Route, Run
from parkingd.protocol.outcomes import Outcome

Detail: TypeAlias = tuple[tuple[str, str | int | tuple[str, ...] | None], ...]
"""What else an occurrence of its type needs, as (name, value)."""


class Occurrence(NamedTuple):
    """One line of the journal and of the event stream (see `journal`)."""

    seq: int
    """Counts up from 1 on this node, over restarts."""
    at_ms: int
    """Wall milliseconds: when the event was made, else when this node noticed."""
    type: str
    plate: str | None = None
    gate: int | None = None
    member: str | None = None
    """The node that recorded it, or that it is about."""
    replica: ReplicaId | None = None
    """Of that node."""
    event: int | None = None
    """The seq of the replicated event that it tells of, minted by ``replica``."""
    reason: str | None = None
    request: bytes | None = None
    detail: Detail = ()


class Persist(NamedTuple):
    """One atomic change of the disk. Batches are committed first in, first out, never reordered.

    Applied in field order: first ``wipe``, last ``meta``.
    """

    wipe: bool = False
    """Forget all runs, records and requests first; meta values and pending stays are kept."""
    open_ended: bool = False
    """More parts of the same transaction follow: commit with the first batch that is not."""
    runs: tuple[Run, ...] = ()
    """Events for the log."""
    floors: tuple[tuple[ReplicaId, int], ...] = ()
    """The log of this origin may forget everything up to and with this seq."""
    records: tuple[tuple[ReplicaId, int, bytes], ...] = ()
    """Stays and marks to keep, packed, by dot."""
    dropped: tuple[Dot, ...] = ()
    """Records to forget; a dot that is not there is fine."""
    requests: tuple[tuple[bytes, bytes], ...] = ()
    """Remembered effects of requests, packed, by request id."""
    expired: tuple[bytes, ...] = ()
    """Request ids to forget."""
    journal: tuple[Occurrence, ...] = ()
    """Lines for the journal, ascending by seq; ``wipe`` does not touch them."""
    journal_before: int | None = None
    """Lines of the journal from before this time (wall milliseconds) are to be forgotten, soon:
    so many at a time that no commit is long."""
    pending_done: tuple[int, ...] = ()
    """Numbers of pending stays (see `StoredState.pending`) that have now been recorded anew."""
    meta: tuple[tuple[str, bytes], ...] = ()
    """Small values by key: context, hybrid high, small state; each replaces the earlier one."""
    own_seq: int = 0
    """Own head once this is on disk; echoed in `facts.Persisted`."""
    token: int = 0
    """Echoed in `facts.Persisted`: counts the batches of this node from 1."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """What a store hands to a new node: exactly what the committed `Persist` batches say."""

    replica: ReplicaId
    incarnation: int
    """Of this start: greater than any earlier one, already on disk."""
    fresh: bool
    """Nothing was stored: a new data directory."""
    runs: tuple[Run, ...] = ()
    """By origin, then seq; runs may be split anywhere but do not overlap."""
    records: tuple[tuple[ReplicaId, int, bytes], ...] = ()
    requests: tuple[tuple[bytes, bytes], ...] = ()
    meta: dict[str, bytes] = field(default_factory=dict)
    pending: tuple[tuple[int, bytes], ...] = ()
    """Stays (packed records, numbered) of a younger lot, to be recorded anew in this one."""
    journal_seq: int = 0
    """The greatest number ever used in the journal."""
    journal: str = ""
    """16 hex digits that name the journal: one of another name has given its numbers anew."""
    warnings: tuple[str, ...] = ()
    """What the store noticed: a new replica id and why, a slow disk, an old SQLite."""


class Publish(NamedTuple):
    """To every subscriber, at most once."""

    message: Message


class Send(NamedTuple):
    """A request or an answer to one peer, at most once: by DEALER, or back along a route."""

    to: Address | Route
    message: Message


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Hear what this peer publishes. Repeating it does nothing."""

    host: str
    pub_port: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the DEALER to ``address`` and the subscription, where there are any."""

    address: Address
    pub_port: int | None


@dataclass(frozen=True, slots=True)
class Probe:
    """Try one TCP connection to ``address``: a refusal comes back as `facts.ConnectionFailed`."""

    address: Address


Outgoing: TypeAlias = Publish | Send | Subscribe | Disconnect | Probe


class Reply(NamedTuple):
    """The answer to the command that was submitted under this handle."""

    handle: int
    outcome: Outcome
    last: bool = True
    """False: more pages of the same answer follow."""


class Level(Enum):
    """How loud a notice is."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened, for the log: an event name and its values. Plates are masked
    by whoever writes them."""

    level: Level
    event: str
    values: tuple[tuple[str, object], ...] = ()


class StartOverReason(Enum):
    """Why this node must end and another begin on the same machine."""

    DOTS_SEEN_ELSEWHERE = "peers hold later events of this replica than its disk"
    REPLICA_TWICE = "another machine runs with this replica id"
    ORPHANED = "nobody has the record of the lot that it joined"
    OLDER_LOT = "an older lot was met"
    FENCED = "this replica was let go while it was away"


@dataclass(frozen=True, slots=True)
class StartOver:
    """Close this node and make a new one, with a new replica id, on the same data directory.

    ``keep``: the stored state stays as it is, only the id is new. Otherwise the database is set
    aside, and ``pending`` becomes `StoredState.pending` of the new one, in the transaction that
    creates it. ``review``: packed stays that only this node has, for an operator to judge.
    """

    reason: StartOverReason
    keep: bool
    pending: tuple[bytes, ...] = ()
    review: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """The daemon must end: it has left, or it may not run (``error``, exit status 2)."""

    error: str | None = None
    hint: str = ""


class Effects(NamedTuple):
    """Everything one verb asked for. Execute in field order."""

    persist: tuple[Persist, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()
    replies: tuple[Reply, ...] = ()
    notices: tuple[Notice, ...] = ()
    occurrences: tuple[Occurrence, ...] = ()
    """For those who watch: all of it is on disk."""
    end: StartOver | Stop | None = None
