"""One known peer is enough: a hello passes on where the others are."""

from __future__ import annotations

from tests.daemon.harness import Cluster, until


def test_a_node_that_is_told_of_one_peer_finds_all(cluster: Cluster) -> None:
    """Each in a runtime directory of its own, so that only --peer can bring them together."""
    gary = cluster.start("gary", apart=True)
    port = gary.read("members")["items"][0]["address"].rpartition(":")[2]
    others = [
        cluster.start(name, "--peer", f"127.0.0.1:{port}", apart=True) for name in ("joe", "diane")
    ]
    for daemon in (gary, *others):
        until(lambda daemon=daemon: daemon.read("status")["members"]["alive"] == 3, "three members")
