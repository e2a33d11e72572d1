"""Hybrid logical time: wall milliseconds that never run backwards and respect causality.

A time is 48 bits of milliseconds since 1970 and 16 bits of counter in one int, so that times are
compared as ints. A mint is above every time minted or merged before it, whatever the wall clock
says; a full counter carries into the milliseconds. As long as the clocks are sane a time is within
the clocks' spread of the true one. Also here: which wall clock to believe (DESIGN section 4,
"Time").

Source: Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks" (2014), section 3,
in the compact form of its section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from parkingd.core.ids import HYBRID_MAX, HybridTime

COUNTER_BITS: Final = 16
"""65,536 events a millisecond before the time runs ahead of the wall clock."""


class HybridClock:
    """The clock of one replica. ``last`` is the highest time minted or seen."""

    __slots__ = ("last",)

    last: HybridTime

    def __init__(self, last: HybridTime = 0) -> None:
        self.last = last

    def mint(self, physical_ms: int) -> HybridTime:
        """A time above every earlier one, at ``physical_ms`` if that is not in the past."""
        wall = physical_ms << COUNTER_BITS
        time = self.last + 1
        if wall > time:
            time = wall
        assert time <= HYBRID_MAX, "the hybrid clock has run out"
        self.last = time
        return time

    def merge(self, time: HybridTime) -> None:
        """See a time of somebody else: later mints are above it."""
        if time > self.last:
            self.last = time


def physical_ms(time: HybridTime) -> int:
    """Milliseconds since 1970 of a hybrid time."""
    return time >> COUNTER_BITS


def compose(ms: int, counter: int) -> HybridTime:
    """A hybrid time of its parts. 0 <= counter < 65,536."""
    assert 0 <= counter < 1 << COUNTER_BITS, counter
    return ms << COUNTER_BITS | counter


def believed_wall_ms(
    own_wall_ms: int, mono_ms: int, offsets: Sequence[int], spread_max_ms: int
) -> tuple[int, bool]:
    """The wall time to mint with, and whether that is our own clock.

    ``offsets`` holds, for each *other* live member, its wall time minus our monotonic time. Our own
    wall clock is believed unless it is more than ``spread_max_ms`` off the median of all, ours
    included; then the median plus our own monotonic progress is. Of two the earlier is the median:
    one clock that runs ahead must not pull the only other one along.
    """
    own_offset_ms = own_wall_ms - mono_ms
    low_ms, high_ms = own_offset_ms - spread_max_ms, own_offset_ms + spread_max_ms
    if not offsets or (low_ms <= min(offsets) and max(offsets) <= high_ms):
        return own_wall_ms, True
    median_ms = _median([own_offset_ms, *offsets])
    if abs(own_offset_ms - median_ms) > spread_max_ms:
        return median_ms + mono_ms, False
    return own_wall_ms, True


def deviating(offsets: Mapping[str, int], spread_max_ms: int) -> dict[str, int]:
    """Name -> ms off the median, for the clocks of which that is more than ``spread_max_ms``.

    ``offsets`` holds wall time minus our monotonic time of every live member, ours included.
    """
    if not offsets or max(offsets.values()) - min(offsets.values()) <= spread_max_ms:
        return {}
    median_ms = _median(offsets.values())
    return {
        name: offset_ms - median_ms
        for name, offset_ms in sorted(offsets.items())
        if abs(offset_ms - median_ms) > spread_max_ms
    }


def _median(values: Iterable[int]) -> int:
    """The lower median: of an even count the earlier one of the middle."""
    ascending = sorted(values)
    return ascending[(len(ascending) - 1) // 2]
