"""The transport between honest nodes, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys

import pytest
import zmq

from parkingd.adapters.transport import dealers
from parkingd.adapters.transport import transport as transport_module
from parkingd.adapters.transport.monitor import LinkState
from parkingd.adapters.transport.sockets import (
    FILES_WANTED,
    new_context,
    new_dealer,
    new_pub,
    new_router,
    new_sub,
    raise_file_limit,
)
from parkingd.errors import ConfigError
from parkingd.protocol.facts import LinkFailure
from parkingd.protocol.limits import CHUNK_FRAME_BYTES_MAX
from parkingd.protocol.messages import Address, Route
from tests.adapters.stations import (
    CLUSTER,
    KEYS,
    OTHER_KEYS,
    Scene,
    Station,
    play,
    served,
    subscribed,
    until,
    unused_address,
)


def test_a_request_is_answered_along_its_route() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(echo=True).bind(), scene.station()
        assert client.transport.send(node.address, b"hello")
        await until(lambda: client.messages)
        [(route, request)] = node.messages
        assert isinstance(route, Route)
        assert route.host == "127.0.0.1"
        assert request == b"hello"
        assert client.messages == [(node.address, b"answer to hello")]
        assert client.links == [(node.address, LinkState.CONNECTED)]
        assert client.transport.counters.snapshot() == {
            "messages_in": 1,
            "messages_out": 1,
            "bytes_in": 15,
            "bytes_out": 5,
        }

    play(act)


def test_a_node_on_all_interfaces_is_reached_by_either_family_and_names_the_real_peer() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(echo=True).bind(host=None), scene.station()
        hosts = ["127.0.0.1"]
        if has_ipv6():
            hosts.append("::1")
        for host in hosts:
            client.transport.send(Address(host, node.port), host.encode())
        await until(lambda: len(client.messages) == len(hosts))
        for route, request in node.messages:
            assert isinstance(route, Route)
            assert route.host == request.decode()

    play(act)


def test_two_spellings_of_an_address_are_one_link() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()
        client.transport.send(Address("127.0.0.1", node.port), b"one")
        client.transport.send(Address("::ffff:127.0.0.1", node.port), b"two")
        await until(lambda: node.frames() == [b"one", b"two"])
        assert len({link for link, _ in node.messages}) == 1

    play(act)


def test_what_is_published_is_heard_once_however_often_one_subscribes() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()
        await subscribed(node, client)
        for _ in range(3):
            assert client.transport.subscribe("127.0.0.1", node.pub_port)
        before = len(client.messages)
        assert node.transport.publish(b"news")
        assert node.transport.publish(b"end")
        await until(lambda: b"end" in client.frames())
        assert client.messages[before:][-2:] == [(None, b"news"), (None, b"end")]
        assert client.frames().count(b"news") == 1

    play(act)


def test_a_frame_of_the_greatest_size_passes_both_ways() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(echo=True).bind(), scene.station()
        await subscribed(node, client)
        chunk = b"x" * (CHUNK_FRAME_BYTES_MAX - len(b"answer to "))
        await served(node, client, chunk)
        node.transport.publish(b"y" * CHUNK_FRAME_BYTES_MAX)
        await until(lambda: client.messages[-1][1] == b"y" * CHUNK_FRAME_BYTES_MAX)

    play(act)


def test_the_first_frames_wait_for_the_handshake_and_a_fifth_is_lost_at_once() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()
        sent = [client.transport.send(node.address, bytes([number])) for number in range(5)]
        assert sent == [True, True, True, True, False]
        await until(lambda: len(node.messages) == 4)
        assert node.frames() == [bytes([number]) for number in range(4)]
        assert client.counted("dropped_waiting") == 1

    play(act)


def test_what_was_sent_to_an_absent_peer_reaches_nobody_later() -> None:
    async def act(scene: Scene) -> None:
        client, absent = scene.station(), unused_address()
        assert client.transport.send(absent, b"stale")
        await until(lambda: LinkState.REFUSED in client.states(absent))
        node = scene.station(echo=True).bind(absent.port)
        await served(node, client)
        assert node.frames() == [b"honest"]
        assert client.counted("dropped_gone") == 1

    play(act)


def test_a_frame_that_waited_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(scene: Scene) -> None:
        monkeypatch.setattr(dealers, "WAITING_S", -1.0)
        node, client = scene.station().bind(), scene.station()
        client.transport.send(node.address, b"stale")
        await until(lambda: client.links)
        client.transport.send(node.address, b"fresh")
        await until(lambda: node.messages)
        assert node.frames() == [b"fresh"]
        assert client.counted("dropped_expired") == 1

    play(act)


def test_nothing_is_lost_silently_when_both_sides_send_in_bursts() -> None:
    """The descriptor is edge-triggered: a send may eat the news of what has arrived."""
    burst = 5_000

    async def act(scene: Scene) -> None:
        node, client = scene.station(), scene.station()
        answered = 0

        def answer(link: Address | Route | None, frame: bytes) -> None:
            nonlocal answered
            assert isinstance(link, Route)
            answered += node.transport.answer(link, frame)

        def answer_soon(link: Address | Route | None, frame: bytes) -> None:
            node.messages.append((link, frame))
            loop.call_soon(answer, link, frame)

        loop = asyncio.get_running_loop()
        node.on_message = answer_soon
        node.bind()
        client.transport.send(node.address, b"first")
        await until(lambda: client.messages)
        sent = [b"first"]
        for number in range(burst):
            frame = str(number).encode()
            while not client.transport.send(node.address, frame):
                await asyncio.sleep(0)
            sent.append(frame)
        await until(lambda: len(node.messages) == len(sent), "all requests")
        lost = node.transport.counters.dropped
        await until(lambda: answered + lost["full"] == len(sent), "an attempt to answer each")
        await until(lambda: len(client.messages) == answered, "all answers")
        assert node.frames() == sent
        assert answered > burst / 2

    play(act)


def test_a_flood_on_one_socket_leaves_the_loop_its_turns() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(), scene.station()
        in_one_turn = most = 0

        def count(_: Address | Route | None, __: bytes) -> None:
            nonlocal in_one_turn, most
            in_one_turn += 1
            most = max(most, in_one_turn)

        def next_turn() -> None:
            nonlocal in_one_turn
            in_one_turn = 0
            turn.append(loop.call_soon(next_turn))
            del turn[:-1]

        loop = asyncio.get_running_loop()
        turn: list[asyncio.Handle] = []
        await subscribed(node.bind(), client)
        client.on_message = count
        for _ in range(1_500):
            node.transport.publish(b"x")
        next_turn()
        received = client.transport.counters
        await until(lambda: received.messages_in >= 1_500)
        turn[-1].cancel()
        assert 0 < most <= 256

    play(act)


def test_only_a_port_where_nobody_listens_is_refused() -> None:
    async def act(scene: Scene) -> None:
        client, absent = scene.station(), unused_address()
        client.transport.send(absent, b"x")
        await until(lambda: client.links)
        assert client.links == [(absent, LinkState.REFUSED)]
        assert LinkState.REFUSED.failure is LinkFailure.REFUSED
        client.transport.probe(absent)
        await until(lambda: client.links[1:])
        assert client.links[1:] == [(absent, LinkState.REFUSED)]

    play(act)


def test_a_machine_that_does_not_answer_is_a_timeout() -> None:
    async def act(scene: Scene) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = Address("127.0.0.1", full.getsockname()[1])
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:  # once its backlog is full the kernel drops connections
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", address.port))
            client = scene.station()
            client.transport.send(address, b"x")
            await until(lambda: client.links)
            for filler in fillers:
                filler.close()
            assert client.links == [(address, LinkState.TIMEOUT)]

    play(act)


def test_probing_a_living_node_says_nothing() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(echo=True).bind(), scene.station()
        client.transport.probe(node.address)
        await until(lambda: node.refused == ["unfinished"])
        await served(node, client)
        assert client.links == [(node.address, LinkState.CONNECTED)]

    play(act)


def test_a_peer_that_restarts_is_heard_and_reached_again() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(echo=True).bind(), scene.station()
        await subscribed(node, client)
        await served(node, client)
        node.transport.close()
        await until(lambda: LinkState.REFUSED in client.states(node.address))
        assert client.states(node.address)[:2] == [LinkState.CONNECTED, LinkState.DISCONNECTED]
        client.messages.clear()
        again = scene.station(echo=True).bind(node.port)
        await served(again, client)
        await subscribed(again, client)

    play(act)


def test_a_subscription_alone_notices_that_its_peer_died() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()
        await subscribed(node, client)
        node.transport.close()
        await until(lambda: LinkState.REFUSED in client.states(node.address))
        assert client.states(node.address) == [LinkState.DISCONNECTED, LinkState.REFUSED]

    play(act)


def test_a_subscription_survives_a_stranger_on_the_peers_port() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()
        await subscribed(node, client)
        node.transport.close()
        stranger = scene.station(OTHER_KEYS).bind(node.port)
        await until(lambda: "auth" in stranger.refused)
        stranger.transport.close()
        client.messages.clear()
        again = scene.station().bind(node.port)
        await subscribed(again, client)

    play(act)


def test_a_subscription_survives_another_protocol_on_the_peers_port() -> None:
    """libzmq gives up for ever on a peer that breaks the handshake; we do not."""

    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()
        await subscribed(node, client)
        node.transport.close()
        came: list[object] = []

        def speak_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.append(writer)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)
            writer.close()

        async with await asyncio.start_server(speak_http, "127.0.0.1", node.pub_port):
            await until(lambda: came)
        client.messages.clear()
        again = scene.station().bind(node.port)
        await subscribed(again, client)

    play(act)


def test_after_disconnect_nothing_is_heard_and_nothing_reported() -> None:
    async def act(scene: Scene) -> None:
        node, client, witness = scene.station(echo=True).bind(), scene.station(), scene.station()
        await subscribed(node, client, witness)
        await served(node, client)
        heard, links = len(client.messages), list(client.links)
        client.transport.disconnect(node.address, node.pub_port)
        client.transport.disconnect(node.address, node.pub_port)
        node.transport.publish(b"news")
        await until(lambda: b"news" in witness.frames())
        node.transport.close()
        await until(lambda: LinkState.REFUSED in witness.states(node.address))
        assert len(client.messages) == heard
        assert client.links == links

    play(act)


def test_links_that_nobody_uses_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(scene: Scene) -> None:
        monkeypatch.setattr(dealers, "IDLE_LINKS_MAX", 2)
        monkeypatch.setattr(dealers, "LINKS_MAX", 3)
        client, nodes = scene.station(), [scene.station(echo=True).bind() for _ in range(4)]
        for node in nodes[:3]:
            await served(node, client)
        assert not client.transport.send(nodes[3].address, b"all links are busy")
        assert client.counted("dropped_links") == 1
        monkeypatch.setattr(dealers, "IDLE_S", 0.0)
        await served(nodes[3], client)
        await served(nodes[0], client, b"once more")
        assert len({link for link, _ in nodes[0].messages}) == 2

    play(act)


def test_an_answer_along_a_route_that_is_gone_is_counted() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()
        client.transport.send(node.address, b"hello")
        await until(lambda: node.messages)
        route = node.messages[0][0]
        assert isinstance(route, Route)
        client.transport.close()
        await until(lambda: not node.transport.answer(route, b"too late"))
        assert node.counted("dropped_gone") == 1

    play(act)


def test_the_last_words_leave_before_close_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine ten megabytes take longer than a node that leaves may wait."""
    monkeypatch.setattr(transport_module, "CLOSE_LINGER_MS", 10_000)

    async def act(scene: Scene) -> None:
        node, leaver = scene.station().bind(), scene.station().bind()
        await subscribed(leaver, node)
        leaver.transport.send(node.address, b"hello")
        await until(lambda: b"hello" in node.frames())
        said = [str(number).encode().zfill(50_000) for number in range(100)]
        for frame in said:
            assert leaver.transport.send(node.address, b"sent " + frame)
            assert leaver.transport.publish(b"published " + frame)
        leaver.transport.close()
        heard = node.transport.counters
        await until(lambda: heard.bytes_in > 2 * 100 * 50_000)
        for prefix in (b"sent ", b"published "):
            assert [f for f in node.frames() if f.startswith(prefix)] == [prefix + f for f in said]

    play(act)


def test_the_last_answers_leave_before_close_returns() -> None:
    async def act(scene: Scene) -> None:
        leaver = scene.station().bind()
        with new_context() as context, new_dealer(context, KEYS) as dealer:
            dealer.setsockopt(zmq.IMMEDIATE, 0)  # keeps what has arrived when the peer hangs up
            dealer.setsockopt(zmq.RECONNECT_IVL, 1_000)
            dealer.connect(f"tcp://{leaver.address}")
            dealer.send(b"hello")
            await until(lambda: leaver.messages)
            route = leaver.messages[0][0]
            assert isinstance(route, Route)
            said = [str(number).encode().zfill(50_000) for number in range(100)]
            for frame in said:
                assert leaver.transport.answer(route, frame)
            leaver.transport.close()
            await until(lambda: dealer.poll(0))
            heard = []
            while dealer.poll(200):
                heard.append(dealer.recv())
            assert heard == said

    play(act)


@pytest.mark.timeout(20)
def test_close_does_not_wait_for_an_absent_peer() -> None:
    async def act(scene: Scene) -> None:
        client = scene.station().bind()
        for port in range(20_000, 20_010):
            client.transport.send(Address("127.0.0.1", port), b"x")
            client.transport.subscribe("127.0.0.1", port)
        client.transport.probe(unused_address())
        client.transport.close()
        client.transport.close()
        assert not client.transport.send(client.address, b"x")
        assert not client.transport.publish(b"x")
        assert not client.transport.answer(Route(b"\0abcd", "127.0.0.1"), b"x")
        assert not client.transport.subscribe("127.0.0.1", 20_000)
        client.transport.disconnect(client.address, 20_000)
        client.transport.probe(client.address)

    play(act)


def test_a_transport_may_be_closed_from_its_own_callback() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(echo=True).bind(), scene.station()
        closed: list[bytes] = []

        def close(_: Address | Route | None, frame: bytes) -> None:
            client.transport.close()
            closed.append(frame)

        client.on_message = close
        client.transport.send(node.address, b"1")
        client.transport.send(node.address, b"2")
        await until(lambda: closed)
        await until(lambda: len(node.messages) == 2)
        assert closed == [b"answer to 1"]

    play(act)


def test_an_exception_in_a_callback_reaches_the_loops_handler() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station().bind(), scene.station()

        def break_down(_: Address | Route | None, __: bytes) -> None:
            raise AssertionError("a bug")

        node.on_message = break_down
        client.transport.send(node.address, b"x")
        await until(lambda: scene.exceptions)
        assert str(scene.exceptions.pop()["exception"]) == "a bug"

    play(act)


def test_the_pub_is_always_on_the_next_port() -> None:
    async def act(scene: Scene) -> None:
        for wanted in (0, None):
            station = scene.station()
            port, pub_port = station.transport.bind("127.0.0.1", wanted)
            assert pub_port == port + 1
            assert wanted == 0 or (port >= 7744 and port % 2 == 0)

    play(act)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_search_goes_on_behind_a_port_that_is_taken(taken: int) -> None:
    async def act(scene: Scene) -> None:
        first = scene.station()
        pair = first.transport.bind("127.0.0.1", None)
        first.transport.close()
        with socket.create_server(("127.0.0.1", pair[taken])):
            assert scene.station().transport.bind("127.0.0.1", None) > pair

    play(act)


def test_nodes_that_search_at_once_end_on_ports_of_their_own() -> None:
    async def act(scene: Scene) -> None:
        pairs = [scene.station().transport.bind("127.0.0.1", None) for _ in range(3)]
        assert sorted(set(pairs)) == pairs

    play(act)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_given_port_in_use_is_said_by_number(taken: int) -> None:
    async def act(scene: Scene) -> None:
        wanted = unused_address().port
        with (
            socket.create_server(("127.0.0.1", wanted + taken)),
            pytest.raises(ConfigError, match=f"port {wanted + taken} is in use") as caught,
        ):
            scene.station().transport.bind(None, wanted)
        assert "--port" in caught.value.hint

    play(act)


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("203.0.113.7", 0, "no address 203.0.113.7"),
        ("localhost", 0, "not an IP address"),
        ("127.0.0.1", 65535, "out of range"),
        ("127.0.0.1", -1, "out of range"),
    ],
)
def test_what_cannot_be_bound_is_a_config_error(host: str, port: int, said: str) -> None:
    async def act(scene: Scene) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            scene.station().transport.bind(host, port)
        assert caught.value.hint

    play(act)


def test_what_is_no_address_is_refused_and_counted() -> None:
    async def act(scene: Scene) -> None:
        client = scene.station()
        for address in (
            Address("localhost", 7744),
            Address("", 7744),
            Address("127.0.0.1", 0),
            Address("127.0.0.1", 65_536),
            Address("127.0.0.1;tcp://127.0.0.2", 1),
        ):
            assert not client.transport.send(address, b"x")
            assert not client.transport.subscribe(address.host, address.port)
        assert client.counted("dropped_address") == 5

    play(act)


def test_the_limit_of_open_files_is_raised_where_that_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        limit = raise_file_limit()
        assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert limit == (FILES_WANTED if hard < 0 else min(FILES_WANTED, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_zmtp_heartbeats_are_on_router_and_dealer_and_never_on_a_sub() -> None:
    with new_context() as context:
        for socket_, heartbeat_ms in (
            (new_router(context, KEYS, CLUSTER), 1_000),
            (new_dealer(context, KEYS), 1_000),
            (new_pub(context, KEYS, CLUSTER), 0),
            (new_sub(context, KEYS), 0),
        ):
            with socket_:
                assert socket_.getsockopt(zmq.HEARTBEAT_IVL) == heartbeat_ms
                assert socket_.getsockopt(zmq.HANDSHAKE_IVL) == 2_000
                assert socket_.getsockopt(zmq.LINGER) == 0
                assert socket_.getsockopt(zmq.MECHANISM) == zmq.CURVE
        with new_dealer(context, KEYS) as dealer:
            assert dealer.getsockopt(zmq.RECONNECT_IVL) == -1
            assert dealer.getsockopt(zmq.IMMEDIATE) == 1
        with new_sub(context, KEYS) as sub:
            assert sub.getsockopt(zmq.RCVHWM) == 0


LAGGING_CONSUMER = """
import sys, time, zmq
from parkingd.adapters.transport.curve import key_pair
from parkingd.adapters.transport.sockets import new_context, new_pub, new_sub

keys = key_pair(bytes(32))
pub_context, sub_context = new_context(), new_context()
pub = pub_context.socket(zmq.PUB)
pub.setsockopt(zmq.CURVE_SERVER, 1)
pub.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_z85)
pub.setsockopt(zmq.SNDHWM, 0)
port = pub.bind_to_random_port("tcp://127.0.0.1")
sub = new_sub(sub_context, keys)
if sys.argv[1] == "forbidden":
    sub.setsockopt(zmq.RCVHWM, 10)
    sub.setsockopt(zmq.HEARTBEAT_IVL, 100)
    sub.setsockopt(zmq.HEARTBEAT_TIMEOUT, 200)
sub.connect(f"tcp://127.0.0.1:{port}")
for _ in range(6):
    for _ in range(200):
        pub.send(bytes(2000))
    time.sleep(0.45)
    for _ in range(12):
        if sub.poll(0):
            sub.recv()
print("survived")
pub.close(0)
sub.close(0)
"""


def lagging_consumer(options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LAGGING_CONSUMER, options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_consumer_that_lags_does_not_abort_the_process() -> None:
    """libzmq issue 3937; the next test shows that this one can fail."""
    outcome = lagging_consumer("ours")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "survived\n"


@pytest.mark.skipif(zmq.zmq_version_info() > (4, 3, 5), reason="may be mended in later libzmq")
def test_heartbeats_and_a_finite_queue_on_a_sub_do_abort_the_process() -> None:
    outcome = lagging_consumer("forbidden")
    assert outcome.returncode < 0
    assert "_input_stopped" in outcome.stderr


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_burst_to_a_peer_that_does_not_read_is_bounded_and_counted() -> None:
    async def act(scene: Scene) -> None:
        node, client = scene.station(), scene.station()
        node.bind()
        client.transport.send(node.address, b"hello")
        await until(lambda: client.links)
        frame = bytes(CHUNK_FRAME_BYTES_MAX)
        sent = 0  # nobody takes its turn in this loop: the node does not read
        while sent < 2_000 and client.transport.send(node.address, frame):
            sent += 1
        assert sent < 2_000
        assert client.counted("dropped_full") == 1
        await until(lambda: len(node.messages) == sent + 1)

    play(act)


def test_a_station_never_binds_twice() -> None:
    async def act(scene: Scene) -> None:
        station: Station = scene.station().bind()
        with pytest.raises(AssertionError):
            station.bind()

    play(act)
