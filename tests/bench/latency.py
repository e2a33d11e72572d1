"""Convergence: how long after its acknowledgement an entry on A is readable on B and C.

B and C hold one outstanding ``wait --for inside>=N`` each, asked before the write, so that nothing
polls while the clock runs. One process, hence one monotonic clock, writes and hears all three; the
later of B and C counts, and an answer that came before the acknowledgement counts as 0.
"""

from __future__ import annotations

import time
from random import Random
from statistics import quantiles
from typing import Final

from parkingd.adapters.client import ControlClient
from tests.bench.cars import ask, begin_wait, cars, end_wait
from tests.bench.figures import Figure
from tests.bench.processes import Lot, Node

WRITES: Final = 250
WRITES_QUICK: Final = 40
GAP_S: Final = (0.020, 0.700)
"""Uniform, as the peer was measured: against any interval, not in step with one."""

IDLE_S: Final = 20.0
IDLE_QUICK_S: Final = 5.0
WAIT_S: Final = 30.0

NAMES: Final = ("ann", "bob", "cid")


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """p50 and p99 of every run, and the idle CPU of every daemon before it."""
    delays: list[float] = []
    half: list[float] = []
    most: list[float] = []
    acknowledged: list[float] = []
    idle: list[float] = []
    for run in range(runs):
        with Lot() as lot:
            nodes = lot.start_all(*NAMES)
            idle += _idle_percent(nodes, IDLE_QUICK_S if quick else IDLE_S)
            delays, acks = _delays(nodes, WRITES_QUICK if quick else WRITES, seed=run)
        cuts = quantiles(delays, n=100, method="inclusive")
        half.append(cuts[49])
        most.append(cuts[98])
        acknowledged.append(quantiles(acks, n=100, method="inclusive")[49])
    with Lot() as lot:
        nodes = lot.start_all(*NAMES, mdns=True)
        with_mdns = _idle_percent(nodes, IDLE_QUICK_S if quick else IDLE_S)
    note = f"{len(delays)} writes a run at random gaps of 20-700 ms; an early answer counts as 0"
    return [
        Figure("latency", "acknowledged on A -> readable on B and C, p50", "ms", tuple(half),
               "144 (fastest setting 1.8)", 2, note=note),
        Figure("latency", "acknowledged on A -> readable on B and C, p99", "ms", tuple(most),
               "300 (fastest setting 3.9)", 10),
        Figure("latency", "asked on A -> acknowledged (on disk), p50", "ms", tuple(acknowledged),
               "0.1-0.15 (memory)"),
        Figure("latency", "idle CPU of a daemon", "% of a core", tuple(idle),
               "0.3 (fastest setting 14-27)", 1),
        Figure("latency", "idle CPU of a daemon, with mDNS", "% of a core", tuple(with_mdns)),
    ]  # fmt: skip


def _idle_percent(nodes: list[Node], idle_s: float) -> list[float]:
    before = [sum(node.cpu_s()) for node in nodes]
    begun = time.monotonic()
    time.sleep(idle_s)
    took_s = time.monotonic() - begun
    return [
        (sum(node.cpu_s()) - earlier) / took_s * 100
        for node, earlier in zip(nodes, before, strict=True)
    ]


def _delays(nodes: list[Node], writes: int, *, seed: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each write: acknowledged -> readable, asked -> acknowledged."""
    dice = Random(seed)
    writer, *readers = (node.connect() for node in nodes)
    delays = []
    acks = []
    rows = cars(seed)
    for inside in range(1, writes + 1):
        time.sleep(dice.uniform(*GAP_S))
        waits = [begin_wait(reader, inside, WAIT_S) for reader in readers]
        _settled(readers)
        _, plate, gate, _, request = next(rows)
        asked_ns = time.monotonic_ns()
        ask(writer, "track", {"plate": plate, "gate": gate, "request": request})
        acknowledged_ns = time.monotonic_ns()
        # Read one after the other: the later arrival is seen exactly, whichever it is.
        readable_ns = max(
            end_wait(reader, id_, WAIT_S) for reader, id_ in zip(readers, waits, strict=True)
        )
        delays.append(max(0, readable_ns - acknowledged_ns) / 1e6)
        acks.append((acknowledged_ns - asked_ns) / 1e6)
    return delays, acks


def _settled(readers: list[ControlClient]) -> None:
    """Return when the daemons have taken the waits: a later request has been answered."""
    for reader in readers:
        ask(reader, "version")
