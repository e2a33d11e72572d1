"""Every option of every socket, in one place, set before the first bind or connect.

What must hold, and why:

- Nothing waits for an absent peer. A DEALER is IMMEDIATE and never reconnects: it lives for one
  connection (`dealers`), so that no stale message can reach whoever listens there next.
- Only the SUB reconnects by itself. A session that reconnects keeps its inbound pipe, and in
  libzmq 4.3.5 a pipe that was full when the connection broke aborts the *process* (issue 3937):
  the old pipe's "there is room again" reaches an engine that never stopped. What breaks a
  connection under a full pipe is a ZMTP heartbeat that is sent and not answered, because the
  answer is not read. So the SUB sends none, and its pipe is never full: RCVHWM 0. What it may
  hold is bounded by what its peers publish while the loop stands still, some MB a second at the
  worst; the loop itself takes all of it and keeps no queue.
- Sockets that listen keep no session after a broken connection, so ROUTER may have heartbeats
  and a finite RCVHWM: beyond it the peer's own TCP window fills, and its sends fail there.
- A broken cable is noticed by the sender (TCP_MAXRT: data unacknowledged for 3 s) and by the
  receiver (keep-alive after 2 s without a byte; heartbeats every 250 ms mean that it costs
  nothing while all is well). Otherwise a SUB whose peer gave up would wait for ever, and a cut
  shorter than the retransmission time-out would resume seconds after it has healed.

DESIGN section 9; measurements in libzmq's terms: 4.3.5.
"""

from __future__ import annotations

import functools
import ipaddress
import resource
from typing import Final, TypeAlias

import zmq

from parkingd.adapters.transport.curve import KeyPair
from parkingd.protocol.limits import CHUNK_FRAME_BYTES_MAX
from parkingd.protocol.messages import Address

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[Socket]"

FRAME_BYTES_SLACK: Final = 1024
"""CURVE adds 33 bytes to a frame, and the limit counts the encrypted form."""

SOCKETS_MAX: Final = 4_096
"""libzmq's default of 1,023 is reached by 340 DEALERs: each has two sockets for its monitor."""

FILES_WANTED: Final = 8_192
"""200 peers take 1,000 descriptors, a storm of strangers more."""

CONNECT_TIMEOUT_MS: Final = 1_000
HANDSHAKE_TIMEOUT_MS: Final = 2_000
"""Silence in a handshake. Our own ZAP handler answers from the loop, which may be busy a while."""

RECONNECT_MS: Final = 100
"""libzmq doubles this up to `RECONNECT_MS_MAX`, and adds a random part of the same size."""
RECONNECT_MS_MAX: Final = 1_000
RECONNECT_NEVER: Final = -1

HEARTBEAT_MS: Final = 1_000
HEARTBEAT_TIMEOUT_MS: Final = 3_000

UNACKNOWLEDGED_MS_MAX: Final = 3_000
KEEPALIVE_IDLE_S: Final = 2
KEEPALIVE_INTERVAL_S: Final = 1
KEEPALIVE_COUNT: Final = 2

PUB_QUEUE_MAX: Final = 2_000
"""Frames per subscriber; beyond it PUB drops, and the gap is repaired by asking for it."""
LINK_QUEUE_MAX: Final = 200
"""Frames per peer on ROUTER and DEALER, each way."""

HOSTS_REMEMBERED_MAX: Final = 1_024
"""Spellings whose canonical form need not be worked out again for every message."""

CLOSE_LINGER_MS: Final = 200
"""A clean close waits this long for the last frames: enough for a LAN, short for a person."""


def new_context() -> Context:
    """A context of its own: the ZAP handler is per context."""
    context: Context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
    return context


def raise_file_limit() -> int:
    """Lift the soft limit of open files towards `FILES_WANTED`; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def new_router(context: Context, keys: KeyPair, cluster: str) -> Socket:
    """Takes requests and answers along their route."""
    socket = _new_socket(context, zmq.ROUTER)
    _serve_curve(socket, keys, cluster)
    _beat(socket)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, LINK_QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, LINK_QUEUE_MAX)
    return socket


def new_pub(context: Context, keys: KeyPair, cluster: str) -> Socket:
    """Tells every subscriber, at most once each."""
    socket = _new_socket(context, zmq.PUB)
    _serve_curve(socket, keys, cluster)
    socket.setsockopt(zmq.SNDHWM, PUB_QUEUE_MAX)
    return socket


def new_sub(context: Context, keys: KeyPair) -> Socket:
    """Hears all peers. Never give it HEARTBEAT_IVL or a finite RCVHWM: see the top."""
    socket = _new_socket(context, zmq.SUB)
    _join_curve(socket, keys)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    return socket


def new_dealer(context: Context, keys: KeyPair) -> Socket:
    """One connection to one peer."""
    socket = _new_socket(context, zmq.DEALER)
    _join_curve(socket, keys)
    _beat(socket)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_NEVER)
    socket.setsockopt(zmq.SNDHWM, LINK_QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, LINK_QUEUE_MAX)
    return socket


def new_inproc(context: Context, kind: int) -> Socket:
    """A socket between the loop and libzmq's own threads. No limit on its queue: a full one would
    hold up the thread that serves all connections, and with it every call that waits for it."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    return socket


@functools.lru_cache(maxsize=HOSTS_REMEMBERED_MAX)
def canonical_host(host: str) -> str | None:
    """An IP address in its one spelling (an IPv4 address mapped into IPv6 is IPv4), else None."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def integer_option(socket: Socket, option: int) -> int:
    """A socket option that is a number."""
    value = socket.getsockopt(option)
    assert isinstance(value, int)
    return value


def canonical_address(address: Address) -> Address | None:
    """The one spelling of an address that can be connected to, else None. Names are not resolved:
    a name and an IP address of one peer would be two connections, and every message double."""
    host = canonical_host(address.host)
    if host is None or not 0 < address.port < 65536:
        return None
    return address if host == address.host else Address(host, address.port)


def endpoint_of(address: Address) -> str:
    """The address as libzmq writes it."""
    return f"tcp://{address}"


def _new_socket(context: Context, kind: int) -> Socket:
    socket = context.socket(kind)
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.IPV6, 1),
        (zmq.MAXMSGSIZE, CHUNK_FRAME_BYTES_MAX + FRAME_BYTES_SLACK),
        (zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS),
        (zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS),
        (zmq.TCP_MAXRT, UNACKNOWLEDGED_MS_MAX),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S),
        (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S),
        (zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT),
    ):
        socket.setsockopt(option, value)
    return socket


def _serve_curve(socket: Socket, keys: KeyPair, cluster: str) -> None:
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_z85)
    socket.setsockopt(zmq.ZAP_DOMAIN, cluster.encode())
    # Without this libzmq lets everybody in while no ZAP handler is there.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def _join_curve(socket: Socket, keys: KeyPair) -> None:
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public_z85)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_z85)
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.public_z85)


def _beat(socket: Socket) -> None:
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
