"""From the daemon's documents to the rows that the dashboard shows.

A daemon of another version may leave a field out or put something else there: what cannot be read
is shown as not known, and nothing here raises. Foreign text is made printable, so that it cannot
move the cursor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from parkingd.adapters.document_values import Document
from parkingd.cli.event_words import detail_of
from parkingd.cli.render import printable

ALMOST_FULL_PERCENT: Final = 90
"""Of a daemon that does not say."""


@dataclass(frozen=True, slots=True)
class Lot:
    """The lot in numbers. ``free`` is negative when there are more cars than spaces."""

    spaces: int
    inside: int
    free: int
    overbooked: int
    state: str
    admission: str
    conflicts: tuple[str, ...]
    """Plates that are inside more than once."""
    almost_full: int = ALMOST_FULL_PERCENT
    """Where the lot begins to be almost full, in percent of its spaces."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node, as the asked one sees it."""

    name: str
    state: str
    last_heard_s: float | None
    rtt_ms: float | None
    gates: int
    version: str
    address: str
    incarnation: int
    is_self: bool
    events_behind: int | None = None
    """Of what the asked one has; None: not known."""
    synced_s: float | None = None
    """Seconds since the asked one had all of it; None: not known."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate and who serves it."""

    number: int
    owner: str | None
    epoch: int
    state: str
    claims: tuple[str, ...]
    target: str | None
    mode: str = "auto"
    """``open`` or ``closed`` while a person holds it so."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes whose replicas have one root."""

    root: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the event stream."""

    seq: int
    type: str
    at_ms: int
    plate: str | None
    gate: int | None
    member: str | None
    detail: str
    """What else it carries, as words."""


def read_lot(document: object) -> Lot | None:
    """None while the node has no lot."""
    if not isinstance(document, Mapping):
        return None
    return Lot(
        read_number(document.get("spaces")),
        read_number(document.get("inside")),
        read_number(document.get("free")),
        read_number(document.get("overbooked")),
        read_text(document.get("state")),
        read_text(document.get("admission")),
        tuple(read_text(plate) for plate in _items(document, "conflict_plates")),
        _almost_full(document.get("thresholds")),
    )


def _almost_full(thresholds: object) -> int:
    if not isinstance(thresholds, Mapping):
        return ALMOST_FULL_PERCENT
    return min(100, max(0, read_number(thresholds.get("almost_full", ALMOST_FULL_PERCENT))))


def read_members(document: Document) -> tuple[Member, ...]:
    """Its first item is the node that was asked."""
    return tuple(
        Member(
            read_text(item.get("name")),
            read_text(item.get("state")),
            _real(item.get("last_heard_s")),
            _real(item.get("rtt_ms")),
            read_number(item.get("gates")),
            read_text(item.get("version")),
            read_text(item.get("address")),
            read_number(item.get("incarnation")),
            is_self=item.get("name") == document.get("node"),
            events_behind=_whole(item.get("events_behind")),
            synced_s=_real(item.get("synced_s")),
        )
        for item in _maps(document)
    )


def _whole(value: object) -> int | None:
    return None if value is None else read_number(value)


def read_gates(document: Document) -> tuple[Gate, ...]:
    """By number, as the daemon lists them."""
    return tuple(
        Gate(
            read_number(item.get("gate")),
            _optional(item.get("owner")),
            read_number(item.get("epoch")),
            read_text(item.get("state")),
            tuple(read_text(name) for name in _items(item, "claims")),
            _optional(item.get("target")),
            read_text(item.get("mode", "auto")),
        )
        for item in _maps(document)
    )


def read_groups(document: Document) -> tuple[Group, ...]:
    """The largest first; of equally large ones that with the node that was asked."""
    groups = [
        Group(read_text(item.get("root")), tuple(read_text(name) for name in _items(item, "nodes")))
        for item in _maps(document)
    ]
    node = document.get("node")
    return tuple(sorted(groups, key=lambda group: (-len(group.nodes), node not in group.nodes)))


def read_silent(document: Document) -> tuple[str, ...]:
    """Members that did not say their root."""
    return tuple(read_text(name) for name in _items(document, "unreachable"))


def read_event(item: Mapping[str, Any], at_ms: int) -> Event:
    """``at_ms``: when it came, for an event without a time that can be read."""
    gate = item.get("gate")
    return Event(
        read_number(item.get("seq")),
        read_text(item.get("type")),
        read_time_ms(item.get("time"), at_ms),
        _optional(item.get("plate")),
        gate if isinstance(gate, int) else None,
        _optional(item.get("member")),
        detail_of(item),
    )


def read_time_ms(text: object, otherwise_ms: int) -> int:
    """Wall milliseconds of an RFC 3339 time."""
    if not isinstance(text, str):
        return otherwise_ms
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return otherwise_ms
    return int(moment.timestamp() * 1_000) if moment.tzinfo is not None else otherwise_ms


def read_text(value: object) -> str:
    """Printable, and empty for None."""
    return "" if value is None else printable(str(value))


def read_number(value: object) -> int:
    """0 for what is no number."""
    return int(value) if isinstance(value, (int, float)) else 0


def read_counters(document: object) -> dict[str, int]:
    """The node's counters by name."""
    if not isinstance(document, Mapping):
        return {}
    return {str(key): read_number(value) for key, value in document.items()}


def _maps(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in _items(document, "items") if isinstance(item, Mapping)]


def _items(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return list(value) if isinstance(value, (list, tuple)) else []


def _optional(value: object) -> str | None:
    return None if value is None else printable(str(value))


def _real(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
