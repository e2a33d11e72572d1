"""The demonstration in a terminal: it is shown, a daemon dies, and nothing is left of it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from car_park_day import read_day, steps_of
from demo import BEGINS_AT_S, INTERRUPTED, arrivals_of, opening_of
from replay_day import DATA, DAYS

from tests.daemon.harness import until
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
    window = Window("--kill-every", "2")
    try:
        window.until(lambda: "1 dead" in window.screen.text, "shown with a dead member")
        assert "/404 inside" in window.screen.text
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


def test_without_a_terminal_it_says_what_happens_and_ends_in_time() -> None:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("--seconds", "2", "--kill-every", "2", **pipes)
    try:
        folder = until(lambda: folder_of(process), "the daemons run", PATIENCE_S)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, err) == (0, "")
        assert "\n# gary is killed (-9)\n# gary is started again\n" in out
        assert "/404 inside" in out
        found = re.search(r"^# [1-9]\d* cars came, .* One root on all three: ", out, re.MULTILINE)
        assert found, out
        assert session_of(process) == {}
        assert not folder.exists()
    finally:
        end(process)


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
