from __future__ import annotations

import pytest

from parkingd.cli.ctl_commands import parse_condition, parse_dot, parse_fence
from parkingd.cli.ctl_parsing import parse
from parkingd.errors import UsageError


@pytest.mark.parametrize(
    "line",
    [
        "--name gary --json track ABC 1",
        "track --name gary --json ABC 1",
        "track ABC --name gary 1 --json",
        "track ABC 1 -o json --name=gary",
        "--name gary track ABC --json --gate 1",
    ],
)
def test_global_flags_stand_before_or_after_the_command(line: str) -> None:
    command, args = parse(line.split())
    assert command == "track"
    assert (args.plate, args.gate, args.name, args.output) == ("ABC", 1, "gary", "json")


@pytest.mark.parametrize("line", ["enter ABC 1", "enter ABC --gate 1", "enter --gate 1 ABC"])
def test_a_car_asks_at_a_gate_that_is_named_either_way(line: str) -> None:
    command, args = parse([*line.split(), "--request-id", "ab"])
    assert (command, args.plate, args.gate, args.request_id) == ("enter", "ABC", 1, "ab")


@pytest.mark.parametrize(("what", "number"), [("spaces", 120), ("gates", 6)])
def test_both_settings_of_the_lot_can_be_set(what: str, number: int) -> None:
    _, args = parse(["set", what, str(number)])
    assert (args.what, args.number) == (what, number)


@pytest.mark.parametrize("line", ["members forget joe --json", "members --json forget joe"])
def test_forgetting_a_member_is_a_form_of_members(line: str) -> None:
    command, args = parse(line.split())
    assert (command, args.action, args.member, args.output) == ("members", "forget", "joe", "json")


def test_members_alone_lists_them() -> None:
    assert parse(["members", "--json"])[1].action is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "missing"),
        ("stauts", "no command"),
        ("track ABC", "gate once"),
        ("track ABC 1 --gate 2", "gate once"),
        ("track", "PLATE"),
        ("track ABC one", "GATE is a whole number, not 'one'"),
        ("enter ABC", "gate once"),
        ("enter ABC 1 --gate 1", "gate once"),
        ("gates 1", "'1'"),
        ("gates --request-id 00", "--request-id"),
        ("set gates", "N"),
        ("set gates four", "N is a whole number"),
        ("lot extra", "'extra'"),
        ("lot --jsn", "--jsn"),
        ("lot -o yaml", "yaml"),
        ("lot --request-id 00", "--request-id"),
        ("lot --timeout", "--timeout needs a value"),
        ("lot --timeout soon", "--timeout is a number, not 'soon'"),
        ("lot --json=yes", "--json takes no value"),
        ("--name", "--name needs a value"),
        ("set doors 5", "not 'doors'"),
        ("members remove joe", "not 'remove'"),
        ("members forget", "which member"),
        ("export --format xml", "xml"),
    ],
)
def test_misuse_is_a_usage_error_with_a_hint(line: str, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(line.split())
    assert says in str(refusal.value)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("stauts", "status"),
        ("vehicels", "vehicles"),
        ("lot --jsn", "--json"),
        ("--versoin", "--version"),
        ("lot -o jsonn", "json"),
        ("lot --color alway", "always"),
        ("export --format jsnl", "jsonl"),
        ("set space 120", "spaces"),
        ("members forgt joe", "forget"),
        ("lto", "lot"),
        ("--nmae gary lot", "--name"),
        ("-ojson lto", "lot"),
        ("stat", "status"),
        ("lot --time 9", "--timeout"),
        ("lot --out json", "--output"),
        ("lot --runtimedir x", "--runtime-dir"),
        ("lot --colour always", "--color"),
    ],
)
def test_a_typo_gets_a_suggestion(line: str, meant: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(line.split())
    assert refusal.value.hint == f"did you mean {meant}?"


@pytest.mark.parametrize(
    "line", ["--bogus", "--foo", "lot --force", "lot --yes", "lot --verbose", "list", "start", "x"]
)
def test_what_is_like_nothing_gets_no_suggestion(line: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(line.split())
    assert refusal.value.hint
    assert "did you mean" not in refusal.value.hint


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("members=3", ["members", 3, False]),
        ("gates=4", ["gates", 4, False]),
        ("gates>=4", ["gates", 4, True]),
        ("inside>=1", ["inside", 1, True]),
        ("inside >= 1", ["inside", 1, True]),
        ("synced", ["synced", 1, True]),
        ("ready", ["ready", 1, True]),
    ],
)
def test_conditions_are_read(text: str, condition: list[object]) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "text", ["", "members", "gates", "gates<4", "members<3", "synced=1", "free=1", "members=x"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_condition(text)
    assert refusal.value.hint.endswith("synced and ready")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("member=3", "did you mean members? "),
        ("member>=3", "did you mean members? "),
        ("members=x", "members takes a whole number, as in members=3 or members>=3. "),
        ("members=", "members takes a whole number, as in members=3 or members>=3. "),
        ("gates", "gates takes a whole number, as in gates=3 or gates>=3. "),
        ("inside<4", "inside takes a whole number, as in inside=3 or inside>=3. "),
        ("synced=yes", "synced takes no value. "),
        ("free=1", "There are "),
    ],
)
def test_what_is_wrong_with_a_condition_is_said(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_condition(text)
    assert refusal.value.hint.startswith(hint)


@pytest.mark.parametrize(
    "text", ["00000000000000ab:7", "00000000000000AB,7", '["00000000000000ab", 7]']
)
def test_a_dot_is_read_as_it_is_shown(text: str) -> None:
    assert parse_dot(text) == [0xAB, 7]


@pytest.mark.parametrize("text", ["", "ab:7", "00000000000000ab", "00000000000000ab:x"])
def test_what_is_no_dot_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_dot(text)


@pytest.mark.parametrize(
    "text",
    ['[7, "00000000000000ab", "gary"]', "7:00000000000000ab:gary", "7, 00000000000000AB, gary"],
)
def test_a_fence_is_taken_as_the_decision_shows_it(text: str) -> None:
    assert parse_fence(text) == [7, 0xAB, "gary"]


@pytest.mark.parametrize(
    "text", ["", "7", "[7, 171, gary]", "-1:00000000000000ab:gary", "7:00000000000000ab:"]
)
def test_what_is_no_fence_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UsageError, match="not a fence"):
        parse_fence(text)
