"""Repair: d entries that C lacks come by anti-entropy over connections that are open all the time.

The push from A to C, and nothing else, is swallowed by a routing rule in a network namespace of
our own (`ip rule ... blackhole` for the two ports of that one connection), d entries are recorded
on A, and the next anti-entropy brings them. Counted is the TCP payload on C's request connections,
both ways, from before the first entry until the roots are equal, less what the same connections
carry in as long a time with nothing to do. Then the rule goes, TCP repeats what it held back, and
when that has drained the next d is measured.

This module runs itself again inside the namespace (`unshare`), which needs root or user
namespaces; where there is neither the row is not measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Final

from tests.bench import sockets
from tests.bench.cars import ask, batches, begin_wait, cars, end_wait, record
from tests.bench.figures import BenchError, Figure, Unavailable
from tests.bench.processes import POLL_S, ROOT, Lot, Node, equal_roots
from tests.bench.sockets import Ports

CARS: Final = 100_000
CARS_QUICK: Final = 10_000
DIFFERENCES: Final = (1, 1, 1, 1, 1, 10, 10, 100, 1_000)
"""Of each run. Idle traffic comes in exchanges of some 300 bytes, so that a single small repair
seems to cost that much more or less than it does: the small ones are measured more often."""
PEER: Final = {1: "72", 10: "-", 100: "-", 1_000: "15,900"}
MUST_KB: Final = {1: 1.0, 1_000: 40.0}
IDLE_S: Final = 15.0
REPAIR_S: Final = 30.0
DRAIN_S: Final = 30.0
SETTLE_S: Final = 5.0

_SETUP: Final = (
    "ip link set lo up",
    # The table of own addresses is asked first of all; the blackhole has to come before it.
    "ip rule add pref 100 lookup local",
    "ip rule del pref 0",
    "ip -6 rule add pref 100 lookup local",
    "ip -6 rule del pref 0",
)


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """Runs `main` of this module inside a namespace."""
    enter = ["unshare", "--map-root-user", "--net"]
    try:
        subprocess.run([*enter, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable("this user may not make a network namespace with `unshare`") from error
    inside = subprocess.run(
        [*enter, sys.executable, "-m", "tests.bench.repair", str(runs), str(int(quick)),
         str(Lot.directory or "")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )  # fmt: skip
    if inside.returncode != 0:
        raise BenchError("the repair run inside the namespace failed, see above")
    figures = json.loads(inside.stdout)
    return [Figure(**{**each, "values": tuple(each["values"])}) for each in figures]


def _command(words: str) -> None:
    try:
        subprocess.run(words.split(), check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BenchError(f"{words.split()[0]} (iproute2) is not here") from error
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{words}: {error.stderr.strip()}") from error


@contextmanager
def _without_push(sender: Node, receiver: Node, pub_port: int) -> Iterator[None]:
    """Swallow what the one publishes to the other; afterwards wait until TCP has caught up."""
    ports = _push(sender, receiver, pub_port)
    rule = f"pref 1 ipproto tcp sport {ports.local} dport {ports.far}"
    _command(f"ip rule add {rule} blackhole")
    try:
        yield
    finally:
        _command(f"ip rule del {rule}")
    until_s = time.monotonic() + DRAIN_S
    while (end := sockets.ends().get(ports)) is not None and end.unsent:
        if time.monotonic() > until_s:
            raise BenchError("the push did not drain")
        time.sleep(POLL_S)


def _push(sender: Node, receiver: Node, pub_port: int) -> Ports:
    """The connection of the push. It ends when it was held up for seconds, and is made again."""
    until_s = time.monotonic() + DRAIN_S
    while time.monotonic() < until_s:
        seen = sockets.ends()
        for (local, far), end in seen.items():
            other = seen.get(Ports(far, local))
            is_push = local == pub_port and end.pid == sender.pid
            if is_push and other is not None and other.pid == receiver.pid:
                return Ports(local, far)
        time.sleep(POLL_S)
    raise BenchError(f"{receiver.name} does not hear {sender.name}")


class _Meter:
    """Payload on the request connections of one node, both ways."""

    def __init__(self, node: Node, ports: set[int]) -> None:
        self._node = node
        self._ports = ports

    def read(self) -> int:
        seen = sockets.ends()
        own = sockets.received(seen, self._node, self._ports)
        return own + sockets.sent(seen, self._node, self._ports)


def _router_ports(node: Node, names: list[str]) -> dict[str, int]:
    members = ask(node.connect(), "members")["items"]
    return {m["name"]: int(m["address"].rpartition(":")[2]) for m in members if m["name"] in names}


def run_inside(runs: int, *, quick: bool) -> list[Figure]:
    """The measurement itself; the caller made the namespace."""
    for words in _SETUP:
        _command(words)
    kilobytes: dict[int, list[float]] = {d: [] for d in PEER}
    seconds: dict[int, list[float]] = {d: [] for d in PEER}
    with Lot() as lot:
        nodes = lot.start_all("ann", "bob", "cid")
        ann, _, cid = nodes
        clients = [node.connect() for node in nodes]
        rows = cars(0)
        inside = CARS_QUICK if quick else CARS
        record([clients[0]], batches(rows, inside))
        equal_roots(clients)
        time.sleep(SETTLE_S)
        routers = _router_ports(ann, [node.name for node in nodes])
        meter = _Meter(cid, set(routers.values()))
        before, begun = meter.read(), time.monotonic()
        time.sleep(IDLE_S)
        idle_rate = (meter.read() - before) / (time.monotonic() - begun)
        for _ in range(runs):
            for d in DIFFERENCES:
                inside += d
                with _without_push(ann, cid, routers["ann"] + 1):
                    before, begun = meter.read(), time.monotonic()
                    wait = begin_wait(clients[2], inside, REPAIR_S)
                    record([clients[0]], [list(islice(rows, n)) for n in _parts(d)])
                    end_wait(clients[2], wait, REPAIR_S)
                    equal_roots([clients[0], clients[2]], REPAIR_S)
                    took_s = time.monotonic() - begun
                    payload = meter.read() - before - idle_rate * took_s
                kilobytes[d].append(payload / 1000)
                seconds[d].append(took_s)
                equal_roots(clients)
    note = f"request connections of C, both ways; {idle_rate:.0f} B/s idle taken off"
    return [
        *(
            Figure("repair", f"repair, d = {d:,} among {inside:,}: payload above idle", "KB",
                   tuple(kilobytes[d]), PEER[d], MUST_KB.get(d), note=note if d == 1 else "")
            for d in PEER
        ),
        *(
            Figure("repair", f"repair, d = {d:,}: first entry until roots are equal", "s",
                   tuple(seconds[d]), note="the next anti-entropy is at most 2 s away" * (d == 1))
            for d in PEER
        ),
    ]  # fmt: skip


def _parts(count: int) -> list[int]:
    return [min(500, count - start) for start in range(0, count, 500)]


def main() -> int:
    """Print the figures as JSON; for `measure` alone."""
    from pathlib import Path

    runs, quick, directory = sys.argv[1:]
    Lot.directory = Path(directory) if directory else None
    try:
        figures = run_inside(int(runs), quick=quick == "1")
    except (BenchError, Unavailable) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps([asdict(figure) for figure in figures]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
