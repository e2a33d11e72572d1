"""How single values look to people and scripts: times, dots, stays, the envelope.

Used on both sides of the control socket, so it imports nothing that takes time to load. Times are
RFC 3339 in UTC with milliseconds, replicas 16 hex digits, dots ``[replica, seq]``, fences
``[epoch, score, owner]``.

Source: the command contract, section "JSON".
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

API: Final = "parkingd/v1"

Document: TypeAlias = dict[str, Any]
"""One JSON object."""

WALL_MS_MAX: Final = 253_402_300_799_999
"""The end of the year 9999; later times have no RFC 3339 form."""


def rfc3339(wall_ms: int) -> str:
    """``2026-08-01T12:00:00.000Z``. Times before 1970 and after 9999 are shown as the nearest."""
    wall_ms = min(max(wall_ms, 0), WALL_MS_MAX)
    seconds, ms = divmod(wall_ms, 1_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"


def dot_document(replica: int, seq: int) -> list[str | int]:
    """``[replica as 16 hex digits, seq]``."""
    return [f"{replica:016x}", seq]


def fence_document(epoch: int, score: int, owner: str) -> list[str | int]:
    """``[epoch, score as 16 hex digits, owner]``: sorts as fences do, place by place."""
    return [epoch, f"{score:016x}", owner]


def envelope(kind: str, node: str | None, at_ms: int, body: Mapping[str, Any]) -> Document:
    """The object as scripts see it: the body, and who answered what and when."""
    return {"api": API, "kind": kind, "node": node, "at": rfc3339(at_ms), **body}


def vehicle_items(rows: Iterable[Iterable[Any]]) -> list[Document]:
    """Items of a VehicleList from rows (`outcomes.VehicleRow`).

    A hundred thousand rows have to pass in a tenth of a second: the part of a time that whole
    minutes share, and the hex of a replica, are made once.
    """
    minutes = _Minutes()
    replicas = _Replicas()
    return [
        {
            "conflict": conflict,
            "dot": [replicas[replica], seq],
            "entered_at_node": node,
            "gate": gate,
            "plate": plate,
            "since": f"{minutes[since // 60_000]}{since % 60_000 // 1000:02d}.{since % 1000:03d}Z",
        }
        for plate, since, gate, node, replica, seq, conflict in rows
    ]


def log_items(rows: Iterable[Iterable[Any]]) -> list[Document]:
    """Items of an EventList from rows (`outcomes.LogRow`): what an event lacks is left out."""
    replicas = _Replicas()
    items: list[Document] = []
    for replica, seq, at_ms, kind, plate, gate, detail in rows:
        item: Document = {
            "dot": [replicas[replica], seq],
            "seq": seq,
            "time": rfc3339(at_ms),
            "type": kind,
        }
        optional = (("plate", plate), ("gate", gate), ("detail", detail))
        item.update((key, value) for key, value in optional if value is not None)
        items.append(item)
    return items


def conflict_items(rows: Iterable[Iterable[Any]]) -> list[Document]:
    """Items of a ConflictList from rows (`outcomes.VehicleRow`): one for each plate."""
    stays: dict[str, list[Document]] = {}
    for stay in vehicle_items(rows):
        del stay["conflict"]
        plate = stay.pop("plate")
        replica, seq = stay["dot"]
        settle = f"parkingd-ctl remove {plate} --dot {replica}:{seq}"
        stays.setdefault(plate, []).append(stay | {"settle": settle})
    return [{"plate": plate, "stays": those} for plate, those in stays.items()]


def unmatched_items(rows: Iterable[Iterable[Any]]) -> list[Document]:
    """Items of an UnmatchedList from rows (`outcomes.UnmatchedRow`)."""
    return [
        {
            "plate": plate,
            "time": rfc3339(at_ms),
            "gate": gate,
            "node": node,
            "dot": dot_document(replica, seq),
            "alike": [
                stay
                | {"settle": f"parkingd-ctl remove {stay['plate']} --exit {replica:016x}:{seq}"}
                for stay in vehicle_items(alike)
            ],
        }
        for plate, at_ms, gate, node, replica, seq, alike in rows
    ]


class _Minutes(dict[int, str]):
    def __missing__(self, minute: int) -> str:
        text = self[minute] = rfc3339(minute * 60_000)[:17]
        return text


class _Replicas(dict[int, str]):
    def __missing__(self, replica: int) -> str:
        text = self[replica] = f"{replica:016x}"
        return text
