"""A real run for the dashboard: three nodes, cars, a node that is killed and comes back.

A real Prometheus (Debian's package) scrapes them; everything is on loopback and gone at the end.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from parkingd.adapters.client import ControlClient
from tests.bench.cars import GATES, ask
from tests.bench.processes import Lot, Node, in_sync

NAMES: Final = ("lane-1", "lane-2", "lane-3")
VICTIM: Final = "lane-2"
LENGTH_S: Final = 180.0
KILLED_S, BACK_S, FULL_S = 60.0, 100.0, 130.0
"""When it dies, is back, and when more cars come than go."""
PAUSE_S: Final = 0.1
ENTERS_S: Final = 5.0
JOIN_S: Final = 30.0
SCRAPE_S: Final = 2
ANSWER_S: Final = 10.0
START_S: Final = 30.0

CONFIG: Final = """\
global: {{scrape_interval: {scrape_s}s}}
scrape_configs:
  - job_name: north-car-park
    static_configs:
{targets}
"""
TARGET: Final = (
    "      - {{targets: ['{address}'], labels: {{namespace: parking, instance: {name}}}}}"
)


class Prometheus:
    """A server of our own."""

    def __init__(self, folder: Path, nodes: dict[str, str]) -> None:
        """``nodes``: name -> address of the ops port."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        targets = [TARGET.format(name=name, address=address) for name, address in nodes.items()]
        config = folder / "prometheus.yaml"
        config.write_text(CONFIG.format(scrape_s=SCRAPE_S, targets="\n".join(targets)))
        words = [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={self._address}",
        ]
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)

    def ask(self, path: str, **arguments: object) -> Any:
        """The data of an answer of its API. Raises OSError when there is none."""
        query = urllib.parse.urlencode(arguments)
        url = f"http://{self._address}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return json.load(answer)["data"]

    def wait(self) -> None:
        """Until it answers. Raises OSError when it does not in time."""
        until_s = time.monotonic() + START_S
        while True:
            try:
                self.ask("query", query="1")
            except OSError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(PAUSE_S)
            else:
                return

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(START_S)


@contextmanager
def day() -> Iterator[tuple[Prometheus, float, float]]:
    """It has passed: who can be asked about it, and its beginning and end, as `time.time`."""
    with Lot("--ops", "0", "--spaces", "60") as lot:
        nodes = lot.start_all(*NAMES)
        ports = {node.name: node.value_of("ops_listening", "address") for node in nodes}
        prometheus = Prometheus(lot.home, ports)
        try:
            prometheus.wait()
            began_s = time.time()
            _cars(lot, ports)
            yield prometheus, began_s, time.time()
        finally:
            prometheus.close()


def _cars(lot: Lot, ports: dict[str, str]) -> None:
    dice, inside = random.Random(7), deque[str]()
    clients = {name: lot.nodes[name].connect() for name in NAMES}
    began_s = time.monotonic()
    number = 0
    while (passed_s := time.monotonic() - began_s) < LENGTH_S:
        if VICTIM in clients and KILLED_S < passed_s < BACK_S:
            del clients[VICTIM]
            lot.nodes[VICTIM].stop(signal.SIGKILL)
        if VICTIM not in clients and passed_s >= BACK_S:
            clients[VICTIM] = _back(lot, ports).connect()
            in_sync(clients[VICTIM], len(NAMES), JOIN_S)
        number += 1
        _car(dice.choice(list(clients.values())), dice, inside, number, is_rush=passed_s > FULL_S)
        time.sleep(PAUSE_S)


def _back(lot: Lot, ports: dict[str, str]) -> Node:
    """On the ports that it had, so that Prometheus finds it."""
    flags = lot.flags
    lot.flags = ("--ops", ports[VICTIM], "--spaces", "60")
    try:
        return lot.start(VICTIM)
    finally:
        lot.flags = flags


def _car(
    client: ControlClient, dice: random.Random, inside: deque[str], number: int, *, is_rush: bool
) -> None:
    """One arrives, and from the fortieth on one leaves."""
    plate, gate = f"CAR{number:04d}", dice.randint(1, GATES)
    car = {"plate": plate, "gate": gate, "request": dice.randbytes(16)}
    if number % 3:
        answer = ask(client, "enter", car, ENTERS_S)
        if answer["decision"] == "admitted":
            inside.append(plate)
    else:
        ask(client, "track", car)
        inside.append(plate)
    if inside and len(inside) > 40 and not (is_rush and number % 2):
        gone = {"plate": inside.popleft(), "gate": dice.randint(1, GATES)}
        ask(client, "exit", gone | {"request": dice.randbytes(16)})
