"""What the clocks of one machine say, as a function of the simulator's own time.

The simulator counts virtual milliseconds from 0. A machine's monotonic clock has its own origin and
may drift; its wall clock is off by a constant that a fault may change. Both are computed on
demand: nothing ticks.
"""

from __future__ import annotations

from parkingd.core.ids import Now

EPOCH_MS = 1_790_000_000_000
"""Wall milliseconds at virtual time 0, for a clock that is right."""

MILLION = 1_000_000

_new = tuple.__new__
"""Of a named tuple without its constructor: there is one at every verb."""


class MachineClock:
    """Monotonic and wall time of one machine."""

    def __init__(self, *, base_ms: int, drift_ppm: int, skew_ms: int) -> None:
        self._base_ms = base_ms
        self._rate = MILLION + drift_ppm
        self._exact = drift_ppm == 0
        self.skew_ms = skew_ms

    def now(self, time_ms: int) -> Now:
        """Both clocks at this virtual time."""
        passed_ms = time_ms if self._exact else time_ms * self._rate // MILLION
        return _new(Now, (self._base_ms + passed_ms, EPOCH_MS + passed_ms + self.skew_ms))

    def mono_ms(self, time_ms: int) -> int:
        """The monotonic clock alone."""
        return self._base_ms + (time_ms if self._exact else time_ms * self._rate // MILLION)

    def virtual_ms(self, mono_ms: int) -> int:
        """The first virtual millisecond at which the monotonic clock shows at least this."""
        passed_ms = mono_ms - self._base_ms
        return passed_ms if self._exact else -(-passed_ms * MILLION // self._rate)
