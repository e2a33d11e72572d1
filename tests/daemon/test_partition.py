"""Two daemons that cannot talk for a while, and what they make of it when they can again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon.cable import Cable
from tests.daemon.harness import Cluster, Daemon, agree, until


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as cable:
        yield cable


def lot(daemon: Daemon) -> dict[str, Any]:
    shown = daemon.read("lot")
    return {key: shown[key] for key in ("inside", "conflicts", "conflict_plates")}


def test_what_each_side_of_a_partition_recorded_is_on_both_when_it_heals(
    cluster: Cluster, cable: Cable
) -> None:
    """A car that entered here and left there is gone, one that left and came back is inside, one
    that entered on both sides is a conflict, and a request repeated on the other side is not."""
    first = cluster.start("first", *cable.first, apart=True)
    second = cluster.start("second", *cable.second, apart=True)
    ends = (first, second)
    for daemon in ends:
        daemon.wait_for("members=2", "synced")
    first.read("track", "CAMEBACK1", 1)
    second.read("track", "LEFT1", 1)
    agree(ends)
    cable.cut()
    for daemon in ends:
        daemon.until_status(lambda status: status["members"]["alive"] == 1, "partition")

    first.read("track", "THROUGH1", 1)
    exit_ = second.read("exit", "THROUGH1", 2)
    assert (exit_["matched"], exit_["warnings"]) == ("none", ["unmatched"])
    first.read("exit", "LEFT1", 1)
    for daemon in ends:
        daemon.read("exit", "CAMEBACK1", 1)
    second.read("track", "CAMEBACK1", 2)
    for daemon in ends:
        daemon.read("track", "BOTH1", 1)
        repeated = daemon.read("track", "RETRIED1", 1, "--request-id", "ab" * 16)
        assert repeated["warnings"] == []

    cable.mend()
    mended_s = time.monotonic()
    agree(ends)
    print(f"one root {time.monotonic() - mended_s:.2f} s after the cable was mended")
    for daemon in ends:
        assert daemon.plates() == ["BOTH1", "BOTH1", "CAMEBACK1", "RETRIED1"]
        assert lot(daemon) == {"inside": 4, "conflicts": 1, "conflict_plates": ["BOTH1"]}
        assert daemon.read("where", "CAMEBACK1")["items"][0]["gate"] == 2
        items = daemon.read("where", "BOTH1")["items"]
        assert sorted(item["entered_at_node"] for item in items) == ["first", "second"]
        assert all(item["conflict"] for item in items)

    assert first.read("exit", "BOTH1", 1)["matched"] == "conflict"
    assert second.read("exit", "RETRIED1", 1)["matched"] == "exact"
    agree(ends)
    for daemon in ends:
        assert daemon.plates() == ["CAMEBACK1"]
        assert lot(daemon) == {"inside": 1, "conflicts": 0, "conflict_plates": []}


def test_what_was_recorded_alone_survives_a_stop_of_both_and_meets(cluster: Cluster) -> None:
    """They never run together after the car entered: its exit was recorded without it."""
    first, second = cluster.start_all("first", "second")
    first.read("track", "WARM1", 1)
    second.read("track", "WARM2", 1)
    agree([first, second])
    second.end()
    first.read("track", "PASSING1", 1)
    first.end()
    second = cluster.start("second")
    assert second.read("exit", "PASSING1", 1)["matched"] == "none"
    second.end()
    first, second = cluster.start("first"), cluster.start("second")
    for daemon in (first, second):
        daemon.wait_for("members=2", "synced")
    agree([first, second])
    assert first.plates() == second.plates() == ["WARM1", "WARM2"]


def test_when_two_lots_meet_the_older_stays_and_every_car_of_both_is_there_once(
    cluster: Cluster,
) -> None:
    started = [cluster.start(name, apart=True, lot=False) for name in ("north", "south")]
    for daemon in started:
        until(daemon.is_ready, "it has founded a lot")
    older, younger = sorted(started, key=lambda daemon: str(daemon.read("lot")["lot"]))
    for plate in ("OLD1", "OLD2", "BOTH1"):
        older.read("track", plate, 1)
    for plate in ("YOUNG1", "YOUNG2", "GONE1"):
        younger.read("track", plate, 2)
    younger.read("exit", "GONE1", 2)
    kept = older.read("lot")["lot"]
    assert kept < younger.read("lot")["lot"]
    younger.end()
    younger = cluster.start(younger.name, "--peer", f"127.0.0.1:{older.port}", apart=True)
    for daemon in (older, younger):
        daemon.wait_for("members=2", "synced", "inside=5")
    agree([older, younger])
    for daemon in (older, younger):
        assert daemon.read("lot")["lot"] == kept
        assert daemon.plates() == ["BOTH1", "OLD1", "OLD2", "YOUNG1", "YOUNG2"]
        assert lot(daemon)["conflicts"] == 0
    warnings = younger.read("status")["warnings"]
    assert [warning for warning in warnings if warning.startswith("lots_merged")]
    assert younger.events("start_over")
    (aside,) = cluster.data_dir(younger.name).glob("parkingd.db.set-aside-*")
    assert aside.stat().st_size > 0


def test_a_member_is_forgotten_only_when_it_is_dead(cluster: Cluster) -> None:
    gary, diane, joe = cluster.start_all("gary", "diane", "joe")
    joe.read("track", "BYJOE1", 1)
    agree([gary, diane, joe])
    refused = gary.ctl("members", "forget", "joe")
    assert (refused.status, refused.error["code"]) == (6, "member_alive")
    assert "leave" in refused.error["hint"]
    unknown = gary.ctl("members", "forget", "nobody")
    assert (unknown.status, unknown.error["code"]) == (5, "unknown_member")

    joe.end()
    gary.until_status(lambda status: status["members"]["dead"] == 1, "dead member")
    assert len(gary.read("members", "forget", "joe")["created"]) == 2
    agree([gary, diane])
    assert gary.plates() == ["BYJOE1"]

    again = gary.ctl("members", "forget", "joe")
    assert (again.status, again.error["code"]) == (5, "unknown_member")
    joe = cluster.start("joe")
    joe.wait_for("members=3", "synced", "inside=1")
    assert joe.events("start_over")
    assert not list(cluster.data_dir("joe").glob("review-*")), "the others have all that it had"
    joe.read("exit", "BYJOE1", 1)
    agree([gary, diane, joe])
    assert gary.plates() == []


def test_a_member_that_was_forgotten_takes_what_it_had_not_sent_aside(cluster: Cluster) -> None:
    """It is not merged: the others have gone on without it. Nothing of it is deleted."""
    gary, joe = cluster.start_all("gary", "joe")
    gary.read("set", "spaces", 50)
    joe.read("track", "SENT1", 1)
    agree([gary, joe])
    gary.end()
    joe.read("track", "UNSENT1", 1)
    joe.end()
    gary = cluster.start("gary")
    gary.read("members", "forget", "joe")
    joe = cluster.start("joe")
    until(lambda: joe.is_ready() and joe.plates() == ["SENT1"], "joe has a new start")
    (aside,) = cluster.data_dir("joe").glob("parkingd.db.set-aside-*")
    assert b"UNSENT1" in aside.read_bytes()
    (review,) = cluster.data_dir("joe").glob("review-*")
    assert [line.split(",")[0] for line in review.read_text().splitlines()] == ["plate", "UNSENT1"]
