"""What libzmq's socket monitors say about connections, and what that means.

The events of one outgoing connection come in a fixed order. What they mean was tried out, against
4.3.5, for every kind of peer:

    CLOSED                                   nobody took the connection (refused, or timed out)
    CONNECTED, HANDSHAKE_SUCCEEDED           a node of ours
    CONNECTED, HANDSHAKE_FAILED_AUTH         knows our public key, but its doorkeeper says no
    CONNECTED, HANDSHAKE_FAILED_PROTOCOL     ZeroMQ, but not encrypted as ours is
    CONNECTED, FAILED_NO_DETAIL with EAGAIN  accepted, then silent
    CONNECTED, FAILED_NO_DETAIL otherwise    hung up: another cookie, or not ZeroMQ, or just dead
    CONNECTED, DISCONNECTED                  something else listens there
    ... SUCCEEDED ..., DISCONNECTED          was there, is gone

CONNECTED alone proves nothing: the kernel accepts for a process that is stopped. After
FAILED_PROTOCOL and FAILED_AUTH libzmq never tries again by itself; after FAILED_NO_DETAIL it tries
for ever without backing off. Neither is left to it (`dealers`, `subscriptions`).
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

import zmq

from parkingd.adapters.transport.drain import Drain
from parkingd.adapters.transport.sockets import Context, Socket, canonical_address, new_inproc
from parkingd.protocol.facts import LinkFailure
from parkingd.protocol.messages import Address

CONNECTION_EVENTS: Final = int(
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
LISTENER_EVENTS: Final = int(
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_ACCEPT_FAILED
)
PROTOCOL_ERROR_CRYPTOGRAPHIC: Final = 0x11000001
"""ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: the keys do not fit."""
PROTOCOL_ERROR_MECHANISM: Final = 0x11000002
"""ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: not CURVE."""

_EVENT: Final = struct.Struct("=HI")
_numbers = itertools.count()


class LinkState(Enum):
    """What became of a link to a peer's ROUTER."""

    CONNECTED = "connected"
    """The handshake succeeded: a node with our cookie."""
    DISCONNECTED = "disconnected"
    """The link is gone; nobody knows yet why."""
    REFUSED = "refused"
    """The machine answers and nobody listens: the only evidence of a dead process."""
    TIMEOUT = "timeout"
    """No answer in time, or no way there."""
    OTHER_COOKIE = "other_cookie"
    PROTOCOL_VERSION = "protocol_version"
    """Something listens that does not speak as we do."""

    @property
    def failure(self) -> LinkFailure | None:
        """The same in the words of the node; None where nothing failed for good."""
        match self:
            case LinkState.CONNECTED | LinkState.DISCONNECTED:
                return None
            case _:
                return LinkFailure(self.value)


class LinkEvent(Enum):
    """One step of an outgoing connection."""

    UP = auto()
    DOWN = auto()
    UNREACHED = auto()
    SILENT = auto()
    HUNG_UP = auto()
    STRANGE = auto()
    UNAUTHORISED = auto()


class Connection:
    """Follows the events of one endpoint through as many connections as libzmq makes."""

    __slots__ = ("_connected", "_judged", "up")

    def __init__(self) -> None:
        self.up = False
        self._connected = False
        self._judged = False

    def event(self, code: int, value: int) -> LinkEvent | None:
        """The step that this event completes, if any."""
        if code == zmq.EVENT_CONNECTED:
            self.up, self._connected, self._judged = False, True, False
            return None
        if code == zmq.EVENT_CLOSED:
            return None if self._connected else LinkEvent.UNREACHED
        if code == zmq.EVENT_DISCONNECTED:
            if not self._connected:
                return None  # the end of a connection that was let go before
            was_up, judged = self.up, self._judged
            self.up, self._connected, self._judged = False, False, False
            if was_up:
                return LinkEvent.DOWN
            return None if judged else LinkEvent.STRANGE
        step = _judge_handshake(code, value)
        self._judged = True
        self.up = step is LinkEvent.UP
        return step


def refusal_reason(code: int, value: int) -> str:
    """Why a listening socket turned a client away, as one word for the counters.

    ``auth``: another cookie. ``plain``: not encrypted. ``silent``: said nothing in time.
    ``handshake``: broke the rules. ``unfinished``: hung up, as port scans and probes do.
    """
    if code == zmq.EVENT_ACCEPT_FAILED:
        return "accept"
    match _judge_handshake(code, value):
        case LinkEvent.UNAUTHORISED:
            return "auth"
        case LinkEvent.SILENT:
            return "silent"
        case LinkEvent.HUNG_UP:
            return "unfinished"
        case _:
            return "plain" if value == PROTOCOL_ERROR_MECHANISM else "handshake"


def _judge_handshake(code: int, value: int) -> LinkEvent:
    if code == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        return LinkEvent.UP
    if code == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return LinkEvent.UNAUTHORISED
    if code == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        keys_differ = value == PROTOCOL_ERROR_CRYPTOGRAPHIC
        return LinkEvent.UNAUTHORISED if keys_differ else LinkEvent.STRANGE
    assert code == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, f"an event not asked for: {code}"
    return LinkEvent.SILENT if value == errno.EAGAIN else LinkEvent.HUNG_UP


class Monitor:
    """Listens to one socket's events. Make it before the socket binds or connects, and close it
    before the socket: the thread behind the socket must never find it full or half gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        watched: Socket,
        events: int,
        on_event: Callable[[int, int, Address | None], None],
    ) -> None:
        """``on_event`` gets event code, value, and the address the event is about."""
        self._watched = watched
        self._on_event = on_event
        endpoint = f"inproc://monitor-{next(_numbers)}"
        watched.monitor(endpoint, events)
        pair = new_inproc(context, zmq.PAIR)
        pair.connect(endpoint)
        self._drain = Drain(loop, pair, 2, self._take)

    def close(self) -> None:
        """No event is delivered after this, also none that has already happened."""
        if not self._drain.closed:
            self._watched.disable_monitor()
            self._drain.close()

    def _take(self, frames: list[zmq.Frame]) -> None:
        event, endpoint = (frame.bytes for frame in frames)
        code, value = _EVENT.unpack(event)
        self._on_event(code, value, _address_of(endpoint.decode()))


def _address_of(endpoint: str) -> Address | None:
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not colon or not port.isdecimal():
        return None
    return canonical_address(Address(host.strip("[]"), int(port)))
