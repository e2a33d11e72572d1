#!/usr/bin/env python3
"""A real day of a real car park, through three daemons, one of which is killed at noon.

Turns an operator's published figures (`data/`) into entries and exits and records them as fast as
they are acknowledged, spread over three daemons. At noon one of them is killed (-9) while requests
are under way to it: what it has not answered is repeated at its neighbour under the same request
id, and the neighbour sees its lane until it is started again at three. At the end of every hour the
occupancy stands beside the operator's own figure, and the three replicas must be identical.

Exit status 1, and a line that says why, when a car is lost, counted twice or not where it should
be, or when the day does not end with what the operator counted.

    python examples/replay_day.py oldenburg
    python examples/replay_day.py --all --seed 7 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from car_park_day import Hour, Movement, Step, hours_of, read_day, steps_of
from lane_computers import NAMES, LaneComputers, flags_of
from local_cluster import LocalCluster, Unexpected, run_script

from parkingd.core.plates import normalise_plate

VICTIM: Final = "gary"
KILLED_AT: Final = 12
BACK_AT: Final = 15

TABLE_HEAD: Final = "  UTC  operator   ours  difference  lot"

DATA: Final = Path(__file__).parent / "data"


Tell: TypeAlias = Callable[[str], None]
"""Is given each line of the output as it becomes true."""


class CarPark(NamedTuple):
    """One file of `data/`."""

    title: str
    file: str
    spaces: int


DAYS: Final = {
    "trier": CarPark("Trier, Ostallee, 9 December 2023", "trier-ostallee-2023-12-09.csv", 653),
    "oldenburg": CarPark(
        "Oldenburg, Pferdemarkt, 20 December 2025", "oldenburg-pferdemarkt-2025-12-20.csv", 401
    ),
    "ulm": CarPark("Ulm, Salzstadel, 17 December 2022", "ulm-salzstadel-2022-12-17.csv", 404),
}


class HourRow(NamedTuple):
    """One line of the table."""

    hour: str
    operator: int
    ours: int
    difference: int
    lot: str
    """``open``, ``almost_full``, ``full``, or by how much it is overbooked."""


def hour_row(hour: Hour, lot: dict[str, Any]) -> HourRow:
    """What the operator reported and what the lot says, side by side."""
    ours = int(lot["inside"])
    overbooked = int(lot["overbooked"])
    words = f"overbooked by {overbooked}" if overbooked else str(lot["state"])
    return HourRow(f"{hour.end:02d}:00", hour.operator, ours, ours - hour.operator, words)


def table_line(row: HourRow) -> str:
    """The row under `TABLE_HEAD`."""
    difference = f"{row.difference:+}" if row.difference else "0"
    return f"{row.hour:>5}  {row.operator:>8}  {row.ours:>5}  {difference:>10}  {row.lot}"


class Replay:
    """One day on three lane computers."""

    def __init__(
        self,
        park: CarPark,
        hours: Sequence[Hour],
        nodes: LaneComputers,
        tell: Tell,
    ) -> None:
        self._park = park
        self._hours = hours
        self._nodes = nodes
        self._tell = tell
        self._peak = max(
            (step.reading.occupied for hour in hours for step in hour.steps), default=0
        )
        self._is_killed = False
        self._inside: set[str] = set()
        self.rows: list[HourRow] = []
        self.root = ""
        """Of all three replicas, at the end of the last hour in which all three lived."""

    def run(self) -> None:
        """From midnight to midnight. Raises Unexpected."""
        self._tell(TABLE_HEAD)
        for hour in self._hours:
            for step in hour.steps:
                self._play(step, hour)
            self._end_of_hour(hour)
            if hour.end == BACK_AT and self._is_killed:
                began_s = time.monotonic()
                self._nodes.start(VICTIM)
                took_s = time.monotonic() - began_s
                self._compare_replicas()
                self._remark(f"{VICTIM} is started again and has caught up after {took_s:.1f} s")

    def _play(self, step: Step, hour: Hour) -> None:
        for movement in step.movements:
            (self._inside.add if movement.enters else self._inside.remove)(movement.plate)
        if hour.end == 0:
            self._open(step)
        elif hour.end > KILLED_AT and not self._is_killed and _concerns(VICTIM, step.movements):
            self._is_killed = True
            self._nodes.record(step.movements, victim=VICTIM)
            self._remark(
                f"{VICTIM} is killed (-9); repeated at a neighbour because it did not answer:"
                f" {self._nodes.repeated}"
            )
        else:
            self._nodes.record(step.movements)
        occupied = step.reading.occupied
        if occupied == self._peak > self._park.spaces:
            lot = self._nodes.lot(occupied)
            over = occupied - self._park.spaces
            if lot["overbooked"] != over:
                raise Unexpected(f"the lot is overbooked by {over} and says {lot['overbooked']}")
            self._remark(
                f"{step.reading.at:%H:%M}: the operator reports {-over} free;"
                f" the lot says overbooked by {over}"
            )

    def _open(self, step: Step) -> None:
        """Midnight: who is inside already is imported, as when a car park begins to use this."""
        self._nodes.import_cars(step.movements)

    def _end_of_hour(self, hour: Hour) -> None:
        row = hour_row(hour, self._nodes.lot(hour.operator))
        self.rows.append(row)
        self._tell(table_line(row))
        if len(self._nodes.living) < len(NAMES):
            return  # What only the dead node's disk has is missing until it is back.
        if row.difference:
            raise Unexpected(
                f"at {row.hour} {row.ours} cars are inside, and the operator counted {row.operator}"
            )
        self._compare_replicas()

    def _compare_replicas(self) -> None:
        """All three must be identical, and have the cars that are really inside."""
        self.root = self._nodes.root()
        keys = {normalise_plate(plate) or plate for plate in self._inside}
        self._nodes.check_cars(keys)

    def _remark(self, text: str) -> None:
        self._tell(f"      -- {text}")


def _concerns(name: str, movements: Sequence[Movement]) -> bool:
    return any(NAMES[movement.lane] == name for movement in movements)


def replay(day: str, seed: int, tell: Tell) -> dict[str, Any]:
    """Replay one day from beginning to end; what became of it. Raises Unexpected."""
    park = DAYS[day]
    hours = hours_of(list(steps_of(read_day(DATA / park.file, park.spaces), seed)))
    movements = [each for hour in hours[1:] for step in hour.steps for each in step.movements]
    entries = sum(movement.enters for movement in movements)
    exits = len(movements) - entries
    opening = hours[0].operator
    tell(f"# {park.title}: {park.spaces} spaces, {opening} cars inside at midnight,")
    tell(f"# then {entries:,} entries and {exits:,} exits through {', '.join(NAMES)}.")
    with LocalCluster(flags_of(park.spaces)) as cluster:
        nodes = LaneComputers(cluster)
        try:
            nodes.start(*NAMES)
            began_s = time.monotonic()
            run = Replay(park, hours, nodes, tell)
            run.run()
            took_s = time.monotonic() - began_s
        finally:
            nodes.close()
        cluster.stop()
    closing = run.rows[-1]
    tell(f"# One root on all three: {run.root}")
    tell(f"# {closing.ours:,} cars inside, as the operator says. The day took {took_s:.1f} s.")
    return {
        "day": day,
        "car_park": park.title,
        "spaces": park.spaces,
        "seed": seed,
        "opening": opening,
        "entries": entries,
        "exits": exits,
        "repeated": nodes.repeated,
        "hours": [row._asdict() for row in run.rows],
        "closing": closing.ours,
        "root": run.root,
        "seconds": round(took_s, 1),
    }


def main() -> int:
    """The exit status. Raises Unexpected."""
    parser = argparse.ArgumentParser(description="Replay a real day through three daemons.")
    parser.add_argument(
        "days", metavar="DAY", nargs="*", help=f"{', '.join(DAYS)} (default: oldenburg)"
    )
    parser.add_argument("--all", action="store_true", help="every day there is")
    parser.add_argument("--seed", type=int, default=1, help="whose cars they are (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object a day, no table")
    args = parser.parse_args()
    unknown = [day for day in args.days if day not in DAYS]
    if unknown:
        parser.error(f"there is no day {unknown[0]!r}; the days are {', '.join(DAYS)}")
    days = list(DAYS) if args.all else args.days or ["oldenburg"]

    def tell(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    for number, day in enumerate(days):
        if number:
            tell("")
        result = replay(day, args.seed, tell)
        if args.json:
            print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
