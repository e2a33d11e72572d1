"""Reads: the whole map through the control socket, and one command as a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.bench.cars import ask, batches, cars, record
from tests.bench.figures import BenchError, Figure, Unavailable
from tests.bench.processes import Lot

CARS: Final = 100_000
CARS_QUICK: Final = 20_000
READS: Final = 7
COMMANDS: Final = 15
SETTLE_S: Final = 5.0


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """Reads of one lot; ``runs`` does not multiply them."""
    count = CARS_QUICK if quick else CARS
    took = []
    with Lot() as lot:
        clients = [node.connect() for node in lot.start_all("ann", "bob", "cid")]
        record([clients[0]], batches(cars(0), count))
        time.sleep(SETTLE_S)
        for _ in range(READS):
            begun = time.perf_counter()
            items = ask(clients[0], "vehicles")["items"]
            took.append((time.perf_counter() - begun) * 1000)
            if len(items) != count:
                raise BenchError(f"{len(items)} of {count} cars were read")
            del items
    what = f"whole map read, {count:,} cars, over the control socket"
    note = "one request until every row is decoded and shaped as scripts see it"
    return [Figure("read", what, "ms", tuple(took), "178 (in process)", 250, note=note)]


def measure_command(runs: int, *, quick: bool) -> list[Figure]:
    """Whole processes, from fork to exit."""
    beside = Path(sys.executable).with_name("parkingd-ctl")
    command = str(beside) if beside.exists() else shutil.which("parkingd-ctl")
    if command is None:
        raise Unavailable("parkingd-ctl is not installed")
    took = []
    with Lot() as lot:
        lot.start_all("ann", "bob", "cid")
        environment = lot.environment()
        for attempt in range(COMMANDS + 2):
            begun = time.perf_counter()
            ended = subprocess.run(
                [command, "--name", "ann", "lot"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if ended.returncode != 0:
                raise BenchError(f"parkingd-ctl lot: {ended.stderr.strip()}")
            if attempt >= 2:  # The first ones read the program from the disk.
                took.append((time.perf_counter() - begun) * 1000)
    return [
        Figure("command", "one-shot `parkingd-ctl lot`, whole process", "ms", tuple(took), must=80)
    ]
