"""What parkingd-ctl understands: its commands, their arguments, and the help for each.

Flags may stand before or after the command, so the command word is found first and one parser is
then built for that command, with the global flags in it: building all of them would cost more
than asking the daemon does.

Invariant: every misuse is a UsageError with a hint.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from parkingd.cli.ctl_checks import PROGRAM, checked
from parkingd.cli.ctl_flags import FLAGS_WITH_VALUE, FLAGS_WITHOUT_VALUE, add_global_flags
from parkingd.cli.flag_parser import Example, FlagParser, did_you_mean
from parkingd.cli.journal_options import add_log_flags, add_watch_flags, cut_program
from parkingd.errors import UsageError

TIMEOUT_S_MAX: Final = 86_400.0
REQUEST_ID_DIGITS: Final = 32

PLATE: Final = "as typed or read; 1-16 letters or digits"
GATE_FLAG: Final = "the same, by a flag; default: GATE"
DOT: Final = "only this stay, REPLICA:SEQ as conflicts shows it; default: all that are known here"

SHELLS: Final = ("bash", "zsh", "fish")
"""For which `completion` has a script."""

NODES: Final = "nodes"
"""Its scripts ask with this word for the daemons that run here."""


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


def _nothing(parser: argparse.ArgumentParser) -> None:
    pass


def _plate_and_gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plate", metavar="PLATE", help=PLATE)
    parser.add_argument(
        "gate", metavar="GATE", type=int, nargs="?", help="number of the gate, from 1"
    )
    parser.add_argument("--gate", metavar="N", type=int, dest="gate_flag", help=GATE_FLAG)


def _enter(parser: argparse.ArgumentParser) -> None:
    _plate_and_gate(parser)
    parser.add_argument(
        "--seen",
        metavar="FENCE",
        help="the highest fence that the barrier has seen, when it refused that of the last"
        " answer; default: none",
    )


def _plate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plate", metavar="PLATE", help=PLATE)


def _set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="spaces|gates|almost-full|full",
        help="what to change; almost-full and full are where the lot begins to be that",
    )
    parser.add_argument(
        "number", metavar="N", type=int, help="the new value; percent of the spaces where it begins"
    )
    parser.add_argument(
        "--clear",
        metavar="PERCENT",
        type=int,
        help="with fewer cars than this it ends; default: as far below as now",
    )
    parser.add_argument(
        "--if-current",
        metavar="OLD",
        type=int,
        help="change it only if it is OLD now, else exit status 6; default: whatever it is",
    )
    _reason(parser)


def _gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "mode",
        metavar="open|close|auto",
        help="open: every car that is not inside is let in; close: none is; auto: as usual",
    )
    parser.add_argument("gate", metavar="N", type=int, help="number of the gate")
    parser.add_argument(
        "--if-current",
        metavar="OLD",
        choices=("open", "closed", "auto"),
        help="change it only if it is OLD (open, closed or auto) now, else exit status 6;"
        " default: whatever it is",
    )
    _reason(parser)


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason",
        metavar="TEXT",
        help="why; kept, and shown by settings; default: nothing is said",
    )


def _correct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the plate as it was misread")
    parser.add_argument("new", metavar="NEW", help="the plate as it is")


def _remove(parser: argparse.ArgumentParser) -> None:
    _plate(parser)
    parser.add_argument("--dot", metavar="DOT", help=DOT)
    parser.add_argument(
        "--exit",
        metavar="DOT",
        help="it was the car of this unmatched exit, which is settled by that; see unmatched;"
        " default: none",
    )


def _members(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="forget", nargs="?", help="let a dead member go")
    parser.add_argument("member", metavar="NAME", nargs="?", help="the member to forget")


def _wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for",
        metavar="COND",
        action="append",
        dest="conditions",
        help="members=N, gates=N (each served by exactly one node), inside=N, synced or ready;"
        " KEY>=N works too; may be given several times; default: none, one is needed",
    )


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="CSV (plate,gate[,time]) or JSON lines; - is standard input"
    )


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log",
        action="store_true",
        help="the events that some member has not on its disk yet; `log` lists what has happened",
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        choices=("csv", "jsonl"),
        help="csv, or jsonl: one JSON object a line; default: csv",
    )


def _top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="print one frame and leave")
    parser.add_argument(
        "--svg", metavar="FILE", help="draw one frame as a picture and leave; default: none"
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="how often to look, 0.1 to 3600 seconds; default: 1",
    )
    parser.add_argument(
        "--demo", action="store_true", help="a made-up cluster, with --once or --svg"
    )


class _Shells(tuple[str, ...]):
    """What is offered. `NODES` is taken too."""

    __slots__ = ()

    def __contains__(self, word: object) -> bool:
        return word == NODES or super().__contains__(word)


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell",
        metavar="SHELL",
        choices=_Shells(SHELLS),
        help="bash, zsh or fish, for a line of their own in ~/.bashrc, or in ~/.zshrc after"
        ' compinit: eval "$(parkingd-ctl completion bash)". The line of fish stands above.',
    )


def _backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="where the daemon's machine puts the copy")


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
        _plate_and_gate,
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
        _enter,
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
        _plate_and_gate,
        changes=True,
    ),
    "lot": CommandHelp(
        "", "Show how many spaces are taken and free.", ("lot", "lot --json"), _nothing
    ),
    "vehicles": CommandHelp(
        "",
        "List every car inside.",
        ("vehicles", "vehicles -o tsv", "vehicles --json --name gary"),
        _nothing,
    ),
    "where": CommandHelp(
        "PLATE",
        "Show one car; exit status 5 when it is not inside.",
        ("where ABC123", "where ABC123 --json"),
        _plate,
    ),
    "conflicts": CommandHelp(
        "",
        "List plates that are inside more than once.",
        ("conflicts", "conflicts --json"),
        _nothing,
    ),
    "unmatched": CommandHelp(
        "",
        "List exits that matched no car, and what is like it.",
        ("unmatched", "unmatched --json"),
        _nothing,
    ),
    "gates": CommandHelp(
        "",
        "List the gates and which node serves each.",
        ("gates", "gates --json", "gates -o tsv"),
        _nothing,
    ),
    "members": CommandHelp(
        "[forget NAME]",
        "List the members, or forget a dead one.",
        ("members", "members --json", "members forget joe"),
        _members,
    ),
    "status": CommandHelp(
        "", "Show how this node and its cluster are.", ("status", "status --json"), _nothing
    ),
    "digest": CommandHelp(
        "",
        "Compare all members: equal roots, equal replicas.",
        ("digest", "digest --json"),
        _nothing,
    ),
    "discover": CommandHelp(
        "",
        "List what discovery found, and what became of it.",
        ("discover", "discover -o tsv"),
        _nothing,
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
        _set,
        changes=True,
    ),
    "settings": CommandHelp(
        "",
        "Show what was set, by whom, when and why.",
        ("settings", "settings --json"),
        _nothing,
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
        _gate,
        changes=True,
    ),
    "correct": CommandHelp(
        "OLD NEW",
        "Repair a misread plate; refused if NEW is inside.",
        ("correct ABC123 ABC128",),
        _correct,
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
        _remove,
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
        _wait,
    ),
    "import": CommandHelp(
        "FILE",
        "Record many entries from CSV or JSON lines.",
        ("import cars.csv", "import - < cars.jsonl", "import cars.csv --json"),
        _import,
    ),
    "export": CommandHelp(
        "",
        "Write vehicles, for import to read, or the event log.",
        ("export > cars.csv", "export --format jsonl", "export --log"),
        _export,
    ),
    "backup": CommandHelp(
        "FILE",
        "Copy this node's database while it runs.",
        ("backup /var/backups/gary.db",),
        _backup,
    ),
    "top": CommandHelp(
        "",
        "Watch the lot and its cluster live; q leaves, ? helps.",
        ("top", "top --name gary --interval 2", "top --once", "top --svg car-park.svg"),
        _top,
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
    "leave": CommandHelp("", "Hand over and stop the daemon.", ("leave --name gary",), _nothing),
    "completion": CommandHelp(
        "SHELL",
        "Print what makes a shell complete both commands.",
        ("completion bash", "completion zsh", "completion fish | source"),
        _completion,
    ),
    "version": CommandHelp(
        "", "Show the versions of this command and the daemon.", ("version",), _nothing
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


def parse(arguments: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The command and its arguments; ``help`` and ``--version`` come back as commands.

    Raises UsageError.
    """
    command, rest = _split(arguments)
    if command is None:
        if "--version" in rest:
            return "--version", argparse.Namespace(output=None)
        if "-h" in rest or "--help" in rest:
            return "--help", argparse.Namespace(text=_overview())
        raise _no_command(rest)
    if command == "help":
        return parse([*rest, "--help"])
    if command not in COMMANDS:
        # It may be the value of a flag that is misspelt.
        raise _unknown_flag(arguments[: list(arguments).index(command)]) or UsageError(
            f"there is no command {command!r}",
            did_you_mean(command, COMMANDS) or f"{PROGRAM} --help lists them",
        )
    program = None
    if command == "watch":
        rest, program = cut_program(rest)
    parser = parser_of(command)
    if "-h" in rest or "--help" in rest:
        return "--help", argparse.Namespace(text=parser.format_help())
    namespace = _parse_intermixed(parser, rest)
    namespace.program = program
    return command, checked(command, namespace)


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first word that is no global flag and no value of one, and the rest."""
    skip = False
    for place, word in enumerate(arguments):
        if skip:
            skip = False
        elif word in FLAGS_WITH_VALUE:
            skip = True
        elif not word.startswith("-"):
            return word, [*arguments[:place], *arguments[place + 1 :]]
    return None, list(arguments)


def _overview() -> str:
    from parkingd.cli.ctl_help import overview  # only for people who read

    return overview()


def _no_command(flags: list[str]) -> UsageError:
    """Nothing but flags: is one of them misspelt, or without its value?"""
    unknown = _unknown_flag(flags)
    if unknown is not None:
        return unknown
    if flags and flags[-1] in FLAGS_WITH_VALUE:
        return UsageError(f"{flags[-1]} needs a value", f"see {PROGRAM} --help")
    return UsageError("a command is missing", f"{PROGRAM} --help lists them")


def _unknown_flag(words: Sequence[str]) -> UsageError | None:
    """The first of these that looks like a flag and is none of all commands. ``-ojson`` is one."""
    known = {*FLAGS_WITH_VALUE, *FLAGS_WITHOUT_VALUE}
    for word in words:
        flag = word.partition("=")[0]
        if word.startswith("-") and flag not in known and not word.startswith("-o"):
            hint = did_you_mean(flag, known) or f"see {PROGRAM} --help"
            return UsageError(f"unknown flag {flag}", hint)
    return None


def _parse_intermixed(parser: FlagParser, rest: list[str]) -> argparse.Namespace:
    namespace, unknown = parser.parse_known_intermixed_args(rest)
    if unknown:
        parser.misspelt(unknown[0])
    return namespace
