from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from parkingd.adapters import client as client_module
from parkingd.adapters.client import ControlClient, Trouble
from parkingd.adapters.control_wire import Reply
from parkingd.adapters.rundir import ControlLock, control_socket_path
from parkingd.errors import UsageError
from tests.adapters.control_fake import (
    NOON,
    NOON_MS,
    RunningServer,
    eventually,
    running,
    vehicle_rows,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[ControlClient]:
    client = ControlClient.connect(server.path, 5)
    assert isinstance(client, ControlClient)
    yield client
    client.close()


def test_a_hundred_thousand_stays_arrive_as_items(
    server: RunningServer, client: ControlClient
) -> None:
    server.node.rows = vehicle_rows(100_000)
    document = client.call("vehicles", {})
    assert not isinstance(document, Trouble)
    assert len(document["items"]) == 100_000
    assert document["items"][0] == {
        "plate": "CAR000000",
        "since": NOON,
        "gate": 1,
        "entered_at_node": "gary",
        "dot": ["00000000000000ab", 1],
        "conflict": False,
    }
    assert document["items"][99_999]["since"] == "2026-08-01T12:01:39.999Z"


def test_no_stays_are_an_empty_list(server: RunningServer, client: ControlClient) -> None:
    server.node.rows = ()
    document = client.call("vehicles", {})
    assert not isinstance(document, Trouble)
    assert document["items"] == []


def test_an_answer_that_does_not_come_ends_at_the_time_out(
    server: RunningServer, client: ControlClient
) -> None:
    server.node.silent = True
    trouble = client.call("lot", {}, timeout_s=0.05)
    assert isinstance(trouble, Trouble)
    assert trouble.code == "timed_out"


def test_an_answer_to_an_earlier_request_is_not_mistaken_for_this_one(
    server: RunningServer, client: ControlClient
) -> None:
    client.send("status", {})
    document = client.call("lot", {})
    assert not isinstance(document, Trouble)
    assert document["kind"] == "Lot"


@pytest.mark.parametrize("is_back", [False, True], ids=["gone", "back at once"])
def test_a_daemon_that_stops_while_it_is_asked_is_noticed_before_the_time_out(
    tmp_path: Path, is_back: bool
) -> None:
    with running(tmp_path) as server:
        server.node.silent = True
        client = ControlClient.connect(server.path, 60)
        assert isinstance(client, ControlClient)
        client.send("lot", {})
        eventually(lambda: bool(server.node.seen))
    with running(tmp_path) if is_back else nullcontext():
        trouble = client.receive(time.monotonic() + 60)
        client.close()
    assert isinstance(trouble, Trouble)
    assert trouble.code == "daemon_stopped"


def test_a_connection_that_ends_before_the_two_have_met_is_made_again(tmp_path: Path) -> None:
    """A daemon that was frozen just then gives up whoever knocked when it goes on."""
    path = control_socket_path(tmp_path, "default", "gary")
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        client = ControlClient(path, "gary", 30)
        client.send("lot", {})
        knocking, _ = listener.accept()
        assert knocking.recv(1)
        knocking.close()
    path.unlink()
    with running(tmp_path):
        reply = client.receive(time.monotonic() + 30)
        client.close()
    assert isinstance(reply, Reply), reply


def test_text_that_is_not_unicode_is_a_usage_error(client: ControlClient) -> None:
    with pytest.raises(UsageError):
        client.send("where", {"plate": "\udcff"})


def connect_code(path: Path) -> str:
    client = ControlClient.connect(path, 5)
    assert isinstance(client, Trouble)
    return client.code


def test_nobody_is_there_without_a_socket_a_directory_or_a_held_lock(tmp_path: Path) -> None:
    path = control_socket_path(tmp_path, "default", "gary")
    assert connect_code(path) == "no_daemon"
    ControlLock.acquire(path).release()
    assert connect_code(path) == "no_daemon"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
        assert connect_code(path) == "no_daemon"


def test_a_daemon_that_takes_long_to_bind_is_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "START_WAIT_S_MAX", 0.05)
    lock = ControlLock.acquire(control_socket_path(tmp_path, "default", "gary"))
    trouble = ControlClient.connect(control_socket_path(tmp_path, "default", "gary"), 5)
    lock.release()
    assert isinstance(trouble, Trouble)
    assert "starting" in trouble.reason


def test_a_socket_without_a_lock_file_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "forwarded.ctl"
    with socket.socket(socket.AF_UNIX) as forwarded:
        forwarded.bind(str(path))
        assert connect_code(path) == "no_daemon"
        forwarded.listen()
        client = ControlClient.connect(path, 5)
        assert isinstance(client, ControlClient)
        client.close()


def test_a_socket_that_may_not_be_used_is_said_to_be(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert connect_code(server.path) == "not_permitted"


def test_a_path_that_no_socket_can_have_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        ControlClient.connect(Path("/" + "x" * 120), 5)


def test_noon_is_noon() -> None:
    assert time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOON_MS // 1_000)) == NOON[:19]
