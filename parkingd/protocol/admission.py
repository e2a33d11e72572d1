"""Whether a car may come in: the decision of a gate's owner in the mode `local`.

The owner admits while its replica shows a free space and the plate is not inside (DESIGN section
7). Several owners decide at the same time, each without the others' last admissions. To be wrong
by at most one car an owner, an owner keeps count of those admissions of its own that some other
owner may not have heard of: as long as these are at most its share of the free spaces, all owners
together cannot fill more than there are; with fewer spaces than owners each may be one ahead. Who
wants to admit more asks the others what they hold, and waits a moment for the answer. An owner
that does not answer, because it is frozen or cut off, is left out: then, as in a partition, the
lot may be overbooked, and that shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from parkingd.core.ids import Now
from parkingd.protocol.members import Member
from parkingd.protocol.shared import Shared

ASK_PAUSE_MS = 15
"""Between two questions to the same owner: its answer may have crossed our last admission."""


class Admission:
    """The room that one node may give away."""

    def __init__(
        self,
        shared: Shared,
        ask: Callable[[Member, Now], None],
        claimants: Callable[[], set[str]],
    ) -> None:
        """``ask`` starts an exchange with a member: it brings what it holds, and what we lack.
        ``claimants``: who has a gate, or is about to get one, by the claims."""
        self._shared = shared
        self._ask = ask
        self._claimants = claimants
        self._unheard: deque[int] = deque()
        """Own seqs of admissions that some other owner may not hold."""
        self._blocked_ms: int | None = None
        self._asked_ms = 0

    @property
    def free(self) -> int:
        """Spaces left in this replica; negative when overbooked."""
        state = self._shared.replica.state
        return state.record.spaces - state.stays.visible_count

    def may_admit(self, now: Now) -> bool:
        """Whether one more car may be admitted now; else ask again soon. There must be room."""
        others = self._other_owners(now)
        self._forget_heard(others)
        share = (self.free + len(self._unheard)) // (1 + len(others))
        if len(self._unheard) < max(1, share):
            self._blocked_ms = None
            return True
        if self._blocked_ms is None:
            self._blocked_ms = now.mono_ms
        return False

    def admitted(self, seq: int) -> None:
        """One more was admitted with this own event."""
        self._unheard.append(seq)

    def _other_owners(self, now: Now) -> list[Member]:
        settings = self._shared.settings
        is_late = (
            self._blocked_ms is not None and now.mono_ms - self._blocked_ms >= settings.owner_ack_ms
        )
        claimants = self._claimants()
        return [
            m
            for m in self._shared.peers_in_lot()
            if (m.gates or m.name in claimants) and not (is_late and self._is_unheard_by(m))
        ]

    def _is_unheard_by(self, member: Member) -> bool:
        return bool(self._unheard) and member.holds_own_seq < self._unheard[0]

    def _forget_heard(self, others: list[Member]) -> None:
        for member in others:
            self._believe(member)
        heard = min((m.holds_own_seq for m in others), default=None)
        while self._unheard and (heard is None or self._unheard[0] <= heard):
            self._unheard.popleft()

    def _believe(self, member: Member) -> None:
        """That it holds ours counts only with what it had admitted itself by then: else each could
        hear from the others that they have heard, and none would know how full the lot is."""
        held, head = member.says_held
        if self._shared.replica.state.context.upto(member.replica) >= head:
            member.holds_own_seq = max(member.holds_own_seq, held)

    def tick(self, now: Now) -> None:
        """Somebody waits for room: ask the owners that may not have heard of ours."""
        if self._blocked_ms is None or now.mono_ms - self._asked_ms < ASK_PAUSE_MS:
            return
        replica = self._shared.replica
        if replica.durable_seq < replica.own_seq:
            return  # They cannot have heard of it before it is on our disk.
        self._asked_ms = now.mono_ms
        for member in self._other_owners(now):
            if self._is_unheard_by(member):
                self._ask(member, now)

    def nobody_waits(self) -> None:
        """No car waits for room any more."""
        self._blocked_ms = None
