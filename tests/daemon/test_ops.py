"""The ops port of real daemons: what a probe, a scrape and a person see."""

from __future__ import annotations

import http.client
import json
import resource
import signal
import socket
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.harness import COMMAND, Cluster, Daemon, agree, until

PATIENCE_S = 10.0

WITHOUT = """
import sys
sys.modules["{package}"] = None
from parkingd.cli.parkingd import main
sys.exit(main(sys.argv[1:]))
"""


class Seen:
    """A response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.degraded = response.headers.get("X-Parkingd-Degraded", "").split(", ")
        self.text = response.read().decode()

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.text))


def ops_address(daemon: Daemon) -> tuple[str, int]:
    (record,) = until(lambda: daemon.events("ops_listening"), "the ops port is open")
    host, _, port = record["address"].rpartition(":")
    return host, int(port)


def get(daemon: Daemon, target: str) -> Seen:
    host, port = ops_address(daemon)
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", target)
        return Seen(connection.getresponse())
    finally:
        connection.close()


def value(daemon: Daemon, name: str, **labels: str) -> float:
    """Of one sample; 0 if there is none."""
    families = text_string_to_metric_families(get(daemon, "/metrics").text)
    samples = [each for family in families for each in family.samples if each.name == name]
    return sum(each.value for each in samples if each.labels == labels)


def owners(daemons: tuple[Daemon, ...]) -> list[float]:
    """How many of them own each gate; none while it moves."""
    gates = ("1", "2", "3", "4")
    return [
        sum(value(each, "parkingd_gate_owned", gate=gate) for each in daemons) for gate in gates
    ]


def test_a_lone_node_is_alive_and_ready_and_says_that_it_is_alone(cluster: Cluster) -> None:
    gary = cluster.start("gary", "--ops", 0)
    assert ops_address(gary)[0] == "127.0.0.1"
    assert get(gary, "/livez").text == "ok\n"
    ready = get(gary, "/readyz")
    assert (ready.status, ready.text, ready.degraded) == (200, "ok\n", ["alone"])
    verbose = get(gary, "/readyz?verbose").text.splitlines()
    assert verbose == [
        "[+]discovery ok",
        "[+]lot ok",
        "[+]staying ok",
        "[+]synced ok",
        "degraded: alone: no other node is alive",
        "readyz check passed",
    ]
    assert get(gary, "/livez?verbose").text == "[+]loop ok\nlivez check passed\n"
    assert get(gary, "/v1/vehicles").status == 404


def test_a_node_that_still_looks_around_is_alive_and_not_ready(cluster: Cluster) -> None:
    """The peer that it is told of is not there, so it waits for some seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = f"127.0.0.1:{silent.getsockname()[1]}"
        gary = cluster.start("gary", "--ops", 0, "--peer", peer, answers=False)
        assert get(gary, "/livez").status == 200
        ready = get(gary, "/readyz")
        assert ready.status == 503
        assert "[-]lot failed: it has neither joined nor founded a lot\n" in ready.text
        assert ready.text.endswith("readyz check failed\n")
        assert get(gary, "/v1/lot").document["code"] == "not_ready"


def test_two_nodes_show_one_lot_and_ready_does_not_hang_on_the_other(cluster: Cluster) -> None:
    gary, diane = (cluster.start(name, "--ops", 0) for name in ("gary", "diane"))
    gary.wait_for("members=2", "synced", "gates=4")
    gary.read("track", "SEEN1", 1)
    gary.read("track", "SEEN2", 1)
    gary.read("exit", "SEEN2", 1)
    agree((gary, diane))
    for daemon in (gary, diane):
        assert until(lambda d=daemon: get(d, "/readyz").degraded == [""], "all is well")
        lot = get(daemon, "/v1/lot").document
        assert (lot["kind"], lot["node"], lot["inside"]) == ("Lot", daemon.name, 1)
        assert value(daemon, "parkingd_lot_vehicles") == 1
        assert value(daemon, "parkingd_cluster_members", state="alive") == 2
    status = get(gary, "/v1/status").document
    assert [(each["name"], each["state"]) for each in status["items"]] == [
        ("gary", "alive"),
        ("diane", "alive"),
    ]
    assert value(gary, "parkingd_entries_total", gate="1") == 2
    assert value(diane, "parkingd_entries_total", gate="1") == 0
    assert value(gary, "parkingd_exits_total", gate="1", match="exact") == 1
    kind = {"type": "Heartbeat"}
    until(lambda: value(diane, "parkingd_messages_received_total", **kind), "a heartbeat")
    until(lambda: owners((gary, diane)) == [1, 1, 1, 1], "every gate is owned once")
    for target in ("/metrics", "/v1/lot", "/v1/status"):
        assert "SEEN" not in get(gary, target).text
    diane.end(signal.SIGKILL)
    gary.until_status(lambda status: status["members"]["dead"] == 1, "dead member")
    ready = get(gary, "/readyz")
    assert (ready.status, ready.degraded[:2]) == (200, ["alone", "members_lost"])


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits other processes")
def test_it_waits_for_a_descriptor_and_for_no_client_when_it_ends(cluster: Cluster) -> None:
    gary = cluster.start("gary", "--ops", 0, lot=False)
    address = ops_address(gary)
    pid = gary.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    with socket.create_connection(address, timeout=PATIENCE_S) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: gary\r\n\r\nGET /me")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        client.settimeout(PATIENCE_S)
        assert client.recv(12) == b"HTTP/1.1 200"
        gary.stop()
        while client.recv(4_096):
            pass


def test_an_ops_port_in_use_is_named_and_the_exit_status_is_2(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = cluster.fail_to_start("gary", "--ops", port)
    assert ended.status == 2
    assert f"port {port} of --ops is in use; " in ended.complaint


def test_without_the_extra_the_line_that_installs_it_is_shown(cluster: Cluster) -> None:
    program = (COMMAND[0], "-c", WITHOUT.format(package="h11"))
    ended = cluster.fail_to_start("gary", "--ops", 0, command=program)
    assert ended.status == 2
    assert "--ops needs h11, which is not installed; " in ended.complaint
    assert ended.complaint.endswith(f"{COMMAND[0]} -m pip install 'parkingd[ops]'")
    assert not cluster.data_dir("gary").exists()


def test_without_ops_nothing_of_the_extra_is_needed(cluster: Cluster) -> None:
    program = (COMMAND[0], "-c", WITHOUT.format(package='h11"] = sys.modules["prometheus_client'))
    gary = cluster.start("gary", lot=False, command=program)
    assert not gary.events("ops_listening")
    gary.stop()
