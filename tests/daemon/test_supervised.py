"""A daemon that a service manager watches, heard on the manager's own kind of socket."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.harness import PATIENCE_S, Cluster, Daemon, until

WATCHDOG_USEC = 1_000_000


class Heard:
    """Everything that was said so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        while True:
            try:
                self._lines += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self._lines

    def until(self, line: str) -> None:
        until(lambda: line in self.lines(), f"{line} is heard: {self.lines()}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Heard]:
    heard = Heard(tmp_path / "notify")
    yield heard
    heard.close()


def start(cluster: Cluster, heard: Heard) -> Daemon:
    told = {"NOTIFY_SOCKET": str(heard.path), "WATCHDOG_USEC": str(WATCHDOG_USEC)}
    return cluster.start("gary", environment=told)


def test_it_says_when_it_is_bound_and_where_then_how_it_is_and_that_it_lives(
    cluster: Cluster, heard: Heard
) -> None:
    gary = start(cluster, heard)
    heard.until("READY=1")
    assert heard.lines()[:2] == [
        "READY=1",
        f"STATUS=listening on TCP ports {gary.port} and {gary.port + 1}",
    ]
    gary.read("track", "ABC123", 1)
    heard.until(
        "STATUS=ready; members: 1 alive; gates here: 1, 2, 3, 4 of 4; 1 of 100 spaces taken"
    )
    until(lambda: heard.lines().count("WATCHDOG=1") > 3, "signs of life go on")


def test_a_daemon_that_stands_still_gives_no_sign_of_life(cluster: Cluster, heard: Heard) -> None:
    gary = start(cluster, heard)
    heard.until("WATCHDOG=1")
    gary.process.send_signal(signal.SIGSTOP)
    state = Path(f"/proc/{gary.process.pid}/stat")
    until(lambda: state.read_text().rsplit(")")[-1].split()[0] == "T", "gary stands still")
    before = len(heard.lines())
    with pytest.raises(AssertionError, match="not within"):
        until(lambda: len(heard.lines()) > before, "a sign", timeout_s=3 * WATCHDOG_USEC / 1e6)
    gary.process.send_signal(signal.SIGCONT)
    until(lambda: len(heard.lines()) > before, "gary goes on")


@pytest.mark.parametrize("way", ["TERM", "leave"])
def test_it_says_that_it_leaves_and_nothing_of_how_it_is_after_that(
    way: str, cluster: Cluster, heard: Heard
) -> None:
    gary = start(cluster, heard)
    if way == "leave":
        assert gary.ctl("leave").status == 0
    else:
        gary.process.send_signal(signal.SIGTERM)
    assert gary.wait(PATIENCE_S) == 0
    after = heard.lines()[heard.lines().index("STOPPING=1") :]
    assert [line for line in after if line != "WATCHDOG=1"] == ["STOPPING=1", "STATUS=leaving"]
