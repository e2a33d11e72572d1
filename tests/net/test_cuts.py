"""Cables that are pulled, cables that pass one way only, and cables that flap."""

from __future__ import annotations

import json
import time

from tests.daemon.harness import Daemon, agree, until
from tests.net.lab import (
    GATES,
    PATIENCE_S,
    TRIO,
    NetLab,
    admitted,
    epochs,
    last,
    served_once,
    shared_out,
    taken_over,
    whole,
)
from tests.net.meanwhile import Watch

CONTESTED = f"contested: gates {', '.join(map(str, range(1, GATES + 1)))} had two owners"
PARTITION_S = 15.0
ONE_WAY_S = 8.0
FLAPS = ((0.4, 0.4),) * 6 + ((1.5, 0.5),) * 2 + ((3.0, 1.0),) * 2
"""For how long the link is down and then up, seconds: some unnoticed, some taken for a death."""


def tells_of_all_gates(daemon: Daemon) -> None:
    """Each gate had two owners: its status says so, and its journal with one line for each."""
    daemon.until_status(
        lambda status: any(line.startswith(CONTESTED) for line in status["warnings"]), CONTESTED
    )

    def lines() -> list[str]:
        return daemon.ctl("log", "--type", "gate_contested").out.splitlines()

    until(lambda: len(lines()) == GATES, "the journal has them")
    assert sorted(json.loads(line)["gate"] for line in lines()) == list(range(1, GATES + 1))


def test_both_sides_of_a_partition_serve_and_when_it_heals_every_car_is_there(
    lab: NetLab,
) -> None:
    lab.boot_all(*TRIO, flags=("--gates", GATES))
    gary, diane, joe = lab.all()
    shared_out(lab.all(), GATES)
    gary.read("set", "spaces", 10)
    for plate in ("BEFORE1", "BEFORE2"):
        admitted(gary, plate, 1)
    agree(lab.all())
    before = epochs(gary)

    lab.cut(["gary"], ["diane", "joe"])
    for name in ("diane", "joe"):
        taken_over([gary], name, GATES)
    taken_over([diane, joe], "gary", GATES)
    for number in range(6):
        for side, daemon in (("ONE", gary), ("TWO", (diane, joe)[number % 2])):
            admitted(daemon, f"{side}{number}", 1 + number % GATES)
    gary.read("exit", "BEFORE1", 1)
    joe.read("exit", "BEFORE1", 2)
    last(PARTITION_S)
    for daemon in (diane, joe):
        assert len(daemon.plates()) == 7

    lab.network.mend()
    mended_s = time.monotonic()
    whole(lab.all())
    served_once(lab.all(), GATES)
    print(f"one root and one owner {time.monotonic() - mended_s:.2f} s after the cable was mended")
    wanted = sorted(["BEFORE2", *(f"{side}{n}" for n in range(6) for side in ("ONE", "TWO"))])
    after = epochs(gary)
    assert all(after[gate] >= before[gate] for gate in after)
    for daemon in lab.all():
        assert daemon.plates() == wanted
        lot = daemon.read("lot")
        assert (lot["inside"], lot["overbooked"], lot["conflicts"]) == (13, 3, 0)
        assert "overbooked by 3" in daemon.read("status")["warnings"]
        tells_of_all_gates(daemon)
        full = daemon.ctl("enter", "TOOMANY1", 1)
        assert (full.status, full.document["reason"]) == (1, "full")
    shared_out(lab.all(), GATES)


def test_a_cable_that_passes_one_way_only_costs_no_car_and_nobody_else(trio: NetLab) -> None:
    """What gary says reaches diane no more. Joe hears both, and carries what they record."""
    gary, diane, joe = (trio.nodes[name] for name in ("gary", "diane", "joe"))
    before = shared_out(trio.all(), GATES)
    with Watch([joe], "members") as at_joe:
        trio.cut_one_way("gary", "diane")
        gary.read("track", "ONEWAY1", 1)
        diane.read("track", "ONEWAY2", 2)
        last(ONE_WAY_S)
        joe.read("track", "ONEWAY3", 3)
        agree(trio.all(), PATIENCE_S)
        served_once(trio.all(), GATES)
        assert any("gary" in warning for warning in diane.read("status")["warnings"])
        trio.network.mend()
        whole(trio.all())
    assert "dead" not in at_joe.items("state")
    for daemon in trio.all():
        assert {"ONEWAY1", "ONEWAY2", "ONEWAY3"} <= set(daemon.plates())
    assert served_once(trio.all(), GATES) == before


def test_a_node_that_hears_and_is_not_heard_is_replaced_and_comes_back(trio: NetLab) -> None:
    """Nothing of diane reaches anybody, and everybody reaches diane."""
    diane, rest = trio.nodes["diane"], trio.others("diane")
    shared_out(trio.all(), GATES)
    for daemon in rest:
        trio.cut_one_way("diane", daemon.name)
    diane.read("track", "UNHEARD1", 1)
    taken_over(rest, "diane", GATES)
    rest[0].read("track", "UNHEARD2", 2)
    trio.network.mend()
    whole(trio.all())
    served_once(trio.all(), GATES)
    for daemon in trio.all():
        assert {"UNHEARD1", "UNHEARD2"} <= set(daemon.plates())
    shared_out(trio.all(), GATES)


def test_a_flapping_link_loses_no_car_and_settles_when_it_stops(trio: NetLab) -> None:
    shared_out(trio.all(), GATES)
    plates = set()
    for number, (down_s, up_s) in enumerate(FLAPS):
        trio.cut(["joe"], ["gary", "diane"])
        last(down_s)
        for daemon in trio.all():
            plate = f"FLAP{daemon.name}{number}".upper()
            daemon.read("track", plate, 1 + number % GATES)
            plates.add(plate)
        trio.network.mend()
        last(up_s)
    whole(trio.all())
    for daemon in trio.all():
        assert plates <= set(daemon.plates())
        assert daemon.read("lot")["conflicts"] == 0
    shared_out(trio.all(), GATES)
