"""Nodes that are killed, frozen or switched off together: what was acknowledged stays."""

from __future__ import annotations

import signal
import threading
from typing import Any

from parkingd.adapters.client import Trouble
from tests.daemon.harness import Cluster, Daemon, agree, plate_numbers, until

CARS_BEFORE_THE_KILL = 300


class Driver(threading.Thread):
    """A lane: tracks one car after the other and remembers the acknowledged ones."""

    def __init__(self, daemon: Daemon, prefix: str) -> None:
        super().__init__(daemon=True)
        self._client = daemon.client(timeout_s=5.0)
        self._plates = plate_numbers(prefix)
        self.acknowledged: list[str] = []
        self.trouble: Trouble | None = None

    def run(self) -> None:
        while self.trouble is None:
            plate = next(self._plates)
            answer = self._client.call("track", {"plate": plate, "gate": 1})
            if isinstance(answer, Trouble):
                self.trouble = answer
            else:
                self.acknowledged.append(plate)
        self._client.close()


def test_a_node_killed_under_load_loses_nothing_that_it_acknowledged(cluster: Cluster) -> None:
    gary, diane, joe = cluster.start_all("gary", "diane", "joe")
    gary.read("track", "FIRST1", 1)
    drivers = [Driver(gary, prefix) for prefix in ("A", "B", "C")]
    for driver in drivers:
        driver.start()

    def acknowledged() -> list[str]:
        return [plate for driver in drivers for plate in driver.acknowledged]

    until(lambda: len(acknowledged()) >= CARS_BEFORE_THE_KILL, "enough cars")
    gary.end(signal.SIGKILL)
    for driver in drivers:
        driver.join(10.0)
        assert driver.trouble is not None
        assert driver.trouble.code == "daemon_stopped"
    diane.read("track", "MEANWHILE1", 1)

    gary = cluster.start("gary")
    everyone = [gary, diane, joe]
    gary.wait_for("members=3", "synced")
    agree(everyone)
    for daemon in everyone:
        lost = {*acknowledged(), "FIRST1", "MEANWHILE1"} - set(daemon.plates())
        assert not lost, f"{daemon.name} lacks {len(lost)} of {len(acknowledged())}: {lost}"


def cars(daemon: Daemon) -> list[dict[str, Any]]:
    """All that is recorded of each car inside, by plate."""
    return sorted(daemon.read("vehicles")["items"], key=lambda car: str(car["plate"]))


def test_a_whole_car_park_that_was_switched_off_still_has_its_cars(cluster: Cluster) -> None:
    names = ("gary", "diane", "joe")
    everyone = cluster.start_all(*names)
    for daemon in everyone:
        daemon.read("track", f"BY{daemon.name}", 1)
    everyone[0].read("exit", "BYJOE", 2)
    agree(everyone)
    before = cars(everyone[0])
    assert [car["plate"] for car in before] == ["BYDIANE", "BYGARY"]
    replicas = [daemon.read("status")["replica"] for daemon in everyone]
    for daemon in everyone:
        daemon.process.send_signal(signal.SIGTERM)
    assert [daemon.wait(10.0) for daemon in everyone] == [0, 0, 0]

    everyone = cluster.start_all(*names)
    agree(everyone)
    assert [daemon.read("status")["replica"] for daemon in everyone] == replicas
    for daemon in everyone:
        assert cars(daemon) == before
    for daemon in everyone:
        daemon.end(signal.SIGKILL)
    everyone = cluster.start_all(*names)
    agree(everyone)
    for daemon in everyone:
        assert cars(daemon) == before


def test_a_frozen_node_is_declared_dead_and_catches_up_when_it_thaws(cluster: Cluster) -> None:
    gary, diane = cluster.start_all("gary", "diane")
    gary.read("track", "BEFORE1", 1)
    agree([gary, diane])
    diane.process.send_signal(signal.SIGSTOP)
    gary.until_status(lambda status: status["members"]["dead"] == 1, "dead member")
    gary.read("exit", "BEFORE1", 1)
    gary.read("track", "DURING1", 1)
    diane.process.send_signal(signal.SIGCONT)
    diane.until_status(lambda status: status["lot"]["inside"] == 1, "catching up")
    agree([gary, diane])
    assert diane.plates() == ["DURING1"]


def test_a_node_that_joined_a_moment_ago_goes_on_when_the_other_leaves(cluster: Cluster) -> None:
    """It need not wait for anybody: the one who knew it has said so before it left."""
    gary, diane = cluster.start("gary"), cluster.start("diane")
    diane.wait_for("members=2", "synced")
    gary.stop()
    diane.read("track", "ALONE1", 1)


def test_a_node_that_never_recorded_anything_serves_alone_after_a_restart(
    cluster: Cluster,
) -> None:
    gary, diane = cluster.start("gary"), cluster.start("diane")
    gary.read("track", "BYGARY1", 1)
    diane.wait_for("members=2", "synced", "inside=1")
    agree([gary, diane])
    gary.stop()
    diane.stop()
    diane = cluster.start("diane")
    assert diane.read("exit", "BYGARY1", 1)["matched"] == "exact"


def test_nodes_record_their_first_cars_as_soon_as_they_say_that_they_are_ready(
    cluster: Cluster,
) -> None:
    """Who joined need not wait for the next round of anti-entropy."""
    for daemon in cluster.start_all("gary", "diane"):
        answer = daemon.ctl("track", f"BY{daemon.name}", 1, timeout_s=0.7)
        assert answer.status == 0, answer.err
