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

from car_park_day import GATES, Hour, Movement, Step, hours_of, read_day, steps_of
from local_cluster import LocalCluster, Unexpected, run_script

from parkingd.adapters.client import CODE_DAEMON_STOPPED, ControlClient, Trouble
from parkingd.core.plates import normalise_plate

NAMES: Final = ("larry", "gary", "harry")
VICTIM: Final = "gary"
KILLED_AT: Final = 12
BACK_AT: Final = 15

REQUEST_S_MAX: Final = 15.0
AGREE_S_MAX: Final = 15.0
"""Connected nodes become identical within a second; 5 s after one was away."""
MEET_S_MAX: Final = 15.0

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


class LaneComputers:
    """The three daemons, and a connection to each that lives."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._clients: dict[str, ControlClient] = {}
        self.repeated = 0
        """Requests that a neighbour was asked again, because the node they were sent to died."""

    def start(self, *names: str) -> None:
        """Start, and wait until all three see each other and have the same record."""
        self._cluster.start(names)
        for name in names:
            client = ControlClient.connect(self._cluster.socket(name), REQUEST_S_MAX)
            if isinstance(client, Trouble):
                raise Unexpected(f"{name}: {client.reason}")
            self._clients[name] = client
        wanted = [["members", len(NAMES), False], ["synced", 1, True]]
        for name in names:
            met = self.ask(name, "wait", {"conditions": wanted}, MEET_S_MAX)["met"]
            if not met:
                raise Unexpected(f"{name} has not met the others within {MEET_S_MAX:g} s")

    def close(self) -> None:
        """End the connections; the daemons live on."""
        for client in self._clients.values():
            client.close()

    @property
    def living(self) -> list[str]:
        """Names, in their usual order."""
        return [name for name in NAMES if name in self._clients]

    def ask(
        self, name: str, verb: str, args: dict[str, Any], timeout_s: float = REQUEST_S_MAX
    ) -> dict[str, Any]:
        """One request to one node. Raises Unexpected when the answer is none."""
        answer = self._clients[name].call(verb, args, timeout_s)
        if isinstance(answer, Trouble):
            raise Unexpected(f"{name}: {verb}: {answer.code}: {answer.reason}")
        return answer

    def record(self, movements: Sequence[Movement], victim: str | None = None) -> None:
        """Record all of them, each at its lane, and wait for every acknowledgement.

        ``victim`` is killed when everything has been sent and nothing has been answered.
        """
        under_way: dict[str, dict[int, Movement]] = {name: {} for name in self.living}
        for movement in movements:
            name = self._responsible(movement)
            under_way[name][self._send(name, movement)] = movement
        if victim is not None:
            self._cluster.kill(victim)
        unanswered: list[Movement] = []
        for name, sent in under_way.items():
            unanswered += self._receive(name, sent, may_die=name == victim)
        if victim is not None:
            self._clients.pop(victim).close()
        if unanswered:
            self.repeated += len(unanswered)
            self.record(unanswered)

    def _responsible(self, movement: Movement) -> str:
        """The node of that lane, else the next one that lives."""
        lanes = (*NAMES[movement.lane :], *NAMES[: movement.lane])
        return next(name for name in lanes if name in self._clients)

    def _send(self, name: str, movement: Movement) -> int:
        args = {"plate": movement.plate, "gate": movement.gate, "request": movement.request}
        verb = "track" if movement.enters else "exit"
        return self._clients[name].send(verb, args, REQUEST_S_MAX)

    def _receive(self, name: str, sent: dict[int, Movement], *, may_die: bool) -> list[Movement]:
        """Take every answer; returns what was not answered because the node died."""
        until_s = time.monotonic() + REQUEST_S_MAX
        while sent:
            reply = self._clients[name].receive(until_s)
            if not isinstance(reply, Trouble):
                del sent[reply.id]
            elif may_die and reply.code == CODE_DAEMON_STOPPED:
                break
            else:
                raise Unexpected(f"{name}: {reply.code}: {reply.reason}")
        return list(sent.values())

    def lot(self, expected: int) -> dict[str, Any]:
        """What all living nodes say of the lot, once they say the same."""
        condition = {"conditions": [["inside", expected, False]]}
        until_s = time.monotonic() + AGREE_S_MAX
        while True:
            for name in self.living:
                self.ask(name, "wait", condition, AGREE_S_MAX)
            lots = {name: self.ask(name, "lot", {}) for name in self.living}
            counts = {name: lot["inside"] for name, lot in lots.items()}
            # A node may pass the expected count on its way: an exit of one lane has arrived, an
            # entry of another has not.
            if len(set(counts.values())) == 1:
                break
            if time.monotonic() >= until_s:
                said = ", ".join(f"{name} {count}" for name, count in counts.items())
                raise Unexpected(f"the nodes do not agree how many cars are inside: {said}")
        return lots[self.living[0]]

    def check_cars(self, plates: set[str]) -> None:
        """Every node must list exactly these cars, each once."""
        for name in NAMES:
            listed = [item["plate"] for item in self.ask(name, "vehicles", {})["items"]]
            lost, strange = plates.difference(listed), set(listed).difference(plates)
            twice = len(listed) - len(set(listed))
            if lost or strange or twice:
                raise Unexpected(
                    f"{name} has lost {len(lost)} cars, lists {len(strange)} that are not inside"
                    f" and {twice} twice"
                )

    def root(self) -> str:
        """The one root of all three replicas. Raises Unexpected if they stay different."""
        until_s = time.monotonic() + AGREE_S_MAX
        while True:
            digest = self.ask(NAMES[0], "digest", {})
            groups = digest["items"]
            if len(groups) == 1 and sorted(groups[0]["nodes"]) == sorted(NAMES):
                return str(groups[0]["root"])
            if time.monotonic() >= until_s:
                said = ", ".join(f"{each['root'][:8]} on {each['nodes']}" for each in groups)
                raise Unexpected(f"the replicas are not identical: {said}")


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
        rows = [
            [line, movement.plate, movement.gate, None, movement.request]
            for line, movement in enumerate(step.movements, 1)
        ]
        accepted = self._nodes.ask(NAMES[0], "import_rows", {"rows": rows})["accepted"]
        if accepted != len(rows):
            raise Unexpected(f"{accepted} of {len(rows)} cars were imported")

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
    flags = (
        "--spaces",
        str(park.spaces),
        "--gates",
        str(GATES),
        "--host",
        "127.0.0.1",
        "--no-mdns",
    )
    with LocalCluster(flags) as cluster:
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
