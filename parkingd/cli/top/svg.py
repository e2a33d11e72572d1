"""One frame as an SVG picture: the same cells give the same bytes, on every machine.

rich can write SVG too, but its template loads fonts from the net and changes with its version, and
a picture that is checked to be current must change only when the dashboard does. Bars and rules
are drawn as shapes, because fonts leave gaps between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Final, NamedTuple

from parkingd.cli.top.ink import UNICODE, Cell, Look, Row, look_of, width_of

CELL_WIDTH: Final = 8.4
CELL_HEIGHT: Final = 19
FONT_SIZE: Final = 14
BASELINE: Final = 14
MARGIN: Final = 14

BACKGROUND: Final = "#0d1117"
FOREGROUND: Final = "#d5dbe2"
_COLOURS: Final = {
    "cyan": "#56c8d8",
    "green": "#5fd08a",
    "yellow": "#e6c14c",
    "red": "#ff7b72",
    "blue": "#79b8ff",
}
"""Readable on the background, dimmed too."""

DIM_OPACITY: Final = 0.65

_WORDS: Final = re.compile(r"[^ ]+(?: [^ ]+)*")
"""Up to where there are two blanks."""

_FONTS: Final = "ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace"


def svg(rows: Sequence[Row], title: str, description: str) -> str:
    """The picture. The texts are for those who cannot see it."""
    columns = max((len(row) for row in rows), default=0)
    width = _number(columns * CELL_WIDTH + 2 * MARGIN)
    height = len(rows) * CELL_HEIGHT + 2 * MARGIN
    body = "\n".join(shape for number, row in enumerate(rows) for shape in _shapes(number, row))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img" aria-labelledby="title desc">
  <title id="title">{escape(title)}</title>
  <desc id="desc">{escape(description)}</desc>
  <rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
  <g font-family="{_FONTS}" font-size="{FONT_SIZE}" fill="{FOREGROUND}">
{body}
  </g>
</svg>
"""


def _shapes(number: int, row: Row) -> Iterator[str]:
    """One row: each run of one style is a text, and a rectangle behind it where reversed."""
    y = MARGIN + number * CELL_HEIGHT
    column = 0
    for (style, kind), run in groupby(row, key=lambda cell: (cell.style, _kind(cell))):
        cells = list(run)
        look = look_of(style)
        text = "".join(cell.text for cell in cells)
        if text.strip() or look.reverse:
            yield from (f"    {shape}" for shape in _run(text, len(cells), column, y, look, kind))
        column += len(cells)


def _kind(cell: Cell) -> str:
    """Shapes stand alone, so that text beside them keeps its place."""
    return cell.text if cell.text in _DRAWN else "text"


def _run(text: str, columns: int, column: int, y: int, look: Look, kind: str) -> Iterator[str]:
    x, width = MARGIN + column * CELL_WIDTH, columns * CELL_WIDTH
    colour = _COLOURS.get(look.colour or "", FOREGROUND)
    opacity = DIM_OPACITY if look.dim else 1.0
    if kind != "text":
        drawn = _DRAWN[kind]
        inset, height = drawn.inset * CELL_WIDTH, drawn.height * CELL_HEIGHT
        more = _opacity(opacity * drawn.opacity)
        top = y + drawn.top * CELL_HEIGHT
        yield _rectangle(x + inset, top, width - 2 * inset, height, colour, more)
        return
    if look.reverse:
        yield _rectangle(x, y, width, CELL_HEIGHT, colour, _opacity(opacity))
        colour = BACKGROUND
    attributes = f' fill="{colour}"' if colour != FOREGROUND else ""
    attributes += ' font-weight="bold"' if look.bold else ""
    attributes += ' text-decoration="underline"' if look.underline else ""
    attributes += _opacity(opacity)
    # Blanks are not drawn, because viewers differ in what they make of several.
    for found in _WORDS.finditer(text):
        at = x + width_of(text[: found.start()]) * CELL_WIDTH
        length = width_of(found[0]) * CELL_WIDTH
        yield (
            f'<text x="{_number(at)}" y="{y + BASELINE}" textLength="{_number(length)}"'
            f' lengthAdjust="spacingAndGlyphs"{attributes}>{escape(found[0])}</text>'
        )


def _opacity(value: float) -> str:
    return f' opacity="{value:.2g}"' if value < 1.0 else ""


def _rectangle(x: float, y: float, width: float, height: float, colour: str, more: str = "") -> str:
    return (
        f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}"'
        f' height="{_number(height)}" fill="{colour}"{more}/>'
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class _Shape(NamedTuple):
    """A rectangle instead of a letter; lengths in rows, ``inset`` at both sides in columns."""

    top: float
    height: float
    opacity: float = 1.0
    inset: float = 0.0


_DRAWN: Final = {
    UNICODE.empty: _Shape(0.1, 0.8, opacity=0.25),
    UNICODE.full: _Shape(0.1, 0.8),
    UNICODE.rule: _Shape(0.47, 0.06),
    UNICODE.mark: _Shape(0.0, 1.0, inset=0.35),
    **{
        level: _Shape(0.9 - 0.1 * (at + 1), 0.1 * (at + 1))
        for at, level in enumerate(UNICODE.sparks[:-1])
    },
}
"""Bars of neighbouring rows do not touch."""
