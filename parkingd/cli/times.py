"""From what people type after --since and --until to milliseconds since 1970.

A few forms and no more: how long ago (``90s``, ``15m``, ``2h``, ``3d``), ``today`` and
``yesterday`` for the midnight they begin with, and ISO 8601 dates and times. A time without a zone
is this machine's local time, as for every other command; one that ends in ``Z`` or ``+01:00`` is
what it says, so that what a table shows can be pasted.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from parkingd.adapters.document_values import WALL_MS_MAX
from parkingd.errors import UsageError

_AGO: Final = re.compile(r"(?P<count>[0-9]{1,9}) ?(?P<unit>[smhd])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DAYS_AGO: Final = {"today": 0, "yesterday": 1}

FORMS: Final = "15m, 2h, 3d, today, yesterday, 2026-08-01, 2026-08-01T12:30 or 2026-08-01T12:30:00Z"


def parse_time(flag: str, text: str, now_ms: int) -> int:
    """Milliseconds since 1970, 0 to the end of 9999. Raises UsageError for anything else."""
    word = text.strip().lower()
    ago = _AGO.fullmatch(word)
    if ago is not None:
        return max(0, now_ms - int(ago["count"]) * _UNIT_MS[ago["unit"]])
    try:
        if word in _DAYS_AGO:
            now = datetime.fromtimestamp(now_ms / 1_000, UTC).astimezone()
            day = now.date() - timedelta(_DAYS_AGO[word])
            moment = datetime.fromisoformat(day.isoformat())
        else:
            moment = datetime.fromisoformat(text.strip().upper())
        at_ms = round(moment.timestamp() * 1_000)
    except (ValueError, OverflowError):
        at_ms = -1
    if not 0 <= at_ms <= WALL_MS_MAX:
        raise UsageError(f"{flag}: {text!r} is no time that is known here", FORMS)
    return at_ms
