"""What the dashboard is told: a real control socket, and a daemon that does as it is scripted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from parkingd.adapters.control_wire import Reply, Request
from parkingd.adapters.rundir import control_socket_path
from parkingd.cli.top.feed import WATCH_S, Feed
from parkingd.cli.top.model import (
    Compared,
    Lost,
    Message,
    Model,
    Polled,
    TellsNothing,
    Told,
    after,
)
from tests.adapters.control_fake import NOON, NOON_MS, eventually
from tests.adapters.stand_in import StandIn


class ScriptedDaemon(StandIn):
    """Answers like a daemon of one node, and tells events if it has any.

    ``last``: the number of the last that it told in an earlier life.
    """

    def __init__(
        self, path: Path, incarnation: int = 1, journal: str = "0a", last: int = 0
    ) -> None:
        self.journal = journal
        self.incarnation = incarnation
        self.tells_events = True
        self.refused: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[tuple[str, Any]] = []
        self._last = last
        self._events: list[dict[str, Any]] = []
        self._missed = 0
        super().__init__(path)

    def tell(self, *items: dict[str, Any], missed: int = 0) -> None:
        self._missed += missed
        self._events += items
        self._last = max(self._last, items[-1]["seq"])

    def _lines(self, args: dict[Any, Any]) -> dict[str, Any] | None:
        """The answer to ``journal``; None as long as there is nothing to tell."""
        after = args.get("after", self._last)
        items = [each for each in self._events if each["seq"] > after]
        if args.get("wait") and not items:
            return None
        missed, self._missed = (self._missed, 0) if items else (0, self._missed)
        body = {"items": items, "next": self._last, "last": self._last, "missed": missed}
        return body | {"journal": self.journal}

    def begin(self) -> None:
        self._watchers: list[tuple[bytes, Request]] = []

    def asked_for(self, link: bytes, request: Request) -> None:
        self.asked.append((request.verb, request.args))
        if request.verb == "journal" and self.tells_events:
            self._watchers.append((link, request))
        elif request.verb not in self.silent:
            self.send(link, self._answer(request))

    def turn(self) -> None:
        for link, asked in list(self._watchers):
            body = self._lines(asked.args)
            if body is not None:
                self._watchers.remove((link, asked))
                self.send(link, self._reply(asked.id, "EventList", body))

    def _answer(self, request: Request) -> Reply:
        bodies: dict[str, tuple[str, dict[str, Any]]] = {
            "status": ("Status", {"incarnation": self.incarnation, "cluster": "default"}),
            "members": ("MemberList", {"items": [{"name": "gary", "state": "alive"}]}),
            "gates": ("GateList", {"items": [{"gate": 1, "state": "served", "owner": "gary"}]}),
            "digest": ("Digest", {"items": [{"root": "ab", "nodes": ["gary"]}], "unreachable": []}),
        }
        if request.verb in self.refused or request.verb not in bodies:
            code = "not_ready" if request.verb in self.refused else "usage"
            body = {"code": code, "reason": f"no verb {request.verb!r}", "hint": ""}
            return self._reply(request.id, "Error", body)
        return self._reply(request.id, *bodies[request.verb])

    def _reply(self, id_: int, kind: str, body: dict[str, Any]) -> Reply:
        return Reply(id_, True, kind, "gary", NOON_MS, body)


class Listener:
    """A feed, and all that it has said."""

    def __init__(self, path: Path, interval_s: float, timeout_s: float) -> None:
        self.messages: list[Message] = []
        self.woken = threading.Event()
        self.feed = Feed(path, interval_s, timeout_s, self.woken.set)

    def heard(self, kind: type[Message], count: int = 1) -> Callable[[], bool]:
        def has() -> bool:
            self.messages += self.feed.take()
            return sum(isinstance(each, kind) for each in self.messages) >= count

        return has

    def events(self) -> list[int]:
        return [
            item["seq"] for each in self.messages if isinstance(each, Told) for item in each.items
        ]

    @property
    def model(self) -> Model:
        model = Model()
        for message in self.messages:
            model = after(model, message)
        return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return control_socket_path(tmp_path, "default", "gary")


@contextmanager
def scripted(path: Path) -> Iterator[ScriptedDaemon]:
    daemon = ScriptedDaemon(path)
    try:
        yield daemon
    finally:
        daemon.stop()


@contextmanager
def listening(path: Path, interval_s: float = 0.05, timeout_s: float = 1.0) -> Iterator[Listener]:
    listener = Listener(path, interval_s, timeout_s)
    hook = threading.excepthook
    listener.feed.start()
    try:
        yield listener
    finally:
        listener.feed.stop()
        threading.excepthook = hook
        listener.feed.take()


def event(seq: int, kind: str = "entered") -> dict[str, Any]:
    return {"seq": seq, "type": kind, "time": NOON, "plate": f"CAR{seq}", "gate": 1}


def follows(after: int) -> dict[str, int]:
    return {"after": after, "wait": WATCH_S}


def test_looks_come_again_and_again_and_roots_beside_them(path: Path) -> None:
    with scripted(path), listening(path) as listener:
        eventually(listener.heard(Polled, 3))
        eventually(listener.heard(Compared))
        assert listener.woken.is_set()
        assert listener.model.node == "gary"
        assert [gate.owner for gate in listener.model.gates] == ["gary"]


def test_a_node_that_is_not_ready_yet_is_shown_without_gates(path: Path) -> None:
    with scripted(path) as daemon:
        daemon.refused.add("gates")
        with listening(path) as listener:
            eventually(listener.heard(Polled, 2))
            assert listener.model.gates == ()
            assert listener.model.lost is None


@pytest.mark.parametrize("kind", ["member_suspect", "gate_claimed"])
def test_what_changes_members_or_gates_is_looked_at_at_once(path: Path, kind: str) -> None:
    with scripted(path) as daemon, listening(path, interval_s=3_600) as listener:
        eventually(listener.heard(Polled))
        eventually(listener.heard(Told))
        daemon.tell(event(1, kind))
        eventually(listener.heard(Polled, 2))


def test_events_are_passed_on_as_they_are_told(path: Path) -> None:
    with scripted(path) as daemon, listening(path) as listener:
        eventually(listener.heard(Told))
        daemon.tell(event(1), event(2))
        eventually(listener.heard(Told, 2))
        daemon.tell(event(3, "exited"), missed=7)
        eventually(listener.heard(Told, 3))
        assert listener.events() == [1, 2, 3]
        assert listener.model.events_missed == 7
        assert listener.model.last_cars[1].plate == "CAR3"


def test_a_daemon_that_knows_no_events_is_asked_for_them_once(path: Path) -> None:
    with scripted(path) as daemon:
        daemon.tells_events = False
        with listening(path) as listener:
            eventually(listener.heard(TellsNothing))
            eventually(listener.heard(Polled, 5))
            assert [verb for verb, _ in daemon.asked].count("journal") == 1
            assert listener.model.no_events_reason == "no verb 'journal'"


def test_a_daemon_that_ends_is_lost_and_found_again_and_its_events_go_on(path: Path) -> None:
    daemon = ScriptedDaemon(path, incarnation=1)
    try:
        with listening(path) as listener:
            daemon.tell(event(8), event(9))
            eventually(lambda: listener.heard(Told)() and listener.events() == [8, 9])
            eventually(listener.heard(Polled))
            daemon.stop()
            eventually(listener.heard(Lost))
            assert listener.model.lost is not None
            daemon = ScriptedDaemon(path, incarnation=2, last=9)
            eventually(lambda: ("journal", follows(9)) in daemon.asked, within_s=15)
            daemon.tell(event(10))
            eventually(lambda: listener.heard(Told)() and 10 in listener.events(), 15)
            eventually(lambda: listener.heard(Polled)() and listener.model.lost is None, 15)
            assert listener.events() == [8, 9, 10]
    finally:
        daemon.stop()


def test_a_daemon_that_lost_its_disk_counts_anew(path: Path) -> None:
    daemon = ScriptedDaemon(path, incarnation=1)
    try:
        with listening(path) as listener:
            daemon.tell(event(8))
            eventually(lambda: listener.heard(Told)() and listener.events() == [8])
            daemon.stop()
            eventually(listener.heard(Lost))
            daemon = ScriptedDaemon(path, incarnation=2, journal="0b")
            daemon.tell(event(1), event(9))
            eventually(lambda: listener.heard(Told)() and listener.events() == [8, 1, 9], 15)
    finally:
        daemon.stop()


def test_a_restart_that_nobody_saw_is_noticed_and_what_it_can_tell_is_asked_anew(
    path: Path,
) -> None:
    with scripted(path) as daemon, listening(path, interval_s=3_600) as listener:
        daemon.tells_events = False
        eventually(listener.heard(TellsNothing))
        daemon.stop()
        daemon.tells_events = True
        daemon.tell(event(1))
        daemon.start()
        eventually(lambda: ("journal", follows(1)) in daemon.asked)
        asked = len(daemon.asked)
        daemon.stop()
        daemon.start()
        eventually(lambda: ("journal", follows(1)) in daemon.asked[asked:])
        assert listener.heard(Told)()
        assert listener.events() == [1]


def test_a_daemon_that_does_not_answer_is_not_lost(path: Path) -> None:
    with scripted(path) as daemon, listening(path, timeout_s=0.3) as listener:
        eventually(listener.heard(Polled))
        daemon.silent |= {"status", "members", "gates", "digest"}
        asked = len(daemon.asked)
        eventually(lambda: [verb for verb, _ in daemon.asked[asked:]].count("status") >= 2, 15)
        daemon.silent.clear()
        looks = sum(isinstance(each, Polled) for each in listener.messages)
        eventually(listener.heard(Polled, looks + 1), within_s=15)
        assert not any(isinstance(each, Lost) for each in listener.messages)


def test_roots_that_take_long_keep_nobody_waiting(path: Path) -> None:
    with scripted(path) as daemon:
        daemon.silent.add("digest")
        with listening(path) as listener:
            eventually(listener.heard(Polled, 5))
            assert not any(isinstance(each, Compared) for each in listener.messages)


def test_a_bug_in_a_thread_shows_where_the_messages_are_taken(path: Path) -> None:
    with scripted(path):
        feed = Feed(path, 0.05, 1.0, lambda: None)
        hook = threading.excepthook
        raised = threading.Event()

        def fail(*_: object) -> None:
            raised.set()
            raise ValueError("a bug")

        feed._say = fail  # type: ignore[method-assign]
        feed.start()
        try:
            assert raised.wait(5)
            with pytest.raises(ValueError, match="a bug"):
                eventually(lambda: bool(feed.take()))
        finally:
            feed.stop()
            threading.excepthook = hook
