"""Where everything stands: from model, choices and size to the lines of one frame. Pure.

Up to 109 columns the panels lie above each other, gates beside replicas; from 110 there are two
columns. 80x24 shows every panel. Each panel first gets what it cannot do without, then what it
asks for, and the events take the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from parkingd.cli.top import header, panels
from parkingd.cli.top.ink import Glyphs, Line, cut, faded, line, width_of
from parkingd.cli.top.model import Model, Moment
from parkingd.cli.top.panels import Drawing
from parkingd.cli.top.ui import Extent, Panel, Ui

WIDTH_MIN: Final = 60
HEIGHT_MIN: Final = 18
"""Less has no room for a line of each panel."""

PANEL_HEIGHT_MIN: Final = 3
"""A title, a head and a row."""

TWO_COLUMNS_WIDTH: Final = 110
COLUMN_GAP: Final = 2

REPLICAS_WIDTH_MIN: Final = 24

HEIGHT_MAX: Final = 10_000
"""Of a frame that is printed in full."""

_DRAW: Final[Mapping[Panel, Callable[[Model, Ui, int, Moment], Drawing]]] = {
    Panel.MEMBERS: panels.members,
    Panel.GATES: panels.gates,
    Panel.REPLICAS: panels.replicas,
    Panel.EVENTS: panels.events,
}


class Size(NamedTuple):
    """Of a window, in characters."""

    width: int
    height: int


@dataclass(slots=True)
class Frame:
    """Lines of exactly the window's width, and what each panel showed of how much."""

    lines: list[Line]
    extents: dict[Panel, Extent] = field(default_factory=dict)


def compose(
    model: Model, ui: Ui, size: Size, now: Moment, live: tuple[Model, Moment] | None = None
) -> Frame:
    """One frame. ``live``: what the header shows while the panels stand still."""
    if size.width < WIDTH_MIN or size.height < HEIGHT_MIN:
        return _too_small(size, ui.glyphs)
    if ui.help:
        return Frame(_filled(header.help_lines(size.width, ui.glyphs), size, ui.glyphs))
    current, current_now = live or (model, now)
    if model.lost is not None:
        now = model.lost.at  # The last frame stays as it was.
    top = header.header(current, ui, size.width, current_now)
    bottom = header.footer(ui, size.width)
    room = Size(size.width, size.height - len(top) - 1)
    frame = Frame([])
    body = _body(model, ui, room, now, frame.extents)
    if current.lost is not None:
        body = [faded(each) for each in body]
    frame.lines = [*top, *_filled(body, room, ui.glyphs), bottom]
    return frame


def natural_height(model: Model, ui: Ui, width: int, now: Moment) -> int:
    """The height that shows every line."""
    ui = replace(ui, whole=False)
    drawn = {panel: _DRAW[panel](model, ui, width // 2, now) for panel in _DRAW}
    wants = {panel: max(PANEL_HEIGHT_MIN, _asked(each)) for panel, each in drawn.items()}
    around = 2 + 3 + 1
    if width >= TWO_COLUMNS_WIDTH:
        left = wants[Panel.MEMBERS] + wants[Panel.GATES]
        height = around + max(left, wants[Panel.REPLICAS] + wants[Panel.EVENTS])
    else:
        beside = max(wants[Panel.GATES], wants[Panel.REPLICAS])
        height = around + wants[Panel.MEMBERS] + beside + wants[Panel.EVENTS]
    return min(max(height, HEIGHT_MIN), HEIGHT_MAX)


def _body(
    model: Model, ui: Ui, room: Size, now: Moment, extents: dict[Panel, Extent]
) -> list[Line]:
    if ui.whole and ui.focus is not Panel.LOT:
        drawing = _DRAW[ui.focus](model, ui, room.width, now)
        return _panel(ui.focus, drawing, ui, room, extents)
    lot = [
        _title(Panel.LOT, header.lot_summary(model), ui, room.width),
        *header.lot_lines(model, ui, room.width, now),
    ]
    rest = Size(room.width, room.height - len(lot))
    arrange = _two_columns if room.width >= TWO_COLUMNS_WIDTH else _stacked
    top = [cut(each, room.width, ui.glyphs) for each in lot]
    return [*top, *arrange(model, ui, rest, now, extents)]


def _stacked(
    model: Model, ui: Ui, room: Size, now: Moment, extents: dict[Panel, Extent]
) -> list[Line]:
    right = max(REPLICAS_WIDTH_MIN, (room.width - COLUMN_GAP) * 3 // 8)
    widths = {
        Panel.MEMBERS: room.width,
        Panel.GATES: room.width - COLUMN_GAP - right,
        Panel.REPLICAS: right,
        Panel.EVENTS: room.width,
    }
    drawn = {panel: _DRAW[panel](model, ui, widths[panel], now) for panel in widths}
    beside = max(_asked(drawn[Panel.GATES]), _asked(drawn[Panel.REPLICAS]))
    heights = share(
        room.height,
        least=(PANEL_HEIGHT_MIN,) * 3,
        asked=(_asked(drawn[Panel.MEMBERS]), beside, _asked(drawn[Panel.EVENTS])),
    )

    def block(panel: Panel, height: int) -> list[Line]:
        return _panel(panel, drawn[panel], ui, Size(widths[panel], height), extents)

    return [
        *block(Panel.MEMBERS, heights[0]),
        *_beside(block(Panel.GATES, heights[1]), block(Panel.REPLICAS, heights[1])),
        *block(Panel.EVENTS, heights[2]),
    ]


def _two_columns(
    model: Model, ui: Ui, room: Size, now: Moment, extents: dict[Panel, Extent]
) -> list[Line]:
    left = (room.width - COLUMN_GAP) * 53 // 100
    widths = (left, room.width - COLUMN_GAP - left)
    columns: list[list[Line]] = []
    for width, pair in zip(
        widths, ((Panel.MEMBERS, Panel.GATES), (Panel.REPLICAS, Panel.EVENTS)), strict=True
    ):
        drawn = [_DRAW[panel](model, ui, width, now) for panel in pair]
        asked = (_asked(drawn[0]), _asked(drawn[1]))
        heights = share(room.height, least=(PANEL_HEIGHT_MIN,) * 2, asked=asked)
        columns.append(
            [
                made
                for panel, drawing, height in zip(pair, drawn, heights, strict=True)
                for made in _panel(panel, drawing, ui, Size(width, height), extents)
            ]
        )
    return _beside(*columns)


def share(room: int, least: Sequence[int], asked: Sequence[int]) -> list[int]:
    """Heights that fill the room: what each must have, what each asks for, the rest to the last.

    Where there is not enough, the smaller wishes are met first.
    """
    given = list(least)
    left = room - sum(given)
    while left > 0:
        wanting = [at for at in range(len(given)) if given[at] < asked[at]]
        if not wanting:
            given[-1] += left
            break
        smallest = min(wanting, key=lambda at: given[at])
        given[smallest] += 1
        left -= 1
    return given


def _asked(drawing: Drawing) -> int:
    return _fixed(drawing) + max(1, drawing.rows.total)


def _fixed(drawing: Drawing) -> int:
    return 1 + (drawing.head is not None)


def _panel(
    panel: Panel, drawing: Drawing, ui: Ui, size: Size, extents: dict[Panel, Extent]
) -> list[Line]:
    """A title, perhaps a head, and as many rows as there is room for."""
    total = drawing.rows.total
    visible = max(0, size.height - _fixed(drawing))
    extents[panel] = Extent(drawing.first, total, visible)
    last = max(0, total - visible)
    begin = last if panel is Panel.EVENTS else 0
    top = min(max(ui.tops.get(panel, drawing.first + begin) - drawing.first, 0), last)
    shown = drawing.rows.lines(top, top + visible)
    summary = [drawing.summary] if drawing.summary else []
    if total > visible and (panel is not Panel.EVENTS or not ui.follows):
        summary.append(f"{top + 1}-{top + len(shown)} of {total}")
    head = [drawing.head] if drawing.head is not None else []
    title = _title(panel, ", ".join(summary), ui, size.width)
    return _filled([title, *head, *shown], size, ui.glyphs)


def _title(panel: Panel, summary: str, ui: Ui, width: int) -> Line:
    """A rule with the panel's digit and name. The focused one is pointed at and reversed."""
    glyphs = ui.glyphs
    name = f"{panel.value} {panel.name.capitalize()}"
    focused = panel is ui.focus
    start = line(
        (f"{glyphs.pointer} {name} " if focused else f"{glyphs.rule} {name} ", _style(focused))
    )
    if wanted := ui.filter_of(panel):
        start.append_text(line((f" /{wanted}", "warn")))
    if summary:
        start.append_text(line(f" {summary} "))
    used = start.cell_len
    start.append_text(line((glyphs.rule * max(0, width - used), "dim")))
    return cut(start, width, glyphs)


def _style(focused: bool) -> str:
    return "focus" if focused else "title"


def _beside(left: Sequence[Line], right: Sequence[Line]) -> list[Line]:
    gap = " " * COLUMN_GAP
    return [
        each.copy().append(gap).append_text(other) for each, other in zip(left, right, strict=True)
    ]


def _filled(lines: Sequence[Line], size: Size, glyphs: Glyphs) -> list[Line]:
    """Exactly as many lines as there is room for, each of full width."""
    full = [cut(each, size.width, glyphs) for each in lines[: size.height]]
    return full + [line(" " * size.width)] * (size.height - len(full))


def _too_small(size: Size, glyphs: Glyphs) -> Frame:
    text = f"{size.width}x{size.height} is too small: {WIDTH_MIN}x{HEIGHT_MIN} at least"
    words, rows = text.split(" "), [""]
    for word in words:
        together = f"{rows[-1]} {word}".strip()
        if width_of(together) > size.width and rows[-1]:
            rows.append(word)
        else:
            rows[-1] = together
    return Frame(_filled([line(row) for row in rows], size, glyphs))
