"""One command line of parkingd-ctl: which command it names, with which arguments.

Flags may stand before or after the command, so the command word is found first; then the parser
of that command reads the rest.

Invariant: every misuse is a UsageError with a hint.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from parkingd.cli.ctl_checks import PROGRAM, checked
from parkingd.cli.ctl_flags import FLAGS_WITH_VALUE, FLAGS_WITHOUT_VALUE
from parkingd.cli.ctl_options import COMMANDS, parser_of
from parkingd.cli.flag_parser import FlagParser, did_you_mean
from parkingd.cli.journal_options import cut_program
from parkingd.errors import UsageError


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
