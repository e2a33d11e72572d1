from __future__ import annotations

import json
from typing import Any

import pytest

from parkingd.adapters.document_values import Document, envelope
from parkingd.cli.event_lines import EventLines
from parkingd.cli.render import as_json, as_jsonl, as_table, as_tsv, printable

MEMBERS = envelope(
    "MemberList",
    "gary",
    0,
    {
        "items": [
            {"name": "gary", "state": "alive", "rtt_ms": None, "last_heard_s": 0.25},
            {"name": "\x1b[31mjoe\t", "state": "dead", "rtt_ms": 1.0, "last_heard_s": 9.0},
        ]
    },
)
LOT = envelope(
    "Lot", "gary", 0, {"free": -3, "state": "full", "conflicts": ["A", "B"], "warnings": ["w"]}
)


def gate(number: int, owner: str | None, epoch: int, state: str, **more: object) -> Document:
    claims = [owner] if owner is not None else []
    return {
        "gate": number,
        "owner": owner,
        "epoch": epoch,
        "state": state,
        "claims": claims,
        "target": None,
    } | more


GATES = envelope(
    "GateList",
    "gary",
    0,
    {
        "items": [
            gate(1, "gary", 7, "served") | {"mode": "closed", "mode_reason": "ice"},
            gate(2, "gary", 9, "contested", claims=["gary", "joe"]),
            gate(3, "gary", 12, "moving", target="mary"),
            gate(4, None, 8, "unowned"),
            gate(5, None, 0, "unowned"),
        ]
    },
)


def decision(word: str, reason: str, **more: object) -> Document:
    body: dict[str, Any] = {
        "decision": word,
        "reason": reason,
        "plate": "ABC123",
        "gate": 1,
        "epoch": 7,
        "owner": "gary",
        "free": 42,
        "fence": [7, "00000000000000ff", "gary"],
        "warnings": [],
        "hint": "",
        "request": "00" * 16,
    }
    return envelope("Decision", "gary", 0, body | more)


DENIALS = (
    "full",
    "no_rights",
    "already_inside",
    "gate_closed",
    "draining",
    "invalid_plate",
    "unknown_gate",
    "no_owner",
    "not_ready",
)
"""The reasons of the command contract."""


def test_json_is_one_line_with_sorted_keys() -> None:
    assert list(json.loads(as_json(LOT))) == sorted(LOT)
    assert "\n" not in as_json(LOT)


def test_every_line_of_jsonl_is_an_object_with_the_envelope() -> None:
    lines = [json.loads(line) for line in as_jsonl(MEMBERS)]
    assert [line["kind"] for line in lines] == ["Member", "Member"]
    assert lines[0]["name"] == "gary"
    assert {"api", "node", "at"} <= set(lines[0])
    assert [json.loads(line)["kind"] for line in as_jsonl(LOT)] == ["Lot"]


def test_a_table_is_aligned_and_complete() -> None:
    head, gary, joe = as_table(MEMBERS, colour=False)
    assert head.split()[:2] == ["NAME", "STATE"]
    assert head.index("STATE") == gary.index("alive") == joe.index("dead")


def test_letters_that_take_two_columns_and_marks_that_take_none_break_no_table() -> None:
    plates = ["ABC123", "京都あ12", "A\u0301B1"]
    items = [{"plate": plate, "since": "SINCE"} for plate in plates]
    head, latin, wide, marked = as_table(
        envelope("VehicleList", "gary", 0, {"items": items}), colour=False
    )
    assert head.index("SINCE") == latin.index("SINCE") == 10
    assert wide.index("SINCE") == 7
    assert marked.index("SINCE") == 11


def test_events_with_wide_letters_line_up() -> None:
    lines = EventLines("table")
    events = [
        {"seq": 1, "type": "entered", "plate": plate, "gate": 4, "member": "gary"}
        for plate in ("ABC123", "京都あ1234")
    ]
    latin, wide = lines.lines(events)
    assert latin.index("gary") == wide.index("gary") + 3


def test_text_from_elsewhere_cannot_move_the_cursor_or_break_a_column() -> None:
    for lines in (as_table(MEMBERS, colour=False), as_tsv(MEMBERS)):
        joe = list(lines)[2]
        assert "\x1b" not in joe
        assert r"\x1b[31mjoe\t" in joe
    assert printable("a\u202eb\n") == r"a\u202eb\n"


def test_colour_is_on_state_words_only_and_aligns_like_none() -> None:
    plain = list(as_table(MEMBERS, colour=False))
    coloured = list(as_table(MEMBERS, colour=True))
    assert coloured[1] == plain[1].replace("alive", "\x1b[32malive\x1b[0m")
    assert coloured[0] == plain[0]
    assert "\x1b[31mfull\x1b[0m" in "\n".join(as_table(LOT, colour=True))


def test_tsv_of_a_list_has_a_header_and_of_an_object_a_line_per_field() -> None:
    head, gary, _ = as_tsv(MEMBERS)
    assert head.split("\t")[:2] == ["name", "state"]
    assert len(head.split("\t")) == len(gary.split("\t"))
    assert list(as_tsv(LOT)) == ["free\t-3", "state\tfull", "conflicts\tA,B", "warnings\tw"]


def test_an_empty_list_is_said_to_be_empty_only_to_people() -> None:
    empty = envelope("VehicleList", "gary", 0, {"items": []})
    assert list(as_table(empty, colour=False)) == ["(none)"]
    assert len(list(as_tsv(empty))) == 1
    assert list(as_jsonl(empty)) == []


def sentence(document: Document, colour: bool = False) -> str:
    (line,) = as_table(document, colour)
    return line


def test_an_admission_is_a_sentence_that_says_who_admitted_and_what_is_left() -> None:
    admitted = "admitted ABC123 at gate 1 (gary, epoch 7)"
    assert sentence(decision("admitted", "ok")) == f"{admitted}: 42 free"
    assert sentence(decision("admitted", "ok", free=0)) == f"{admitted}: 0 free"
    assert sentence(decision("admitted", "ok", free=-3)) == f"{admitted}: overbooked by 3"
    assert sentence(decision("admitted", "ok", free=None)) == admitted
    repeated = decision("admitted", "ok", owner=None, epoch=None, fence=None)
    assert sentence(repeated) == "admitted ABC123 at gate 1: 42 free"


@pytest.mark.parametrize("reason", DENIALS)
def test_a_denial_says_why_in_words(reason: str) -> None:
    denial = decision("denied", reason, epoch=None, owner=None, free=None, fence=None)
    said, colon, why = sentence(denial).partition(": ")
    assert (said, colon) == ("denied ABC123 at gate 1", ": ")
    assert " " in why
    assert "_" not in why


def test_every_denial_is_told_from_every_other() -> None:
    assert len({sentence(decision("denied", reason)) for reason in DENIALS}) == len(DENIALS)
    assert sentence(decision("denied", "full")) == "denied ABC123 at gate 1: the lot is full"


def test_a_reason_of_a_later_daemon_is_shown_as_it_is() -> None:
    assert sentence(decision("denied", "on\x1bstrike")).endswith(r": on\x1bstrike")


def test_a_plate_that_is_none_is_shown_escaped_and_nothing_as_nothing() -> None:
    assert sentence(decision("denied", "invalid_plate", plate="\x1b[2J")).startswith(
        r"denied \x1b[2J at gate 1: this is no plate"
    )
    assert "denied nothing at gate 1" in sentence(decision("denied", "invalid_plate", plate=""))


def test_the_colour_of_a_decision_repeats_its_word() -> None:
    for word, number in (("admitted", 32), ("denied", 31)):
        plain = sentence(decision(word, "full"))
        coloured = sentence(decision(word, "full"), colour=True)
        assert coloured == plain.replace(word, f"\x1b[{number}m{word}\x1b[0m", 1)


def test_a_decision_in_tsv_has_a_line_per_field_with_the_fence_in_one() -> None:
    lines = dict(line.split("\t") for line in as_tsv(decision("admitted", "ok")))
    assert lines["decision"] == "admitted"
    assert lines["fence"] == "7:00000000000000ff:gary"
    assert lines["request"] == "00" * 16
    denied = dict(line.split("\t") for line in as_tsv(decision("denied", "full", fence=None)))
    assert denied["fence"] == ""


def test_a_table_of_gates_says_in_words_what_is_wrong_with_them() -> None:
    assert list(as_table(GATES, colour=False)) == [
        "GATE  OWNER  EPOCH  STATE      NOTE",
        "1     gary   7      served     held closed: ice",
        "2     gary   9      contested  claimed by gary, joe",
        "3     gary   12     moving     to mary",
        "4     -      8      unowned    nobody serves it",
        "5     -      0      unowned    nobody serves it yet",
    ]


def test_colour_only_repeats_the_state_of_a_gate() -> None:
    plain = list(as_table(GATES, colour=False))
    for place, word, number in ((1, "served", 32), (2, "contested", 31), (4, "unowned", 31)):
        coloured = list(as_table(GATES, colour=True))[place]
        assert coloured == plain[place].replace(word, f"\x1b[{number}m{word}\x1b[0m")


def test_gates_for_programs_have_the_fields_of_the_contract() -> None:
    assert list(as_tsv(GATES))[:4] == [
        "gate\towner\tepoch\tstate\tclaims\ttarget\tmode\tmode_reason",
        "1\tgary\t7\tserved\tgary\t\tclosed\tice",
        "2\tgary\t9\tcontested\tgary,joe\t\t\t",
        "3\tgary\t12\tmoving\tgary\tmary\t\t",
    ]
    line = json.loads(next(iter(as_jsonl(GATES))))
    assert (line["kind"], line["node"]) == ("Gate", "gary")
    assert "note" not in line


@pytest.mark.parametrize(
    ("field", "gates", "words"),
    [
        ("owned", [1, 2, 3, 7, 9, 10], "1-3, 7, 9, 10"),
        ("owned", [], "none"),
        ("unowned", [3], "3: nobody serves it"),
        ("unowned", [3, 4], "3, 4: nobody serves them"),
        ("unowned", [], "none"),
        ("contested", [1, 2, 3], "1-3: claimed by more than one node"),
        ("contested", [], "none"),
    ],
)
def test_the_gates_of_a_status_are_in_words_for_people_only(
    field: str, gates: list[int], words: str
) -> None:
    status = envelope("Status", "gary", 0, {"gates": {"total": 12, field: gates}})
    total, line = as_table(status, colour=False)
    assert total.split() == ["gates.total", "12"]
    assert line.split(maxsplit=1) == [f"gates.{field}", words]
    assert list(as_tsv(status))[1] == f"gates.{field}\t{','.join(map(str, gates))}"
