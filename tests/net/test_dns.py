"""Pods without multicast, and a name server whose answers change, fail or never come."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon.harness import agree, until
from tests.net.lab import PATIENCE_S, PORT, NetLab, served_once, shared_out, whole
from tests.net.meanwhile import Watch
from tests.net.nameserver import PACKAGE, SERVICE, NameServer, is_installed

PODS = ("pod-0", "pod-1", "pod-2")
GATES = 4
UNUSED = "pod-9"


@pytest.fixture
def name_server(lab: NetLab, tmp_path: Path) -> Iterator[Callable[[], NameServer]]:
    """Makes name servers, each on a machine of its own, not started."""
    if not is_installed():
        pytest.skip(f"needs the Debian package {PACKAGE}")
    with ExitStack() as stops:

        def make() -> NameServer:
            server = NameServer(lab.network.add_machine(), tmp_path)
            stops.callback(server.stop)
            return server

        yield make


def flags(server: NameServer) -> tuple[str, ...]:
    assert server.machine.address is not None
    return ("--srv", SERVICE, "--dns", server.machine.address)


def serve(server: NameServer, lab: NetLab, *pods: str) -> None:
    """The records of these pods, and of no other."""
    server.serve({pod: lab.machine(pod) for pod in pods}, PORT)


def test_pods_find_each_other_by_srv_records_at_once_late_and_at_another_address(
    lab: NetLab, name_server: Callable[[], NameServer]
) -> None:
    server = name_server()
    serve(server, lab, *PODS)
    lab.boot_all(*PODS, flags=flags(server), mdns=False)
    daemons = lab.all()
    assert len({daemon.read("lot")["lot"] for daemon in daemons}) == 1
    found = [item for daemon in daemons for item in daemon.read("discover")["items"]]
    assert "srv" in {item["source"].split()[0] for item in found}
    daemons[1].read("track", "POD1", 1)
    agree(daemons)

    lab.boot("pod-3", *flags(server), mdns=False)  # Its own record comes late, or never.
    lab.until_together()
    agree(lab.all())
    assert lab.nodes["pod-3"].plates() == ["POD1"]

    lab.nodes["pod-1"].end(signal.SIGKILL)
    for daemon in lab.others("pod-1"):
        daemon.wait_for("members=3", timeout_s=PATIENCE_S)
    moved = lab.network.add_machine()
    lab.machines["pod-1"] = moved
    serve(server, lab, *PODS, "pod-3")
    lab.boot("pod-1", *flags(server), mdns=False)
    lab.until_together()
    for daemon in lab.all():
        addresses = {item["name"]: item["address"] for item in daemon.read("members")["items"]}
        assert addresses["pod-1"] == f"{moved.address}:{PORT}"
    whole(lab.all())
    served_once(lab.all(), GATES)

    # An address that one pod gave up is another's now.
    lab.nodes.pop("pod-2").end(signal.SIGKILL)
    lab.boot("pod-4", *flags(server), machine=lab.machines.pop("pod-2"), mdns=False)
    serve(server, lab, "pod-0", "pod-1", "pod-3", "pod-4")
    lab.until_together()
    whole(lab.all())
    served_once(lab.all(), GATES)
    for daemon in lab.all():
        assert daemon.plates() == ["POD1"]


def test_no_answer_of_a_name_server_removes_a_living_member(
    lab: NetLab, name_server: Callable[[], NameServer]
) -> None:
    """One pod's says that there is no such name, one's that it has no records, one's names only an
    address where nobody is, and one's is dead."""
    servers = {pod: name_server() for pod in (*PODS, "pod-3")}
    for pod in servers:
        lab.machine(pod)
    for pod, server in servers.items():
        serve(server, lab, *servers)
        lab.boot(pod, *flags(server), mdns=False)
    lab.until_together()
    table = shared_out(lab.all(), GATES)

    no_name, no_records, elsewhere, dead = servers.values()
    asked = {pod: server.asked_by(lab.machines[pod]) for pod, server in servers.items()}

    def have_asked_again() -> bool:
        return all(
            server.asked_by(lab.machines[pod]) > asked[pod]
            for pod, server in servers.items()
            if server is not dead
        )

    with Watch(lab.all(), "members") as members:
        no_name.serve_nothing()
        no_records.serve_no_records()
        serve(elsewhere, lab, UNUSED)
        dead.stop()
        until(have_asked_again, "every pod has asked again", PATIENCE_S)
        for daemon in lab.all():
            daemon.read("track", f"DNS{daemon.name[-1]}", 1)
        whole(lab.all())
    assert {len(document["items"]) for document in members.seen} == {len(servers)}
    assert members.items("state") == {"alive"}
    for daemon in lab.all():
        assert daemon.plates() == ["DNS0", "DNS1", "DNS2", "DNS3"]
    assert served_once(lab.all(), GATES) == table


def test_pods_whose_name_server_is_dead_serve_alone_and_meet_when_it_answers(
    lab: NetLab, name_server: Callable[[], NameServer]
) -> None:
    server, pods = name_server(), PODS[:2]
    for pod in pods:
        lab.boot(pod, *flags(server), mdns=False)
    for pod in pods:
        daemon = lab.nodes[pod]
        until(daemon.is_ready, f"{pod} serves alone", PATIENCE_S)
        assert daemon.read("status")["members"]["alive"] == 1
        daemon.read("track", f"ALONE{pod[-1]}", 1)
    serve(server, lab, *pods)
    lab.until_together()
    whole(lab.all())
    assert len({daemon.read("lot")["lot"] for daemon in lab.all()}) == 1
    for daemon in lab.all():
        assert daemon.plates() == ["ALONE0", "ALONE1"]
    served_once(lab.all(), GATES)
