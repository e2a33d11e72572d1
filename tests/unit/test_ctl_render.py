from __future__ import annotations

import json

from parkingd.adapters.document_values import envelope
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
