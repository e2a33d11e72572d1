"""From one frame to the next in as few bytes as possible: a pure comparison.

A `Painter` remembers what the terminal shows. For each row it writes only the columns from the
first that differs to the last one, after one cursor movement; two differences that lie close
together are one stretch, because moving the cursor costs bytes too. All of it is one piece of
bytes, between the marks of synchronised output, so that no terminal shows half a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from parkingd.cli.top.ink import Ink, Row

BEGIN_UPDATE: Final = b"\x1b[?2026h"
END_UPDATE: Final = b"\x1b[?2026l"
"""DEC private mode 2026; terminals that do not know it ignore it."""

CLEAR: Final = b"\x1b[0m\x1b[2J"

MOVE_COLUMNS: Final = 8
"""A cursor movement has about as many bytes as this many unstyled columns."""


class Painter:
    """What a terminal shows, and how to make it show something else."""

    def __init__(self, ink: Ink) -> None:
        self._ink = ink
        self._shown: tuple[Row, ...] | None = None

    def forget(self) -> None:
        """Nobody knows what the terminal shows: the next frame is drawn in full."""
        self._shown = None

    def paint(self, rows: Sequence[Row]) -> bytes:
        """What to write so that these rows are shown; nothing if they are."""
        shown, self._shown = self._shown, tuple(rows)
        whole = shown is None or [len(row) for row in shown] != [len(row) for row in rows]
        pieces = [CLEAR] if whole else []
        for number, row in enumerate(rows):
            before = None if whole or shown is None else shown[number]
            for start, end in _stretches(before, row):
                at = b"\x1b[%d;%dH" % (number + 1, start + 1)
                pieces.append(at + self._ink.bytes_of(row[start:end]))
        return b"".join((BEGIN_UPDATE, *pieces, END_UPDATE)) if pieces else b""


def _stretches(before: Row | None, row: Row) -> Iterator[tuple[int, int]]:
    """Where the row has to be written anew: from, to.

    No wide letter is cut in two: its second column differs whenever its first one came or went.
    """
    if before is row:
        return
    start = end = None
    for column, cell in enumerate(row):
        if before is not None and cell == before[column]:
            continue
        if start is None or end is None:
            start = column
        elif column - end > MOVE_COLUMNS:
            yield start, end
            start = column
        end = column + 1
    if start is not None and end is not None:
        yield start, end
