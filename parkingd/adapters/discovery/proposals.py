"""What all sources propose, together: an address is gone when the last of them has withdrawn it."""

from __future__ import annotations

from parkingd.protocol.facts import Candidate
from parkingd.protocol.messages import Address


class Proposals:
    """Candidates by address and source. As many as the sources propose, each a bounded number."""

    def __init__(self) -> None:
        self._candidates: dict[tuple[Address, str], Candidate] = {}

    def heard(self, candidate: Candidate) -> Candidate:
        """What to tell the node: for an address that one source withdraws, what another says."""
        key = (candidate.address, candidate.source)
        if not candidate.gone:
            self._candidates[key] = candidate
            return candidate
        self._candidates.pop(key, None)
        others = (each for (at, _), each in self._candidates.items() if at == candidate.address)
        return next(others, candidate)

    def all(self) -> list[Candidate]:
        """Everything that is proposed now: what a new node has to be told."""
        return list(self._candidates.values())
