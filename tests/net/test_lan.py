"""Machines of one LAN that were told nothing of each other."""

from __future__ import annotations

from tests.daemon.harness import Ended, agree
from tests.net.lab import PORT, TRIO, NetLab, served_once, shared_out, whole

DEFAULT_GATES = 4


def test_three_machines_with_nothing_but_defaults_become_one_car_park(lab: NetLab) -> None:
    lab.boot_all(*TRIO)
    daemons = lab.all()
    found = [item for daemon in daemons for item in daemon.read("discover")["items"]]
    assert {item["state"] for item in found} == {"connected"}
    assert "mdns" in {item["source"].split()[0] for item in found}
    assert len({daemon.read("lot")["lot"] for daemon in daemons}) == 1

    lab.nodes["gary"].read("track", "ONLAN1", 1)
    agree(daemons)
    for daemon in daemons:
        assert daemon.plates() == ["ONLAN1"]
    shared_out(daemons, DEFAULT_GATES)


def test_ten_nodes_that_start_at_once_are_one_lot_and_share_its_gates(lab: NetLab) -> None:
    names = [f"lane{number}" for number in range(10)]
    lab.boot_all(*names, flags=("--gates", 10))
    daemons = lab.all()
    assert len({daemon.read("lot")["lot"] for daemon in daemons}) == 1
    for number, daemon in enumerate(daemons):
        daemon.read("track", f"TEN{number}", 1)
    whole(daemons)
    for daemon in daemons:
        assert daemon.plates() == [f"TEN{number}" for number in range(10)]
    served_once(daemons, 10)
    shared_out(daemons, 10)


def test_a_newcomer_under_the_name_of_a_living_node_on_another_machine_ends(trio: NetLab) -> None:
    holder = trio.nodes["gary"]
    replica = holder.read("status")["replica"]
    newcomer = trio.start(
        "gary",
        *("--port", PORT),
        *("--runtime-dir", trio.runtime / "twin"),
        mdns=True,
        answers=False,
        prefix=trio.network.add_machine().prefix,
        environment={"HOME": str(trio.home_of("twin"))},
    )
    try:
        ended = Ended(newcomer.wait(), newcomer.said())
    finally:
        newcomer.end()
    assert ended.status == 2
    assert "gary" in ended.complaint
    assert f"{trio.machines['gary'].address}:{PORT}" in ended.complaint
    whole(trio.all())
    assert holder.read("status")["replica"] == replica
    for daemon in trio.all():
        addresses = {item["name"]: item["address"] for item in daemon.read("members")["items"]}
        assert addresses["gary"] == f"{trio.machines['gary'].address}:{PORT}"
