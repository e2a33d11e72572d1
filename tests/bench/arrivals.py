"""Arrivals: 600 cars at once at the three gates of a lot with 100 spaces, each gate on a node.

Every car comes over a connection of its own, 200 to each node; all are connected before the first
one asks. Asked is either the node that serves the gate, as a lane computer asks its own daemon, or
any node, so that two of three requests are forwarded. Afterwards every answer is compared with the
record of every node.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import zmq

from parkingd.adapters.control_wire import Reply, Request, decode_reply, encode_request
from tests.bench.cars import Row, ask, cars
from tests.bench.figures import BenchError, Figure
from tests.bench.gates import arrival, owned_by, until_shared
from tests.bench.processes import Lot, Node, equal_roots

NAMES: Final = ("ann", "bob", "cid")
GATES: Final = 3
SPACES: Final = 100
CONNECTIONS: Final = 200
"""To each node."""

ENTER_MS: Final = 10_000
ANSWERS_S: Final = 12.0
FILES: Final = 4_096
"""Each connection takes two or three."""


class Car(NamedTuple):
    """One arrival, and over which connection it asks."""

    row: Row
    node: int
    gate: int


class Burst(NamedTuple):
    """What became of all arrivals."""

    inside: int
    wrong: int
    """Answers that the record of some node contradicts."""
    unanswered: int
    """Without a decision, or decided by nobody."""
    took_ms: tuple[float, ...]
    """Of each answer."""
    reasons: Counter[str]


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """A quick run asks only the nodes that serve the gates."""
    resource.setrlimit(resource.RLIMIT_NOFILE, _file_limits())
    figures = []
    for is_own, where in ((True, "where its gate is served"), (False, "at any node")):
        if is_own or not quick:
            bursts = [_burst(run, is_own=is_own) for run in range(runs)]
            figures += _figures(where, bursts)
    return figures


def _figures(where: str, bursts: Sequence[Burst]) -> list[Figure]:
    reasons = sum((burst.reasons for burst in bursts), Counter[str]())
    took = tuple(max(burst.took_ms) for burst in bursts)
    name = f"{len(NAMES) * CONNECTIONS} arrivals at once, each asked {where}"
    return [
        Figure("arrivals", f"{name}: cars inside, {SPACES} spaces", "cars",
               tuple(float(burst.inside) for burst in bursts), "203-304", SPACES + 2,
               note=f"answers: {dict(reasons)}"),
        Figure("arrivals", f"{name}: answers that the record contradicts", "cars",
               tuple(float(burst.wrong) for burst in bursts), must=0),
        Figure("arrivals", f"{name}: without a decision", "cars",
               tuple(float(burst.unanswered) for burst in bursts)),
        Figure("arrivals", f"{name}: until all were answered", "ms", took),
    ]  # fmt: skip


def _burst(run: int, *, is_own: bool) -> Burst:
    with Lot("--spaces", str(SPACES), "--gates", str(GATES)) as lot:
        nodes = lot.start_all(*NAMES)
        clients = [node.connect() for node in nodes]
        view = until_shared(clients, NAMES, GATES)
        rows = cars(run)
        arrivals = [
            Car(
                next(rows),
                index % len(nodes),
                owned_by(view, NAMES[index % len(nodes)])[0]
                if is_own
                else 1 + index // len(nodes) % GATES,
            )
            for index in range(len(nodes) * CONNECTIONS)
        ]
        answers = _all_at_once(nodes, arrivals)
        equal_roots(clients)
        record = [{item["plate"] for item in ask(c, "vehicles")["items"]} for c in clients]
    admitted = {car.row[1] for car, reply, _ in answers if _reason(reply) == "ok"}
    denied = {car.row[1] for car, reply, _ in answers if reply.kind == "Decision"} - admitted
    wrong = set[str]().union(*((admitted - inside) | (denied & inside) for inside in record))
    reasons = Counter(_reason(reply) for _, reply, _ in answers)
    reasons["no answer"] = len(arrivals) - len(answers)
    undecided = sum(count for reason, count in reasons.items() if reason not in ("ok", "full"))
    took_ms = tuple(took_s * 1000 for _, _, took_s in answers)
    return Burst(max(map(len, record)), len(wrong), undecided, took_ms, +reasons)


def _reason(reply: Reply) -> str:
    return str(reply.body["reason"] if reply.kind == "Decision" else reply.body["code"])


def _all_at_once(nodes: Sequence[Node], arrivals: Sequence[Car]) -> list[tuple[Car, Reply, float]]:
    """Every answer that came, and after how many seconds."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2 * len(arrivals))
    try:
        waiting: dict[zmq.Socket[bytes], Car] = {}
        poller = zmq.Poller()
        for car in arrivals:
            socket = context.socket(zmq.DEALER)
            socket.connect(f"ipc://{nodes[car.node].socket}")
            poller.register(socket, zmq.POLLIN)
            waiting[socket] = car
        hello = encode_request(Request(1, "version", {}, ENTER_MS))
        for socket in waiting:
            socket.send(hello)
        for socket in waiting:
            if not socket.poll(ENTER_MS):
                raise BenchError("a connection to a control socket was not accepted")
            socket.recv()
        requests = [
            encode_request(Request(2, "enter", arrival(car.row, car.gate), ENTER_MS))
            for car in arrivals
        ]
        begun_s = time.monotonic()
        for socket, request in zip(waiting, requests, strict=True):
            socket.send(request)
        answers = []
        while waiting and (left_s := begun_s + ANSWERS_S - time.monotonic()) > 0:
            for socket, _ in poller.poll(int(left_s * 1000)):
                answers.append(
                    (waiting.pop(socket), decode_reply(socket.recv()), time.monotonic() - begun_s)
                )
                poller.unregister(socket)
        return answers
    finally:
        context.destroy(linger=0)


def _file_limits() -> tuple[int, int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return soft, hard
    return (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)), hard
