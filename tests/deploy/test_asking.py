"""What `helm test` runs: it asks every node, and is content only if all say the same."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.deploy.rendering import CHART, helm_set, named, refusal

SCRIPT = CHART / "files/ask_every_pod.py"
QUICK = (("PATIENCE_S = 60.0", "PATIENCE_S = 0.5"), ("PAUSE_S = 1.0", "PAUSE_S = 0.1"))
STATUS = {"kind": "Status", "members": {"alive": 3, "dead": 0}, "root": "7ce8"}


@contextmanager
def node(body: bytes) -> Iterator[str]:
    """Something that answers /v1/status with these bytes; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/status" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(*nodes: str) -> tuple[int, str]:
    """As the pod does, with less patience."""
    code = SCRIPT.read_text()
    for before, after in QUICK:
        assert before in code
        code = code.replace(before, after)
    ended = subprocess.run(
        [sys.executable, "-c", code, *nodes], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout


def answers(*statuses: object) -> tuple[int, str]:
    with ExitStack() as stack:
        return ask(*(stack.enter_context(node(json.dumps(s).encode())) for s in statuses))


def test_three_that_say_the_same_are_well() -> None:
    status, said = answers(STATUS, STATUS, STATUS)
    assert (status, said.splitlines()[-1]) == (
        0,
        "all 3 nodes see each other and hold the same record",
    )


@pytest.mark.parametrize(
    "other",
    [
        STATUS | {"root": "0000"},
        STATUS | {"members": {"alive": 2}},
        STATUS | {"members": 3},
        {"kind": "Error"},
        [],
    ],
    ids=str,
)
def test_one_that_says_something_else_is_named(other: object) -> None:
    status, said = answers(STATUS, STATUS, other)
    assert status == 1
    assert len(said.splitlines()) == 4


def test_fewer_members_than_pods_is_a_failure_even_if_all_agree() -> None:
    status, said = answers(*[STATUS | {"members": {"alive": 2}}] * 3)
    assert (status, said.count("2 members, root 7ce8")) == (1, 3)


def test_a_pod_that_does_not_answer_or_talks_nonsense_is_a_failure_with_its_reason() -> None:
    with node(b"\xff nonsense") as broken, node(json.dumps(STATUS).encode()) as sound:
        status, said = ask(sound, broken, "http://127.0.0.1:1")
    assert status == 1
    assert "UnicodeDecodeError" in said
    assert "Connection refused" in said


def test_the_pod_of_helm_test_asks_each_pod_by_its_own_name() -> None:
    why = refusal()
    if why is not None:
        pytest.skip(why)
    pod = named(helm_set(replicaCount=5), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["args"] == [
        f"http://parkingd-{number}.parkingd-gossip.parking.svc.cluster.local:9744"
        for number in range(5)
    ]
    assert container["command"][:2] == ["/opt/parkingd/bin/python3", "-c"]
    assert container["command"][2].strip() == SCRIPT.read_text().strip()
