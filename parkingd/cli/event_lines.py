"""Events as lines: a table for eyes, TSV and CSV for other programs, JSON lines for scripts.

They come one page at a time, so a table's columns may grow on the way and never shrink. In a CSV a
text that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from parkingd.adapters.document_values import Document
from parkingd.cli.event_words import detail_of
from parkingd.cli.render import aligned, as_json, text_of, width_of

COLUMNS: Final = ("seq", "time", "type", "plate", "gate", "member", "detail")

_WIDTHS: Final = (5, 24, 14, 8, 4, 6, 0)
"""What the columns of a table begin with."""

_TYPE: Final = COLUMNS.index("type")

_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet computes."""


class EventLines:
    """Lines of one form: ``table``, ``tsv``, ``csv`` or ``jsonl``."""

    def __init__(self, form: str, colour: bool = False) -> None:
        self.form = form
        self._colour = colour
        self._widths = list(_WIDTHS)

    def header(self) -> Iterator[str]:
        """What stands above; nothing for JSON."""
        if self.form != "jsonl":
            head = [name.upper() for name in COLUMNS] if self.form == "table" else COLUMNS
            yield self._line(head)

    def make_room(self, events: Iterable[Document]) -> None:
        """Make a table's columns wide enough for these, before its header is written."""
        for event in events if self.form == "table" else ():
            cells = cells_of(event, "-")
            pairs = zip(self._widths, map(width_of, cells), strict=True)
            self._widths = [max(pair) for pair in pairs]

    def lines(self, events: Sequence[Document]) -> Iterator[str]:
        """A line for each."""
        if self.form == "jsonl":
            yield from map(as_json, events)
            return
        self.make_room(events)
        empty = "-" if self.form == "table" else ""
        for event in events:
            yield self._line(cells_of(event, empty))

    def _line(self, cells: Sequence[str]) -> str:
        if self.form == "tsv":
            return "\t".join(cells)
        if self.form == "csv":
            return csv_line(cells)
        return aligned(cells, self._widths, _TYPE if self._colour else None)


def cells_of(event: Document, empty: str) -> list[str]:
    """One text for each of `COLUMNS`; printable, and without a tab."""
    named = [text_of(event.get(column), empty) for column in COLUMNS[:-1]]
    return [*named, detail_of(event)]


def csv_line(cells: Sequence[str]) -> str:
    """Safe to open in a spreadsheet."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(map(_disarmed, cells))
    return line.getvalue()


def _disarmed(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA_SIGNS) else cell
