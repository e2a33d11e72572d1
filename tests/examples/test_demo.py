"""The demonstration in a terminal: it is shown, a daemon dies, and nothing is left of it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from car_park_day import Movement, read_day, steps_of
from demo import BEGINS_AT_S, INTERRUPTED, Dashboard, Show, arrivals_of, opening_of
from lane_computers import LaneComputers
from local_cluster import LocalCluster
from replay_day import DATA, DAYS

from tests.emulator import Emulator

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 60.0


class Window:
    """A terminal of 80x24 in which the demonstration runs, with a session of its own."""

    def __init__(self, *arguments: str) -> None:
        self._leader, follower = pty.openpty()
        self.screen = Emulator(80, 24)
        self.process = start(
            *arguments, stdin=follower, stdout=follower, stderr=follower, TERM="xterm-256color"
        )
        os.close(follower)
        os.set_blocking(self._leader, False)

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline_s, f"not {what}:\n{self.screen.text}"
            try:
                self.screen.feed(os.read(self._leader, 65_536))
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # Nobody has the other end any more.
                self.process.wait(PATIENCE_S)
                assert holds(), f"not {what}:\n{self.screen.text}"

    def close(self) -> None:
        end(self.process)
        os.close(self._leader)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"LANG": "C.UTF-8", "TERM": options.pop("TERM", "dumb")}
    command = [sys.executable, str(EXAMPLES / "demo.py"), *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=True, text=True, **options)


def end(process: subprocess.Popen[str]) -> None:
    """Whatever is left of its session."""
    for pid in session_of(process):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def session_of(process: subprocess.Popen[str]) -> dict[int, Path]:
    """Who lives in its session, and the HOME of each."""
    found: dict[int, Path] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # It has just ended.
        if fields[0] != "Z" and int(fields[3]) == process.pid:
            home = next((each for each in environment if each.startswith(b"HOME=")), b"HOME=/")
            found[int(entry.name)] = Path(os.fsdecode(home[5:]))
    return found


def folder_of(process: subprocess.Popen[str]) -> Path | None:
    """Where its daemons have their home; None before they run."""
    homes = {home for home in session_of(process).values() if home.name == "home"}
    return next((home.parent for home in homes if home.parent.name.startswith("parkingd-")), None)


def test_the_demonstration_shows_daemons_that_die_and_ctrl_c_leaves_nothing_behind() -> None:
    window = Window("--kill-every", "3")
    try:
        window.until(lambda: "1 dead" in window.screen.text, "shown with a dead member")
        assert "/404 inside" in window.screen.text
        window.until(lambda: "3 alive" in window.screen.text, "shown with all three alive again")
        folder = folder_of(window.process)
        assert folder is not None
        assert folder.exists()
        os.killpg(window.process.pid, signal.SIGINT)
        window.until(lambda: window.process.poll() is not None, "ended")
        assert window.process.returncode == INTERRUPTED
        assert session_of(window.process) == {}
        assert not folder.exists()
        assert "Traceback" not in window.screen.text
    finally:
        window.close()


@pytest.mark.parametrize(("term", "is_shown"), [("xterm", True), ("dumb", False), ("", False)])
def test_a_terminal_that_cannot_move_its_cursor_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, term: str, is_shown: bool
) -> None:
    leader, follower = os.openpty()
    with open(leader), open(follower) as keys, open(os.dup(follower), "w") as screen:
        monkeypatch.setattr(sys, "stdin", keys)
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setenv("TERM", term)
        assert Dashboard(LocalCluster()).is_shown == is_shown


class FakeNodes(LaneComputers):
    """Admits a car while fewer than its spaces are taken, and takes note of who dies."""

    def __init__(self, spaces: int) -> None:
        self.spaces = spaces
        self.inside: set[str] = set()
        self.incidents: list[tuple[str, str]] = []

    def import_cars(self, movements: Sequence[Movement]) -> None:
        self.inside = {each.plate for each in movements}

    def move(self, movement: Movement) -> dict[str, Any]:
        if not movement.enters:
            self.inside.remove(movement.plate)
            return {}
        if len(self.inside) >= self.spaces:
            return {"decision": "denied"}
        self.inside.add(movement.plate)
        return {"decision": "admitted"}

    def kill(self, name: str) -> None:
        self.incidents.append(("killed", name))

    def start_alone(self, *names: str) -> None:
        self.incidents += [("started", name) for name in names]

    def root(self) -> str:
        return "the root"


class FakeDashboard(Dashboard):
    """Nobody looks, nobody waits, and after so many waits somebody leaves."""

    def __init__(self, waits: int) -> None:
        self.is_shown = True
        self._waits = waits

    def wait(self, seconds: float) -> bool:
        self._waits -= 1
        return self._waits >= 0


def show_of(nodes: FakeNodes, waits: int = 100_000, seconds: float | None = None) -> Show:
    park = DAYS["ulm"]
    steps = list(steps_of(read_day(DATA / park.file, park.spaces), seed=1))
    show = Show(nodes, FakeDashboard(waits), kill_every_s=20.0)
    show.open(opening_of(steps))
    show.run(arrivals_of(steps), 300.0, seconds)
    return show


def test_a_show_ends_with_the_day_and_daemons_die_in_turn_meanwhile() -> None:
    nodes = FakeNodes(spaces=300)
    show = show_of(nodes)
    first = [("killed", "gary"), ("started", "gary"), ("killed", "harry"), ("started", "harry")]
    assert nodes.incidents[:5] == [*first, ("killed", "gary")]
    assert show.kills == sum(word == "killed" for word, _ in nodes.incidents) >= 9
    assert nodes.inside == set()
    assert show.turned_away > 100
    assert f"{show.turned_away:,} were turned away; daemons killed: " in show.summary()


def test_a_show_ends_in_time_or_when_somebody_leaves() -> None:
    in_time = show_of(FakeNodes(404), seconds=15.0)
    assert in_time.summary().endswith("; daemons killed: 1")  # And it is not back yet.
    left = show_of(FakeNodes(404), waits=30)
    assert 0 < left.came + left.left <= 30
    assert left.summary().endswith("one root on all three: the root")


@pytest.mark.parametrize("day", DAYS)
def test_the_cars_of_the_show_are_those_of_the_day(day: str) -> None:
    park = DAYS[day]
    steps = list(steps_of(read_day(DATA / park.file, park.spaces), seed=1))
    opening, arrivals = opening_of(steps), list(arrivals_of(steps))
    assert all(movement.enters for movement in opening)
    assert [each.at_s for each in arrivals] == sorted(each.at_s for each in arrivals)
    assert arrivals[0].at_s >= BEGINS_AT_S
    assert arrivals[-1].at_s < 86_400
    inside = len(opening) + sum(1 if each.movement.enters else -1 for each in arrivals)
    assert inside == steps[-1].reading.occupied
