"""Standard streams that were closed by whoever started us (``>&-``), as some supervisors do."""

from __future__ import annotations

import os
import sys


def replace_closed_streams() -> None:
    """Send them to nowhere, before a file or a socket of ours can get the number of one."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - open as long as this process lives
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
