"""The operations port as Kubernetes, Prometheus and `helm test` use it, on nodes in containers."""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import Any

import pytest

from tests.daemon.harness import until
from tests.deploy.engine import ROOT, Engine
from tests.deploy.pods import Pod, Pods
from tests.deploy.rendering import CHART
from tests.deploy.zone import ZONE

pytestmark = pytest.mark.timeout(900)

TRIO = ("parkingd-0", "parkingd-1", "parkingd-2")
PORT = 9744
OPS = ("--env", f"PARKINGD_OPS=0.0.0.0:{PORT}")
PATIENCE_S = 60.0
PYTHON = "/opt/parkingd/bin/python3"
FETCH = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode(), sep="\\n", end="")
"""
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture
def trio(pods: Pods) -> list[Pod]:
    return pods.start_all(*TRIO, flags=OPS)


def url(pod: Pod) -> str:
    """Of a pod, by its name in the DNS."""
    return f"http://{pod.name}.{ZONE.removesuffix('.')}:{PORT}"


def fetch(engine: Engine, asker: Pod, asked: Pod, path: str) -> tuple[int, str]:
    """What one pod gets from another; status and body."""
    said = engine.run("exec", asker.container, PYTHON, "-c", FETCH, url(asked) + path)
    status, _, body = said.partition("\n")
    return int(status), body


def document(engine: Engine, asker: Pod, asked: Pod, path: str) -> dict[str, Any]:
    status, body = fetch(engine, asker, asked, path)
    assert status == 200, body
    return dict(json.loads(body))


def named_by_alerts_and_dashboard() -> set[str]:
    """Names of samples, as they stand in the expressions."""
    docs = ROOT / "docs/monitoring"
    texts = [(docs / name).read_text() for name in ("alerts.yaml", "grafana-dashboard.json")]
    return {name for text in texts for name in re.findall(r"\bparkingd_[a-z_]+", text)}


def promised(metrics: str) -> set[str]:
    """Names of samples that the types announce; there may be none of them yet."""
    typed = re.findall(r"^# TYPE (\S+) (\w+)$", metrics, re.MULTILINE)
    return {name + suffix for name, kind in typed for suffix in SUFFIXES[kind]}


def test_probes_readers_prometheus_and_helm_test_get_what_they_want(
    trio: list[Pod], engine: Engine
) -> None:
    first, second, third = trio
    for path in ("/livez", "/readyz"):
        assert fetch(engine, first, second, path)[0] == 200
    first.ctl("track", "ABC123", 1)
    second.wait_for("inside=1")
    lot = document(engine, first, second, "/v1/lot")
    assert (lot["inside"], lot["node"]) == (1, second.name)
    named = named_by_alerts_and_dashboard()
    assert len(named) > 30
    assert named <= promised(fetch(engine, first, second, "/metrics")[1])

    script = (CHART / "files/ask_every_pod.py").read_text()
    nodes = [url(pod) for pod in trio]
    words = ("exec", second.container, PYTHON, "-c")
    said = engine.run(*words, script, *nodes, timeout_s=90)
    assert said.endswith("all 3 nodes see each other and hold the same record")
    first.kill()
    third.kill()
    second.wait_for("members=1")
    hasty = script.replace("PATIENCE_S = 60.0", "PATIENCE_S = 0.0")
    assert engine.attempt(*words, hasty, *nodes, timeout_s=90).returncode == 1
    # Who is left goes on serving: it does not become unready because others died.
    for path in ("/livez", "/readyz"):
        assert fetch(engine, second, second, path)[0] == 200


def test_a_fourth_joins_and_the_gates_of_a_killed_one_are_served_by_the_others(
    trio: list[Pod], pods: Pods, engine: Engine
) -> None:
    """All of it seen through /v1/status, by name, as whoever operates it sees it."""
    fourth = pods.start("parkingd-3", *OPS)
    fourth.wait_for("members=4", "synced", "ready")
    everybody = [*trio, fourth]

    def all_served(*askers: Pod) -> dict[str, list[int]]:
        """Who serves what; empty unless each sees all of them alive and every gate served once."""
        seen = {pod.name: document(engine, pod, pod, "/v1/status") for pod in askers}
        for status in seen.values():
            gates = status["gates"]
            if status["members"]["alive"] != len(askers) or gates["unowned"] or gates["contested"]:
                return {}
        served = {name: list(status["gates"]["owned"]) for name, status in seen.items()}
        return served if sorted(itertools.chain(*served.values())) == [1, 2, 3, 4] else {}

    served = until(lambda: all_served(*everybody), "four serve four gates", PATIENCE_S)
    victim = next(pod for pod in trio if served[pod.name])
    others = [pod for pod in everybody if pod is not victim]
    victim.kill()
    killed_s = time.monotonic()
    until(lambda: all_served(*others), "the others serve its gates", PATIENCE_S)
    print(f"its gates were seen served after {time.monotonic() - killed_s:.2f} s")
    for pod in others:
        assert document(engine, pod, pod, "/v1/status")["members"]["dead"] == 1
