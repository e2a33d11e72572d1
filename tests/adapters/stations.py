"""Transports that write down what they hear, for the tests of the transport."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from parkingd.adapters.transport.curve import KeyPair, key_pair
from parkingd.adapters.transport.monitor import LinkState
from parkingd.adapters.transport.transport import Transport
from parkingd.protocol.messages import Address, Route

CLUSTER = "default"
KEYS = key_pair(bytes(range(32)))
OTHER_KEYS = key_pair(bytes(range(32, 64)))
DEADLINE_S = 20.0


class Station:
    """One transport on loopback, and everything it was told."""

    def __init__(self, keys: KeyPair = KEYS, *, echo: bool = False) -> None:
        self.messages: list[tuple[Address | Route | None, bytes]] = []
        self.links: list[tuple[Address, LinkState]] = []
        self.refused: list[str] = []
        self.refused_of: list[str | None] = []
        """Of whom each of these came, where that is known."""
        self.on_message: Callable[[Address | Route | None, bytes], None] = self._write_down
        self._echo = echo
        self.transport = Transport(
            asyncio.get_running_loop(),
            keys=keys,
            cluster=CLUSTER,
            on_message=lambda link, frame: self.on_message(link, frame),
            on_link=lambda address, state: self.links.append((address, state)),
            on_refused=self._refuse,
        )
        self.port = self.pub_port = 0

    def bind(self, port: int | None = None, host: str | None = "127.0.0.1") -> Station:
        if port is None:
            port = unused_address().port
        self.port, self.pub_port = self.transport.bind(host, port)
        return self

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.messages]

    def states(self, address: Address) -> list[LinkState]:
        return [state for about, state in self.links if about == address]

    def counted(self, name: str) -> int:
        return self.transport.counters.snapshot().get(name, 0)

    def _refuse(self, reason: str, who: str | None) -> None:
        self.refused.append(reason)
        self.refused_of.append(who)

    def _write_down(self, link: Address | Route | None, frame: bytes) -> None:
        self.messages.append((link, frame))
        if self._echo and isinstance(link, Route):
            assert self.transport.answer(link, b"answer to " + frame)


class Scene:
    """Stations of one test; an exception in any callback fails it."""

    def __init__(self) -> None:
        self.stations: list[Station] = []
        self.exceptions: list[dict[str, Any]] = []

    def station(self, keys: KeyPair = KEYS, *, echo: bool = False) -> Station:
        station = Station(keys, echo=echo)
        self.stations.append(station)
        return station


def play(act: Callable[[Scene], Awaitable[None]]) -> None:
    """Run one test in a loop of its own and close everything it made."""

    async def run() -> None:
        scene = Scene()
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: scene.exceptions.append(context)
        )
        try:
            await act(scene)
        finally:
            for station in scene.stations:
                station.transport.close()
        assert not scene.exceptions

    asyncio.run(run())


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Poll until it holds; fail after `DEADLINE_S`."""
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"never happened: {what}"
        await asyncio.sleep(0.002)


async def subscribed(publisher: Station, *listeners: Station) -> None:
    """Publish until all listeners hear it: a subscription takes a moment to arrive."""
    end = asyncio.get_running_loop().time() + DEADLINE_S
    for listener in listeners:
        listener.transport.subscribe("127.0.0.1", publisher.pub_port)
    while not all(b"are you there" in listener.frames() for listener in listeners):
        assert asyncio.get_running_loop().time() < end, "never subscribed"
        publisher.transport.publish(b"are you there")
        await asyncio.sleep(0.01)


async def served(node: Station, client: Station, text: bytes = b"honest") -> None:
    """A request of the client is answered by a node that echoes."""
    client.transport.send(node.address, text)
    await until(lambda: (node.address, b"answer to " + text) in client.messages, "honest answer")


def unused_address() -> Address:
    """Loopback, a port where nobody listens, nor on the next. Below the range from which the
    kernel takes the ports of outgoing connections, so that it stays unused for a while."""
    while True:
        port = random.randrange(20_000, 32_000)
        try:
            with (
                socket.create_server(("127.0.0.1", port)),
                socket.create_server(("127.0.0.1", port + 1)),
            ):
                return Address("127.0.0.1", port)
        except OSError:
            continue
