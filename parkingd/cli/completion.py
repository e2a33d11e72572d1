"""``completion``: scripts that make bash, zsh and fish complete `parkingd` and `parkingd-ctl`.

shtab writes them from argparse's parsers, so a new command or flag is completed by itself. Here
the parsers of all commands are put into one tree, and values get what they can be: files, folders,
the words a flag knows, and the names of the daemons that run here, which the shell asks for when
it needs them.

The script for zsh registers itself only when it is evaluated, not when it is sourced.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Final

import shtab

from parkingd.adapters.rundir import find_daemons
from parkingd.cli.ctl_arguments import NODES
from parkingd.cli.ctl_checks import PROGRAM
from parkingd.cli.ctl_flags import add_global_flags
from parkingd.cli.ctl_options import COMMANDS, add_flags
from parkingd.cli.ctl_session import EXIT_DONE, Session, local_document
from parkingd.cli.ctl_target import places
from parkingd.cli.parkingd import daemon_parser
from parkingd.config import LOG_FORMATS, LOG_LEVELS

_BY_METAVAR: Final = {
    "FILE": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "NODE": shtab.cmd(f"{PROGRAM} completion {NODES} 2>/dev/null"),
}

_WORDS_BY_METAVAR: Final = {"COND": ("ready", "synced")}
_WORDS_BY_SETTING: Final = {
    "log_level": LOG_LEVELS,
    "log_format": LOG_FORMATS,
    "admission": ("local",),
}

_LITERAL: Final = re.compile(r"[a-z-]+(\|[a-z-]+)*")
"""A metavar that stands for itself, such as ``spaces|gates``."""


def run_completion(session: Session, environ: Mapping[str, str]) -> int:
    """The exit status."""
    shell: str = session.args.shell
    if shell == NODES:
        running = find_daemons(places(session.args, environ), session.args.cluster)
        session.write(sorted({daemon.name for daemon in running}))
        return EXIT_DONE
    script = script_for(shell)
    if session.output in ("json", "jsonl"):
        session.show(local_document("Completion", {"shell": shell, "script": script}))
    else:
        session.write([script])
    return EXIT_DONE


def script_for(shell: str) -> str:
    """For both commands."""
    parsers = (_ctl_tree(), daemon_parser())
    for parser in parsers:
        _add_values(parser)
    return "\n".join(shtab.complete(parser, shell) for parser in parsers)


def _ctl_tree() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog=PROGRAM, add_help=False)
    add_global_flags(root)
    root.add_argument("--version", action="store_true", help="print the version and leave")
    commands = root.add_subparsers()
    for name, described in COMMANDS.items():
        parser = commands.add_parser(name, help=described.summary, add_help=False)
        add_flags(parser, described)
        _add_values(parser)
    return root


def _add_values(parser: argparse.ArgumentParser) -> None:
    """What each value can be, where that is known."""
    for action in parser._actions:
        metavar = str(action.metavar or "")
        if action.choices is not None or action.nargs == 0:
            continue
        if metavar in _BY_METAVAR:
            action.complete = _BY_METAVAR[metavar]  # type: ignore[attr-defined]
        elif metavar in _WORDS_BY_METAVAR:
            action.choices = _WORDS_BY_METAVAR[metavar]
        elif action.dest in _WORDS_BY_SETTING:
            action.choices = _WORDS_BY_SETTING[action.dest]
        elif _LITERAL.fullmatch(metavar):
            action.choices = metavar.split("|")
