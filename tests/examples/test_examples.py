"""The examples run as a stranger runs them, and find fault where there is one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from car_park_day import hours_of, read_day, steps_of
from lane_computers import LaneComputers
from local_cluster import LocalCluster, Unexpected
from replay_day import DATA, DAYS, CarPark, Replay
from three_terminals import Terminal

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN_S_MAX = 60.0

FAKE_CTL = """#!/bin/sh
echo asked >> "$0.count"
echo "plate  ABC$(wc -l < "$0.count" | tr -d ' ')"
"""
"""Its first answer is ABC1, its second ABC2."""


def start_script(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and output. A script that hangs is asked to stop, so that it can clean up."""
    try:
        out, err = process.communicate(timeout=RUN_S_MAX)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, err = process.communicate(timeout=RUN_S_MAX)
        pytest.fail(f"{process.args!r} hangs after:\n{out}\n{err}")
    return process.returncode, out, err


# --- the walk --------------------------------------------------------------------------------


def test_the_walk_goes_as_the_readme_says_and_can_be_looked_at_until_ctrl_c() -> None:
    process = start_script("three_terminals.py", "--keep")
    try:
        said = read_until(process, "$ export PARKINGD_RUNTIME_DIR=")
        runtime = Path(said[-1].strip().partition("=")[2])
        pids = daemons_in(runtime)
        ctl = Path(sys.executable).with_name("parkingd-ctl")
        asked = subprocess.run(
            [str(ctl), "--name", "gary", "--json", "lot"],
            env=os.environ | {"PARKINGD_RUNTIME_DIR": str(runtime)},
            capture_output=True,
            check=False,
        )
    finally:
        process.send_signal(signal.SIGINT)
        status, rest, err = finish(process)
    assert (status, err) == (0, "")
    assert json.loads(asked.stdout)["inside"] == 1
    assert len(pids) == 3
    leaves_nothing_behind(pids, runtime)
    out = "".join(said) + rest
    commands = [line for line in out.splitlines() if line.startswith("$ ")]
    assert [line for line in commands if line.startswith("$ parkingd ")] == [
        f"$ parkingd --name {name}"
        for name in ("larry", "gary", "harry", "larry", "larry", "gary", "harry")
    ]
    after_the_crash = out.partition("$ kill -9 ")[2]
    assert len(re.findall(r"^ABC123 .* larry ", after_the_crash, re.MULTILINE)) == 2
    assert re.search(r"^[0-9a-f]{32}  gary,harry,larry$", out, re.MULTILINE)


def test_a_walk_that_is_told_to_stop_leaves_nothing_behind() -> None:
    process = start_script("three_terminals.py")
    try:
        read_until(process, "$ parkingd-ctl")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        environment = Path(f"/proc/{children.split()[0]}/environ").read_text().split("\0")
        prefix = "PARKINGD_RUNTIME_DIR="
        (given,) = (each for each in environment if each.startswith(prefix))
        runtime = Path(given.removeprefix(prefix))
        pids = daemons_in(runtime)
    finally:
        process.terminate()
        status, _, err = finish(process)
    assert (status, err) == (128 + signal.SIGTERM, "")
    assert len(pids) == 3
    leaves_nothing_behind(pids, runtime)


def read_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """The lines up to the first that begins like this."""
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(wanted):
            return said
    pytest.fail(f"the walk ended without {wanted!r}")


def daemons_in(runtime: Path) -> list[int]:
    return [int(lock.read_text()) for lock in (runtime / "default").glob("*.lock")]


def leaves_nothing_behind(pids: list[int], runtime: Path) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not runtime.parent.parent.exists()


def test_a_reader_who_has_had_enough_ends_the_walk_without_a_word() -> None:
    process = start_script("three_terminals.py")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("# ")
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(RUN_S_MAX) == 1


class FakeCluster(LocalCluster):
    """Has a `parkingd-ctl` of its own, and no daemons."""

    def __init__(self, folder: Path) -> None:
        self.environment = dict(os.environ)
        self._ctl = folder / "parkingd-ctl"
        self._ctl.write_text(FAKE_CTL)
        self._ctl.chmod(0o700)

    def find(self, command: str) -> str:
        return str(self._ctl)


def test_a_wrong_answer_ends_the_walk_and_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Unexpected, match="where ABC7: no 'ABC7' in it"):
        Terminal(FakeCluster(tmp_path)).ctl("where ABC7", "ABC7")
    assert capsys.readouterr().out == "$ parkingd-ctl where ABC7\nplate  ABC1\n"


def test_a_wrong_exit_status_ends_the_walk(tmp_path: Path) -> None:
    with pytest.raises(Unexpected, match="exit status 0"):
        Terminal(FakeCluster(tmp_path)).ctl("where ABC1", "ABC1", status=5)


def test_an_answer_that_settles_is_shown_once_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Terminal(FakeCluster(tmp_path)).ctl("vehicles", "ABC2", settles=True)
    assert capsys.readouterr().out == "$ parkingd-ctl vehicles\nplate  ABC2\n"


# --- the replay ------------------------------------------------------------------------------


def operators_figures(day: str) -> list[int]:
    park = DAYS[day]
    steps = steps_of(read_day(DATA / park.file, park.spaces), seed=1)
    return [hour.operator for hour in hours_of(list(steps))]


def rows_of(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if re.match(r"\d\d:00 ", line)]


@pytest.mark.parametrize("day", ["trier", "oldenburg"])
def test_a_replayed_day_has_the_operators_figure_at_the_end_of_every_hour(day: str) -> None:
    status, out, err = finish(start_script("replay_day.py", day))
    assert (status, err) == (0, "")
    rows = rows_of(out)
    figures = operators_figures(day)
    assert [row[0] for row in rows] == [f"{hour:02d}:00" for hour in range(25)]
    assert [int(row[1]) for row in rows] == figures
    with_all_three = [row for row in rows if row[0] not in ("13:00", "14:00", "15:00")]
    assert {row[3] for row in with_all_three} == {"0"}
    assert re.search(r"^12:00 .*\n +-- gary is killed \(-9\)", out, re.MULTILINE)
    assert re.search(r"^15:00 .*\n +-- gary is started again", out, re.MULTILINE)
    assert ("-- 07:45: the operator reports -30 free; the lot says overbooked by 30" in out) is (
        day == "oldenburg"
    )


def test_a_replayed_day_can_be_had_as_json() -> None:
    status, out, err = finish(start_script("replay_day.py", "ulm", "--seed", "7", "--json"))
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    result = json.loads(line)
    assert [hour["operator"] for hour in result["hours"]] == operators_figures("ulm")
    assert (result["day"], result["seed"], result["closing"]) == ("ulm", 7, 0)
    assert result["repeated"] > 0
    assert re.fullmatch("[0-9a-f]{32}", result["root"])


def test_an_unknown_day_is_answered_with_those_there_are() -> None:
    status, out, err = finish(start_script("replay_day.py", "ghent"))
    assert (status, out) == (2, "")
    assert "there is no day 'ghent'; the days are trier, oldenburg, ulm" in err


class FakeNodes(LaneComputers):
    """Three nodes that answer as they are told to."""

    def __init__(self, answers: dict[str, list[str]], inside: int) -> None:
        self.answers = answers
        self.inside = inside
        self.repeated = 0

    @property
    def living(self) -> list[str]:
        return list(self.answers)

    def ask(
        self, name: str, verb: str, args: dict[str, Any], timeout_s: float = 0
    ) -> dict[str, Any]:
        match verb:
            case "vehicles":
                return {"items": [{"plate": plate} for plate in self.answers[name]]}
            case "digest":
                return {"items": [{"root": name, "nodes": [name]} for name in self.answers]}
            case "import_rows":
                return {"accepted": len(args["rows"])}
            case _:
                return {"met": True, "inside": self.inside, "overbooked": 0, "state": "open"}


@pytest.mark.parametrize(
    ("harrys", "complaint"),
    [
        (["A1"], "harry has lost 1 cars"),
        (["A1", "B2", "C3"], "lists 1 that are not inside"),
        (["A1", "B2", "B2"], "and 1 twice"),
    ],
)
def test_a_node_with_a_car_too_few_or_too_many_is_found(harrys: list[str], complaint: str) -> None:
    nodes = FakeNodes({"larry": ["A1", "B2"], "gary": ["A1", "B2"], "harry": harrys}, inside=2)
    with pytest.raises(Unexpected, match=complaint):
        nodes.check_cars({"A1", "B2"})


def test_replicas_that_stay_different_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lane_computers.AGREE_S_MAX", 0.0)
    nodes = FakeNodes({"larry": [], "gary": [], "harry": []}, inside=0)
    with pytest.raises(Unexpected, match="the replicas are not identical"):
        nodes.root()


def test_an_occupancy_that_is_not_the_operators_ends_the_replay() -> None:
    park = CarPark("Nowhere", "ulm-salzstadel-2022-12-17.csv", 404)
    hours = hours_of(list(steps_of(read_day(DATA / park.file, park.spaces), seed=1)))
    nodes = FakeNodes({"larry": [], "gary": [], "harry": []}, inside=5)
    shown: list[str] = []
    with pytest.raises(Unexpected, match="at 00:00 5 cars are inside, and the operator counted 4"):
        Replay(park, hours, nodes, shown.append).run()
    assert shown[-1].split() == ["00:00", "4", "5", "+1", "open"]
