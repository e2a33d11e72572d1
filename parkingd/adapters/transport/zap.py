"""The doorkeeper: a ZAP handler that lets in the cluster's own key and nobody else.

libzmq asks it, over ``inproc://zeromq.zap.01`` of the same context, about every client whose
handshake got that far: one that knew our public key. It must be there before the first bind.
It sees a connection once: a key cannot be taken away from a connection that is already open,
which is why a cookie is changed by restarting. RFC 27 (ZAP), DESIGN section 9.
"""

from __future__ import annotations

import asyncio
from typing import Final

import zmq
from zmq.utils import z85

from parkingd.adapters.transport.curve import KeyPair
from parkingd.adapters.transport.drain import Drain
from parkingd.adapters.transport.sockets import Context, new_inproc

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
ZAP_VERSION: Final = b"1.0"
REQUEST_FRAMES_MAX: Final = 7
"""Version, request id, domain, address, routing id, mechanism, and one credential for CURVE."""


class Doorkeeper:
    """Answers handshakes in the loop. A loop that stands still lets nobody in meanwhile."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context, keys: KeyPair, cluster: str
    ) -> None:
        self._key = z85.decode(keys.public_z85)
        self._domain = cluster.encode()
        socket = new_inproc(context, zmq.REP)
        socket.bind(ZAP_ENDPOINT)
        self._drain = Drain(loop, socket, REQUEST_FRAMES_MAX, self._take)

    def close(self) -> None:
        """No handshake succeeds from here on."""
        self._drain.close()

    def _take(self, frames: list[zmq.Frame]) -> None:
        match [frame.bytes for frame in frames]:
            case [_, request, self._domain, _, _, b"CURVE", self._key]:
                verdict = [b"200", b"OK", b"", b""]
            case [_, request, *_]:
                verdict = [b"400", b"not this cluster", b"", b""]
            case _:
                raise AssertionError("libzmq asked without a request id")
        self._drain.socket.send_multipart([ZAP_VERSION, request, *verdict], zmq.NOBLOCK)
        self._drain.sent()
