"""Simulator speed: hours of a five-node cluster for a minute of this processor.

Seeds as the simulator draws them, but for the number of nodes; whole runs, checkers included.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from tests.bench.figures import BenchError, Figure, Unavailable

NODES: Final = 5
SEEDS: Final = 40
SEEDS_QUICK: Final = 8
MS_PER_HOUR: Final = 3_600_000


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """One figure over all seeds, and the spread over the parts it was measured in."""
    try:
        from tests.sim.options import draw
        from tests.sim.run import run
    except ImportError as error:
        raise Unavailable(f"the simulator cannot be loaded: {error}") from error
    seeds = SEEDS_QUICK if quick else SEEDS
    part = max(1, seeds // 5)
    speeds = []
    failed = []
    for start in range(1, seeds + 1, part):
        virtual_ms = 0
        begun = time.process_time()
        for seed in range(start, start + part):
            result = run(seed, options=replace(draw(seed), nodes=NODES))
            virtual_ms += result.virtual_ms
            if result.code:
                failed.append(seed)
        cpu_minutes = (time.process_time() - begun) / 60
        speeds.append(virtual_ms / MS_PER_HOUR / cpu_minutes)
    if len(failed) == seeds:
        raise BenchError("every seed failed: the figure would say nothing")
    note = f"{seeds} seeds in parts of {part}"
    if failed:
        note += f"; seeds that failed at {NODES} nodes: {failed}"
    what = f"simulated cluster-hours per CPU-minute, {NODES} nodes"
    return [
        Figure("simulator", what, "h/min", tuple(speeds), must=5, higher_is_better=True, note=note)
    ]
