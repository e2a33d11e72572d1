"""What the dashboard draws, at every size."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from parkingd.cli.event_words import ago
from parkingd.cli.top.demo import NOW, demo_model
from parkingd.cli.top.header import bar, spark
from parkingd.cli.top.ink import ASCII, UNICODE, Glyphs, cells, line, plain_text, width_of
from parkingd.cli.top.layout import (
    HEIGHT_MIN,
    WIDTH_MIN,
    Size,
    compose,
    natural_height,
    share,
)
from parkingd.cli.top.model import Compared, Lost, Model, Moment, TellsNothing, Told, after
from parkingd.cli.top.panels import clock
from parkingd.cli.top.reading import Gate, Lot, Member
from parkingd.cli.top.ui import Panel, Ui

SIZES = [Size(80, 24), Size(100, 30), Size(120, 36), Size(200, 60), Size(WIDTH_MIN, HEIGHT_MIN)]
SMALL = Size(80, 24)
QUIET = Lot(100, 42, 58, 0, "open", "local", ())


def drawn(model: Model, size: Size = SMALL, ui: Ui | None = None) -> list[str]:
    ui = ui or Ui()
    frame = compose(model, ui, size, NOW)
    return [plain_text(cells(each, size.width, ui.glyphs is ASCII)) for each in frame.lines]


def text(model: Model, size: Size = SMALL, ui: Ui | None = None) -> str:
    return "\n".join(drawn(model, size, ui))


def quiet() -> Model:
    """Nothing is wrong."""
    members = tuple(
        replace(member, state="alive", last_heard_s=0.1) for member in demo_model().members
    )
    gates = tuple(replace(gate, state="served", target=None) for gate in demo_model().gates)
    model = replace(demo_model(), lot=QUIET, warnings=(), members=members, gates=gates)
    return after(
        model, Compared(NOW, {"node": "gary", "items": [{"root": "ab" * 16, "nodes": ["gary"]}]})
    )


def many_gates(count: int) -> Model:
    gates = tuple(
        Gate(number, "gary", number, "served", ("gary",), None) for number in range(1, count + 1)
    )
    return replace(quiet(), gates=gates)


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "ui", [Ui(), Ui(glyphs=ASCII), Ui(whole=True)], ids=["plain", "ascii", "whole"]
)
def test_a_frame_fills_its_window_exactly(size: Size, ui: Ui) -> None:
    frame = compose(demo_model(), ui, size, NOW)
    assert [each.cell_len for each in frame.lines] == [size.width] * size.height


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_panel_and_what_matters_is_seen_at_every_size(size: Size) -> None:
    shown = text(demo_model(), size)
    for word in ("gary", "airport", "DEGRADED", "OVERBOOKED by 3", "103/100", "suspect", "moving"):
        assert word in shown, word
    for panel in Panel:
        assert f"{panel.value} {panel.name.capitalize()}" in shown
    assert "differ" in shown
    assert "q quit" in shown


def test_80x24_shows_every_column_and_all_of_a_small_cluster() -> None:
    shown = text(demo_model())
    for word in ("STATE", "NAME", "HEARD", "TRIP", "GATES", "ROOT", "OWNER", "EPOCH", "LAST CAR"):
        assert word in shown, word
    for word in (
        "out HDX2204 18s",
        "gary → larry",
        "8b7fdcc7",
        "5d31c20a",
        "gate_released",
        "ABC123",
    ):
        assert word in shown, word


def test_wider_windows_show_more() -> None:
    assert "10.0.0.3:7744" not in text(demo_model(), Size(80, 24))
    assert "10.0.0.3:7744" in text(demo_model(), Size(200, 60))


@pytest.mark.parametrize(
    "size", [Size(40, 10), Size(59, 40), Size(200, 17), Size(7, 3), Size(1, 1)]
)
def test_a_tiny_window_is_said_to_be_too_small(size: Size) -> None:
    lines = drawn(demo_model(), size)
    assert len(lines) == size.height
    assert all(width_of(each) <= size.width for each in lines)
    if size.width >= 40:
        assert f"{size.width}x{size.height} is too small" in " ".join(lines)


def test_a_printed_frame_has_every_line() -> None:
    model = replace(many_gates(40), events=demo_model().events[-5:])
    height = natural_height(model, Ui(), 80, NOW)
    shown = text(model, Size(80, height))
    assert all(re.search(rf"^ *{number} served", shown, re.MULTILINE) for number in range(1, 41))


@pytest.mark.parametrize("room", range(9, 60))
def test_heights_fill_the_room_and_nobody_is_squeezed_out(room: int) -> None:
    given = share(room, least=(3, 3, 3), asked=(5, 9, 14))
    assert sum(given) == room
    assert min(given) >= 3


# --- state is never colour alone -----------------------------------------------------------------


def test_everything_that_is_wrong_is_a_word() -> None:
    gates = (
        Gate(1, None, 4, "unowned", (), None),
        Gate(2, "gary", 4, "contested", ("gary", "joe"), None),
    )
    members = (
        Member("gary", "alive", 0, None, 1, "1", "", 1, is_self=True),
        Member("joe", "dead", 9.4, None, 0, "1", "", 1, is_self=False),
    )
    shown = text(replace(quiet(), gates=gates, members=members))
    for words in ("unowned   nobody", "contested gary, joe", "dead     joe", "9s ago", "DEGRADED"):
        assert words in shown, words


def test_suspects_and_dead_come_before_the_living() -> None:
    lines = drawn(demo_model())
    rows = [row[:20].split() for row in lines if re.match(r"[* ]  (alive|suspect) ", row)]
    assert rows == [["suspect", "harry"], ["*", "alive", "gary"], ["alive", "larry"]]


def test_all_well_is_said_too() -> None:
    shown = text(quiet())
    assert " OK " in shown
    assert "nothing to warn of" in shown
    assert "DEGRADED" not in shown


def test_a_lost_daemon_leaves_the_last_frame_and_says_since_when() -> None:
    later = Moment(NOW.mono_s + 12, NOW.wall_ms + 12_000)
    frame = compose(after(demo_model(), Lost(NOW, "gary stopped")), Ui(), SMALL, later)
    lines = [each.plain.rstrip() for each in frame.lines]
    assert "DISCONNECTED" in lines[0]
    assert lines[1].startswith(f"no daemon since {clock(NOW.wall_ms)}Z, 12s ago: gary stopped")
    assert lines[3:-1] == drawn(demo_model())[3:-1]


def test_a_daemon_that_does_not_answer_is_stale_and_members_are_not_heard_now() -> None:
    later = Moment(NOW.mono_s + 7, NOW.wall_ms + 7_000)
    frame = compose(quiet(), Ui(), Size(80, 24), later)
    lines = [each.plain for each in frame.lines]
    assert "STALE 7s" in lines[0]
    assert f"gary lives, but has not answered since {clock(NOW.wall_ms)}Z" in lines[1]
    assert not any("  now  " in each for each in lines)


def test_a_daemon_without_events_says_so_and_the_rest_works() -> None:
    model = replace(quiet(), events=(), last_cars={})
    shown = text(after(model, TellsNothing(NOW, "no verb 'watch'")))
    assert "this daemon tells no events" in shown
    assert "net of the count" in shown
    assert "42/100" in shown


def test_before_the_first_answer_there_is_a_frame() -> None:
    shown = text(Model())
    assert "asking the daemon" in shown
    assert "no lot yet" in shown


# --- choices -------------------------------------------------------------------------------------


def test_masked_plates_are_nowhere() -> None:
    shown = text(demo_model(), Size(200, 60), Ui(masked=True))
    plates = {event.plate for event in demo_model().events if event.plate}
    assert len(plates) > 10
    assert not [plate for plate in plates if plate in shown]
    assert "A***" in shown


def test_a_masked_plate_is_not_in_the_details_of_its_event_either() -> None:
    item = {"seq": 999, "type": "corrected", "plate": "NEW128", "was": "OLD123", "member": "joe"}
    model = after(demo_model(), Told(NOW, (item,)))
    assert "was OLD123" in text(model)
    masked = text(model, ui=Ui(masked=True))
    assert "OLD123" not in masked
    assert "corrected" in masked


def test_a_masked_plate_cannot_be_found_either() -> None:
    ui = Ui(masked=True, focus=Panel.EVENTS, filters={Panel.EVENTS: "ABC123"})
    assert "ABC1" not in text(demo_model(), ui=ui).replace("/ABC123", "")


def test_a_filter_leaves_what_matches_and_shows_itself() -> None:
    ui = Ui(focus=Panel.EVENTS, whole=True, filters={Panel.EVENTS: "overb"})
    lines = drawn(demo_model(), ui=ui)
    assert "/overb" in lines[2]
    assert [row for row in lines[3:-1] if row] == [
        "13:15:20  warning                           gary: overbooked by 3"
    ]


def test_what_is_being_typed_filters_at_once() -> None:
    lines = drawn(demo_model(), ui=Ui(focus=Panel.GATES, typing="mov"))
    assert "only gates with: mov_" in lines[-1]
    assert sum("served" in row for row in lines) == 1  # in the summary


@pytest.mark.parametrize(
    ("sort", "order"),
    [(0, ["1", "2", "3", "4"]), (1, ["4", "1", "2", "3"]), (4, ["1", "3", "4", "2"])],
)
def test_gates_are_sorted(sort: int, order: list[str]) -> None:
    ui = Ui(focus=Panel.GATES, whole=True, sorts={Panel.GATES: sort})
    rows = drawn(demo_model(), ui=ui)[4:8]
    assert [row.split()[0] for row in rows] == order


def test_scrolling_shows_where_one_is() -> None:
    model = many_gates(40)
    ui = Ui(focus=Panel.GATES, whole=True, tops={Panel.GATES: 7})
    lines = drawn(model, ui=ui)
    assert "8-26 of 40" in lines[2]
    assert lines[4].split()[0] == "8"


def test_a_scroll_position_beyond_the_end_shows_the_end() -> None:
    ui = Ui(focus=Panel.GATES, whole=True, tops={Panel.GATES: 900})
    assert drawn(many_gates(40), ui=ui)[-2].split()[0] == "40"


def test_events_follow_the_newest_or_stand_where_they_were_left() -> None:
    model = demo_model()
    size = Size(80, 24)
    assert "gate_released" in text(model, size)
    standing = Ui(tops={Panel.EVENTS: 2})
    before = drawn(model, size, standing)[-6:-1]
    item = {"seq": 999, "type": "entered", "plate": "NEW1", "gate": 1}
    later = after(model, Told(NOW, (item,)))
    assert drawn(later, size, standing)[-6:-1] == before
    assert "NEW1" in text(later, size)


def test_while_the_picture_stands_still_the_header_goes_on() -> None:
    later = Moment(NOW.mono_s + 60, NOW.wall_ms + 60_000)
    lost = after(demo_model(), Lost(later, "gary stopped"))
    frame = compose(demo_model(), Ui(paused=True), Size(80, 24), NOW, (lost, later))
    lines = [each.plain.rstrip() for each in frame.lines]
    assert "PAUSED" in lines[0]
    assert "DISCONNECTED" in lines[0]
    assert lines[2:-1] == drawn(demo_model())[2:-1]


def test_help_names_every_key_of_the_footer() -> None:
    shown = text(demo_model(), ui=Ui(help=True))
    for key in ("q,", "?", "tab", "1-5", "j k", "s  ", "/", "space", "+ -", "m  ", "Ctrl-Z"):
        assert key in shown, key


# --- pieces --------------------------------------------------------------------------------------


def test_one_model_gives_one_frame() -> None:
    assert text(demo_model(), Size(120, 36)) == text(demo_model(), Size(120, 36))


def test_ascii_windows_get_nothing_else() -> None:
    model = replace(demo_model(), node="gäry", cluster="駐車場")
    for size in SIZES:
        assert text(model, size, Ui(glyphs=ASCII)).isascii()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7_199, "1h"), (200_000, "2d")],
)
def test_ages_are_short(seconds: float, shown: str) -> None:
    assert ago(seconds) == shown


@pytest.mark.parametrize("inside", [0, 1, 50, 89, 90, 99, 100, 130])
@pytest.mark.parametrize("width", [1, 3, 10, 40, 100])
def test_the_bar_is_full_only_when_the_lot_is_and_empty_only_when_nobody_is_inside(
    inside: int, width: int
) -> None:
    lot = replace(QUIET, inside=inside, free=100 - inside)
    made = line(*bar(lot, width, "good", UNICODE)).plain
    assert len(made) == width
    assert made.count(UNICODE.mark) == 1
    if width > 2:
        assert (UNICODE.empty in made) == (inside < 100)
        assert (UNICODE.full in made) == (inside > 0)


@pytest.mark.parametrize("size", [SMALL, Size(120, 36)], ids=str)
def test_a_gate_that_is_held_open_or_closed_says_so(size: Size) -> None:
    assert "MODE" not in text(quiet(), size)
    first, second, *rest = quiet().gates
    gates = (replace(first, mode="closed"), replace(second, mode="open"), *rest)
    model = replace(quiet(), gates=gates, lot=replace(QUIET, state="closed"))
    shown = text(model, size)
    for word in ("MODE", "closed", "1 held open, 1 held closed"):
        assert word in shown, word
    lines = [re.sub(r"\s+", " ", each) for each in drawn(model, size)]
    assert any("1 served closed gary" in each for each in lines)
    assert any("2 served open larry" in each for each in lines)
    assert "2 served open" not in text(model, size, Ui(filters={Panel.GATES: "closed"}))


@pytest.mark.parametrize(("percent", "column"), [(90, 45), (50, 25), (0, 0), (100, 48)])
def test_the_mark_of_the_bar_stands_where_the_lot_becomes_almost_full(
    percent: int, column: int
) -> None:
    parts = bar(replace(QUIET, almost_full=percent), 50, "good", UNICODE)
    assert plain_text(cells(line(*parts), 50, False)).index(UNICODE.mark) == column


def test_a_lot_without_spaces_has_no_bar() -> None:
    assert bar(replace(QUIET, spaces=0), 10, "good", UNICODE) == []


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_in_a_sparkline_one_car_is_more_than_none(glyphs: Glyphs) -> None:
    levels = glyphs.sparks
    assert spark([0, 1, 500, 1_000], 1_000, glyphs) == levels[0] + levels[1] + levels[4] + levels[7]
    assert spark([0, 0], 0, glyphs) == levels[0] * 2


def test_wide_letters_take_two_columns_and_are_never_cut_in_two() -> None:
    row = cells(line("a車b車"), 5)
    assert [cell.text for cell in row] == ["a", "車", "", "b", " "]
    assert plain_text(cells(line("車" * 4), 8)) == "車" * 4


def test_without_unicode_what_cannot_be_written_keeps_its_place() -> None:
    assert plain_text(cells(line("a車e\u0301é|"), 9, ascii_only=True)).rstrip() == "a??e?|"


def test_a_letter_that_takes_no_column_stays_with_the_one_before() -> None:
    assert [cell.text for cell in cells(line("e\u0301x"), 3)] == ["e\u0301", "x", " "]
