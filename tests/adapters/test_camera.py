"""`examples/camera.sh` against a real control socket: one id for one car, however it goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parkingd.protocol.commands import AskToEnter, Command
from parkingd.protocol.outcomes import Decision, Outcome
from tests.adapters.control_fake import RunningServer, running

CAMERA = Path(__file__).parents[2] / "examples/camera.sh"


def decision(word: str, reason: str, asked: AskToEnter) -> Decision:
    return Decision(word, reason, asked.plate, asked.gate, 7, "gary", 1, request=asked.request)


def film(folder: Path, plates: str) -> list[str]:
    """What it says; every time the barrier opens is one letter in the file `opened`."""
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PARKINGD_RUNTIME_DIR": str(folder),
        "CAMERA_PAUSE_S": "0.01",
    }
    barrier = ["sh", "-c", f"printf o >>{folder}/opened"]
    done = subprocess.run(
        ["bash", str(CAMERA), "3", *barrier],
        input=plates,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def answer_with(server: RunningServer, *answers: tuple[str, str]) -> None:
    """The decisions of the next cars that ask, in this order."""
    left = list(answers)

    def answer(command: Command) -> tuple[Outcome, ...]:
        assert isinstance(command, AskToEnter)
        return (decision(*left.pop(0), command),)

    server.node._answer = answer  # type: ignore[method-assign]


def test_who_is_admitted_gets_in_and_who_is_denied_is_told_why(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        answer_with(server, ("admitted", "ok"), ("denied", "full"))
        assert film(tmp_path, "KA PI 314\nM-TX 42\n") == [
            "KA PI 314: admitted",
            "M-TX 42: denied, full",
        ]
        assert (tmp_path / "opened").read_text() == "o"
        first, second = (asked for asked in server.node.seen if isinstance(asked, AskToEnter))
    assert (first.plate, first.gate) == ("KA PI 314", 3)
    assert first.request != second.request


@pytest.mark.parametrize("reason", ["no_owner", "draining"])
def test_a_car_about_which_nobody_decided_asks_again_under_the_same_id(
    tmp_path: Path, reason: str
) -> None:
    with running(tmp_path) as server:
        answer_with(server, ("denied", reason), ("admitted", "ok"))
        assert film(tmp_path, "ABC123\n") == ["ABC123: admitted"]
        ids = [asked.request for asked in server.node.seen if isinstance(asked, AskToEnter)]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert (tmp_path / "opened").read_text() == "o"


def test_without_a_daemon_the_barrier_stays_closed_and_the_id_is_said(tmp_path: Path) -> None:
    (line,) = film(tmp_path, "ABC123\n")
    assert line.startswith("ABC123: nobody answered; repeat it with --request-id ")
    assert len(line.split()[-1]) == 32
    assert not (tmp_path / "opened").exists()
