"""What a node tells of the lot, of itself and of its cluster; and `wait`."""

from __future__ import annotations

import pytest

from parkingd.protocol.commands import (
    Condition,
    ImportRow,
    ImportRows,
    ReadLog,
    ReadLot,
    ReadMembers,
    ReadStatus,
    ReadVehicles,
    RecordExit,
    SetSpaces,
    Track,
    WaitFor,
    Where,
)
from parkingd.protocol.outcomes import (
    Change,
    Entry,
    ErrorCode,
    Exit,
    Failure,
    ImportResult,
    LogPage,
    Lot,
    MemberList,
    Status,
    Vehicle,
    VehicleList,
    Wait,
)
from tests.unit.scripted import Box, Stage


def fill(box: Box, cars: int, first: int = 1) -> None:
    for start in range(first, first + cars, 500):
        rows = tuple(
            ImportRow(number, f"KA{number}", 1, None, number.to_bytes(16, "big"))
            for number in range(start, min(start + 500, first + cars))
        )
        assert box.ask(ImportRows(rows), ImportResult).accepted == len(rows)


@pytest.mark.parametrize(
    ("cars", "word", "free", "overbooked"),
    [
        (0, "open", 20, 0),
        (17, "open", 3, 0),
        (18, "almost_full", 2, 0),
        (19, "almost_full", 1, 0),
        (20, "full", 0, 0),
        (23, "full", -3, 3),
    ],
)
def test_a_lot_is_open_almost_full_or_full_and_says_by_how_much_it_is_overbooked(
    cars: int, word: str, free: int, overbooked: int
) -> None:
    stage = Stage()
    a = stage.box("a", 1, spaces=20).start()
    stage.pass_ms(2_000)
    fill(a, cars)
    lot = a.ask(ReadLot(), Lot)
    assert (lot.inside, lot.state, lot.free, lot.overbooked) == (cars, word, free, overbooked)
    warned = f"overbooked by {overbooked}" in a.ask(ReadStatus(), Status).warnings
    assert warned == bool(overbooked)


def test_spaces_are_one_register_for_all_and_the_last_writer_wins() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    fill(a, 3)
    change = a.ask(SetSpaces(2, None), Change)
    assert change.what == "spaces: 100 -> 2"
    assert change.warnings == ("overbooked by 1",)
    assert b.ask(ReadLot(), Lot).spaces == 2
    stage.cut("a")
    a.ask(SetSpaces(50, None), Change)
    stage.pass_ms(1_000)
    b.ask(SetSpaces(60, None), Change)
    stage.heal()
    stage.pass_ms(8_000)
    assert a.ask(ReadLot(), Lot).spaces == b.ask(ReadLot(), Lot).spaces == 60


def test_a_conflict_is_listed_until_it_is_settled() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    stage.cut("a")
    first, second = a.track("KA1"), b.track("KA1")
    stage.heal()
    stage.pass_ms(8_000)
    for box in (a, b):
        assert box.ask(ReadLot(), Lot).conflicts == ("KA1",)
        rows = box.ask(Where("KA1"), Vehicle).rows
        assert {(row[4], row[5]) for row in rows} == {first, second}
        assert [row[6] for row in rows] == [True, True]
        assert any("inside more than once" in w for w in box.ask(ReadStatus(), Status).warnings)
    left = b.ask(RecordExit("KA1", 1, None), Exit)
    assert left.matched == "conflict"
    assert a.ask(ReadLot(), Lot).conflicts == ()


def test_an_entry_of_a_car_that_is_inside_warns_of_the_missed_exit() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.track("KA1")
    entry = b.ask(Track("KA1", 2, None), Entry)
    assert entry.warnings == ("missed_exit",)
    assert a.ask(ReadLot(), Lot).inside == 1
    assert stage.mono_ms


def test_an_exit_never_fails_for_what_the_lot_holds() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    unknown = a.ask(RecordExit("KA1", 77, None), Exit)
    assert unknown.matched == "none"
    assert set(unknown.warnings) == {"unmatched", "unknown_gate"}
    assert unknown.stay_s is None
    assert a.ask(RecordExit("!!", 1, None), Failure).code == ErrorCode.INVALID_PLATE
    assert stage.mono_ms


def test_one_plate_is_found_however_it_is_written() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    entry = a.ask(Track("ka-1 é", 2, None), Entry)
    assert entry.plate == "KA1É"
    (row,) = b.ask(Where("KA 1É"), Vehicle).rows
    assert row[:1] + row[2:] == ("KA1É", 2, "a", *entry.dot, False)
    assert b.ask(Where("KA2"), Vehicle).inside is False
    assert stage.mono_ms


def test_every_stay_is_listed_once_over_pages_while_the_lot_changes() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    fill(a, 4_500)
    handle = a.submit(ReadVehicles())
    for step in range(5):
        a.tick()
        a.track(f"KN{step}")
        a.exit(f"KA{4_000 + step}")
    pages = a.replies[handle]
    assert len(pages) == 3
    plates = [row[0] for page in pages if isinstance(page, VehicleList) for row in page.rows]
    assert len(plates) == len(set(plates))
    assert set(plates) >= {f"KA{number}" for number in range(1, 4_000)}
    assert stage.mono_ms


def test_the_log_lists_what_somebody_may_still_lack() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.stop()
    a.track("KA1")
    a.exit("KA1")
    handle = a.submit(ReadLog())
    a.tick()
    (page,) = a.replies[handle]
    assert isinstance(page, LogPage)
    kinds = [row[3] for row in page.rows if row[4] == "KA1"]
    assert kinds == ["enter", "exit"]
    assert stage.mono_ms


def test_members_are_listed_with_their_state_itself_first() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.pass_ms(20_000)
    met = a.ask(ReadMembers(), MemberList).items
    assert [row.rtt_ms is None for row in met] == [True, False, False]
    b.stop()
    stage.pass_ms(3_000)
    rows = a.ask(ReadMembers(), MemberList).items
    assert [(row.name, row.state) for row in rows] == [
        ("a", "alive"),
        ("b", "dead"),
        ("c", "alive"),
    ]
    assert rows[1].last_heard_s >= 2
    assert rows[2].last_heard_s < 1
    assert [row.rtt_ms is None for row in rows] == [True, True, False]
    assert rows[2].address == str(c.address)
    status = a.ask(ReadStatus(), Status)
    assert dict(status.members)["alive"] == 2
    assert dict(status.members)["dead"] == 1
    assert status.root == c.ask(ReadStatus(), Status).root


def test_exits_that_cannot_be_collected_name_whom_they_wait_for() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    c.stop()
    for number in range(1_000):
        a.exit(f"KA{number}")
    stage.pass_ms(5_000)
    for box in (a, b):
        (line,) = (
            line for line in box.ask(ReadStatus(), Status).warnings if "exits are kept" in line
        )
        assert "until c has" in line
        assert "members forget" in line


# --- wait --------------------------------------------------------------------------------------


def waiting(box: Box, *conditions: Condition, wait_ms: int = 5_000) -> int:
    return box.submit(WaitFor(conditions), wait_ms)


def test_a_wait_is_answered_when_all_its_conditions_hold() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    handle = waiting(
        a, Condition("inside", 2, at_least=False), Condition("synced", 1, at_least=True)
    )
    b.track("KB1")
    assert a.answer(handle) is None
    b.track("KB2")
    answer = a.answer(handle)
    assert isinstance(answer, Wait)
    assert answer.met
    assert [(state.condition, state.met, state.value) for state in answer.conditions] == [
        ("inside=2", True, "2"),
        ("synced", True, "true"),
    ]
    assert stage.mono_ms


def test_a_wait_that_is_not_met_ends_at_its_deadline_with_what_it_saw() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    handle = waiting(a, Condition("members", 3, at_least=True), wait_ms=1_000)
    stage.pass_ms(990)
    assert a.answer(handle) is None
    stage.pass_ms(20)
    answer = a.answer(handle)
    assert isinstance(answer, Wait)
    assert not answer.met
    assert answer.conditions[0].value == "1"


def test_a_wait_for_members_counts_the_living_and_itself() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    handle = waiting(a, Condition("members", 1, at_least=False))
    assert a.answer(handle) is None
    b.stop()
    stage.pass_ms(2_500)
    answer = a.answer(handle)
    assert isinstance(answer, Wait)
    assert answer.met


def test_a_wait_for_cars_does_not_count_what_is_not_on_disk() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.commits = False
    a.submit(Track("KA1", 1, None))
    handle = waiting(a, Condition("inside", 1, at_least=True))
    stage.pass_ms(500)
    assert a.answer(handle) is None
    a.persist()
    assert isinstance(a.answer(handle), Wait)


def test_a_node_is_ready_alone_after_its_discovery_or_in_sync_with_others() -> None:
    stage = Stage()
    a = stage.box("a", 1).start()
    handle = waiting(a, Condition("ready", 1, at_least=True), wait_ms=10_000)
    stage.pass_ms(1_000)
    assert a.answer(handle) is None
    stage.pass_ms(1_000)
    answer = a.answer(handle)
    assert isinstance(answer, Wait)
    assert answer.met
