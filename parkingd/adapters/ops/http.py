"""A small HTTP/1.1 server in the daemon's loop: GET and HEAD, bounded in size, time and clients.

How it works. h11 parses and frames; this module only carries bytes. One task accepts, and each
connection has one of its own, which reads a head, asks `answer` for the response and writes it,
again and again while the client keeps the connection. Requests that were sent ahead are answered
one after another, and every other task has its turn in between.

When there are more connections than `CLIENTS_MAX`, the one that has been quiet for the longest is
closed: who asks in earnest has its answer within milliseconds, so that idle and slow clients
cannot keep a probe from being answered, and nobody has to wait for their time to run out.

Invariants: nothing that a client sends raises here or grows memory without a bound; no body of a
request is ever read for its content; a client that is slow to ask or to read is let go. Having no
descriptor left for one more connection is waited out; any exception that leaves a task is a bug.

Source: DESIGN section 11; RFC 9112.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Final

import h11

from parkingd.errors import ConfigError
from parkingd.protocol.messages import Address

CLIENTS_MAX: Final = 16
"""Connections at a time: a few probes, two Prometheus servers and a person with a browser."""

BACKLOG: Final = 128
"""Connections that the kernel holds until they are taken: one that finds no room there tries again
only after a second."""

HEAD_BYTES_MAX: Final = 4 * 1024
"""Request line and headers that may be incomplete; a probe sends 200 bytes, a browser 1 KiB."""

READ_BYTES: Final = 4 * 1024
HEAD_S: Final = 2.0
"""From the first byte of a head to the last; and from the connection to the first request."""

IDLE_S: Final = 90.0
"""A kept connection waits this long for its next request: Prometheus asks once a minute."""

WRITE_S: Final = 5.0
"""A client takes an answer within this time."""

LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 64 * 1024
"""What is still read and dropped after the last answer: closing on unread bytes would reset the
connection and could take the answer from the client."""

_QUOTED: Final = re.compile(r""":? (bytearray\()?b['"].*""", re.DOTALL)
"""How h11 ends its errors: with the bytes that it means, as Python writes them."""

ACCEPT_PAUSE_S: Final = 0.5
"""When a connection cannot be taken, because no descriptor is left."""

NO_LISTENER: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
"""Taking a connection fails for ever. All else is of one connection that went as it came, or a want
of descriptors or memory that may end."""

ANY_IPV6: Final = "::"
METHODS: Final = ("GET", "HEAD")
CLOSE: Final = ("Connection", "close")
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """What a client gets."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[str], Awaitable[Response]]
"""From the target of a GET, path and query as they were sent, to the response."""


class HttpServer:
    """Binds at once; ConfigError when that cannot be done."""

    def __init__(
        self, address: Address, answer: Answer, ended: Callable[[asyncio.Task[None]], None]
    ) -> None:
        """``ended`` is told of every task that has ended, with its exception if it had a bug."""
        self._listener = listen(address)
        self._answer = answer
        self._ended = ended
        self._clients: dict[asyncio.Task[None], float] = {}
        """Since when each is quiet, in the loop's time."""
        self._accepting: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The one it listens on."""
        return int(self._listener.getsockname()[1])

    @property
    def clients(self) -> int:
        """How many connections there are."""
        return len(self._clients)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take connections from now on."""
        self._accepting = loop.create_task(self._accept(loop), name="ops")
        self._accepting.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Take no more connections and drop those there are; the port is free afterwards."""
        tasks = set(self._clients)
        if self._accepting is not None:
            tasks.add(self._accepting)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._listener.close()

    # --- connections ---------------------------------------------------------------------

    async def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno in NO_LISTENER:
                    raise
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            if len(self._clients) >= CLIENTS_MAX:
                quietest = min(self._clients, key=self._clients.__getitem__)
                del self._clients[quietest]
                quietest.cancel()
            client = loop.create_task(self._serve(connection), name="ops client")
            self._clients[client] = loop.time()
            client.add_done_callback(partial(self._client_ended, connection))
            await asyncio.sleep(0)

    def _client_ended(self, connection: socket.socket, client: asyncio.Task[None]) -> None:
        connection.close()
        self._clients.pop(client, None)
        self._ended(client)

    def _is_busy(self) -> None:
        """The client of the running task has asked something, or has taken its answer."""
        client = asyncio.current_task()
        if client in self._clients:
            self._clients[client] = asyncio.get_running_loop().time()

    async def _serve(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=READ_BYTES)
        except OSError:
            return  # It went as it came.
        writer.transport.set_write_buffer_limits(high=0)  # Written is what the client's side has.
        try:
            await self._talk(reader, writer)
            await _linger(reader, writer)
        except (OSError, TimeoutError):
            return  # The client is gone, or so slow that it may as well be.
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until either side has had enough. OSError or TimeoutError: the client is gone."""
        wire = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        wait_s = HEAD_S
        while True:
            try:
                request = await _next_request(wire, reader, wait_s)
            except h11.RemoteProtocolError as error:
                refusal = _refusal(error.error_status_hint, _QUOTED.sub("", str(error)))
                await _write(wire, writer, refusal, is_head=False)
                return
            if request is None:
                return
            self._is_busy()
            await _write(
                wire, writer, await self._respond(request), is_head=request.method == "HEAD"
            )
            self._is_busy()
            if wire.our_state is not h11.DONE or wire.their_state is not h11.DONE:
                return
            wire.start_next_cycle()
            wait_s = HEAD_S if wire.trailing_data[0] else IDLE_S
            await asyncio.sleep(0)

    async def _respond(self, request: _Request) -> Response:
        if request.method not in METHODS:
            allow = (("Allow", ", ".join(METHODS)), CLOSE)
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", allow)
        if request.has_body:
            return _refusal(HTTPStatus.BAD_REQUEST, "no request here has a body", (CLOSE,))
        return await self._answer(request.target)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    has_body: bool


async def _next_request(
    wire: h11.Connection, reader: asyncio.StreamReader, wait_s: float
) -> _Request | None:
    """The next head, all of it; None when the client has closed or has asked nothing.

    RemoteProtocolError for what is no request, and for one that takes too long.
    """
    has_begun = bool(wire.trailing_data[0])
    try:
        async with asyncio.timeout(wait_s) as limit:
            while (event := wire.next_event()) is h11.NEED_DATA:
                data = await reader.read(READ_BYTES)
                if data and not has_begun:
                    has_begun = True
                    limit.reschedule(asyncio.get_running_loop().time() + HEAD_S)
                wire.receive_data(data)
    except TimeoutError:
        if not has_begun:
            return None
        late = f"a request has {HEAD_S:g} s to arrive"
        raise h11.RemoteProtocolError(late, HTTPStatus.REQUEST_TIMEOUT) from None
    if not isinstance(event, h11.Request):
        return None
    try:
        has_body = not isinstance(wire.next_event(), h11.EndOfMessage)
    except h11.RemoteProtocolError:
        has_body = True  # And a broken one.
    return _Request(event.method.decode("ascii"), event.target.decode("ascii"), has_body)


def _refusal(status: int, what: str, headers: tuple[tuple[str, str], ...] = (CLOSE,)) -> Response:
    text = f"{status} {HTTPStatus(status).phrase}: {what}\n"
    return Response(status, text.encode("utf-8", "backslashreplace"), headers=headers)


async def _write(
    wire: h11.Connection, writer: asyncio.StreamWriter, response: Response, *, is_head: bool
) -> None:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *response.headers,
    ]
    reason = HTTPStatus(response.status).phrase
    head = h11.Response(status_code=response.status, headers=headers, reason=reason)
    events = [head, *([] if is_head else [h11.Data(data=response.body)]), h11.EndOfMessage()]
    writer.write(b"".join(wire.send(event) or b"" for event in events))
    async with asyncio.timeout(WRITE_S):
        await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that nothing more comes, and drop what the client still sends."""
    writer.write_eof()
    left = LINGER_BYTES_MAX
    async with asyncio.timeout(LINGER_S):
        while left > 0 and (data := await reader.read(READ_BYTES)):
            left -= len(data)


def listen(address: Address) -> socket.socket:
    """A listening socket that does not block. ConfigError when there cannot be one."""
    is_ipv6 = ":" in address.host
    try:
        listener = socket.create_server(
            (address.host, address.port),
            family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=address.host == ANY_IPV6 and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {address.port} of --ops is in use", "give another one, or end who uses it"
            ) from error
        raise ConfigError(
            f"cannot listen on {address} (--ops): {os.strerror(error.errno or 0)}",
            "give an address of this machine and a port that may be used",
        ) from error
    listener.setblocking(False)
    return listener
