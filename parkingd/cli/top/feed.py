"""What the daemon says, as messages for the model: three threads with a connection each.

One looks at status, members and gates at every interval; one has the roots compared, which may
take as long as the slowest member; one follows the events, if the daemon tells any. So nobody who
presses a key ever waits for an answer. Everything arrives on one queue, in the order it came.

A daemon that dies is asked for again, more and more slowly up to `RETRY_S_MAX`, for as long as the
dashboard is open. One that is slow is not dead: it is asked again, and meanwhile shown as stale.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from parkingd.adapters.client import (
    CODE_PROTOCOL_VERSION,
    CODE_TIMED_OUT,
    ControlClient,
    Trouble,
    document_of,
    items_of,
)
from parkingd.adapters.clock import wall_ms
from parkingd.adapters.control_wire import Reply
from parkingd.adapters.document_values import Document
from parkingd.cli.top.model import (
    Compared,
    Lost,
    Message,
    Moment,
    Polled,
    TellsNothing,
    Told,
)

SLICE_S: Final = 0.1
"""Waits are cut into pieces of this length, to see whether it is time to stop."""

RETRY_S_MIN: Final = 0.2
RETRY_S_MAX: Final = 3.0
"""Between two attempts to reach a daemon that is gone; doubled each time."""

COMPARE_S: Final = 2.0
"""Roots are compared no more often: every member is asked for its own."""

LOOK_AT: Final = ("member_", "gate_")
"""Events of these types change what the other panels show: it is looked at again at once, at most
once in `SLICE_S`."""

WATCH_S: Final = 10
"""So long one question waits for an event."""

HISTORY_EVENTS: Final = 500
"""Events from before this began that are asked for."""

STOP_WAIT_S: Final = 2.0

CODE_USAGE: Final = "usage"
"""How a daemon answers that does not know a verb."""


def read_moment() -> Moment:
    """Now, on both clocks."""
    return Moment(time.monotonic(), wall_ms())


class Feed:
    """The threads. ``wake`` is called whenever something new is in the queue."""

    def __init__(
        self, path: Path, interval_s: float, timeout_s: float, wake: Callable[[], None]
    ) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._wake = wake
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._again = threading.Event()
        self._interval_s = interval_s
        self._followed: object = None
        """The journal whose events were told last, and the number of the last of them: it counts
        on when its daemon is started again."""
        self._told_seq: int | None = None
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._keep_on, args=(act,), name=act.__name__, daemon=True)
            for act in (self._look, self._compare, self._follow)
        ]

    def start(self) -> None:
        """Begin to ask."""
        threading.excepthook = self._note_failure
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more; waits a moment for answers that are on their way."""
        self._stopping.set()
        self._again.set()
        until_s = time.monotonic() + STOP_WAIT_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def set_interval(self, interval_s: float) -> None:
        """From now on."""
        if interval_s != self._interval_s:
            self._interval_s = interval_s
            self._again.set()

    def take(self) -> list[Message]:
        """What has come since the last time. A bug in a thread is raised here, where it shows."""
        if self._failure is not None:
            raise self._failure
        taken: list[Message] = []
        while not self._messages.empty():
            taken.append(self._messages.get())
        return taken

    def _say(self, message: Message) -> None:
        self._messages.put(message)
        if not self._stopping.is_set():
            self._wake()

    def _note_failure(self, failed: threading.ExceptHookArgs) -> None:
        self._failure = failed.exc_value
        self._wake()

    def _keep_on(self, act: Callable[[ControlClient], Trouble | None]) -> None:
        """Connect, act until that ends in trouble, wait a little longer each time, again."""
        retry_s = RETRY_S_MIN
        while not self._stopping.is_set():
            client = ControlClient.connect(self._path, self._timeout_s)
            if isinstance(client, ControlClient):
                began_s = time.monotonic()
                try:
                    trouble = act(client)
                finally:
                    client.close()
                if time.monotonic() - began_s > RETRY_S_MAX:
                    retry_s = RETRY_S_MIN
            else:
                trouble = client
            if trouble is None or self._stopping.is_set():
                return
            if act == self._look and not _is_late(trouble):
                self._say(Lost(read_moment(), trouble.reason, trouble.code, trouble.hint))
            self._stopping.wait(retry_s)
            retry_s = min(2 * retry_s, RETRY_S_MAX)

    def _look(self, client: ControlClient) -> Trouble | None:
        """Status, members and gates, again and again."""
        while not self._stopping.is_set():
            self._again.clear()
            begun_s = time.monotonic()
            status = self._ask(client, "status")
            members = status if _ends(status) else self._ask(client, "members")
            gates = members if _ends(members) else self._ask(client, "gates")
            for answer in (status, members, gates):
                if isinstance(answer, Trouble) and _ends(answer):
                    return answer
            if isinstance(status, dict) and isinstance(members, dict):
                lot_gates = gates if isinstance(gates, dict) else None
                self._say(Polled(read_moment(), status, members, lot_gates))
            self._again.wait(max(0.0, begun_s + self._interval_s - time.monotonic()))
        return None

    def _compare(self, client: ControlClient) -> Trouble | None:
        """Everybody's root."""
        while not self._stopping.is_set():
            begun_s = time.monotonic()
            digest = self._ask(client, "digest")
            if isinstance(digest, Trouble) and _ends(digest):
                return digest
            if isinstance(digest, dict):
                self._say(Compared(read_moment(), digest))
            pause_s = max(COMPARE_S, self._interval_s)
            self._stopping.wait(max(0.0, begun_s + pause_s - time.monotonic()))
        return None

    def _follow(self, client: ControlClient) -> Trouble | None:
        """The events; a connection ends with the daemon that it was made to."""
        page = self._page(client, {"limit": 1})
        if isinstance(page, Trouble) and page.code == CODE_USAGE:
            self._say(TellsNothing(read_moment(), page.reason))
            return self._until_another(client)
        if not isinstance(page, Reply):
            return page
        journal = page.body.get("journal")
        if journal != self._followed or self._told_seq is None:
            # The latest of what happened before, at once.
            self._followed, self._told_seq = journal, max(0, _number(page, "last") - HISTORY_EVENTS)
            trouble = self._read(client, 0)
            if trouble is not None:
                return trouble
        while not self._stopping.is_set():
            trouble = self._read(client, WATCH_S)
            if trouble is not None:
                return trouble
        return None

    def _read(self, client: ControlClient, wait_s: int) -> Trouble | None:
        """Pass on what has happened since; ``wait_s``: for the first of it, if that is nothing.
        With 0, what is not kept any more is not missed: nobody has waited for it."""
        asked: dict[str, object] = {"after": self._told_seq, "wait": wait_s}
        page = self._page(client, asked)
        if not isinstance(page, Reply):
            return page
        items = tuple(page.body.get("items", ()))
        missed = _number(page, "missed") if wait_s else 0
        if items or missed or not wait_s:
            self._say(Told(read_moment(), items, missed))
            if wait_s and any(str(item.get("type", "")).startswith(LOOK_AT) for item in items):
                self._again.set()  # Who looks next second would show an old state beside it.
        self._told_seq = _number(page, "next")
        if wait_s and self._told_seq == _number(page, "last"):
            self._stopping.wait(SLICE_S)  # In a storm: not one by one.
        return None

    def _page(self, client: ControlClient, asked: dict[str, object]) -> Reply | Trouble | None:
        """One answer to ``journal``; None: it is time to stop."""
        timeout_s = WATCH_S + self._timeout_s
        id_ = client.send("journal", asked, timeout_s)
        until_s = time.monotonic() + timeout_s
        while not self._stopping.is_set():
            page = client.page(id_, min(until_s, time.monotonic() + SLICE_S))
            is_piece = isinstance(page, Trouble) and page.node is None and _is_late(page)
            if not is_piece or time.monotonic() >= until_s:
                return page
        return None

    def _until_another(self, client: ControlClient) -> Trouble | None:
        """Wait for a daemon that may know more: perhaps it is restarted in another version."""
        while not self._stopping.is_set():
            found = client.receive(time.monotonic() + SLICE_S)
            if isinstance(found, Trouble) and not _is_late(found):
                return found
        return None

    def _ask(self, client: ControlClient, verb: str) -> Document | Trouble:
        """One answer; the wait is cut into pieces."""
        id_ = client.send(verb, {}, self._timeout_s)
        until_s = time.monotonic() + self._timeout_s
        while True:
            page = client.page(id_, min(until_s, time.monotonic() + SLICE_S))
            if isinstance(page, Reply):
                return document_of(page, items_of(page))
            is_piece = page.node is None and page.code == CODE_TIMED_OUT
            if not is_piece or self._stopping.is_set() or time.monotonic() >= until_s:
                return page


def _number(page: Reply, key: str) -> int:
    value = page.body.get(key)
    return value if isinstance(value, int) else 0


def _is_late(trouble: Trouble) -> bool:
    return trouble.code == CODE_TIMED_OUT


def _ends(answer: Document | Trouble) -> bool:
    """The connection is of no use any more. What the daemon itself refuses is an answer."""
    if not isinstance(answer, Trouble):
        return False
    return answer.node is None or answer.code == CODE_PROTOCOL_VERSION
