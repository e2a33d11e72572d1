"""A daemon that is asked more than it can answer goes on telling the others that it lives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from parkingd.adapters.control_wire import Request, decode_reply, encode_request
from tests.daemon.harness import PATIENCE_S, Cluster, Daemon

FLOOD_S = 4.0
"""Twice the silence after which a member is dead."""

CLIENTS = 40
PIPELINED = 8
"""Requests of each client on their way at any time: as many as the daemon answers without letting
answers wait, so that it is the requests that wait, and every turn of its loop has some."""

ROWS = 100
IMPORT = encode_request(
    Request(
        1,
        "import_rows",
        {
            "rows": [
                [line, f"BUSY{line}", 1, None, line.to_bytes(16, "big")]
                for line in range(1, ROWS + 1)
            ]
        },
        int(PATIENCE_S * 1_000),
    )
)
"""An import that records its rows once and is repeated then: much more work for the daemon than
for a client that sends the same frame again and again, and nothing for the disk."""


@contextmanager
def clients_of(path: Path) -> Iterator[list[zmq.Socket[bytes]]]:
    """Connections to this control socket."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        sockets = [context.socket(zmq.DEALER) for _ in range(CLIENTS)]
        for socket in sockets:
            socket.connect(f"ipc://{path}")
        yield sockets
    finally:
        context.destroy(linger=0)


def flood(sockets: list[zmq.Socket[bytes]], seconds: float) -> int:
    """Ask again at once for each answer; how many answers there were."""
    answered = 0
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
        for _ in range(PIPELINED):
            socket.send(IMPORT)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        ready = dict(poller.poll(int(PATIENCE_S * 1_000)))
        assert ready, "no answer"
        for socket in ready:
            reply = decode_reply(socket.recv())
            assert reply.kind == "ImportResult", reply
            answered += 1
            socket.send(IMPORT)
    return answered


def times_said(peer: Daemon, event: str, other: Daemon) -> int:
    """How often this peer's log says so of the other."""
    return sum(1 for record in peer.events(event) if record["member"] == other.name)


def test_a_loop_that_never_idles_still_tells_the_others_that_it_lives(cluster: Cluster) -> None:
    """The timer was made anew in every turn of the loop, and so it never came."""
    gary, diane, joe = cluster.start_all("gary", "diane", "joe")
    with clients_of(gary.control) as sockets:
        answered = flood(sockets, FLOOD_S)
    assert answered > CLIENTS * PIPELINED, "more than were on their way at once"
    for peer in (diane, joe):
        # A machine with too much to do may hold a process up for a second, but not again and again.
        assert times_said(peer, "member_suspect", gary) <= 1
        assert times_said(peer, "member_dead", gary) == 0
        states = {item["name"]: item["state"] for item in peer.read("members")["items"]}
        assert states["gary"] == "alive"
    gary.wait_for("members=3", "synced")
    assert len(gary.plates()) == ROWS
