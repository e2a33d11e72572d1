"""Fences and seals in the state: of a sealed replica exactly the named dots exist."""

from __future__ import annotations

from parkingd.core.causal import CausalContext
from parkingd.core.events import Fence, Seal
from parkingd.core.state import Applied, holds_void, sealed_head, sealed_in, void_spans
from tests.unit.sites import dots, sites


def test_a_fenced_replica_gets_nothing_new_in() -> None:
    a, b, c = sites(3)
    known = c.enter("P")
    a.take(known)
    late = c.enter("Q")
    fence = a.mint(Fence(c.id))
    b.take(fence)
    assert a.state.apply(late) is Applied.FENCED
    assert b.state.apply(known) is Applied.FENCED
    assert not a.state.context.contains(c.id, late.seq)
    assert a.state.fenced_replicas() == [c.id]


def test_after_the_seal_exactly_the_sealed_events_are_taken() -> None:
    a, b, c = sites(3)
    known = c.enter("P")
    a.take(known)
    late = c.enter("Q")
    fence = a.mint(Fence(c.id))
    seal = a.mint(Seal(c.id, known.seq, ()))
    b.take(fence, seal)
    assert b.state.apply(known) is Applied.NEW
    assert b.state.apply(late) is Applied.FENCED
    assert b.state.fenced_replicas() == []


def test_a_seal_voids_what_nobody_holds() -> None:
    """E0, E1 covers 0 at C; A gets 1 only; sealed at {1}: no gap and no early dot remains."""
    a, b, c = sites(3)
    zero, one = c.enter(), c.enter()
    a.take(one)
    assert set(a.state.stays.early) == dots(zero)
    assert a.state.context.has_intervals()
    a.mint(Fence(c.id))
    a.mint(Seal(c.id, zero.seq - 1, ((one.seq, one.seq),)))
    assert not a.state.stays.early
    assert not a.state.context.has_intervals()
    assert a.shown() == dots(one)
    b.take(*(event for event in a.log.values() if event.origin == a.id))
    b.take(one)
    assert not b.state.context.has_intervals()
    assert b.shown() == dots(one)
    assert b.state.root() == a.state.root()


def test_marks_are_collected_again_once_the_lost_replica_is_sealed() -> None:
    a, b, c = sites(3)
    lost = c.enter()
    a.take(lost)
    b.take(a.exit())
    assert a.hear(b).collect() == 0
    fence = a.mint(Fence(c.id))
    seal = a.mint(Seal(c.id, lost.seq, ()))
    b.take(lost, fence, seal)
    a.hear(b)
    assert a.collect() == 1


def test_marks_wait_until_everything_sealed_is_here() -> None:
    """B knows the seal and still lacks what it lets in: a hidden stay of it may yet come."""
    a, b, c = sites(3)
    zero = c.enter()
    a.take(zero)
    one = b.exit()
    a.take(one)
    fence = a.mint(Fence(c.id))
    seal = a.mint(Seal(c.id, zero.seq, ()))
    b.take(fence, seal).hear(a)
    assert b.collect() == 0
    b.take(zero).hear(a)
    assert b.shown() == set()
    assert b.collect() == 1
    assert b.shown() == set()


def test_a_replica_that_holds_void_events_knows_it_when_the_seal_arrives() -> None:
    a, b, c = sites(3)
    cut_off = c.enter("P")
    b.take(cut_off)
    fence = a.mint(Fence(c.id))
    seal = a.mint(Seal(c.id, cut_off.seq - 1, ()))
    assert not a.state.has_voided_events
    assert a.state.is_voided(b.state.context)
    b.take(fence, seal)
    assert b.state.has_voided_events


def test_a_replica_that_holds_a_void_hole_knows_it_when_the_seal_arrives() -> None:
    a, b, c = sites(3)
    zero, one = c.enter("P"), c.enter("Q")
    b.take(zero)
    a.take(one)
    a.mint(Fence(c.id))
    seal = a.mint(Seal(c.id, zero.seq - 1, ((one.seq, one.seq),)))
    assert not a.state.has_voided_events
    b.take(seal)
    assert b.state.has_voided_events


def test_a_replica_that_knows_the_seal_is_not_suspected_of_void_events() -> None:
    a, b, c = sites(3)
    zero, one = c.enter("P"), c.enter("Q")
    a.take(one)
    b.take(a.mint(Fence(c.id)), a.mint(Seal(c.id, zero.seq - 1, ((one.seq, one.seq),))))
    assert b.state.context.contains(c.id, zero.seq), "void dots count as received"
    assert not a.state.is_voided(b.state.context)


def test_a_seal_that_comes_with_a_snapshot_is_judged_alike() -> None:
    a, b, c = sites(3)
    cut_off = c.enter()
    b.take(cut_off)
    a.mint(Fence(c.id))
    a.mint(Seal(c.id, cut_off.seq - 1, ()))
    b.thaw(a.freeze())
    assert b.state.has_voided_events
    fresh, *_ = sites(1)
    fresh.thaw(a.freeze())
    assert not fresh.state.has_voided_events
    assert fresh.state.sealed_heads() == {c.id: cut_off.seq - 1}


def test_what_a_seal_says_of_each_dot() -> None:
    seal = Seal(7, 2, ((4, 5), (9, 9)))
    assert [seq for seq in range(1, 12) if sealed_in(seal, seq)] == [1, 2, 4, 5, 9]
    assert sealed_head(seal) == 9
    assert void_spans(seal) == [(3, 3), (6, 8)]
    context = CausalContext({7: 2})
    assert not holds_void(context, seal)
    context.add(7, 7)
    assert holds_void(context, seal)
