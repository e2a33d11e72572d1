"""The JSON kinds of the command contract, field by field."""

from __future__ import annotations

from typing import get_args

import pytest

from parkingd.adapters.document_values import envelope, rfc3339
from parkingd.adapters.documents import _FORMS, to_document, to_wire
from parkingd.core.gates import Fence
from parkingd.protocol.commands import (
    AskToEnter,
    Command,
    Correct,
    ImportRows,
    Leave,
    ReadCandidates,
    ReadConflicts,
    ReadDigest,
    ReadGates,
    ReadLot,
    ReadMembers,
    ReadSettings,
    ReadStatus,
    ReadUnmatched,
    ReadVehicles,
    RecordExit,
    SetGates,
    Track,
    WaitFor,
    Where,
)
from parkingd.protocol.outcomes import (
    ConflictList,
    Decision,
    Failure,
    LogPage,
    Outcome,
    UnmatchedList,
    VehicleList,
)
from tests.adapters.control_fake import NOON, NOON_MS, FakeNode

FIELDS: list[tuple[Command, str, set[str]]] = [
    (
        ReadLot(),
        "Lot",
        {"lot", "spaces", "inside", "free", "overbooked", "state", "admission", "conflicts"},
    ),
    (ReadVehicles(), "VehicleList", {"items"}),
    (Where("A"), "Vehicle", {"inside", "items"}),
    (ReadConflicts(), "ConflictList", {"items"}),
    (ReadGates(), "GateList", {"items"}),
    (ReadMembers(), "MemberList", {"items"}),
    (
        ReadStatus(),
        "Status",
        {
            "replica",
            "incarnation",
            "cluster",
            "uptime_s",
            "synced",
            "root",
            "lot",
            "members",
            "gates",
            "warnings",
        },
    ),
    (ReadDigest(), "Digest", {"items", "unreachable"}),
    (Track("A", 1, None), "Entry", {"plate", "gate", "dot", "time", "warnings"}),
    (
        AskToEnter("A", 1, None),
        "Decision",
        {"decision", "reason", "plate", "gate", "epoch", "owner", "free"},
    ),
    (
        RecordExit("A", 1, None),
        "Exit",
        {"plate", "gate", "matched", "stay_s", "dot", "warnings"},
    ),
    (ReadCandidates(), "CandidateList", {"items"}),
    (Correct("A", "B", None), "Change", {"closed", "created", "warnings"}),
    (SetGates(6, None), "Change", {"closed", "created", "warnings", "settings"}),
    (ReadSettings(), "SettingList", {"items"}),
    (ImportRows(()), "ImportResult", {"accepted", "skipped", "failed", "failed_count"}),
    (WaitFor(()), "Wait", {"met", "conditions"}),
    (Leave(), "Left", {"final_seq", "safe_with"}),
]


@pytest.mark.parametrize(("command", "kind", "fields"), FIELDS)
def test_a_kind_has_the_fields_of_the_contract(
    command: Command, kind: str, fields: set[str]
) -> None:
    (outcome,) = FakeNode()(command)
    given, body = to_document(outcome)
    assert given == kind
    assert fields <= set(body)


def test_every_outcome_has_a_form_of_its_own_kind() -> None:
    assert set(_FORMS) == set(get_args(Outcome))
    kinds = [kind for kind, _ in _FORMS.values()]
    assert len(set(kinds)) == len(kinds)


def test_a_decision_brings_the_fence_and_the_request_id_in_hex() -> None:
    request = bytes(range(16))
    fence = Fence(7, 0xAB, "gary")
    decision = Decision("admitted", "ok", "A", 1, 7, "gary", 41, fence, request, ("repeated",))
    assert to_document(decision) == (
        "Decision",
        {
            "decision": "admitted",
            "reason": "ok",
            "plate": "A",
            "gate": 1,
            "epoch": 7,
            "owner": "gary",
            "free": 41,
            "fence": [7, "00000000000000ab", "gary"],
            "warnings": ["repeated"],
            "hint": "",
            "request": "000102030405060708090a0b0c0d0e0f",
        },
    )


def test_a_denial_has_no_fence_and_what_is_not_known_is_null() -> None:
    decision = Decision("denied", "no_owner", "A", 1, None, None, None, hint="do this")
    body = to_document(decision)[1]
    nothing = {key for key, value in body.items() if value is None}
    assert nothing == {"epoch", "owner", "free", "fence", "request"}
    assert body["hint"] == "do this"


def test_fences_in_documents_are_ordered_as_fences_are() -> None:
    """Whatever opens a barrier may compare what it reads as it is."""
    fences = [
        Fence(epoch, score, owner)
        for epoch in (9, 10)
        for score in (0, 0x9F, 2**60, 2**64 - 1)
        for owner in ("gary", "joe")
    ]
    shown = [
        to_document(Decision("admitted", "ok", "A", 1, f.epoch, f.owner, 1, f))[1]["fence"]
        for f in fences
    ]
    assert fences == sorted(fences)
    assert shown == sorted(shown)


def test_a_failure_is_an_error_with_code_reason_and_hint() -> None:
    assert to_document(Failure("full", "no room", "wait")) == (
        "Error",
        {"code": "full", "reason": "no room", "hint": "wait"},
    )


def test_items_have_the_fields_of_the_contract() -> None:
    node = FakeNode()

    def first(command: Command) -> dict[str, object]:
        (outcome,) = node(command)
        items = to_document(outcome)[1]["items"]
        return dict(items[0])

    assert set(first(ReadVehicles())) == {
        "plate",
        "since",
        "gate",
        "entered_at_node",
        "dot",
        "conflict",
    }
    assert set(first(ReadMembers())) == {
        "name",
        "state",
        "replica",
        "incarnation",
        "address",
        "last_heard_s",
        "rtt_ms",
        "gates",
        "version",
        "events_behind",
        "synced_s",
    }
    assert first(ReadGates()) == {
        "gate": 1,
        "owner": "gary",
        "epoch": 7,
        "state": "served",
        "claims": ["gary"],
        "target": None,
        "mode": "auto",
        "mode_reason": "",
    }
    assert first(ReadSettings()) == {
        "key": "spaces",
        "value": 120,
        "old": 100,
        "by": "gary",
        "time": NOON,
        "reason": "fair week",
    }
    assert first(ReadMembers())["replica"] == "00000000000000ab"
    assert set(first(ReadCandidates())) == {"source", "address", "name", "state", "detail"}
    assert first(ReadDigest()) == {"root": "c0ffee", "nodes": ["gary", "mary"]}


def test_a_conflict_has_its_stays_side_by_side_and_how_to_remove_each() -> None:
    (outcome,) = FakeNode()(ReadConflicts())
    (item,) = to_document(outcome)[1]["items"]
    assert item["plate"] == "TWICE1"
    assert item["stays"][1] == {
        "dot": ["0000000000000002", 9],
        "entered_at_node": "joe",
        "gate": 2,
        "since": "2026-08-01T12:00:00.005Z",
        "settle": "parkingd-ctl remove TWICE1 --dot 0000000000000002:9",
    }


def test_an_unmatched_exit_has_the_stays_it_may_have_been_and_how_to_say_so() -> None:
    *_, outcome = FakeNode()(ReadUnmatched(None))
    first, second = to_document(outcome)[1]["items"]
    assert (first["plate"], first["dot"]) == ("GHOST1", ["00000000000000ab", 31])
    assert set(first) == {"plate", "time", "gate", "node", "dot", "alike"}
    assert [stay["plate"] for stay in first["alike"]] == ["CAR000000", "CAR000001"]
    assert first["alike"][0]["settle"] == (
        "parkingd-ctl remove CAR000000 --exit 00000000000000ab:31"
    )
    assert second["alike"] == []


def test_every_state_of_members_is_counted_also_those_that_nobody_is_in() -> None:
    (outcome,) = FakeNode()(ReadStatus())
    body = to_document(outcome)[1]
    assert body["members"] == {"alive": 2, "suspect": 0, "dead": 0, "left": 0}
    assert body["gates"] == {"total": 4, "owned": [1, 2], "unowned": [3], "contested": []}


def test_an_event_shows_only_what_it_has() -> None:
    rows = ((1, 2, NOON_MS, "enter", "A", 3, None), (1, 3, NOON_MS, "join", None, None, "gary"))
    kind, body = to_document(LogPage(rows))
    assert kind == "EventList"
    dot = "0000000000000001"
    assert body["items"] == [
        {"dot": [dot, 2], "seq": 2, "time": NOON, "type": "enter", "plate": "A", "gate": 3},
        {"dot": [dot, 3], "seq": 3, "time": NOON, "type": "join", "detail": "gary"},
    ]


def test_only_what_comes_in_pages_travels_as_rows() -> None:
    assert to_wire(VehicleList(()))[1] == {"rows": (), "warnings": ()}
    assert to_wire(ConflictList(()))[1] == {"rows": ()}
    assert to_wire(UnmatchedList(()))[1] == {"rows": (), "warnings": ()}
    assert to_wire(LogPage(()))[1] == {"rows": ()}
    assert to_wire(Failure("a", "b")) == to_document(Failure("a", "b"))


@pytest.mark.parametrize(
    ("wall_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_785_585_600_007, "2026-08-01T12:00:00.007Z"),
        (-5, "1970-01-01T00:00:00.000Z"),
        (2**60, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339_in_utc_with_milliseconds(wall_ms: int, text: str) -> None:
    assert rfc3339(wall_ms) == text


def test_the_envelope_says_who_answered_and_when() -> None:
    assert envelope("Lot", "gary", NOON_MS, {"free": 1}) == {
        "api": "parkingd/v1",
        "kind": "Lot",
        "node": "gary",
        "at": NOON,
        "free": 1,
    }
