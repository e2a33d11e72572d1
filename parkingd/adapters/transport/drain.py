"""Reads one plain ZeroMQ socket from an asyncio loop until there is nothing left.

The descriptor of a ZeroMQ socket is edge-triggered: it tells once that *something* happened, and
any call on the socket may take that news away. Two rules follow. Read until EAGAIN, or ask to be
called again; and look at EVENTS after every send. A socket that breaks one falls silent
for ever (DESIGN section 9). `zmq.asyncio` does the same at two and a half times the cost.

One turn takes at most `MESSAGES_PER_TURN` messages or `TURN_S`, so that a flood on one socket
leaves the others, and the clock, their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

from parkingd.adapters.transport.sockets import Socket, integer_option

MESSAGES_PER_TURN: Final = 256
TURN_S: Final = 0.005


class Drain:
    """Owns a socket: reads it, and is the way to close it.

    ``take`` gets the frames of one message: at most ``frames_max``, or ``frames_max + 1`` when
    there were more (the rest is thrown away unread). What ``take`` raises is a bug and goes
    to the loop's exception handler.
    """

    __slots__ = (
        "_draining",
        "_fd",
        "_frames_max",
        "_loop",
        "_scheduled",
        "_take",
        "closed",
        "socket",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Socket,
        frames_max: int,
        take: Callable[[list[zmq.Frame]], None],
    ) -> None:
        self.socket = socket
        self.closed = False
        self._loop = loop
        self._frames_max = frames_max
        self._take = take
        self._draining = False
        self._scheduled = False
        self._fd = integer_option(socket, zmq.FD)
        loop.add_reader(self._fd, self._read)
        self.sent()

    def sent(self) -> None:
        """Call after every send, connect or bind on the socket: it may have eaten the edge."""
        if not (self._draining or self._scheduled or self.closed):
            self._scheduled = True
            self._loop.call_soon(self._look)

    def close(self, linger_ms: int = 0) -> None:
        """Close the socket, at once and for good. Closing twice does nothing."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._fd)
            self.socket.close(linger_ms)

    def _read(self) -> None:
        receive, take, frames_max = self.socket.recv, self._take, self._frames_max
        time, until = self._loop.time, self._loop.time() + TURN_S
        self._draining = True
        try:
            for _ in range(MESSAGES_PER_TURN):
                try:
                    frame = receive(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    return
                frames = [frame]
                while frame.more:
                    frame = receive(zmq.NOBLOCK, copy=False)
                    if len(frames) <= frames_max:
                        frames.append(frame)
                take(frames)
                if self.closed:
                    return
                if time() > until:
                    break
        finally:
            self._draining = False
        self.sent()

    def _look(self) -> None:
        self._scheduled = False
        if not self.closed and integer_option(self.socket, zmq.EVENTS) & zmq.POLLIN:
            self._read()
