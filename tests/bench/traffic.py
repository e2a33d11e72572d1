"""Arrivals and look-ups while something happens: one thread a node, one request after the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from threading import Event
from typing import Final

from parkingd.adapters.client import CODE_DAEMON_STOPPED, CODE_NO_DAEMON, Trouble
from tests.bench.cars import Row
from tests.bench.gates import arrival
from tests.bench.processes import Node

REQUEST_S: Final = 5.0
"""As `parkingd-ctl` waits unless told otherwise."""

PAUSE_S: Final = 0.005
"""Between two requests, so that a few threads do not take the processors from the daemons."""


GONE: Final = (CODE_NO_DAEMON, CODE_DAEMON_STOPPED)


class Traffic:
    """What one node is asked, and how long its answers took."""

    def __init__(self, node: Node, gates: Sequence[int], rows: Iterator[Row], seed: int) -> None:
        self.node = node
        self.gates = gates
        self.lookups_s: list[float] = []
        self.enters_s: list[float] = []
        self.refused: Counter[str] = Counter()
        """Answers other than *admitted*, by reason."""
        self._client = node.connect()
        self._rows = rows
        self._dice = Random(seed)

    def run(self, stop: Event) -> None:
        """Until told to stop, or nobody is there any more."""
        while not stop.is_set():
            begun = time.monotonic()
            answer = self._client.call("lot", {}, REQUEST_S)
            self.lookups_s.append(time.monotonic() - begun)
            if isinstance(answer, Trouble):
                self.refused[f"lot: {answer.code}"] += 1
                if answer.code in GONE:
                    return
            gate = self._dice.choice(self.gates)
            begun = time.monotonic()
            answer = self._client.call("enter", arrival(next(self._rows), gate), REQUEST_S)
            self.enters_s.append(time.monotonic() - begun)
            if isinstance(answer, Trouble):
                self.refused[answer.code] += 1
                if answer.code in GONE:
                    return
            elif answer["decision"] != "admitted":
                self.refused[answer["reason"]] += 1
            stop.wait(PAUSE_S)


@contextmanager
def under_way(*traffic: Traffic) -> Iterator[None]:
    """They run meanwhile; what each was asked last is answered before this ends."""
    stop = Event()
    with ThreadPoolExecutor(max_workers=len(traffic)) as pool:
        runs = [pool.submit(each.run, stop) for each in traffic]
        try:
            yield
        finally:
            stop.set()
        for run in runs:
            run.result()
