"""Idle traffic: what two nodes in sync send each other, each way, and nothing else to do."""

from __future__ import annotations

import time
from itertools import permutations
from typing import Final

from tests.bench import sockets
from tests.bench.cars import batches, cars, record
from tests.bench.figures import Figure
from tests.bench.processes import Lot, equal_roots

CARS: Final = 10_000
"""As many as the peer held."""

SETTLE_S: Final = 5.0
IDLE_S: Final = 30.0
IDLE_QUICK_S: Final = 10.0


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """Bytes a second in all six directions of every run."""
    rates: list[float] = []
    idle_s = IDLE_QUICK_S if quick else IDLE_S
    for run in range(runs):
        with Lot() as lot:
            nodes = lot.start_all("ann", "bob", "cid")
            clients = [node.connect() for node in nodes]
            record([clients[0]], batches(cars(run), CARS))
            equal_roots(clients)
            time.sleep(SETTLE_S)
            before, begun = sockets.ends(), time.monotonic()
            time.sleep(idle_s)
            after, ended = sockets.ends(), time.monotonic()
            rates += [
                (sockets.between(after, to, by) - sockets.between(before, to, by)) / (ended - begun)
                for to, by in permutations(nodes, 2)
            ]
    note = f"`ss` over {idle_s:.0f} s with {CARS:,} cars; every pair, both ways"
    what = "idle traffic per pair in sync, TCP payload each way"
    return [Figure("idle", what, "B/s", tuple(rates), "18,600", 1_000, note=note)]
