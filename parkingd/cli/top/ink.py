"""Styled lines, and their way to a terminal. The only module of the dashboard that knows rich.

Panels make `Line`s with `line`; a style is a word of `PALETTE`. `cells` takes a line apart into
what stands in each column, which is what the painter compares, and `Ink` turns cells into the
bytes of one terminal.

Invariants: a state is never a colour alone, so that nothing is lost without colours; every line
has exactly the width that was asked for, whatever alphabet its text is written in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.style import Style
from rich.text import Text

Line: TypeAlias = Text
Part: TypeAlias = str | tuple[str, str]
"""Text, or text and a word of the palette."""

PALETTE: Final[Mapping[str, Style]] = {
    "plain": Style(),
    "dim": Style(dim=True),
    "strong": Style(bold=True),
    "head": Style(dim=True, underline=True),
    "title": Style(color="cyan"),
    "focus": Style(color="cyan", bold=True, reverse=True),
    "good": Style(color="green"),
    "warn": Style(color="yellow", bold=True),
    "bad": Style(color="red", bold=True),
    "warn badge": Style(color="yellow", bold=True, reverse=True),
    "bad badge": Style(color="red", bold=True, reverse=True),
    "badge": Style(bold=True, reverse=True),
    "in": Style(color="green"),
    "out": Style(color="blue"),
}
"""The 16 colours that every terminal has and its user has chosen."""


class Glyphs(NamedTuple):
    """Drawing characters."""

    rule: str
    full: str
    empty: str
    mark: str
    sparks: str
    ellipsis: str
    pointer: str
    to: str
    dot: str


UNICODE: Final = Glyphs("─", "█", "░", "┊", "▁▂▃▄▅▆▇█", "…", "▶", "→", "·")
ASCII: Final = Glyphs("-", "#", ".", "|", "_.:-=+*#", "~", ">", ">", "-")


class Cell(NamedTuple):
    """One column of a line. The second column of a wide character has an empty text."""

    text: str
    style: Style


BLANK: Final = Cell(" ", PALETTE["plain"])

Row: TypeAlias = tuple[Cell, ...]


def line(*parts: Part) -> Line:
    """A line of these parts. Their text is shown as it is: no markup."""
    made = Text(no_wrap=True, end="")
    for part in parts:
        if isinstance(part, str):
            made.append(part)
        else:
            made.append(part[0], PALETTE[part[1]])
    return made


def width_of(text: str) -> int:
    """In columns."""
    return cell_len(text)


def fit(text: str, width: int, glyphs: Glyphs, right: bool = False) -> str:
    """The text in exactly this many columns: filled up, or cut with an ellipsis."""
    excess = cell_len(text) - width
    if excess > 0:
        return set_cell_size(text, width - 1) + glyphs.ellipsis if width > 0 else ""
    return " " * -excess + text if right else text + " " * -excess


def sided(left: Line, right: Line, width: int, glyphs: Glyphs) -> Line:
    """One at each end; the left one is cut if there is no room."""
    room = width - right.cell_len - 1
    if room < 1:
        return cut(left, width, glyphs)
    joined = cut(left, room, glyphs)
    joined.append(" ")
    return joined.append_text(right)


def cut(made: Line, width: int, glyphs: Glyphs) -> Line:
    """A copy in exactly this many columns."""
    copy = made.copy()
    if copy.cell_len > width:
        copy.truncate(max(0, width - 1))
        if width > 0:
            copy.append(glyphs.ellipsis)
    copy.append(" " * (width - copy.cell_len))
    return copy


def faded(made: Line) -> Line:
    """The same, less bright."""
    copy = made.copy()
    copy.stylize(PALETTE["dim"])
    return copy


def cells(made: Line, width: int, ascii_only: bool = False) -> Row:
    """What stands in each of ``width`` columns."""
    row: list[Cell] = []
    styles = _styles(made)
    for letter, style in zip(made.plain, styles, strict=True):
        columns = 1 if letter.isascii() else cell_len(letter)
        if ascii_only and not letter.isascii():
            row += [Cell("?", style)] * columns  # As wide as what it stands for.
        elif columns == 0 and row:  # It belongs to the letter before.
            row[-1] = Cell(row[-1].text + letter, row[-1].style)
        elif columns == 2:
            row += (Cell(letter, style), Cell("", style))
        elif columns == 1:
            row.append(Cell(letter, style))
    if len(row) > width and row[width].text == "":
        row[width - 1] = BLANK  # Half a wide character cannot be shown.
    del row[width:]
    row += [BLANK] * (width - len(row))
    return tuple(row)


def _styles(made: Line) -> list[Style]:
    styles = [PALETTE["plain"]] * len(made.plain)
    for start, end, style in made.spans:
        if isinstance(style, Style):
            for place in range(start, min(end, len(styles))):
                styles[place] = _sum(styles[place], style)
    return styles


@lru_cache(maxsize=256)
def _sum(under: Style, over: Style) -> Style:
    return under + over


class Ink:
    """How one terminal is written to."""

    def __init__(self, colour: bool, encoding: str = "utf-8") -> None:
        """Without colours bold, dim and reversed text remain."""
        self._colour = colour
        self._encoding = encoding

    def text_of(self, row: Iterable[Cell]) -> str:
        """These cells with their styles, from where the cursor stands."""
        runs = groupby(row, key=lambda cell: cell.style)
        return "".join(self._run(style, "".join(cell.text for cell in run)) for style, run in runs)

    def bytes_of(self, row: Iterable[Cell]) -> bytes:
        """The same, encoded."""
        return self.text_of(row).encode(self._encoding, "replace")

    def _run(self, style: Style, text: str) -> str:
        if not self._colour:
            style = style.without_color
        return style.render(text, color_system=ColorSystem.STANDARD)


def plain_text(row: Row) -> str:
    """The row without styles, and without what is blank at its end."""
    return "".join(cell.text for cell in row).rstrip()


class Look(NamedTuple):
    """A style in simple words, for whatever is no terminal."""

    colour: str | None
    bold: bool
    dim: bool
    underline: bool
    reverse: bool


def look_of(style: Style) -> Look:
    """Colours by name, as they are in the palette."""
    colour = style.color.name if style.color is not None else None
    return Look(
        colour, bool(style.bold), bool(style.dim), bool(style.underline), bool(style.reverse)
    )
