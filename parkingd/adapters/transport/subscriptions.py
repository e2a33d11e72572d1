"""One SUB socket that hears every peer.

A subscription lives until it is given up: libzmq reconnects it after 100 ms to 1 s. Two cases are
taken out of its hands, because it would fall silent for ever in one and knock ten times a second
in the other: when a handshake fails, whatever listens there now, the endpoint is let go and tried
again every `RETRY_S`.

The PUB port is the one after the ROUTER's, so events are reported under the ROUTER's address.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final

import zmq

from parkingd.adapters.transport.counters import Counters
from parkingd.adapters.transport.curve import KeyPair
from parkingd.adapters.transport.drain import Drain
from parkingd.adapters.transport.monitor import CONNECTION_EVENTS, Connection, LinkEvent, Monitor
from parkingd.adapters.transport.sockets import Context, canonical_host, endpoint_of, new_sub
from parkingd.protocol.messages import Address

RETRY_S: Final = 1.0
"""A peer restarted with our cookie is heard again after this long."""


class Subscriptions:
    """Endpoints that are heard, by canonical address of the PUB."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        keys: KeyPair,
        counters: Counters,
        refuse: Callable[[str, str | None], None],
        on_frame: Callable[[bytes], None],
        on_lost: Callable[[Address], None],
    ) -> None:
        """``on_lost`` gets the PUB address of a peer that was heard and has hung up."""
        self._loop = loop
        self._counters = counters
        self._refuse = refuse
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._connections: dict[Address, Connection] = {}
        self._retries: dict[Address, asyncio.TimerHandle] = {}
        socket = new_sub(context, keys)
        self._monitor = Monitor(loop, context, socket, CONNECTION_EVENTS, self._event)
        self._drain = Drain(loop, socket, 1, self._take)

    def add(self, address: Address) -> None:
        """Hear this PUB from now on; repeating it does nothing."""
        if address not in self._connections:
            self._connections[address] = Connection()
            self._connect(address)

    def discard(self, address: Address) -> None:
        """Hear it no longer; a PUB that is not heard is fine."""
        if self._connections.pop(address, None) is None:
            return
        retry = self._retries.pop(address, None)
        if retry is None:
            self._let_go(address)
        else:
            retry.cancel()

    def close(self) -> None:
        """Hear nobody."""
        for retry in self._retries.values():
            retry.cancel()
        self._retries.clear()
        self._connections.clear()
        self._monitor.close()
        self._drain.close()

    def __len__(self) -> int:
        return len(self._connections)

    def _connect(self, address: Address) -> None:
        self._drain.socket.connect(endpoint_of(address))
        self._drain.sent()

    def _let_go(self, address: Address) -> None:
        try:
            self._drain.socket.disconnect(endpoint_of(address))
        except zmq.ZMQError as error:
            # After a handshake that broke the protocol libzmq has let go of it by itself.
            if error.errno != errno.ENOENT:
                raise
        self._drain.sent()

    def _retry(self, address: Address) -> None:
        del self._retries[address]
        self._connections[address] = Connection()
        self._connect(address)

    def _event(self, code: int, value: int, address: Address | None) -> None:
        if address is None or address in self._retries:
            return
        connection = self._connections.get(address)
        if connection is None:
            return
        match connection.event(code, value):
            case None | LinkEvent.UP | LinkEvent.UNREACHED:
                pass
            case LinkEvent.DOWN:
                self._on_lost(address)
            case LinkEvent.SILENT | LinkEvent.HUNG_UP | LinkEvent.STRANGE | LinkEvent.UNAUTHORISED:
                self._let_go(address)
                self._retries[address] = self._loop.call_later(RETRY_S, self._retry, address)

    def _take(self, frames: list[zmq.Frame]) -> None:
        if len(frames) > 1:
            self._refuse("multipart", canonical_host(str(frames[-1].get("Peer-Address"))))
            return
        frame = frames[0].bytes
        self._counters.heard(len(frame))
        self._on_frame(frame)
