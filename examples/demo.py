#!/usr/bin/env python3
"""A day at a car park, as fast as you like, on the dashboard: three daemons, one of which dies.

Starts three daemons, lets the cars of a real day (`data/`) in and out at their gates, a few hundred
times as fast as they came, and pulls the plug of a daemon now and then, to start it again a while
later. Shows `parkingd-ctl top` over it: q or Ctrl-C leaves, ? lists its keys. Nothing is left
behind, however it ends. Without a terminal, or on one that cannot move its cursor, it says what
happens and ends with one frame.

    python examples/demo.py
    python examples/demo.py --speed 60 --minutes 10 --kill-every 60
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, pairwise
from types import TracebackType
from typing import Final, NamedTuple

from car_park_day import Movement, Step, read_day, steps_of
from lane_computers import NAMES, LaneComputers, flags_of
from local_cluster import LocalCluster, Unexpected, run_script
from replay_day import DATA, DAYS

SHOWN: Final = "larry"
VICTIMS: Final = tuple(name for name in NAMES if name != SHOWN)
"""The others: whoever looks at a dead node sees little."""

DAY: Final = "ulm"
"""It is just full at eleven."""
BEGINS_AT_S: Final = 8 * 3_600
"""Before that little happens in a shopping street."""

SPEED: Final = 300.0
KILL_EVERY_S: Final = 20.0
DOWN_SHARE: Final = 0.4
"""Of the time between two kills."""

TOP_LEAVES_S_MAX: Final = 5.0

INTERRUPTED: Final = 130
"""The exit status of who left by Ctrl-C, which reaches the dashboard and us."""


class Arrival(NamedTuple):
    """One movement and when it is due, in seconds since midnight."""

    at_s: float
    movement: Movement


class Dashboard:
    """`parkingd-ctl top` in this terminal; a clock where there is none."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._command = [str(cluster.find("parkingd-ctl")), "--name", SHOWN, "top"]
        self._top: subprocess.Popen[bytes] | None = None
        has_cursor = os.environ.get("TERM", "dumb") not in ("", "dumb")
        self.is_shown = has_cursor and sys.stdin.isatty() and sys.stdout.isatty()

    def __enter__(self) -> Dashboard:
        if self.is_shown:
            self._top = subprocess.Popen(self._command, env=self._cluster.environment)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The terminal is given back before anything else is said on it."""
        if self._top is None:
            return
        self._top.terminate()
        try:
            self._top.wait(TOP_LEAVES_S_MAX)
        except subprocess.TimeoutExpired:
            self._top.kill()
            self._top.wait()

    def wait(self, seconds: float) -> bool:
        """So long, or until somebody has left the dashboard: False. Raises Unexpected."""
        if self._top is None:
            time.sleep(max(0.0, seconds))
            return True
        try:
            status = self._top.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return True
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status:
            raise Unexpected(f"the dashboard ended with exit status {status}")
        return False

    def say(self, text: str) -> None:
        """What the dashboard shows by itself is said where there is none."""
        if not self.is_shown:
            print(f"# {text}", flush=True)

    def show_once(self) -> None:
        """One frame, where nobody could look at it all the time."""
        if not self.is_shown:
            subprocess.run([*self._command, "--once"], env=self._cluster.environment, check=True)


class Show:
    """The cars, and the daemons that die and come back."""

    def __init__(self, nodes: LaneComputers, dashboard: Dashboard, kill_every_s: float) -> None:
        self._nodes = nodes
        self._dashboard = dashboard
        self._kill_every_s = kill_every_s
        self._victims = cycle(VICTIMS)
        self._down: str | None = None
        self._incident_s = time.monotonic() + kill_every_s / 2
        self._inside: set[str] = set()
        self.came = self.left = self.turned_away = self.kills = 0

    def open(self, movements: Sequence[Movement]) -> None:
        """Who is there in the morning."""
        self._nodes.import_cars(movements)
        self._inside = {each.plate for each in movements}

    def run(self, arrivals: Iterator[Arrival], speed: float, seconds: float | None) -> None:
        """Until the day is over, the time is, or somebody has left the dashboard."""
        began_s = time.monotonic()
        ends_s = float("inf") if seconds is None else began_s + seconds
        for at_s, movement in arrivals:
            due_s = began_s + (at_s - BEGINS_AT_S) / speed
            if not self._wait_until(min(due_s, ends_s)) or due_s > ends_s:
                return
            self._move(movement)

    def _wait_until(self, due_s: float) -> bool:
        """False when somebody has left. Daemons die and come back meanwhile."""
        while self._incident_s <= due_s:
            if not self._dashboard.wait(self._incident_s - time.monotonic()):
                return False
            self._incident()
        return self._dashboard.wait(due_s - time.monotonic())

    def _incident(self) -> None:
        down_s = self._kill_every_s * DOWN_SHARE
        if self._down is None:
            self._down = next(self._victims)
            self._dashboard.say(f"{self._down} is killed (-9)")
            self._nodes.kill(self._down)
            self.kills += 1
            self._incident_s += down_s
        else:
            self._dashboard.say(f"{self._down} is started again")
            self._nodes.start_alone(self._down)
            self._down = None
            self._incident_s += self._kill_every_s - down_s

    def _move(self, movement: Movement) -> None:
        if not movement.enters:
            if movement.plate not in self._inside:
                return  # It was turned away.
            self._inside.remove(movement.plate)
            self._nodes.move(movement)
            self.left += 1
        elif self._nodes.move(movement)["decision"] == "admitted":
            self._inside.add(movement.plate)
            self.came += 1
        else:
            self.turned_away += 1

    def summary(self) -> str:
        """What became of it."""
        root = f"\n# one root on all three: {self._nodes.root()}" if self._down is None else ""
        return (
            f"{self.came:,} cars came, {self.left:,} left, {self.turned_away:,} were turned away;"
            f" daemons killed: {self.kills}{root}"
        )


def opening_of(steps: Sequence[Step]) -> list[Movement]:
    """One entry for each car that is inside when the show begins."""
    inside: dict[str, Movement] = {}
    for step in steps:
        if second_of(step) <= BEGINS_AT_S:
            for movement in step.movements:
                if movement.enters:
                    inside[movement.plate] = movement
                else:
                    del inside[movement.plate]
    return list(inside.values())


def arrivals_of(steps: Sequence[Step]) -> Iterator[Arrival]:
    """What comes after that, spread evenly between two of the operator's reports."""
    for before, step in pairwise(steps):
        begins_s, ends_s = second_of(before), second_of(step)
        if ends_s <= BEGINS_AT_S:
            continue
        begins_s = max(begins_s, BEGINS_AT_S)
        share_s = (ends_s - begins_s) / max(1, len(step.movements))
        for number, movement in enumerate(step.movements):
            yield Arrival(begins_s + number * share_s, movement)


def second_of(step: Step) -> float:
    """Of its day."""
    at = step.reading.at
    return at.hour * 3_600 + at.minute * 60 + at.second


def main() -> int:
    """The exit status. Raises Unexpected."""
    args = parse()
    park = DAYS[args.day]
    steps = list(steps_of(read_day(DATA / park.file, park.spaces), args.seed))
    print(f"# {park.title}, {args.speed:g} times as fast", flush=True)
    with LocalCluster(flags_of(park.spaces)) as cluster:
        nodes = LaneComputers(cluster)
        try:
            nodes.start(*NAMES)
            with Dashboard(cluster) as dashboard:
                show = Show(nodes, dashboard, args.kill_every)
                show.open(opening_of(steps))
                show.run(arrivals_of(steps), args.speed, args.seconds)
                dashboard.show_once()
            print(f"# {show.summary()}", flush=True)
        finally:
            nodes.close()
    return 0


def parse() -> argparse.Namespace:
    """What was asked for; misuse ends here."""
    parser = argparse.ArgumentParser(description="A day at a car park on the dashboard.")
    parser.add_argument("--day", choices=DAYS, default=DAY, help=f"default: {DAY}")
    parser.add_argument("--seed", type=int, default=1, help="whose cars they are (default: 1)")
    parser.add_argument(
        "--speed",
        type=positive,
        default=SPEED,
        help=f"how many times as fast as the day was (default: {SPEED:g})",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=positive, help="how long (default: until the day is over)"
    )
    length.add_argument("--minutes", type=positive, help="the same in minutes")
    parser.add_argument(
        "--kill-every",
        metavar="SECONDS",
        type=positive,
        default=KILL_EVERY_S,
        help=f"between two daemons that die (default: {KILL_EVERY_S:g})",
    )
    args = parser.parse_args()
    if args.minutes is not None:
        args.seconds = 60 * args.minutes
    return args


def positive(text: str) -> float:
    """Raises ValueError."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(run_script(main))
