"""The membership table: peers with whom a hello succeeded, and when they were last heard.

Identity is (name, incarnation), never an address. Here a member is alive while something of it
arrives, and dead after `silent_after_ms` without; `judge` is the one place where that is decided,
so that suspicion and confirmation can take it over without a change elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from parkingd.core.ids import Now, ReplicaId
from parkingd.protocol.messages import Address, Sender
from parkingd.protocol.settings import NodeSettings

CLOCK_LOWER_AFTER_MS: Final = 3_000


class MemberState(Enum):
    """SWIM member states."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


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
    state: MemberState = MemberState.ALIVE
    beat: int = 0
    head: int = 0
    """Highest seq it says it has on disk."""
    rtt_ms: float | None = None
    root: bytes | None = None
    leaving: bool = False
    final_seq: int | None = None
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
            self._lower_offset_ms = max(self._lower_offset_ms, offset_ms)
            if now.mono_ms - self._lower_since_ms >= CLOCK_LOWER_AFTER_MS:
                self.clock_offset_ms, self._lower_since_ms = self._lower_offset_ms, None


class Members:
    """By name, in the order of names; the own node is not in it."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._members: dict[str, Member] = {}

    def get(self, name: str) -> Member | None:
        """The member of this name, in whatever state."""
        return self._members.get(name)

    def put(self, member: Member) -> None:
        """Add a member, or replace one of the same name."""
        self._members[member.name] = member
        self._members = {name: self._members[name] for name in sorted(self._members)}

    def all(self) -> list[Member]:
        """Every member ever met in this run, by name."""
        return list(self._members.values())

    def alive(self) -> list[Member]:
        """Members in state alive, by name."""
        return [m for m in self._members.values() if m.state is MemberState.ALIVE]

    def of_replica(self, replica: ReplicaId) -> Member | None:
        """The member that mints under this id."""
        return next((m for m in self._members.values() if m.replica == replica), None)

    def hear(self, sender: Sender, now: Now) -> Member | None:
        """Something arrived: the member it came from, or None if it is no (longer a) member.

        A message of an earlier incarnation, or of one that left, revives nobody.
        """
        member = self._members.get(sender.name)
        if (
            member is None
            or member.incarnation != sender.incarnation
            or member.replica != sender.replica
            or member.state is MemberState.LEFT
        ):
            return None
        member.last_heard_ms = now.mono_ms
        return member

    def judge(self, now: Now) -> Iterator[tuple[Member, MemberState]]:
        """Apply the clock to everybody; yields each member whose state changed, and the old one."""
        limit = now.mono_ms - self._settings.silent_after_ms
        for member in self.all():
            if member.state is MemberState.LEFT:
                continue
            state = MemberState.ALIVE if member.last_heard_ms >= limit else MemberState.DEAD
            if state is not member.state:
                before, member.state = member.state, state
                yield member, before

    def next_judgement_ms(self) -> int | None:
        """When the next member falls silent, in monotonic milliseconds."""
        heard = [m.last_heard_ms for m in self._members.values() if m.state is MemberState.ALIVE]
        return min(heard) + self._settings.silent_after_ms + 1 if heard else None
