from __future__ import annotations

import asyncio
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest
import zmq

from parkingd.adapters import control
from parkingd.adapters.client import ControlClient, Trouble
from parkingd.adapters.control import ControlServer
from parkingd.adapters.control_wire import REQUEST_BYTES_MAX, Reply, decode_reply
from parkingd.adapters.rundir import ControlLock
from parkingd.errors import ConfigError
from parkingd.protocol.commands import Where
from parkingd.protocol.limits import RAW_LENGTH_MAX
from parkingd.protocol.outcomes import Lot
from tests.adapters.control_fake import RunningServer, eventually, running, vehicle_rows


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running(tmp_path) as server:
        yield server


Client = zmq.Socket[bytes]
Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes raw clients of a server, and closes them in the end."""
    context = zmq.Context()
    clients: list[Client] = []

    def connect(server: RunningServer, **options: int) -> Client:
        client = context.socket(zmq.DEALER)
        client.setsockopt(zmq.LINGER, 0)
        for option, value in options.items():
            client.setsockopt(getattr(zmq, option), value)
        client.connect(f"ipc://{server.path}")
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()
    context.term()


def request(id_: int, verb: str, deadline_ms: int = 5_000, **args: object) -> bytes:
    fields = {"v": 1, "id": id_, "verb": verb, "args": args, "deadline_ms": deadline_ms}
    return bytes(msgpack.packb(fields))


def answer(client: Client) -> Reply:
    assert client.poll(5_000), "no answer"
    return decode_reply(client.recv())


def lot_is_answered(server: RunningServer) -> bool:
    client = ControlClient.connect(server.path, 5)
    assert isinstance(client, ControlClient)
    document = client.call("lot", {})
    client.close()
    return not isinstance(document, Trouble) and document["inside"] == 1


def test_a_request_is_answered_under_its_id_with_who_and_when(
    server: RunningServer, connect: Connect
) -> None:
    client = connect(server)
    client.send(request(41, "lot"))
    reply = answer(client)
    assert (reply.id, reply.last, reply.kind, reply.node) == (41, True, "Lot", "gary")
    assert reply.body["free"] == 99
    assert server.server.in_flight == 0


def test_many_requests_are_in_flight_on_one_connection(
    server: RunningServer, connect: Connect
) -> None:
    client = connect(server)
    for id_ in range(500):
        client.send(request(id_, "lot"))
    assert sorted(answer(client).id for _ in range(500)) == list(range(500))


def test_only_the_owner_may_open_the_socket(server: RunningServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700


def test_a_second_daemon_does_not_steal_the_socket(server: RunningServer) -> None:
    with pytest.raises(ConfigError, match="already runs here"):
        ControlLock.acquire(server.path)
    assert lot_is_answered(server)


def test_a_socket_file_left_by_a_crash_is_taken_over(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        path = first.path
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with running(tmp_path) as second:
        assert lot_is_answered(second)


def test_a_closed_server_leaves_the_path_to_its_successor(tmp_path: Path) -> None:
    for _ in range(5):
        with running(tmp_path) as server:
            assert lot_is_answered(server)
        assert not server.path.exists()


def test_the_last_answer_gets_out_before_the_server_closes(
    tmp_path: Path, connect: Connect
) -> None:
    with running(tmp_path) as server:
        client = connect(server)
        client.send(request(1, "leave"))
        eventually(lambda: bool(server.node.seen))
    assert answer(client).kind == "Left"


def test_a_path_that_cannot_be_bound_is_a_config_error(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(ConfigError, match="cannot bind"):
        ControlServer(
            loop, tmp_path / "absent" / "x.ctl", lambda *_: None, lambda *_: None, node="x"
        )
    loop.close()


def test_pages_arrive_whole_and_in_order(server: RunningServer, connect: Connect) -> None:
    server.node.rows = vehicle_rows(1_000)
    server.node.page_rows = 10
    client = connect(server, RCVHWM=1)
    client.send(request(1, "vehicles"))
    plates: list[str] = []
    while True:
        reply = answer(client)
        plates += [row[0] for row in reply.body["rows"]]
        if reply.last:
            break
    assert plates == [row[0] for row in server.node.rows]
    eventually(lambda: server.server.pages_waiting == 0)


@pytest.mark.parametrize(
    ("frames", "counter"),
    [
        ([b"", b"x"], "parts"),
        ([request(1, "lot"), b""], "parts"),
        ([b"\xc1" * 100], "msgpack"),
        ([msgpack.packb([1, 2])], "not_a_map"),
        ([msgpack.packb({"v": 1})], "id"),
    ],
)
def test_garbage_is_counted_and_nobody_is_answered(
    server: RunningServer,
    connect: Connect,
    frames: list[bytes],
    counter: str,
) -> None:
    client = connect(server)
    client.send_multipart(frames)
    eventually(lambda: server.server.counters[counter] == 1)
    client.send(request(2, "lot"))
    assert answer(client).id == 2


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (request(1, "fly"), "usage"),
        (request(1, "lot", what=1), "usage"),
        (request(1, "track", plate="A", gate="1"), "usage"),
        (request(1, "backup", path="relative"), "usage"),
        (request(1, "lot", deadline_ms=0), "usage"),
        (msgpack.packb({"v": 9, "id": 1}), "protocol_version"),
    ],
)
def test_nonsense_with_an_id_is_answered_with_an_error(
    server: RunningServer, connect: Connect, frame: bytes, code: str
) -> None:
    client = connect(server)
    client.send(frame)
    reply = answer(client)
    assert (reply.kind, reply.body["code"]) == ("Error", code)
    assert server.server.counters[code] == 1
    assert server.node.seen == []


def test_a_frame_over_64_kib_is_refused_and_others_are_served(
    server: RunningServer, connect: Connect
) -> None:
    largest = connect(server)
    plate = "x" * (REQUEST_BYTES_MAX - 200)
    largest.send(request(1, "where", plate=plate))
    assert answer(largest).kind == "Vehicle"
    (seen,) = server.node.seen
    assert isinstance(seen, Where)
    assert len(seen.plate) <= RAW_LENGTH_MAX

    huge = connect(server)
    huge.send(bytes(1024 * 1024))
    assert lot_is_answered(server)
    assert not huge.poll(100)


def test_random_bytes_on_the_bare_socket_do_no_harm(server: RunningServer) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\xff" * 10_000):
        with socket.socket(socket.AF_UNIX) as bare:
            bare.connect(str(server.path))
            bare.sendall(garbage)
    assert lot_is_answered(server)


def test_two_hundred_idle_clients_keep_nobody_waiting(
    server: RunningServer, connect: Connect
) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for bare in idle:
        bare.connect(str(server.path))
    clients = [connect(server) for _ in range(100)]
    assert lot_is_answered(server)
    clients[-1].send(request(1, "lot"))
    assert answer(clients[-1]).kind == "Lot"
    for bare in idle:
        bare.close()


def test_requests_over_the_bound_are_refused_at_once(
    server: RunningServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "IN_FLIGHT_MAX", 10)
    server.node.silent = True
    client = connect(server)
    for id_ in range(12):
        client.send(request(id_, "lot"))
    refused = [answer(client) for _ in range(2)]
    assert [(reply.id, reply.body["code"]) for reply in refused] == [
        (10, "overloaded"),
        (11, "overloaded"),
    ]
    assert server.server.in_flight == 10
    assert server.server.counters["overloaded"] == 2


def test_a_handle_is_forgotten_a_second_after_its_deadline(
    server: RunningServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "FORGET_AFTER_S", 0.05)
    server.node.silent = True
    client = connect(server)
    client.send(request(1, "lot", deadline_ms=1))
    eventually(lambda: server.server.counters["unanswered"] == 1)
    assert server.server.in_flight == 0
    lot = Lot("0", 1, 0, 1, 0, "open", "local", ())
    server.on_loop(lambda: server.server.reply(1, lot))
    eventually(lambda: server.server.counters["late"] == 1)
    assert not client.poll(50)


def test_a_client_that_never_reads_is_dropped_at_its_deadline(
    server: RunningServer, connect: Connect
) -> None:
    server.node.rows = vehicle_rows(100_000)
    client = connect(server, RCVHWM=1)
    client.send(request(1, "vehicles", deadline_ms=300))
    eventually(lambda: server.server.pages_waiting > 0)
    assert lot_is_answered(server)
    eventually(lambda: server.server.counters["unread"] == 1)
    eventually(lambda: server.server.pages_waiting == 0)


def test_pages_of_clients_that_never_read_are_bounded(
    server: RunningServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "PAGES_MAX", 60)
    server.node.rows = vehicle_rows(100_000)
    clients = [connect(server, RCVHWM=1) for _ in range(4)]
    for client in clients:
        for id_ in range(5):
            client.send(request(id_, "vehicles"))
    eventually(lambda: len(server.node.seen) == 20)
    eventually(lambda: server.server.counters["unread"] >= 4)
    assert server.server.pages_waiting <= 60
    assert lot_is_answered(server)


def test_errors_that_nobody_reads_do_not_pile_up(server: RunningServer, connect: Connect) -> None:
    client = connect(server, RCVHWM=1, SNDHWM=0)
    reason = "x" * 32
    for id_ in range(20_000):
        client.send(request(id_, reason))
    eventually(lambda: server.server.counters["usage"] == 20_000, 20)
    assert server.server.counters["unread"] > 0
    eventually(lambda: server.server.pages_waiting == 0)
    assert lot_is_answered(server)


def test_a_client_that_disconnects_in_the_middle_of_an_answer_is_forgotten(
    server: RunningServer, connect: Connect
) -> None:
    server.node.rows = vehicle_rows(100_000)
    client = connect(server, RCVHWM=1)
    client.send(request(1, "vehicles", deadline_ms=60_000))
    assert answer(client).last is False
    client.close()
    eventually(lambda: server.server.pages_waiting == 0)
    assert server.server.counters["gone"] == 1
    assert server.server.in_flight == 0
    assert lot_is_answered(server)


def test_a_flood_of_requests_leaves_turns_to_the_rest_of_the_loop(
    server: RunningServer, connect: Connect
) -> None:
    client = connect(server, SNDHWM=0, RCVHWM=0)
    seen_at_turns: list[int] = []
    done = threading.Event()

    def count_turn() -> None:
        seen_at_turns.append(len(server.node.seen))
        if len(server.node.seen) < 3_000:
            server.on_loop(count_turn)
        else:
            done.set()

    server.on_loop(count_turn)
    for id_ in range(3_000):
        client.send(request(id_, "lot"))
    assert done.wait(20)
    steps = [after - before for before, after in pairwise(seen_at_turns)]
    assert max(steps) <= 2 * control.FRAMES_PER_TURN
