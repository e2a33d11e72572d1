"""The flags of `watch` and `log`, and what they may say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from parkingd.errors import UsageError

PROGRAM_MARK: Final = "--"
"""What stands between `watch` and the program to run."""

SECONDS_MAX: Final = 86_400.0
RECONNECT_S: Final = 60.0
"""A daemon that is updated or restarted is back within seconds, a machine within a minute."""

KILL_AFTER_S: Final = 10.0
"""A barrier opens and a webhook answers within seconds."""

COUNT_MAX: Final = 1_000_000
SEQ_MAX: Final = 2**63 - 1

HOOK_FIELDS: Final = (
    "seq",
    "type",
    "time",
    "node",
    "member",
    "plate",
    "gate",
    "reason",
    "request",
)
"""What a program is told of an event, each in a variable of its own; empty where it has none."""

EVENT_VARIABLE: Final = "PARKINGD_EVENT"

LOG_FORMATS: Final = ("table", "csv", "jsonl")


def add_watch_flags(parser: argparse.ArgumentParser) -> None:
    """Of `watch`."""
    parser.add_argument(
        "--from",
        metavar="SEQ",
        dest="first",
        type=int,
        help="begin with this event; default: with what comes from now on",
    )
    _add_choice(parser)
    parser.add_argument(
        "--count", metavar="N", type=int, help="leave after so many events; default: never"
    )
    parser.add_argument(
        "--reconnect",
        metavar="SECONDS",
        type=float,
        default=RECONNECT_S,
        help="how long to wait for a daemon that has stopped; 0: not at all;"
        f" default: {RECONNECT_S:g}",
    )
    group = parser.add_argument_group(
        "with -- CMD ARG..., which is run once for each event",
        f"It finds the event in its environment as {', '.join(map(variable_of, HOOK_FIELDS))},"
        f" and as JSON in {EVENT_VARIABLE} and on its standard input.",
    )
    group.add_argument(
        "--kill-after",
        metavar="SECONDS",
        type=float,
        default=KILL_AFTER_S,
        help=f"end a run that takes longer; default: {KILL_AFTER_S:g}",
    )
    group.add_argument(
        "--stop-on-error", action="store_true", help="leave with status 1 when a run fails"
    )


def variable_of(field: str) -> str:
    """The environment variable of this field."""
    return f"PARKINGD_{field.upper()}"


def add_log_flags(parser: argparse.ArgumentParser) -> None:
    """Of `log`."""
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="2h, 3d, today, yesterday, 2026-08-01 or 2026-08-01T12:30; local, or UTC with a Z;"
        " default: the oldest",
    )
    parser.add_argument(
        "--until", metavar="TIME", help="likewise; up to, and not with, that time; default: now"
    )
    _add_choice(parser)
    parser.add_argument("--limit", metavar="N", type=int, help="only the newest N; default: all")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        choices=LOG_FORMATS,
        help="table, csv or jsonl; default: as -o says",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type",
        metavar="TYPE",
        action="append",
        dest="types",
        help="only these, like admitted,exited; may be given several times; default: all",
    )
    parser.add_argument("--plate", metavar="PLATE", help="only this car; default: all")


def cut_program(arguments: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What stands before ``--`` and after it; None where there is no such mark."""
    words = list(arguments)
    if PROGRAM_MARK not in words:
        return words, None
    place = words.index(PROGRAM_MARK)
    return words[:place], words[place + 1 :]


def check_watch(namespace: argparse.Namespace) -> None:
    """Raises UsageError."""
    _insist("--from", namespace.first, 0, SEQ_MAX)
    _insist("--count", namespace.count, 1, COUNT_MAX)
    _insist("--reconnect", namespace.reconnect, 0, SECONDS_MAX)
    _insist("--kill-after", namespace.kill_after, 0.1, SECONDS_MAX)
    if namespace.program == []:
        raise UsageError("which program is to be run?", "watch -- CMD ARG...")
    if namespace.stop_on_error and namespace.program is None:
        raise UsageError("--stop-on-error is about a program", "watch --stop-on-error -- CMD")


def check_log(namespace: argparse.Namespace) -> None:
    """Raises UsageError."""
    _insist("--limit", namespace.limit, 1, COUNT_MAX)
    if namespace.follow and namespace.until is not None:
        raise UsageError("--follow has no end, and --until is one", "leave out one of the two")


def _insist(flag: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise UsageError(
            f"{flag} {_number(value)} is out of range", f"from {_number(least)} to {_number(most)}"
        )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
