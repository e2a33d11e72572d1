"""The lookout: what begins and ends without an event, noted in the journal.

Once a second it compares the warnings and the gates without an owner with those of the last look.
What lasts less than that is not worth a line, and a warning that comes back within `CALM_MS` never
ended: a clock that wavers around its limit must not fill the disk.

It also says, once a minute, which lines of the journal are too old to be kept.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from parkingd.core.ids import Now
from parkingd.protocol.gate_rows import UNOWNED
from parkingd.protocol.outcomes import GateRow
from parkingd.protocol.reports import Reports
from parkingd.protocol.shared import Shared

CALM_MS: Final = 10_000
"""A warning has ended when it was not seen for this long."""

FORGET_MS: Final = 60_000
"""How often lines that are too old are looked for: the time they may live longer."""

TOPICS_MAX: Final = 256
"""Texts of warnings whose topics are remembered: mostly the same are looked at every second."""

_NUMBER: Final = re.compile(r"(?<![\w.-])[+-]?[0-9]+(?![\w.-])")
"""A number that stands alone. Another count of the same thing is the same warning."""


@lru_cache(maxsize=TOPICS_MAX)
def _topic(text: str) -> str:
    return _NUMBER.sub("#", text)


class Lookout:
    """One per node."""

    def __init__(self, shared: Shared, reports: Reports, now: Now) -> None:
        self._shared = shared
        self._reports = reports
        self._warnings: dict[str, tuple[str, int]] = {}
        """By topic: the text, and when it was last seen."""
        self._unowned: dict[int, bool] = {}
        """Gates without an owner at the last look, and whether that was noted."""
        self._next_forgetting_ms = now.mono_ms

    def look(self, now: Now) -> None:
        """To be called about once a second."""
        rows = self._reports.gates(now)
        self._look_at_warnings(rows, now)
        if self._shared.has_lot:
            self._look_at_gates(rows, now)
        if now.mono_ms >= self._next_forgetting_ms:
            self._next_forgetting_ms = now.mono_ms + FORGET_MS
            shared = self._shared
            oldest_ms = shared.physical_ms(now) - shared.settings.journal_ms
            shared.journal.forget(max(0, oldest_ms))

    def _look_at_warnings(self, rows: tuple[GateRow, ...], now: Now) -> None:
        journal = self._shared.journal
        for text in self._reports.warnings(rows, now):
            topic = _topic(text)
            if topic not in self._warnings:
                journal.note("warning", now, detail=(("text", text),))
            self._warnings[topic] = (text, now.mono_ms)
        for topic, (text, seen_ms) in list(self._warnings.items()):
            if now.mono_ms - seen_ms >= CALM_MS:
                del self._warnings[topic]
                journal.note("warning_ended", now, detail=(("text", text),))

    def _look_at_gates(self, rows: tuple[GateRow, ...], now: Now) -> None:
        journal = self._shared.journal
        before, self._unowned = self._unowned, {}
        for row in rows:
            if row.state == UNOWNED:
                if row.gate in before and not before[row.gate]:
                    detail = (("epoch", row.epoch),)
                    journal.note("gate_unowned", now, gate=row.gate, detail=detail)
                self._unowned[row.gate] = row.gate in before
            elif before.get(row.gate) and row.owner is None:
                self._unowned[row.gate] = True  # On its way to somebody.
            elif before.get(row.gate):
                served = (("owner", row.owner), ("epoch", row.epoch))
                journal.note("gate_served", now, gate=row.gate, detail=served)
