"""The barrier relay, the webhook and the MQTT bridge, with a real daemon and real receivers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from parkingd.adapters.clock import wall_ms
from parkingd.adapters.document_values import rfc3339
from tests.adapters.journal_fake import event, journal_daemon
from tests.daemon.harness import Cluster, Daemon, until

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 30.0

FIRST_CAR = ("--from", "1", "--plate", "KA PI 314", "--count")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("receivers")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def gary(cluster: Cluster) -> Daemon:
    """A daemon at which one car has come and gone, before everything else."""
    gary = cluster.start("gary", "--spaces", 10_000)
    gary.wait_for("gates=4")
    gary.read("enter", "KA-PI 314", 2)
    gary.read("exit", "KA-PI 314", 2)
    return gary


def start(socket_path: Path, script: str, *words: str) -> subprocess.Popen[str]:
    """As a service would: with the daemon's socket in its environment."""
    search_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [str(EXAMPLES / script), *words],
        env=os.environ | {"PATH": search_path, "PARKINGD_CONTROL": f"ipc://{socket_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def ended_afterwards(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


def test_the_barrier_opens_for_cars_of_its_own_gate(gary: Daemon, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    relay = ["sh", "-c", f'echo "$PARKINGD_PLATE" >> {opened}']
    with ended_afterwards(start(gary.control, "barrier_relay.sh", "1", *relay)):
        cars = iter(range(1_000))

        def come() -> bool:
            """Until the relay is there, nobody opens anything."""
            number = next(cars)
            gary.read("enter", f"OTHER{number}", 2)
            gary.read("enter", f"OWN{number}", 1)
            return opened.exists()

        until(come, "the barrier opens", PATIENCE_S)
        gary.read("enter", "OTHERLAST", 2)
        gary.read("enter", "OWNLAST", 1)
        until(lambda: "OWNLAST" in opened.read_text(), "it opens again", PATIENCE_S)
    assert all(plate.startswith("OWN") for plate in opened.read_text().split())


def test_a_car_that_is_told_late_opens_no_barrier(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    with journal_daemon(tmp_path) as daemon:
        relay = start(daemon.path, "barrier_relay.sh", "1", "touch", str(opened))
        with ended_afterwards(relay):
            until(lambda: len(daemon.asked) > 1, "it is watching", PATIENCE_S)
            daemon.events.append(event(1, gate=1, time=rfc3339(wall_ms() - 60_000)))
            assert relay.stderr is not None
            assert relay.stderr.readline() == "too late\n"
            assert not opened.exists()
            daemon.events.append(event(2, gate=1, time=rfc3339(wall_ms())))
            until(opened.exists, "the next one opens it", PATIENCE_S)


class Receiver(HTTPServer):
    """Refuses what comes first, and takes the rest."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.refusals = 1
        self.taken: list[dict[str, Any]] = []
        self.kinds: set[str] = set()


class _Request(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_error(503)
            return
        self.server.taken.append(json.loads(body))
        self.server.kinds.add(self.headers["Content-Type"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@needs("curl")
def test_the_webhook_posts_every_event_once_through_a_refusal_and_a_restart(
    cluster: Cluster, gary: Daemon
) -> None:
    with Receiver() as receiver:
        serving = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            url = f"http://127.0.0.1:{receiver.server_port}/parking"
            webhook = start(gary.control, "webhook.sh", url, *FIRST_CAR, "4")
            with webhook, ended_afterwards(webhook):
                until(lambda: len(receiver.taken) == 2, "both are posted", PATIENCE_S)
                gary.end()
                assert webhook.stderr is not None
                err = ""
                while "waiting up to 60 s for it\n" not in err:
                    line = webhook.stderr.readline()
                    assert line, f"it ended, and said only {err!r}"
                    err += line
                again = cluster.start("gary", lot=False)
                again.read("track", "KA-PI 314", 3)
                again.read("exit", "KA-PI 314", 4)
                webhook.wait(PATIENCE_S)
                err += webhook.stderr.read()
        finally:
            receiver.shutdown()
            serving.join()
    assert webhook.returncode == 0
    assert "it is back" in err
    assert [(each["type"], each["gate"]) for each in receiver.taken] == [
        ("admitted", 2),
        ("exited", 2),
        ("entered", 3),
        ("exited", 4),
    ]
    numbers = [each["seq"] for each in receiver.taken]
    assert numbers == sorted(set(numbers))
    assert receiver.kinds == {"application/json"}


@needs("mosquitto", "mosquitto_pub", "mosquitto_sub")
def test_the_bridge_publishes_every_event_on_a_broker(gary: Daemon) -> None:
    port = free_port()
    broker = ["mosquitto", "-p", str(port)]
    with ended_afterwards(subprocess.Popen(broker, stderr=subprocess.PIPE, text=True)):
        until(lambda: accepts(port), "the broker listens", PATIENCE_S)
        ask = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-i", "test", "-c", "-q", "1"]
        ask += ["-t", "parkingd/#", "-W", str(int(PATIENCE_S))]
        subprocess.run([*ask, "-E"], check=True)  # From now on the broker keeps what comes.
        bridge = start(gary.control, "mqtt_bridge.sh", f"127.0.0.1:{port}", *FIRST_CAR, "2")
        assert bridge.communicate(timeout=PATIENCE_S) == ("", "")
        told = subprocess.run([*ask, "-C", "2", "-v"], check=True, capture_output=True, text=True)
        lines = told.stdout.splitlines()
    topics, payloads = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert topics == ("parkingd/gary/admitted", "parkingd/gary/exited")
    assert {json.loads(payload)["plate"] for payload in payloads} == {"KAPI314"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
