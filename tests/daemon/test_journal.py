"""The journal of a real daemon: followed, too old, asked for with nonsense, left behind."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any

from parkingd.adapters.client import ControlClient, Trouble
from parkingd.adapters.control_wire import Reply
from tests.daemon.harness import Cluster

PATIENCE_S = 20.0
DAY_MS = 24 * 3_600_000


def read(client: ControlClient, **asked: Any) -> dict[str, Any]:
    answer = client.call("journal", asked, PATIENCE_S)
    assert not isinstance(answer, Trouble), answer
    return answer


def page(client: ControlClient, id_: int) -> Reply:
    found = client.page(id_, time.monotonic() + PATIENCE_S)
    assert isinstance(found, Reply), found
    return found


def test_events_are_followed_over_a_restart_and_old_ones_are_forgotten_at_the_start(
    cluster: Cluster,
) -> None:
    gary = cluster.start("gary", "--journal-days", "7")
    client = gary.client()
    begin = read(client)
    assert (begin["items"], begin["next"], begin["missed"]) == ([], begin["last"], 0)

    asked = {"after": begin["last"], "wait": 15, "types": ["entered"]}
    waiting = client.send("journal", asked, PATIENCE_S)
    gary.read("track", "ka 12", 1)
    (entered,) = page(client, waiting).body["items"]
    assert (entered["type"], entered["plate"], entered["gate"]) == ("entered", "KA12", 1)
    assert (entered["member"], entered["by"]) == ("gary", "track")

    gary.read("exit", "KA12", 1)
    gary.read("set", "spaces", 50)
    of_car = read(client, after=0, plate="ka-12")
    assert [item["type"] for item in of_car["items"]] == ["entered", "exited"]
    (changed,) = read(client, after=0, types=["setting"])["items"]
    assert (changed["key"], changed["old"], changed["new"]) == ("spaces", 100, 50)
    status = gary.read("status")
    assert status["journal"] == {"last": of_car["last"], "days": 7}

    for nonsense, said in (
        ({"after": "x"}, "after is not an integer"),
        ({"types": ["parked"]}, "no event is of type 'parked'"),
        ({"plate": "?"}, "plate is not a plate"),
        ({b"\xff": 1}, "unknown argument"),
    ):
        refused = client.call("journal", nonsense, PATIENCE_S)
        assert isinstance(refused, Trouble)
        assert (refused.code, refused.node) == ("usage", "gary")
        assert said in refused.reason

    last = of_car["last"]
    left = client.send("journal", {"after": last, "wait": 30}, PATIENCE_S)
    assert not isinstance(client.call("version", {}), Trouble), "what came before is there"
    gary.stop()
    assert page(client, left).body["items"] == [], "who waits is answered when it stops"
    client.close()

    with closing(sqlite3.connect(cluster.data_dir("gary") / "parkingd.db")) as stored:
        ago_ms = int(time.time() * 1_000) - 8 * DAY_MS
        old = stored.execute(
            "UPDATE journal SET at_ms = ? WHERE seq <= ?", (ago_ms, entered["seq"])
        ).rowcount
        stored.commit()
    assert old == entered["seq"]
    gary = cluster.start("gary", "--journal-days", "7")
    client = gary.client()
    deadline_s = time.monotonic() + PATIENCE_S
    while (kept := read(client, after=0))["missed"] != old:
        assert time.monotonic() < deadline_s, kept
    assert kept["items"][0]["seq"] == old + 1
    assert kept["last"] >= last
    assert read(client, after=old - 1)["missed"] == 1
    assert read(client, after=0, types=["entered"])["items"] == []
    client.close()
    gary.stop()
    with closing(sqlite3.connect(cluster.data_dir("gary") / "parkingd.db")) as stored:
        assert stored.execute("SELECT min(seq) FROM journal").fetchone() == (old + 1,)
        assert stored.execute("SELECT count(*) FROM journal WHERE plate = 'KA12'").fetchone() == (
            1,
        )
