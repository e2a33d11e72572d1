"""A day of a car park, as its operator counted it, turned into entries and exits.

The operator's system reports free spaces every few minutes. Between two reports at least as many
cars came or went as the figures differ: those are the movements made here. Who it was is not in
the data: plates, who leaves, and who comes back for a second time are drawn from a seed, so that
a day is the same whenever it is replayed. Pure: no clock, no socket, no disk but the one file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from string import ascii_uppercase
from typing import Final, NamedTuple

GATES: Final = 4
LANE_COMPUTERS: Final = 3
HOURS: Final = 24

STAY_MIN: Final = timedelta(minutes=15)
"""Nobody leaves earlier, as long as somebody else can."""

AWAY_MIN: Final = timedelta(minutes=30)
RETURNING_SHARE: Final = 0.1
"""Of those who enter, that many were here before and have been away for at least `AWAY_MIN`."""

LONGEST_PARKED_SHARE: Final = 0.5
"""Of those who leave, that many are the one who has been there longest; the rest is anybody."""

UK_SHARE: Final = 0.1
UK_LETTERS: Final = ascii_uppercase.replace("I", "").replace("Q", "").replace("Z", "")
DISTRICTS: Final = ("TR", "OL", "UL", "KA", "HB", "WIL", "BIT", "GP", "B", "M")
"""Of the three car parks and from further away."""


class Reading(NamedTuple):
    """What the operator reported."""

    at: datetime
    occupied: int
    """Spaces less free spaces: above the number of spaces when it reported fewer than none free."""


class Movement(NamedTuple):
    """One car at one gate."""

    plate: str
    enters: bool
    gate: int
    lane: int
    """Which lane computer sees it, 0 to `LANE_COMPUTERS` - 1."""
    request: bytes
    """The id under which it is recorded: repeated under the same id it has one effect."""


class Step(NamedTuple):
    """The movements that led to a reading: all entries or all exits, of different cars."""

    reading: Reading
    movements: tuple[Movement, ...]


class Hour(NamedTuple):
    """The steps of one hour. Hour 0 is the opening: what was inside when the day began."""

    end: int
    """0 to 24, UTC."""
    steps: tuple[Step, ...]
    operator: int
    """What the operator reported last, at the end of this hour or before."""


def read_day(path: Path, spaces: int) -> list[Reading]:
    """The readings of a file, in order of time. Raises ValueError for what is none."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Reading(
                datetime.fromisoformat(row["timestamp"]), max(0, spaces - int(row["free_spaces"]))
            )
            for row in csv.DictReader(file)
        ]


def steps_of(readings: Sequence[Reading], seed: int) -> Iterator[Step]:
    """A step for each reading; the first one's movements are the cars that were inside already."""
    traffic = _Traffic(seed)
    occupied = 0
    for reading in readings:
        change = reading.occupied - occupied
        occupied = reading.occupied
        move = traffic.enter if change > 0 else traffic.leave
        yield Step(reading, tuple(move(reading.at) for _ in range(abs(change))))


def hours_of(steps: Sequence[Step]) -> list[Hour]:
    """The opening and 24 hours. A reading a few seconds past the hour is the one of that hour."""
    by_end: dict[int, list[Step]] = {}
    for step in steps:
        at = step.reading.at
        minute = at.hour * 60 + round(at.minute + at.second / 60)
        by_end.setdefault(math.ceil(minute / 60), []).append(step)
    hours: list[Hour] = []
    operator = 0
    for end in range(HOURS + 1):
        inside = tuple(by_end.get(end, ()))
        operator = inside[-1].reading.occupied if inside else operator
        hours.append(Hour(end, inside, operator))
    return hours


def plates(rng: Random) -> Iterator[str]:
    """Plates of 7 or 8 letters and digits as German and, now and then, British cars have them.

    No two are the same when written without their separators.
    """
    given: set[str] = set()
    while True:
        plate = _british(rng) if rng.random() < UK_SHARE else _german(rng)
        key = plate.replace("-", "").replace(" ", "")
        if key not in given:
            given.add(key)
            yield plate


def _german(rng: Random) -> str:
    """``TR-AB 1234``: a district, one or two letters, up to four digits."""
    district = rng.choice(DISTRICTS)
    letters = "".join(rng.choices(ascii_uppercase, k=2))
    digits = min(4, rng.choice((7, 8)) - len(district) - len(letters))
    return f"{district}-{letters} {rng.randrange(10 ** (digits - 1), 10**digits)}"


def _british(rng: Random) -> str:
    """``AB12 CDE``: an area, the half year of registration, three letters."""
    area, serial = ("".join(rng.choices(UK_LETTERS, k=count)) for count in (2, 3))
    return f"{area}{rng.choice((0, 50)) + rng.randint(10, 25):02d} {serial}"


class _Traffic:
    """Who is inside and who has left, in order of time."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._plates = plates(self._rng)
        self._inside: dict[str, datetime] = {}
        self._away: dict[str, datetime] = {}
        self._count = 0

    def enter(self, at: datetime) -> Movement:
        """A car comes: mostly one that was not here today."""
        back = self._since(self._away, at - AWAY_MIN)
        if back and self._rng.random() < RETURNING_SHARE:
            plate = self._rng.choice(back)
            del self._away[plate]
        else:
            plate = next(self._plates)
        self._inside[plate] = at
        return self._moved(plate, enters=True)

    def leave(self, at: datetime) -> Movement:
        """A car goes. There is one: the figures never fall below zero."""
        longest_parked = next(iter(self._inside))
        free_to_go = self._since(self._inside, at - STAY_MIN)
        if free_to_go and self._rng.random() >= LONGEST_PARKED_SHARE:
            plate = self._rng.choice(free_to_go)
        else:
            plate = longest_parked
        del self._inside[plate]
        self._away[plate] = at
        return self._moved(plate, enters=False)

    def _since(self, cars: dict[str, datetime], latest: datetime) -> list[str]:
        return [plate for plate, at in cars.items() if at <= latest]

    def _moved(self, plate: str, *, enters: bool) -> Movement:
        number = self._count
        self._count += 1
        gate, lane = number % GATES + 1, number % LANE_COMPUTERS
        return Movement(plate, enters, gate, lane, self._rng.randbytes(16))
