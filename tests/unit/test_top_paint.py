"""From frame to frame in few bytes, and always to the right picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.cli.top.demo import NOW, demo_model
from parkingd.cli.top.ink import PALETTE, Cell, Ink, Row, cells, line
from parkingd.cli.top.layout import Size, compose
from parkingd.cli.top.model import Model, Moment
from parkingd.cli.top.paint import BEGIN_UPDATE, END_UPDATE, Painter
from parkingd.cli.top.ui import Ui
from tests.emulator import Emulator

SIZE = Size(120, 36)
BYTES_PER_S_MAX = 2_048
"""On a quiet cluster, at 120x36 and one look a second."""


def rows_of(model: Model, now: Moment = NOW, ui: Ui | None = None) -> list[Row]:
    frame = compose(model, ui or Ui(), SIZE, now)
    return [cells(each, SIZE.width) for each in frame.lines]


def texts(rows: list[Row]) -> list[str]:
    return ["".join(cell.text for cell in row).rstrip() for row in rows]


def test_the_first_frame_is_drawn_in_full_and_the_same_one_again_costs_nothing() -> None:
    painter, screen = Painter(Ink(colour=True)), Emulator(*SIZE)
    rows = rows_of(demo_model())
    data = painter.paint(rows)
    screen.feed(data)
    assert screen.lines == texts(rows)
    assert painter.paint(rows) == b""
    assert painter.paint(rows_of(demo_model())) == b""


def test_a_frame_is_one_update_and_never_more_than_the_window() -> None:
    data = Painter(Ink(colour=True)).paint(rows_of(demo_model()))
    assert data.startswith(BEGIN_UPDATE)
    assert data.endswith(END_UPDATE)
    assert data.count(BEGIN_UPDATE) == data.count(END_UPDATE) == 1
    screen = Emulator(*SIZE)
    screen.feed(data)
    assert screen.columns_beyond == 0
    assert 2026 not in screen.modes


def test_only_what_changed_is_written() -> None:
    painter = Painter(Ink(colour=True))
    painter.paint(rows_of(demo_model()))
    gates = tuple(replace(gate, epoch=gate.epoch + 1) for gate in demo_model().gates[:1])
    changed = replace(demo_model(), gates=(*gates, *demo_model().gates[1:]))
    data = painter.paint(rows_of(changed))
    assert data.count(b"H") == 1
    assert len(data) < 40


def test_a_quiet_cluster_costs_few_bytes_a_second() -> None:
    """Clocks, ages, rates and round trips of a minute, at one look a second."""
    painter = Painter(Ink(colour=True))
    painter.paint(rows_of(demo_model()))
    written = 0
    for second in range(1, 61):
        now = Moment(NOW.mono_s + second, NOW.wall_ms + second * 1_000)
        members = tuple(
            replace(member, last_heard_s=second % 3 / 10, rtt_ms=0.3 + second % 7 / 10)
            for member in demo_model().members
        )
        model = replace(demo_model(), polled=now, uptime_s=float(second), members=members)
        written += len(painter.paint(rows_of(model, now)))
    assert 0 < written / 60 < BYTES_PER_S_MAX


def test_after_something_else_was_on_the_screen_it_is_drawn_again() -> None:
    painter, screen = Painter(Ink(colour=True)), Emulator(*SIZE)
    rows = rows_of(demo_model())
    screen.feed(painter.paint(rows))
    screen.feed(b"\x1b[5;5Hfrom another program")
    painter.forget()
    screen.feed(painter.paint(rows))
    assert screen.lines == texts(rows)


def test_another_size_is_drawn_from_nothing() -> None:
    painter, screen = Painter(Ink(colour=True)), Emulator(*SIZE)
    screen.feed(painter.paint(rows_of(demo_model())))
    small = Size(80, 24)
    rows = [cells(each, 80) for each in compose(demo_model(), Ui(), small, NOW).lines]
    screen.resize(*small)
    before = screen.clears
    screen.feed(painter.paint(rows))
    assert screen.clears == before + 1
    assert screen.lines == texts(rows)


def test_without_colours_no_colour_is_written_and_weights_remain() -> None:
    data = Painter(Ink(colour=False)).paint(rows_of(demo_model()))
    styles = {
        int(number)
        for piece in data.split(b"\x1b[")[1:]
        if (head := piece.split(b"m")[0]).replace(b";", b"").isdigit() and b"m" in piece
        for number in head.split(b";")
    }
    assert styles <= {0, 1, 2, 4, 7}
    assert 7 in styles
    screen = Emulator(*SIZE)
    screen.feed(data)
    assert "suspect" in "".join(screen.reversed_text)


LETTERS = st.sampled_from(["a", "b", " ", "車", "é", "─"])
STYLES = st.sampled_from(["plain", "good", "bad badge"])
LINES = st.lists(st.tuples(st.text(LETTERS, max_size=5), STYLES), max_size=4)
FRAMES = st.lists(st.lists(LINES, min_size=3, max_size=3), min_size=1, max_size=5)


@given(FRAMES)
def test_whatever_follows_on_what_the_screen_shows_the_last_frame(
    frames: list[list[list[tuple[str, str]]]],
) -> None:
    painter, screen = Painter(Ink(colour=True)), Emulator(14, 3)
    for frame in frames:
        rows = [cells(line(*parts), 14) for parts in frame]
        screen.feed(painter.paint(rows))
        assert screen.lines == texts(rows)
        assert screen.columns_beyond == 0


@pytest.mark.parametrize("column", range(4))
def test_a_wide_letter_that_comes_or_goes_is_written_whole(column: int) -> None:
    plain = PALETTE["plain"]
    wide = [Cell(letter, plain) for letter in "abcdef"]
    wide[column : column + 2] = [Cell("車", plain), Cell("", plain)]
    narrow = tuple(Cell(letter, plain) for letter in "abcdef")
    painter, screen = Painter(Ink(colour=True)), Emulator(6, 1)
    for rows in ([narrow], [tuple(wide)], [narrow]):
        screen.feed(painter.paint(rows))
        assert screen.lines == texts(rows)
