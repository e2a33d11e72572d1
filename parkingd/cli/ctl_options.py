"""What parkingd-ctl understands: its commands, their arguments, and the help for each.

Flags may stand before or after the command, so the command word is found first and one parser is
then built for that command, with the global flags in it: building all of them would cost more
than asking the daemon does.

Invariants: every misuse is a UsageError with a hint; a command of a later version is known, says
so, and appears in no help.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

from parkingd.cli.journal_options import (
    add_log_flags,
    add_watch_flags,
    check_log,
    check_watch,
    cut_program,
)
from parkingd.errors import UsageError

PROGRAM: Final = "parkingd-ctl"

TIMEOUT_S_MAX: Final = 86_400.0
REQUEST_ID_DIGITS: Final = 32

INTERVAL_S_MIN: Final = 0.1
INTERVAL_S_MAX: Final = 3_600.0
"""Of the looks of `top`; each costs the daemon some 2 ms."""

LATER_COMMANDS: Final = ("completion",)

SETTINGS: Final = ("spaces", "gates", "almost-full", "full")
"""What `set` can change."""
THRESHOLDS: Final = ("almost-full", "full")
"""Of these, what has a --clear."""
MODES: Final = ("open", "close", "auto")
"""What `gate` can do."""


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
    parser.add_argument("plate", metavar="PLATE", help="as typed or read; 1-16 letters or digits")
    parser.add_argument("gate", metavar="GATE", type=int, nargs="?", help="number of the gate")
    parser.add_argument("--gate", metavar="N", type=int, dest="gate_flag", help="the same, named")


def _enter(parser: argparse.ArgumentParser) -> None:
    _plate_and_gate(parser)
    parser.add_argument(
        "--seen",
        metavar="FENCE",
        help="the barrier refused the last answer's fence: the highest that it has seen",
    )


def _plate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plate", metavar="PLATE", help="as typed or read; 1-16 letters or digits")


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
        help="change it only if it is OLD now; else exit status 6",
    )
    _reason(parser)


def _gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "mode",
        metavar="open|close|auto",
        help="open: every car that is not inside is let in; close: none is; auto: as usual",
    )
    parser.add_argument("gate", metavar="N", type=int, help="number of the gate")
    _reason(parser)


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="why; kept, and shown by settings")


def _correct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the plate as it was misread")
    parser.add_argument("new", metavar="NEW", help="the plate as it is")


def _remove(parser: argparse.ArgumentParser) -> None:
    _plate(parser)
    parser.add_argument("--dot", metavar="DOT", help="only this stay: REPLICA:SEQ, see conflicts")
    parser.add_argument(
        "--exit",
        metavar="DOT",
        help="it was the car of this unmatched exit, which is settled; see unmatched",
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
        " KEY>=N works too; may be given several times",
    )


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="CSV (plate,gate[,time]) or JSON lines; - is standard input"
    )


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", action="store_true", help="the event log, not the vehicles")
    parser.add_argument(
        "--format", choices=("csv", "jsonl"), help="csv, or one JSON object a line (default: csv)"
    )


def _top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="print one frame and leave")
    parser.add_argument("--svg", metavar="FILE", help="draw one frame as a picture and leave")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=float,
        default=1.0,
        help="how often to look, 0.1 to 3600; default: 1",
    )
    parser.add_argument(
        "--demo", action="store_true", help="a made-up cluster, with --once or --svg"
    )


def _backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="where the daemon's machine puts the copy")


COMMANDS: Final = {
    "track": CommandHelp(
        "PLATE GATE",
        "Record here that a car entered, without asking.",
        ("track ABC123 1", "track 'KA 12 AB 3456' --gate 2", "track ABC123 1 --json"),
        _plate_and_gate,
        changes=True,
    ),
    "enter": CommandHelp(
        "PLATE GATE",
        "Ask to admit a car; exit status 1 when it is denied.",
        ("enter ABC123 1", "enter 'KA 12 AB 3456' --gate 2", "enter ABC123 1 --json"),
        _enter,
        changes=True,
    ),
    "exit": CommandHelp(
        "PLATE GATE",
        "Record here that a car left; this is never refused.",
        ("exit ABC123 1", "exit ABC123 --gate 2 --json"),
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
        ("gate close 2 --reason 'barrier is broken'", "gate open 1 --reason fire", "gate auto 1"),
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
    "version": CommandHelp(
        "", "Show the versions of this command and the daemon.", ("version",), _nothing
    ),
}

_GLOBAL_FLAGS_WITH_VALUE: Final = frozenset(
    {
        "--name",
        "--cluster",
        "--runtime-dir",
        "--control",
        "--timeout",
        "-o",
        "--output",
        "--color",
    }
)


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises, helps with misspelt flags and shows examples first."""

    def __init__(self, command: str, described: CommandHelp) -> None:
        super().__init__(
            prog=f"{PROGRAM} {command}",
            usage=f"{PROGRAM} {command} {described.arguments} [flags]".replace("  ", " "),
            allow_abbrev=False,
            add_help=False,
        )
        self._described = described

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see {self.prog} --help")

    def misspelt(self, unknown: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        message = f"unknown flag {unknown}" if unknown.startswith("-") else f"what is {unknown!r}?"
        close = did_you_mean(unknown, flags) if unknown.startswith("-") else ""
        raise UsageError(message, close or f"see {self.prog} --help")

    def format_help(self) -> str:
        examples = "\n".join(f"  {PROGRAM} {example}" for example in self._described.examples)
        return f"{self._described.summary}\n\nExamples:\n{examples}\n\n{super().format_help()}"


def parse(arguments: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The command and its arguments; ``help`` and ``--version`` come back as commands.

    Raises UsageError.
    """
    command, rest = _split(arguments)
    if command is None:
        if "--version" in rest:
            return "--version", argparse.Namespace(output=None)
        if "-h" in rest or "--help" in rest:
            return "--help", argparse.Namespace(text=overview())
        raise UsageError("a command is missing", f"{PROGRAM} --help lists them")
    if command in LATER_COMMANDS:
        raise UsageError(f"{command} is not in this version", f"{PROGRAM} --help lists what is")
    described = COMMANDS.get(command)
    if described is None:
        raise UsageError(
            f"there is no command {command!r}",
            did_you_mean(command, COMMANDS) or f"{PROGRAM} --help lists them",
        )
    program = None
    if command == "watch":
        rest, program = cut_program(rest)
    parser = _Parser(command, described)
    described.add_arguments(parser)
    _add_global_flags(parser, described)
    if "-h" in rest or "--help" in rest:
        return "--help", argparse.Namespace(text=parser.format_help())
    namespace = _parse_intermixed(parser, rest)
    namespace.program = program
    return command, _checked(command, namespace)


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first word that is no global flag and no value of one, and the rest."""
    skip = False
    for place, word in enumerate(arguments):
        if skip:
            skip = False
        elif word in _GLOBAL_FLAGS_WITH_VALUE:
            skip = True
        elif not word.startswith("-"):
            return word, [*arguments[:place], *arguments[place + 1 :]]
    return None, list(arguments)


def _parse_intermixed(parser: _Parser, rest: list[str]) -> argparse.Namespace:
    namespace, unknown = parser.parse_known_intermixed_args(rest)
    if unknown:
        parser.misspelt(unknown[0])
    return namespace


def _add_global_flags(parser: argparse.ArgumentParser, described: CommandHelp) -> None:
    if described.changes:
        parser.add_argument(
            "--request-id",
            metavar="HEX32",
            help="repeat a request that timed out: under one id it has one effect",
        )
    group = parser.add_argument_group("flags, before or after the command")
    group.add_argument("--name", metavar="NODE", help="which daemon (PARKINGD_NAME)")
    group.add_argument("--cluster", metavar="NAME", help="of which cluster (PARKINGD_CLUSTER)")
    group.add_argument(
        "--runtime-dir", metavar="DIR", help="where its socket is (PARKINGD_RUNTIME_DIR)"
    )
    group.add_argument(
        "--control", metavar="ipc://PATH", help="the socket itself (PARKINGD_CONTROL)"
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="default: 5, wait 30 (PARKINGD_TIMEOUT)",
    )
    group.add_argument(
        "--json", dest="output", action="store_const", const="json", help="the same as -o json"
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="FORMAT",
        choices=("table", "json", "jsonl", "tsv"),
        help="table, json, jsonl or tsv; default: table on a terminal, else tsv (PARKINGD_OUTPUT)",
    )
    group.add_argument(
        "--color",
        metavar="WHEN",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto, always or never; default: auto",
    )
    group.add_argument("-h", "--help", action="store_true", help="show this")


def _checked(command: str, namespace: argparse.Namespace) -> argparse.Namespace:
    check = _CHECKS.get(command)
    if check is not None:
        check(command, namespace)
    return namespace


def _check_gate_once(command: str, namespace: argparse.Namespace) -> None:
    if (namespace.gate is None) == (namespace.gate_flag is None):
        raise UsageError(
            "name the gate once, as GATE or with --gate N", f"{PROGRAM} {command} ABC123 1"
        )
    namespace.gate = namespace.gate_flag if namespace.gate is None else namespace.gate


def _check_interval(_: str, namespace: argparse.Namespace) -> None:
    if not INTERVAL_S_MIN <= namespace.interval <= INTERVAL_S_MAX:
        raise UsageError(
            f"{namespace.interval:g} is no interval to look at",
            f"from {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g} seconds",
        )


def _check_removal(_: str, namespace: argparse.Namespace) -> None:
    if namespace.dot is not None and namespace.exit is not None:
        raise UsageError("--dot and --exit exclude each other", f"see {PROGRAM} remove --help")


def _check_setting(_: str, namespace: argparse.Namespace) -> None:
    if namespace.what not in SETTINGS:
        raise UsageError(
            f"set knows {', '.join(SETTINGS)}, not {namespace.what!r}",
            did_you_mean(namespace.what, SETTINGS) or f"{PROGRAM} set spaces 120",
        )
    if namespace.clear is None:
        return
    if namespace.what not in THRESHOLDS:
        raise UsageError(
            f"{namespace.what} has no --clear", f"{PROGRAM} set almost-full 90 --clear 85"
        )
    if namespace.clear > namespace.number:
        raise UsageError(
            f"{namespace.what} cannot be clear at {namespace.clear} % when it begins at"
            f" {namespace.number} %",
            "give a --clear that is not greater",
        )


def _check_mode(_: str, namespace: argparse.Namespace) -> None:
    if namespace.mode not in MODES:
        raise UsageError(
            f"gate knows {', '.join(MODES)}, not {namespace.mode!r}",
            did_you_mean(namespace.mode, MODES) or f"{PROGRAM} gate close 2",
        )


def _check_member(_: str, namespace: argparse.Namespace) -> None:
    if namespace.action is None:
        return
    if namespace.action != "forget":
        raise UsageError(
            f"members knows forget, not {namespace.action!r}", f"{PROGRAM} members forget NAME"
        )
    if namespace.member is None:
        raise UsageError("which member?", f"{PROGRAM} members forget NAME")


_CHECKS: Final[Mapping[str, Callable[[str, argparse.Namespace], None]]] = {
    "track": _check_gate_once,
    "enter": _check_gate_once,
    "exit": _check_gate_once,
    "top": _check_interval,
    "watch": lambda _, namespace: check_watch(namespace),
    "log": lambda _, namespace: check_log(namespace),
    "remove": _check_removal,
    "set": _check_setting,
    "gate": _check_mode,
    "members": _check_member,
}
"""What a parser cannot say, by command."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint when something known is spelt much like this; else empty."""
    import difflib  # only for mistakes: it takes longer to load than most answers take to come

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def overview() -> str:
    """The help of the whole command."""
    width = max(len(f"{name} {described.arguments}") for name, described in COMMANDS.items())
    commands = "\n".join(
        f"  {f'{name} {described.arguments}':<{width}}  {described.summary}"
        for name, described in COMMANDS.items()
    )
    return f"""Ask a running parkingd daemon, and tell it what happens in the car park.

Examples:
  {PROGRAM} track ABC123 1
  {PROGRAM} enter ABC123 1
  {PROGRAM} --name gary lot --json
  {PROGRAM} wait --for members=3 --for synced

Commands:
{commands}

Flags, before or after the command:
  --name NODE           which daemon, where several run (PARKINGD_NAME)
  --cluster NAME        of which cluster (PARKINGD_CLUSTER)
  --runtime-dir DIR     where its socket is (PARKINGD_RUNTIME_DIR)
  --control ipc://PATH  the socket itself (PARKINGD_CONTROL)
  --timeout SECONDS     default: 5, wait 30 (PARKINGD_TIMEOUT)
  --json, -o FORMAT     table, json, jsonl or tsv; table on a terminal, else tsv
  --color WHEN          auto, always or never
  --version             the version of this command
  --help                this; COMMAND --help says more about one

Exit status:
  0  done, admitted, true       5   not found
  1  denied, the answer is no   6   refused
  2  usage                      7   not permitted
  3  no daemon there            70  a bug in this command
  4  timed out                  130 interrupted
"""
