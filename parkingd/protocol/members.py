"""The membership table: peers with whom a hello succeeded, and what is known of each.

Identity is (name, incarnation), never an address. The table only keeps; `membership` judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from parkingd.core.ids import Now, ReplicaId
from parkingd.protocol.messages import Address, Sender, Suspicion

CLOCK_LOWER_AFTER_MS: Final = 3_000


class MemberState(Enum):
    """SWIM member states."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


ALIVE: Final = MemberState.ALIVE
SUSPECT: Final = MemberState.SUSPECT
DEAD: Final = MemberState.DEAD
LEFT: Final = MemberState.LEFT
"""Each by itself: a look at an enum costs ten times one at a global, and these are looked at for
every member in every heartbeat."""

GONE: Final = (DEAD, LEFT)
"""Of whom nothing is expected any more."""


@dataclass(slots=True)
class Member:
    """One peer as this node sees it."""

    name: str
    replica: ReplicaId
    incarnation: int
    address: Address
    pub_port: int
    version: str
    lot: bytes | None
    ephemeral: bool
    last_heard_ms: int
    """Own monotonic milliseconds."""
    clock_offset_ms: int
    """Its wall clock less the own monotonic clock, as `hear_clock` judges it."""
    state: MemberState = ALIVE
    beat: int = 0
    head: int = 0
    """Highest seq it says it has on disk."""
    rtt_ms: float | None = None
    root: bytes | None = None
    leaving: bool = False
    final_seq: int | None = None
    refutation: int = 0
    """The highest that it, or anybody who suspects it, has named."""
    replaced: frozenset[int] = frozenset()
    """Incarnations of other disks in whose place this name was admitted here: they may be greater
    than its own, where a clock was put back and a disk lost."""
    synced_ms: int | None = None
    """Own monotonic milliseconds at which everything that it had was here; None: not yet."""
    alive_since_ms: int = 0
    """Own monotonic milliseconds at which it was last found alive."""
    gates: tuple[tuple[int, int], ...] | None = None
    """(gate, epoch) it says it serves; None while it cannot serve any."""
    holds_own_seq: int = 0
    """The highest of our own events that it is known to hold, on disk or not, while we hold all
    that it had made itself by then."""
    says_held: tuple[int, int] = (0, 0)
    """Its last word: (own seq it holds, its own head at that time)."""
    beat_ms: int = 0
    """Own monotonic milliseconds at which its last heartbeat arrived."""
    lost_beat: int | None = None
    """Its last heartbeat before it was taken for dead; None once that is explained."""
    lost_ms: int = 0
    """When that heartbeat arrived."""
    accuses: dict[tuple[str, int], Suspicion] = field(default_factory=dict)
    """Whom its last heartbeat suspects, by name and incarnation."""
    accused_ms: dict[tuple[str, int], int] = field(default_factory=dict)
    """Since when it says so of each of them."""
    refused_ms: int | None = None
    """When its machine refused a connection, and nothing of it was heard since."""
    probed_ms: int | None = None
    _lower_since_ms: int | None = None
    _lower_offset_ms: int = 0

    def hear_clock(self, wall_ms: int, now: Now) -> None:
        """It says that its wall clock is this. A message can be late, never early.

        So a greater offset is believed at once, and a smaller one only after nothing greater was
        heard for `CLOCK_LOWER_AFTER_MS`: a node that was paused finds a minute of old heartbeats
        in its sockets, and must not take itself for the one whose clock is wrong.
        """
        offset_ms = wall_ms - now.mono_ms
        if offset_ms >= self.clock_offset_ms:
            self.clock_offset_ms, self._lower_since_ms = offset_ms, None
        elif self._lower_since_ms is None:
            self._lower_since_ms, self._lower_offset_ms = now.mono_ms, offset_ms
        else:
            if offset_ms > self._lower_offset_ms:
                self._lower_offset_ms = offset_ms
            if now.mono_ms - self._lower_since_ms >= CLOCK_LOWER_AFTER_MS:
                self.clock_offset_ms, self._lower_since_ms = self._lower_offset_ms, None


class Members:
    """By name, in the order of names; the own node is not in it."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._all: tuple[Member, ...] = ()

    def get(self, name: str) -> Member | None:
        """The member of this name, in whatever state."""
        return self._members.get(name)

    def put(self, member: Member) -> None:
        """Add a member, or replace one of the same name."""
        self._members[member.name] = member
        self._members = {name: self._members[name] for name in sorted(self._members)}
        self._all = tuple(self._members.values())

    def all(self) -> tuple[Member, ...]:
        """Every member ever met in this run, by name."""
        return self._all

    def alive(self) -> list[Member]:
        """Members in state alive, by name."""
        return [m for m in self._all if m.state is ALIVE]

    def of_replica(self, replica: ReplicaId) -> Member | None:
        """The member that mints under this id."""
        return next((m for m in self._members.values() if m.replica == replica), None)

    def at(self, address: Address) -> Member | None:
        """The member that listens there: an address may be used by one after another."""
        there = (m for m in self._members.values() if m.address == address)
        return max(there, key=lambda m: m.last_heard_ms, default=None)

    def hear(self, sender: Sender, now: Now) -> Member | None:
        """Something arrived: the member it came from, or None if it is no (longer a) member.

        A message of an earlier incarnation, or of one that left, revives nobody.
        """
        member = self._members.get(sender.name)
        if (
            member is None
            or member.incarnation != sender.incarnation
            or member.replica != sender.replica
            or member.state is LEFT
        ):
            return None
        member.last_heard_ms = now.mono_ms
        return member
