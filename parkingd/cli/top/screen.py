"""The terminal while the dashboard has it, and what it gets back afterwards.

`Screen` is a context: raw keys, the alternate screen, no cursor, no wrapping; and, however it
ends, all of that undone. Signals only wake `wait`, so that nothing is ever torn in the middle:
resizing, suspending, coming back and leaving are handled between two frames.

A frame is one write, if the terminal takes it at once; what it does not take waits until it takes
more. So on a slow line keys are still read while a frame is on its way, and frames that nobody
could have seen are never made. The terminal is opened anew for that, because "do not block" would
else hold for everybody who has it open, the shell included.
"""

from __future__ import annotations

import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple

from parkingd.cli.top.keys import ESCAPE_WAIT_S, Decoder, RawTerminal
from parkingd.cli.top.layout import Size
from parkingd.cli.top.paint import END_UPDATE

ENTER_SCREEN: Final = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J"
LEAVE_SCREEN: Final = END_UPDATE + b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
"""Also ends an update that was cut off in the middle."""

LEAVE_WAIT_S: Final = 1.0
"""A line that takes nothing for so long does not get the rest of a frame before we leave."""

READ_BYTES: Final = 1_024
KEY_READS_MAX: Final = 16
"""Pasted text is read in turns, so that it cannot keep the picture from moving."""

_HANDLED: Final = (
    signal.SIGWINCH,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Happened(NamedTuple):
    """Why `Screen.wait` came back."""

    keys: tuple[str, ...] = ()
    redraw: bool = False
    """The window has another size, or something else was written on it."""
    ended_by: signal.Signals | None = None
    """Leave: interrupted, told to, or the terminal is gone."""


class Screen:
    """One terminal, from ``with`` to its end. Signals only reach the main thread: use it there."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = _opened_anew(write_fd)
        self._raw = RawTerminal(read_fd)
        self._decoder = Decoder()
        self._pending = b""
        self._is_gone = False
        """Nobody is at the other end of the terminal any more."""
        self._signals: list[signal.Signals] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._signal_fd_before = -1

    def __enter__(self) -> Screen:
        for number in _HANDLED:
            self._handlers[number] = signal.signal(number, self._note)
        self._signal_fd_before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            self._take()
        except BaseException:
            self._give_back_signals()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._give_back()
        finally:
            self._give_back_signals()

    def wake(self) -> None:
        """Let `wait` come back; from any thread."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # It is full of wake-ups already.

    def size(self) -> Size:
        """Of the window; 80x24 for a terminal that does not know, such as a serial line."""
        try:
            columns, lines = os.get_terminal_size(self._write_fd)
        except OSError:
            self._is_gone = True
            columns = lines = 0
        return Size(columns or 80, lines or 24)

    @property
    def is_idle(self) -> bool:
        """Everything that was drawn has been written: time for the next frame."""
        return not self._pending

    def draw(self, data: bytes) -> None:
        """Begin to write this."""
        self._pending += data
        self._write_some(0.0)

    def wait(self, timeout_s: float) -> Happened:
        """Until a key, a signal, `wake`, room for more of a frame, or this long."""
        if self._decoder.is_waiting:
            timeout_s = min(timeout_s, ESCAPE_WAIT_S)
        readers = [self._read_fd, self._wake_read]
        writers = [self._write_fd] if self._pending else []
        readable, writable, _ = select.select(readers, writers, [], max(0.0, timeout_s))
        if self._wake_read in readable:
            os.read(self._wake_read, READ_BYTES)
        if writable:
            self._write_some(0.0)
        keys: list[str] = []
        if self._read_fd in readable:
            keys = self._decoder.feed(self._read())
        elif self._decoder.is_waiting:
            keys = self._decoder.flush()
        if self._is_gone:
            return Happened(ended_by=signal.SIGHUP)
        return self._with_signals(tuple(keys))

    def _with_signals(self, keys: tuple[str, ...]) -> Happened:
        redraw = "redraw" in keys
        while self._signals:
            number = self._signals.pop(0)
            if number in _ENDING:
                return Happened(ended_by=number)
            if number is signal.SIGTSTP:
                self._suspend()
            elif number is signal.SIGCONT:
                self._give_back()
                self._take()
            redraw = True
        return Happened(keys, redraw)

    def _suspend(self) -> None:
        """Stop as the shell wants it, and go on when it says so."""
        self._give_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._signals = [number for number in self._signals if number is not signal.SIGCONT]
        self._take()

    def _take(self) -> None:
        self._raw.enter()
        self._pending = b""
        self._write_all(ENTER_SCREEN)

    def _give_back(self) -> None:
        self._pending = b""
        self._write_all(LEAVE_SCREEN)
        self._is_gone = not self._raw.leave() or self._is_gone

    def _give_back_signals(self) -> None:
        signal.set_wakeup_fd(self._signal_fd_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for fd in (self._wake_read, self._wake_write, self._write_fd):
            os.close(fd)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))

    def _read(self) -> bytes:
        try:
            data = os.read(self._read_fd, READ_BYTES)
        except OSError:
            data = b""
        self._is_gone = self._is_gone or not data
        return data

    def _write_all(self, data: bytes) -> None:
        self._pending += data
        until_s = time.monotonic() + LEAVE_WAIT_S
        while self._pending and time.monotonic() < until_s:
            self._write_some(until_s - time.monotonic())

    def _write_some(self, wait_s: float) -> None:
        _, writable, _ = select.select([], [self._write_fd], [], max(0.0, wait_s))
        if writable and self._pending:
            try:
                written = os.write(self._write_fd, self._pending)
            except BlockingIOError:
                return  # There is less room than the kernel thought.
            except OSError:
                self._is_gone, written = True, len(self._pending)
            self._pending = self._pending[written:]


def _opened_anew(fd: int) -> int:
    """A descriptor of the same terminal that does not block; a copy if it may not be opened."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return os.dup(fd)  # As after su: the terminal belongs to another user.


def die_of(number: signal.Signals) -> None:
    """End as if the signal had not been caught, so that whoever sent it sees that it worked."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
