"""Who has another cookie, another cluster, another version, or only noise to say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import msgpack  # type: ignore[import-untyped]
import pytest
import zmq

from parkingd.protocol.messages import Hello, Refused
from tests.daemon.harness import Cluster, Daemon, until
from tests.daemon.impostor import NAME, Impostor

COOKIE = "the cookie of these tests"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Daemon]]:
    """A daemon with a known cookie and one car; strangers come and go, it stays."""
    with Cluster(tmp_path_factory.mktemp("guarded")) as cluster:
        daemon = cluster.start("gary", environment={"PARKINGD_COOKIE": COOKIE})
        daemon.read("track", "SECRET1", 1)
        yield cluster, daemon
        assert daemon.plates() == ["SECRET1"]
        assert daemon.read("exit", "SECRET1", 1)["matched"] == "exact"


def counted(daemon: Daemon, counter: str) -> int:
    return int(daemon.read("status")["counters"].get(counter, 0))


def discovered(daemon: Daemon, port: int) -> dict[str, str]:
    items = daemon.read("discover")["items"]
    return next((item for item in items if item["address"].endswith(f":{port}")), {})


def test_two_daemons_with_different_cookies_do_not_join_and_discover_says_why(
    guarded: tuple[Cluster, Daemon],
) -> None:
    cluster, gary = guarded
    stranger = cluster.start("stranger", "--ephemeral", environment={"PARKINGD_COOKIE": "another"})
    until(lambda: discovered(gary, stranger.port), "gary has found the stranger")
    until(lambda: discovered(stranger, gary.port), "the stranger has found gary")
    for one, other in ((gary, stranger), (stranger, gary)):
        assert discovered(one, other.port)["state"] == "other_cookie"
        assert one.read("status")["members"]["alive"] == 1
    assert stranger.plates() == []
    stranger.stop()


def test_who_is_dialled_with_another_cookie_refuses_and_both_sides_say_so(
    guarded: tuple[Cluster, Daemon],
) -> None:
    """Told the address by hand, it dials."""
    cluster, gary = guarded
    before = counted(gary, "refused_unfinished") + counted(gary, "refused_handshake")
    stranger = cluster.start(
        "dialler",
        "--ephemeral",
        *("--peer", f"127.0.0.1:{gary.port}"),
        apart=True,
        lot=False,
        environment={"PARKINGD_COOKIE": "another"},
    )
    until(
        lambda: discovered(stranger, gary.port).get("state") == "other_cookie",
        "the dialler knows why",
    )
    after = sum(
        count
        for counter, count in gary.read("status")["counters"].items()
        if counter in ("refused_unfinished", "refused_handshake", "refused_auth")
    )
    assert after > before
    stranger.end()


def test_without_the_cookie_nothing_can_be_read_or_said(guarded: tuple[Cluster, Daemon]) -> None:
    _, gary = guarded
    heartbeats = counted(gary, "events_received")
    with Impostor("another") as stranger, Impostor(COOKIE) as friend:
        deaf = stranger.connected(zmq.SUB, gary.port + 1)
        mute = stranger.connected(zmq.DEALER, gary.port)
        mute.send(friend.hello(None, answer=False))
        hears = friend.connected(zmq.SUB, gary.port + 1)
        for _ in range(3):  # Three heartbeats for whoever has the cookie ...
            assert hears.poll(5_000)
            hears.recv()
        assert not deaf.poll(0)  # ... and nothing for who has not.
        assert not mute.poll(0)
    assert NAME not in [member["name"] for member in gary.read("members")["items"]]
    assert counted(gary, "events_received") == heartbeats


def test_a_daemon_of_another_cluster_does_not_join(guarded: tuple[Cluster, Daemon]) -> None:
    cluster, gary = guarded
    other = cluster.start(
        "other",
        "--ephemeral",
        *("--cluster", "annex", "--peer", f"127.0.0.1:{gary.port}"),
        lot=False,
        environment={"PARKINGD_COOKIE": COOKIE},
    )
    until(
        lambda: discovered(other, gary.port).get("state") in ("other_cluster", "other_cookie"),
        "it knows why",
    )
    assert gary.read("status")["members"]["alive"] == 1
    other.end()


def test_another_wire_version_is_answered_and_counted(guarded: tuple[Cluster, Daemon]) -> None:
    _, gary = guarded
    before = counted(gary, "refused_protocol_version")
    with Impostor(COOKIE) as newer:
        dealer = newer.connected(zmq.DEALER, gary.port)
        dealer.send(newer.foreign_frame())
        assert dealer.poll(5_000)
        answer = newer.decode(dealer.recv())
        assert answer.message == Refused("protocol_version", "2")
        assert answer.name == "gary"
    assert counted(gary, "refused_protocol_version") == before + 1
    lines = gary.events("refused")
    assert "127.0.0.1" in [
        line.get("from") for line in lines if line["reason"] == "protocol_version"
    ]


def test_a_dialled_peer_of_another_wire_version_shows_in_discover(
    guarded: tuple[Cluster, Daemon],
) -> None:
    cluster, _ = guarded
    with Impostor(COOKIE) as newer:
        dialler = cluster.start(
            "older",
            "--ephemeral",
            *("--peer", f"127.0.0.1:{newer.port}"),
            apart=True,
            lot=False,
            environment={"PARKINGD_COOKIE": COOKIE},
        )
        newer.serve_until(
            lambda: discovered(dialler, newer.port).get("state") == "protocol_version",
            newer.foreign_frame(),
        )
        assert "version" in discovered(dialler, newer.port)["detail"]
        assert dialler.read("status")["members"]["alive"] == 1
        dialler.end()


def test_a_peer_that_is_no_node_at_all_shows_in_discover(
    guarded: tuple[Cluster, Daemon],
) -> None:
    """A socket that accepts and says nothing, and a port where nobody listens."""
    import socket

    cluster, _ = guarded
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        ports = [silent.getsockname()[1], nobody.getsockname()[1]]
        dialler = cluster.start(
            "dialler",
            "--ephemeral",
            *(word for port in ports for word in ("--peer", f"127.0.0.1:{port}")),
            apart=True,
            lot=False,
            environment={"PARKINGD_COOKIE": COOKIE},
        )
        until(lambda: discovered(dialler, ports[0]).get("state") == "timeout", "timeout")
        until(lambda: discovered(dialler, ports[1]).get("state") == "refused", "refused")
        dialler.end()


NOISE = {
    "nothing": b"",
    "zeros": bytes(1_000),
    "random": os.urandom(5_000),
    "a number": msgpack.packb(7),
    "an empty array": msgpack.packb([]),
    "a deep array": b"\x91" * 50_000,
    "a bomb": b"\xdd\xff\xff\xff\xff",
    "a map": msgpack.packb({"wire": 1}),
    "an envelope with nonsense": msgpack.packb([1, 1, "default", "x", 1, 1, ["?"] * 8]),
    "an unknown kind": msgpack.packb([1, 99, "default", "x", 1, 1, []]),
    "oversized": b"\x97\x01\x01" + bytes(100_000),
}


@pytest.mark.parametrize("noise", NOISE)
def test_noise_at_the_router_is_counted_and_the_daemon_goes_on(
    guarded: tuple[Cluster, Daemon], noise: str
) -> None:
    _, gary = guarded
    before = _refusals(gary)
    with Impostor(COOKIE) as mallory:
        dealer = mallory.connected(zmq.DEALER, gary.port)
        dealer.send(NOISE[noise])
        until(lambda: _refusals(gary) > before, "a counted refusal")
        dealer.send(mallory.foreign_frame())  # The same connection still works.
        assert dealer.poll(5_000)


def _refusals(daemon: Daemon) -> int:
    counters = daemon.read("status")["counters"].items()
    return sum(count for counter, count in counters if counter.startswith("refused_"))


def _control_refusals(daemon: Daemon) -> int:
    counters = daemon.read("status")["counters"].items()
    served = ("control_requests", "control_gone", "control_unread", "control_late")
    return sum(count for key, count in counters if key.startswith("control_") and key not in served)


def test_a_message_of_many_frames_is_counted(guarded: tuple[Cluster, Daemon]) -> None:
    _, gary = guarded
    before = counted(gary, "refused_multipart")
    with Impostor(COOKIE) as mallory:
        dealer = mallory.connected(zmq.DEALER, gary.port)
        dealer.send_multipart([b"x"] * 5_000)
        until(lambda: counted(gary, "refused_multipart") == before + 1, "a counted refusal")


def test_a_frame_beyond_every_limit_ends_its_connection_and_nothing_else(
    guarded: tuple[Cluster, Daemon],
) -> None:
    _, gary = guarded
    with Impostor(COOKIE) as mallory:
        dealer = mallory.connected(zmq.DEALER, gary.port)
        dealer.send(bytes(50_000_000))
        another = mallory.connected(zmq.DEALER, gary.port)
        another.send(mallory.foreign_frame())
        assert another.poll(5_000)
    assert gary.plates() == ["SECRET1"]


def test_noise_published_by_a_member_is_counted_and_the_daemon_goes_on(
    guarded: tuple[Cluster, Daemon],
) -> None:
    _, gary = guarded
    lot = bytes.fromhex(gary.read("lot")["lot"])
    with Impostor(COOKIE) as mallory:
        dealer = mallory.connected(zmq.DEALER, gary.port)
        dealer.send(mallory.hello(lot, answer=False))
        assert dealer.poll(5_000)
        assert isinstance(mallory.decode(dealer.recv()).message, Hello)
        for noise in NOISE.values():
            before = _refusals(gary)
            # A subscription takes a moment: what is published before reaches nobody.
            deadline_s = time.monotonic() + 10
            while _refusals(gary) == before:
                assert time.monotonic() < deadline_s
                mallory.pub.send(noise)
        before = counted(gary, "refused_multipart")
        mallory.pub.send_multipart([b"a", b"b", b"c"])
        until(lambda: counted(gary, "refused_multipart") > before, "a counted refusal")
        mallory.pub.send(bytes(5_000_000))
        assert gary.plates() == ["SECRET1"]
    gary.until_status(lambda status: status["members"]["alive"] == 1, "mallory is gone")


def test_noise_at_the_control_socket_is_counted_and_others_are_served(
    guarded: tuple[Cluster, Daemon],
) -> None:
    _, gary = guarded
    with zmq.Context() as context, context.socket(zmq.DEALER) as noisy:
        noisy.setsockopt(zmq.LINGER, 0)
        noisy.connect(f"ipc://{gary.control}")
        before = _control_refusals(gary)
        sent = 2
        for noise in NOISE.values():
            if len(noise) < 64 * 1024:
                noisy.send(noise)
                sent += 1
        noisy.send_multipart([b"a", b"b"])
        noisy.send(
            msgpack.packb({"v": 1, "id": 5, "verb": "explode", "args": {}, "deadline_ms": 9})
        )
        assert noisy.poll(5_000)
        answer = msgpack.unpackb(noisy.recv())
        assert (answer["id"], answer["kind"], answer["body"]["code"]) == (5, "Error", "usage")
        assert _control_refusals(gary) == before + sent
        noisy.send(bytes(10_000_000))
        noisy.send(msgpack.packb({"v": 9, "id": 6}))
        assert gary.plates() == ["SECRET1"]


def test_a_control_client_that_never_reads_does_not_hold_up_the_others(
    guarded: tuple[Cluster, Daemon],
) -> None:
    _, gary = guarded
    with zmq.Context() as context, context.socket(zmq.DEALER) as sleeper:
        sleeper.setsockopt(zmq.LINGER, 0)
        sleeper.setsockopt(zmq.RCVHWM, 1)
        sleeper.connect(f"ipc://{gary.control}")
        for number in range(3_000):
            request = {"v": 1, "id": number, "verb": "status", "args": {}, "deadline_ms": 2_000}
            sleeper.send(msgpack.packb(request))
        for _ in range(20):
            assert gary.plates() == ["SECRET1"]
            assert gary.read("where", "SECRET1")["inside"]
