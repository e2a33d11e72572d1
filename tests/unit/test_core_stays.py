"""Who is inside: each pair of entry, exit and repair, seen and not seen by each other.

Source: DESIGN section 4; the pairs are those of the table of semantics in its evidence. ``a -> b``
is written as one site doing both, ``a || b`` as two sites that hear of each other afterwards.
"""

from __future__ import annotations

import pytest

from parkingd.core.events import Event
from tests.unit.sites import Site, dot, dots, sites

CAUSE = bytes(range(16))


def exchange(*members: Site) -> None:
    """Everybody takes everything, each in an order of its own."""
    events = [event for site in members for event in site.log.values()]
    for place, site in enumerate(members):
        site.take(*(events if place % 2 else reversed(events)))


def shown_everywhere(*members: Site, plate: str = "P") -> set[tuple[int, int]]:
    """What all show; fails if they differ."""
    exchange(*members)
    views = [site.shown(plate) for site in members]
    assert all(view == views[0] for view in views)
    assert len({site.state.root() for site in members}) == 1
    return views[0]


def conflicts(*members: Site) -> list[list[str]]:
    return [sorted(site.state.stays.conflicts) for site in members]


# --- one plate, two acts ---------------------------------------------------------------------


def test_an_exit_that_saw_the_entry_removes_it_and_no_late_copy_brings_it_back() -> None:
    a, b = sites(2)
    enter = a.enter()
    leave = a.exit()
    b.take(leave, enter, enter)
    assert shown_everywhere(a, b) == set()


def test_an_entry_after_an_exit_it_saw_is_inside_whatever_the_clocks_say() -> None:
    a, b = sites(2, skews=(20, 0))
    a.enter()
    leave = a.exit()
    b.take(*a.log.values())
    enter = b.enter()
    assert enter.time > leave.time
    assert shown_everywhere(a, b) == dots(enter)


def test_an_exit_later_than_an_entry_it_did_not_see_explains_it() -> None:
    a, b = sites(2)
    a.enter()
    b.exit()
    assert shown_everywhere(a, b) == set()


def test_an_entry_later_than_an_exit_that_did_not_see_it_is_a_return() -> None:
    a, b = sites(2)
    b.exit()
    enter = a.enter()
    assert shown_everywhere(a, b) == dots(enter)


def test_an_entry_and_an_exit_at_the_same_time_are_ordered_alike_by_all() -> None:
    a, b = sites(2, skews=(0, -1))
    enter, leave = a.enter(), b.exit()
    assert enter.time == leave.time
    assert shown_everywhere(a, b) == set()


def test_two_entries_that_did_not_see_each_other_are_a_conflict_and_count_twice() -> None:
    a, b = sites(2)
    first, second = a.enter(), b.enter()
    assert shown_everywhere(a, b) == dots(first, second)
    assert conflicts(a, b) == [["P"], ["P"]]
    assert a.state.stays.visible_count == 2


def test_of_two_unseen_entries_with_an_exit_between_only_the_later_is_inside() -> None:
    a, b = sites(2)
    a.enter()
    b.exit()
    second = b.enter()
    assert shown_everywhere(a, b) == dots(second)
    assert conflicts(a, b) == [[], []]


def test_an_entry_supersedes_the_stay_that_it_saw() -> None:
    a, b = sites(2)
    b.take(a.enter())
    second = b.enter()
    assert shown_everywhere(a, b) == dots(second)
    assert conflicts(a, b) == [[], []]


def test_two_unseen_exits_of_one_stay_are_one() -> None:
    a, b, c = sites(3)
    enter = a.enter()
    b.take(enter)
    c.take(enter)
    b.exit()
    c.exit()
    assert shown_everywhere(a, b, c) == set()


def test_an_exit_closes_both_stays_of_a_conflict_that_it_saw() -> None:
    a, b = sites(2)
    a.enter()
    b.enter()
    exchange(a, b)
    a.exit()
    assert shown_everywhere(a, b) == set()
    assert conflicts(a, b) == [[], []]


def test_an_exit_of_an_unknown_car_is_a_mark_and_no_error() -> None:
    a, b = sites(2)
    leave = a.exit()
    assert shown_everywhere(a, b) == set()
    assert [mark[0] for mark in b.state.stays.marks_of("P")] == [leave.seq]


def test_a_removal_leaves_no_mark_and_cannot_hide_an_entry_it_did_not_know() -> None:
    a, b = sites(2)
    a.enter()
    unseen = b.enter()
    a.remove()
    assert shown_everywhere(a, b) == dots(unseen)
    assert a.state.stays.mark_count == 0


def test_a_removal_of_one_dot_settles_a_conflict() -> None:
    a, b = sites(2)
    wrong, right = a.enter(), b.enter()
    exchange(a, b)
    a.remove(only=wrong)
    assert shown_everywhere(a, b) == dots(right)
    assert conflicts(a, b) == [[], []]


# --- causes ----------------------------------------------------------------------------------


def test_stays_of_one_cause_are_one_car_and_no_conflict() -> None:
    a, b = sites(2)
    a.enter(cause=CAUSE)
    second = b.enter(cause=CAUSE)
    assert shown_everywhere(a, b) == dots(second)
    assert conflicts(a, b) == [[], []]
    assert a.state.stays.visible_count == 1
    assert a.state.stays.hidden_count() == 1


def test_an_exit_that_saw_one_stay_of_a_cause_closes_the_later_ones_it_did_not_see() -> None:
    a, b = sites(2)
    a.enter(cause=CAUSE)
    a.exit()
    late = b.enter(cause=CAUSE)
    assert late.time > max(event.time for event in a.log.values())
    assert shown_everywhere(a, b) == set()


def test_two_unseen_corrections_of_one_stay_are_one_car() -> None:
    a, b = sites(2)
    b.take(a.enter("P"))
    first, second = a.correct("P", "Q"), b.correct("P", "R")
    exchange(a, b)
    assert first.time < second.time
    assert shown_everywhere(a, b, plate="P") == set()
    assert shown_everywhere(a, b, plate="Q") == set()
    assert shown_everywhere(a, b, plate="R") == dots(second)
    assert a.state.stays.visible_count == 1


def test_an_exit_under_the_misread_plate_closes_the_corrected_stay() -> None:
    a, b = sites(2)
    b.take(a.enter("P"))
    a.correct("P", "Q")
    b.exit("P")
    assert shown_everywhere(a, b, plate="Q") == set()
    assert a.state.stays.visible_count == b.state.stays.visible_count == 0


def test_an_exit_under_one_of_two_corrected_plates_closes_the_car_under_both() -> None:
    a, b = sites(2)
    b.take(a.enter("P"))
    a.correct("P", "Q")
    b.correct("P", "R")
    a.exit("Q")
    assert shown_everywhere(a, b, plate="Q") == set()
    assert shown_everywhere(a, b, plate="R") == set()


def test_a_later_exit_inherits_the_causes_of_the_marks_it_replaces() -> None:
    a, b = sites(2)
    a.enter(cause=CAUSE)
    a.exit()
    a.exit()
    assert a.state.stays.mark_count == 1
    b.enter(cause=CAUSE)
    assert shown_everywhere(a, b) == set()


def test_the_mark_of_a_plate_lets_the_other_stay_of_a_cause_represent_it() -> None:
    """The greatest stay of the cause is under a plate that has left later: the other counts."""
    a, b, c = sites(3)
    b.take(a.enter("P", cause=CAUSE))
    first = a.correct("P", "Q")
    second = b.correct("P", "R")
    assert first.time < second.time
    c.exit("R")
    assert shown_everywhere(a, b, c, plate="R") == set()
    assert shown_everywhere(a, b, c, plate="Q") == dots(first)


# --- ambiguity -------------------------------------------------------------------------------


def at_once(site: Site, act: str) -> Event:
    """This act in the same step of the clock as the one before, a second later."""
    site.clock.steps -= 1
    event = getattr(site, act)()
    assert isinstance(event, Event)
    return event


@pytest.mark.parametrize(("first", "second"), [("enter", "exit"), ("exit", "enter")])
def test_an_entry_and_an_exit_that_did_not_see_each_other_are_reported_if_close(
    first: str, second: str
) -> None:
    a, b = sites(2)
    getattr(a, first)()
    at_once(b, second)
    exchange(a, b)
    assert set(a.state.stays.anomalies) == set(b.state.stays.anomalies) == {"P"}


@pytest.mark.parametrize(("first", "second"), [("enter", "exit"), ("exit", "enter")])
def test_an_entry_and_an_exit_of_one_node_are_never_ambiguous(first: str, second: str) -> None:
    a, b = sites(2)
    getattr(a, first)()
    at_once(a, second)
    exchange(a, b)
    assert not a.state.stays.anomalies
    assert not b.state.stays.anomalies


def test_an_entry_and_an_exit_ten_seconds_apart_are_not_ambiguous() -> None:
    a, b = sites(2)
    a.enter()
    b.exit()
    exchange(a, b)
    assert not a.state.stays.anomalies


# --- damage ----------------------------------------------------------------------------------


def test_a_record_restored_in_place_of_a_damaged_one_stays_on_the_disk() -> None:
    """A batch drops after it keeps: the dot must not be in both."""
    a, _ = sites(2)
    sound = a.enter(cause=CAUSE)
    stays = a.state.stays
    (stay,) = stays.visible("P")
    stays.discard(stay)
    assert dot(sound) in stays.journal.dropped
    assert stays.request_effect(CAUSE) is None, "what was damaged tells of no effect"
    stays.restore(stay)
    assert dot(sound) not in stays.journal.dropped
    assert a.shown() == dots(sound)
    assert stays.request_effect(CAUSE) is not None


# --- what an event is, it is once --------------------------------------------------------------


def test_applying_any_event_again_changes_nothing() -> None:
    a, b = sites(2)
    b.take(a.enter())
    b.exit()
    b.enter()
    b.correct("P", "Q")
    exchange(a, b)
    before = (a.freeze(), a.state.root(), a.state.stays.visible_count, a.state.stays.mark_count)
    a.take(*b.log.values()).take(*a.log.values())
    after = (a.freeze(), a.state.root(), a.state.stays.visible_count, a.state.stays.mark_count)
    assert before == after
    assert dot(next(iter(b.log.values()))) in a.log
