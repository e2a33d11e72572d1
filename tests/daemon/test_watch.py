"""`watch` with a real daemon that is killed and started again."""

from __future__ import annotations

import json
import subprocess
import threading

from tests.daemon.harness import CTL_COMMAND, PATIENCE_S, Cluster


def test_a_watch_survives_the_daemon_and_tells_every_event_once(cluster: Cluster) -> None:
    gary = cluster.start("gary")
    gary.wait_for("gates=4")
    gary.read("track", "BEFORE", 1)
    where = ("--control", f"ipc://{gary.control}")
    watch = subprocess.Popen(
        [*CTL_COMMAND, "watch", "--from", "1", "--type", "entered", "--count", "3", *where],
        env=cluster.environment(PARKINGD_OUTPUT="json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(4 * PATIENCE_S, watch.kill)
    guard.start()
    try:
        assert watch.stdout is not None
        assert watch.stderr is not None
        told = [json.loads(watch.stdout.readline())]
        gary.end()
        assert json.loads(watch.stderr.readline())["code"] == "reconnecting"
        again = cluster.start("gary", lot=False)
        again.read("track", "AFTER", 2)
        again.read("exit", "AFTER", 2)
        again.read("track", "LAST", 3)
        out, err = watch.communicate()
    finally:
        guard.cancel()
        watch.kill()
    told += map(json.loads, out.splitlines())
    assert watch.returncode == 0
    assert json.loads(err)["code"] == "reconnected"
    assert [event["plate"] for event in told] == ["BEFORE", "AFTER", "LAST"]
    assert [event["gate"] for event in told] == [1, 2, 3]
    listed = again.read_lines("log", "--type", "entered")
    assert [(each["seq"], each["plate"]) for each in listed] == [
        (each["seq"], each["plate"]) for each in told
    ]
