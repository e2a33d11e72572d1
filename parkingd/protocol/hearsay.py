"""Claims that exist and are not here: who knows of one by other means has to heed it too.

A claim may be long on its way: a log was trimmed, a link loses what is large, a disk is slow. Two
know better than the claims that have arrived:

    a heartbeat  names (gate, epoch) of what its sender serves, whose claim is on its disk. If it
                 is greater than what is here it counts at once, until it comes, or its owner is
                 gone or names the gate no more
    a barrier    remembers the greatest fence that it was opened with (`core.gates.Barrier`), even
                 that of a claim which was lost with a disk, or belongs to a lot that is no more
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from parkingd.core.events import Claim
from parkingd.core.gates import PHASE_OWNED, Fence, fence_of
from parkingd.core.ids import Now
from parkingd.protocol.members import Member

UNNAMED_MS: Final = 2_000
"""The heartbeats of a living member do not name, for this long, a gate that they have named before
or that a barrier says it has claimed: it has given the gate up, or claimed it in another lot. Half:
a claim that waits for a slow disk is overtaken. Double: the gate or its barrier stays shut for 4 s.
"""


@dataclass(slots=True)
class Named:
    """A greater claim than is here, as its owner's heartbeat names it."""

    fence: Fence
    owner: str
    incarnation: int
    unnamed_ms: int | None = None
    """Since when its owner's heartbeats do not name it any more."""


class Hearsay:
    """What one node knows of claims that it does not have."""

    def __init__(
        self, claim: Callable[[int], Claim | None], up: Callable[[], Iterator[Member]]
    ) -> None:
        """``claim``: the greatest to a gate that is here; ``up``: members not known to be dead."""
        self._claim = claim
        self._up = up
        self._named: dict[int, Named] = {}
        self._seen: dict[int, tuple[Fence, int]] = {}
        """What a barrier has seen that its claimant, who lives, may still tell; and since when."""

    def __len__(self) -> int:
        return len(self._named)

    def __contains__(self, gate: int) -> bool:
        return gate in self._named

    def owner(self, gate: int) -> str:
        """Who serves this gate, which is one of these."""
        return self._named[gate].owner

    def heard(self, member: Member, gates: Mapping[int, int], now: Now) -> set[int]:
        """Its heartbeat names these gates and epochs: those that are greater than all known."""
        for gate, named in self._named.items():
            if named.owner == member.name and gate not in gates and named.unnamed_ms is None:
                named.unnamed_ms = now.mono_ms
        return {gate for gate, epoch in gates.items() if self._is_greater(member, gate, epoch)}

    def _is_greater(self, member: Member, gate: int, epoch: int) -> bool:
        fence = _fence(gate, epoch, member)
        claim, named = self._claim(gate), self._named.get(gate)
        if claim is not None and fence <= fence_of(claim):
            return False
        if named is not None and fence <= named.fence:
            if fence == named.fence:
                named.unnamed_ms = None
            return False
        self._named[gate] = Named(fence, member.name, member.incarnation)
        return True

    def settle(self, now: Now) -> bool:
        """Forget what has come, or counts no more: see the module text. Whether there was any."""
        if not self._named:
            return False
        up = {(member.name, member.incarnation) for member in self._up()}
        before = len(self._named)
        for gate, named in list(self._named.items()):
            claim = self._claim(gate)
            has_come = claim is not None and fence_of(claim) >= named.fence
            is_over = named.unnamed_ms is not None and now.mono_ms - named.unnamed_ms >= UNNAMED_MS
            if has_come or is_over or (named.owner, named.incarnation) not in up:
                del self._named[gate]
        return len(self._named) < before

    def may_come(self, gate: int, seen: Fence, now: Now) -> bool:
        """A barrier has seen this: whether its claimant lives, and may say so in a moment."""
        if not any(_fence(gate, seen.epoch, member) == seen for member in self._up()):
            self._seen.pop(gate, None)
            return False
        if self._seen.get(gate, (None, 0))[0] != seen:
            self._seen[gate] = (seen, now.mono_ms)
        return now.mono_ms - self._seen[gate][1] < UNNAMED_MS


def _fence(gate: int, epoch: int, member: Member) -> Fence:
    """Of a claim that this member, in this life, would have made."""
    return fence_of(Claim(gate, epoch, member.name, member.incarnation, PHASE_OWNED, None))
