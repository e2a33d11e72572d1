"""A daemon that has nothing but a journal: the lock, the socket, and events put there by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parkingd.adapters.control_wire import Reply, Request
from parkingd.adapters.rundir import control_socket_path
from tests.adapters.control_fake import NOON, NOON_MS
from tests.adapters.stand_in import StandIn


def event(seq: int, kind: str = "admitted", **more: object) -> dict[str, Any]:
    place = {"plate": f"CAR{seq}", "gate": seq % 4 + 1}
    return {"seq": seq, "type": kind, "time": NOON, "member": "gary"} | place | more


class JournalDaemon(StandIn):
    """Answers ``journal``; ``events`` may be appended to while it runs."""

    def __init__(self, path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self.journal = "0a"
        self.answers = True
        self.asked: list[dict[str, Any]] = []
        super().__init__(path)

    def begin(self) -> None:
        self._waiting: list[tuple[bytes, Request, float]] = []

    def asked_for(self, link: bytes, request: Request) -> None:
        self.asked.append({str(key): value for key, value in request.args.items()})
        if self.answers:
            wait_s = self.asked[-1]["wait"]
            self._waiting.append((link, request, time.monotonic() + wait_s))

    def turn(self) -> None:
        for link, request, until_s in self._waiting[:]:
            body = self._body(request.args)
            if body["items"] or time.monotonic() >= until_s:
                self._waiting.remove((link, request, until_s))
                self.send(link, Reply(request.id, True, "EventList", "gary", NOON_MS, body))

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
        body = {"items": items, "next": next_, "missed": missed, "last": last}
        return body | {"journal": self.journal}


@contextmanager
def journal_daemon(runtime_dir: Path) -> Iterator[JournalDaemon]:
    daemon = JournalDaemon(control_socket_path(runtime_dir, "default", "gary"))
    try:
        yield daemon
    finally:
        daemon.stop()
