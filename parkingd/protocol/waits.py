"""`wait --for`: requests that are answered when all their conditions hold, or at the deadline."""

from __future__ import annotations

from collections.abc import Callable

from parkingd.core.ids import Now
from parkingd.protocol.commands import Condition, WaitFor
from parkingd.protocol.gate_rows import SERVED, GateRows
from parkingd.protocol.outcomes import ConditionState, Wait
from parkingd.protocol.shared import Shared


class Waits:
    """All who wait at this node."""

    def __init__(
        self,
        shared: Shared,
        gates: GateRows,
        is_synced: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        self._shared = shared
        self._gates = gates
        self._is_synced = is_synced
        self._is_ready = is_ready
        self.waiting: list[tuple[int, WaitFor, int]] = []
        """Who waits, and until when; read only."""

    def add(self, handle: int, command: WaitFor, deadline_ms: int) -> None:
        """Answer this when its conditions hold; ``deadline_ms`` is monotonic."""
        self.waiting.append((handle, command, deadline_ms))

    def unanswered(self) -> list[tuple[int, WaitFor, int]]:
        """Those still waiting, for another node to take."""
        waits, self.waiting = self.waiting, []
        return waits

    def check(self, now: Now) -> None:
        """Answer whoever can be answered."""
        for wait in list(self.waiting):
            handle, command, deadline_ms = wait
            states = tuple(self._state(c, now) for c in command.conditions)
            met = all(state.met for state in states)
            if met or now.mono_ms >= deadline_ms:
                self.waiting.remove(wait)
                self._shared.outbox.reply(handle, Wait(met, states))

    def next_deadline(self, now_ms: int) -> int | None:
        """The nearest deadline."""
        if not self.waiting:
            return None
        return min(deadline_ms for _, _, deadline_ms in self.waiting)

    def _state(self, condition: Condition, now: Now) -> ConditionState:
        if condition.key == "synced":
            value = int(self._is_synced())
        elif condition.key == "ready":
            value = int(self._is_ready())
        elif condition.key == "members":
            value = 1 + len(self._shared.members.alive())
        elif condition.key == "gates":
            rows = self._gates.rows(now)
            served = sum(row.state == SERVED for row in rows)
            is_whole = served == len(rows)
            is_enough = served >= condition.value if condition.at_least else False
            met = is_whole and (is_enough or served == condition.value)
            shown = str(served) if is_whole else f"{served} of {len(rows)}"
            sign = ">=" if condition.at_least else "="
            return ConditionState(f"gates{sign}{condition.value}", met, shown)
        else:
            assert condition.key == "inside", condition.key
            replica = self._shared.replica
            # Own stays that are not on disk yet are not inside for anybody else.
            waiting = replica.own_seq - replica.durable_seq
            value = replica.state.stays.visible_count if not waiting else -1
        met = value >= condition.value if condition.at_least else value == condition.value
        if condition.key in ("synced", "ready"):
            return ConditionState(condition.key, met, "true" if value else "false")
        sign = ">=" if condition.at_least else "="
        return ConditionState(f"{condition.key}{sign}{condition.value}", met, str(value))
