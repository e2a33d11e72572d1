"""What an event says beyond its columns, in few words: for `watch`, `log` and the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from parkingd.cli.render import printable

_FIELDS: Final = frozenset(
    {"seq", "type", "time", "plate", "gate", "member"}
    | {"request", "dot", "replica", "fence", "api", "kind", "node", "at"}
)
"""Fields that have a column, or tell people nothing."""

_SENTENCES: Final = frozenset({"text", "detail", "reason"})
"""Fields that need no name before them."""


def detail_of(event: Mapping[str, Any]) -> str:
    """All that people may want to know of it and no column has; printable, on one line."""
    rest = {key: value for key, value in event.items() if key not in _FIELDS}
    if isinstance(detail := rest.get("detail"), Mapping):
        rest = {key: value for key, value in rest.items() if key != "detail"} | dict(detail)
    return ", ".join(
        _said(str(key), value)
        for key, value in rest.items()
        if value is not None and value not in ("", [], {})
    )


def _said(key: str, value: object) -> str:
    """One field of an event, for people."""
    if key in _SENTENCES:
        return _word(value)
    if key.endswith("_s") and isinstance(value, (int, float)):
        return f"{_word(key[:-2])} {ago(value)}"
    words = [_word(each) for each in value] if isinstance(value, list) else [_word(value)]
    return " ".join((_word(key), *words))


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else printable(str(value))


def ago(seconds: float) -> str:
    """``7s``, ``12m``, ``3h``, ``4d``."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
