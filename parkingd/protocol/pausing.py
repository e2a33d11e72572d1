"""The own pauses: what a node does that stood still, as under SIGSTOP or on a machine asleep.

A short one only makes it judge nobody for a moment (`membership`). After one so long that others
may serve its gates it stops serving, and goes on when an exchange has told what happened meanwhile.
Overdue timers and full sockets come in any order: whichever verb is the first notices.
"""

from __future__ import annotations

from collections.abc import Callable

from parkingd.core.ids import Now
from parkingd.protocol.effects import Level
from parkingd.protocol.gates import Gates
from parkingd.protocol.membership import Membership
from parkingd.protocol.replication import Replication
from parkingd.protocol.shared import Shared


class Pausing:
    """One per node."""

    def __init__(
        self,
        shared: Shared,
        membership: Membership,
        gates: Gates,
        replication: Replication,
        *,
        flush: Callable[[], None],
    ) -> None:
        """``flush``: exchange with every member soon."""
        self._shared = shared
        self._membership = membership
        self._gates = gates
        self._replication = replication
        self._flush = flush
        self._exchanges_at_stop = 0
        self._woke_ms = 0

    def stood_still(self, gap_ms: int, now: Now) -> bool:
        """No verb was called for so long, longer than `pause_guard_ms`. To be told before anything
        else is done. True if it was so long that this node stops serving gates."""
        self._membership.stood_still(now)
        self._gates.unsettle(now)
        if gap_ms <= self._shared.settings.pause_stop_ms:
            return False
        self._shared.outbox.notice(Level.WARNING, "paused", ms=gap_ms)
        self._gates.stop()
        self._replication.forget_pulls()
        self._exchanges_at_stop = self._replication.full_exchanges
        self._woke_ms = now.mono_ms
        self._flush()
        return True

    def resume(self, now: Now) -> None:
        """After a long pause: an exchange has told what happened, or all others are dead to us, and
        what is in the sockets has been read: it may say that they are back. To fall silent is not
        enough: it may be we who are cut off, and they serve our gates."""
        if not self._gates.is_stopped:
            return
        has_read = now.mono_ms - self._woke_ms >= self._shared.settings.pause_quiet_ms
        is_alone = has_read and not self._gates.is_accompanied()
        if is_alone or self._replication.full_exchanges > self._exchanges_at_stop:
            self._gates.resume(now)
