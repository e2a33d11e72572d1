"""What nodes say to each other: typed, frozen, versioned. The codec is in `codec`.

Every message travels in an envelope [wire, kind, cluster, name, replica, incarnation, body].
Events travel as packed bytes inside runs: they are decoded one by one by whoever lacks them, and
passed on exactly as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from parkingd.core.causal import Part
from parkingd.core.gates import Fence
from parkingd.core.ids import Dot, HybridTime, ReplicaId

WIRE_VERSION: Final = 1

REFUSED_NAME_TAKEN: Final = "name_taken"
REFUSED_PROTOCOL_VERSION: Final = "protocol_version"
REFUSED_OTHER_CLUSTER: Final = "other_cluster"
REFUSED_FENCED: Final = "fenced"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a ROUTER listens. IPv6 without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        """host:port, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Route(NamedTuple):
    """A peer's connection at our own ROUTER: the way back for an answer."""

    id: bytes
    host: str
    """The address the connection came from."""


class Sender(NamedTuple):
    """Who sent a message, as its envelope claims, and which way it came."""

    name: str
    replica: ReplicaId
    incarnation: int
    link: Address | Route | None
    """Address: an answer on our DEALER; Route: a request at our ROUTER; None: heard on SUB."""


ContextWire: TypeAlias = tuple[Part, ...]
"""A causal context on the wire, ascending by origin: what `CausalContext.parts` gives."""


class Run(NamedTuple):
    """Consecutive events of one origin, packed: seq ``first``, ``first + 1``, ..."""

    origin: ReplicaId
    first: int
    events: tuple[bytes, ...]

    @property
    def last(self) -> int:
        """The seq of the last event."""
        return self.first + len(self.events) - 1


class Hello(NamedTuple):
    """First on every new link, and the answer to one (``answer``)."""

    answer: bool
    lot: bytes | None
    port: int
    """ROUTER port of the sender."""
    pub_port: int
    wall_ms: int
    context: ContextWire
    ephemeral: bool
    version: str
    """Software version, for people."""
    founded: bool
    """The founding of ``lot`` is here; without it the sender only waits for that lot's record."""
    peers: tuple[Address, ...]
    """Where the sender reaches its live members: one known peer is enough to find them all."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer to a hello that cannot be accepted."""

    reason: str
    detail: str
    held: ContextWire = ()
    """Of who was let go: what is on the sender's disk, of a sealed replica what exists."""


def let_go(replica: ReplicaId, held: ContextWire) -> Refused:
    """The refusal of a replica that was forgotten; it names whom it is for, as it may come late."""
    return Refused(REFUSED_FENCED, f"{replica:016x}", held)


class Suspicion(NamedTuple):
    """I have not heard this member for a while, or I have seen that nobody listens there."""

    name: str
    incarnation: int
    refutation: int
    refused: bool = False
    """Its machine has just refused a connection: no process listens at its address."""


class Heartbeat(NamedTuple):
    """Four times a second, from the loop that serves the gates."""

    beat: int
    """Counts up from 1 within an incarnation."""
    head: int
    """Own highest durable seq."""
    wall_ms: int
    refutation: int = 0
    leaving: bool = False
    suspicions: tuple[Suspicion, ...] = ()
    gates: tuple[tuple[int, int], ...] | None = None
    """(gate, epoch) of every gate the sender serves, ascending. None: it cannot serve any yet (it
    has not exchanged with a member), or any more (its disk fails, another holds its name)."""
    contested: tuple[tuple[int, str], ...] = ()
    """(gate, who else served it) of every gate that the sender served while another did, for some
    seconds after it has noticed."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """I have left; ``final_seq`` is my last."""

    final_seq: int


class Delta(NamedTuple):
    """Events. On PUB: the sender's own, in order. On DEALER: what the peer lacked."""

    runs: tuple[Run, ...]


class Pull(NamedTuple):
    """Anti-entropy: this is what I hold, send me the rest and tell me what you hold."""

    nonce: int
    lot: bytes
    context: ContextWire
    durable: ContextWire | None
    """What of that is on my disk; None: all of it."""
    root: bytes | None
    """Root of my resolved state; None while it holds events that ``context`` does not name."""


class PullReply(NamedTuple):
    """What the puller lacks, contiguous per origin, oldest first, and what the sender holds."""

    nonce: int
    lot: bytes
    runs: tuple[Run, ...]
    more: bool
    """There was more than fits: pull again."""
    behind: bool
    """The puller lacks events that have left my log: ask for a snapshot."""
    context: ContextWire
    durable: ContextWire | None
    root: bytes | None


class Want(NamedTuple):
    """Gap request: send me these, inclusive."""

    spans: tuple[tuple[ReplicaId, int, int], ...]


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """Send me everything. ``join_seq``: the sender must hold my events up to here first."""

    nonce: int
    lot: bytes
    join_seq: int


@dataclass(frozen=True, slots=True)
class Register:
    """A setting with its stamp."""

    key: str
    value: int | str
    time: HybridTime
    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """The frozen context and everything small."""

    nonce: int
    lot: bytes
    context: ContextWire
    early: tuple[Dot, ...]
    hybrid_high: HybridTime
    small: tuple[bytes, ...]
    """Packed events from which the lot, the registers, the joins, the greatest claims, the
    capacity, the transfers, the fences and the seals follow; each with its dot in front."""
    records: int
    """How many records the chunks will carry."""


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """Records (stays and marks) or remembered requests, packed by `core.stays`."""

    nonce: int
    index: int
    """From 0."""
    records: bytes


@dataclass(frozen=True, slots=True)
class SnapshotAck:
    """The chunks up to ``index`` have been taken: send on."""

    nonce: int
    index: int


@dataclass(frozen=True, slots=True)
class SnapshotTrailer:
    """The end: what the receiver must have counted, and the root of the frozen state."""

    nonce: int
    chunks: int
    records: int
    root: bytes


@dataclass(frozen=True, slots=True)
class SnapshotAbort:
    """The snapshot of this nonce ends here; its receiver forgets what it staged."""

    nonce: int
    reason: str


@dataclass(frozen=True, slots=True)
class RootQuery:
    """What is the root of your resolved state?"""

    nonce: int


@dataclass(frozen=True, slots=True)
class RootAnswer:
    """``context`` is what the root covers."""

    nonce: int
    root: bytes
    context: ContextWire


class FenceReport(NamedTuple):
    """I hold the fence of this replica, and this much of its events, and will take no more but of
    those who report as well."""

    held: Part
    waited: tuple[ReplicaId, ...]
    """Every replica I have heard of but those let go. They must report as well."""
    gone: tuple[ReplicaId, ...]
    """Every replica whose fence or seal I hold: I take nothing of theirs any more."""


@dataclass(frozen=True, slots=True)
class EnterAsk:
    """A car stands at a gate that you serve, as far as I know: decide about it.

    ``epoch`` and ``owner`` are what the sender believes. It is never passed on a second time.
    """

    nonce: int
    plate: str
    """As it was typed."""
    gate: int
    request: bytes
    epoch: int
    owner: str
    remaining_ms: int
    """How long the sender still waits for the answer."""
    seen: Fence | None = None
    """The highest fence that the barrier has seen, if it has refused the one it was shown."""


@dataclass(frozen=True, slots=True)
class EnterAnswer:
    """What the owner decided, or who it thinks the owner is."""

    nonce: int
    answer: str
    """``admitted``, ``denied``, ``not_owner``, or ``failed``."""
    reason: str
    """The reason of the decision; when ``failed`` the error code."""
    epoch: int
    owner: str
    """Empty: nobody is known."""
    incarnation: int
    """Of the owner's claim: with gate, epoch and owner it makes the fence."""
    free: int
    """Spaces left in the sender's replica."""
    detail: str = ""
    """When ``failed``: the error in words."""
    hint: str = ""
    warnings: tuple[str, ...] = ()


Message: TypeAlias = (
    Hello
    | Refused
    | Heartbeat
    | Goodbye
    | Delta
    | Pull
    | PullReply
    | Want
    | SnapshotRequest
    | SnapshotHeader
    | SnapshotChunk
    | SnapshotAck
    | SnapshotTrailer
    | SnapshotAbort
    | RootQuery
    | RootAnswer
    | FenceReport
    | EnterAsk
    | EnterAnswer
)
