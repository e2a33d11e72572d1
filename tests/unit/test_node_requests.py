"""One request id has one effect, on whichever node it is repeated, within a day (P9)."""

from __future__ import annotations

import pytest

from parkingd.protocol.commands import (
    Command,
    Correct,
    ImportRow,
    ImportRows,
    ReadLot,
    RecordExit,
    Remove,
    SetSpaces,
    Track,
)
from parkingd.protocol.limits import REQUEST_MEMORY_MS
from parkingd.protocol.outcomes import (
    Change,
    Entry,
    ErrorCode,
    Exit,
    Failure,
    ImportResult,
    Lot,
)
from tests.unit.scripted import Box, Stage

REQUEST = b"r" * 16
OTHER = b"s" * 16


def pair() -> tuple[Stage, Box, Box]:
    stage = Stage()
    a, b = stage.found("a", "b")
    return stage, a, b


def code(box: Box, command: Command) -> str:
    return box.ask(command, Failure).code


# --- the same again ----------------------------------------------------------------------------


def test_a_repeated_entry_is_answered_with_the_first_and_records_nothing() -> None:
    _, a, b = pair()
    first = a.ask(Track("KA 1", 1, REQUEST), Entry)
    for box in (a, b):
        own = box.node.own_seq
        again = box.ask(Track("KA1", 1, REQUEST), Entry)
        assert (again.dot, again.gate, again.time) == (first.dot, first.gate, first.time)
        assert again.warnings == ("repeated",)
        assert box.node.own_seq == own
        assert box.ask(ReadLot(), Lot).inside == 1


def test_a_repeated_exit_is_answered_with_the_first_and_leaves_no_second_mark() -> None:
    stage, a, b = pair()
    a.track("KA1")
    stage.pass_ms(60_000)
    first = a.ask(RecordExit("KA1", 2, REQUEST), Exit)
    assert first.matched == "exact"
    assert first.stay_s == 60
    for box in (a, b):
        own = box.node.own_seq
        again = box.ask(RecordExit("KA1", 2, REQUEST), Exit)
        assert (again.dot, again.matched, again.stay_s) == (first.dot, "exact", 60)
        assert again.warnings == ("repeated",)
        assert box.node.own_seq == own


def test_an_entry_repeated_after_the_car_has_left_does_not_bring_it_back() -> None:
    stage, a, b = pair()
    first = a.ask(Track("KA1", 1, REQUEST), Entry)
    b.exit("KA1")
    stage.pass_ms(20_000)
    assert a.node.state.stays.mark_count == 0, "nothing tells of it but the remembered request"
    for box in (a, b):
        assert box.ask(Track("KA1", 1, REQUEST), Entry).dot == first.dot
        assert box.shown("KA1") == set()


def test_an_exit_repeated_after_the_car_has_come_back_does_not_drive_it_out() -> None:
    _, a, b = pair()
    a.track("KA1")
    left = a.exit("KA1", REQUEST)
    back = b.track("KA1")
    for box in (a, b):
        assert box.ask(RecordExit("KA1", 1, REQUEST), Exit).dot == left
        assert box.shown("KA1") == {back}


def test_a_request_is_remembered_across_a_restart() -> None:
    stage, a, b = pair()
    entry = a.ask(Track("KA1", 1, REQUEST), Entry)
    leave = a.ask(RecordExit("KA1", 1, OTHER), Exit)
    stage.pass_ms(20_000)
    for box, other in ((a, "b"), (b, "a")):
        box.start(knows=[other])
        stage.pass_ms(4_000)
        assert box.ask(Track("KA1", 1, REQUEST), Entry).dot == entry.dot
        assert box.ask(RecordExit("KA1", 1, OTHER), Exit).dot == leave.dot
        assert box.shown("KA1") == set()


def test_a_request_whose_stay_is_still_inside_is_remembered_across_a_restart() -> None:
    stage, a, _ = pair()
    entry = a.ask(Track("KA1", 1, REQUEST), Entry)
    a.start(knows=["b"])
    stage.pass_ms(4_000)
    assert a.ask(Track("KA1", 1, REQUEST), Entry).dot == entry.dot


def test_a_request_is_remembered_by_a_node_that_joined_by_snapshot() -> None:
    stage, a, _ = pair()
    inside = a.ask(Track("KA1", 1, REQUEST), Entry)
    gone = a.ask(Track("KA2", 1, OTHER), Entry)
    leave = a.ask(RecordExit("KA2", 1, b"t" * 16), Exit)
    stage.pass_ms(20_000)
    c = stage.box("c", 3).start(knows=["a"])
    stage.pass_ms(4_000)
    assert c.node.counters["snapshots_joined"] == 1
    assert c.ask(Track("KA1", 1, REQUEST), Entry).dot == inside.dot
    assert c.ask(Track("KA2", 1, OTHER), Entry).dot == gone.dot
    assert c.ask(RecordExit("KA2", 1, b"t" * 16), Exit).dot == leave.dot


def test_a_request_is_forgotten_after_a_day() -> None:
    stage, a, b = pair()
    a.ask(Track("KA1", 1, REQUEST), Entry)
    a.exit("KA1")
    stage.pass_ms(5_000)
    assert REQUEST in b.node.state.stays.requests
    stage.flows = False  # A day of heartbeats need not be delivered.
    for box in (a, b):
        box.stop()
    stage.mono_ms += REQUEST_MEMORY_MS
    stage.flows = True
    stage.letters.clear()
    for box, other in ((a, "b"), (b, "a")):
        box.start(knows=[other])
    stage.pass_ms(5_000)
    a.track("KA9")
    stage.pass_ms(5_000)
    for box in (a, b):
        assert REQUEST not in box.node.state.stays.requests


# --- the same in two places at once ------------------------------------------------------------


def test_an_entry_recorded_on_both_sides_of_a_cut_is_one_car() -> None:
    stage, a, b = pair()
    stage.cut("a")
    one, two = a.track("KA1", REQUEST), b.track("KA1", REQUEST)
    stage.heal()
    stage.pass_ms(8_000)
    for box in (a, b):
        lot = box.ask(ReadLot(), Lot)
        assert (lot.inside, lot.conflicts) == (1, ())
        assert len(box.shown("KA1")) == 1
    assert a.shown("KA1") == b.shown("KA1")
    assert a.shown("KA1") <= {one, two}


def test_an_exit_of_a_car_recorded_twice_closes_both_records() -> None:
    stage, a, b = pair()
    stage.cut("a")
    a.track("KA1", REQUEST)
    a.exit("KA1")
    stage.pass_ms(5_000)
    b.track("KA1", REQUEST)
    stage.heal()
    stage.pass_ms(8_000)
    assert a.shown("KA1") == b.shown("KA1") == set()


def test_a_correction_made_on_both_sides_of_a_cut_is_one_car() -> None:
    stage, a, b = pair()
    a.track("KA1")
    stage.cut("a")
    a.ask(Correct("KA1", "KB1", REQUEST), Change)
    b.ask(Correct("KA1", "KC1", OTHER), Change)
    stage.heal()
    stage.pass_ms(8_000)
    for box in (a, b):
        assert box.ask(ReadLot(), Lot).inside == 1
        assert not box.shown("KA1")
        assert len(box.shown("KB1")) + len(box.shown("KC1")) == 1
    a.exit("KB1")
    assert b.ask(ReadLot(), Lot).inside == 0
    assert not b.shown("KC1")


def test_an_import_repeated_on_another_node_adds_nothing() -> None:
    _, a, b = pair()
    rows = tuple(ImportRow(n, f"KA{n}", 1, 1_000 * n, bytes([n]) * 16) for n in range(1, 6))
    assert a.ask(ImportRows(rows), ImportResult).accepted == 5
    for box in (a, b):
        again = box.ask(ImportRows(rows), ImportResult)
        assert (again.accepted, again.skipped, again.failed) == (0, 5, ())
    b.exit("KA3")
    assert a.ask(ImportRows(rows), ImportResult).skipped == 5
    assert a.ask(ReadLot(), Lot).inside == 4


@pytest.mark.parametrize(
    "command",
    [
        Correct("KA1", "KB1", REQUEST),
        Remove("KA1", None, REQUEST),
        SetSpaces(7, REQUEST),
    ],
)
def test_a_repeated_repair_or_setting_is_done_once(command: Command) -> None:
    stage, a, b = pair()
    a.track("KA1")
    a.ask(command, Change)
    back = a.track("KA1")
    for box in (a, b):
        own = box.node.own_seq
        assert "repeated" in box.ask(command, Change).warnings
        assert box.node.own_seq == own
        assert box.shown("KA1") == {back}
    a.start(knows=["b"])
    stage.pass_ms(4_000)
    assert "repeated" in a.ask(command, Change).warnings


# --- the id of something else ------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        Track("KA2", 1, REQUEST),
        RecordExit("KA1", 1, REQUEST),
        Remove("KA1", None, REQUEST),
        Correct("KA1", "KA3", REQUEST),
        SetSpaces(5, REQUEST),
    ],
)
def test_an_id_used_for_another_plate_or_verb_is_refused_everywhere(other: Command) -> None:
    _, a, b = pair()
    a.track("KA1", REQUEST)
    for box in (a, b):
        own = box.node.own_seq
        assert code(box, other) == ErrorCode.REQUEST_REUSED
        assert box.node.own_seq == own
    a.exit("KA1")
    for box in (a, b):
        assert code(box, other) == ErrorCode.REQUEST_REUSED


def test_an_import_row_with_an_id_of_something_else_is_reported_by_its_line() -> None:
    _, a, _ = pair()
    a.track("KA1", REQUEST)
    rows = (ImportRow(7, "KA2", 1, None, REQUEST), ImportRow(8, "KA3", 1, None, OTHER))
    result = a.ask(ImportRows(rows), ImportResult)
    assert (result.accepted, result.skipped) == (1, 0)
    assert [failure.line for failure in result.failed] == [7]


def test_an_entry_whose_plate_was_corrected_since_is_still_answered() -> None:
    _, a, b = pair()
    entry = a.track("KA1", REQUEST)
    a.ask(Correct("KA1", "KB1", None), Change)
    for box in (a, b):
        again = box.ask(Track("KA1", 1, REQUEST), Entry)
        assert again.dot == entry
        assert len(box.shown("KB1")) == 1


def test_a_refused_write_does_not_use_its_id_up() -> None:
    _, a, _ = pair()
    assert code(a, Track("KA1", 99, REQUEST)) == ErrorCode.UNKNOWN_GATE
    assert code(a, Remove("KA1", None, REQUEST)) == ErrorCode.NOT_INSIDE
    assert a.ask(Track("KA1", 1, REQUEST), Entry).warnings == ()
