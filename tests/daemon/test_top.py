"""The dashboard as a person meets it: a real daemon, a real terminal, a shell with job control."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.harness import PATIENCE_S, Answer, Cluster, Daemon
from tests.emulator import Emulator

SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    from parkingd.cli.ctl import main
    sys.exit(main())
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    print("stopped", flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
"""
"""A shell of one job: it gives it the terminal, takes it back, and `fg` is any line."""

ALTERNATE_SCREEN = 1049
SYNCHRONIZED_UPDATE = 2026
"""Until it is off, what has come is part of a frame."""
AT_REST = {7, 25}
"""Lines wrap and there is a cursor, no alternate screen, no half of an update."""


Trio = tuple[Daemon, ...]


class Window:
    """A terminal window in which the dashboard runs."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.leader, follower = pty.openpty()
        self.screen = Emulator(80, 24)
        self._set_size(80, 24)
        self.settings = termios.tcgetattr(self.leader)
        self.shell = subprocess.Popen(
            [sys.executable, "-c", SHELL, *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            start_new_session=True,
        )
        os.close(follower)

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(width, height)
        self._set_size(width, height)

    def type(self, keys: bytes) -> None:
        os.write(self.leader, keys)

    def read(self, wait_s: float = 0.05) -> bool:
        """What has come; False when there is nobody any more."""
        readable, _, _ = select.select([self.leader], [], [], wait_s)
        if not readable:
            return True
        try:
            data = os.read(self.leader, 65_536)
        except OSError:
            return False
        self.screen.feed(data)
        return bool(data)

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline_s, f"{what}:\n{self.screen.text}"
            assert self.read() or holds(), f"it ended before: {what}:\n{self.screen.text}"

    def until_shown(self, *words: str) -> None:
        def holds() -> bool:
            is_whole = SYNCHRONIZED_UPDATE not in self.screen.modes
            return is_whole and all(word in self.screen.text for word in words)

        self.until(holds, f"{words} are shown")

    def end(self) -> int:
        """Wait for the exit status, reading what is still written."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.shell.poll() is None:
            assert time.monotonic() < deadline_s, f"it does not end:\n{self.screen.text}"
            self.read()
        while self.read(0) and select.select([self.leader], [], [], 0)[0]:
            pass
        return self.shell.returncode

    def leave(self) -> None:
        """By its own key: it ends well, and the terminal is as it was."""
        self.type(b"q")
        assert self.end() == 0
        assert self.is_at_rest()

    def is_at_rest(self) -> bool:
        """The terminal is as it was given."""
        return self.screen.modes == AT_REST and termios.tcgetattr(self.leader) == self.settings

    def close(self) -> None:
        if self.shell.poll() is None:
            os.close(self.leader)  # The terminal is gone: whoever is left hangs up.
            self.leader = -1
            self.shell.kill()
            self.shell.wait()
        if self.leader >= 0:
            os.close(self.leader)


@contextmanager
def dashboard(
    cluster: Cluster, daemon: Daemon, *flags: str, **environment: str
) -> Iterator[Window]:
    arguments = ["top", "--control", f"ipc://{daemon.control}", *flags]
    settings = {"TERM": "xterm-256color", "PYTHONPATH": os.getcwd(), "LANG": "C.UTF-8"}
    window = Window(arguments, cluster.environment(**settings | environment))
    try:
        yield window
    finally:
        window.close()


def test_the_first_frame_names_node_and_gates_and_q_gives_the_terminal_back(
    shared_cluster: Cluster,
    trio: Trio,
) -> None:
    trio[0].wait_for("gates=4")
    with dashboard(shared_cluster, trio[0]) as window:
        window.until_shown("gary", "4 served", "inside", "all 3 equal")
        assert window.screen.modes == {ALTERNATE_SCREEN}
        assert not window.is_at_rest()
        window.leave()


def test_a_car_shows_and_the_picture_follows_the_window(cluster: Cluster) -> None:
    gary = cluster.start("gary")
    with dashboard(cluster, gary, "--interval", "0.2") as window:
        window.until_shown("0/100")
        gary.read("track", "ABC123", 1)
        window.until_shown("1/100", "in 1/min")
        window.resize(120, 36)
        window.until_shown("q quit", "1/100", "entered", "gate_claimed")
        assert len(window.screen.lines[-1]) <= 120
        window.until(lambda: window.screen.lines[-1].startswith("q quit"), "the last line is used")
        window.resize(40, 10)
        window.until_shown("40x10 is too small")
        window.resize(80, 24)
        window.until_shown("1/100", "q quit")
        window.type(b"?")
        window.until_shown("mask plates")
        window.leave()


def test_a_killed_daemon_leaves_its_last_frame_and_a_new_one_is_found(cluster: Cluster) -> None:
    gary = cluster.start("gary")
    gary.wait_for("gates=4")
    gary.read("track", "ABC123", 1)
    with dashboard(cluster, gary) as window:
        window.until_shown("1/100", "4 served")
        gary.end(signal.SIGKILL)
        window.until_shown("DISCONNECTED", "no daemon since", "1/100", "4 served")
        cluster.start("gary")
        window.until(lambda: "DISCONNECTED" not in window.screen.text, "it is found again")
        window.until_shown("1/100", "4 served")
        window.leave()


def test_a_frozen_daemon_is_stale_and_not_gone_and_keys_still_work(cluster: Cluster) -> None:
    gary = cluster.start("gary")
    with dashboard(cluster, gary, "--interval", "0.2") as window:
        window.until_shown("gary", "inside")
        gary.process.send_signal(signal.SIGSTOP)
        try:
            window.until_shown("STALE", "gary lives, but has not answered")
            window.type(b"?")
            window.until_shown("mask plates")
            window.type(b"?")
            window.until_shown("q quit", "STALE")
            assert "DISCONNECTED" not in window.screen.text
        finally:
            gary.process.send_signal(signal.SIGCONT)
        window.until(lambda: "STALE" not in window.screen.text, "it answers again")
        window.leave()


def test_control_c_is_130_and_gives_the_terminal_back(shared_cluster: Cluster, trio: Trio) -> None:
    with dashboard(shared_cluster, trio[0]) as window:
        window.until_shown("gary", "inside")
        window.type(b"\x03")
        assert window.end() == 130
        assert window.is_at_rest()
        assert "Traceback" not in window.screen.text


def test_suspended_it_gives_the_terminal_back_and_fg_draws_it_again(
    shared_cluster: Cluster, trio: Trio
) -> None:
    with dashboard(shared_cluster, trio[0]) as window:
        window.until_shown("gary", "inside")
        window.type(b"\x1a")
        window.until_shown("stopped")
        assert window.is_at_rest()
        window.resize(100, 30)
        window.type(b"fg\n")
        window.until_shown("gary", "inside", "q quit")
        assert window.screen.modes == {ALTERNATE_SCREEN}
        window.leave()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_it_finds_the_terminal_in_order(
    shared_cluster: Cluster, trio: Trio, number: signal.Signals
) -> None:
    with dashboard(shared_cluster, trio[0]) as window:
        window.until_shown("gary", "inside")
        os.killpg(os.tcgetpgrp(window.leader), number)
        assert window.end() == 256 - number
        assert window.is_at_rest()


def test_a_terminal_that_takes_nothing_for_a_while_gets_the_newest_frame_only(
    cluster: Cluster,
) -> None:
    """As behind a line that hangs: nobody reads, cars come and go, then somebody reads again."""
    gary = cluster.start("gary")
    with dashboard(cluster, gary, "--interval", "0.1") as window:
        window.until_shown("0/100")
        client = gary.client()
        try:
            for number in range(300):
                client.call("track", {"plate": f"CAR{number}", "gate": 1})
                window.resize(80 + number % 2, 24)
        finally:
            client.close()
        window.resize(80, 24)
        window.until_shown("300/100", "OVERBOOKED by 200")
        window.leave()


def test_one_can_leave_a_terminal_that_takes_nothing(shared_cluster: Cluster, trio: Trio) -> None:
    with dashboard(shared_cluster, trio[0], "--interval", "0.1") as window:
        window.until_shown("gary", "inside")
        for number in range(200):  # Each is a frame of 4 KB that nobody reads.
            window.resize(80 + number % 2, 24)
            time.sleep(0.005)
        window.type(b"q")
        assert window.shell.wait(PATIENCE_S) == 0
        assert termios.tcgetattr(window.leader) == window.settings


def test_without_colours_or_with_an_ascii_locale_it_still_says_everything(
    shared_cluster: Cluster,
    trio: Trio,
) -> None:
    trio[0].wait_for("gates=4")
    with dashboard(shared_cluster, trio[0], NO_COLOR="1", LC_ALL="C") as window:
        window.until_shown("gary", "4 served", "inside")
        assert window.screen.text.isascii()
        assert window.screen.coloured_text == []
        window.leave()


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_without_a_cursor_is_told_what_to_do(
    shared_cluster: Cluster, trio: Trio, term: str
) -> None:
    with dashboard(shared_cluster, trio[0], TERM=term) as window:
        assert window.end() == 2
        assert "top --once" in window.screen.text.replace("\n", "")
        assert window.is_at_rest()


# --- without a terminal --------------------------------------------------------------------------


def ctl(cluster: Cluster, daemon: Daemon, *words: str, **environment: str) -> Answer:
    return cluster.ctl_process(*words, "--control", f"ipc://{daemon.control}", **environment)


def test_what_is_no_terminal_is_sent_to_once(shared_cluster: Cluster, trio: Trio) -> None:
    answer = ctl(shared_cluster, trio[0], "top")
    assert (answer.status, answer.out) == (2, "")
    assert "top needs a terminal" in answer.err
    assert "top --once" in answer.err


def test_once_prints_one_plain_frame_and_leaves(shared_cluster: Cluster, trio: Trio) -> None:
    trio[0].wait_for("gates=4")
    answer = ctl(shared_cluster, trio[0], "top", "--once", COLUMNS="120")
    assert (answer.status, answer.err) == (0, "")
    assert "\x1b" not in answer.out
    for words in ("gary", "/100 inside", "4 served", "all 3 equal"):
        assert words in answer.out, answer.out
    assert max(map(len, answer.out.splitlines())) <= 120


def test_a_picture_is_written_of_a_real_daemon_too(
    shared_cluster: Cluster, trio: Trio, tmp_path: Path
) -> None:
    picture = tmp_path / "top.svg"
    assert ctl(shared_cluster, trio[0], "top", "--svg", str(picture)).status == 0
    assert ">gary<" in picture.read_text()


def test_without_a_daemon_it_says_so_at_once(cluster: Cluster) -> None:
    answer = cluster.ctl_process("top", "--once", "--name", "nobody")
    assert (answer.status, answer.out) == (3, "")
    assert "no daemon named nobody" in answer.err
