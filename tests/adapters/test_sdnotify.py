"""What a service manager hears, on a real datagram socket."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from parkingd.adapters.sdnotify import STATUS_EVERY_MS, ServiceManager, status_line
from parkingd.protocol.outcomes import Lot, Status

USEC = 2_000_000
"""So a sign of life is due every second."""


class Listener:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self.variable = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        """Every datagram that has come since the last time."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()

    def manager(self, **environ: str) -> ServiceManager:
        return ServiceManager.from_environment({"NOTIFY_SOCKET": self.variable} | environ)


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    path = str(tmp_path / "notify")
    listener = Listener(path if request.param == "path" else f"@parkingd-{secrets.token_hex(8)}")
    yield listener
    listener.close()


@pytest.fixture
def one_listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(str(tmp_path / "notify"))
    yield listener
    listener.close()


def test_a_start_and_an_end_are_told_with_one_datagram_each(listener: Listener) -> None:
    manager = listener.manager()
    manager.ready("listening on TCP ports 7744 and 7745")
    assert listener.heard() == ["READY=1\nSTATUS=listening on TCP ports 7744 and 7745"]
    manager.stopping()
    manager.stopping()
    assert listener.heard() == ["STOPPING=1\nSTATUS=leaving"]
    manager.close()


def test_the_sign_of_life_is_given_at_half_of_the_time_and_only_by_the_tick(
    one_listener: Listener,
) -> None:
    manager = one_listener.manager(WATCHDOG_USEC=str(USEC), WATCHDOG_PID=str(os.getpid()))
    manager.ready("")
    one_listener.heard()
    beats = {}
    for now_ms in range(10_000, 13_001, 250):
        manager.tick(now_ms)
        beats[now_ms] = one_listener.heard().count("WATCHDOG=1")
    assert [now_ms for now_ms, count in beats.items() if count] == [10_000, 11_000, 12_000, 13_000]
    manager.stopping()
    one_listener.heard()
    manager.tick(14_000)
    assert one_listener.heard() == ["WATCHDOG=1"]  # Leaving takes seconds too.
    manager.close()


@pytest.mark.parametrize("pid", ["1", "999999999"])
def test_nobody_waits_for_a_sign_of_life_of_another_process(
    pid: str, one_listener: Listener
) -> None:
    manager = one_listener.manager(WATCHDOG_USEC=str(USEC), WATCHDOG_PID=pid)
    manager.tick(0)
    assert one_listener.heard() == []
    manager.close()


def test_a_status_is_sent_when_it_has_changed_and_not_after_the_end_has_begun(
    one_listener: Listener,
) -> None:
    manager = one_listener.manager()
    assert manager.tick(5_000)
    assert not manager.tick(5_000 + STATUS_EVERY_MS - 1)
    assert manager.tick(5_000 + STATUS_EVERY_MS)
    manager.status("members: 1 alive")
    manager.status("members: 1 alive")
    manager.status("members: 2 alive")
    assert one_listener.heard() == ["STATUS=members: 1 alive", "STATUS=members: 2 alive"]
    manager.stopping()
    one_listener.heard()
    manager.status("members: 3 alive")
    assert one_listener.heard() == []
    assert not manager.tick(5_000 + 10 * STATUS_EVERY_MS)
    manager.close()


def test_what_could_not_be_said_is_said_at_the_next_tick_and_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "notify")
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(USEC)})
    with caplog.at_level(logging.WARNING, "parkingd"):
        manager.tick(0)
        manager.tick(100)
    assert [record.values["warning"] for record in caplog.records] == [  # type: ignore[attr-defined]
        "cannot tell the service manager: No such file or directory"
    ]
    listener = Listener(path)
    manager.tick(200)
    assert listener.heard() == ["WATCHDOG=1"]
    listener.close()
    manager.close()


def test_a_service_manager_that_does_not_read_never_blocks_the_loop(
    one_listener: Listener,
) -> None:
    manager = one_listener.manager()
    for number in range(20_000):
        manager.status(f"members: {number} alive")
    heard = one_listener.heard()
    assert 0 < len(heard) < 20_000
    manager.status("members: 3 alive")
    assert one_listener.heard() == ["STATUS=members: 3 alive"]
    manager.close()


def test_without_a_service_manager_nothing_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager.from_environment({"WATCHDOG_USEC": str(USEC)})
    manager.ready("listening")
    assert not manager.tick(0)
    manager.stopping()
    manager.close()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, "NOTIFY_SOCKET=vsock:2:1234 is no socket of this"),
        ({"NOTIFY_SOCKET": "@"}, "NOTIFY_SOCKET=@ is no socket of this machine"),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC=soon is not a number"),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, "WATCHDOG_USEC=0 is not a number of"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named_in_the_log(
    environ: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager.from_environment(environ).close()
    (record,) = caplog.records
    assert record.values["warning"].startswith(said)  # type: ignore[attr-defined]


def status(**changes: object) -> Status:
    fields: dict[str, object] = {
        "replica": 1,
        "incarnation": 1,
        "cluster": "default",
        "uptime_s": 1.0,
        "synced": True,
        "ready": True,
        "root": "00",
        "lot": Lot("00", 100, 41, 59, 0, "open", "local", (), ()),
        "members": (("alive", 3), ("suspect", 0), ("dead", 0), ("left", 1)),
        "gates_total": 4,
        "gates_owned": (1, 3),
        "gates_unowned": (),
        "gates_contested": (),
        "warnings": (),
        "counters": (),
    }
    return Status(**(fields | changes))  # type: ignore[arg-type]


def test_the_status_line_names_members_gates_and_cars() -> None:
    line = "ready; members: 3 alive; gates here: 1, 3 of 4; 41 of 100 spaces taken"
    assert status_line(status()) == line


def test_the_status_line_tells_what_is_wrong() -> None:
    members = (("alive", 1), ("suspect", 1), ("dead", 2), ("left", 0))
    line = status_line(
        status(ready=False, members=members, gates_owned=(), lot=None, warnings=("a", "b"))
    )
    assert line == "not ready; members: 1 alive, 3 not; gates here: none of 4; warnings: 2"
