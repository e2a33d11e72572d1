"""The gates as people see them: one row each, and what an operator should know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from parkingd.core.events import Claim
from parkingd.core.gates import PHASE_RELEASED
from parkingd.core.ids import Now
from parkingd.protocol.claims import Claims
from parkingd.protocol.gates import Gates
from parkingd.protocol.outcomes import GateRow
from parkingd.protocol.shared import Shared

SERVED: Final = "served"
MOVING: Final = "moving"
UNOWNED: Final = "unowned"
CONTESTED: Final = "contested"


class GateRows:
    """One per node."""

    def __init__(self, shared: Shared, claims: Claims, gates: Gates) -> None:
        self._shared = shared
        self._claims = claims
        self._gates = gates

    def rows(self, now: Now) -> tuple[GateRow, ...]:
        """Every gate, by number; none without a lot."""
        if not self._shared.has_lot:
            return ()
        live = self._gates.live(now)
        contenders = enumerate(self._gates.contenders(now), 1)
        return tuple([self._row(gate, names, live) for gate, names in contenders])

    def _row(self, gate: int, names: tuple[str, ...], live: dict[str, int]) -> GateRow:
        record = self._shared.replica.state.record
        claim = self._claims.greatest(gate)
        owner, state, target = _served_by(claim, names, live)
        return GateRow(
            gate,
            owner,
            0 if claim is None else claim.epoch,
            state,
            names,
            target,
            record.mode(gate),
            record.mode_reason(gate),
        )

    def warnings(self, rows: Sequence[GateRow]) -> list[str]:
        """What an operator should know of the gates, one line each. ``rows``: those of now."""
        lines = []
        for state in (UNOWNED, CONTESTED):
            gates = [row.gate for row in rows if row.state == state]
            if gates:
                lines.append(f"{_listed(gates)} {'is' if len(gates) == 1 else 'are'} {state}")
        disputes = self._claims.disputes
        had_two = disputes.gates()
        if had_two:
            lines.append(
                f"contested: {_listed(had_two)} had two owners while nodes could not hear each "
                f"other ({', '.join(disputes.names())}); the cars of both sides are kept"
            )
        return lines


def _served_by(
    claim: Claim | None, names: tuple[str, ...], live: dict[str, int]
) -> tuple[str | None, str, str | None]:
    """(owner, state, target) of a gate with this greatest claim, which these take for theirs."""
    if len(names) > 1:
        owner = claim.owner if claim is not None and claim.owner in names else names[0]
        return owner, CONTESTED, None
    if names:
        return names[0], SERVED, None
    if claim is not None and claim.phase == PHASE_RELEASED and claim.target in live:
        return None, MOVING, claim.target
    return None, UNOWNED, None


def _listed(gates: list[int]) -> str:
    word = "gate" if len(gates) == 1 else "gates"
    return f"{word} {', '.join(map(str, gates))}"
