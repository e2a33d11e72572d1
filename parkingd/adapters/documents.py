"""Outcomes as documents: the one place where ints become hex, RFC 3339 and JSON's names.

`to_document` gives what scripts see. `to_wire` gives what travels on the control socket: the same,
except that stays and events go as bare rows, ten times cheaper for the node's loop; the client
makes items of them with the same functions.

Source: the command contract, section "JSON".
"""

from __future__ import annotations

from typing import assert_never

from parkingd.adapters.document_values import (
    Document,
    dot_document,
    log_items,
    rfc3339,
    vehicle_items,
)
from parkingd.core.ids import replica_hex
from parkingd.protocol.outcomes import (
    CandidateList,
    Change,
    Digest,
    Entry,
    Exit,
    Failure,
    ImportResult,
    Left,
    LogPage,
    Lot,
    MemberList,
    Outcome,
    Status,
    Vehicle,
    VehicleList,
    Wait,
)

MEMBER_STATES = ("alive", "suspect", "dead", "left")


def to_wire(outcome: Outcome) -> tuple[str, Document]:
    """Kind and body of a reply. VehicleList and EventList bring ``rows`` instead of ``items``."""
    match outcome:
        case VehicleList(rows=rows, warnings=warnings):
            return "VehicleList", {"rows": rows, "warnings": warnings}
        case LogPage(rows=rows):
            return "EventList", {"rows": rows}
        case _:
            return to_document(outcome)


def to_document(outcome: Outcome) -> tuple[str, Document]:  # noqa: C901 - one arm per kind
    """Kind and body, without the envelope."""
    match outcome:
        case Entry() as entry:
            return "Entry", {
                "plate": entry.plate,
                "gate": entry.gate,
                "dot": dot_document(*entry.dot),
                "time": rfc3339(entry.time),
                "warnings": list(entry.warnings),
            }
        case Exit() as exit_:
            return "Exit", {
                "plate": exit_.plate,
                "gate": exit_.gate,
                "matched": exit_.matched,
                "stay_s": exit_.stay_s,
                "dot": dot_document(*exit_.dot),
                "warnings": list(exit_.warnings),
            }
        case Lot() as lot:
            return "Lot", _lot(lot)
        case VehicleList(rows=rows, warnings=warnings):
            return "VehicleList", {"items": vehicle_items(rows), "warnings": list(warnings)}
        case Vehicle() as vehicle:
            return "Vehicle", {
                "plate": vehicle.plate,
                "inside": vehicle.inside,
                "items": vehicle_items(vehicle.rows),
                "warnings": list(vehicle.warnings),
            }
        case MemberList(items=members):
            return "MemberList", {
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
                    }
                    for member in members
                ]
            }
        case Status() as status:
            return "Status", _status(status)
        case Digest(items=groups, unreachable=unreachable):
            return "Digest", {
                "items": [{"root": group.root, "nodes": list(group.nodes)} for group in groups],
                "unreachable": list(unreachable),
            }
        case CandidateList(items=candidates):
            return "CandidateList", {
                "items": [
                    {
                        "source": candidate.source,
                        "address": candidate.address,
                        "name": candidate.name,
                        "state": candidate.state,
                        "detail": candidate.detail,
                    }
                    for candidate in candidates
                ]
            }
        case Change() as change:
            return "Change", {
                "closed": [dot_document(*dot) for dot in change.closed],
                "created": [dot_document(*dot) for dot in change.created],
                "warnings": list(change.warnings),
                "what": change.what,
            }
        case ImportResult() as result:
            return "ImportResult", {
                "accepted": result.accepted,
                "skipped": result.skipped,
                "failed": [{"line": row.line, "reason": row.reason} for row in result.failed],
                "failed_count": len(result.failed),
                "warnings": list(result.warnings),
            }
        case Wait(met=met, conditions=conditions):
            return "Wait", {
                "met": met,
                "conditions": [
                    {"condition": each.condition, "met": each.met, "value": each.value}
                    for each in conditions
                ],
            }
        case LogPage(rows=events):
            return "EventList", {"items": log_items(events)}
        case Left(final_seq=final_seq, safe_with=safe_with):
            return "Left", {"final_seq": final_seq, "safe_with": safe_with}
        case Failure(code=code, reason=reason, hint=hint):
            return "Error", {"code": code, "reason": reason, "hint": hint}
        case _:
            assert_never(outcome)


def _lot(lot: Lot) -> Document:
    return {
        "lot": lot.lot,
        "spaces": lot.spaces,
        "inside": lot.inside,
        "free": lot.free,
        "overbooked": lot.overbooked,
        "state": lot.state,
        "admission": lot.admission,
        "conflicts": len(lot.conflicts),
        "conflict_plates": list(lot.conflicts),
        "warnings": list(lot.warnings),
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
    }
