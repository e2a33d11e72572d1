"""A small name server on loopback that says what no real one does.

UDP and TCP on one port, each in a thread. For every name and kind of record a `Reply` says what
comes back: bytes, silence, or a broken connection. What was asked is in `asked`. A name that
nobody told it about does not exist. Like any server, it cuts off what is too long for UDP.
"""

from __future__ import annotations

import errno
import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

UDP_BYTES_MAX = 512
BIND_TRIES_MAX = 20
TTL_S = 5

Reply = Callable[[dns.message.Message, str], bytes | None]
"""The query, and ``udp`` or ``tcp``, to what goes back; None: nothing, ever."""


class Asked(NamedTuple):
    """One query that arrived."""

    name: str
    kind: str
    by: str


class ResetConnection(Exception):
    """Raised by a reply: break the connection off."""


class DnsStub:
    """Runs from `start` to `close`, or as a context."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """``port`` 0: any that is free for both."""
        self.host = host
        self.asked: list[Asked] = []
        self._replies: dict[tuple[str, str], Reply] = {}
        self._udp, self._tcp = self._bind(port)
        self.port = int(self._udp.server_address[1])
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            for server in (self._udp, self._tcp)
        ]
        for thread in self._threads:
            thread.start()

    def _bind(self, port: int) -> tuple[socketserver.UDPServer, socketserver.TCPServer]:
        for _ in range(BIND_TRIES_MAX):
            udp = _Udp((self.host, port), self)
            try:
                return udp, _Tcp((self.host, udp.server_address[1]), self)
            except OSError as error:
                udp.server_close()
                if error.errno != errno.EADDRINUSE or port:
                    raise
        raise AssertionError("no port is free for both UDP and TCP")

    def __enter__(self) -> DnsStub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer nobody any more."""
        for server in (self._udp, self._tcp):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join(10)

    def says(self, name: str, kind: str, reply: Reply) -> None:
        """What is said from now on when somebody asks for this."""
        self._replies[name.lower(), kind] = reply

    def knows(self, name: str, kind: str, *records: str) -> None:
        """Records as in a zone file, for example ``0 0 7744 pod-0.lot.test.``."""
        self.says(name, kind, records_of((name, kind, *records)))

    def count(self, name: str, kind: str) -> int:
        """How often this was asked."""
        return sum((each.name, each.kind) == (name, kind) for each in list(self.asked))

    def reply(self, wire: bytes, by: str) -> bytes | None:
        """In a server's thread."""
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(Asked(name, kind, by))
        return self._replies.get((name.lower(), kind), self._unknown)(query, by)

    def _unknown(self, query: dns.message.Message, by: str) -> bytes | None:
        """No such name; or no such record, if there are others of that name."""
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        exists = any(known == name for known, _ in self._replies)
        return code("NOERROR" if exists else "NXDOMAIN")(query, by)


# --- replies -------------------------------------------------------------------------------------

Records = tuple[str, ...]
"""Name, kind, and records as in a zone file."""


def records_of(*answer: Records, additional: Sequence[Records] = ()) -> Reply:
    """These records, in the answer and in the additional section."""

    def reply(query: dns.message.Message, by: str) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        response.answer = [_rrset(*each) for each in answer]
        response.additional = [_rrset(*each) for each in additional]
        return _cut(query, response.to_wire(max_size=65_535), by)

    return reply


def code(name: str) -> Reply:
    """An empty answer with this response code."""

    def reply(query: dns.message.Message, _: str) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.from_text(name))
        return response.to_wire()

    return reply


def raw(data: bytes, udp: Reply | None = None) -> Reply:
    """These bytes, whatever was asked; by UDP what ``udp`` says, if given."""
    return lambda query, by: udp(query, by) if udp is not None and by == "udp" else data


def silence(_: dns.message.Message, __: str) -> None:
    """Nothing."""


def cut_off(query: dns.message.Message, _: str) -> bytes:
    """Nothing but that it is too long."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response.to_wire()


def by_tcp(reply: Reply) -> Reply:
    """By UDP only that it is too long; by TCP this."""
    return lambda query, by: cut_off(query, by) if by == "udp" else reply(query, by)


def reset(_: dns.message.Message, __: str) -> bytes:
    """The connection breaks off."""
    raise ResetConnection


def with_id(change: int, reply: Reply) -> Reply:
    """The same answer under another id."""

    def wrong(query: dns.message.Message, by: str) -> bytes | None:
        wire = reply(query, by)
        assert wire is not None
        return struct.pack("!H", query.id ^ change) + wire[2:]

    return wrong


def to_another_question(name: str, reply: Reply) -> Reply:
    """The right id, and the answer to something else."""

    def wrong(query: dns.message.Message, by: str) -> bytes | None:
        other = dns.message.make_query(name, query.question[0].rdtype)
        other.id = query.id
        return reply(other, by)

    return wrong


def _rrset(name: str, kind: str, *records: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(dns.name.from_text(name), TTL_S, "IN", kind, *records)


def _cut(query: dns.message.Message, wire: bytes, by: str) -> bytes:
    return cut_off(query, by) if by == "udp" and len(wire) > UDP_BYTES_MAX else wire


# --- servers -------------------------------------------------------------------------------------


class _UdpHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wire, sock = self.request
        assert isinstance(self.server, _Udp)
        answer = self.server.stub.reply(wire, "udp")
        if answer is not None:
            sock.sendto(answer, self.client_address)


class _TcpHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Tcp)
        stream: socket.socket = self.request
        with stream.makefile("rb") as reader:
            (length,) = struct.unpack("!H", reader.read(2))
            try:
                answer = self.server.stub.reply(reader.read(length), "tcp")
            except ResetConnection:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if answer is None:
                reader.read(1)  # Until the other side has had enough.
            else:
                stream.sendall(struct.pack("!H", len(answer)) + answer)


class _Udp(socketserver.UDPServer):
    max_packet_size = 65_535

    def __init__(self, address: tuple[str, int], stub: DnsStub) -> None:
        self.stub = stub
        super().__init__(address, _UdpHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        raise  # A fault of the stub fails the test.


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], stub: DnsStub) -> None:
        self.stub = stub
        super().__init__(address, _TcpHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # The client has given up.
            raise

    def shutdown_request(self, request: Any) -> None:
        request.close()  # Without a FIN of its own, so that `reset` is a reset.
