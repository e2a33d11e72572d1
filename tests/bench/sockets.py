"""TCP payload, counted by the kernel and read with `ss`: no process is asked about itself.

Every connection on loopback has two ends and shows twice; each end counts the payload bytes it has
received, CURVE's framing included and headers of TCP and IP not. What a node has sent is what the
far ends have received. Connections that have closed are no longer counted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from tests.bench.figures import BenchError, Unavailable
from tests.bench.processes import Node

_PID = re.compile(r"pid=(\d+)")
_RECEIVED = re.compile(r"\bbytes_received:(\d+)")


class Ports(NamedTuple):
    """One end of a connection, by its ports: all are on loopback."""

    local: int
    far: int


class End(NamedTuple):
    """What one end of a connection knows."""

    pid: int
    received: int
    unsent: int
    """Bytes that the far end has not acknowledged."""


Ends = dict[Ports, End]


def ends() -> Ends:
    """Every end of an open TCP connection that a process of ours holds."""
    if shutil.which("ss") is None:
        raise Unavailable("bytes are counted with `ss` (iproute2), which is not here")
    listed = subprocess.run(["ss", "-tinpOH"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise BenchError(f"ss: {listed.stderr.strip()}")
    found: Ends = {}
    for line in listed.stdout.splitlines():
        pid, received = _PID.search(line), _RECEIVED.search(line)
        _, _, unsent, local, far = line.split()[:5]
        if pid is not None:
            ports = Ports(_port(local), _port(far))
            count = int(received[1]) if received is not None else 0
            found[ports] = End(int(pid[1]), count, int(unsent))
    return found


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def received(seen: Ends, node: Node, ports: Iterable[int] | None = None) -> int:
    """Payload bytes that this node has received, on connections to or from these ports."""
    chosen = None if ports is None else set(ports)
    return sum(
        end.received
        for (local, far), end in seen.items()
        if end.pid == node.pid and (chosen is None or local in chosen or far in chosen)
    )


def sent(seen: Ends, node: Node, ports: Iterable[int] | None = None) -> int:
    """Payload bytes of this node that have arrived, on connections to or from these ports."""
    chosen = None if ports is None else set(ports)
    own = {Ports(far, local) for (local, far), end in seen.items() if end.pid == node.pid}
    return sum(
        seen[ports].received
        for ports in own
        if ports in seen and (chosen is None or ports.local in chosen or ports.far in chosen)
    )


def between(seen: Ends, receiver: Node, sender: Node) -> int:
    """Payload bytes that one node has received from the other."""
    return sum(
        end.received
        for (local, far), end in seen.items()
        if end.pid == receiver.pid
        and (other := seen.get(Ports(far, local))) is not None
        and other.pid == sender.pid
    )
