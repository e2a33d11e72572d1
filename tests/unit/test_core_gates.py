"""Who serves which gate: what the plan moves and what it leaves, and the order of the fences.

Source: DESIGN section 6, "Gates". The plan is a pure function, so its rules are stated for all
shares of gates and all sets of living nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from parkingd.core.events import Claim, Event
from parkingd.core.gates import (
    PHASE_OWNED,
    PHASE_RELEASED,
    Barrier,
    Fence,
    assign_orphans,
    balance,
    fence_of,
    plan,
)
from parkingd.core.lot import LotRecord

Owners = Mapping[int, str | None]

NAMES = tuple("abcdefghij")
GONE = ("x", "y")
"""Names that own gates and are never alive."""

live_nodes = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


@st.composite
def sites(draw: st.DrawFn) -> tuple[dict[int, str | None], list[str]]:
    """Any owners of some gates, alive or not or none at all, and who is alive."""
    live = draw(live_nodes)
    owner = st.sampled_from(live) | st.sampled_from((None, *NAMES, *GONE))
    few = st.sampled_from(draw(st.lists(owner, min_size=1, max_size=4)))  # Some have many gates.
    return draw(st.dictionaries(st.integers(1, 1_000), few, max_size=40)), live


@st.composite
def shared_out(draw: st.DrawFn) -> tuple[dict[int, str], list[str]]:
    """Gates in even shares, however it came about, and who is alive."""
    owners, live = draw(sites())
    return plan(owners, live), live


def loads(assigned: Mapping[int, str], live: Collection[str]) -> list[int]:
    """How many gates each living node has, fewest first."""
    counts = Counter(assigned.values())
    assert counts.keys() <= set(live)
    return sorted(counts[name] for name in live)


def moved(before: Owners, after: Mapping[int, str]) -> set[int]:
    """Gates whose owner changed."""
    assert before.keys() == after.keys()
    return {gate for gate, owner in before.items() if after[gate] != owner}


# --- the plan ----------------------------------------------------------------------------------


@given(sites())
def test_every_gate_has_a_living_owner_and_shares_differ_by_one_at_most(
    site: tuple[Owners, list[str]],
) -> None:
    owners, live = site
    assigned = plan(owners, live)
    assert assigned.keys() == owners.keys()
    counts = loads(assigned, live)
    assert counts[-1] - counts[0] <= 1


@given(sites())
def test_with_more_nodes_than_gates_nobody_has_two(site: tuple[Owners, list[str]]) -> None:
    owners, live = site
    few = {gate: owners[gate] for gate in sorted(owners)[: len(live) - 1]}
    assert loads(plan(few, live), live)[-1] <= 1


@given(st.dictionaries(st.integers(1, 60), st.none() | st.sampled_from(GONE)))
def test_where_nobody_lives_nobody_has_a_gate(owners: Owners) -> None:
    assert plan(owners, ()) == {}
    assert assign_orphans(owners, ()) == {}
    assert balance({}, ()) == {}


@given(sites(), st.randoms())
def test_the_order_in_which_things_are_named_does_not_matter(
    site: tuple[Owners, list[str]], dice: Random
) -> None:
    owners, live = site
    other_owners, other_live = list(owners.items()), list(live)
    dice.shuffle(other_owners)
    dice.shuffle(other_live)
    assert plan(dict(other_owners), other_live) == plan(owners, live)
    assert plan(owners, frozenset(live)) == plan(owners, dict.fromkeys(live))


@given(shared_out())
def test_even_shares_stay_as_they_are(site: tuple[dict[int, str], list[str]]) -> None:
    assigned, live = site
    assert plan(assigned, live) == assigned


@given(shared_out(), st.sampled_from(NAMES))
def test_a_join_moves_the_joiners_share_and_nothing_else(
    site: tuple[dict[int, str], list[str]], joiner: str
) -> None:
    before, live = site
    if joiner in live:
        return
    after = plan(before, [*live, joiner])
    gates = moved(before, after)
    assert len(gates) == len(before) // (len(live) + 1)
    assert {after[gate] for gate in gates} <= {joiner}


@given(shared_out(), st.sampled_from(NAMES))
def test_a_leave_moves_the_leavers_gates_and_nothing_else(
    site: tuple[dict[int, str], list[str]], leaver: str
) -> None:
    before, live = site
    rest = [name for name in live if name != leaver]
    if not rest:
        return
    assert moved(before, plan(before, rest)) == {
        gate for gate, owner in before.items() if owner == leaver
    }


# --- its two halves ----------------------------------------------------------------------------


@given(sites())
def test_living_owners_keep_their_gates_while_orphans_are_claimed(
    site: tuple[Owners, list[str]],
) -> None:
    owners, live = site
    assigned = assign_orphans(owners, live)
    assert moved(owners, assigned) == {gate for gate, owner in owners.items() if owner not in live}
    assert set(assigned.values()) <= set(live)


@given(sites())
def test_orphans_go_to_those_who_have_fewest(site: tuple[Owners, list[str]]) -> None:
    owners, live = site
    had = Counter(owner for owner in owners.values() if owner in live)
    counts = Counter(assign_orphans(owners, live).values())
    heirs = [name for name in live if counts[name] > had[name]]
    fewest = min(counts[name] for name in live)
    assert all(counts[name] - fewest <= 1 for name in heirs)


@given(sites(), st.sets(st.sampled_from(NAMES)))
def test_gates_move_to_receivers_only_and_never_beyond_an_even_share(
    site: tuple[Owners, list[str]], chosen: set[str]
) -> None:
    owners, live = site
    before = assign_orphans(owners, live)
    receivers = [name for name in live if name in chosen]
    after = balance(before, live, receivers)
    gates = moved(before, after)
    givers, takers = {before[gate] for gate in gates}, {after[gate] for gate in gates}
    assert takers <= set(receivers)
    assert not givers & takers
    counts = Counter(after.values())
    least = min((counts[name] for name in receivers), default=len(after))
    assert all(counts[name] <= least + 1 for name in takers)
    assert all(counts[name] >= least for name in givers)
    if receivers:
        assert max(counts[name] for name in live) <= least + 1
    else:
        assert after == before


# --- fences ------------------------------------------------------------------------------------

claims = st.builds(
    Claim,
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from(NAMES[:3]),
    st.integers(1, 3),
    st.sampled_from((PHASE_OWNED, PHASE_RELEASED)),
    st.none() | st.sampled_from(NAMES),
)


def claimant(claim: Claim) -> tuple[str, int]:
    return claim.owner, claim.incarnation


@given(claims, claims)
def test_the_greater_epoch_wins_whoever_claims(one: Claim, other: Claim) -> None:
    if one.epoch != other.epoch:
        assert (fence_of(one) > fence_of(other)) == (one.epoch > other.epoch)


@given(claims, claims)
def test_a_fence_at_one_gate_belongs_to_one_incarnation_and_epoch(one: Claim, other: Claim) -> None:
    other = other._replace(gate=one.gate)
    is_same = (one.epoch, claimant(one)) == (other.epoch, claimant(other))
    assert (fence_of(one) == fence_of(other)) == is_same


@given(claims, claims, claims)
def test_fences_are_in_one_order(one: Claim, two: Claim, three: Claim) -> None:
    a, b, c = sorted((fence_of(one), fence_of(two), fence_of(three)))
    assert a <= c
    for less, more in ((a, b), (b, c), (a, c)):
        assert (less < more) + (less == more) == 1
        assert not less > more


@given(claims, st.sampled_from(NAMES))
def test_a_release_has_the_fence_of_its_owner_not_of_its_target(claim: Claim, target: str) -> None:
    released = claim._replace(phase=PHASE_RELEASED, target=target)
    assert fence_of(released) == fence_of(claim)


@given(st.lists(claims, max_size=30))
def test_a_barrier_never_lets_the_fence_fall(actions: list[Claim]) -> None:
    barrier = Barrier()
    highest: dict[int, Fence] = {}
    for action in actions:
        fence = fence_of(action)
        is_stale = action.gate in highest and fence < highest[action.gate]
        assert barrier.admits(action.gate, fence) is not is_stale
        highest[action.gate] = max(fence, highest.get(action.gate, fence))


# --- the record --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """Claims as events, and another order of them, some twice."""

    events: list[Event]
    again: list[Event]


@st.composite
def minted(draw: st.DrawFn) -> Made:
    events: list[Event] = []
    heads: Counter[int] = Counter()
    for body in draw(st.lists(claims, min_size=1, max_size=12)):
        origin = draw(st.integers(1, 4))  # A name may have had several replicas.
        heads[origin] += 1
        # Times of one replica ascend; those of two may be equal.
        events.append(Event(origin, heads[origin], heads[origin], body))
    twice = draw(st.lists(st.sampled_from(events), max_size=6))
    return Made(events, draw(st.permutations([*events, *twice])))


def record_of(events: list[Event]) -> LotRecord:
    record = LotRecord()
    for event in events:
        record.absorb(event)
    return record


@given(minted())
def test_the_record_keeps_the_greatest_claim_in_whatever_order_they_come(made: Made) -> None:
    record, other = record_of(made.events), record_of(made.again)
    assert record.digest() == other.digest()
    assert record.events == other.events
    for gate in {event.body.gate for event in made.events if isinstance(event.body, Claim)}:
        rivals = [
            event.body
            for event in made.events
            if isinstance(event.body, Claim) and event.body.gate == gate
        ]
        greatest = record.claim(gate)
        assert greatest is not None
        assert greatest == other.claim(gate)
        assert greatest in rivals
        assert fence_of(greatest) == max(map(fence_of, rivals))


def test_a_gate_that_nobody_has_claimed_has_no_claim() -> None:
    record = record_of([Event(1, 1, 1, Claim(2, 1, "a", 1, PHASE_OWNED, None))])
    assert record.claim(1) is None
    assert record.claim(2) is not None


# --- between machines --------------------------------------------------------------------------


def test_every_version_computes_the_same_scores_and_the_same_plan() -> None:
    """Each node computes them for itself: another result is another wire version."""
    claim = Claim(1, 2, "a", 3, PHASE_OWNED, None)
    assert fence_of(claim) == Fence(2, 2_522_238_791_580_885_194, "a")
    for owner, planned in ((None, "cabbcaac"), ("a", "ccababab")):
        assigned = plan(dict.fromkeys(range(1, 9), owner), ("a", "b", "c"))
        assert "".join(assigned[gate] for gate in range(1, 9)) == planned
