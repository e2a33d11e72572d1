"""Daemons that only a name server can bring together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapters.dns_stub import DnsStub, code, records_of, silence
from tests.daemon.harness import Cluster, Daemon, agree, until

SERVICE = "_gossip._tcp.lot.test"
NAMES = ("gary", "diane", "joe")

HURRIED = """
import sys
from parkingd.adapters.discovery import resolver
resolver.ROUND_S = 1.0
from parkingd.adapters.discovery import srv
srv.ALONE_INTERVAL_S, srv.INTERVAL_S = 0.5, 2.0
from parkingd.cli.parkingd import main
sys.exit(main())
"""
"""The daemon, but a look-up ends after 1 s, not 5, and the next follows after 2 s, not 10."""


@pytest.fixture
def stub() -> Iterator[DnsStub]:
    with DnsStub() as stub:
        yield stub


def start(cluster: Cluster, stub: DnsStub, name: str) -> Daemon:
    """Alone in its runtime directory, without mDNS, and asking the stub; it has no lot yet."""
    server = f"127.0.0.1:{stub.port}"
    command = (sys.executable, "-c", HURRIED)
    flags = ("--srv", SERVICE, "--dns", server)
    return cluster.start(name, *flags, apart=True, lot=False, command=command)


def publish(stub: DnsStub, daemons: list[Daemon], **ports: int) -> None:
    """The name server knows these daemons, each by a name of its own, and other ports besides."""
    listening = {daemon.name: daemon.port for daemon in daemons} | ports
    records = (f"0 0 {port} {name}.lot.test." for name, port in listening.items())
    stub.says(
        SERVICE,
        "SRV",
        records_of(
            (SERVICE, "SRV", *records),
            additional=[(f"{name}.lot.test", "A", "127.0.0.1") for name in listening],
        ),
    )


def found(daemon: Daemon) -> list[dict[str, Any]]:
    return list(daemon.read("discover")["items"])


def test_three_daemons_find_each_other_through_the_name_server_only(
    cluster: Cluster, stub: DnsStub
) -> None:
    daemons = [start(cluster, stub, name) for name in NAMES]
    for daemon in daemons:
        assert not daemon.events("member_found"), "nobody else can have told it"
        (row,) = found(daemon)
        assert (row["source"], row["address"], row["state"]) == ("srv", SERVICE, "nxdomain")
        assert f"asked 127.0.0.1:{stub.port}: there is no such name" in row["detail"]
    publish(stub, daemons)
    for daemon in daemons:
        daemon.wait_for("members=3", "ready", "synced")
    assert len({daemon.read("lot")["lot"] for daemon in daemons}) == 1
    assert daemons[0].ctl("track", "KAPI314", 1).status == 0
    agree(daemons)
    assert [daemon.plates() for daemon in daemons] == [["KAPI314"]] * 3
    # Who was greeted first is not alone any more, and asks later.
    until(lambda: all(is_told(daemon) for daemon in daemons), "all know what SRV says")


def is_told(daemon: Daemon) -> bool:
    """Whether it has heard of all three by SRV, itself included, and no look-up has failed."""
    rows = found(daemon)
    told = [row for row in rows if row["detail"].startswith(f"SRV {SERVICE} -> ")]
    states = sorted(row["state"] for row in told)
    return len(rows) == 3 and states == ["connected", "connected", "self"]


def test_a_name_server_that_fails_afterwards_costs_no_member_and_is_shown(
    cluster: Cluster, stub: DnsStub
) -> None:
    daemons = [start(cluster, stub, name) for name in NAMES[:2]]
    # Somebody who is not there, too.
    publish(stub, daemons, ghost=1)
    for daemon in daemons:
        daemon.wait_for("members=2", "ready", "synced")
    gary, diane = daemons

    def states() -> dict[str, str]:
        return {row["address"]: row["state"] for row in found(gary)}

    until(lambda: states().get("127.0.0.1:1") == "refused", "the one who is not there is told")
    (ghost,) = (row for row in found(gary) if row["address"] == "127.0.0.1:1")
    assert ghost["detail"] == f"SRV {SERVICE} -> ghost.lot.test:1; nobody listens there"
    stub.says(SERVICE, "SRV", code("SERVFAIL"))
    until(lambda: states().get(SERVICE) == "servfail", "gary has asked again")
    assert states()[f"127.0.0.1:{diane.port}"] == "connected"
    assert states()["127.0.0.1:1"] == "refused"
    assert gary.read("status")["members"]["alive"] == 2
    assert "SERVFAIL" in gary.events("srv_failed")[-1]["reason"]


def test_without_a_name_server_a_daemon_waits_a_little_and_founds_its_lot(
    cluster: Cluster, stub: DnsStub
) -> None:
    stub.says(SERVICE, "SRV", silence)
    gary = start(cluster, stub, "gary")
    gary.wait_for("ready")
    (row,) = found(gary)
    assert (row["address"], row["state"]) == (SERVICE, "timeout")
    gary.stop()
