"""Outcomes as documents: the one place where ints become hex, RFC 3339 and JSON's names.

`to_document` gives what scripts see. `to_wire` gives what travels on the control socket: the same,
except that stays and events go as bare rows, ten times cheaper for the node's loop; the client
makes items of them with the same functions.

One small function per kind; the table at the end says which is whose.

Source: the command contract, section "JSON".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

from parkingd.adapters.document_values import (
    Document,
    conflict_items,
    dot_document,
    fence_document,
    log_items,
    rfc3339,
    unmatched_items,
    vehicle_items,
)
from parkingd.core.ids import replica_hex
from parkingd.protocol.outcomes import (
    CandidateList,
    Change,
    ConflictList,
    Decision,
    Digest,
    Entry,
    Exit,
    Failure,
    GateList,
    ImportResult,
    Left,
    LogPage,
    Lot,
    MemberList,
    Outcome,
    SettingList,
    Status,
    UnmatchedList,
    Vehicle,
    VehicleList,
    Wait,
)

MEMBER_STATES: Final = ("alive", "suspect", "dead", "left")

OutcomeT = TypeVar("OutcomeT", bound=Outcome)


def to_wire(outcome: Outcome) -> tuple[str, Document]:
    """Kind and body of a reply. What is sent in pages brings ``rows`` instead of ``items``."""
    match outcome:
        case VehicleList(rows=rows, warnings=warnings):
            return "VehicleList", {"rows": rows, "warnings": warnings}
        case LogPage(rows=rows):
            return "EventList", {"rows": rows}
        case ConflictList(rows=rows):
            return "ConflictList", {"rows": rows}
        case UnmatchedList(rows=rows, warnings=warnings):
            return "UnmatchedList", {"rows": rows, "warnings": warnings}
        case _:
            return to_document(outcome)


def to_document(outcome: Outcome) -> tuple[str, Document]:
    """Kind and body, without the envelope."""
    kind, body = _FORMS[type(outcome)]
    return kind, body(outcome)


# --- cars ----------------------------------------------------------------------------------------


def _entry(entry: Entry) -> Document:
    return {
        "plate": entry.plate,
        "gate": entry.gate,
        "dot": dot_document(*entry.dot),
        "time": rfc3339(entry.time),
        "warnings": list(entry.warnings),
    }


def _decision(decision: Decision) -> Document:
    return {
        "decision": decision.decision,
        "reason": decision.reason,
        "plate": decision.plate,
        "gate": decision.gate,
        "epoch": decision.epoch,
        "owner": decision.owner,
        "free": decision.free,
        "fence": fence_document(*decision.fence) if decision.fence is not None else None,
        "warnings": list(decision.warnings),
        "hint": decision.hint,
        "request": decision.request.hex() if decision.request is not None else None,
    }


def _exit(exit_: Exit) -> Document:
    return {
        "plate": exit_.plate,
        "gate": exit_.gate,
        "matched": exit_.matched,
        "stay_s": exit_.stay_s,
        "dot": dot_document(*exit_.dot),
        "warnings": list(exit_.warnings),
    }


def _lot(lot: Lot) -> Document:
    return {
        "lot": lot.lot,
        "spaces": lot.spaces,
        "inside": lot.inside,
        "free": lot.free,
        "overbooked": lot.overbooked,
        "state": lot.state,
        "admission": lot.admission,
        "thresholds": lot.thresholds._asdict(),
        "conflicts": len(lot.conflicts),
        "conflict_plates": list(lot.conflicts),
        "warnings": list(lot.warnings),
    }


def _vehicle_list(page: VehicleList) -> Document:
    return {"items": vehicle_items(page.rows), "warnings": list(page.warnings)}


def _vehicle(vehicle: Vehicle) -> Document:
    return {
        "plate": vehicle.plate,
        "inside": vehicle.inside,
        "items": vehicle_items(vehicle.rows),
        "warnings": list(vehicle.warnings),
    }


def _conflict_list(page: ConflictList) -> Document:
    return {"items": conflict_items(page.rows)}


def _unmatched_list(page: UnmatchedList) -> Document:
    return {"items": unmatched_items(page.rows), "warnings": list(page.warnings)}


def _import_result(result: ImportResult) -> Document:
    return {
        "accepted": result.accepted,
        "skipped": result.skipped,
        "failed": [{"line": row.line, "reason": row.reason} for row in result.failed],
        "failed_count": len(result.failed),
        "warnings": list(result.warnings),
    }


def _event_list(page: LogPage) -> Document:
    return {"items": log_items(page.rows)}


# --- the node and its cluster --------------------------------------------------------------------


def _gate_list(gates: GateList) -> Document:
    return {
        "items": [
            {
                "gate": row.gate,
                "owner": row.owner,
                "epoch": row.epoch,
                "state": row.state,
                "claims": list(row.claims),
                "target": row.target,
                "mode": row.mode,
                "mode_reason": row.mode_reason,
            }
            for row in gates.items
        ]
    }


def _member_list(members: MemberList) -> Document:
    return {
        "items": [
            {
                "name": member.name,
                "state": member.state,
                "replica": replica_hex(member.replica),
                "incarnation": member.incarnation,
                "address": member.address,
                "last_heard_s": member.last_heard_s,
                "rtt_ms": member.rtt_ms,
                "gates": member.gates,
                "version": member.version,
                "events_behind": member.events_behind,
                "synced_s": member.synced_s,
            }
            for member in members.items
        ]
    }


def _status(status: Status) -> Document:
    return {
        "replica": replica_hex(status.replica),
        "incarnation": status.incarnation,
        "cluster": status.cluster,
        "uptime_s": status.uptime_s,
        "synced": status.synced,
        "ready": status.ready,
        "root": status.root,
        "lot": _lot(status.lot) if status.lot is not None else None,
        "members": dict.fromkeys(MEMBER_STATES, 0) | dict(status.members),
        "gates": {
            "total": status.gates_total,
            "owned": list(status.gates_owned),
            "unowned": list(status.gates_unowned),
            "contested": list(status.gates_contested),
        },
        "warnings": list(status.warnings),
        "counters": dict(status.counters),
        "journal": {"last": status.journal_last, "days": status.journal_days},
    }


def _digest(digest: Digest) -> Document:
    return {
        "items": [{"root": group.root, "nodes": list(group.nodes)} for group in digest.items],
        "unreachable": list(digest.unreachable),
    }


def _candidate_list(candidates: CandidateList) -> Document:
    return {
        "items": [
            {
                "source": candidate.source,
                "address": candidate.address,
                "name": candidate.name,
                "state": candidate.state,
                "detail": candidate.detail,
            }
            for candidate in candidates.items
        ]
    }


def _change(change: Change) -> Document:
    return {
        "closed": [dot_document(*dot) for dot in change.closed],
        "created": [dot_document(*dot) for dot in change.created],
        "warnings": list(change.warnings),
        "what": change.what,
        "settings": [
            {"key": each.key, "old": each.old, "new": each.new} for each in change.settings
        ],
    }


def _setting_list(settings: SettingList) -> Document:
    return {
        "items": [
            {
                "key": row.key,
                "value": row.value,
                "old": row.old,
                "by": row.by,
                "time": None if row.time is None else rfc3339(row.time),
                "reason": row.reason,
            }
            for row in settings.items
        ]
    }


def _wait(wait: Wait) -> Document:
    return {
        "met": wait.met,
        "conditions": [
            {"condition": each.condition, "met": each.met, "value": each.value}
            for each in wait.conditions
        ],
    }


def _left(left: Left) -> Document:
    return {"final_seq": left.final_seq, "safe_with": left.safe_with}


def _error(failure: Failure) -> Document:
    return {"code": failure.code, "reason": failure.reason, "hint": failure.hint}


# --- the table -----------------------------------------------------------------------------------

_FORMS: Final[dict[type, tuple[str, Callable[[Outcome], Document]]]] = {}
"""Kind and function by class. A test holds it against the union `Outcome`."""


def _register(outcome: type[OutcomeT], kind: str, body: Callable[[OutcomeT], Document]) -> None:
    """One row; ``body`` is found by class, and so is only called with an outcome of its class."""
    _FORMS[outcome] = kind, cast("Callable[[Outcome], Document]", body)


_register(Entry, "Entry", _entry)
_register(Decision, "Decision", _decision)
_register(Exit, "Exit", _exit)
_register(Lot, "Lot", _lot)
_register(VehicleList, "VehicleList", _vehicle_list)
_register(Vehicle, "Vehicle", _vehicle)
_register(ConflictList, "ConflictList", _conflict_list)
_register(UnmatchedList, "UnmatchedList", _unmatched_list)
_register(ImportResult, "ImportResult", _import_result)
_register(LogPage, "EventList", _event_list)
_register(GateList, "GateList", _gate_list)
_register(MemberList, "MemberList", _member_list)
_register(Status, "Status", _status)
_register(Digest, "Digest", _digest)
_register(CandidateList, "CandidateList", _candidate_list)
_register(SettingList, "SettingList", _setting_list)
_register(Change, "Change", _change)
_register(Wait, "Wait", _wait)
_register(Left, "Left", _left)
_register(Failure, "Error", _error)
