"""Time: a wall clock that deviates is not minted with, and everybody is told whose it is."""

from __future__ import annotations

from parkingd.core.hybrid import physical_ms
from parkingd.protocol.commands import ReadStatus, RecordExit, Track
from parkingd.protocol.members import CLOCK_LOWER_AFTER_MS
from parkingd.protocol.messages import Heartbeat
from parkingd.protocol.outcomes import Entry, Exit, Status
from tests.unit.scripted import WALL_MS, Box, Stage

HOUR_MS = 3_600_000


def wall_ms(stage: Stage) -> int:
    """What the machines with sound clocks think."""
    return WALL_MS + stage.mono_ms


def minted_ms(box: Box, plate: str) -> int:
    """The time of an entry recorded here and now, in wall milliseconds."""
    return box.ask(Track(plate, 1, None), Entry).time


def clock_warnings(box: Box) -> list[str]:
    return [line for line in box.ask(ReadStatus(), Status).warnings if line.startswith("clock")]


def test_a_deviating_clock_is_not_minted_with_and_named_on_all() -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c")
    c = boxes[2]
    c.skew_ms = HOUR_MS
    stage.pass_ms(2_000)
    assert abs(minted_ms(c, "KC1") - wall_ms(stage)) < 1_000
    for box in boxes:
        assert clock_warnings(box) == ["clock c +3600 s"]
    c.skew_ms = -HOUR_MS
    stage.pass_ms(CLOCK_LOWER_AFTER_MS + 2_000)
    assert abs(minted_ms(c, "KC2") - wall_ms(stage)) < 1_000
    for box in boxes:
        assert clock_warnings(box) == ["clock c -3600 s"]
    c.skew_ms = 0
    stage.pass_ms(2_000)
    assert [clock_warnings(box) for box in boxes] == [[], [], []]


def test_a_clock_within_five_seconds_is_believed() -> None:
    stage = Stage()
    boxes = stage.found("a", "b", "c")
    boxes[2].skew_ms = 4_000
    stage.pass_ms(2_000)
    assert abs(minted_ms(boxes[2], "KC1") - wall_ms(stage) - 4_000) < 100
    assert [clock_warnings(box) for box in boxes] == [[], [], []]


def test_of_two_clocks_the_earlier_is_believed() -> None:
    """One clock that runs ahead must not pull the only other one along."""
    stage = Stage()
    a, b = stage.found("a", "b")
    b.skew_ms = HOUR_MS
    stage.pass_ms(2_000)
    for box, plate in ((a, "KA1"), (b, "KB1")):
        assert abs(minted_ms(box, plate) - wall_ms(stage)) < 1_000
        assert clock_warnings(box) == ["clock b +3600 s"]


def test_alone_the_own_clock_is_all_there_is() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.skew_ms = HOUR_MS
    assert minted_ms(a, "KA1") == wall_ms(stage) + HOUR_MS
    assert clock_warnings(a) == []


def test_a_substituted_clock_goes_on_with_the_own_monotonic_time() -> None:
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    c.skew_ms = HOUR_MS
    stage.pass_ms(2_000)
    first = minted_ms(c, "KC1")
    stage.pass_ms(60_000)
    assert minted_ms(c, "KC2") - first == 60_000
    assert a.shown("KC2") == b.shown("KC2")


def test_an_exit_after_an_entry_by_a_fast_clock_still_closes_it() -> None:
    """Received times are always merged, whatever clock made them."""
    stage = Stage()
    a, b = stage.found("a", "b")
    stage.cut("b")
    stage.pass_ms(3_000)
    b.skew_ms = HOUR_MS
    entry = b.ask(Track("KB1", 1, None), Entry)
    assert entry.time == wall_ms(stage) + HOUR_MS, "alone it cannot know"
    stage.heal()
    stage.pass_ms(8_000)
    assert a.shown("KB1") == {entry.dot}
    left = a.ask(RecordExit("KB1", 1, None), Exit)
    assert left.matched == "exact"
    assert b.shown("KB1") == set()
    back = a.ask(Track("KB1", 1, None), Entry)
    assert back.time >= entry.time
    assert b.shown("KB1") == {back.dot}


def test_the_highest_time_seen_survives_a_restart() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    stage.cut("b")
    stage.pass_ms(3_000)
    b.skew_ms = HOUR_MS
    b.track("KB1")
    stage.heal()
    stage.pass_ms(8_000)
    high = a.node.state.clock.last
    assert physical_ms(high) >= wall_ms(stage) + HOUR_MS - 20_000
    a.start(knows=["b"])
    assert a.node.state.clock.last == high


def test_times_of_one_node_ascend_while_its_clock_is_set_back() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    times = []
    for step in range(5):
        a.skew_ms = -step * HOUR_MS
        a.track(f"KA{step}")
        times.append(a.node.state.clock.last)
    assert times == sorted(set(times))


def test_heartbeats_that_come_a_minute_late_do_not_make_a_clock_look_slow() -> None:
    """As a node that was paused finds them in its sockets."""
    stage = Stage()
    a, b, c = stage.found("a", "b", "c")
    stage.flows = False
    for late in range(1, 60):
        for box in (b, c):
            beat = Heartbeat(10_000 + late, 0, wall_ms(stage) - 60_000 + 1_000 * late)
            a.receive(box.sender(None), beat)
        assert clock_warnings(a) == [], "the next ones are less late"
        assert abs(minted_ms(a, f"KA{late}") - wall_ms(stage)) < 1_000
