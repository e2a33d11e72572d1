"""A site: three nodes with shared-out gates, of which one after the other is lost."""

from __future__ import annotations

import time
from typing import Final

from tests.bench.cars import cars
from tests.bench.figures import BenchError
from tests.bench.gates import View, gates_of, is_served, until_shared
from tests.bench.processes import Lot, Node, in_sync

NAMES: Final = ("ann", "bob", "cid")

FLAGS: Final = ("--spaces", "1000000")
"""No arrival is to be denied because the lot is full."""

POLL_S: Final = 0.001


class Site:
    """Three nodes, and two connections to each: for reads, and for arrivals."""

    def __init__(self, lot: Lot, seed: int) -> None:
        self.lot = lot
        self.rows = cars(seed)
        self.nodes = {node.name: node for node in lot.start_all(*NAMES)}
        self.clients = {name: node.connect() for name, node in self.nodes.items()}
        self.lanes = {name: node.connect() for name, node in self.nodes.items()}

    def shared_out(self, *, evenly: bool = True) -> View:
        """Start who has ended again, and wait until all agree, and all serve gates if asked to."""
        for name, node in self.nodes.items():
            if node.process.poll() is not None:
                self._restart(name)
        return until_shared(list(self.clients.values()), NAMES, evenly=evenly)

    def _restart(self, name: str) -> None:
        self.nodes[name].stop()
        self.nodes[name] = self.lot.start(name)
        self.clients[name] = self.nodes[name].connect()
        self.lanes[name] = self.nodes[name].connect()
        for client in self.clients.values():
            in_sync(client, len(NAMES))

    def others(self, name: str) -> list[Node]:
        """All but this one."""
        return [node for node in self.nodes.values() if node.name != name]

    def until_served_without(self, name: str, until_s: float) -> float:
        """When all others have shown that every gate is served by them, as `time.monotonic`."""
        living = [node.name for node in self.others(name)]
        left = list(living)
        while left:
            for other in list(left):
                view = gates_of(self.clients[other])
                if is_served(view, living):
                    left.remove(other)
                elif time.monotonic() > until_s:
                    raise BenchError(f"without {name}, {other} still shows {view}")
            time.sleep(POLL_S)
        return time.monotonic()
