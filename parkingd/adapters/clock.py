"""The clocks of this machine, read in one place."""

from __future__ import annotations

import time
from typing import Final

from parkingd.core.ids import Now

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine is suspended, where the system has such a clock: a node that was asleep
has to notice that its gates may be somebody else's."""


def read_now() -> Now:
    """Both clocks, in milliseconds."""
    return Now(time.clock_gettime_ns(_CLOCK) // 1_000_000, wall_ms())


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
