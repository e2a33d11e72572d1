"""What a service manager is told: the daemon is ready, how it is, that it lives, that it leaves.

How it works. systemd names a datagram socket in ``NOTIFY_SOCKET`` and takes lines ``KEY=value``
from it. Each call here is one datagram. With ``WATCHDOG_USEC`` it also wants to hear, within that
time, that the daemon lives; that is said at half of it, and only from the daemon's own loop: a
loop that hangs is restarted. What cannot be said now is said at the next tick, and is worth one
warning, as the service manager will end a daemon it does not hear.

Without ``NOTIFY_SOCKET`` nobody is told anything.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

from parkingd.protocol.members import MemberState
from parkingd.protocol.outcomes import Status

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE: Final = "WATCHDOG_PID"

STATUS_EVERY_MS: Final = 2_000
"""How often the status line is looked at; it is sent when it has changed."""

_log = logging.getLogger("parkingd")


class ServiceManager:
    """Whoever started the daemon and wants to be kept informed; or nobody."""

    def __init__(self, address: str | None, watchdog_ms: int | None) -> None:
        """``address``: of its socket, None for nobody. ``watchdog_ms``: how long it waits for a
        sign of life, None for ever."""
        self._address = address
        self._beat_every_ms = None if watchdog_ms is None else max(1, watchdog_ms // 2)
        self._next_beat_ms = 0
        self._next_status_ms = 0
        self._status = ""
        self._is_stopping = False
        self._has_complained = False
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ServiceManager:
        """As the variables say; what makes no sense is named in the log and left out."""
        named = environ.get(SOCKET_VARIABLE, "")
        if not named:
            return cls(None, None)
        if not named.startswith(("/", "@")) or len(named) == 1:
            _complain(f"{SOCKET_VARIABLE}={named} is no socket of this machine")
            return cls(None, None)
        # An abstract socket's name begins with a zero byte, which no variable can hold.
        address = "\0" + named[1:] if named.startswith("@") else named
        return cls(address, _watchdog_ms(environ))

    def ready(self, status: str) -> None:
        """Started: requests are taken."""
        self._status = status
        self._send(f"READY=1\nSTATUS={status}")

    def tick(self, now_ms: int) -> bool:
        """From the loop, at least every few hundred milliseconds: the sign of life, when it is due.

        Whether it is time for a new `status`. ``now_ms``: monotonic.
        """
        if self._socket is None:
            return False
        if (
            self._beat_every_ms is not None
            and now_ms >= self._next_beat_ms
            and self._send("WATCHDOG=1")
        ):
            self._next_beat_ms = now_ms + self._beat_every_ms
        if self._is_stopping or now_ms < self._next_status_ms:
            return False
        self._next_status_ms = now_ms + STATUS_EVERY_MS
        return True

    def status(self, line: str) -> None:
        """How the daemon is, on one line."""
        if line != self._status and not self._is_stopping and self._send(f"STATUS={line}"):
            self._status = line

    def stopping(self) -> None:
        """It has begun to leave. Calling it again does nothing."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1\nSTATUS=leaving")

    def close(self) -> None:
        """Nothing more will be said."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, lines: str) -> bool:
        if self._socket is None or self._address is None:
            return False
        try:
            self._socket.sendto(lines.encode(), self._address)
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                _complain(f"cannot tell the service manager: {error.strerror}")
            return False
        return True


def status_line(status: Status) -> str:
    """What `systemctl status` shows of it."""
    counts = dict(status.members)
    alive = counts[MemberState.ALIVE.value]
    away = counts[MemberState.SUSPECT.value] + counts[MemberState.DEAD.value]
    parts = [
        "ready" if status.ready else "not ready",
        f"members: {alive} alive" + (f", {away} not" if away else ""),
        f"gates here: {', '.join(map(str, status.gates_owned)) or 'none'} of {status.gates_total}",
    ]
    if status.lot is not None:
        parts.append(f"{status.lot.inside} of {status.lot.spaces} spaces taken")
    if status.warnings:
        parts.append(f"warnings: {len(status.warnings)}")
    return "; ".join(parts)


def _watchdog_ms(environ: Mapping[str, str]) -> int | None:
    """Milliseconds between two signs of life at most; None when nobody waits for ours."""
    text = environ.get(WATCHDOG_VARIABLE, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        _complain(f"{WATCHDOG_VARIABLE}={text} is not a number of microseconds")
        return None
    pid = environ.get(WATCHDOG_PID_VARIABLE, "")
    if pid and pid != str(os.getpid()):
        return None  # Another process of the service is watched.
    return max(1, int(text) // 1000)


def _complain(what: str) -> None:
    _log.warning("service_manager", extra={"values": {"warning": what}})
