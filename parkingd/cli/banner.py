"""What parkingd says when it has started: who it is, where it listens, whom it found."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parkingd.assembly import Started


def print_banner(started: Started) -> None:
    """To standard output, where a person started it; a supervisor's log gets one line."""
    rows = (
        ("node", started.name),
        ("cluster", started.cluster),
        ("replica", started.replica),
        ("listening", f"{', '.join(started.addresses)} (events on port {started.pub_port})"),
        ("control", started.control),
        ("cookie", f"{started.fingerprint} (from {started.cookie})"),
        ("data", started.data_dir),
        ("lot", started.spaces),
        ("looking for others", ", ".join(started.discovery)),
    )
    if not sys.stdout.isatty():
        return
    width = max(len(key) for key, _ in rows)
    print("\n".join(f"{key:>{width}}  {value}" for key, value in rows), flush=True)


def print_found(found: list[str]) -> None:
    """After the first round of discovery."""
    if sys.stdout.isatty():
        print(f"{'found':>18}  {', '.join(found) or 'nobody yet'}", flush=True)
