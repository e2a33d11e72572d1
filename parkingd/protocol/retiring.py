"""Whose ids nobody need wait for any more: found by looking, let go by `forgetting`.

Every node finishes with its own earlier ids. What nobody else follows up is done by the living
replica with the lowest id, which the members of a shared view agree on without a word: ids whose
fence was left without a seal (who asked for it was refused, or is gone), seals whose events are
lost, and ephemeral members that died long ago.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from parkingd.core.ids import Now, ReplicaId
from parkingd.protocol.forgetting import Fences
from parkingd.protocol.members import ALIVE
from parkingd.protocol.shared import Shared

RETIRING_MS: Final = 5_000
"""How often letting go of an id is tried again."""


class Retiring:
    """One per node."""

    def __init__(
        self,
        shared: Shared,
        fences: Fences,
        may_let_go: Callable[[Now], bool],
        *,
        retired: tuple[ReplicaId, ...],
        orphaned: tuple[ReplicaId, ...],
        now: Now,
    ) -> None:
        """``retired``: ids that this very process has given up. ``orphaned``: of these, whom others
        may wait for though nothing of theirs is known here. ``may_let_go``: own events may be
        made, and the node is not on its way out."""
        self._shared = shared
        self._fences = fences
        self._may_let_go = may_let_go
        self._retired, self._orphaned = retired, orphaned
        self._next_ms = now.mono_ms

    def tick(self, now: Now) -> None:
        """Let go of what is this node's to let go, every `RETIRING_MS`."""
        if now.mono_ms < self._next_ms or not self._may_let_go(now):
            return
        self._next_ms = now.mono_ms + RETIRING_MS
        ids = set(self._retired)
        if self._is_lowest_alive():
            ids.update(self._shared.replica.state.fenced_replicas())
            self._fences.mend_seals(now)
        if ids:
            self._fences.retire(tuple(sorted(ids)), now, unheard=self._orphaned)

    def forget_ephemeral(self, now: Now) -> None:
        """An ephemeral member that died long ago never comes back."""
        if not self._is_lowest_alive() or not self._may_let_go(now):
            return
        shared = self._shared
        limit = now.mono_ms - shared.settings.ephemeral_forget_ms
        for member in shared.members.all():
            record = shared.replica.state.record
            if (
                member.ephemeral
                and member.state is not ALIVE
                and member.last_heard_ms < limit
                and member.replica not in record.seals
                and member.replica not in record.fences
                and member.replica in record.names
            ):
                self._fences.forget(None, member.name, now)

    def _is_lowest_alive(self) -> bool:
        own = self._shared.replica_id
        return all(own < member.replica for member in self._shared.peers_in_lot())
