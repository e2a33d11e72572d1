"""Import of 100,000 cars on A until all three nodes hold all, and the memory a car takes.

Memory is what the kernel says is resident, before the import and once it has settled after the log
was trimmed; no daemon is asked to collect anything.
"""

from __future__ import annotations

import time
from typing import Final

from tests.bench.cars import batches, begin_wait, cars, end_wait, record
from tests.bench.figures import Figure
from tests.bench.processes import Lot, Node

CARS: Final = 100_000
CARS_QUICK: Final = 20_000
WAIT_S: Final = 300.0

SETTLE_POLL_S: Final = 1.0
SETTLED_POLLS: Final = 6
SETTLED_BYTES: Final = 256 * 1024
SETTLE_S_MAX: Final = 60.0


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """Time, CPU, peak memory and growth per car."""
    count = CARS_QUICK if quick else CARS
    took: list[float] = []
    on_a: list[float] = []
    cpu: dict[str, list[float]] = {"ann": [], "bob": [], "cid": []}
    peak: list[float] = []
    growth: dict[str, list[float]] = {"ann": [], "bob": [], "cid": []}
    split = ""
    for run in range(runs):
        with Lot() as lot:
            nodes = lot.start_all("ann", "bob", "cid")
            requests = batches(cars(run), count)
            empty = {node.name: _settled_rss(node) for node in nodes}
            before = {node.name: node.cpu_s() for node in nodes}
            clients = [node.connect() for node in nodes]
            waits = [begin_wait(client, count, WAIT_S) for client in clients]
            begun_ns = time.monotonic_ns()
            record([clients[0]], requests)
            acknowledged_ns = time.monotonic_ns()
            ended_ns = max(
                end_wait(client, id_, WAIT_S) for client, id_ in zip(clients, waits, strict=True)
            )
            took.append((max(ended_ns, acknowledged_ns) - begun_ns) / 1e9)
            on_a.append((acknowledged_ns - begun_ns) / 1e9)
            parts = []
            for node in nodes:
                used = [
                    now - then for now, then in zip(node.cpu_s(), before[node.name], strict=True)
                ]
                cpu[node.name].append(sum(used))
                parts.append(f"{node.name} {used[0]:.2f} + {used[1]:.2f} s")
            split = ", ".join(parts)
            for node in nodes:
                growth[node.name].append((_settled_rss(node) - empty[node.name]) / count)
                peak.append(node.peak_rss_bytes() / 2**20)
    what = f"{count:,} entries imported on A"
    note = f"CPU in the program + in the kernel, last run: {split}"
    figures = [
        Figure("import", f"{what} until all three hold all", "s", tuple(took), "21.6 (async)", 5,
               note=note),
        Figure("import", f"{what} until acknowledged there", "s", tuple(on_a)),
        *(
            Figure("import", f"{what}: CPU of {name}", "s", tuple(seconds))
            for name, seconds in cpu.items()
        ),
        Figure("import", f"{what}: peak memory of a daemon", "MiB", tuple(peak)),
    ]  # fmt: skip
    for name, per_car in growth.items():
        what = f"memory per car at {count:,}, resident, {name}"
        figures.append(Figure("memory", what, "B", tuple(per_car), "779 (3,100 resident)", 500))
    return figures


def _settled_rss(node: Node) -> int:
    """Resident bytes once they have not moved for some seconds."""
    until_s = time.monotonic() + SETTLE_S_MAX
    seen = [node.rss_bytes()]
    while time.monotonic() < until_s:
        time.sleep(SETTLE_POLL_S)
        seen.append(node.rss_bytes())
        last = seen[-SETTLED_POLLS:]
        if len(last) == SETTLED_POLLS and max(last) - min(last) <= SETTLED_BYTES:
            break
    return seen[-1]
