"""The journal: what is noted of what happens, and when it is told."""

from __future__ import annotations

from pathlib import Path

from parkingd.protocol.commands import AskToEnter, Correct, Leave, Remove, SetSpaces, Track
from parkingd.protocol.effects import StartOver, StartOverReason
from parkingd.protocol.event_types import EVENT_TYPES
from parkingd.protocol.lookout import CALM_MS, FORGET_MS
from parkingd.protocol.messages import Delta
from parkingd.protocol.outcomes import Change, Decision
from tests.unit.scripted import Box, Stage

DAY_MS = 24 * 3_600_000
REQUEST = b"q" * 16
PAGE = Path(__file__).parents[2] / "docs/reference-events.md"


def alone(**settings: object) -> tuple[Stage, Box]:
    stage = Stage()
    (a,) = stage.found("a", gates=2, **settings)
    return stage, a


def noted(box: Box, since: int = 0) -> list[str]:
    return [line.type for line in box.told[since:]]


def detail(box: Box, type_: str) -> list[dict[str, object]]:
    return [dict(line.detail) for line in box.lines(type_)]


# --- what is noted ---------------------------------------------------------------------------


def test_a_day_at_the_gates_with_who_where_when_and_why() -> None:
    stage, a = alone(spaces=2)
    before = len(a.told)
    a.ask(AskToEnter("ka 1", 1, REQUEST), Decision)
    a.ask(AskToEnter("KA1", 2, b"r" * 16), Decision)
    a.track("KB2", gate=2)
    a.ask(AskToEnter("KC3", 1, b"s" * 16), Decision)
    a.track("KD4")
    a.ask(Correct("KD4", "KD5", None), Change)
    a.ask(Remove("KD5", None, None), Change)
    stage.pass_ms(7_000)
    a.exit("KA1", gate=2)
    a.exit("XX9")
    told = a.told[before:]
    assert noted(a, before) == [
        *("admitted", "denied", "entered", "denied", "entered", "overbooked"),
        *("corrected", "removed", "overbooking_ended", "exited", "unmatched_exit"),
    ]
    assert [line.seq for line in told] == list(range(told[0].seq, told[0].seq + 11))
    assert {(line.member, line.replica) for line in told} == {("a", a.replica)}
    admitted, inside, _, full = told[:4]
    assert (admitted.plate, admitted.gate, admitted.request) == ("KA1", 1, REQUEST)
    assert admitted.at_ms == a.now.wall_ms - 7_000
    assert (inside.plate, inside.gate, inside.reason) == ("KA1", 2, "already_inside")
    assert (inside.request, inside.event) == (b"r" * 16, None)
    assert full.reason == "full"
    assert detail(a, "overbooked") == [{"inside": 3, "spaces": 2}]
    assert detail(a, "corrected") == [{"was": "KD4"}]
    assert detail(a, "exited") == [{"matched": "exact", "stay_s": 7}]
    assert set(noted(a)) <= set(EVENT_TYPES)


def test_the_same_event_has_the_same_dot_and_time_in_every_journal() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    b.skew_ms = 2_000
    dot = b.track("KA1")
    for box in (a, b):
        (line,) = box.lines("entered")
        assert (line.replica, line.event, line.member) == (*dot, "b")
        assert line.at_ms == b.now.wall_ms


def test_the_clock_of_another_that_runs_ahead_dates_no_line() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    stage.cut("b")
    stage.pass_ms(5_000)
    b.skew_ms = 40 * DAY_MS
    b.track("KA1")
    stage.heal()
    stage.pass_ms(3_000)
    (line,) = a.lines("entered")
    assert line.at_ms <= a.now.wall_ms
    (own,) = b.lines("entered")
    assert own.at_ms > a.now.wall_ms + 39 * DAY_MS


def test_a_conflict_is_noted_when_it_begins_and_when_it_is_settled() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    stage.cut("b")
    a.track("KA1")
    b.track("KA1")
    stage.heal()
    stage.pass_ms(3_000)
    for box in (a, b):
        (conflict,) = box.lines("conflict")
        assert (conflict.plate, conflict.detail) == ("KA1", (("stays", 2),))
    a.stop()
    a.start(knows=["b"])
    stage.pass_ms(3_000)
    a.exit("KA1")
    for box in (a, b):
        assert len(box.lines("conflict")) == 1, "a restart does not note it again"
        assert [line.plate for line in box.lines("conflict_settled")] == ["KA1"]


def test_a_setting_says_what_it_was_and_who_changed_it() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1, spaces=10)
    a.ask(SetSpaces(20, None), Change)
    stage.cut("b")
    b.ask(SetSpaces(25, None), Change)
    stage.pass_ms(1_000)
    a.ask(SetSpaces(30, REQUEST), Change)
    stage.heal()
    stage.pass_ms(3_000)
    assert [line.member for line in a.lines("setting")] == ["a", "a", "b"]
    assert detail(a, "setting") == [
        {"key": "spaces", "old": 10, "new": 20},
        {"key": "spaces", "old": 20, "new": 30},
        {"key": "spaces", "new": 25, "superseded_by": 30},
    ]
    assert detail(b, "setting")[1:] == [
        {"key": "spaces", "old": 20, "new": 25},
        {"key": "spaces", "old": 20, "new": 30},
    ]


def test_members_come_fall_silent_return_die_and_leave() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c", gates=3)
    before = len(a.told)
    stage.cut("b")
    stage.pass_ms(4_000)
    stage.heal()
    stage.pass_ms(8_000)
    b.kill()
    stage.pass_ms(2_000)
    c.submit(Leave())
    stage.pass_ms(2_000)
    told = [(line.type, line.member, line.reason) for line in a.told[before:]]
    members = [each for each in told if each[0].startswith("member_")]
    assert members == [
        ("member_suspect", "b", "silent"),
        ("member_dead", "b", "silent"),
        ("member_alive", "b", None),
        ("member_suspect", "b", "refused"),
        ("member_dead", "b", "refused"),
        ("member_left", "c", None),
    ]
    assert [line.member for line in a.lines("member_joined")] == ["b", "c"]
    assert {line.replica for line in a.lines("member_dead")} == {b.replica}


def test_gates_are_claimed_contested_and_left_without_an_owner() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=2)
    assert {"owner", "epoch"} == set(detail(a, "gate_claimed")[0])
    assert "target" in detail(a, "gate_released")[0]
    stage.cut("b")
    stage.pass_ms(6_000)
    stage.heal()
    stage.pass_ms(3_000)
    contested = a.lines("gate_contested")
    assert {line.detail for line in contested} == {(("claims", ("a", "b")),)}
    assert len({line.gate for line in contested}) == len(contested), "each is noted once"
    assert not a.lines("gate_unowned")
    for box in (a, b):
        box.disk.fail("full")
        box.submit(Track("KA1", 1, None))
    stage.pass_ms(8_000)
    for box in (a, b):
        box.disk.recover()
        box.persist()
    stage.pass_ms(8_000)
    unowned, served = a.lines("gate_unowned"), a.lines("gate_served")
    assert {line.gate for line in unowned} == {line.gate for line in served} == {1, 2}


def test_a_snapshot_is_one_line() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1, log_events_max=3)
    stage.cut("b")
    for number in range(12):
        a.track(f"CAR{number}")
    stage.pass_ms(4_000)
    stage.heal()
    stage.pass_ms(6_000)
    assert b.node.state.stays.visible_count == 12
    assert [line.member for line in b.lines("snapshot_joined")] == ["a"]


def test_a_warning_begins_and_ends_and_another_number_is_no_other_warning() -> None:
    stage, a = alone(spaces=1)
    a.track("KA1")
    a.track("KB2")
    stage.pass_ms(1_500)
    a.track("KC3")
    stage.pass_ms(1_500)
    texts = [dict(line.detail)["text"] for line in a.lines("warning")]
    assert texts == ["overbooked by 1"]
    for plate in ("KA1", "KB2"):
        a.exit(plate)
    stage.pass_ms(3_000)
    a.track("KD4")
    stage.pass_ms(CALM_MS)
    assert not a.lines("warning_ended"), "it came back within the calm"
    a.exit("KD4")
    stage.pass_ms(CALM_MS + 2_000)
    assert len(a.lines("warning")) == 1
    assert [line.detail for line in a.lines("warning_ended")] == [(("text", "overbooked by 1"),)]


# --- when it is told -------------------------------------------------------------------------


def test_nothing_is_told_before_the_disk_has_it_and_it_travels_with_its_event() -> None:
    _, a = alone()
    a.commits = False
    before = len(a.told)
    dot = a.node.own_seq + 1
    a.node.submit(1, AskToEnter("KA1", 1, REQUEST), a.now.mono_ms + 5_000, a.now)
    a.take()
    assert len(a.told) == before
    batch = next(batch for batch in a.batches if any(run.last == dot for run in batch.runs))
    assert [line.type for line in batch.journal] == ["admitted"]
    a.persist()
    assert noted(a, before) == ["admitted"]


def test_after_a_power_cut_the_numbers_go_on_and_nothing_is_told_twice() -> None:
    stage, a = alone()
    a.track("KA1")
    last = a.told[-1].seq
    a.commits = False
    a.node.submit(1, AskToEnter("KB2", 1, REQUEST), a.now.mono_ms + 5_000, a.now)
    a.take()
    a.stop()
    a.commits = True
    a.start()
    stage.pass_ms(3_000)
    a.track("KC3")
    seqs = [line.seq for line in a.told]
    assert seqs == list(range(1, len(seqs) + 1))
    assert a.told[-1].plate == "KC3"
    assert a.told[-1].seq > last
    assert [line.plate for line in a.lines("entered", "admitted")] == ["KA1", "KC3"]


def test_the_numbers_go_on_in_another_lot() -> None:
    stage, a = alone()
    a.track("KA1")
    last = a.told[-1].seq
    a.end = StartOver(StartOverReason.OLDER_LOT, keep=False)
    a.runs = False
    a.succeed()
    stage.pass_ms(6_000)
    a.track("KB2")
    assert min(line.seq for line in a.told if line.replica == a.replica) == last + 1


def test_a_line_is_too_old_from_the_first_second_on_and_then_minute_by_minute() -> None:
    stage, a = alone(journal_ms=7 * DAY_MS)
    a.stop()
    a.batches.clear()
    a.start()
    stage.pass_ms(1_100)
    (first,) = [batch.journal_before for batch in a.batches if batch.journal_before is not None]
    assert a.now.wall_ms - 1_100 <= first + 7 * DAY_MS <= a.now.wall_ms
    stage.pass_ms(3 * FORGET_MS + 2_000)
    told = [batch.journal_before for batch in a.batches if batch.journal_before is not None]
    assert len(told) == 1 + 3
    assert told == sorted(told)


def test_a_late_repetition_of_an_event_is_not_noted_again() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=1)
    dot = a.track("KA1")
    assert a.has_sent(Delta)
    b.give(a, dot)
    assert len(b.lines("entered")) == 1


# --- the page --------------------------------------------------------------------------------


def test_the_page_explains_every_type_in_the_order_of_the_list() -> None:
    headings = [
        row[4:] for row in PAGE.read_text(encoding="utf-8").splitlines() if row[:4] == "### "
    ]
    explained = [name.strip("`") for heading in headings for name in heading.split(", ")]
    assert explained == list(EVENT_TYPES)
