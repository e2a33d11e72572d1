"""Who serves which gate: fences that order the claims, and the plan that shares the gates out.

A gate's owner is whoever made its greatest claim. Claims are compared by their fence: the epoch,
then a score that every node computes alike, then the owner's name. The score depends on the
incarnation too, so that no fence is used by two incarnations, not even by two of one name of which
the first lost its disk.

The plan is a pure function of who owns what and who lives (DESIGN section 6; compared with plain,
ring and bounded-load hashing in research/membership.md 2.2): living owners keep what they have,
orphans go to the least loaded, and then one gate at a time moves from the most to the least
loaded while these differ by more than one. Ties are broken by highest random weight (Thaler and
Ravishankar, 1998), so the order of the inputs does not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from parkingd.core.events import Claim

PHASE_OWNED = 0
PHASE_RELEASED = 1

SCORE_MAX: Final = 2**64 - 1


class Fence(NamedTuple):
    """What every action at a gate carries. Greater ones shut out smaller ones."""

    epoch: int
    score: int
    """0 to `SCORE_MAX`."""
    owner: str


def fence_of(claim: Claim) -> Fence:
    """The fence of this claim."""
    return Fence(claim.epoch, _score(claim.gate, claim.owner, claim.incarnation), claim.owner)


class Barrier:
    """What stands at the gates: it opens for the greatest fence it has seen, or a greater one.

    Whatever opens a real barrier has to keep this rule: it is what makes a node harmless that
    still takes itself for the owner, because it was paused or cut off. It alone knows of every
    claim it was opened under: one may be lost with the disk it was made on, or belong to a lot that
    another has replaced. So whoever is refused tells the owner what the barrier has seen.
    """

    def __init__(self) -> None:
        self._highest: dict[int, Fence] = {}

    def admits(self, gate: int, fence: Fence) -> bool:
        """Whether an action with this fence may be carried out; a greater fence is remembered."""
        highest = self._highest.get(gate)
        if highest is not None and fence < highest:
            return False
        self._highest[gate] = fence
        return True

    def seen(self, gate: int) -> Fence | None:
        """The greatest fence so far."""
        return self._highest.get(gate)


def plan(owners: Mapping[int, str | None], live: Collection[str]) -> dict[int, str]:
    """Who should serve each gate; empty when nobody lives.

    ``owners``: the present owner of every gate, None or a name that is not in ``live`` for an
    orphan.
    """
    assigned = assign_orphans(owners, live)
    return balance(assigned, live) if assigned else {}


def assign_orphans(owners: Mapping[int, str | None], live: Collection[str]) -> dict[int, str]:
    """Living owners keep their gates; each orphan goes to whoever serves fewest."""
    if not live:
        return {}
    assigned = {gate: owner for gate, owner in owners.items() if owner in live and owner}
    if len(assigned) == len(owners):
        return assigned
    loads = _loads(assigned, live)
    for gate in sorted(owners.keys() - assigned.keys()):
        least = min(loads.values())
        idle = [name for name, load in loads.items() if load == least]
        heir = max(idle, key=lambda name: (_weight(str(gate), name), name))
        assigned[gate] = heir
        loads[heir] += 1
    return assigned


def is_balanced(assigned: Mapping[int, str], live: Collection[str]) -> bool:
    """Nobody alive has two gates more than another: `balance` would move none."""
    loads = _loads(assigned, live).values()
    return not loads or max(loads) - min(loads) <= 1


def balance(
    assigned: Mapping[int, str], live: Collection[str], receivers: Collection[str] | None = None
) -> dict[int, str]:
    """Move one gate at a time from the most to the least loaded while they differ by more than one.

    ``receivers``: who may be given gates; all that live unless told otherwise.
    """
    loads = _loads(assigned, live)
    takers = sorted(live if receivers is None else receivers)
    if not takers or max(loads.values()) - min(loads[name] for name in takers) <= 1:
        return dict(assigned)
    held = {name: {g for g, owner in assigned.items() if owner == name} for name in loads}
    while True:
        giver = max(held, key=lambda name: len(held[name]))
        taker = min(takers, key=lambda name: len(held[name]))
        if len(held[giver]) - len(held[taker]) <= 1:
            break
        gate = max(held[giver], key=lambda gate: (_weight(str(gate), taker), gate))
        held[giver].remove(gate)
        held[taker].add(gate)
    return {gate: name for name, gates in held.items() for gate in sorted(gates)}


def _loads(assigned: Mapping[int, str], live: Collection[str]) -> dict[str, int]:
    loads = dict.fromkeys(sorted(live), 0)
    for owner in assigned.values():
        loads[owner] += 1
    return loads


@lru_cache(maxsize=2**16)
def _score(gate: int, owner: str, incarnation: int) -> int:
    return _weight(str(gate), owner, str(incarnation))


@lru_cache(maxsize=2**16)
def _weight(*parts: str) -> int:
    """64 bits that every node computes alike from these texts."""
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")
