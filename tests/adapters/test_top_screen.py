"""The terminal is given back, whatever happens while the dashboard has it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import termios
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from parkingd.cli.top.layout import Size
from parkingd.cli.top.screen import LEAVE_SCREEN, Happened, Screen

PATIENCE_S = 10.0


class Terminal(NamedTuple):
    leader: int
    fd: int

    def written(self) -> bytes:
        os.set_blocking(self.leader, False)
        data = b""
        try:
            while piece := os.read(self.leader, 65_536):
                data += piece
        except BlockingIOError:
            pass
        return data


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    leader, follower = pty.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    yield Terminal(leader, follower)
    os.close(leader)
    os.close(follower)


def happened(screen: Screen) -> Happened:
    """The next thing that is something."""
    for _ in range(100):
        found = screen.wait(PATIENCE_S / 100)
        if found != Happened():
            return found
    raise AssertionError("nothing happened")


def draw_and_fail(terminal: Terminal, before: list[object]) -> None:
    with Screen(terminal.fd, terminal.fd) as screen:
        screen.draw(b"half a frame")
        assert termios.tcgetattr(terminal.fd) != before
        raise ValueError("a bug")


def test_a_bug_while_it_is_drawn_on_gives_the_terminal_back(terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.fd)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTSTP)]
    with pytest.raises(ValueError, match="a bug"):
        draw_and_fail(terminal, before)
    assert termios.tcgetattr(terminal.fd) == before
    assert terminal.written().endswith(LEAVE_SCREEN)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTSTP)] == handlers


def test_keys_are_named_and_an_escape_alone_is_one(terminal: Terminal) -> None:
    with Screen(terminal.fd, terminal.fd) as screen:
        os.write(terminal.leader, b"j\x1b[A")
        assert happened(screen).keys == ("j", "up")
        os.write(terminal.leader, b"\x1b")
        assert happened(screen).keys == ("escape",)


def test_another_thread_can_wake_it(terminal: Terminal) -> None:
    with Screen(terminal.fd, terminal.fd) as screen:
        waker = threading.Timer(0.05, screen.wake)
        waker.start()
        assert screen.wait(PATIENCE_S) == Happened()
        waker.join()
        for _ in range(100_000):  # More than a pipe holds.
            screen.wake()
        assert screen.wait(PATIENCE_S) == Happened()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_it_is_reported_and_not_raised(
    terminal: Terminal, number: signal.Signals
) -> None:
    with Screen(terminal.fd, terminal.fd) as screen:
        os.kill(os.getpid(), number)
        assert happened(screen).ended_by is number


def test_another_size_is_drawn_anew(terminal: Terminal) -> None:
    with Screen(terminal.fd, terminal.fd) as screen:
        assert screen.size() == Size(80, 24)
        fcntl.ioctl(terminal.leader, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
        os.kill(os.getpid(), signal.SIGWINCH)
        assert happened(screen).redraw
        assert screen.size() == Size(90, 30)


def test_after_a_stop_the_terminal_is_taken_again(terminal: Terminal) -> None:
    """As after `kill -STOP` and `fg`: the shell has changed the terminal meanwhile."""
    with Screen(terminal.fd, terminal.fd) as screen:
        raw = termios.tcgetattr(terminal.fd)
        changed = termios.tcgetattr(terminal.fd)
        changed[3] |= termios.ECHO | termios.ICANON
        termios.tcsetattr(terminal.fd, termios.TCSANOW, changed)
        terminal.written()
        os.kill(os.getpid(), signal.SIGCONT)
        assert happened(screen).redraw
        assert termios.tcgetattr(terminal.fd) == raw
        assert b"\x1b[?1049h" in terminal.written()


def test_what_a_terminal_does_not_take_waits_and_keys_do_not(terminal: Terminal) -> None:
    with Screen(terminal.fd, terminal.fd) as screen:
        terminal.written()
        frame = bytes(range(0x61, 0x7B)) * 20_000
        screen.draw(frame)
        assert not screen.is_idle
        os.write(terminal.leader, b"j")
        assert happened(screen).keys == ("j",)
        taken = b""
        while not screen.is_idle:
            taken += terminal.written()
            screen.wait(0.01)
        assert taken + terminal.written() == frame


def test_a_terminal_that_is_gone_ends_it() -> None:
    leader, follower = pty.openpty()
    try:
        with Screen(follower, follower) as screen:
            os.close(leader)
            screen.draw(b"for nobody")
            assert screen.is_idle
            assert screen.wait(PATIENCE_S).ended_by is signal.SIGHUP
    finally:
        os.close(follower)
