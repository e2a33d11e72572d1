"""Scrapes: what a Prometheus server waits for when it reads one of many nodes."""

from __future__ import annotations

import http.client
import importlib.util
import time
from typing import Final

from tests.bench.figures import BenchError, Figure, Unavailable
from tests.bench.processes import Lot

NAMES: Final = ("n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8")
SCRAPES: Final = 200
SCRAPES_QUICK: Final = 20
PAUSE_S: Final = 0.02
"""Between scrapes: the node has its own work."""
ANSWER_S: Final = 5.0


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """Scrapes of one node of eight, each over one kept connection; ``runs`` does not multiply."""
    if any(importlib.util.find_spec(each) is None for each in ("h11", "prometheus_client")):
        raise Unavailable("the extra [ops] is not installed")
    took, size = [], 0
    with Lot("--ops", "0") as lot:
        nodes = lot.start_all(*NAMES)
        host, _, port = nodes[0].value_of("ops_listening", "address").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=ANSWER_S)
        for _ in range(SCRAPES_QUICK if quick else SCRAPES):
            begun = time.perf_counter()
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            size = len(answer.read())
            took.append((time.perf_counter() - begun) * 1000)
            if answer.status != http.HTTPStatus.OK:
                raise BenchError(f"/metrics says {answer.status}")
            time.sleep(PAUSE_S)
        connection.close()
    note = f"from the request to the last byte of {size:,}, over a kept connection"
    return [
        Figure("scrape", "`/metrics` of one node of 8, read", "ms", tuple(took), must=5, note=note)
    ]
