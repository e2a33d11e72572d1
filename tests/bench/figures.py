"""Figures: what was measured, beside what the Elixir peer reached and what parkingd must reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

HEAD: Final = ("what", "unit", "Elixir peer", "must", "median", "min - max", "runs", "met")


class BenchError(Exception):
    """A run failed: its figure would say nothing."""


class Unavailable(Exception):
    """This row cannot be measured on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    row: str
    """The word for ``--rows``."""
    what: str
    unit: str
    values: tuple[float, ...]
    """One per run."""
    peer: str = "-"
    must: float | None = None
    """None: reported, nothing asked."""
    higher_is_better: bool = False
    note: str = ""
    """How it was measured, or what else was seen."""

    @property
    def is_met(self) -> bool | None:
        """None where nothing is asked."""
        if self.must is None:
            return None
        middle = median(self.values)
        return middle >= self.must if self.higher_is_better else middle <= self.must

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "row": self.row,
            "what": self.what,
            "unit": self.unit,
            "peer": self.peer,
            "must": self.must,
            "median": median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
            "met": self.is_met,
            "note": self.note,
        }


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text, notes below."""
    rows = [HEAD, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"  {figure.what}: {figure.note}" for figure in figures if figure.note]
    if notes:
        lines += ["", "How it was measured:", *notes]
    return "\n".join(lines)


def shown(value: float) -> str:
    """Three significant digits, no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(figure: Figure) -> tuple[str, ...]:
    middle, low, high = median(figure.values), min(figure.values), max(figure.values)
    must = "-"
    if figure.must is not None:
        must = f"{'>=' if figure.higher_is_better else '<='} {shown(figure.must)}"
    return (
        figure.what,
        figure.unit,
        figure.peer,
        must,
        shown(middle),
        f"{shown(low)} - {shown(high)}",
        str(len(figure.values)),
        {None: "", True: "yes", False: "NO"}[figure.is_met],
    )
