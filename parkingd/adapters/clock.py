"""The clocks of this machine, read in one place."""

from __future__ import annotations

import time

from parkingd.core.ids import Now


def read_now() -> Now:
    """Both clocks, in milliseconds."""
    return Now(time.monotonic_ns() // 1_000_000, wall_ms())


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
