"""One TCP connection of our own to learn what a failed link cannot tell.

libzmq reports a refused connection and one that timed out with the same event, and a listener
that hangs up looks the same whatever it is. Both matter: only a refusal is evidence that a process
has died (DESIGN section 6), and only a peer that speaks CURVE can be said to have another cookie.
So we connect once, send the greeting of ZMTP 3.1 and read theirs. ZMTP: RFC 37, section 2.
"""

from __future__ import annotations

import asyncio
import socket
from enum import Enum, auto
from typing import Final

from parkingd.protocol.messages import Address

ANSWER_TIMEOUT_S: Final = 1.0

SIGNATURE: Final = b"\xff" + bytes(7) + b"\x01\x7f"
MECHANISM: Final = b"CURVE".ljust(20, b"\0")
GREETING: Final = SIGNATURE + b"\x03\x01" + MECHANISM + bytes(32)
GREETING_BYTES: Final = 64
MECHANISM_AT: Final = 12


class Answer(Enum):
    """What there is at an address."""

    NOBODY = auto()
    """The machine says that no process listens."""
    UNREACHABLE = auto()
    """No connection, for any other reason."""
    CURVE = auto()
    """A ZeroMQ peer that asks for CURVE keys."""
    OTHER = auto()
    """A listener that is none: hangs up, is silent, or speaks something else."""


async def ask(loop: asyncio.AbstractEventLoop, address: Address) -> Answer:
    """Connect and read the greeting; done within two seconds."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await loop.sock_connect(connection, (address.host, address.port))
        except ConnectionRefusedError:
            return Answer.NOBODY
        except OSError:
            return Answer.UNREACHABLE
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await _read_greeting(loop, connection)
        except OSError:
            return Answer.OTHER


async def _read_greeting(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> Answer:
    await loop.sock_sendall(connection, GREETING)
    greeting = b""
    while len(greeting) < GREETING_BYTES:
        more = await loop.sock_recv(connection, GREETING_BYTES - len(greeting))
        if not more:
            return Answer.OTHER
        greeting += more
    mechanism = greeting[MECHANISM_AT : MECHANISM_AT + len(MECHANISM)]
    spoken = greeting[0] == SIGNATURE[0] and greeting[9] == SIGNATURE[9]
    return Answer.CURVE if spoken and mechanism == MECHANISM else Answer.OTHER
