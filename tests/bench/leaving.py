"""Leave: how long a node takes to hand its gates over, and whether anybody was turned away.

While it leaves, cars arrive at all gates, asked of the nodes that stay. What the leaving node
itself answers is counted apart: it says that it is leaving.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from parkingd.adapters.client import Trouble
from tests.bench.cars import cars
from tests.bench.figures import BenchError, Figure
from tests.bench.gates import owned_by
from tests.bench.processes import Lot
from tests.bench.site import FLAGS, NAMES, Site
from tests.bench.traffic import Traffic, under_way

LEAVES: Final = 3
"""Of one lot: each node once."""

LEAVE_S: Final = 15.0
RAMP_S: Final = 0.2
"""Of arrivals before, and after."""


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """A quick run has one leave."""
    drained: list[float] = []
    ended: list[float] = []
    longest: list[float] = []
    refused: Counter[str] = Counter()
    by_leaver: Counter[str] = Counter()
    arrivals = 0
    for run in range(runs):
        with Lot(*FLAGS) as lot:
            site = Site(lot, run)
            for name in NAMES[: 1 if quick else LEAVES]:
                view = site.shared_out(evenly=not quick)
                leaver = name if owned_by(view, name) else str(view[1].owner)
                others = [
                    Traffic(node, list(view), cars(200 + 10 * run + index), seed=index)
                    for index, node in enumerate(site.others(leaver))
                ]
                own = owned_by(view, leaver)
                at_leaver = Traffic(site.nodes[leaver], own, cars(300 + run), seed=run)
                with under_way(*others, at_leaver):
                    time.sleep(RAMP_S)
                    drained_s, ended_s = _leave(site, leaver)
                    time.sleep(RAMP_S)
                drained.append(drained_s * 1000)
                ended.append(ended_s * 1000)
                for each in others:
                    refused += each.refused
                    arrivals += len(each.enters_s)
                    longest.append(max(each.enters_s) * 1000)
                by_leaver += at_leaver.refused
    return [
        Figure("leave", "`leave` until its gates are served by others, as all show", "ms",
               tuple(drained), must=1_000),
        Figure("leave", "`leave` until the process has ended", "ms", tuple(ended)),
        Figure("leave", "requests refused meanwhile by those that stay", "requests",
               (float(refused.total()),), must=0,
               note=f"of {arrivals} arrivals at all gates: {dict(refused) or 'all admitted'}; "
               f"the leaving node itself answered {dict(by_leaver)}"),
        Figure("leave", "longest `enter` meanwhile, asked of those that stay", "ms",
               tuple(longest)),
    ]  # fmt: skip


def _leave(site: Site, leaver: str) -> tuple[float, float]:
    """Seconds until the others serve all gates, and until the process has ended."""
    begun_s = time.monotonic()
    id_ = site.lanes[leaver].send("leave", {}, LEAVE_S)
    drained_s = site.until_served_without(leaver, begun_s + LEAVE_S) - begun_s
    page = site.lanes[leaver].page(id_, begun_s + LEAVE_S)
    if isinstance(page, Trouble):
        raise BenchError(f"leave: {page.code}: {page.reason}")
    status = site.nodes[leaver].process.wait(LEAVE_S)
    if status != 0:
        raise BenchError(f"{leaver} left with status {status}")
    return drained_s, time.monotonic() - begun_s
