"""The causal join with a frozen state: the traces in which a simpler transfer makes ghosts."""

from __future__ import annotations

from parkingd.core.causal import CausalContext
from tests.unit.sites import Site, dots, sites


def empty(site: Site, replica: int = 9, skew: int = 0) -> Site:
    """A replica that holds nothing but its own join, which the other one has."""
    joiner = Site(replica, site.clock, skew)
    site.take(joiner.join())
    return joiner


def test_a_snapshot_brings_the_senders_early_removals() -> None:
    """E0@A; B gets 0; E1@A covers 0; C gets 1; snapshot C -> B."""
    a, b, c = sites(3)
    zero = a.enter()
    b.take(zero)
    one = a.enter()
    c.take(one)
    assert set(c.state.stays.early) == dots(zero)
    b.thaw(c.freeze())
    assert b.shown() == dots(one)


def test_an_early_removal_that_a_snapshot_brings_applies_to_what_arrives_later() -> None:
    """E0, E1 covers 0 at A; C gets 1; snapshot C -> B; B gets 0."""
    a, b, c = sites(3)
    zero, one = a.enter(), a.enter()
    c.take(one)
    b.thaw(c.freeze())
    assert set(b.state.stays.early) == dots(zero)
    b.take(zero)
    assert b.shown() == dots(one)


def test_the_receivers_early_removals_are_honoured() -> None:
    """The same start; snapshot B -> C: C has applied the removal of 0 already."""
    a, b, c = sites(3)
    zero = a.enter()
    b.take(zero)
    one = a.enter()
    c.take(one)
    c.thaw(b.freeze())
    assert c.shown() == dots(one)
    assert not c.state.stays.early
    assert c.state.root() == a.state.root()


def test_what_was_covered_while_the_snapshot_was_in_flight_is_not_inserted() -> None:
    """Freeze A -> B with 0; E1@A covers 0; B gets 1; the snapshot arrives."""
    a, b, _ = sites(3)
    a.enter()
    frozen = a.freeze()
    one = a.enter()
    b.take(one)
    b.thaw(frozen)
    assert b.shown() == dots(one)
    assert b.state.context == a.state.context


def test_what_arrived_before_a_frozen_snapshot_and_was_covered_in_it_is_dropped() -> None:
    """E0, E1 covers 0 at A; freeze A -> B; B gets 0; the snapshot arrives."""
    a, b, _ = sites(3)
    zero, one = a.enter(), a.enter()
    frozen = a.freeze()
    b.take(zero)
    assert b.shown() == dots(zero)
    b.thaw(frozen)
    assert b.shown() == dots(one)


def test_a_snapshot_of_one_who_has_collected_the_mark_hides_what_the_mark_hid() -> None:
    """E0@A; X1@B; A gets 1 and collects it; snapshot A -> B; B gets 0."""
    a, b = sites(2)
    zero, one = a.enter(), b.exit()
    a.take(one).hear(b)
    assert a.collect() == 1
    b.thaw(a.freeze())
    assert b.state.stays.mark_count == 0
    b.take(zero)
    assert b.shown() == set()


def test_the_highest_hybrid_time_travels_with_the_snapshot() -> None:
    """Clocks (0, +4, 0): X0@B; A gets and collects it; snapshot to C; E1@C follows the exit."""
    a, b = sites(2, skews=(0, 4))
    zero = b.exit()
    a.take(zero).hear(b)
    assert a.collect() == 1
    c = empty(a, 3)
    frozen = a.freeze()
    assert frozen.hybrid_high >= zero.time
    assert all(record[2] < zero.time for record in frozen.records), "no record tells of it"
    c.thaw(frozen)
    one = c.enter()
    b.take(one)
    assert one.time > zero.time
    assert b.shown() == dots(one)


def test_the_join_of_the_receiver_is_in_the_senders_context_before_it_freezes() -> None:
    """Else whoever joins from the snapshot could collect marks that the joiner has not seen."""
    a, b = sites(2)
    c = empty(a, 3)
    c.thaw(a.freeze())
    zero, one = c.enter(), a.exit()
    b.take(one)
    a.hear(b)
    assert a.collect() == 0
    a.take(zero)
    assert a.shown() == set()


def test_a_snapshot_names_every_replica_of_the_sender_to_the_receivers_roster() -> None:
    a, b = sites(2)
    c = empty(a, 3)
    c.thaw(a.freeze())
    roster, vector = c.state.roster, c.state.context.vector
    assert roster.members(vector, {}) == [a.id, b.id, c.id]
    assert c.hear(a).collect() == 0


def test_a_context_with_holes_travels_with_its_holes() -> None:
    a, b, c = sites(3)
    zero, one = a.enter("P"), a.enter("Q")
    b.take(one)
    c.thaw(b.freeze())
    assert not c.state.context.contains(a.id, zero.seq)
    assert c.state.context.contains(a.id, one.seq)
    c.take(zero)
    assert c.shown("P") == dots(zero)


def test_a_join_of_two_states_is_the_union_whichever_way() -> None:
    a, b = sites(2)
    a.enter("P")
    b.enter("P")
    a.enter("Q")
    b.exit("Q")
    one_way, other_way = a.freeze(), b.freeze()
    a.thaw(other_way)
    b.thaw(one_way)
    assert a.state.context == b.state.context
    assert a.state.root() == b.state.root()
    assert a.shown("P") == b.shown("P")
    assert len(a.shown("P")) == 2
    assert a.shown("Q") == b.shown("Q") == set()


def test_a_snapshot_joined_twice_changes_nothing() -> None:
    a, b = sites(2)
    a.enter("P")
    a.exit("Q")
    frozen = a.freeze()
    b.thaw(frozen)
    before = b.freeze()
    b.thaw(frozen)
    after = b.freeze()
    assert before == after


def test_an_older_snapshot_takes_nothing_back() -> None:
    a, b = sites(2)
    frozen = b.freeze()
    one = a.enter()
    context = CausalContext(dict(a.state.context.vector))
    a.thaw(frozen)
    assert a.shown() == dots(one)
    assert a.state.context == context


def test_remembered_requests_come_with_the_snapshot() -> None:
    a, b = sites(2)
    request = b"r" * 16
    leave = a.exit(request=request)
    b.thaw(a.freeze())
    effect = b.state.stays.request_effect(request)
    assert effect is not None
    assert (effect[3], effect[4]) == (leave.origin, leave.seq)


def test_the_request_of_a_stay_that_was_covered_early_is_remembered_when_a_snapshot_brings_it() -> (
    None
):
    """E0@A; B gets 0; E1@A covers 0; C gets 1; snapshot B -> C: the retry of 0 is known to C."""
    a, b, c = sites(3)
    request = b"r" * 16
    zero = a.enter(cause=request)
    b.take(zero)
    c.take(a.enter())
    c.thaw(b.freeze())
    assert c.state.stays.request_effect(request) == a.state.stays.request_effect(request)
