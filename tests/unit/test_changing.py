"""Changing the lot while it runs: spaces, thresholds, gates held open or closed; who and why."""

from __future__ import annotations

import pytest

from parkingd.core.registers import Thresholds
from parkingd.protocol.commands import (
    AskToEnter,
    Command,
    ReadLog,
    ReadLot,
    ReadSettings,
    SetGates,
    SetMode,
    SetSpaces,
    SetThreshold,
    Track,
)
from parkingd.protocol.outcomes import (
    Change,
    Entry,
    ErrorCode,
    Failure,
    LogPage,
    Lot,
    SettingChange,
    SettingList,
    SettingRow,
)
from tests.unit.scripted import Box, Stage
from tests.unit.watching import REQUEST, enter, is_whole, rows, serves, warnings


def setting(box: Box, key: str) -> SettingRow:
    """As `parkingd-ctl settings` shows it."""
    (row,) = (row for row in box.ask(ReadSettings(), SettingList).items if row.key == key)
    return row


def lot(box: Box) -> Lot:
    return box.ask(ReadLot(), Lot)


def fill(box: Box, cars: int) -> None:
    for number in range(cars):
        box.track(f"KA{number}")


def refusal(box: Box, command: Command) -> Failure:
    """And nothing was recorded."""
    own = box.node.own_seq
    failure = box.ask(command, Failure)
    assert box.node.own_seq == own
    return failure


# --- who, when, old, new, why --------------------------------------------------------------------


def test_every_node_can_say_who_changed_what_when_and_why() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    assert setting(b, "spaces") == SettingRow(
        "spaces", 100, None, "a", setting(a, "spaces").time, "founded"
    )
    assert setting(b, "almost-full") == SettingRow("almost-full", 90, None, None, None, "")
    change = a.ask(SetSpaces(120, None, reason="level 2 is open"), Change)
    assert change.settings == (SettingChange("spaces", 100, 120),)
    at_ms = a.now.wall_ms
    for box in (a, b):
        said = setting(box, "spaces")
        assert said == SettingRow("spaces", 120, 100, "a", said.time, "level 2 is open")
        assert said.time == at_ms
    handle = b.submit(ReadLog())
    b.tick()
    page = b.answer(handle)
    assert isinstance(page, LogPage)
    assert "spaces: 100 -> 120 (level 2 is open)" in [row[6] for row in page.rows]


def test_what_was_set_and_why_outlives_a_restart_and_a_snapshot() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", log_events_max=1)
    a.ask(SetThreshold("almostfull", 80, 70, None, reason="fair"), Change)
    a.ask(SetMode(2, "closed", None, "ice"), Change)
    stage.pass_ms(3_000)
    b.stop()
    b.start(knows=["a"])
    c = stage.box("c", 9).start(knows=["a"])
    stage.pass_ms(6_000)
    for box in (b, c):
        assert lot(box).thresholds == Thresholds(80, 70, 100, 100)
        assert setting(box, "almost-full").reason == "fair"
        assert (rows(box)[2].mode, rows(box)[2].mode_reason) == ("closed", "ice")
        assert setting(box, "gate-2").old == "auto"
    assert len({box.node.state.root() for box in (a, b, c)}) == 1


def test_a_setting_is_changed_only_if_it_is_what_the_script_thinks() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    assert a.ask(SetSpaces(120, REQUEST, current=100), Change).created
    failure = refusal(b, SetSpaces(130, None, current=100))
    assert (failure.code, failure.reason) == (
        ErrorCode.NOT_CURRENT,
        "spaces is 120, not 100: nothing was changed",
    )
    assert refusal(a, SetGates(5, None, current=3)).code == ErrorCode.NOT_CURRENT
    failure = refusal(a, SetThreshold("full", 90, None, None, current=99))
    assert failure.code == ErrorCode.NOT_CURRENT
    a.ask(SetMode(2, "closed", None, current="auto"), Change)
    failure = refusal(b, SetMode(2, "open", None, current="auto"))
    assert failure.reason == "gate-2 is closed, not auto: nothing was changed"
    assert b.ask(SetSpaces(130, None, current=120), Change).what == "spaces: 120 -> 130"
    # The answer to a repeated request is what it has done, whatever the value is by now.
    assert "repeated" in b.ask(SetSpaces(120, REQUEST, current=100), Change).warnings
    assert lot(a).spaces == 130


@pytest.mark.parametrize(
    "command",
    [SetThreshold("almostfull", 80, 70, REQUEST), SetMode(2, "closed", REQUEST, "ice")],
)
def test_one_request_id_sets_once_on_whichever_node(command: Command) -> None:
    stage = Stage()
    boxes = stage.found("a", "b")
    boxes[0].ask(command, Change)
    for box in boxes:
        own = box.node.own_seq
        assert "repeated" in box.ask(command, Change).warnings
        reused = box.ask(SetSpaces(9, REQUEST), Failure)
        assert reused.code == ErrorCode.REQUEST_REUSED
        assert box.node.own_seq == own


# --- thresholds ----------------------------------------------------------------------------------


def test_a_threshold_keeps_its_distance_unless_told_otherwise() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    change = a.ask(SetThreshold("almostfull", 80, None, None), Change)
    assert change.what == "almost-full: 90 -> 80, almost-full-clear: 88 -> 78"
    assert a.ask(SetThreshold("full", 95, None, None), Change).created
    assert lot(a).thresholds == Thresholds(80, 78, 95, 95)
    assert a.ask(SetThreshold("almostfull", 1, None, None), Change).created
    assert lot(a).thresholds.almost_full_clear == 1
    assert stage.mono_ms


@pytest.mark.parametrize("key", ["almostfull", "full"])
def test_a_threshold_that_clears_above_itself_is_refused_in_one_line(key: str) -> None:
    stage = Stage()
    (a,) = stage.found("a")
    failure = refusal(a, SetThreshold(key, 80, 85, None))
    assert failure.code == ErrorCode.USAGE
    assert "cannot be clear at 85 % when it begins at 80 %" in failure.reason
    assert stage.mono_ms


def test_an_almost_full_lot_stays_that_until_it_is_clear_and_all_nodes_agree() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", spaces=20)
    a.ask(SetThreshold("almostfull", 90, 80, None), Change)
    words = []
    for number in range(1, 19):
        (a, b)[number % 2].track(f"KA{number}")
        words.append(lot(a).state)
    assert words == ["open"] * 17 + ["almost_full"]
    words = []
    for number in range(1, 4):
        (a, b)[number % 2].exit(f"KA{number}")
        words.append(lot(a).state)
        assert lot(b).state == words[-1]
    assert words == ["almost_full", "almost_full", "open"]
    a.track("KB1")
    assert (lot(a).state, lot(b).state) == ("open", "open")
    assert (a.node.state.root(), lot(a).inside) == (b.node.state.root(), 16)


def test_a_restarted_node_remembers_and_a_newcomer_is_told() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", spaces=100)
    fill(a, 90)
    b.exit("KA1")
    assert (lot(a).inside, lot(a).state, lot(b).state) == (89, "almost_full", "almost_full")
    a.stop()
    a.start(knows=["b"])
    c = stage.box("c", 9).start(knows=["b"])
    stage.pass_ms(6_000)
    assert [lot(box).state for box in (a, b, c)] == ["almost_full"] * 3


def test_cars_that_meet_after_a_partition_leave_one_word_everywhere() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", spaces=100)
    fill(a, 86)
    stage.cut("a")
    for number in range(3):
        a.track(f"A{number}")
        b.track(f"B{number}")
    assert (lot(a).state, lot(b).state) == ("open", "open")
    stage.heal()
    stage.pass_ms(8_000)
    assert [lot(box).state for box in (a, b)] == ["almost_full"] * 2
    for number in range(3):
        b.exit(f"B{number}")
    assert [(lot(box).inside, lot(box).state) for box in (a, b)] == [(89, "almost_full")] * 2
    a.exit("A0")
    a.exit("A1")
    assert [(lot(box).inside, lot(box).state) for box in (a, b)] == [(87, "open")] * 2


def test_a_day_at_the_limit_writes_its_memory_once_a_crossing() -> None:
    stage = Stage()
    (a,) = stage.found("a", spaces=100)
    fill(a, 89)
    own = a.node.own_seq
    for _ in range(5):
        a.track("KB1")
        a.exit("KB1")
    assert a.node.own_seq == own + 10 + 1
    assert stage.mono_ms


def test_the_founder_takes_its_thresholds_from_its_configuration_and_others_warn() -> None:
    stage = Stage()
    a = stage.box("a", 1, thresholds=Thresholds(80, 75, 100, 100)).start()
    stage.pass_ms(2_000)
    b = stage.box("b", 2).start(knows=["a"])
    b.node._shared.configured = frozenset({"almost_full", "full"})
    stage.pass_ms(5_000)
    assert lot(b).thresholds == Thresholds(80, 75, 100, 100)
    assert "almost_full is 80 in the lot and 90 in this configuration" in warnings(b)
    assert "in this configuration" not in warnings(a)
    assert "full is 100" not in warnings(b)


# --- gates held open or closed -------------------------------------------------------------------


def test_a_closed_gate_admits_nobody_wherever_it_is_asked_and_closed_alone() -> None:
    stage = Stage()
    boxes = a, b, _ = stage.found("a", "b", "c")
    gate, other = min(serves(b)), min(serves(a))
    a.ask(SetMode(gate, "closed", None, "ice"), Change)
    said = [enter(box, "KA1", gate) for box in boxes]
    assert [(each.decision, each.reason) for each in said] == [("denied", "gate_closed")] * 3
    assert enter(a, "KA1", other).decision == "admitted"
    # People still drive past a closed gate, and then that is what happened.
    assert b.ask(Track("KA2", gate, None), Entry).warnings == ()
    b.ask(SetMode(gate, "auto", None), Change)
    assert enter(a, "KA3", gate).decision == "admitted"
    assert is_whole(list(boxes))


def test_an_open_gate_admits_into_a_full_lot_but_no_car_that_is_inside() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", spaces=2)
    gate, other = min(serves(b)), min(serves(a))
    fill(a, 2)
    a.ask(SetMode(gate, "open", None, "fire"), Change)
    assert enter(a, "KB1", other).reason == "full"
    said = enter(a, "KB1", gate)
    assert (said.decision, said.reason, said.free) == ("admitted", "ok", -1)
    assert enter(b, "KB1", gate).reason == "already_inside"
    assert [(lot(box).inside, lot(box).overbooked) for box in (a, b)] == [(3, 1)] * 2
    assert f"gate {gate} is held open: fire" in warnings(b)


def test_an_open_gate_waits_for_no_other_owner() -> None:
    """Near a full lot an owner asks the others first; a raised barrier does not."""
    stage = Stage()
    a, b = stage.found("a", "b", spaces=2)
    gate = min(serves(a))
    a.ask(SetMode(gate, "open", None), Change)
    stage.deaf.update({("a", "b"), ("b", "a")})
    b.pause()
    handles = [a.submit(AskToEnter(f"KA{n}", gate, bytes([n] * 16))) for n in range(5)]
    assert [a.answer(handle) is not None for handle in handles] == [True] * 5
    assert lot(a).inside == 5


def test_a_car_that_was_let_in_before_the_gate_was_closed_was_let_in() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    gate = min(serves(a))
    assert enter(a, "KA1", gate, REQUEST).decision == "admitted"
    b.ask(SetMode(gate, "closed", None), Change)
    for box in (a, b):
        assert enter(box, "KA1", gate, REQUEST).decision == "admitted"


def test_a_lot_is_closed_when_its_last_gate_is_closed_and_says_so() -> None:
    stage = Stage()
    a, b = stage.found("a", "b", gates=2)
    assert a.ask(SetMode(1, "closed", None), Change).warnings == ()
    assert "the lot is closed" in a.ask(SetMode(2, "closed", None), Change).warnings[0]
    assert (lot(b).state, {row.mode for row in rows(b).values()}) == ("closed", {"closed"})
    b.ask(SetGates(3, None), Change)
    assert lot(a).state == "open"


def test_a_gate_that_is_not_there_has_no_mode() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    assert refusal(a, SetMode(5, "open", None)).code == ErrorCode.UNKNOWN_GATE
    assert stage.mono_ms
