"""Repairs: what an operator has to look at, and the plates that may explain it.

Conflicts are shown with all their stays. Unmatched exits are shown with the most alike plates
inside, as long as one of them may have been the car: it must have come in before the exit.

A search looks at every plate inside. It goes slice by slice, one a turn of the loop, and hands out
empty pages meanwhile, so that it never holds up the heartbeats, however large the lot is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from parkingd.core.hybrid import physical_ms
from parkingd.core.ids import Dot
from parkingd.core.likeness import index_of, search
from parkingd.core.records import RequestEffect
from parkingd.core.unmatched import may_have_been, unmatched_exits
from parkingd.protocol.limits import REQUEST_MEMORY_MS
from parkingd.protocol.outcomes import ConflictList, UnmatchedList, UnmatchedRow
from parkingd.protocol.reports import Reports
from parkingd.protocol.shared import Shared

CONFLICTS_PAGE: Final = 500
"""Plates in one page; each has two stays or more."""

UNMATCHED_PAGE: Final = 100
"""Exits in one page; each has up to `ALIKE_MAX` suggestions."""

UNMATCHED_MAX: Final = 1_000
"""Exits shown; more are a camera that fails, or a record that was lost, and nobody reads them."""

SLICE_PLATES: Final = 2_000
"""Plates searched in one turn of the loop: 3 to 5 ms."""

ALIKE_MAX: Final = 5
"""Suggestions for one exit; more help nobody."""


class Repairs:
    """Reads of one node that ask for a decision."""

    def __init__(self, shared: Shared, reports: Reports) -> None:
        self._shared = shared
        self._reports = reports

    def conflict_pages(self) -> Iterator[ConflictList]:
        """Every stay of every plate that is inside more than once, by plate and time."""
        plates = sorted(self._shared.replica.state.stays.conflicts)
        for start in range(0, max(1, len(plates)), CONFLICTS_PAGE):
            rows = self._reports.rows(plates[start : start + CONFLICTS_PAGE])
            yield ConflictList(tuple(sorted(row for row in rows if row[6])))

    def unmatched_pages(self, dot: Dot | None) -> Iterator[UnmatchedList]:
        """The open unmatched exits, the latest first; with a ``dot`` that one, if it is open."""
        state = self._shared.replica.state
        after = max(0, physical_ms(state.clock.last) - REQUEST_MEMORY_MS) << 16
        exits = unmatched_exits(state.stays.requests, after)
        if dot is not None:
            exits = [effect for effect in exits if (effect[3], effect[4]) == dot]
        warnings: tuple[str, ...] = ()
        if len(exits) > UNMATCHED_MAX:
            warnings = (f"only the latest {UNMATCHED_MAX} of {len(exits)} are shown",)
            del exits[UNMATCHED_MAX:]
        alike: dict[str, list[tuple[int, str]]] = {effect[2]: [] for effect in exits}
        index = index_of(alike)
        plates = state.stays.entry_plates() if exits else []
        for start in range(0, len(plates), SLICE_PLATES):
            for wanted, cost, plate in search(index, plates[start : start + SLICE_PLATES]):
                alike[wanted].append((cost, plate))
            yield UnmatchedList(())
        for found in alike.values():
            found.sort()
        for start in range(0, max(1, len(exits)), UNMATCHED_PAGE):
            page = exits[start : start + UNMATCHED_PAGE]
            rows = tuple(self._row(effect, alike[effect[2]]) for effect in page)
            yield UnmatchedList(rows, warnings)

    def _row(self, effect: RequestEffect, alike: Sequence[tuple[int, str]]) -> UnmatchedRow:
        """The exit, and the most alike plates that are inside since before it."""
        time, _, plate, origin, seq, gate, _, _ = effect
        state = self._shared.replica.state
        suggested: dict[str, None] = {}
        dots: set[Dot] = set()
        for _, candidate in alike:
            if len(suggested) == ALIKE_MAX:
                break
            for stay in state.stays.visible(candidate):
                if may_have_been(stay, time):
                    suggested[candidate] = None
                    dots.add((stay[1], stay[0]))
        stays = self._reports.rows(list(suggested))
        rows = tuple(row for row in stays if (row[4], row[5]) in dots)
        name = state.record.name_of(origin)
        return (plate, physical_ms(time), gate, name, origin, seq, rows)
