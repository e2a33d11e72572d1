"""Binds a ROUTER and, on the next port, a PUB.

The pair is found by binding, never by asking first: between asking and binding somebody else may
have come. Two daemons that start together and search the same range therefore end on two pairs.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import zmq

from parkingd.adapters.transport.sockets import Socket, canonical_host
from parkingd.errors import ConfigError

FIRST_PORT: Final = 7744
PAIRS_TRIED_MAX: Final = 500
"""Pairs from `FIRST_PORT` up: more daemons than one machine runs."""
ANY_TRIES_MAX: Final = 50
"""Ports from the kernel whose neighbour turned out to be taken."""

EVERY_INTERFACE: Final = "*"


@dataclass(frozen=True, slots=True)
class _Taken:
    port: int


def bind_pair(router: Socket, pub: Socket, host: str | None, port: int | None) -> tuple[int, int]:
    """The two ports. ``host`` None: all interfaces, IPv6 and IPv4. ``port`` None: the first
    free pair from 7744; 0: any free pair. ConfigError when there is none, with what to do."""
    where = EVERY_INTERFACE
    if host is not None:
        address = canonical_host(host)
        if address is None:
            raise ConfigError(
                f"--host {host} is not an IP address", "give an address of this machine"
            )
        where = f"[{address}]" if ":" in address else address
    if port is None:
        wanted: Iterable[int] = range(FIRST_PORT, FIRST_PORT + 2 * PAIRS_TRIED_MAX, 2)
        nothing = f"no free pair of ports from {FIRST_PORT} up"
    elif port == 0:
        wanted = (0 for _ in range(ANY_TRIES_MAX))
        nothing = "the kernel has no free pair of ports"
    elif 0 < port < 65535:
        wanted = (port,)
        nothing = f"port {port} is in use"
    else:
        raise ConfigError(f"port {port} is out of range", "give 1 to 65534; the PUB takes the next")
    for candidate in wanted:
        match _bind_both(router, pub, where, candidate):
            case (router_port, pub_port):
                return router_port, pub_port
            case _Taken(taken) if port:
                nothing = f"port {taken} is in use"
            case _Taken():
                pass
    raise ConfigError(
        nothing, "stop what listens there, or give another --port; --port 0 takes any free pair"
    )


def _bind_both(router: Socket, pub: Socket, where: str, port: int) -> tuple[int, int] | _Taken:
    router_port = _bind(router, where, port)
    if router_port is None:
        return _Taken(port)
    pub_port = router_port + 1
    if pub_port < 65536 and _bind(pub, where, pub_port) is not None:
        return router_port, pub_port
    router.unbind(_last_endpoint(router))
    return _Taken(pub_port)


def _bind(socket: Socket, where: str, port: int) -> int | None:
    """The port, or None when it is in use."""
    try:
        socket.bind(f"tcp://{where}:{port or EVERY_INTERFACE}")
    except zmq.ZMQError as error:
        match error.errno:
            case errno.EADDRINUSE:
                return None
            case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT if where == EVERY_INTERFACE and (
                socket.getsockopt(zmq.IPV6)
            ):
                socket.setsockopt(zmq.IPV6, 0)  # a kernel without IPv6
                return _bind(socket, where, port)
            case errno.EADDRNOTAVAIL | errno.ENODEV | errno.EAFNOSUPPORT:
                raise ConfigError(
                    f"this machine has no address {where}",
                    "give --host one of its addresses, or leave it out",
                ) from error
            case errno.EACCES | errno.EPERM:
                raise ConfigError(
                    f"not allowed to listen on port {port}", "give a --port above 1023"
                ) from error
            case _:
                raise ConfigError(f"cannot listen on port {port}: {error.strerror}") from error
    return int(_last_endpoint(socket).rpartition(":")[2])


def _last_endpoint(socket: Socket) -> str:
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    return endpoint.rstrip(b"\0").decode()
