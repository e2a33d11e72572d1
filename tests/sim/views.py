"""Which views of the cluster are shared by all of their members, and since when one has been calm.

A view is what a node takes for the cluster: itself and its live peers of one lot, each with its
incarnation, and the gates of that lot. It is shared when whoever is in it takes just the same for
the cluster. Views are compared four times a second and hardly ever change: those that are shared
are only worked out anew when some node's view is another than it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

Incarnation: TypeAlias = tuple[str, int]
"""The name of a member and which of its lives this is."""

Own: TypeAlias = tuple[Incarnation, list[Incarnation], bytes, int] | None
"""What one process takes for the cluster: itself, its peers, their lot and its gates. None: it
does not run, or has no lot."""


class Shared(NamedTuple):
    """A view that all its members share."""

    members: frozenset[int]
    """Machines, by index."""
    incarnations: frozenset[Incarnation]
    lot: bytes
    gates: int


class Views:
    """The views of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._own: list[Own] = []
        self._shared: list[Shared] = []
        """Those of ``_own`` that are shared."""

    def shared(self) -> list[Shared]:
        """Those that all their members share just now."""
        own = [_own_view(machine) for machine in self._cluster.machines]
        if own != self._own:
            self._own = own
            self._shared = _shared_of(own)
        return self._shared

    def calm_since_ms(self, view: Shared) -> int:
        """When the last of these woke, and the last link among them came up; now if not calm."""
        cluster = self._cluster
        network, machines = cluster.network, cluster.machines
        since_ms = network.linked_since_ms(view.members)
        if since_ms is None or network.deaf:
            return cluster.time_ms
        for index in view.members:
            machine = machines[index]
            if machine.slow_ms or machine.storage_failing or machine.disk_full:
                return cluster.time_ms
            if machine.awake_ms > since_ms:
                since_ms = machine.awake_ms
        return since_ms


def _own_view(machine: Machine) -> Own:
    node = machine.node
    if node is None or machine.paused or node.lot is None:
        return None
    peers = [(peer.name, peer.incarnation) for peer in node._shared.peers_in_lot()]
    return (machine.name, machine.incarnation), peers, node.lot, node.state.record.gates


def _shared_of(views: list[Own]) -> list[Shared]:
    groups: dict[tuple[frozenset[Incarnation], bytes, int], set[int]] = {}
    for index, view in enumerate(views):
        if view is not None:
            itself, peers, lot, gates = view
            groups.setdefault((frozenset((itself, *peers)), lot, gates), set()).add(index)
    return [
        Shared(frozenset(members), *key)
        for key, members in groups.items()
        if len(members) == len(key[0])
    ]
