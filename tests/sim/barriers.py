"""The barriers that stand at the gates, and who was let through them.

Each is the model of the product (`core.gates.Barrier`), as real hardware has to follow it. What it
carried out is judged on its own: the fences at a gate never fall, each was claimed by somebody, and
none stands for two incarnations (P6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parkingd.core.gates import Barrier, Fence
from tests.sim.history import Violation

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster


class Barriers:
    """All gates of the car park."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._barriers: dict[int, Barrier] = {}
        self._opened: dict[int, Fence] = {}
        """The fence of the last action that was carried out at each gate."""
        self.opened = 0
        self.refused = 0

    def seen(self, gate: int) -> Fence | None:
        """What the barrier tells who was refused."""
        barrier = self._barriers.get(gate)
        return barrier.seen(gate) if barrier is not None else None

    def opens(self, gate: int, fence: Fence, plate: str) -> bool:
        """An action with this fence: whether the barrier opens for it."""
        cluster = self._cluster
        barrier = self._barriers.setdefault(gate, Barrier())
        if not barrier.admits(gate, fence):
            self.refused += 1
            cluster.say(None, "barrier", f"{gate} stays shut for {plate}: {fence} is stale")
            return False
        self.opened += 1
        cluster.say(None, "barrier", f"{gate} opens for {plate}: {fence}")
        last = self._opened.get(gate)
        if last is not None and tuple(fence) < tuple(last):
            raise Violation("P6", f"gate {gate} opened for {fence} after {last}", plate)
        if cluster.checkers.owners.claimant(gate, fence) is None:
            raise Violation("P6", f"gate {gate} opened for {fence}, which nobody claimed", plate)
        self._opened[gate] = fence
        return True
