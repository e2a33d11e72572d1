"""Heartbeats: what clusters of many sizes cost when idle, and who is taken for dead when busy.

All nodes share the processors of one machine, so that a cluster of 40 is also a test of patience.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Final

from tests.bench import machine, sockets
from tests.bench.figures import Figure
from tests.bench.processes import Lot, Node, in_sync

SIZES: Final = (3, 10, 20, 40)
SIZES_QUICK: Final = (3,)
BUSY_SIZE: Final = 20
BUSY_PROCESSES: Final = 16
BUSY_S: Final = 30.0

STARTING: Final = 4
"""Started at a time: more would only wait for each other."""

JOIN_S: Final = 120.0
SETTLE_S: Final = 15.0
"""Gates move for a while after the last start."""
SETTLE_QUICK_S: Final = 1.0
IDLE_S: Final = 20.0
IDLE_QUICK_S: Final = 3.0


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """One cluster of each size; ``runs`` does not multiply them: there is one value a node."""
    figures = []
    for size in SIZES_QUICK if quick else SIZES:
        with Lot() as lot:
            nodes = _start(lot, size)
            time.sleep(SETTLE_QUICK_S if quick else SETTLE_S)
            figures += _idle(nodes, IDLE_QUICK_S if quick else IDLE_S)
            if size == BUSY_SIZE:
                figures += _busy(nodes)
    return figures


def _start(lot: Lot, size: int) -> list[Node]:
    names = [f"n{index:02d}" for index in range(size)]
    nodes: list[Node] = []
    for first in range(0, size, STARTING):
        started = [lot.start(name) for name in names[first : first + STARTING]]
        nodes += started
        for node in started:
            in_sync(node.connect(), len(nodes), JOIN_S)
    for node in nodes:
        in_sync(node.connect(), size, JOIN_S)
    return nodes


def _idle(nodes: list[Node], idle_s: float) -> list[Figure]:
    cpu, seen, begun_s = [sum(node.cpu_s()) for node in nodes], sockets.ends(), time.monotonic()
    time.sleep(idle_s)
    cpu_later, seen_later = [sum(node.cpu_s()) for node in nodes], sockets.ends()
    took_s = time.monotonic() - begun_s
    percent = [(later - now) / took_s * 100 for now, later in zip(cpu, cpu_later, strict=True)]
    rates = [
        (sockets.received(seen_later, node) - sockets.received(seen, node)) / took_s
        for node in nodes
    ]
    name = f"{len(nodes)} nodes, idle"
    each = median(rates) / (len(nodes) - 1)
    note = f"payload that each receives, {each:.0f} B/s from each other; as much is sent"
    return [
        Figure("heartbeats", f"{name}: CPU of a daemon", "% of a core", tuple(percent)),
        Figure("heartbeats", f"{name}: traffic of a daemon, each way", "B/s", tuple(rates),
               note=note),
        _deaths(f"{len(nodes)} nodes, from the first start on: false deaths", nodes, Counter()),
    ]  # fmt: skip


def _busy(nodes: list[Node]) -> list[Figure]:
    said = _events(nodes)
    with _busy_processes():
        time.sleep(BUSY_S)
    name = f"{len(nodes)} nodes beside {BUSY_PROCESSES} busy processes on {os.cpu_count()} cores"
    return [_deaths(f"{name}, {BUSY_S:.0f} s: false deaths", nodes, said, must=0)]


def _deaths(
    what: str, nodes: list[Node], before: Counter[str], must: float | None = None
) -> Figure:
    said = _events(nodes) - before
    note = f"{said['member_suspect']} suspicions; load of the machine then {machine.load()}"
    return Figure("heartbeats", what, "deaths", (float(said["member_dead"]),), must=must, note=note)


def _events(nodes: list[Node]) -> Counter[str]:
    return sum((node.events() for node in nodes), Counter[str]())


@contextmanager
def _busy_processes() -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(BUSY_PROCESSES)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()
