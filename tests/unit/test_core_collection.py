"""Early events and the collection of marks: the shortest traces that break a weaker rule.

Each trace was found by exhaustive exploration of a model; operations are numbered as they happen:
E0@A is an entry at A, X1@B an exit at B. The simulator hardly ever meets them, as marks hide what
goes wrong, so each is written down here.
"""

from __future__ import annotations

from parkingd.core.records import Record
from parkingd.core.roster import Roster
from tests.unit.sites import Site, dot, dots, sites


def kept(site: Site) -> list[Record]:
    return site.state.stays.records()


# --- covers and early events -------------------------------------------------------------------


def test_a_stay_covered_before_it_arrived_never_shows() -> None:
    """E0, E1 covers 0 at A; B gets 1, then 0."""
    a, b = sites(2)
    zero, one = a.enter(), a.enter()
    b.take(one)
    assert b.shown() == dots(one)
    assert set(b.state.stays.early) == dots(zero)
    b.take(zero)
    assert b.shown() == dots(one)
    assert not b.state.stays.early
    assert b.state.root() == a.state.root()


def test_the_covers_of_an_early_event_still_count() -> None:
    """E0, E1 covers 0, E2 covers 1 at A; B gets 0, 2, 1."""
    a, b = sites(2)
    zero, one, two = a.enter(), a.enter(), a.enter()
    b.take(zero, two)
    assert b.shown() == dots(zero, two)
    b.take(one)
    assert b.shown() == dots(two)
    assert b.state.root() == a.state.root()


def test_every_exit_leaves_a_mark_also_one_that_saw_a_stay() -> None:
    """E0@A; E1@B; X2@A covers 0; A gets 1."""
    a, b = sites(2)
    a.enter()
    one = b.enter()
    a.exit()
    a.take(one)
    assert a.shown() == set()


# --- collection --------------------------------------------------------------------------------


def test_a_mark_is_not_collected_before_everything_its_witnesses_minted_is_here() -> None:
    """E0@A; X1@B; A, C get 1; B collects 1; B gets 0: the second clause of the rule."""
    a, b, c = sites(3)
    zero, one = a.enter(), b.exit()
    a.take(one)
    c.take(one)
    b.hear(a, c)
    by_all = b.state.roster.covered_by_all(b.state.context.vector, {})
    assert by_all[b.id] >= one.seq, "every disk has the mark: the first clause holds"
    assert b.collect() == 0
    b.take(zero)
    assert b.shown() == set()
    assert b.hear(a, c).collect() == 1
    assert b.shown() == set()
    assert kept(b) == []


def test_a_mark_and_the_stays_it_hides_leave_in_one_step() -> None:
    """E0@A; X1@B; A, C get 1; A collects 1, and must not keep 0."""
    a, b, c = sites(3)
    a.enter()
    one = b.exit()
    a.take(one)
    c.take(one)
    assert a.hear(b, c).collect() == 1
    assert a.shown() == set()
    assert kept(a) == []
    assert a.state.stays.hidden_count() == 0


def test_collection_takes_the_stays_of_a_closed_cause_along_on_whatever_plate() -> None:
    a, b = sites(2)
    zero = a.enter("P", cause=b"c" * 16)
    b.take(zero)
    a.correct("P", "Q")
    b.exit("P")
    for site, other in ((a, b), (b, a)):
        site.take(*other.log.values())
    for site in (a, b):
        assert site.hear(a, b).hear(a, b).collect() == 1
        assert kept(site) == []
        assert site.shown("Q") == set()


def test_a_collected_mark_changes_no_view_now_or_later() -> None:
    """The one who has collected and the one who has not show the same when all has arrived."""
    a, b, c = sites(3)
    zero, one = a.enter(), b.exit()
    a.take(one)
    c.take(one)
    assert a.hear(b, c).collect() == 1
    b.take(zero)
    c.take(zero)
    two = c.enter()
    for site in (a, b):
        site.take(two)
    views = [site.shown() for site in (a, b, c)]
    assert views == [dots(two)] * 3
    assert len({site.state.root() for site in (a, b, c)}) == 1


def test_an_exit_that_covers_a_mark_replaces_it_and_the_earlier_one_is_no_hindrance() -> None:
    a, b = sites(2)
    a.exit()
    a.exit()
    b.take(*a.log.values())
    for site in (a, b):
        assert site.state.stays.mark_count == 1
        assert site.hear(a, b).hear(a, b).collect() == 1
        assert site.state.stays.mark_count == 0


def test_a_vector_that_a_disk_does_not_hold_yet_collects_nothing() -> None:
    """What is heard must be durable vectors: memory that crashes forgets the mark."""
    a, b, c = sites(3)
    before = dict(c.state.context.vector)
    one = b.exit()
    a.take(one)
    c.take(one)
    b.hear(a)
    b.state.roster.heard(c.id, before)
    assert b.collect() == 0
    b.hear(c)
    assert b.collect() == 1


# --- the roster --------------------------------------------------------------------------------


def test_silence_never_shortens_the_roster() -> None:
    """E0@B unsent; X1@A: whatever happens, A keeps 1 until B has told that it holds it."""
    a, b, c = sites(3)
    zero, one = b.enter(), a.exit()
    c.take(one)
    for _ in range(100):
        a.hear(c)
        assert a.collect() == 0
    a.take(zero)
    assert a.shown() == set()


def test_a_replica_named_in_any_vector_heard_must_have_seen_the_mark() -> None:
    """C joined at B, and A has never heard of it but by name: E0@C; X1@A; B gets 1."""
    a, b = sites(2)
    c = Site(3, a.clock)
    c.take(*b.log.values())
    joined, zero = c.join(), c.enter()
    b.take(joined)
    a.hear(b)
    one = a.exit()
    b.take(one)
    a.hear(b)
    assert a.collect() == 0
    a.take(joined, zero)
    assert a.shown() == set()


def test_a_roster_of_which_one_has_not_spoken_collects_nothing() -> None:
    roster = Roster()
    roster.heard(1, {1: 5, 2: 5})
    assert roster.members({1: 5, 2: 5}, {}) == [1, 2]
    assert roster.covered_by_all({1: 5, 2: 5}, {}) == {}
    assert roster.collectable({1: 5, 2: 5}, {}) == {}
    roster.heard(2, {1: 4, 2: 5})
    assert roster.collectable({1: 5, 2: 5}, {}) == {1: 4, 2: 5}


def test_a_sealed_replica_is_waited_for_no_longer_but_what_exists_of_it_must_be_here() -> None:
    roster = Roster()
    roster.heard(1, {1: 5, 2: 3})
    roster.name([2])
    assert roster.collectable({1: 5, 2: 3}, {2: 4}) == {}
    assert roster.collectable({1: 5, 2: 4}, {2: 4}) == {1: 5, 2: 3}


def test_hearing_an_older_vector_late_takes_nothing_back() -> None:
    roster = Roster()
    roster.heard(1, {1: 5})
    roster.heard(1, {1: 3})
    assert roster.durable[1] == {1: 5}


def test_what_has_arrived_once_is_not_applied_again_after_collection() -> None:
    a, b = sites(2)
    zero = a.enter()
    b.take(zero)
    b.exit()
    a.take(*b.log.values())
    assert a.hear(b).hear(b).collect() == 1
    a.take(zero)
    assert a.shown() == set()
    assert dot(zero) in a.log
