"""Nodes in containers: they meet through DNS, lose nothing, and leave in good order."""

from __future__ import annotations

import itertools
import threading

import pytest

from tests.daemon.harness import until
from tests.deploy.engine import Engine
from tests.deploy.pods import Pod, Pods

pytestmark = pytest.mark.timeout(900)

TRIO = ("parkingd-0", "parkingd-1", "parkingd-2")
LOAD_WAIT_S = 120.0
DOCKER_STOP_S = 10.0
"""After that Docker sends SIGKILL, and the exit status is 137 instead of 0."""


class Load:
    """Cars that enter, one after the other, wherever a node answers."""

    def __init__(self, engine: Engine, targets: list[Pod]) -> None:
        self._engine = engine
        self.targets = targets
        self.acknowledged: list[str] = []
        self.failed = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._drive)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _drive(self) -> None:
        for number in itertools.count():
            if self._ended.is_set():
                return
            plate = f"CAR{number:05}"
            targets = list(self.targets)
            command = ("parkingd-ctl", "--timeout", "2", "track", plate, "1")
            container = targets[number % len(targets)].container
            if self._engine.attempt("exec", container, *command).returncode == 0:
                self.acknowledged.append(plate)
            else:
                self.failed += 1


def all_gates_served(*pods: Pod) -> None:
    for pod in pods:
        pod.wait_for("gates=4")
        gates = pod.ctl("gates")["items"]
        assert {gate["state"] for gate in gates} == {"served"}, gates


def same_root(*pods: Pod) -> None:
    until(
        lambda: len({pod.ctl("status")["root"] for pod in pods}) == 1,
        "all have one root",
        LOAD_WAIT_S,
    )


def test_three_that_start_together_find_each_other_by_the_names_service(pods: Pods) -> None:
    """Nobody is told any address: the SRV records of the headless service are all there is."""
    trio = pods.start_all(*TRIO)
    sources = set()
    for pod in trio:
        found = [item for item in pod.ctl("discover")["items"] if item["state"] == "connected"]
        assert {item["name"] for item in found} == set(TRIO) - {pod.name}, found
        sources |= {item["source"] for item in found}
    # Who has been found by the records says hello, and tells the others of whom it knows.
    assert "srv" in sources
    assert sources <= {"srv", "hello", *(f"from {name}" for name in TRIO)}
    first, second, third = trio
    first.ctl("track", "ABC123", 1)
    for pod in (second, third):
        pod.wait_for("inside=1")
        assert pod.plates() == ["ABC123"]
    all_gates_served(*trio)
    same_root(*trio)


def test_a_killed_one_is_replaced_by_the_others_and_comes_back_with_its_volume(
    pods: Pods,
) -> None:
    first, second, third = pods.start_all(*TRIO)
    replica = second.ctl("status")["replica"]
    second.ctl("track", "KAPI314", 2)
    second.kill()
    for pod in (first, third):
        pod.wait_for("members=2", "inside=1")
        all_gates_served(pod)
    first.ctl("track", "MTX42", 1)
    second.start_again()
    second.wait_for("members=3", "synced", "inside=2")
    assert second.plates() == ["KAPI314", "MTX42"]
    assert second.ctl("status")["replica"] == replica
    same_root(first, second, third)


def test_a_pod_that_moves_keeps_its_name_and_its_record_at_another_address(pods: Pods) -> None:
    first, second = pods.start_all(*TRIO[:2])
    second.ctl("track", "ABC123", 1)
    replica, address = second.ctl("status")["replica"], second.address
    second.stop()
    second.remove()
    # Somebody else has the address now.
    third = pods.start(TRIO[2])
    assert third.address == address
    third.wait_for("members=2", "synced")
    moved = pods.start(TRIO[1])
    assert moved.address != address
    moved.wait_for("members=3", "synced", "inside=1")
    assert moved.ctl("status")["replica"] == replica
    all_gates_served(first, moved, third)


def test_a_pod_that_loses_its_volume_starts_empty_and_gets_everything_from_the_others(
    pods: Pods,
) -> None:
    first, second, third = pods.start_all(*TRIO)
    second.ctl("track", "ABC123", 1)
    replica = second.ctl("status")["replica"]
    first.wait_for("inside=1")
    second.kill()
    second.remove()
    pods.lose_volume(TRIO[1])
    fresh = pods.start(TRIO[1])
    fresh.wait_for("members=3", "synced", "inside=1")
    assert fresh.ctl("status")["replica"] != replica
    assert fresh.plates() == ["ABC123"]
    first.ctl("members", "forget", TRIO[1])
    same_root(first, fresh, third)


def test_scaling_down_to_one_loses_no_car_and_no_gate(pods: Pods) -> None:
    trio = pods.start_all(*TRIO)
    for number, pod in enumerate(trio):
        pod.ctl("track", f"CAR{number}", 1)
    for pod in reversed(trio[1:]):  # As a StatefulSet does: the highest number first.
        print(f"docker stop took {pod.stop():.2f} s")  # It insists on exit status 0.
        log = pod.log()
        assert '"event": "left"' in log
        assert "safe_with" in log
    (first, *_) = trio
    first.wait_for("members=1", "inside=3")
    all_gates_served(first)
    assert first.ctl("status")["members"] == {"alive": 1, "dead": 0, "left": 2, "suspect": 0}


def test_a_rolling_restart_under_load_loses_no_acknowledged_car(pods: Pods, engine: Engine) -> None:
    """As a StatefulSet rolls: from the highest number down, each after the last is ready."""
    trio = pods.start_all(*TRIO, flags=("--env", "PARKINGD_SPACES=100000"))
    running = {pod.name: pod for pod in trio}
    with Load(engine, trio) as load:
        for name in reversed(TRIO):
            until(lambda: len(load.acknowledged) > 5, "cars enter", LOAD_WAIT_S)
            old = running.pop(name)
            load.targets = list(running.values())
            print(f"docker stop took {old.stop():.2f} s")
            all_gates_served(*running.values())
            old.remove()
            running[name] = pods.start(name, "--env", "PARKINGD_SPACES=100000")
            running[name].wait_for("members=3", "synced", "ready")
            load.targets = list(running.values())
            seen = len(load.acknowledged)
            until(lambda: len(load.acknowledged) > seen + 5, "cars enter", LOAD_WAIT_S)  # noqa: B023
    same_root(*running.values())
    all_gates_served(*running.values())
    for pod in running.values():
        assert set(load.acknowledged) <= set(pod.plates())
        assert pod.ctl("lot")["conflicts"] == 0
    print(f"{len(load.acknowledged)} cars acknowledged, {load.failed} asked in vain")


def test_a_stopped_site_starts_again_with_every_car(pods: Pods) -> None:
    trio = pods.start_all(*TRIO)
    trio[0].ctl("track", "ABC123", 1)
    trio[2].wait_for("inside=1")
    for pod in trio:
        pod.kill()
    for pod in trio:
        pod.start_again()
    for pod in trio:
        pod.wait_for("members=3", "synced", "inside=1")
    same_root(*trio)


def test_ten_thousand_cars_are_imported_with_nothing_writable_but_the_volume(pods: Pods) -> None:
    first, second = pods.start_all(*TRIO[:2], flags=("--env", "PARKINGD_SPACES=100000"))
    rows = "".join(f"P{number:05},1\n" for number in range(10_000))
    said = first.ctl("import", "/dev/stdin", stdin=f"plate,gate\n{rows}")
    assert (said["accepted"], said["failed_count"]) == (10_000, 0)
    second.wait_for("inside=10000")
    same_root(first, second)
    saved = first.ctl("backup", "/var/lib/parkingd/backup.db")
    assert saved["bytes"] > 0
