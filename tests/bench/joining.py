"""Join: an empty node meets two that hold everything.

The two recorded half of the cars each, in turn. Time runs from the joiner's log line
``member_found``, which it writes when its hello was answered, until its root equals the others'
and what it holds is on its disk: a write to it is acknowledged, and the disk commits first in,
first out. The bytes are the TCP payload that the joiner's sockets have received by then, the
handshakes and what the others sent unasked included.
"""

from __future__ import annotations

import time
from typing import Final

from tests.bench import sockets
from tests.bench.cars import Row, ask, batches, begin_wait, cars, end_wait, record
from tests.bench.figures import Figure
from tests.bench.processes import Lot, Node, equal_roots, in_sync

CARS: Final = 100_000
CARS_QUICK: Final = 20_000
CARS_MANY: Final = 1_000_000
FILL_S: Final = 600.0
TRIM_S: Final = 5.0
"""The log is trimmed within this of the last import: until then a joiner gets events."""


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """The small join."""
    count = CARS_QUICK if quick else CARS
    return _figures("join", count, runs, peer=("14.2", "129"), must=(1, 3))


def measure_many(runs: int, *, quick: bool) -> list[Figure]:
    """The large one."""
    return _figures("join1m", CARS_MANY, runs, peer=("-", "-"), must=(10, 30))


def _figures(
    row: str, count: int, runs: int, *, peer: tuple[str, str], must: tuple[float, float]
) -> list[Figure]:
    times: list[float] = []
    megabytes: list[float] = []
    peaks: list[float] = []
    with Lot() as lot:
        held = lot.start_all("ann", "bob")
        rows = cars(1)
        _fill(held, batches(rows, count))
        for run in range(runs):
            seconds, payload, joiner = _join(lot, f"cid{run}", held, next(rows))
            times.append(seconds)
            megabytes.append(payload / 1e6)
            peaks.append(joiner.peak_rss_bytes() / 2**20)
            joiner.stop()
    what = f"join of an empty node, {count:,} cars"
    return [
        Figure(row, f"{what}: time", "s", tuple(times), peer[0], must[0],
               note="hello answered (its log) until roots are equal and a write to it is on disk"),
        Figure(row, f"{what}: bytes to it", "MB", tuple(megabytes), peer[1], must[1],
               note="TCP payload received by its sockets, as `ss` counts it"),
        Figure(row, f"{what}: its peak memory", "MiB", tuple(peaks)),
    ]  # fmt: skip


def _fill(nodes: list[Node], requests: list[list[Row]]) -> None:
    clients = [node.connect() for node in nodes]
    record(clients, requests)
    for client in clients:
        end_wait(client, begin_wait(client, sum(map(len, requests)), FILL_S), FILL_S)
    time.sleep(TRIM_S)


def _join(lot: Lot, name: str, held: list[Node], probe: Row) -> tuple[float, int, Node]:
    """Seconds, payload bytes and the joiner."""
    members = len(lot.running()) + 1
    joiner = lot.start(name)
    client = joiner.connect()
    in_sync(client, members, FILL_S)
    equal_roots([client, held[0].connect()])
    ask(client, "track", {"plate": probe[1], "gate": probe[2], "request": probe[4]})
    ended_s = time.time()
    payload = sockets.received(sockets.ends(), joiner)
    return ended_s - joiner.wall_s_of("member_found"), payload, joiner
