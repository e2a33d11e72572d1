"""A cable between two daemons of one machine that a test can cut.

Linux answers on all of 127.0.0.0/8. One daemon listens on 127.0.0.2, the other on 127.0.0.3, and
each knows the other only as 127.0.0.1 at the same port: there this forwarder listens, and what
comes in for a port goes to the daemon that has it. So does what they say about where they can be
reached, because a peer is dialled back at the address it came from.

A cut cable is silent, as one is: what was open hangs up, what is new is accepted and never
answered.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

FIRST_HOST, SECOND_HOST, CABLE_HOST = "127.0.0.2", "127.0.0.3", "127.0.0.1"
PORTS = range(20_000, 32_000, 2)
"""Below the range from which the kernel hands out ports to others."""
BLOCK_BYTES = 65_536


def free_pair() -> int:
    """A port that is free with its neighbour, at all three addresses."""
    for port in random.sample(PORTS, 100):
        if all(
            is_free(host, one)
            for host in (FIRST_HOST, SECOND_HOST, CABLE_HOST)
            for one in (port, port + 1)
        ):
            return port
    raise AssertionError("no free ports")


def is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there now."""
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


class Cable:
    """Runs in a thread of its own until it is closed."""

    def __init__(self) -> None:
        self.first_port, self.second_port = free_pair(), free_pair()
        while self.second_port == self.first_port:
            self.second_port = free_pair()
        self._whole = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._listen())

    def __enter__(self) -> Cable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def first(self) -> tuple[str, ...]:
        """Flags of the one daemon; it waits to be dialled."""
        return ("--host", FIRST_HOST, "--port", str(self.first_port))

    @property
    def second(self) -> tuple[str, ...]:
        """Flags of the other, which dials."""
        peer = f"{CABLE_HOST}:{self.first_port}"
        return ("--host", SECOND_HOST, "--port", str(self.second_port), "--peer", peer)

    def cut(self) -> None:
        """From now on nothing passes."""
        self._do(self._set(whole=False))

    def mend(self) -> None:
        """New connections pass again."""
        self._do(self._set(whole=True))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5.0)

    async def _listen(self) -> None:
        for host, first_port in ((FIRST_HOST, self.first_port), (SECOND_HOST, self.second_port)):
            for port in (first_port, first_port + 1):
                server = await asyncio.start_server(self._accept(host, port), CABLE_HOST, port)
                self._servers.append(server)

    def _accept(self, host: str, port: int) -> Any:
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            if not self._whole:
                return  # Held open, and never answered.
            try:
                there_reader, there = await asyncio.open_connection(host, port)
            except OSError:
                writer.transport.abort()
                return
            self._writers.add(there)
            await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))

        return forward

    async def _set(self, *, whole: bool) -> None:
        self._whole = whole
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await self._set(whole=False)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2.0)  # Each ends with its connection.


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()
