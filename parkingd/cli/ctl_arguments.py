"""What each command of parkingd-ctl takes, beside the flags of all: see `ctl_flags`.

`watch` and `log` have theirs in `journal_options`.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import argparse
from typing import Final

PLATE: Final = "as typed or read; 1-16 letters or digits"
GATE_FLAG: Final = "the same, by a flag; default: GATE"
DOT: Final = "only this stay, REPLICA:SEQ as conflicts shows it; default: all that are known here"

SHELLS: Final = ("bash", "zsh", "fish")
"""For which `completion` has a script."""

NODES: Final = "nodes"
"""Its scripts ask with this word for the daemons that run here."""


def add_nothing(parser: argparse.ArgumentParser) -> None:
    """Of a command that stands alone."""


def add_plate_and_gate(parser: argparse.ArgumentParser) -> None:
    """Of `track` and `exit`, and what `enter` begins with."""
    parser.add_argument("plate", metavar="PLATE", help=PLATE)
    parser.add_argument(
        "gate", metavar="GATE", type=int, nargs="?", help="number of the gate, from 1"
    )
    parser.add_argument("--gate", metavar="N", type=int, dest="gate_flag", help=GATE_FLAG)


def add_enter(parser: argparse.ArgumentParser) -> None:
    """Of `enter`."""
    add_plate_and_gate(parser)
    parser.add_argument(
        "--seen",
        metavar="FENCE",
        help="the highest fence that the barrier has seen, when it refused that of the last"
        " answer; default: none",
    )


def add_plate(parser: argparse.ArgumentParser) -> None:
    """Of `where`, and what `remove` begins with."""
    parser.add_argument("plate", metavar="PLATE", help=PLATE)


def add_set(parser: argparse.ArgumentParser) -> None:
    """Of `set`."""
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


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Of `gate`."""
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


def add_correct(parser: argparse.ArgumentParser) -> None:
    """Of `correct`."""
    parser.add_argument("old", metavar="OLD", help="the plate as it was misread")
    parser.add_argument("new", metavar="NEW", help="the plate as it is")


def add_remove(parser: argparse.ArgumentParser) -> None:
    """Of `remove`."""
    add_plate(parser)
    parser.add_argument("--dot", metavar="DOT", help=DOT)
    parser.add_argument(
        "--exit",
        metavar="DOT",
        help="it was the car of this unmatched exit, which is settled by that; see unmatched;"
        " default: none",
    )


def add_members(parser: argparse.ArgumentParser) -> None:
    """Of `members`."""
    parser.add_argument("action", metavar="forget", nargs="?", help="let a dead member go")
    parser.add_argument("member", metavar="NAME", nargs="?", help="the member to forget")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Of `wait`."""
    parser.add_argument(
        "--for",
        metavar="COND",
        action="append",
        dest="conditions",
        help="members=N, gates=N (each served by exactly one node), inside=N, synced or ready;"
        " KEY>=N works too; may be given several times; default: none, one is needed",
    )


def add_import(parser: argparse.ArgumentParser) -> None:
    """Of `import`."""
    parser.add_argument(
        "file", metavar="FILE", help="CSV (plate,gate[,time]) or JSON lines; - is standard input"
    )


def add_export(parser: argparse.ArgumentParser) -> None:
    """Of `export`."""
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


def add_top(parser: argparse.ArgumentParser) -> None:
    """Of `top`."""
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


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Of `completion`."""
    parser.add_argument(
        "shell",
        metavar="SHELL",
        choices=_Shells(SHELLS),
        help="bash, zsh or fish, for a line of their own in ~/.bashrc, or in ~/.zshrc after"
        ' compinit: eval "$(parkingd-ctl completion bash)". The line of fish stands above.',
    )


def add_backup(parser: argparse.ArgumentParser) -> None:
    """Of `backup`."""
    parser.add_argument("file", metavar="FILE", help="where the daemon's machine puts the copy")
