"""The daemon's journal as its readers see it: page after page, and on from there.

Each question is one request that names how far its reader has come, so a reader costs the daemon
nothing while it is busy, and one that fell behind is told how much is gone instead of holding
anybody up. Who follows asks with a wait: the daemon answers when something has happened.

A daemon that stops is waited for, for `reconnect_s` and not longer, and asked for what came next:
numbers go on through restarts. Where they do not, because its data directory is a new one (then
the journal has another name) or was restored from an older copy (then the last event that was read
is another one), the reader is told so and begins with the first.

Invariants: every wait ends; numbers only grow between two notes that say otherwise.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from parkingd.adapters.client import (
    CODE_DAEMON_STOPPED,
    CODE_NO_DAEMON,
    CODE_TIMED_OUT,
    GRACE_S,
    ControlClient,
    Trouble,
)
from parkingd.adapters.control_wire import Reply
from parkingd.adapters.document_values import API, Document, rfc3339
from parkingd.cli.ctl_session import Session
from parkingd.cli.flag_parser import did_you_mean
from parkingd.cli.journal_options import RECONNECT_S
from parkingd.errors import UsageError
from parkingd.protocol.event_types import EVENT_TYPES

PAGE_EVENTS: Final = 500
"""Some 100 KiB: enough to read a month in seconds, and little to hold."""

WAIT_S: Final = 20
"""How long the daemon may keep a question for the next event."""

LOOK_S: Final = 0.25
"""While nothing happens, look this often whether our own reader has gone."""

RETRY_S_MIN: Final = 0.1
RETRY_S_MAX: Final = 0.5
"""Between two attempts to reach a daemon that has stopped; doubled each time."""

WINDOW_EVENTS: Final = 1_000
WINDOW_GROWTH: Final = 4
"""The newest are looked for among so many last numbers, then among four times as many."""

_COMES_BACK: Final = (CODE_DAEMON_STOPPED, CODE_NO_DAEMON, CODE_TIMED_OUT)


class Selection(NamedTuple):
    """Which events. Times in wall milliseconds; None and empty for all."""

    types: tuple[str, ...] = ()
    plate: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class Page(NamedTuple):
    """One answer. ``missed`` events before the first of these are no longer kept."""

    events: list[Document]
    after: int
    """What was asked for: numbers above this one."""
    next_after: int
    missed: int
    last: int
    """The greatest number that the journal has given."""
    journal: str
    """Its name: numbers of another one say nothing about this one's."""
    node: str | None = None
    at: str = ""
    """Who said so, and when."""


class Journal:
    """What one command reads of it."""

    def __init__(
        self, session: Session, selection: Selection, reconnect_s: float = RECONNECT_S
    ) -> None:
        self._session = session
        self._selection = selection
        self._reconnect_s = reconnect_s
        self.watches_output = True
        """End with BrokenPipeError as soon as nobody reads standard output any more."""
        self._followed: str | None = None
        """The journal that positions are of; None: not known yet."""

    def end(self) -> int | Trouble:
        """The last number that was given so far; 0 for none."""
        page = self._ask(None, 1, 0)
        if isinstance(page, Trouble):
            return page
        self._followed = page.journal
        return page.last

    def pages(self, after: int, last: int) -> Iterator[Page | Trouble]:
        """What is there above ``after`` and up to ``last``. A Trouble is the last."""
        while True:
            page = self._ask(after, PAGE_EVENTS, 0)
            if isinstance(page, Trouble):
                yield page
                return
            yield page._replace(events=[each for each in page.events if each["seq"] <= last])
            if page.next_after >= last or page.next_after <= after:
                return
            after = page.next_after

    def newest(self, count: int, last: int) -> Iterator[Page | Trouble]:
        """The newest ``count`` up to ``last``, as one page.

        Holds no more than these, and looks among the last numbers first.
        """
        window = max(WINDOW_EVENTS, count)
        while True:
            found: deque[Document] = deque(maxlen=count)
            after = max(0, last - window)
            for page in self.pages(after, last):
                if isinstance(page, Trouble):
                    yield page
                    return
                found.extend(page.events)
            if len(found) == count or after == 0:
                yield Page(list(found), 0, last, 0, last, self._followed or "")
                return
            window *= WINDOW_GROWTH

    def follow(self, after: int) -> Iterator[Page | Trouble]:
        """What comes, for ever. A Trouble is the last."""
        wait_s = 0  # The first answer of a daemon comes at once: it tells whether numbers fit.
        outage = _Outage(self._session, self._reconnect_s)
        seen: Document | None = None
        while True:
            # A daemon that was away is asked for the last event again: was it restored?
            known = seen if outage.is_on else None
            page = self._ask(known["seq"] - 1 if known else after, PAGE_EVENTS, wait_s)
            if isinstance(page, Trouble):
                if outage.is_over(page, after):
                    yield outage.verdict
                    return
                outage.pause()
                self._insist_on_a_reader()
                self._session.close()
                wait_s = 0
                continue
            outage.end(after)
            going_on = _continued(page, after, known)
            is_same = self._followed in (None, page.journal)
            self._followed = page.journal
            if going_on is None or (after and not is_same):
                self._session.note(
                    "begun_anew",
                    f"event {after} is not in this journal: it was begun anew",
                    "going on with its first event",
                )
                after, seen, wait_s = 0, None, 0
                continue
            yield going_on
            after, wait_s = going_on.next_after, WAIT_S
            seen = going_on.events[-1] if going_on.events else seen

    def _ask(self, after: int | None, limit: int, wait_s: int) -> Page | Trouble:
        client = self._session.connect()
        if isinstance(client, Trouble):
            return client
        args: dict[str, Any] = {"after": after, "limit": limit, "wait": wait_s}
        chosen = self._selection._asdict()
        args |= {key: value for key, value in chosen.items() if value not in (None, ())}
        answer_s = wait_s + self._session.timeout_s
        id_ = client.send("journal", args, answer_s)
        reply = self._receive(client, id_, time.monotonic() + answer_s + GRACE_S)
        return reply if isinstance(reply, Trouble) else _page_of(reply, after or 0)

    def _receive(self, client: ControlClient, id_: int, until_s: float) -> Reply | Trouble:
        while True:
            reply = client.page(id_, min(until_s, time.monotonic() + LOOK_S))
            if isinstance(reply, Reply) or reply.node is not None or reply.code != CODE_TIMED_OUT:
                return reply
            if time.monotonic() >= until_s:
                return reply
            self._insist_on_a_reader()

    def _insist_on_a_reader(self) -> None:
        if self.watches_output and not self._session.is_read():
            raise BrokenPipeError


class _Outage:
    """A daemon that does not answer, from the first time it did not to the first that it does."""

    def __init__(self, session: Session, patience_s: float) -> None:
        self._session = session
        self._patience_s = patience_s
        self._until_s = 0.0
        self._retry_s = RETRY_S_MIN
        self.is_on = False
        self.verdict = Trouble("", "")
        """Why it is given up."""

    def is_over(self, trouble: Trouble, after: int) -> bool:
        """Whether this trouble is not worth waiting any more; the first one is announced."""
        resume = f"to go on from here: --from {after + 1}"
        self.verdict = trouble._replace(hint=trouble.hint or resume)
        if trouble.code not in _COMES_BACK or self._patience_s <= 0:
            return True
        now_s = time.monotonic()
        if not self.is_on:
            self.is_on, self._until_s = True, now_s + self._patience_s
            hint = f"waiting up to {self._patience_s:g} s for it"
            self._session.note("reconnecting", trouble.reason, hint)
        reason = f"{trouble.reason}, for {self._patience_s:g} s"
        self.verdict = trouble._replace(reason=reason, hint=resume)
        return now_s >= self._until_s

    def pause(self) -> None:
        """A little longer each time."""
        time.sleep(self._retry_s)
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)

    def end(self, after: int) -> None:
        """It has answered."""
        if self.is_on:
            self._session.note("reconnected", "it is back", f"going on with event {after + 1}")
        self.is_on, self._retry_s = False, RETRY_S_MIN


def _continued(page: Page, after: int, known: Document | None) -> Page | None:
    """What this page has above ``after``; None if the journal was begun anew or restored.

    ``known``: an event from before, which the page was asked to begin with.
    """
    if page.last < after:
        return None
    missed = max(0, page.after + page.missed - after)
    if known is not None and not page.missed:  # Else the known one is kept no more.
        first = page.events[0] if page.events else {}
        if (first.get("seq"), first.get("time")) != (known["seq"], known["time"]):
            return None
    events = [event for event in page.events if event["seq"] > after]
    return page._replace(events=events, after=after, missed=missed)


def chosen_types(given: Sequence[str] | None) -> tuple[str, ...]:
    """Each once, in the order they were given in. Raises UsageError for one that is none."""
    words = (word.strip().lower() for text in given or () for word in text.split(","))
    chosen = tuple(dict.fromkeys(word for word in words if word))
    for word in chosen:
        if word not in EVENT_TYPES:
            raise UsageError(
                f"no event is of type {word!r}",
                did_you_mean(word, EVENT_TYPES) or f"the types are {', '.join(EVENT_TYPES)}",
            )
    return chosen


def _page_of(reply: Reply, after: int) -> Page:
    body = reply.body
    at = rfc3339(reply.at_ms)
    shared = {"api": API, "kind": "Event", "node": reply.node, "at": at}
    events = [shared | item for item in body.get("items", ())]
    next_after = max(after, int(body["next"]))
    missed, last, journal = int(body["missed"]), int(body["last"]), str(body.get("journal", ""))
    return Page(events, after, next_after, missed, last, journal, reply.node, at)


def missed_event(page: Page) -> Document:
    """What a reader of JSON is told instead of the events that are gone.

    Its ``seq`` is the last that was missed: whoever goes on with the next number misses nothing.
    """
    first, seq = page.after + 1, page.after + page.missed
    gone = {"type": "missed", "seq": seq, "first": first, "count": page.missed}
    shared = {"api": API, "kind": "Event", "node": page.node, "at": page.at}
    return shared | gone | {"time": page.at}
