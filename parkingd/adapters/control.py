"""The control socket's server: one ROUTER on ``ipc://``, in the daemon's loop.

A frame comes in, is decoded and parsed, and becomes a call of ``on_command`` (for the node) or
``on_direct`` (for the daemon) under a fresh handle; whoever was called answers with `reply` or
`reply_document` under that handle, in one page or several, now or later.

The socket is a plain one behind ``add_reader``. Its descriptor is edge-triggered: a send may eat
the signal that a request came in, so EVENTS is looked at again after every send, and each turn is
bounded and continued in the next, so that a flood delays the node by milliseconds at most.

Pages wait in their outcome's form and are encoded a few per turn, as the client takes them: a
hundred thousand stays neither block the loop nor fill the socket. A client that does not read
gets `PAGES_MAX` pages for at most its deadline, then everything it asked for is forgotten.

Invariants: nothing that a client sends raises here or grows memory without a bound; a handle is
forgotten with its last page, or one second after its deadline; every refusal is counted.

Whoever makes a server holds the `rundir.ControlLock` of its path until `close` has returned.

Source: DESIGN sections 9 and 11.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zmq

from parkingd.adapters.control_wire import (
    REQUEST_BYTES_MAX,
    BadRequest,
    Reply,
    Request,
    decode_request_untrusted,
    encode_reply,
)
from parkingd.adapters.documents import to_wire
from parkingd.errors import ConfigError, UsageError, WireError
from parkingd.protocol.command_parsing import DIRECT_VERBS, Direct, parse_command, parse_direct
from parkingd.protocol.commands import Command
from parkingd.protocol.outcomes import ErrorCode, Failure, Outcome

IN_FLIGHT_MAX: Final = 1_024
"""Requests that wait for an answer, over all clients."""

FRAMES_PER_TURN: Final = 64
TURN_S: Final = 0.01
"""Requests taken in one turn of the loop: some 2 ms of small ones; imports take longer each."""

PAGES_PER_TURN: Final = 4
"""Pages encoded in one turn: 2,000 stays take about a millisecond."""

PAGES_MAX: Final = 512
"""Pages that wait for clients to read, over all clients: the stays of a million cars."""

PAGES_WAIT_S_MAX: Final = 30.0
"""A client takes its next page within this time, however far away its deadline is."""

SEND_FRAMES_MAX: Final = 8
"""Frames in the socket per client: enough to keep the pipe busy between two turns."""

RECEIVE_FRAMES_MAX: Final = 64

HANDSHAKE_MS: Final = 2_000
"""Who connects and says nothing is disconnected after this."""

FORGET_AFTER_S: Final = 1.0
"""An answer that late finds nobody: the client has given up at its deadline."""

SWEEP_S: Final = 0.25


@dataclass(slots=True)
class _InFlight:
    client: bytes
    id: int
    handle: int
    deadline_s: float
    """In the loop's time."""


@dataclass(slots=True)
class _Page:
    request: _InFlight
    kind: str
    body: Mapping[str, Any]
    last: bool


@dataclass(slots=True)
class _Queue:
    """Pages that one client has not taken yet."""

    taken_s: float
    pages: deque[_Page] = field(default_factory=deque)
    frame: bytes | None = None
    """The first page, encoded, when the socket had no room for it."""


class ControlServer:
    """Binds at once; ConfigError when that cannot be done."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: Path,
        on_command: Callable[[int, Command, int], None],
        on_direct: Callable[[int, Direct], None],
        *,
        node: str,
    ) -> None:
        """``on_command(handle, command, deadline_ms)`` and ``on_direct(handle, verb)`` may answer
        before they return; ``deadline_ms`` is relative. ``node`` is the name in every answer.
        """
        self._loop = loop
        self._path = path
        self._on_command = on_command
        self._on_direct = on_direct
        self._node = node
        self._in_flight: dict[int, _InFlight] = {}
        self._queues: dict[bytes, _Queue] = {}
        self._pages = 0
        self._next_handle = 1
        self._pump_planned = False
        self._sweep: asyncio.TimerHandle | None = None
        self.counters: Counter[str] = Counter()
        """``requests``, and refusals and losses by reason."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._bind()
        self._fd = int(self._socket.getsockopt(zmq.FD))
        loop.add_reader(self._fd, self._pump)
        self._plan_pump()

    def _bind(self) -> None:
        options = (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, REQUEST_BYTES_MAX),
            (zmq.SNDHWM, SEND_FRAMES_MAX),
            (zmq.RCVHWM, RECEIVE_FRAMES_MAX),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        )
        for option, value in options:
            self._socket.setsockopt(option, value)
        umask = os.umask(0o177)
        try:
            self._socket.bind(f"ipc://{self._path}")
            self._path.chmod(0o600)
        except (zmq.ZMQError, OSError) as error:
            self._context.destroy(linger=0)
            raise ConfigError(
                f"cannot bind the control socket {self._path}: {error.strerror}",
                "name another directory with --runtime-dir",
            ) from error
        finally:
            os.umask(umask)

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer."""
        return len(self._in_flight)

    @property
    def pages_waiting(self) -> int:
        """Pages that clients have not taken yet."""
        return self._pages

    def reply(self, handle: int, outcome: Outcome, last: bool = True) -> None:
        """Answer; an unknown handle (late, or its client gone) is counted and forgotten."""
        kind, body = to_wire(outcome)
        self.reply_document(handle, kind, body, last)

    def reply_document(
        self, handle: int, kind: str, body: Mapping[str, Any], last: bool = True
    ) -> None:
        """Answer with a body that is already made of strings, numbers, lists and maps."""
        request = self._in_flight.get(handle)
        if request is None:
            self.counters["late"] += 1
            return
        if last:
            del self._in_flight[handle]
        page = _Page(request, kind, body, last)
        queue = self._queues.get(request.client)
        if queue is None and last:
            frame = self._encode(request.id, kind, body)
            if self._send(request.client, frame):
                return
            self._enqueue(page, frame)
        else:
            self._enqueue(page, None)
            self._plan_pump()

    def close(self, linger_ms: int = 200) -> None:
        """Let the last answers out for at most this long; the path is free when this returns."""
        if self._socket.closed:
            return
        self._loop.remove_reader(self._fd)
        if self._sweep is not None:
            self._sweep.cancel()
        # The I/O thread unlinks the path while it closes the listener. Ending the whole context
        # waits for that: a successor that binds the path must not lose it to us.
        self._context.destroy(linger=linger_ms)
        self._path.unlink(missing_ok=True)

    def _plan_pump(self) -> None:
        if not self._pump_planned:
            self._pump_planned = True
            self._loop.call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._pump_planned = False
        self._pump()

    def _pump(self) -> None:
        """Take requests and hand out pages, a bounded number of each."""
        if self._socket.closed:
            return
        # Also takes note of clients that have read: a send alone looks at most once a millisecond.
        self._socket.getsockopt(zmq.EVENTS)
        more_pages = self._hand_out()
        more_requests = self._take_requests()
        if more_pages or more_requests:
            self._plan_pump()
        if self._sweep is None and (self._in_flight or self._queues):
            self._sweep = self._loop.call_later(SWEEP_S, self._forget_overdue)

    def _take_requests(self) -> bool:
        """As many as one turn allows; True if more may be waiting."""
        until_s = self._loop.time() + TURN_S
        for _ in range(FRAMES_PER_TURN):
            try:
                client, frame = self._receive()
            except zmq.Again:
                return False
            if frame is not None:
                self._take(client, frame)
            if self._socket.closed:
                return False
            if self._loop.time() >= until_s:
                break
        return True

    def _receive(self) -> tuple[bytes, bytes | None]:
        """A client and its frame; None for a message that has not exactly one. Raises Again."""
        client: bytes = self._socket.recv(zmq.DONTWAIT)
        frame: bytes | None = None
        parts = 0
        while self._socket.getsockopt(zmq.RCVMORE):
            part: bytes = self._socket.recv(zmq.DONTWAIT)
            parts += 1
            frame = part if parts == 1 else None
        if frame is None:
            self.counters["parts"] += 1
        return client, frame

    def _take(self, client: bytes, frame: bytes) -> None:
        self.counters["requests"] += 1
        try:
            request = decode_request_untrusted(frame)
        except WireError as error:
            self.counters[error.reason] += 1
            return
        if isinstance(request, BadRequest):
            self._refuse(client, request.id, Failure(request.code, request.reason))
            return
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            failure = Failure(
                ErrorCode.OVERLOADED,
                f"{IN_FLIGHT_MAX} requests are waiting for an answer",
                "try again in a moment",
            )
            self._refuse(client, request.id, failure)
            return
        try:
            self._dispatch(client, request)
        except UsageError as error:
            self._refuse(client, request.id, Failure(ErrorCode.USAGE, str(error), error.hint))

    def _dispatch(self, client: bytes, request: Request) -> None:
        if request.verb in DIRECT_VERBS:
            direct = parse_direct(request.verb, request.args)
            self._on_direct(self._admit(client, request), direct)
        else:
            command = parse_command(request.verb, request.args)
            self._on_command(self._admit(client, request), command, request.deadline_ms)

    def _admit(self, client: bytes, request: Request) -> int:
        handle = self._next_handle
        self._next_handle += 1
        deadline_s = self._loop.time() + request.deadline_ms / 1_000
        self._in_flight[handle] = _InFlight(client, request.id, handle, deadline_s)
        return handle

    def _refuse(self, client: bytes, id_: int, failure: Failure) -> None:
        """Answer without a handle. Never queued: a flood of nonsense must not make pages wait."""
        self.counters[failure.code] += 1
        kind, body = to_wire(failure)
        if not self._send(client, self._encode(id_, kind, body)):
            self.counters["unread"] += 1

    def _encode(self, id_: int, kind: str, body: Mapping[str, Any], last: bool = True) -> bytes:
        at_ms = int(time.time() * 1_000)
        return encode_reply(Reply(id_, last, kind, self._node, at_ms, dict(body)))

    def _send(self, client: bytes, frame: bytes) -> bool:
        """False when the socket has no room for this client; a client that is gone is forgotten."""
        try:
            self._socket.send_multipart((client, frame), zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._drop(client, "gone")
            return True
        if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._plan_pump()
        return True

    def _enqueue(self, page: _Page, frame: bytes | None) -> None:
        client = page.request.client
        queue = self._queues.get(client)
        if queue is None:
            queue = self._queues[client] = _Queue(self._loop.time(), frame=frame)
        queue.pages.append(page)
        self._pages += 1
        if self._pages > PAGES_MAX:
            slowest = max(self._queues, key=lambda each: len(self._queues[each].pages))
            self._drop(slowest, "unread")
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_S, self._forget_overdue)

    def _hand_out(self) -> bool:
        """Send waiting pages, in turn from every client; True if some could go out at once."""
        ready = deque(self._queues)
        budget = PAGES_PER_TURN
        while ready and budget:
            client = ready.popleft()
            queue = self._queues.get(client)
            if queue is None:
                continue
            if queue.frame is None:
                budget -= 1
            if self._hand_out_first(client, queue):
                ready.append(client)
                # To the end of the line, also for the next turn.
                self._queues[client] = self._queues.pop(client)
        return bool(ready)

    def _hand_out_first(self, client: bytes, queue: _Queue) -> bool:
        """True if the client took its first page and has more."""
        page = queue.pages[0]
        if queue.frame is None:
            queue.frame = self._encode(page.request.id, page.kind, page.body, page.last)
        if not self._send(client, queue.frame) or client not in self._queues:
            return False
        queue.frame = None
        queue.taken_s = self._loop.time()
        queue.pages.popleft()
        self._pages -= 1
        if not queue.pages:
            del self._queues[client]
        return bool(queue.pages)

    def _drop(self, client: bytes, reason: str) -> None:
        """Forget everything that this client asked for."""
        self.counters[reason] += 1
        queue = self._queues.pop(client, None)
        if queue is not None:
            self._pages -= len(queue.pages)
        for handle in [each.handle for each in self._in_flight.values() if each.client == client]:
            del self._in_flight[handle]

    def _forget_overdue(self) -> None:
        now_s = self._loop.time()
        self._sweep = None
        overdue = [
            each.handle
            for each in self._in_flight.values()
            if now_s > each.deadline_s + FORGET_AFTER_S
        ]
        for handle in overdue:
            del self._in_flight[handle]
            self.counters["unanswered"] += 1
        for client, queue in list(self._queues.items()):
            deadline_s = min(queue.pages[0].request.deadline_s, queue.taken_s + PAGES_WAIT_S_MAX)
            if now_s > deadline_s:
                self._drop(client, "unread")
        self._pump()
