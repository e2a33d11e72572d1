"""What every command of parkingd-ctl understands, before it or after it.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import argparse
from typing import Final

GLOBAL_FLAGS: Final = "Flags, before or after the command"
"""The heading over them."""

FLAGS_WITH_VALUE: Final = frozenset(
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
FLAGS_WITHOUT_VALUE: Final = ("--json", "--version", "-h", "--help")


def add_global_flags(parser: argparse.ArgumentParser) -> None:
    """What every command understands."""
    group = parser.add_argument_group(GLOBAL_FLAGS)
    group.add_argument(
        "--name",
        metavar="NODE",
        help="which daemon; default: the only one that runs here (PARKINGD_NAME)",
    )
    group.add_argument(
        "--cluster", metavar="NAME", help="of which cluster; default: any (PARKINGD_CLUSTER)"
    )
    group.add_argument(
        "--runtime-dir",
        metavar="DIR",
        help="where its socket is; default: where daemons of this user and of the system have"
        " theirs (PARKINGD_RUNTIME_DIR)",
    )
    group.add_argument(
        "--control",
        metavar="ipc://PATH",
        help="the socket itself; default: found by its name (PARKINGD_CONTROL)",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="for how long to wait for an answer, up to 86400; default: 5, backup 60, leave 15,"
        " wait 30 (PARKINGD_TIMEOUT)",
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
    group.add_argument("-h", "--help", action="store_true", help="show this and leave")
