"""How the daemon's log looks: one event per line, for people on a terminal, else JSON.

How it works. The layers below log with the standard library, the event's name as the message and
what belongs to it in ``extra``::

    log.warning("mdns_off", extra={"values": {"reason": reason}})
    log.warning("frame_refused", extra={"values": {"reason": reason}, "limit_key": reason})

A record with a ``limit_key`` passes once per interval and key; the next one that passes tells how
many did not (``suppressed``). One handler serves the whole process, so that what libraries log
looks the same; their tracebacks shrink to one value unless the level is ``debug``.

Invariants: one record is one line whatever a stranger put into a value (control characters are
escaped); writing a log line never raises.

Source: DESIGN section 11.
"""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

LIMIT_INTERVAL_S: Final = 10.0
LIMIT_KEYS_MAX: Final = 256
"""Keys may come from strangers; the one that was quiet longest is forgotten first."""

_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}
_QUIET_LIBRARIES: Final = ("zeroconf",)
"""They warn about what the daemon reports itself, in its own words."""


class RateLimit:
    """Lets one occurrence per key and interval pass and counts the others."""

    def __init__(
        self, interval_s: float = LIMIT_INTERVAL_S, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = interval_s
        self._clock_s = clock_s
        self._keys: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Key -> when it last passed, how many have not since; longest quiet first."""

    def suppressed(self, key: str) -> int | None:
        """None: not now. Else it passes, and this many have not since the last that did."""
        now_s = self._clock_s()
        passed_s, held_back = self._keys.get(key, (float("-inf"), 0))
        if now_s - passed_s < self._interval_s:
            self._keys[key] = (passed_s, held_back + 1)
            return None
        self._keys[key] = (now_s, 0)
        self._keys.move_to_end(key)
        if len(self._keys) > LIMIT_KEYS_MAX:
            self._keys.popitem(last=False)
        return held_back


def configure_logging(level: str, format: str | None, stream: TextIO) -> None:
    """Send every log record of this process to ``stream``, and nowhere else.

    ``level``: debug, info, warning or error, for parkingd's own records; libraries are heard from
    warning on. ``format``: ``text``, ``json``, or None for text on a terminal and JSON elsewhere.
    """
    terminal = stream.isatty()
    traces = level == "debug"
    handler = logging.StreamHandler(stream)
    if (format or ("text" if terminal else "json")) == "text":
        handler.setFormatter(_TextFormatter(colour=terminal and _colour_wanted(), traces=traces))
    else:
        handler.setFormatter(_JsonFormatter(traces=traces))
    handler.addFilter(_limit_filter(RateLimit()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("parkingd").setLevel(level.upper())
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING if traces else logging.CRITICAL)
    logging.raiseExceptions = False  # a full disk behind stderr must not make noise on it


def _colour_wanted() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _limit_filter(limit: RateLimit) -> Callable[[logging.LogRecord], bool]:
    def passes(record: logging.LogRecord) -> bool:
        key = getattr(record, "limit_key", None)
        if key is None:
            return True
        held_back = limit.suppressed(f"{record.msg} {key}")
        record.suppressed = held_back
        return held_back is not None

    return passes


class _EventFormatter(logging.Formatter):
    """Reads a record as an event and its values."""

    def __init__(self, *, traces: bool) -> None:
        super().__init__()
        self._traces = traces

    def values(self, record: logging.LogRecord) -> dict[str, object]:
        """Everything to show beside time, level and event."""
        given = getattr(record, "values", None)
        values: dict[str, object] = dict(given) if isinstance(given, Mapping) else {}
        if record.name.split(".")[0] != "parkingd":
            values["logger"] = record.name
        if getattr(record, "suppressed", None):
            values["suppressed"] = getattr(record, "suppressed", 0)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            values["error"] = f"{type(error).__name__}: {error}"
            if self._traces:
                values["traceback"] = "".join(traceback.format_exception(error))
        return values


class _TextFormatter(_EventFormatter):
    """``12:34:56.789 WARNING mdns_off reason="No such device"``, in local time.

    A value that there is not is left out, lists are separated by commas.
    """

    def __init__(self, *, colour: bool, traces: bool) -> None:
        super().__init__(traces=traces)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created).astimezone()
        level = record.levelname.lower()
        shown = f"{level.upper():<7}"
        if self._colour and level in _COLOURS:
            shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
        words = [f"{at:%H:%M:%S}.{at.microsecond // 1000:03}", shown, _line(record.getMessage())]
        values = self.values(record).items()
        words += [f"{key}={_word(value)}" for key, value in values if value is not None]
        return " ".join(words)


class _JsonFormatter(_EventFormatter):
    """One JSON object: ts (RFC 3339, UTC), level, event, then the values."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, ASCII."""
        at = datetime.fromtimestamp(record.created, UTC)
        head: dict[str, object] = {
            "ts": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        values = {str(key): value for key, value in self.values(record).items() if key not in head}
        return json.dumps(head | values, default=str)


def _line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _word(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
