"""The ops port on a real socket: with a function for answers, or with a scripted node behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parkingd.adapters.ops.http import HttpServer, Response
from parkingd.adapters.ops.routes import Routes
from parkingd.adapters.ops.service import OpsService
from parkingd.adapters.ops.sight import Inside, Sight
from parkingd.adapters.transport.counters import Counters
from parkingd.core.ids import Now
from parkingd.protocol.commands import Command
from parkingd.protocol.effects import Effects
from parkingd.protocol.messages import Address, Message, Sender
from tests.unit.scripted import Box

PATIENCE_S = 10.0
"""Everything here takes a hundredth of that on an idle machine."""

ANY_PORT = Address("127.0.0.1", 0)
BIG = b"x" * 24 * 1024 * 1024
"""More than any two sockets hold between them."""


async def answer(target: str) -> Response:
    """Says what was asked for; ``/big`` is large, and ``/later`` takes its time."""
    if target == "/later":
        await asyncio.sleep(0.05)
    return Response(200, BIG if target == "/big" else f"{target}\n".encode())


class Running:
    """A server in a thread of its own."""

    def __init__(self, make: Callable[[Callable[[asyncio.Task[None]], None]], HttpServer]) -> None:
        self.failures: list[BaseException] = []
        self.server = make(self._ended)
        self.port = self.server.port
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._failed)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self.server.start(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self.failures.append(
            error if isinstance(error, BaseException) else AssertionError(str(context))
        )

    def stop(self) -> None:
        """As the daemon does; no task had a bug, and none is left."""
        if self._loop.is_closed():
            return
        stopping = asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop)
        stopping.result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        assert self.failures == []

    def connect(self) -> Client:
        return Client(self.port)

    def get(self, target: str, method: str = "GET", *headers: str) -> Reply:
        """One request on a connection of its own."""
        with self.connect() as client:
            client.ask(target, method, *headers)
            return client.reply(is_head=method == "HEAD")


class Reply:
    """What came back."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *rows = head.decode("ascii").split("\r\n")
        self.version, status, self.phrase = line.split(" ", 2)
        self.status = int(status)
        self.headers = dict(row.lower().split(": ", 1) for row in rows)
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """A socket, and what of it has been read."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self._read = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, target: str, method: str = "GET", *headers: str) -> None:
        """A whole request."""
        lines = [f"{method} {target} HTTP/1.1", "Host: gary", *headers, "", ""]
        self.send("\r\n".join(lines).encode())

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise EOFError
        self._read += data

    def reply(self, *, is_head: bool = False) -> Reply:
        """The next one; EOFError if the server closes before it is complete."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        reply = Reply(bytes(head), b"")
        size = 0 if is_head else int(reply.headers["content-length"])
        while len(self._read) < size:
            self._more()
        reply.body = bytes(self._read[:size])
        del self._read[:size]
        return reply

    def reply_to(self, target: str) -> Reply:
        """Ask for it by GET."""
        self.ask(target)
        return self.reply()

    def is_closed(self) -> bool:
        """Whether the server closes without another word."""
        if self._read:
            return False
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def running() -> Iterator[Running]:
    """A server that `answer` answers for."""
    server = Running(lambda ended: HttpServer(ANY_PORT, answer, ended))
    try:
        yield server
    finally:
        server.stop()


class OpsOnStage:
    """The ops port of one scripted node, told of everything as the daemon tells it."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.ticked_ms: int | None = None
        """None: just now."""
        self.network = Counters()
        self.service = OpsService(
            box.name,
            ANY_PORT,
            submit=self._submit,
            inside=self._inside,
            ended=lambda _: None,
        )
        self._tap()

    def _tap(self) -> None:
        node, service = self.box.node, self.service
        take_effects, receive = node.take_effects, node.receive

        def watched() -> Effects:
            effects = take_effects()
            service.tally.did(effects)
            for reply in effects.replies:
                if service.is_asked(reply.handle):
                    service.reply(reply)
            return effects

        def heard(sender: Sender, message: Message, now: Now) -> None:
            service.tally.heard(message)
            receive(sender, message, now)

        tick = node.tick

        def ticked(now: Now) -> None:
            tick(now)
            service.tally.ticked(0, node.members)

        node.tick = ticked  # type: ignore[method-assign]
        node.take_effects = watched  # type: ignore[method-assign]
        node.receive = heard  # type: ignore[method-assign]

    def _submit(self, handle: int, command: Command, deadline_ms: int) -> None:
        now = self.box.now
        self.box.node.submit(handle, command, now.mono_ms + deadline_ms, now)
        self.box.take()

    def _inside(self) -> Inside:
        now = self.box.now
        return Inside(
            node=self.box.node,
            now=now,
            ticked_ms=now.mono_ms if self.ticked_ms is None else self.ticked_ms,
            is_discovered=True,
            started_s=1.0,
            network=self.network,
            control=Counter(requests=3),
        )

    def __enter__(self) -> OpsOnStage:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self.service.stop())

    def look(self) -> Sight:
        """What a scrape sees."""
        return asyncio.run(self.service.look())

    def get(self, target: str) -> Response:
        """The response to a GET, without the way there."""
        return asyncio.run(Routes(self.service).answer(target))
