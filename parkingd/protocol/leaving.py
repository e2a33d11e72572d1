"""Leaving in good order: release the gates, make the own head safe elsewhere, say goodbye.

Bounded: `leave_wait_ms` for the gates to be accepted and for a member's disk to cover the own head,
and no wait at all when alone.
An ephemeral node seals itself when its gates are handed over, as nothing of it will come back.
"""

from __future__ import annotations

from parkingd.core.events import Seal
from parkingd.core.ids import Now
from parkingd.protocol.effects import Level, Stop
from parkingd.protocol.gates import Gates
from parkingd.protocol.messages import Goodbye
from parkingd.protocol.outcomes import Left
from parkingd.protocol.replication import Replication
from parkingd.protocol.shared import Shared

PULL_AGAIN_MS = 150


class Leaving:
    """The way out."""

    def __init__(self, shared: Shared, replication: Replication, gates: Gates) -> None:
        self._shared = shared
        self._gates = gates
        self._replication = replication
        self._handles: list[int] = []
        self._deadline_ms: int | None = None
        self._pull_ms = 0
        self._may_seal = False
        self._seal_ms = 0

    @property
    def is_leaving(self) -> bool:
        """No more writes are taken."""
        return self._deadline_ms is not None

    def begin(self, handle: int | None, now: Now, *, may_mint: bool) -> None:
        """Start, or note one more who waits for it."""
        shared = self._shared
        if handle is not None:
            self._handles.append(handle)
        if self._deadline_ms is not None:
            return
        self._deadline_ms = now.mono_ms + shared.settings.leave_wait_ms
        shared.outbox.notice(Level.INFO, "leaving")
        if may_mint and not shared.replica.failing:
            self._gates.leave(now)
        self._may_seal = shared.settings.ephemeral and may_mint
        self._seal_ms = now.mono_ms + shared.settings.release_timeout_ms

    def tick(self, now: Now) -> None:
        """Leave when the head is safe, or when the time is up."""
        if self._deadline_ms is None:
            return
        shared = self._shared
        replica = shared.replica
        if self._may_seal and (self._gates.is_drained(now) or now.mono_ms >= self._seal_ms):
            self._may_seal = False
            seal = Seal(replica.id, replica.own_seq + 1, ())
            replica.mint(seal, shared.physical_ms(now))
        safe_with = None
        peers = shared.peers_in_lot()
        for member in peers:
            row = replica.state.roster.durable.get(member.replica, {})
            if row.get(replica.id, 0) >= replica.own_seq:
                safe_with = member.name
        settled = replica.durable_seq >= replica.own_seq or replica.failing
        is_drained = not self._may_seal and self._gates.is_drained(now)
        is_safe = settled and is_drained and (safe_with is not None or not peers)
        if is_safe or now.mono_ms >= self._deadline_ms:
            self._go(safe_with)
        elif now.mono_ms >= self._pull_ms:
            self._pull_ms = now.mono_ms + PULL_AGAIN_MS
            for member in peers:
                self._replication.pull(member, now)

    def _go(self, safe_with: str | None) -> None:
        shared = self._shared
        self.say_goodbye()
        for handle in self._handles:
            shared.outbox.reply(handle, Left(shared.replica.durable_seq, safe_with))
        self._handles.clear()
        shared.outbox.notice(Level.INFO, "left", safe_with=safe_with)
        if shared.outbox.end is None:
            shared.outbox.end = Stop()

    def say_goodbye(self) -> None:
        """Tell everybody that this incarnation is over."""
        shared = self._shared
        goodbye = Goodbye(shared.replica.durable_seq)
        shared.outbox.publish(goodbye)
        for member in shared.members.alive():
            shared.outbox.send(member.address, goodbye)

    def next_deadline(self, now_ms: int) -> int | None:
        """When to look again."""
        if self._deadline_ms is None:
            return None
        return min(self._deadline_ms, self._pull_ms)
