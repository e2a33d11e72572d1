"""A node made by hand: it has the cookie, or another, and says what it likes.

It binds a ROUTER and a PUB as a daemon does, can be greeted and dialled, and answers hellos with
whatever the test gives it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from types import TracebackType

import msgpack  # type: ignore[import-untyped]
import zmq

from parkingd.adapters.keys import derive_keys
from parkingd.adapters.transport.curve import KeyPair
from parkingd.protocol.codec import Decoded, decode_untrusted, encode
from parkingd.protocol.messages import Hello, Message
from tests.daemon.cable import PORTS

NAME = "mallory"
REPLICA = 0x6B03_DE85_0000_0001


class Impostor:
    """Sockets with the keys of one cookie and cluster."""

    def __init__(self, cookie: str, cluster: str = "default") -> None:
        self.cluster = cluster
        self.incarnation = int(time.time() * 1_000)
        self._keys: KeyPair = derive_keys(cookie, cluster)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router, self.pub, self.port = self._bound_pair()

    def __enter__(self) -> Impostor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)

    def _bound_pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes], int]:
        for port in random.sample(PORTS, 100):
            router, pub = self._server(zmq.ROUTER), self._server(zmq.PUB)
            try:
                router.bind(f"tcp://127.0.0.1:{port}")
                pub.bind(f"tcp://127.0.0.1:{port + 1}")
            except zmq.ZMQError:
                router.close()
                pub.close()
                continue
            return router, pub, port
        raise AssertionError("no free ports")

    def _server(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret_z85)
        return socket

    def connected(self, kind: int, port: int) -> zmq.Socket[bytes]:
        """A socket that joins a daemon's port as a client."""
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public_z85)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret_z85)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.public_z85)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"tcp://127.0.0.1:{port}")
        return socket

    def frame(self, message: Message) -> bytes:
        """A message of this node."""
        return encode(
            message,
            cluster=self.cluster,
            name=NAME,
            replica=REPLICA,
            incarnation=self.incarnation,
        )

    def foreign_frame(self, wire: int = 2) -> bytes:
        """What a node of another wire version may send: nothing after the number is known."""
        frame: bytes = msgpack.packb([wire, 1, self.cluster, NAME, {"new": "form"}])
        return frame

    def hello(self, lot: bytes | None, *, answer: bool) -> bytes:
        """A good hello of this node."""
        wall_ms = int(time.time() * 1_000)
        return self.frame(
            Hello(answer, lot, self.port, self.port + 1, wall_ms, (), True, "handmade", True, ())
        )

    def decode(self, frame: bytes) -> Decoded:
        """What a daemon said; WireError when that is no message."""
        return decode_untrusted(frame, cluster=self.cluster)

    def serve_until(
        self, condition: Callable[[], object], answer: bytes, timeout_s: float = 10.0
    ) -> None:
        """Give this answer to whoever asks, until the condition holds."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "the condition never held"
            while self.router.poll(20):
                route, *_ = self.router.recv_multipart()
                self.router.send_multipart([route, answer])
