"""The own heartbeats: numbered from 1 in each incarnation, four a second, sooner when there is
something to say. They come from the loop that serves the gates: who serves no gate does not beat.
"""

from __future__ import annotations

from parkingd.core.ids import Now
from parkingd.protocol.claims import Claims
from parkingd.protocol.gates import Gates
from parkingd.protocol.leaving import Leaving
from parkingd.protocol.membership import Membership
from parkingd.protocol.messages import Heartbeat
from parkingd.protocol.shared import Shared


class Pulse:
    """One per node."""

    def __init__(
        self,
        shared: Shared,
        membership: Membership,
        claims: Claims,
        gates: Gates,
        leaving: Leaving,
        now: Now,
    ) -> None:
        self._shared = shared
        self._membership = membership
        self._claims = claims
        self._gates = gates
        self._leaving = leaving
        self._beat = 0
        self._next_ms = now.mono_ms

    def tick(self, now: Now) -> None:
        """Publish a heartbeat if it is time for one."""
        membership = self._membership
        if now.mono_ms < self._next_ms and not membership.beat_wanted:
            return
        shared, settings = self._shared, self._shared.settings
        jitter = shared.rng.uniform(1 - settings.heartbeat_jitter, 1 + settings.heartbeat_jitter)
        self._next_ms = now.mono_ms + round(settings.heartbeat_ms * jitter)
        membership.beat_wanted = False
        self._beat += 1
        shared.outbox.publish(
            Heartbeat(
                self._beat,
                shared.replica.durable_seq if shared.lot is not None else 0,
                now.wall_ms,
                membership.refutation,
                self._leaving.is_leaving,
                membership.suspicions(now),
                self._gates.named(now),
                self._claims.disputes.told(now),
            )
        )

    def next_deadline(self, now_ms: int) -> int:
        """When the next one is due, monotonic milliseconds."""
        return now_ms if self._membership.beat_wanted else self._next_ms
