"""A day at a car park, in script: what the picture in the README shows.

The documents are those that a daemon would answer with, and they go through the same fold as real
ones, so that the picture cannot show what the dashboard does not.
"""

from __future__ import annotations

from typing import Any, Final

from parkingd.adapters.document_values import Document, envelope, rfc3339
from parkingd.cli.top.model import (
    BUCKET_S,
    BUCKETS,
    Compared,
    Message,
    Model,
    Moment,
    Polled,
    Told,
    after,
)

NODE: Final = "gary"
AT_MS: Final = 1_785_585_600_000 + 4_530_000
"""1 August 2026, 13:15:30 UTC: nobody's clock."""
NOW: Final = Moment(1_000.0, AT_MS)

SPACES: Final = 100
INSIDE: Final = 103

_ROOT: Final = "8b7fdcc7f80d46a57adb59344f7f07fb"
_OTHER_ROOT: Final = "5d31c20ab1e64f8f9a7f2b6c04e1d733"

_ARRIVALS: Final = (0, 1, 0, 1, 2, 1, 3, 2, 4, 3, 5, 4, 6, 5, 7, 6, 5, 6, 4, 5, 3, 4, 2, 3, 2, 1, 2)
_DEPARTURES: Final = (1, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 2, 1, 2, 1, 2, 3, 2, 1, 2, 3)
"""Cars in each ten seconds, until half a minute ago."""

_LATEST: Final[tuple[tuple[float, str, dict[str, Any]], ...]] = (
    (21.4, "admitted", {"plate": "KAPI314", "gate": 2, "member": "larry"}),
    (18.9, "exited", {"plate": "HDX2204", "gate": 4, "member": "gary", "stay_s": 5_412}),
    (16.2, "admitted", {"plate": "ABC123", "gate": 1, "member": "gary"}),
    (11.8, "entered", {"plate": "ABC123", "gate": 3, "member": "harry", "by": "track"}),
    (11.7, "conflict", {"plate": "ABC123", "gate": 3}),
    (9.3, "warning", {"member": "gary", "text": "overbooked by 3"}),
    (7.1, "exited", {"plate": "SWR1860", "gate": 1, "member": "gary", "stay_s": 812}),
    (4.4, "denied", {"plate": "MAQ77", "gate": 2, "member": "larry", "reason": "full"}),
    (1.6, "member_suspect", {"member": "harry"}),
    (0.3, "gate_released", {"gate": 4, "member": "gary", "target": "larry"}),
)


def demo_model() -> Model:
    """Three nodes: one suspect, a gate on its way, more cars than spaces, a plate in conflict."""
    model = Model()
    for message in _messages():
        model = after(model, message)
    return model


def _messages() -> list[Message]:
    items = [*_history(), *_latest()]
    numbered = tuple(item | {"seq": at + 1} for at, item in enumerate(items))
    return [
        _polled(9.0, received=88_200, sent=80_300, events=1_204),
        Told(NOW, numbered),
        Compared(NOW, _digest()),
        _polled(0.0, received=96_900, sent=87_800, events=1_217),
    ]


def _history() -> list[dict[str, Any]]:
    """Cars of the last minutes."""
    first_ms = (AT_MS // 1_000 // BUCKET_S - BUCKETS + 1) * BUCKET_S * 1_000
    items: list[dict[str, Any]] = [
        {
            "type": kind,
            "time": rfc3339(first_ms + bucket * BUCKET_S * 1_000),
            "plate": f"KA{bucket:02}{at}",
            "gate": at % 4 + 1,
        }
        for kind, counts in (("admitted", _ARRIVALS), ("exited", _DEPARTURES))
        for bucket, count in enumerate(counts)
        for at in range(count)
    ]
    return sorted(items, key=lambda item: str(item["time"]))


def _latest() -> list[dict[str, Any]]:
    return [
        {"type": kind, "time": rfc3339(AT_MS - int(ago_s * 1_000)), **more}
        for ago_s, kind, more in _LATEST
    ]


def _document(kind: str, body: Document) -> Document:
    return envelope(kind, NODE, AT_MS, body)


def _polled(ago_s: float, received: int, sent: int, events: int) -> Polled:
    status = {
        "cluster": "airport",
        "incarnation": 1,
        "uptime_s": 12_345.0 - ago_s,
        "synced": True,
        "ready": True,
        "lot": {
            "spaces": SPACES,
            "inside": INSIDE,
            "free": SPACES - INSIDE,
            "overbooked": INSIDE - SPACES,
            "state": "full",
            "admission": "local",
            "conflict_plates": ["ABC123"],
        },
        "warnings": [f"overbooked by {INSIDE - SPACES}", "1 plate is inside more than once"],
        "counters": {"events_received": events, "bytes_in": received, "bytes_out": sent},
    }
    at = Moment(NOW.mono_s - ago_s, AT_MS - int(ago_s * 1_000))
    members = _document("MemberList", {"items": _MEMBERS})
    gates = _document("GateList", {"items": _GATES})
    return Polled(at, _document("Status", status), members, gates)


def _digest() -> Document:
    groups = [
        {"root": _ROOT, "nodes": ["gary", "larry"]},
        {"root": _OTHER_ROOT, "nodes": ["harry"]},
    ]
    return _document("Digest", {"items": groups, "unreachable": []})


_MEMBERS: Final = [
    {
        "name": name,
        "state": state,
        "last_heard_s": heard_s,
        "rtt_ms": rtt_ms,
        "gates": gates,
        "version": "0.1.0",
        "address": address,
        "incarnation": 1,
        "events_behind": behind,
        "synced_s": synced_s,
    }
    for name, state, heard_s, rtt_ms, gates, address, behind, synced_s in (
        ("gary", "alive", 0.0, None, 2, "10.0.0.1:7744", None, None),
        ("harry", "suspect", 1.6, 0.9, 1, "10.0.0.3:7744", 14, 3.1),
        ("larry", "alive", 0.1, 0.4, 1, "10.0.0.2:7744", 0, 0.9),
    )
]

_GATES: Final = [
    {"gate": gate, "owner": owner, "epoch": epoch, "state": state, "claims": [owner], "target": to}
    for gate, owner, epoch, state, to in (
        (1, "gary", 5, "served", None),
        (2, "larry", 3, "served", None),
        (3, "harry", 2, "served", None),
        (4, "gary", 8, "moving", "larry"),
    )
]
