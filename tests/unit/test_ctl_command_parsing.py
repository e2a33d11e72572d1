from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.core.gates import Fence
from parkingd.core.plates import normalise_plate
from parkingd.errors import UsageError
from parkingd.protocol.command_parsing import (
    _PARSERS,
    DIRECT_VERBS,
    LINES_MAX,
    Backup,
    LineFilter,
    ReadJournal,
    Version,
    parse_command,
    parse_direct,
)
from parkingd.protocol.commands import (
    AskToEnter,
    Condition,
    Correct,
    ForgetMember,
    ImportRow,
    ImportRows,
    Leave,
    ReadCandidates,
    ReadConflicts,
    ReadDigest,
    ReadGates,
    ReadLog,
    ReadLot,
    ReadMembers,
    ReadSettings,
    ReadStatus,
    ReadUnmatched,
    ReadVehicles,
    RecordExit,
    Remove,
    SetGates,
    SetMode,
    SetSpaces,
    SetThreshold,
    Track,
    WaitFor,
    Where,
)
from parkingd.protocol.limits import RAW_LENGTH_MAX

ID = bytes(range(16))

GOOD: list[tuple[str, dict[object, object], object]] = [
    ("track", {"plate": "abc 123", "gate": 1, "request": ID}, Track("abc 123", 1, ID)),
    ("track", {"plate": "", "gate": 5_000}, Track("", 5_000, None)),
    ("enter", {"plate": "abc 123", "gate": 1, "request": ID}, AskToEnter("abc 123", 1, ID)),
    ("enter", {"plate": "", "gate": 2**31 - 1}, AskToEnter("", 2**31 - 1, None)),
    (
        "enter",
        {"plate": "A", "gate": 1, "seen": [2**48, 2**64 - 1, "gary"]},
        AskToEnter("A", 1, None, Fence(2**48, 2**64 - 1, "gary")),
    ),
    ("exit", {"plate": "A", "gate": 1_000, "request": None}, RecordExit("A", 1_000, None)),
    ("lot", {}, ReadLot()),
    ("vehicles", {}, ReadVehicles()),
    ("where", {"plate": "A"}, Where("A")),
    ("conflicts", {}, ReadConflicts()),
    ("unmatched", {}, ReadUnmatched(None)),
    ("unmatched", {"dot": [3, 7]}, ReadUnmatched((3, 7))),
    ("gates", {}, ReadGates()),
    ("members", {}, ReadMembers()),
    ("status", {}, ReadStatus()),
    ("digest", {}, ReadDigest()),
    ("discover", {}, ReadCandidates()),
    ("set_spaces", {"spaces": 120, "request": ID}, SetSpaces(120, ID)),
    ("set_gates", {"gates": 1_000, "request": ID}, SetGates(1_000, ID)),
    (
        "set_spaces",
        {"spaces": 1, "request": ID, "current": 0, "reason": " why "},
        SetSpaces(1, ID, 0, "why"),
    ),
    ("set_almost_full", {"percent": 85}, SetThreshold("almostfull", 85, None, None)),
    ("set_full", {"percent": 99, "clear": 98}, SetThreshold("full", 99, 98, None)),
    (
        "set_mode",
        {"gate": 3, "mode": "closed", "request": ID, "reason": None},
        SetMode(3, "closed", ID),
    ),
    (
        "set_mode",
        {"gate": 3, "mode": "open", "current": "closed"},
        SetMode(3, "open", None, "", "closed"),
    ),
    ("settings", {}, ReadSettings()),
    ("correct", {"old": "A", "new": "B", "request": ID}, Correct("A", "B", ID)),
    ("remove", {"plate": "A"}, Remove("A", None, None)),
    ("remove", {"plate": "A", "dot": [2**64 - 1, 3]}, Remove("A", (2**64 - 1, 3), None)),
    ("remove", {"plate": "A", "exit": [2, 3]}, Remove("A", None, None, (2, 3))),
    ("forget_member", {"name": "joe"}, ForgetMember("joe")),
    (
        "wait",
        {"conditions": [["members", 3, True], ["gates", 4, False], ["synced", 1, False]]},
        WaitFor(
            (
                Condition("members", 3, True),
                Condition("gates", 4, False),
                Condition("synced", 1, False),
            )
        ),
    ),
    (
        "import_rows",
        {"rows": [[1, "A", 2, None, ID], [2, "B", 3, 10**12, ID]]},
        ImportRows((ImportRow(1, "A", 2, None, ID), ImportRow(2, "B", 3, 10**12, ID))),
    ),
    ("log", {}, ReadLog()),
    ("leave", {}, Leave()),
]

BAD: list[tuple[str, dict[object, object]]] = [
    ("watch", {}),
    ("", {}),
    ("lot", {"plate": "A"}),
    ("track", {"gate": 1}),
    ("track", {"plate": "A"}),
    ("track", {"plate": b"A", "gate": 1}),
    ("track", {"plate": "A", "gate": 0}),
    ("track", {"plate": "A", "gate": True}),
    ("track", {"plate": "A", "gate": 1.0}),
    ("track", {"plate": "A", "gate": 2**31}),
    ("track", {"plate": "A", "gate": 1, "request": b"short"}),
    ("track", {"plate": "A", "gate": 1, "request": "0" * 16}),
    ("track", {"plate": "A", "gate": 1, "spaces": 1}),
    ("enter", {"plate": "A", "gate": 0}),
    ("enter", {"plate": "A", "gate": 2**31}),
    ("enter", {"plate": "A", "gate": 1, "request": "0" * 32}),
    ("enter", {"gate": 1}),
    ("enter", {"plate": "A", "gate": 1, "seen": 7}),
    ("enter", {"plate": "A", "gate": 1, "seen": [7, 1]}),
    ("enter", {"plate": "A", "gate": 1, "seen": [2**48 + 1, 1, "gary"]}),
    ("enter", {"plate": "A", "gate": 1, "seen": [7, 2**64, "gary"]}),
    ("enter", {"plate": "A", "gate": 1, "seen": [7, 1, "-gary"]}),
    ("gates", {"gate": 1}),
    ("exit", {"plate": "A", "gate": 2**31}),
    ("set_spaces", {"spaces": 0}),
    ("set_spaces", {"spaces": 10_000_001}),
    ("set_gates", {"gates": 0}),
    ("set_gates", {"gates": 1_001}),
    ("set_gates", {"gates": 4.0}),
    ("set_gates", {"gates": 4, "spaces": 1}),
    ("set_spaces", {"spaces": 4, "current": "4"}),
    ("set_spaces", {"spaces": 4, "reason": "r" * 201}),
    ("set_full", {"percent": 0}),
    ("set_full", {"percent": 101}),
    ("set_full", {"percent": 90, "clear": 0}),
    ("set_mode", {"gate": 1, "mode": "ajar"}),
    ("set_mode", {"gate": 0, "mode": "open"}),
    ("set_mode", {"gate": 1}),
    ("set_mode", {"gate": 1, "mode": "open", "current": "close"}),
    ("correct", {"old": "A"}),
    ("remove", {"plate": "A", "dot": [1]}),
    ("remove", {"plate": "A", "dot": [1, 0]}),
    ("remove", {"plate": "A", "dot": [2**64, 1]}),
    ("remove", {"plate": "A", "dot": "1:1"}),
    ("remove", {"plate": "A", "exit": [1]}),
    ("remove", {"plate": "A", "dot": [1, 1], "exit": [1, 2]}),
    ("unmatched", {"dot": 1}),
    ("conflicts", {"plate": "A"}),
    ("forget_member", {"name": ""}),
    ("forget_member", {"name": "a" * 64}),
    ("wait", {"conditions": []}),
    ("wait", {"conditions": [["gates", "4", False]]}),
    ("wait", {"conditions": [["free", 4, False]]}),
    ("wait", {"conditions": [["members", -1, False]]}),
    ("wait", {"conditions": [["members", 1, 1]]}),
    ("wait", {"conditions": [["synced", 1, True]] * 17}),
    ("import_rows", {}),
    ("import_rows", {"rows": [[1, "A", 1, None, ID]] * 501}),
    ("import_rows", {"rows": [[0, "A", 1, None, ID]]}),
    ("import_rows", {"rows": [[1, "A", 1, -1, ID]]}),
    ("import_rows", {"rows": [[1, "A", 1, None, None]]}),
    ("import_rows", {"rows": [[1, "A", 1, None]]}),
]


@pytest.mark.parametrize(("verb", "args", "command"), GOOD)
def test_every_verb_becomes_its_command(
    verb: str, args: dict[object, object], command: object
) -> None:
    assert parse_command(verb, args) == command


def test_every_verb_is_tried_above() -> None:
    assert {verb for verb, _, _ in GOOD} == set(_PARSERS)


@pytest.mark.parametrize(("verb", "args"), BAD)
def test_what_is_out_of_type_or_range_is_a_usage_error(
    verb: str, args: dict[object, object]
) -> None:
    with pytest.raises(UsageError):
        parse_command(verb, args)


@pytest.mark.parametrize("text", ["A" * 65, "A" + "-" * 64, "\u2026" * 60_000])
def test_a_text_too_long_for_a_plate_goes_on_as_one_that_is_none(text: str) -> None:
    command = parse_command("enter", {"plate": text, "gate": 1})
    assert isinstance(command, AskToEnter)
    assert len(command.plate) <= RAW_LENGTH_MAX
    assert normalise_plate(command.plate) is None
    assert f"({len(text)} characters)" in command.plate


def test_the_callers_map_is_left_alone() -> None:
    args: dict[object, object] = {"plate": "A"}
    parse_command("where", args)
    assert args == {"plate": "A"}


def test_direct_verbs_are_parsed_too() -> None:
    assert parse_direct("version", {}) == Version()
    assert parse_direct("backup", {"path": "/b"}) == Backup("/b")
    for path in ("b", "", "/a\0b", "/" + "a" * 4_096, 7):
        with pytest.raises(UsageError):
            parse_direct("backup", {"path": path})
    with pytest.raises(UsageError):
        parse_direct("version", {"x": 1})


def test_a_question_to_the_journal_is_parsed() -> None:
    nothing = ReadJournal(None, LINES_MAX, 0, LineFilter())
    assert parse_direct("journal", {}) == nothing
    whole = {
        "after": 0,
        "limit": 1,
        "wait": 30,
        "since_ms": 5,
        "until_ms": 6,
        "types": ["denied", "exited"],
        "plate": "ka 1",
    }
    wanted = LineFilter(5, 6, ("denied", "exited"), "KA1")
    assert parse_direct("journal", {**whole}) == ReadJournal(0, 1, 30, wanted)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"after": -1}, "after is not an integer"),
        ({"after": "7"}, "after is not an integer"),
        ({"limit": 0}, "limit is not an integer of 1 to 1000"),
        ({"wait": 31}, "wait is not an integer of 0 to 30"),
        ({"wait": True}, "wait is not"),
        ({"since_ms": 6, "until_ms": 6}, "until_ms is not after since_ms"),
        ({"types": "denied"}, "types is not a list"),
        ({"types": ["denied"] * 100}, "types is not a list of at most"),
        ({"types": [b"denied"]}, "no event is of type"),
        ({"plate": "!!"}, "plate is not a plate"),
        ({"plate": 7}, "plate is not a text"),
        ({"from": 7}, "unknown argument 'from'"),
    ],
)
def test_a_question_to_the_journal_that_makes_no_sense_is_refused_in_one_line(
    args: dict[object, object], said: str
) -> None:
    with pytest.raises(UsageError, match="^journal: .*" + said) as refusal:
        parse_direct("journal", args)
    assert "\n" not in str(refusal.value)


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=70)
    | st.binary(max_size=20)
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
_keys = st.sampled_from(
    [
        "plate",
        "gate",
        "gates",
        "request",
        "dot",
        "rows",
        "conditions",
        "after",
        "limit",
        "wait",
        "since_ms",
        "until_ms",
        "types",
        "name",
        "spaces",
        "old",
        "path",
    ]
)


@given(st.sampled_from([*_PARSERS, *DIRECT_VERBS]), st.dictionaries(_keys | st.text(), _values))
def test_any_map_gives_a_command_or_a_usage_error(verb: str, args: dict[object, object]) -> None:
    parse = parse_direct if verb in DIRECT_VERBS else parse_command
    with suppress(UsageError):
        assert parse(verb, args) is not None
