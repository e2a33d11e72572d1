"""What stands in for a daemon holds: the lock, the control socket, and a thread that answers."""

from __future__ import annotations

import threading
from pathlib import Path

import zmq

from parkingd.adapters.control_wire import Reply, Request, decode_request_untrusted, encode_reply
from parkingd.adapters.rundir import ControlLock

POLL_MS = 10


class StandIn:
    """Answers as its subclass does: `asked_for` for each request, `turn` again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        self._lock = ControlLock.acquire(self.path)
        self._ended, self._bound = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._bound.wait(5)

    def stop(self) -> None:
        """Also twice."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join(10)
            self._lock.release()

    def begin(self) -> None:
        """A new process: nobody waits any more."""

    def asked_for(self, link: bytes, request: Request) -> None:
        """A request has come by this link."""
        raise NotImplementedError

    def turn(self) -> None:
        """Time has passed, or a request was taken."""

    def send(self, link: bytes, reply: Reply) -> None:
        self._socket.send_multipart([link, encode_reply(reply)])

    def _run(self) -> None:
        context = zmq.Context()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.bind(f"ipc://{self.path}")
        self.begin()
        self._bound.set()
        try:
            while not self._ended.is_set():
                if self._socket.poll(POLL_MS):
                    link, frame = self._socket.recv_multipart()
                    request = decode_request_untrusted(frame)
                    assert isinstance(request, Request)
                    self.asked_for(link, request)
                self.turn()
        finally:
            context.destroy(linger=0)
