"""The control socket's client: blocking, small, and quick to say that nobody is there.

Whether a daemon lives is read from its lock before anything is sent and while an answer is
awaited, so that neither a missing nor a dying daemon costs the whole time-out. One that is back
before anybody has looked at its lock is noticed by the end of the connection: it knows nothing of
what was asked before. Requests may overlap: `send` several, then `receive` until every one has its
last page.

What goes wrong is a value, `Trouble`, with the same codes as the daemon's own failures: for a
program there is no difference between an answer that says no and no answer.

Invariants: no asyncio and no dataclasses (a one-shot command has 80 ms, and half of it is Python
and zmq loading); every wait ends; what one process of a daemon was asked, no other answers.

Source: DESIGN section 11.
"""

from __future__ import annotations

import gc
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

from parkingd.adapters.control_wire import (
    DEADLINE_MS_MAX,
    REPLY_BYTES_MAX,
    REQUEST_BYTES_MAX,
    Reply,
    Request,
    decode_reply,
    encode_request,
)
from parkingd.adapters.document_values import (
    Document,
    conflict_items,
    envelope,
    log_items,
    unmatched_items,
    vehicle_items,
)
from parkingd.adapters.rundir import SOCKET_SUFFIX, lock_holder, lock_path
from parkingd.errors import UsageError, WireError

GRACE_S: Final = 0.5
"""The daemon answers ``timed_out`` at the deadline; its answer may take this long to arrive."""

WATCH_S: Final = 0.25
"""While waiting, look this often whether the daemon still lives."""

START_POLL_S: Final = 0.01
START_WAIT_S_MAX: Final = 2.0
"""A daemon takes its lock a moment before it binds its socket."""

RECEIVE_FRAMES_MAX: Final = 16
"""Pages that wait in this process; the rest waits in the daemon."""

_monitor_event: Final = struct.Struct("=Hi")
"""How libzmq's monitor begins: the event, and a value that goes with it."""

CODE_NO_DAEMON: Final = "no_daemon"
CODE_DAEMON_STOPPED: Final = "daemon_stopped"
CODE_NOT_PERMITTED: Final = "not_permitted"
CODE_TIMED_OUT: Final = "timed_out"
CODE_PROTOCOL_VERSION: Final = "protocol_version"


_ITEMS_OF_ROWS: Final[Mapping[str, Callable[[Iterable[Iterable[Any]]], list[Document]]]] = {
    "VehicleList": vehicle_items,
    "EventList": log_items,
    "ConflictList": conflict_items,
    "UnmatchedList": unmatched_items,
}
"""What comes in pages, by kind."""


class Trouble(NamedTuple):
    """Why there is no answer, or what the daemon said instead of one."""

    code: str
    reason: str
    hint: str = ""
    node: str | None = None
    """Who said so, when it was a daemon."""


class ControlClient:
    """A connection to one daemon. Make it with `connect`."""

    def __init__(self, path: Path, node: str, timeout_s: float) -> None:
        """Does not look whether anybody is there: `connect` does."""
        self.node = node
        self._path = path
        self._timeout_s = timeout_s
        self._has_lock = lock_path(path).exists()
        self._next_id = 1
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, REPLY_BYTES_MAX),
            (zmq.RCVHWM, RECEIVE_FRAMES_MAX),
            (zmq.RECONNECT_IVL, 50),
            (zmq.HANDSHAKE_IVL, 0),  # One that is frozen is waited for as long as the caller says.
        ):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self._has_met = self._has_ended = False
        self._poller = zmq.Poller()
        for watched in (self._socket, self._monitor):
            self._poller.register(watched, zmq.POLLIN)
        self._socket.connect(f"ipc://{path}")

    @classmethod
    def connect(cls, path: Path, timeout_s: float) -> ControlClient | Trouble:
        """A client for the daemon that lives behind this socket path, else why there is none."""
        name = path.name.removesuffix(SOCKET_SUFFIX)
        if len(os.fsencode(path)) > zmq.IPC_PATH_MAX_LEN:
            raise UsageError(f"{path} is too long for a socket path")
        trouble = _find(path, name, time.monotonic() + min(timeout_s, START_WAIT_S_MAX))
        return trouble if trouble is not None else cls(path, name, timeout_s)

    def close(self) -> None:
        """Whatever was not sent is lost."""
        self._socket.disable_monitor()  # First: one that is gone blocks libzmq's thread.
        self._context.destroy(linger=0)

    def send(self, verb: str, args: dict[Any, Any], timeout_s: float | None = None) -> int:
        """Ask; the id that the answer will carry.

        UsageError for what no frame can carry, and the daemon would never see: text that is not
        Unicode, a number of more than 64 bits, more than 64 KiB.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline_ms = min(max(int(timeout_s * 1_000), 1), DEADLINE_MS_MAX)
        id_ = self._next_id
        self._next_id += 1
        try:
            frame = encode_request(Request(id_, verb, args, deadline_ms))
        except UnicodeEncodeError as error:
            raise UsageError(
                "an argument is not valid text", "type it again, in the encoding of this terminal"
            ) from error
        except OverflowError as error:
            raise UsageError("a number is too large", "give a smaller one") from error
        if len(frame) > REQUEST_BYTES_MAX:
            raise UsageError(
                f"this request has {len(frame)} bytes, {REQUEST_BYTES_MAX} are possible",
                "give shorter arguments",
            )
        # A DEALER whose peer is not connected yet queues; its default bound is 1,000 requests.
        self._socket.send(frame, zmq.DONTWAIT)
        return id_

    def receive(self, until_s: float) -> Reply | Trouble:
        """The next page of any answer. ``until_s`` is a time of `time.monotonic`.

        After `CODE_DAEMON_STOPPED` there is none any more, also when it is back: connect again.
        """
        while True:
            left_s = until_s - time.monotonic()
            ready = dict(self._poller.poll(max(0, int(min(left_s, WATCH_S) * 1_000))))
            if self._socket in ready:
                break
            if self._monitor in ready:
                self._read_monitor()
            has_ended = self._has_ended or (self._has_lock and lock_holder(self._path) is None)
            if has_ended and not self._socket.poll(0):
                return Trouble(CODE_DAEMON_STOPPED, f"{self.node} stopped while it was asked")
            if left_s <= 0:
                return Trouble(CODE_TIMED_OUT, f"{self.node} did not answer in time")
        try:
            reply = decode_reply(self._socket.recv())
        except WireError:
            return Trouble(
                CODE_PROTOCOL_VERSION,
                f"{self.node} answered in another version of the control protocol",
                "use the parkingd-ctl of the daemon's version",
            )
        self.node = reply.node
        if reply.kind == "Error":
            return trouble_of(reply)
        return reply

    def _read_monitor(self) -> None:
        """A connection that ends before the two have met is made again, and nothing is lost: one
        that was frozen meanwhile gives up whoever has just knocked when it goes on."""
        while self._monitor.poll(0):
            # zmq.utils.monitor would load asyncio for these two numbers.
            event, _ = _monitor_event.unpack(self._monitor.recv_multipart()[0])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._has_met = True
            else:
                self._has_ended |= self._has_met

    def page(self, id_: int, until_s: float) -> Reply | Trouble:
        """The next page of this answer; others, which nobody waits for any more, are dropped."""
        while True:
            reply = self.receive(until_s)
            if isinstance(reply, Trouble) or reply.id == id_:
                return reply

    def call(
        self, verb: str, args: dict[Any, Any], timeout_s: float | None = None
    ) -> Document | Trouble:
        """The whole answer: pages are joined and rows made into items, each page while the
        daemon makes the next."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        until_s = time.monotonic() + timeout_s + GRACE_S
        id_ = self.send(verb, args, timeout_s)
        with _no_collection():
            items: list[Document] = []
            while True:
                page = self.page(id_, until_s)
                if isinstance(page, Trouble):
                    return page
                items += items_of(page)
                if page.last:
                    return document_of(page, items)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hundreds of thousands of new lists and no cycle: looking for one doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def items_of(page: Reply) -> list[Document]:
    """The items that a page brings as rows; none of an answer that has no pages."""
    of_rows = _ITEMS_OF_ROWS.get(page.kind)
    return [] if of_rows is None else of_rows(page.body.get("rows", ()))


def document_of(page: Reply, items: list[Document]) -> Document:
    """The answer whose last page this is, with the items of all its pages."""
    body = dict(page.body)
    if body.pop("rows", None) is not None:
        body["items"] = items
    return envelope(page.kind, page.node, page.at_ms, body)


def trouble_of(reply: Reply) -> Trouble:
    """What the daemon said instead of an answer."""
    code, reason, hint = (str(reply.body.get(key, "")) for key in ("code", "reason", "hint"))
    return Trouble(code, reason, hint, reply.node)


def _find(path: Path, name: str, until_s: float) -> Trouble | None:
    """None when a daemon lives there and its socket may be used."""
    not_permitted = Trouble(
        CODE_NOT_PERMITTED,
        f"the control socket {path} belongs to another user",
        "run this as the daemon's user",
    )
    while True:
        try:
            lives = lock_holder(path) is not None
            bound = path.is_socket()
        except PermissionError:
            return not_permitted
        if bound and not os.access(path, os.R_OK | os.W_OK):
            return not_permitted
        if lives and bound:
            return None
        if not lives:
            if bound and not lock_path(path).exists() and _listens(path):
                return None
            return Trouble(CODE_NO_DAEMON, f"no daemon named {name} is running here")
        if time.monotonic() >= until_s:
            return Trouble(CODE_NO_DAEMON, f"{name} is starting and has no control socket yet")
        time.sleep(START_POLL_S)


def _listens(path: Path) -> bool:
    """Whether somebody accepts connections on a socket that has no lock file beside it."""
    import socket  # only here: it takes a while to load, and sockets have lock files beside them

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
