"""The settings of a lot: what may be changed while it runs, and what is believed of it.

A setting is a register, kept as the event that wrote it last. It may come from a node of another
version or from a hostile holder of the cookie, so it is believed only within the ranges of this
module: `clamped` and `Thresholds.of` never raise and never return what is out of range.

Hysteresis. A lot becomes *almost full* (or *full*) with so many cars inside, and is that until
fewer than `Band.clear` are. In between it depends on what was before, and that memory is a register
of the lot too (`HELD_KEYS`): so the state is a pure function of the replicated state, and equal
replicas show the same word, also after a restart, a snapshot or a partition. Who records a car
that takes the lot across one of its limits writes the register in the same breath.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

SPACES_MAX: Final = 10_000_000
GATES_MAX: Final = 1_000
PERCENT_MAX: Final = 100

KEY_LENGTH_MAX: Final = 16
"""Of a register's key, ASCII letters and digits: a request that set it is remembered under the key
as if that were a plate."""

ALMOST_FULL: Final = "almostfull"
FULL: Final = "full"
THRESHOLD_KEYS: Final = ("almostfull", "almostfullclear", "full", "fullclear")
"""Percent of the spaces, in the order of `Thresholds`."""
HELD_KEYS: Final = ("almostfullheld", "fullheld")
"""1 while the lot is that until it is clear again, else 0. Written by nodes, not by people."""

AUTO: Final = "auto"
OPEN: Final = "open"
CLOSED: Final = "closed"
MODES: Final = (OPEN, CLOSED, AUTO)
"""Of a gate: every car is let in, none is, or the ordinary rules hold."""

_KEY: Final = re.compile(r"[A-Za-z0-9]{1,16}", re.ASCII)
_GATE_KEY: Final = re.compile(r"gate([1-9][0-9]{0,3})", re.ASCII)


class Band(NamedTuple):
    """Where a state begins and where it ends, in cars inside."""

    at: int
    clear: int
    """At most ``at``. With fewer cars than this it ends."""

    def limit(self, held: bool) -> int:
        """From how many cars on the state holds; ``held``: it did before."""
        return self.clear if held else self.at

    def holds(self, inside: int, held: bool) -> bool:
        """Whether the state holds; ``held``: it did before."""
        return inside >= self.limit(held)


class Thresholds(NamedTuple):
    """Percent of the spaces."""

    almost_full: int = 90
    almost_full_clear: int = 88
    full: int = 100
    full_clear: int = 100

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Thresholds:
        """What these registers say, in range; a clear above its threshold counts as equal."""
        almost, almost_clear, full, full_clear = (
            clamped(settings.get(key), 0, PERCENT_MAX, default)
            for key, default in zip(THRESHOLD_KEYS, DEFAULT_THRESHOLDS, strict=True)
        )
        return cls(almost, min(almost, almost_clear), full, min(full, full_clear))

    def bands(self, spaces: int) -> tuple[Band, Band]:
        """(almost full, full) for a lot of so many spaces. Parts of a car count as one."""
        return (
            Band(_cars(spaces, self.almost_full), _cars(spaces, self.almost_full_clear)),
            Band(_cars(spaces, self.full), _cars(spaces, self.full_clear)),
        )

    def wrong_pair(self) -> str:
        """What makes no sense about a pair, as a sentence for people; empty when all do."""
        for name, at, clear in (
            ("almost-full", self.almost_full, self.almost_full_clear),
            ("full", self.full, self.full_clear),
        ):
            if clear > at:
                return f"{name} cannot be clear at {clear} % when it begins at {at} %"
        return ""


DEFAULT_THRESHOLDS: Final = Thresholds()


def _cars(spaces: int, percent: int) -> int:
    return -(-spaces * percent // 100)


def clamped(value: object, low: int, high: int, default: int) -> int:
    """The number within its range; ``default`` for what is no number."""
    if not isinstance(value, int) or isinstance(value, bool):
        return default
    return min(max(value, low), high)


def is_key(text: str) -> bool:
    """Whether a register may have this key."""
    return _KEY.fullmatch(text) is not None


def gate_key(gate: int) -> str:
    """The register of the mode of this gate."""
    return f"gate{gate}"


def gate_of(key: str) -> int | None:
    """The gate whose mode this register is; None for every other."""
    found = _GATE_KEY.fullmatch(key)
    gate = int(found[1]) if found is not None else 0
    return gate if 1 <= gate <= GATES_MAX else None
