"""The transport among strangers, liars and broken peers, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import zmq

from parkingd.adapters.transport.monitor import LinkState
from parkingd.adapters.transport.probe import GREETING
from parkingd.adapters.transport.sockets import (
    Context,
    Socket,
    new_context,
    new_dealer,
    new_pub,
    new_router,
    new_sub,
)
from parkingd.protocol.limits import CHUNK_FRAME_BYTES_MAX
from parkingd.protocol.messages import Address
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
)

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_BYTES


@pytest.fixture
def context() -> Iterator[Context]:
    """For sockets that do not belong to a transport."""
    context = new_context()
    yield context
    context.destroy(linger=0)


@contextlib.asynccontextmanager
async def listening(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Address]:
    """A TCP server that is no node."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])


def dial(node: Station) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", node.port))
    connection.setblocking(False)
    return connection


async def cut(connection: socket.socket) -> None:
    """Wait until the other side has hung up."""
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        async with asyncio.timeout(20):
            while await loop.sock_recv(connection, 65_536):
                pass


def test_another_cookie_is_refused_on_both_sides_and_named() -> None:
    async def act(scene: Scene) -> None:
        node, stranger = scene.station().bind(), scene.station(OTHER_KEYS).bind()
        node.transport.send(stranger.address, b"secret of the node")
        stranger.transport.send(node.address, b"secret of the stranger")
        await until(lambda: node.links and stranger.links)
        assert node.links == [(stranger.address, LinkState.OTHER_COOKIE)]
        assert stranger.links == [(node.address, LinkState.OTHER_COOKIE)]
        await until(lambda: "auth" in node.refused and "auth" in stranger.refused)
        assert node.messages == stranger.messages == []

    play(act)


def test_another_cookie_hears_nothing_that_is_published() -> None:
    async def act(scene: Scene) -> None:
        node, stranger, member = (
            scene.station().bind(),
            scene.station(OTHER_KEYS),
            scene.station(),
        )
        stranger.transport.subscribe("127.0.0.1", node.pub_port)
        await until(lambda: "auth" in node.refused)
        await subscribed(node, member)
        assert stranger.messages == []

    play(act)


def test_a_stranger_knocks_once_for_each_message_and_not_for_ever() -> None:
    async def act(scene: Scene) -> None:
        node, stranger, member = (
            scene.station(echo=True).bind(),
            scene.station(OTHER_KEYS),
            scene.station(),
        )
        for attempt in range(3):
            stranger.transport.send(node.address, b"let me in")
            await until(lambda expected=attempt + 1: len(stranger.links) == expected)
        for number in range(20):
            await served(node, member, str(number).encode())
        assert node.refused.count("auth") == 3

    play(act)


def test_whoever_knows_the_public_key_alone_is_turned_away_by_the_doorkeeper(
    context: Context,
) -> None:
    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        with knocking(context, OTHER_KEYS.public_z85, OTHER_KEYS.secret_z85) as dealer:
            dealer.setsockopt(zmq.CURVE_SERVERKEY, KEYS.public_z85)
            dealer.connect(f"tcp://127.0.0.1:{node.port}")
            await until(lambda: "auth" in node.refused)
            assert not dealer.poll(0, zmq.POLLOUT)
        await served(node, member)
        assert node.frames() == [b"honest"]

    play(act)


def test_without_its_doorkeeper_a_node_lets_nobody_in(context: Context) -> None:
    with new_router(context, KEYS, CLUSTER) as router, new_dealer(context, KEYS) as dealer:
        monitor = dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        )
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        assert monitor.poll(5_000)
        event = int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder)
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED
        dealer.disable_monitor()
        monitor.close()


def test_a_client_without_encryption_is_refused(context: Context) -> None:
    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        with context.socket(zmq.DEALER) as plain:
            plain.setsockopt(zmq.LINGER, 0)
            plain.connect(f"tcp://127.0.0.1:{node.port}")
            plain.send(b"x", zmq.NOBLOCK)
            await until(lambda: len(node.refused) == 1)
        with context.socket(zmq.SUB) as plain:
            plain.setsockopt(zmq.SUBSCRIBE, b"")
            plain.connect(f"tcp://127.0.0.1:{node.pub_port}")
            await until(lambda: len(node.refused) == 2)
            await subscribed(node, member)
            assert not plain.poll(0)
        await served(node, member)
        assert node.frames() == [b"honest"]
        # Each side sees the other's greeting, and whoever hangs up first decides the word.
        assert set(node.refused) <= {"plain", "unfinished"}

    play(act)


def test_a_node_is_not_mistaken_for_what_else_may_listen(context: Context) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def speak_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 3)
        writer.close()

    async def act(scene: Scene) -> None:
        member = scene.station()
        async with listening(hang_up) as silent, listening(speak_http) as http:
            with context.socket(zmq.ROUTER) as plain:
                port = plain.bind_to_random_port("tcp://127.0.0.1")
                addresses = (silent, http, Address("127.0.0.1", port))
                for address in addresses:
                    member.transport.send(address, b"x")
                await until(lambda: len(member.links) == len(addresses))
                for address in addresses:
                    assert member.states(address) == [LinkState.PROTOCOL_VERSION]
                assert not plain.poll(0)

    play(act)


def test_a_listener_that_accepts_and_says_nothing_is_a_timeout() -> None:
    async def act(scene: Scene) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = Address("127.0.0.1", mute.getsockname()[1])
            member = scene.station()
            member.transport.send(address, b"x")
            await until(lambda: member.links)
            assert member.links == [(address, LinkState.TIMEOUT)]

    play(act)


def test_a_silent_connection_is_dropped_and_others_are_served_meanwhile() -> None:
    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        silent, halfway = dial(node), dial(node)
        halfway.send(GREETING[:10])
        await served(node, member)
        await asyncio.gather(cut(silent), cut(halfway))
        await until(lambda: node.refused.count("silent") == 2)

    play(act)


def test_any_bytes_end_in_a_cut_connection_and_an_honest_peer_is_served() -> None:
    dice = random.Random(7)
    openings = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 8,
        bytes.fromhex("16030100c8010000c40303") + bytes(300),
        bytes(200),
        b"\xff" * 200,
        GREETING[:12] + b"NULL".ljust(20, b"\0") + bytes(32),
        GREETING[:10] + b"\x01" + bytes(100),
        GREETING + b"\x04\x05\x00HELLO"[:2] + b"garbage" * 20,
        GREETING + b"\x04\xff" + bytes(400),
        GREETING + b"\x06" + (2**62).to_bytes(8, "big") + bytes(100),
        *(dice.randbytes(dice.randint(20, 500)) for _ in range(40)),
        *(GREETING + dice.randbytes(dice.randint(20, 500)) for _ in range(40)),
    ]

    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        connections = [dial(node) for _ in openings]
        for connection, opening in zip(connections, openings, strict=True):
            connection.send(opening)
        await served(node, member)
        await asyncio.gather(*(cut(connection) for connection in connections))
        await served(node, member, b"still there")
        assert node.frames() == [b"honest", b"still there"]
        assert node.counted("refused_handshake") > 0
        assert node.counted("refused_plain") > 0

    play(act)


def test_an_endless_message_from_a_stranger_is_cut_and_costs_no_memory() -> None:
    """Without CURVE libzmq would keep all the parts of a message that never ends."""

    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        await served(node, member)
        loop = asyncio.get_running_loop()
        part = b"\x03" + (60_000).to_bytes(8, "big") + bytes(60_000)  # flags: more, long
        before, sent = resident_bytes(), 0
        with dial(node) as connection, contextlib.suppress(OSError):
            await loop.sock_sendall(connection, GREETING)
            while sent < 4_000:
                await loop.sock_sendall(connection, part)
                sent += 1
        assert sent < 1_000
        assert resident_bytes() - before < 16 * MIB
        await served(node, member, b"still there")

    play(act)


def test_a_storm_of_strangers_is_counted_and_an_honest_peer_is_served() -> None:
    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        for _ in range(5):
            for connection in [dial(node) for _ in range(50)]:
                connection.close()
            await served(node, member)
        await until(lambda: node.counted("refused_unfinished") == 250)

    play(act)


def test_a_frame_over_the_limit_is_not_delivered(context: Context) -> None:
    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        with knocking(context) as insider:
            await admitted(insider, node)
            insider.send(b"small")
            await until(lambda: node.messages)
            insider.send(bytes(4 * CHUNK_FRAME_BYTES_MAX))
            await until(lambda: not insider.poll(0, zmq.POLLOUT))
        await served(node, member)
        assert node.frames() == [b"small", b"honest"]

    play(act)


def test_a_message_of_several_frames_is_counted_and_dropped_whole(context: Context) -> None:
    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        with knocking(context) as insider:
            await admitted(insider, node)
            for count in (2, 3, 500):
                insider.send_multipart([b"part"] * count)
            insider.send(b"single")
            await until(lambda: node.messages)
        await served(node, member)
        assert node.frames() == [b"single", b"honest"]
        assert node.refused == ["multipart"] * 3
        assert node.refused_of == ["127.0.0.1"] * 3
        assert node.counted("refused_multipart") == 3

    play(act)


def test_several_frames_in_an_answer_or_on_pub_are_dropped_too(context: Context) -> None:
    async def act(scene: Scene) -> None:
        member = scene.station()
        with (
            open_door(context) as admit,
            new_router(context, KEYS, CLUSTER) as router,
            new_pub(context, KEYS, CLUSTER) as pub,
        ):
            address = Address("127.0.0.1", router.bind_to_random_port("tcp://127.0.0.1"))
            member.transport.send(address, b"hello")
            member.transport.subscribe("127.0.0.1", pub.bind_to_random_port("tcp://127.0.0.1"))
            await until(lambda: admit() and router.poll(0))
            route, _ = router.recv_multipart()
            router.send_multipart([route, b"one", b"two"])
            router.send_multipart([route, b"whole"])
            await until(lambda: (address, b"whole") in member.messages)

            def published() -> bool:
                pub.send_multipart([b"one", b"two"])
                pub.send(b"heard")
                return b"heard" in member.frames()

            await until(lambda: admit() and published())
        assert set(member.frames()) == {b"whole", b"heard"}
        assert member.counted("refused_multipart") >= 2
        assert set(member.refused_of) == {str(address), "127.0.0.1"}

    play(act)


def test_a_peer_that_chooses_its_routing_id_is_refused(context: Context) -> None:
    """A chosen id could be that of somebody else, and take his answers."""

    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        with knocking(context) as impostor:
            impostor.setsockopt(zmq.ROUTING_ID, b"gary")
            await admitted(impostor, node)
            impostor.send(b"I am Gary")
            await until(lambda: node.refused == ["routing_id"])
            assert node.refused_of == ["127.0.0.1"]
        await served(node, member)
        assert node.frames() == [b"honest"]

    play(act)


def test_addresses_that_lead_nowhere_end_in_a_report() -> None:
    """Discovery is untrusted: it may name any address."""
    nowhere = ["255.255.255.255", "224.0.0.1", "ff02::1", "fe80::1", "127.0.0.2"]

    async def act(scene: Scene) -> None:
        member = scene.station()
        for host in nowhere:
            member.transport.send(Address(host, 1), b"x")
            member.transport.subscribe(host, 1)
        await until(lambda: {address.host for address, _ in member.links} == set(nowhere))
        assert {state for _, state in member.links} <= {LinkState.REFUSED, LinkState.TIMEOUT}

    play(act)


def test_a_subscriber_that_never_reads_holds_up_nobody(context: Context) -> None:
    async def act(scene: Scene) -> None:
        node, member = scene.station(echo=True).bind(), scene.station()
        with new_sub(context, KEYS) as stuck:
            stuck.setsockopt(zmq.RCVHWM, 1)
            stuck.setsockopt(zmq.RCVBUF, 4_096)
            stuck.connect(f"tcp://127.0.0.1:{node.pub_port}")
            await until(lambda: node.transport.publish(b"x") and stuck.poll(0))
            await subscribed(node, member)
            for number in range(3_000):
                node.transport.publish(bytes(1_000))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await served(node, member)
            await subscribed(node, member)

    play(act)


@contextlib.contextmanager
def knocking(
    context: Context,
    public_z85: bytes = KEYS.public_z85,
    secret_z85: bytes = KEYS.secret_z85,
) -> Iterator[Socket]:
    """A DEALER outside any transport, by default with the cluster's keys."""
    with context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, public_z85)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, secret_z85)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, KEYS.public_z85)
        yield dealer


async def admitted(dealer: Socket, node: Station) -> None:
    """Connect and wait for the handshake; the node answers it from this loop."""
    dealer.connect(f"tcp://127.0.0.1:{node.port}")
    await until(lambda: dealer.poll(0, zmq.POLLOUT), "admission")


@contextlib.contextmanager
def open_door(context: Context) -> Iterator[Callable[[], bool]]:
    """A ZAP handler that lets everybody in whenever it is called; answers True."""
    with context.socket(zmq.REP) as handler:
        handler.bind("inproc://zeromq.zap.01")

        def admit() -> bool:
            while handler.poll(0):
                request = handler.recv_multipart()
                handler.send_multipart([b"1.0", request[1], b"200", b"OK", b"", b""])
            return True

        yield admit
