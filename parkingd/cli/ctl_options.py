"""The commands of parkingd-ctl: what each takes, and the help for it.

One parser is built, for the command that was asked for, with the global flags in it: building all
of them would cost more than asking the daemon does.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final, NamedTuple

from parkingd.cli.ctl_arguments import (
    add_backup,
    add_completion,
    add_correct,
    add_enter,
    add_export,
    add_gate,
    add_import,
    add_members,
    add_nothing,
    add_plate,
    add_plate_and_gate,
    add_remove,
    add_set,
    add_top,
    add_wait,
)
from parkingd.cli.ctl_checks import PROGRAM
from parkingd.cli.ctl_flags import add_global_flags
from parkingd.cli.flag_parser import Example, FlagParser
from parkingd.cli.journal_options import add_log_flags, add_watch_flags

REPEATING: Final = """\
For scripts: choose one id for one event and give it with --request-id. When no
answer comes (exit status 3 or 4), or the disk failed (6), repeat the very same
command under the same id, here or on another node: within 24 hours it has one
effect, and a repeat gets the first answer. Only a denial is asked anew.
"""
"""Part of the help of whatever takes a request id."""


class CommandHelp(NamedTuple):
    """One command as its users see it."""

    arguments: str
    summary: str
    examples: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    changes: bool = False
    """It takes a request id: repeating it under the same id has one effect."""


_ID: Final = "3f0a9c5e7d214b86a1c2d3e4f5061728"
"""Of the examples."""

COMMANDS: Final = {
    "track": CommandHelp(
        "PLATE GATE",
        "Record here that a car entered, without asking.",
        (
            "track ABC123 1",
            "track 'KA 12 AB 3456' --gate 2",
            "track ABC123 1 --json",
            f"track ABC123 1 --request-id {_ID}",
        ),
        add_plate_and_gate,
        changes=True,
    ),
    "enter": CommandHelp(
        "PLATE GATE",
        "Ask to admit a car; exit status 1 when it is denied.",
        (
            "enter ABC123 1",
            "enter 'KA 12 AB 3456' --gate 2",
            "enter ABC123 1 --json",
            f"enter ABC123 1 --request-id {_ID}",
        ),
        add_enter,
        changes=True,
    ),
    "exit": CommandHelp(
        "PLATE GATE",
        "Record here that a car left; this is never refused.",
        (
            "exit ABC123 1",
            "exit ABC123 --gate 2 --json",
            f"exit ABC123 1 --request-id {_ID}",
        ),
        add_plate_and_gate,
        changes=True,
    ),
    "lot": CommandHelp(
        "", "Show how many spaces are taken and free.", ("lot", "lot --json"), add_nothing
    ),
    "vehicles": CommandHelp(
        "",
        "List every car inside.",
        ("vehicles", "vehicles -o tsv", "vehicles --json --name gary"),
        add_nothing,
    ),
    "where": CommandHelp(
        "PLATE",
        "Show one car; exit status 5 when it is not inside.",
        ("where ABC123", "where ABC123 --json"),
        add_plate,
    ),
    "conflicts": CommandHelp(
        "",
        "List plates that are inside more than once.",
        ("conflicts", "conflicts --json"),
        add_nothing,
    ),
    "unmatched": CommandHelp(
        "",
        "List exits that matched no car, and what is like it.",
        ("unmatched", "unmatched --json"),
        add_nothing,
    ),
    "gates": CommandHelp(
        "",
        "List the gates and which node serves each.",
        ("gates", "gates --json", "gates -o tsv"),
        add_nothing,
    ),
    "members": CommandHelp(
        "[forget NAME]",
        "List the members, or forget a dead one.",
        ("members", "members --json", "members forget joe"),
        add_members,
    ),
    "status": CommandHelp(
        "", "Show how this node and its cluster are.", ("status", "status --json"), add_nothing
    ),
    "digest": CommandHelp(
        "",
        "Compare all members: equal roots, equal replicas.",
        ("digest", "digest --json"),
        add_nothing,
    ),
    "discover": CommandHelp(
        "",
        "List what discovery found, and what became of it.",
        ("discover", "discover -o tsv"),
        add_nothing,
    ),
    "set": CommandHelp(
        "WHAT N",
        "Change spaces, gates, almost-full or full.",
        (
            "set spaces 120 --reason 'level 2 is open again'",
            "set gates 6",
            "set almost-full 90 --clear 85",
            "set spaces 120 --if-current 100 --json",
        ),
        add_set,
        changes=True,
    ),
    "settings": CommandHelp(
        "",
        "Show what was set, by whom, when and why.",
        ("settings", "settings --json"),
        add_nothing,
    ),
    "gate": CommandHelp(
        "open|close|auto N",
        "Hold a gate open or closed, or as usual.",
        (
            "gate close 2 --reason 'barrier is broken'",
            "gate open 1 --reason fire",
            "gate auto 1",
            "gate auto 2 --if-current closed",
        ),
        add_gate,
        changes=True,
    ),
    "correct": CommandHelp(
        "OLD NEW",
        "Repair a misread plate; refused if NEW is inside.",
        ("correct ABC123 ABC128",),
        add_correct,
        changes=True,
    ),
    "remove": CommandHelp(
        "PLATE",
        "Drop a ghost: close the stays that are known here.",
        (
            "remove ABC123",
            "remove ABC123 --dot 00000000000000ab:17",
            "remove ABC123 --exit 00000000000000ab:42",
        ),
        add_remove,
        changes=True,
    ),
    "wait": CommandHelp(
        "--for COND",
        "Wait until conditions hold; exit status 4 if late.",
        (
            "wait --for ready",
            "wait --for members=3 --for synced --timeout 10",
            "wait --for 'gates>=4'",
        ),
        add_wait,
    ),
    "import": CommandHelp(
        "FILE",
        "Record many entries from CSV or JSON lines.",
        ("import cars.csv", "import - < cars.jsonl", "import cars.csv --json"),
        add_import,
    ),
    "export": CommandHelp(
        "",
        "Write vehicles, for import to read, or the event log.",
        ("export > cars.csv", "export --format jsonl", "export --log"),
        add_export,
    ),
    "backup": CommandHelp(
        "FILE",
        "Copy this node's database while it runs.",
        ("backup /var/backups/gary.db",),
        add_backup,
    ),
    "top": CommandHelp(
        "",
        "Watch the lot and its cluster live; q leaves, ? helps.",
        ("top", "top --name gary --interval 2", "top --once", "top --svg car-park.svg"),
        add_top,
    ),
    "watch": CommandHelp(
        "[-- CMD ARG...]",
        "Follow events, or run a program for each of them.",
        (
            "watch",
            "watch --type admitted,denied --json",
            "watch --from 1042 --count 10",
            "watch --type admitted -- sh -c 'echo gate $PARKINGD_GATE: $PARKINGD_PLATE'",
        ),
        add_watch_flags,
    ),
    "log": CommandHelp(
        "",
        "List what has happened, for as long as it is kept.",
        (
            "log --since 2h",
            "log --since yesterday --until today --format csv > yesterday.csv",
            "log --plate ABC123 --limit 20",
            "log --type conflict,warning --follow",
        ),
        add_log_flags,
    ),
    "leave": CommandHelp("", "Hand over and stop the daemon.", ("leave --name gary",), add_nothing),
    "completion": CommandHelp(
        "SHELL",
        "Print what makes a shell complete both commands.",
        ("completion bash", "completion zsh", "completion fish | source"),
        add_completion,
    ),
    "version": CommandHelp(
        "", "Show the versions of this command and the daemon.", ("version",), add_nothing
    ),
}


def parser_of(command: str) -> FlagParser:
    """The parser of one command, with the global flags in it."""
    described = COMMANDS[command]
    arguments = f"{described.arguments} [flags]".lstrip()
    if "[--" in described.arguments.split():
        arguments = f"[flags] {described.arguments}"  # What stands after -- is not ours.
    parser = FlagParser(
        f"{PROGRAM} {command}",
        arguments,
        described.summary,
        [Example(f"{PROGRAM} {example}") for example in described.examples],
        REPEATING if described.changes else "",
    )
    add_flags(parser, described)
    return parser


def add_flags(parser: argparse.ArgumentParser, described: CommandHelp) -> None:
    """Everything that a command understands."""
    described.add_arguments(parser)
    if described.changes:
        parser.add_argument(
            "--request-id",
            metavar="ID",
            help="32 hexadecimal digits or a UUID; default: a new one for each call",
        )
    add_global_flags(parser)
