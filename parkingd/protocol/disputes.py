"""Gates that two nodes served at once: noticed, told to the others, remembered for a while.

Nobody sees every dispute by himself. Each node notices what it can know for sure (`gates`): it
served a gate and meets a greater claim; it hears two that serve one; or one is back that ran while
its gate was claimed. A third node may see none of that: it never lost the one, and knows the other
only by its claims. So each of the two tells the others, in its heartbeats of the next
`TELL_MS`, and who hears of it does not pass it on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from parkingd.core.ids import Now
from parkingd.protocol.limits import DISPUTES_MAX
from parkingd.protocol.shared import Shared

MEMORY_MS: Final = 3_600_000
"""How long a status tells that two nodes served a gate at once."""
TELL_MS: Final = 10_000
"""How long heartbeats name a dispute that this node has noticed: links come back within seconds of
each other. Half: who was connected late may miss it."""
AGAIN_MS: Final = 30_000
"""Seen again after this long it is another dispute: the journal has one line for each. Three times
`TELL_MS`, so that who hears of it late does not take it for the next one."""


@dataclass(slots=True)
class Dispute:
    """One gate, and who had it at once."""

    names: frozenset[str]
    seen_ms: int
    """When it was last noticed, or heard of."""
    noticed_ms: int | None = None
    """When this node itself last noticed it; None: others told."""


class Disputes:
    """What one node knows of them."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._disputes: dict[int, Dispute] = {}
        self._turn = 0

    def notice(self, gate: int, names: Collection[str], now: Now) -> None:
        """This node sees that these serve the gate, or did a moment ago."""
        self._note(gate, names, now).noticed_ms = now.mono_ms

    def hear(self, teller: str, told: Collection[tuple[int, str]], now: Now) -> None:
        """A member says of these gates that it had them, and the other one named did too."""
        for gate, other in told:
            self._note(gate, (teller, other), now)

    def _note(self, gate: int, names: Collection[str], now: Now) -> Dispute:
        dispute = self._disputes.get(gate)
        if dispute is None:
            self._shared.counters["gates_contested"] += 1
        if dispute is not None and now.mono_ms - dispute.seen_ms < AGAIN_MS:
            if not dispute.names.issuperset(names):
                dispute.names = dispute.names.union(names)
            dispute.seen_ms = now.mono_ms
            return dispute
        detail = (("claims", tuple(sorted(names))),)
        self._shared.journal.note("gate_contested", now, gate=gate, detail=detail)
        self._disputes[gate] = Dispute(frozenset(names), now.mono_ms)
        return self._disputes[gate]

    def told(self, now: Now) -> tuple[tuple[int, str], ...]:
        """For the heartbeat: (gate, who else had it) of those that this node had. Of more than fit
        each gets its turn."""
        if not self._disputes:
            return ()
        own = self._shared.settings.name
        told = [
            (gate, name)
            for gate, dispute in sorted(self._disputes.items())
            if dispute.noticed_ms is not None and now.mono_ms - dispute.noticed_ms < TELL_MS
            for name in sorted(dispute.names - {own})
            if own in dispute.names
        ]
        if len(told) <= DISPUTES_MAX:
            return tuple(told)
        self._turn = (self._turn + DISPUTES_MAX) % len(told)
        return tuple((told + told)[self._turn : self._turn + DISPUTES_MAX])

    def forget(self, now: Now) -> None:
        """Those that are long over."""
        for gate, dispute in list(self._disputes.items()):
            if now.mono_ms - dispute.seen_ms >= MEMORY_MS:
                del self._disputes[gate]

    def gates(self) -> list[int]:
        """All that are remembered, by number."""
        return sorted(self._disputes)

    def names(self) -> list[str]:
        """Whoever had one of them, sorted."""
        return sorted(set().union(*(dispute.names for dispute in self._disputes.values())))
