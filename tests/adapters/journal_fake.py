"""A daemon that has nothing but a journal: the lock, the socket, and events put there by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from parkingd.adapters.control_wire import Reply, Request, decode_request_untrusted, encode_reply
from parkingd.adapters.rundir import ControlLock, control_socket_path
from tests.adapters.control_fake import NOON, NOON_MS

POLL_MS = 10


def event(seq: int, kind: str = "admitted", **more: object) -> dict[str, Any]:
    place = {"plate": f"CAR{seq}", "gate": seq % 4 + 1}
    return {"seq": seq, "type": kind, "time": NOON, "member": "gary"} | place | more


class JournalDaemon:
    """Answers ``journal``; ``events`` may be appended to while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self.answers = True
        self.asked: list[dict[str, Any]] = []
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

    def _run(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.ROUTER)
        socket.bind(f"ipc://{self.path}")
        self._bound.set()
        waiting: list[tuple[bytes, Request, float]] = []
        try:
            while not self._ended.is_set():
                if socket.poll(POLL_MS):
                    link, frame = socket.recv_multipart()
                    request = decode_request_untrusted(frame)
                    assert isinstance(request, Request)
                    self.asked.append({str(key): value for key, value in request.args.items()})
                    if self.answers:
                        wait_s = self.asked[-1]["wait"]
                        waiting.append((link, request, time.monotonic() + wait_s))
                for link, request, until_s in waiting[:]:
                    body = self._body(request.args)
                    if body["items"] or time.monotonic() >= until_s:
                        waiting.remove((link, request, until_s))
                        reply = Reply(request.id, True, "EventList", "gary", NOON_MS, body)
                        socket.send_multipart([link, encode_reply(reply)])
        finally:
            context.destroy(linger=0)

    def _body(self, args: dict[Any, Any]) -> dict[str, Any]:
        last = self.events[-1]["seq"] if self.events else 0
        after, limit = args["after"], args["limit"]
        after = last if after is None else after
        first = self.events[0]["seq"] if self.events else 1
        later = [each for each in self.events if each["seq"] > after]
        chosen = [each for each in later if each["type"] in args.get("types", (each["type"],))]
        items = chosen[:limit]
        next_ = items[-1]["seq"] if len(chosen) > limit else max(after, last)
        missed = max(0, first - 1 - after)
        return {"items": items, "next": next_, "missed": missed, "last": last}


@contextmanager
def journal_daemon(runtime_dir: Path) -> Iterator[JournalDaemon]:
    daemon = JournalDaemon(control_socket_path(runtime_dir, "default", "gary"))
    try:
        yield daemon
    finally:
        daemon.stop()
