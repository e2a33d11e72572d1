"""The HTTP server of the ops port, on real sockets: what it answers, and whom it lets go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.adapters.ops import http
from parkingd.adapters.ops.http import CLIENTS_MAX, HEAD_BYTES_MAX, HttpServer
from parkingd.errors import ConfigError
from parkingd.protocol.messages import Address
from tests.adapters.ops_stage import ANY_PORT, BIG, Client, Running, answer, running
from tests.daemon.harness import until


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def lasting() -> Iterator[Running]:
    """One for many examples."""
    with running() as server:
        yield server


# --- what is answered ----------------------------------------------------------------------------


def test_a_get_is_answered_with_what_was_asked_for(server: Running) -> None:
    reply = server.get("/livez?verbose")
    assert (reply.version, reply.status, reply.phrase) == ("HTTP/1.1", 200, "OK")
    assert reply.text == "/livez?verbose\n"
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["date"].endswith(" gmt")


def test_a_head_brings_the_headers_of_the_get_and_no_body(server: Running) -> None:
    told = server.get("/readyz")
    with server.connect() as client:
        client.ask("/readyz", "HEAD")
        reply = client.reply(is_head=True)
        assert reply.status == 200
        assert reply.headers["content-length"] == told.headers["content-length"] == "8"
        client.ask("/next")
        assert client.reply().text == "/next\n"


def test_a_connection_is_kept_for_further_requests(server: Running) -> None:
    with server.connect() as client:
        for number in range(50):
            client.ask(f"/{number}")
            assert client.reply().text == f"/{number}\n"


def test_a_client_that_wants_to_close_is_answered_and_closed(server: Running) -> None:
    with server.connect() as client:
        client.ask("/last", "GET", "Connection: close")
        assert client.reply().text == "/last\n"
        assert client.is_closed()


def test_a_client_of_http_1_0_is_answered_and_closed(server: Running) -> None:
    with server.connect() as client:
        client.send(b"GET /old HTTP/1.0\r\n\r\n")
        assert client.reply().text == "/old\n"
        assert client.is_closed()


def test_requests_sent_ahead_are_answered_in_their_order(server: Running) -> None:
    targets = ["/later", *(f"/{number}" for number in range(100)), "/later"]
    with server.connect() as client:
        client.send(
            b"".join(f"GET {each} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for each in targets)
        )
        assert [client.reply().text.strip() for _ in targets] == targets


def test_a_request_may_come_byte_by_byte(server: Running) -> None:
    with server.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /slow HTTP/1.1\r\nHost: gary\r\n\r\n":
            client.send(bytes((byte,)))
        assert client.reply().text == "/slow\n"


def test_a_request_to_change_the_protocol_is_answered_in_this_one(server: Running) -> None:
    """So does curl --http2 ask."""
    with server.connect() as client:
        client.ask("/one", "GET", "Connection: Upgrade", "Upgrade: h2c")
        assert client.reply().text == "/one\n"
        assert client.reply_to("/two").text == "/two\n"


def test_a_large_answer_arrives_whole(server: Running) -> None:
    assert server.get("/big").body == BIG


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_any_other_method_is_refused_and_the_connection_closed(
    server: Running, method: str
) -> None:
    with server.connect() as client:
        client.ask("/livez", method)
        reply = client.reply()
        assert reply.status == 405
        assert reply.headers["allow"] == "get, head"
        assert client.is_closed()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000,
        b"Content-Length: 1000000000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    ],
    ids=["long", "endless", "chunked", "broken", "announced"],
)
def test_a_body_is_refused_and_the_refusal_arrives(
    server: Running, method: str, body: bytes
) -> None:
    with server.connect() as client:
        client.send(f"{method} /livez HTTP/1.1\r\nHost: a\r\n".encode() + body)
        reply = client.reply(is_head=method == "HEAD")
        assert reply.status == (405 if method == "POST" else 400)
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nb ad: c\r\n\r\n",
        b"GET /liv\x00ez HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_in_one_line(server: Running, text: bytes) -> None:
    with server.connect() as client:
        client.send(text)
        reply = client.reply()
        assert reply.status in (400, 405, 501)
        assert reply.headers["connection"] == "close"
        assert reply.text.startswith(f"{reply.status} ")
        assert reply.text.count("\n") == 1
        assert "bytearray" not in reply.text
        assert "b'" not in reply.text, "nor is any other value of Python shown"
        assert client.is_closed()
    assert server.get("/livez").status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 3 * HEAD_BYTES_MAX,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 3 * HEAD_BYTES_MAX,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: c\r\n" * HEAD_BYTES_MAX,
    ],
    ids=["target", "header", "headers"],
)
def test_a_head_without_end_is_refused(server: Running, head: bytes) -> None:
    with server.connect() as client:
        client.send(head)
        assert client.reply().status == 431


@given(st.binary(max_size=400), st.binary(max_size=100), st.booleans())
def test_whatever_bytes_come_are_answered_or_closed_and_nothing_breaks(
    lasting: Running, first: bytes, second: bytes, is_asking: bool
) -> None:
    with lasting.connect() as client:
        client.send((b"GET / HTTP/1.1\r\nHost: a\r\n" if is_asking else b"") + first)
        client.send(second)
        client.socket.shutdown(socket.SHUT_WR)
        while client.socket.recv(65_536):
            pass
    assert lasting.get("/livez").status == 200
    assert lasting.failures == []


# --- who is let go -------------------------------------------------------------------------------


def test_a_head_that_does_not_end_in_time_is_refused(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_S", 0.2)
    with server.connect() as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: gary\r\n")
        assert client.reply().status == 408
        assert client.is_closed()


def test_bytes_that_keep_dripping_do_not_buy_time(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_S", 0.3)
    with server.connect() as client:
        client.send(b"GET /livez HTTP/1.1\r\nX: ")
        is_refused = threading.Event()

        def drip() -> None:
            while not is_refused.wait(0.02):
                try:
                    client.send(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert client.reply().status == 408
        finally:
            is_refused.set()
            dripping.join()


def test_who_connects_and_says_nothing_is_let_go(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_S", 0.2)
    with server.connect() as client:
        assert client.is_closed()


def test_a_kept_connection_that_is_quiet_is_let_go(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.2)
    with server.connect() as client:
        client.ask("/livez")
        assert client.reply().status == 200
        assert client.is_closed()


def test_who_does_not_take_the_answer_is_let_go(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "WRITE_S", 0.3)
    with server.connect() as client:
        client.ask("/big")
        assert client.socket.recv(1) == b"H"
        until(lambda: not server.server.clients, "the client is let go")
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while data := client.socket.recv(65_536):
                taken += len(data)
        assert taken < len(BIG)
    assert server.get("/livez").status == 200


def test_with_too_many_clients_the_quietest_goes_and_the_newest_is_answered(
    server: Running,
) -> None:
    clients = [server.connect() for _ in range(CLIENTS_MAX)]
    for number, client in enumerate(clients):
        client.ask(f"/{number}")
        assert client.reply().text == f"/{number}\n"
    clients[0].ask("/again")
    assert clients[0].reply().text == "/again\n"
    assert server.get("/livez").status == 200
    assert clients[1].is_closed()
    for client in (clients[0], *clients[2:]):
        client.ask("/still")
        assert client.reply().text == "/still\n"
    for client in clients:
        client.socket.close()


def test_a_flood_of_connections_does_not_keep_anybody_from_being_answered(
    server: Running,
) -> None:
    flood = [Client(server.port) for _ in range(10 * CLIENTS_MAX)]
    for number, client in enumerate(flood):
        if number % 2:
            client.send(b"GET /livez HTTP/1.1\r\nX: ")
    assert server.get("/livez").text == "/livez\n"
    for client in flood:
        client.socket.close()


def test_clients_that_go_in_the_middle_do_no_harm(server: Running) -> None:
    for text in (
        b"",
        b"GET /livez HT",
        b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
        b"nonsense\r\n\r\n",
    ):
        client = server.connect()
        client.send(text)
        # A reset, not a polite end.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.socket.close()
        assert server.get("/livez").status == 200


# --- start and stop ------------------------------------------------------------------------------


def test_stopping_drops_every_client_and_frees_the_port(server: Running) -> None:
    idle, kept, unread = server.connect(), server.connect(), server.connect()
    kept.ask("/livez")
    assert kept.reply().status == 200
    unread.ask("/big")
    assert unread.socket.recv(1) == b"H"
    server.stop()
    assert idle.is_closed()
    assert kept.is_closed()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    again = HttpServer(Address("127.0.0.1", server.port), answer, lambda _: None)
    assert again.port == server.port
    asyncio.run(again.stop())
    for client in (idle, kept, unread):
        client.socket.close()


def test_a_port_in_use_and_an_address_of_nobody_are_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of --ops is in use"):
            HttpServer(Address("127.0.0.1", port), answer, lambda _: None)
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.7:0 \(--ops\)"):
        HttpServer(Address("203.0.113.7", 0), answer, lambda _: None)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_all_addresses_of_ipv6_are_those_of_ipv4_too() -> None:
    server = Running(lambda ended: HttpServer(Address("::", 0), answer, ended))
    for host in ("127.0.0.1", "::1"):
        with Client(server.port, host) as client:
            client.ask("/livez")
            assert client.reply().status == 200
    server.stop()


def test_any_port_is_a_port_of_its_own(server: Running) -> None:
    assert ANY_PORT.port == 0
    assert server.port != 0
