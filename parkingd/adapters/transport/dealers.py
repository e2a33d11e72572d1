"""Links to peers' ROUTERs, made when there is something to send.

A link is one DEALER socket and one TCP connection. When the connection fails or breaks the link
is closed and reported, and the next message makes a new one: there is no retry to bound, and
nothing that was meant for one process can reach another that listens there later. Answers that
have come but not been read when the connection ends are lost with it.

The first frames wait for the handshake, `WAITING_FRAMES_MAX` of them for `WAITING_S` at most.
At most `IDLE_LINKS_MAX` links are kept that nobody uses, the longest unused go first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

import zmq

from parkingd.adapters.transport.counters import Counters
from parkingd.adapters.transport.curve import KeyPair
from parkingd.adapters.transport.drain import Drain
from parkingd.adapters.transport.monitor import CONNECTION_EVENTS, Connection, LinkEvent, Monitor
from parkingd.adapters.transport.sockets import (
    Context,
    Socket,
    endpoint_of,
    integer_option,
    new_dealer,
)
from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address

IDLE_LINKS_MAX: Final = 64
"""Four descriptors each. A round with one random member every 2 s finds most links open."""

IDLE_S: Final = 5.0
"""Unused for this long a link is idle: longer than any request waits for its answer."""

LINKS_MAX: Final = CANDIDATES_MAX
"""Busy or not. Discovery may invent addresses; each costs a link for at most 3 s."""

WAITING_FRAMES_MAX: Final = 4
WAITING_S: Final = 1.0
"""A frame that waited longer would be stale: the node has asked somebody else by then."""


class Dealers:
    """All links, by canonical address, the least recently used first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        keys: KeyPair,
        counters: Counters,
        refuse: Callable[[str, str], None],
        on_frame: Callable[[Address, bytes], None],
        on_event: Callable[[Address, LinkEvent], None],
    ) -> None:
        self._loop = loop
        self._context = context
        self._keys = keys
        self._counters = counters
        self._refuse = refuse
        self._on_frame = on_frame
        self._on_event = on_event
        self._links: OrderedDict[Address, _Link] = OrderedDict()

    def send(self, address: Address, frame: bytes) -> bool:
        """Send, or keep until the link is up; False when the frame is lost already."""
        link = self._links.get(address)
        if link is None:
            if not self._make_room():
                self._counters.dropped["links"] += 1
                return False
            link = self._links[address] = self._open(address)
        else:
            self._links.move_to_end(address)
        return link.send(frame)

    def disconnect(self, address: Address) -> None:
        """Close the link to this address, if there is one; nothing is reported."""
        link = self._links.pop(address, None)
        if link is not None:
            link.close(linger_ms=0)

    def close(self, linger_ms: int) -> None:
        """Close all links, giving what was sent this long to leave."""
        while self._links:
            self._links.popitem()[1].close(linger_ms)

    def __len__(self) -> int:
        return len(self._links)

    def _open(self, address: Address) -> _Link:
        def hear(frame: bytes) -> None:
            self._on_frame(address, frame)

        def step(event: LinkEvent) -> None:
            if event is not LinkEvent.UP:
                self.disconnect(address)
            self._on_event(address, event)

        def refuse(reason: str) -> None:
            self._refuse(reason, str(address))

        socket = new_dealer(self._context, self._keys)
        return _Link(self._loop, self._context, socket, address, self._counters, refuse, hear, step)

    def _make_room(self) -> bool:
        if len(self._links) < IDLE_LINKS_MAX:
            return True
        address, oldest = next(iter(self._links.items()))
        if self._loop.time() - oldest.used > IDLE_S:
            self.disconnect(address)
        return len(self._links) < LINKS_MAX


class _Link:
    """One DEALER, one connection."""

    __slots__ = (
        "_connection",
        "_counters",
        "_drain",
        "_hear",
        "_loop",
        "_monitor",
        "_refuse",
        "_step",
        "_waiting",
        "used",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        socket: Socket,
        address: Address,
        counters: Counters,
        refuse: Callable[[str], None],
        hear: Callable[[bytes], None],
        step: Callable[[LinkEvent], None],
    ) -> None:
        self.used = loop.time()
        self._loop = loop
        self._counters = counters
        self._refuse = refuse
        self._hear = hear
        self._step = step
        self._connection = Connection()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._monitor = Monitor(loop, context, socket, CONNECTION_EVENTS, self._event)
        self._drain = Drain(loop, socket, 1, self._take)
        socket.connect(endpoint_of(address))

    def send(self, frame: bytes) -> bool:
        self.used = self._loop.time()
        if self._connection.up:
            return self._send_now(frame)
        if len(self._waiting) >= WAITING_FRAMES_MAX:
            self._counters.dropped["waiting"] += 1
            return False
        self._waiting.append((self.used + WAITING_S, frame))
        return True

    def close(self, linger_ms: int) -> None:
        if self._waiting:
            self._counters.dropped["gone"] += len(self._waiting)
            self._waiting.clear()
        self._monitor.close()
        self._drain.close(linger_ms)

    def _send_now(self, frame: bytes) -> bool:
        socket = self._drain.socket
        try:
            socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            # libzmq looks at what its threads report only now and then, and right after the
            # handshake it may not know of the connection yet. Asking for EVENTS makes it look.
            if not integer_option(socket, zmq.EVENTS) & zmq.POLLOUT:
                self._counters.dropped["full"] += 1
                self._drain.sent()
                return False
            socket.send(frame, zmq.NOBLOCK)
        self._counters.told(len(frame))
        self._drain.sent()
        return True

    def _event(self, code: int, value: int, _: Address | None) -> None:
        event = self._connection.event(code, value)
        if event is LinkEvent.UP:
            now = self._loop.time()
            while self._waiting:
                until, frame = self._waiting.popleft()
                if until < now:
                    self._counters.dropped["expired"] += 1
                else:
                    self._send_now(frame)
        if event is not None:
            self._step(event)

    def _take(self, frames: list[zmq.Frame]) -> None:
        if len(frames) > 1:
            self._refuse("multipart")
            return
        self.used = self._loop.time()
        frame = frames[0].bytes
        self._counters.heard(len(frame))
        self._hear(frame)
