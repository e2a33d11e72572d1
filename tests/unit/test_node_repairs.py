"""What an operator settles: plates that are inside twice, and exits that matched no car."""

from __future__ import annotations

import pytest

from parkingd.core.ids import Dot
from parkingd.protocol import repairs
from parkingd.protocol.commands import (
    ReadConflicts,
    ReadUnmatched,
    RecordExit,
    Remove,
)
from parkingd.protocol.limits import REQUEST_MEMORY_MS
from parkingd.protocol.outcomes import (
    Change,
    ConflictList,
    ErrorCode,
    Exit,
    Failure,
    UnmatchedList,
    UnmatchedRow,
    VehicleRow,
)
from tests.unit.scripted import Box, Stage

REQUEST, OTHER = b"r" * 16, b"s" * 16


def pair() -> tuple[Stage, Box, Box]:
    stage = Stage()
    a, b = stage.found("a", "b")
    return stage, a, b


def pages(box: Box, command: ReadConflicts | ReadUnmatched) -> list[ConflictList | UnmatchedList]:
    handle = box.submit(command)
    box.stage.pass_ms(50)
    replies = box.replies[handle]
    assert all(isinstance(page, ConflictList | UnmatchedList) for page in replies), replies
    return replies  # type: ignore[return-value]


def conflicts(box: Box) -> list[VehicleRow]:
    return [row for page in pages(box, ReadConflicts()) for row in page.rows]  # type: ignore


def unmatched(box: Box, dot: Dot | None = None) -> list[UnmatchedRow]:
    return [row for page in pages(box, ReadUnmatched(dot)) for row in page.rows]  # type: ignore


def suggested(box: Box) -> dict[str, list[str]]:
    """The plates like each unmatched exit, best first."""
    return {row[0]: [stay[0] for stay in row[6]] for row in unmatched(box)}


def leave_unmatched(box: Box, plate: str, request: bytes | None = REQUEST) -> Dot:
    left = box.ask(RecordExit(plate, 2, request), Exit)
    assert (left.matched, left.warnings) == ("none", ("unmatched",))
    return left.dot


# --- conflicts ---------------------------------------------------------------------------------


def in_conflict() -> tuple[Stage, Box, Box, set[Dot]]:
    """KA1 came in on both sides of a cut; KA2 on one."""
    stage, a, b = pair()
    stage.cut("a")
    dots = {a.track("KA1", REQUEST), b.track("KA1", OTHER, gate=2)}
    b.track("KA2")
    stage.heal()
    stage.pass_ms(5_000)
    return stage, a, b, dots


def test_a_conflict_is_listed_with_both_stays_alike_on_every_node() -> None:
    _, a, b, dots = in_conflict()
    rows = conflicts(a)
    assert rows == conflicts(b)
    assert {(row[4], row[5]) for row in rows} == dots
    assert {(row[0], row[2], row[3]) for row in rows} == {("KA1", 1, "a"), ("KA1", 2, "b")}


def test_a_conflict_is_settled_by_removing_the_stay_that_is_wrong() -> None:
    stage, a, b, dots = in_conflict()
    wrong, right = sorted(dots)
    change = b.ask(Remove("KA1", wrong, None), Change)
    assert change.closed == (wrong,)
    stage.pass_ms(100)
    for box in (a, b):
        assert conflicts(box) == []
        assert box.shown("KA1") == {right}


def test_a_stay_that_a_car_inside_does_not_have_is_said_to_be_what_is_missing() -> None:
    _, a, _, dots = in_conflict()
    failed = a.ask(Remove("KA1", (1, 1), None), Failure)
    assert failed.code == ErrorCode.NOT_INSIDE
    assert failed.reason == "KA1 is inside, but has no stay 0000000000000001:1"
    assert "where KA1" in failed.hint
    assert a.ask(Remove("KA9", (1, 1), None), Failure).reason == "KA9 is not inside"
    assert a.shown("KA1") == dots


def test_a_stay_is_removed_with_those_of_the_same_request() -> None:
    """One request that two nodes carried out is one car: without it, its twin would be shown."""
    stage, a, b = pair()
    stage.cut("a")
    twins = {a.track("KA1", REQUEST), b.track("KA1", REQUEST)}
    stage.heal()
    stage.pass_ms(5_000)
    (shown,) = a.shown("KA1")
    assert set(a.ask(Remove("KA1", shown, None), Change).closed) == twins
    stage.pass_ms(100)
    assert a.shown("KA1") == b.shown("KA1") == set()


def test_many_conflicts_come_in_pages_and_no_plate_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "CONFLICTS_PAGE", 2)
    stage, a, b = pair()
    stage.cut("a")
    for box in (a, b):
        for number in range(5):
            box.track(f"KA{number}")
    stage.heal()
    stage.pass_ms(5_000)
    given = [[row[0] for row in page.rows] for page in pages(a, ReadConflicts())]
    assert given == [["KA0", "KA0", "KA1", "KA1"], ["KA2", "KA2", "KA3", "KA3"], ["KA4", "KA4"]]


# --- unmatched exits ---------------------------------------------------------------------------


def test_an_unmatched_exit_is_listed_with_the_most_alike_plates_inside() -> None:
    stage, a, b = pair()
    for plate in ("ABC12D", "ABC1Z0", "ABC1", "XYZ999", "ABC129"):
        a.track(plate)
    stage.pass_ms(1_000)
    dot = leave_unmatched(b, "ABC120")
    stage.pass_ms(1_000)
    (row,) = unmatched(a)
    assert (row[0], row[2], row[3], (row[4], row[5])) == ("ABC120", 2, "b", dot)
    assert [stay[0] for stay in row[6]] == ["ABC12D", "ABC1Z0", "ABC129"]
    assert unmatched(b) == [row]
    assert unmatched(a, dot) == [row]
    assert unmatched(a, (dot[0], dot[1] + 1)) == []


def test_a_car_that_came_in_later_is_not_suggested() -> None:
    stage, a, _ = pair()
    leave_unmatched(a, "ABC120")
    stage.pass_ms(1_000)
    a.track("ABC12O")
    a.track("ABC120")
    assert suggested(a) == {"ABC120": []}


def test_an_exit_that_matched_is_not_listed() -> None:
    _, a, _ = pair()
    a.track("KA1")
    a.exit("KA1", REQUEST)
    assert unmatched(a) == []


@pytest.mark.parametrize("request_id", [REQUEST, None], ids=["with an id", "without"])
def test_the_list_is_the_same_after_a_restart_and_on_a_node_that_joins_later(
    request_id: bytes | None,
) -> None:
    """Its mark has been collected by then: what is remembered of the request tells of it."""
    stage, a, b = pair()
    a.track("ABC12O")
    stage.pass_ms(1_000)
    leave_unmatched(b, "ABC120", request_id)
    stage.pass_ms(20_000)
    assert a.node.state.stays.mark_count == 0
    listed = unmatched(a)
    assert len(listed) == 1
    c = stage.box("c", 3).start(knows=["a", "b"])
    b.stop()
    b.start(knows=["a"])
    stage.pass_ms(10_000)
    assert unmatched(b) == unmatched(c) == listed


def test_after_a_day_it_is_no_longer_listed() -> None:
    stage, a, _ = pair()
    leave_unmatched(a, "ABC120")
    stage.mono_ms += REQUEST_MEMORY_MS - 60_000
    a.track("KA1")
    assert len(unmatched(a)) == 1
    stage.mono_ms += 120_000
    a.track("KA2")
    assert unmatched(a) == []


def test_a_search_goes_slice_by_slice_and_every_row_comes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repairs, "SLICE_PLATES", 2)
    monkeypatch.setattr(repairs, "UNMATCHED_PAGE", 2)
    stage, a, _ = pair()
    for number in range(5):
        a.track(f"IN{number}A")
    stage.pass_ms(1_000)
    for number in range(3):
        leave_unmatched(a, f"OUT{number}", bytes([number]) * 16)
        stage.pass_ms(10)
    leave_unmatched(a, "INOA", OTHER)
    given = [[row[0] for row in page.rows] for page in pages(a, ReadUnmatched(None))]
    assert given == [[], [], [], ["INOA", "OUT2"], ["OUT1", "OUT0"]]
    assert suggested(a)["INOA"] == [f"IN{number}A" for number in range(5)]


def test_of_too_many_the_latest_are_shown_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "UNMATCHED_MAX", 2)
    stage, a, _ = pair()
    for number in range(3):
        leave_unmatched(a, f"KA{number}", bytes([number]) * 16)
        stage.pass_ms(10)
    assert [row[0] for row in unmatched(a)] == ["KA2", "KA1"]
    (page,) = pages(a, ReadUnmatched(None))
    assert isinstance(page, UnmatchedList)
    assert page.warnings == ("only the latest 2 of 3 are shown",)


# --- settling ----------------------------------------------------------------------------------


def test_removing_the_car_of_an_exit_settles_it_on_every_node() -> None:
    stage, a, b = pair()
    stay = a.track("ABC12O")
    stage.pass_ms(1_000)
    dot = leave_unmatched(b, "ABC120")
    change = a.ask(Remove("abc-12o", None, OTHER, dot), Change)
    assert change.closed == (stay,)
    assert change.what == "ABC12O was removed: it left as ABC120"
    stage.pass_ms(100)
    for box in (a, b):
        assert box.shown("ABC12O") == set()
        assert unmatched(box) == []
        again = box.ask(Remove("ABC12O", None, None, dot), Change)
        assert (again.closed, again.warnings) == ((), ("repeated",))
        other = box.ask(Remove("ABC12D", None, None, dot), Failure)
        assert other.code == ErrorCode.EXIT_SETTLED
        assert "ABC12O" in other.reason


def test_what_came_in_after_that_exit_is_not_removed_with_it() -> None:
    stage, a, _ = pair()
    dot = leave_unmatched(a, "ABC120")
    stage.pass_ms(1_000)
    stay = a.track("ABC12O")
    failure = a.ask(Remove("ABC12O", None, None, dot), Failure)
    assert failure.code == ErrorCode.NOT_INSIDE
    assert a.shown("ABC12O") == {stay}
    assert len(unmatched(a)) == 1


def test_an_exit_that_matched_and_one_that_nobody_knows_cannot_be_settled() -> None:
    _, a, _ = pair()
    a.track("KA1")
    for dot in (a.exit("KA1", REQUEST), (a.replica, 99)):
        failure = a.ask(Remove("KA1", None, None, dot), Failure)
        assert failure.code == ErrorCode.UNKNOWN_EXIT
        assert f":{dot[1]}" in failure.reason


def test_a_plain_removal_or_entry_settles_no_exit() -> None:
    """Nothing is settled by likeness alone."""
    stage, a, _ = pair()
    a.track("ABC12O")
    stage.pass_ms(1_000)
    leave_unmatched(a, "ABC120")
    a.ask(Remove("ABC12O", None, None), Change)
    a.track("ABC120")
    assert suggested(a) == {"ABC120": []}
