"""Every help of both commands: examples first, examples that work, no flag without its default."""

from __future__ import annotations

import argparse

import pytest

from parkingd.cli.ctl import main as ctl_main
from parkingd.cli.ctl_help import overview_page
from parkingd.cli.ctl_options import COMMANDS, parser_of
from parkingd.cli.ctl_parsing import parse
from parkingd.cli.ctl_session import _LONGER_TIMEOUTS_S, EXIT_DONE, TIMEOUT_S
from parkingd.cli.flag_parser import Example, FlagParser, HelpPage, as_text
from parkingd.cli.parkingd import daemon_parser, help_page
from tests.docs.shell import typed

PARSERS: dict[str, FlagParser] = {
    "parkingd": daemon_parser(),
    **{f"parkingd-ctl {name}": parser_of(name) for name in COMMANDS},
}
PAGES: dict[str, HelpPage] = {
    "parkingd": help_page(),
    "parkingd-ctl": overview_page(),
    **{name: parser.page() for name, parser in PARSERS.items() if name != "parkingd"},
}


@pytest.mark.parametrize("name", PAGES)
def test_a_help_opens_with_a_sentence_and_examples(name: str) -> None:
    text = as_text(PAGES[name])
    sentence, blank, heading, first = text.splitlines()[:4]
    assert sentence.endswith(".")
    assert (blank, heading) == ("", "Examples:")
    assert first.startswith(f"  {name.split()[0]} ")
    assert f"\nUsage: {name} " in text
    examples = {f"  {example.command}" for example in PAGES[name].examples}
    assert max(len(line) for line in text.splitlines() if line not in examples) <= 80
    assert max(map(len, examples)) <= 100


@pytest.mark.parametrize("name", PAGES)
def test_every_example_is_understood_by_the_very_parser(name: str) -> None:
    for example in PAGES[name].examples:
        program, *words = typed(example.command)
        if name == "parkingd":
            assert program == "parkingd"
            assert daemon_parser().parse_known_args(words)[1] == []
        else:
            assert program == "parkingd-ctl"
            assert name in ("parkingd-ctl", f"parkingd-ctl {parse(words)[0]}")


def test_what_holds_for_a_group_of_flags_is_said_over_them() -> None:
    parser = FlagParser("park", "[flags]", "Park.", [Example("park --slowly")], "")
    parser.add_argument_group("Speed", "One of them.").add_argument(
        "--slowly", action="store_true", help="take care"
    )
    assert parser.format_help() == (
        "Park.\n\nExamples:\n  park --slowly\n\nUsage: park [flags]\n\n"
        "Speed:\n  One of them.\n  --slowly  take care\n"
    )


@pytest.mark.parametrize("name", PARSERS)
def test_every_flag_is_explained_and_one_with_a_value_says_its_default(name: str) -> None:
    for action in PARSERS[name]._actions:
        assert action.help, action.dest
        if action.option_strings and action.nargs != 0 and action.help != argparse.SUPPRESS:
            assert "default: " in action.help.lower(), f"{name} {action.option_strings}"


def test_the_default_of_every_time_out_is_said() -> None:
    (entry,) = (
        entry
        for section in overview_page().sections
        for entry in section.entries
        if entry.flags.startswith("--timeout")
    )
    assert f"default: {TIMEOUT_S:g}, " in entry.text
    for command, timeout_s in _LONGER_TIMEOUTS_S.items():
        assert f"{command} {timeout_s:g}" in entry.text


def test_the_overview_has_every_command_and_the_exit_statuses() -> None:
    sections = {section.title: section.entries for section in overview_page().sections}
    assert [entry.flags.split()[0] for entry in sections["Commands"]] == list(COMMANDS)
    assert {"0", "1", "2", "3", "4", "5", "6", "7"} <= {
        entry.flags for entry in sections["Exit status"]
    }


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("--help", "parkingd-ctl"),
        ("help", "parkingd-ctl"),
        ("help track", "parkingd-ctl track"),
        ("track --help", "parkingd-ctl track"),
        ("-h track", "parkingd-ctl track"),
        ("track ABC123 --jsn --help", "parkingd-ctl track"),
    ],
)
def test_help_can_be_asked_for_in_any_way(
    capsys: pytest.CaptureFixture[str], line: str, name: str
) -> None:
    assert ctl_main(line.split()) == EXIT_DONE
    assert capsys.readouterr().out == as_text(PAGES[name])


@pytest.mark.parametrize("command", [name for name in COMMANDS if COMMANDS[name].changes])
def test_whatever_takes_a_request_id_says_how_a_script_uses_it(command: str) -> None:
    page = PAGES[f"parkingd-ctl {command}"]
    assert "--request-id" in page.notes
    assert "within 24 hours" in page.notes
