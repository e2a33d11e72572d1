"""Daemons of one network, found by multicast on the loopback interface."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from zeroconf import (
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSService,
    DNSText,
    ServiceInfo,
    Zeroconf,
    const,
)
from zeroconf.asyncio import AsyncZeroconf

from parkingd.adapters.discovery import mdns
from parkingd.adapters.discovery.mdns import (
    SERVICE_TYPE,
    Announcement,
    MdnsSource,
    mdns_interfaces,
)
from parkingd.protocol.facts import Candidate, Finding, LinkFailure
from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address

A = Announcement("default", "a", 1, 1_700_000_000_000, 7744, 7745, "c0ffee")
B = Announcement("default", "b", 2, 1_700_000_000_000, 7746, 7747, "c0ffee")
LOOPBACK = ("127.0.0.1",)

FREE_S_MAX = 30.0
"""Other tests start daemons with mDNS; none of them runs longer."""


@pytest.fixture(autouse=True)
def _port_5353() -> Iterator[None]:
    """One of these tests at a time on this machine: they share a port that cannot be chosen."""
    path = Path(tempfile.gettempdir()) / "parkingd-test-mdns.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def beside_a(
    found: Callable[[Finding], None],
) -> AsyncIterator[tuple[MdnsSource, AsyncZeroconf]]:
    """A's source, and somebody else who can say what they like."""
    source, other = MdnsSource(A, LOOPBACK), AsyncZeroconf(interfaces=list(LOOPBACK))
    await source.start(found)
    try:
        await other.zeroconf.async_wait_for_start()
        yield source, other
    finally:
        await asyncio.gather(other.async_close(), source.stop())


def say(
    out: DNSOutgoing,
    instance: str,
    text: bytes,
    port: int = 7746,
    host: str = "127.0.0.1",
    ttl: int = 120,
) -> None:
    """Add to a packet what announces a service, whatever its text is."""
    name, server = f"{instance}.{SERVICE_TYPE}", f"{instance}.local."
    kind = const._CLASS_IN | const._CLASS_UNIQUE
    out.add_answer_at_time(DNSPointer(SERVICE_TYPE, const._TYPE_PTR, const._CLASS_IN, ttl, name), 0)
    out.add_answer_at_time(DNSService(name, const._TYPE_SRV, kind, ttl, 0, 0, port, server), 0)
    out.add_answer_at_time(DNSText(name, const._TYPE_TXT, kind, ttl, text), 0)
    out.add_answer_at_time(DNSAddress(server, const._TYPE_A, kind, ttl, socket.inet_aton(host)), 0)


def text_of(announcement: Announcement, **changes: str | bytes | None) -> bytes:
    fields = announcement.text() | changes
    kept = {key: value for key, value in fields.items() if value is not None}
    return ServiceInfo(SERVICE_TYPE, f"x.{SERVICE_TYPE}", properties=kept).text


def new_packet() -> DNSOutgoing:
    return DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)


def test_two_daemons_find_each_other_and_say_goodbye():
    async def scenario() -> None:
        by_a: list[Candidate] = []
        by_b: list[Candidate] = []
        a, b = MdnsSource(A, LOOPBACK), MdnsSource(B, LOOPBACK)
        await a.start(by_a.append)
        await b.start(by_b.append)
        at_a, at_b = Address("127.0.0.1", A.port), Address("127.0.0.1", B.port)
        await until(lambda: Candidate(at_b, "mdns", "b") in by_a)
        await until(lambda: Candidate(at_a, "mdns", "a") in by_b)
        assert (a.problem, b.problem) == (None, None)
        await b.stop()
        await until(lambda: Candidate(at_b, "mdns", "b", gone=True) in by_a)
        await a.stop()
        assert {candidate.name for candidate in by_a} == {"b"}
        assert {candidate.name for candidate in by_b} == {"a"}

    asyncio.run(scenario())


def test_a_restart_at_the_same_address_is_not_withdrawn_when_the_old_start_expires():
    async def scenario() -> None:
        found: list[Candidate] = []
        async with beside_a(found.append) as (source, other):
            again = replace(B, incarnation=B.incarnation + 1)
            for start in (B, again):
                out = new_packet()
                say(out, start.instance, text_of(start))
                other.zeroconf.async_send(out)
            await until(lambda: source.tracked == 2)
            out = new_packet()
            say(out, B.instance, text_of(B), ttl=0)
            other.zeroconf.async_send(out)
            await until(lambda: source.tracked == 1)
            assert not any(candidate.gone for candidate in found)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("stranger", "mismatch"),
    [
        (replace(B, cluster="airport"), LinkFailure.OTHER_CLUSTER),
        (replace(B, fingerprint="beef"), LinkFailure.OTHER_COOKIE),
    ],
)
def test_who_belongs_elsewhere_is_proposed_as_such_and_named_in_the_log_once(
    stranger: Announcement, mismatch: LinkFailure, caplog: pytest.LogCaptureFixture
):
    async def scenario() -> None:
        found: list[Candidate] = []
        a = MdnsSource(A, LOOPBACK)
        await a.start(found.append)
        strangers = [
            MdnsSource(replace(stranger, name=f"s{n}", replica=10 + n, port=8000 + n), LOOPBACK)
            for n in range(2)
        ]
        await asyncio.gather(*(source.start(lambda _: None) for source in strangers))
        await until(lambda: len(found) == 2)
        assert {candidate.mismatch for candidate in found} == {mismatch}
        await asyncio.gather(*(source.stop() for source in strangers), a.stop())

    with caplog.at_level(logging.INFO, "parkingd"):
        asyncio.run(scenario())
    from_a = [record for record in caplog.records if record.message == f"mdns_{mismatch.value}"]
    named = [record.values["peer"] for record in from_a]  # type: ignore[attr-defined]
    assert len([peer for peer in named if peer.startswith("s")]) == 1


HOSTILE_TEXTS = {
    "none": b"",
    "junk": b"\xff\x00\xfe\x01",
    "cluster": text_of(B, cluster=b"\xff\xfe"),
    "cluster-long": text_of(B, cluster="x" * 64),
    "name": text_of(B, name="../../etc"),
    "name-lines": text_of(B, name="b\nINFO all is well"),
    "replica": text_of(B, replica="-1"),
    "replica-long": text_of(B, replica="f" * 17),
    "incarnation": text_of(B, incarnation="now"),
    "port": text_of(B, port="65536"),
    "port-other": text_of(B, port="22"),
    "port-digits": text_of(B, port=b"\xd9\xa3"),
    "pub-port": text_of(B, pub_port="0"),
    "cookie": text_of(B, cookie="\x1b[31m"),
    "no-cookie": text_of(B, cookie=None),
    "no-value": text_of(B) + b"\x04name",
}


def test_text_that_is_none_of_ours_proposes_nothing_and_harms_nobody():
    async def scenario() -> None:
        found: list[Candidate] = []
        async with beside_a(found.append) as (source, other):
            for instance, text in HOSTILE_TEXTS.items():
                out = new_packet()
                say(out, instance, text)
                other.zeroconf.async_send(out)
            out = new_packet()
            say(out, "group", text_of(B), host="224.0.0.1")
            say(out, "nobody", text_of(B), host="0.0.0.0")
            say(out, "honest", text_of(B, name="honest"))
            other.zeroconf.async_send(out)
            await until(lambda: any(candidate.name == "honest" for candidate in found))
            named = {candidate.name for candidate in found}
            assert named <= {"honest", "b"}
            assert [c for c in found if c.name == "b" and c.address.host != "127.0.0.1"] == []
            # "no-value" repeats a key: the first one counts (RFC 6763 section 6.4), or none does.
            assert source.malformed >= len(HOSTILE_TEXTS) - 1

    asyncio.run(scenario())


def test_a_thousand_services_are_remembered_up_to_the_bound_and_an_own_one_is_still_answered():
    async def scenario() -> None:
        found: list[Candidate] = []
        async with beside_a(found.append) as (source, other):
            for first in range(0, 1_000, 5):
                out = new_packet()
                for number in range(first, first + 5):
                    text = text_of(B, name=f"n{number}", replica=f"{number + 10:016x}")
                    say(out, f"n{number}", text)
                other.zeroconf.async_send(out)
                await asyncio.sleep(0)
            await until(lambda: source.tracked == CANDIDATES_MAX)
            await until(lambda: source.ignored > 0)
            assert source.tracked == CANDIDATES_MAX
            assert len({candidate.name for candidate in found}) == CANDIDATES_MAX
            by_b: list[Candidate] = []
            newcomer = MdnsSource(replace(B, name="late"), LOOPBACK)
            await newcomer.start(by_b.append)
            await until(lambda: any(candidate.name == "a" for candidate in by_b))
            await newcomer.stop()

    asyncio.run(scenario())


def test_pointers_without_records_are_asked_about_a_few_at_a_time_and_forgotten(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(mdns, "RESOLVE_WAIT_MS", 50)

    async def scenario() -> None:
        async with beside_a(lambda _: None) as (source, other):
            out = new_packet()
            for number in range(40):
                name = f"ghost{number}.{SERVICE_TYPE}"
                pointer = DNSPointer(SERVICE_TYPE, const._TYPE_PTR, const._CLASS_IN, 120, name)
                out.add_answer_at_time(pointer, 0)
            other.zeroconf.async_send(out)
            await until(lambda: source.tracked == 40)
            await until(lambda: source.tracked == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "failure",
    [OSError(19, "No such device"), RuntimeError("No adapter found for IP address")],
)
def test_a_network_without_multicast_costs_the_source_and_not_the_daemon(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
):
    def refuse(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(mdns, "AsyncZeroconf", refuse)

    async def scenario() -> None:
        source = MdnsSource(A, LOOPBACK)
        await source.start(lambda _: None)
        assert source.problem is not None
        assert source.problem.startswith("mDNS is off: No ")
        await source.stop()

    asyncio.run(scenario())


def takes_5353(greedy: socket.socket) -> bool:
    try:
        greedy.bind(("", 5353))
    except OSError:
        return False
    return True


# zeroconf leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_5353_that_somebody_holds_for_himself_is_a_problem_and_no_error():
    async def scenario() -> None:
        source = MdnsSource(A, LOOPBACK)
        await source.start(lambda _: None)
        assert source.problem == "mDNS is off: Address already in use"
        await source.stop()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
        until_s = time.monotonic() + FREE_S_MAX
        while not takes_5353(greedy):
            if time.monotonic() > until_s:
                pytest.skip("a responder of this machine holds port 5353 already")
            time.sleep(0.05)
        asyncio.run(scenario())


def test_multicast_that_does_not_come_back_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mdns, "SILENCE_WAIT_S", 0.05)
    monkeypatch.setattr(Zeroconf, "async_send", lambda *_, **__: None)

    async def scenario() -> None:
        source = MdnsSource(A, LOOPBACK)
        await source.start(lambda _: None)
        await until(lambda: source.problem is not None)
        assert source.problem is not None
        assert "is UDP port 5353 blocked?" in source.problem
        await source.stop()

    asyncio.run(scenario())


def test_a_stop_in_the_middle_of_the_start_is_clean():
    async def scenario() -> None:
        source = MdnsSource(A, LOOPBACK)
        starting = asyncio.ensure_future(source.start(lambda _: None))
        await asyncio.sleep(0)
        await source.stop()
        await starting
        await source.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["a", "gate-1.north", "x" * 63])
def test_an_instance_is_one_label_and_new_with_every_start(name: str):
    first = replace(A, name=name)
    second = replace(first, incarnation=first.incarnation + 1)
    for announcement in (first, second):
        assert len(announcement.instance.encode()) <= 63
        assert "." not in announcement.instance
    assert first.instance != second.instance


def test_an_announcement_survives_its_text_record():
    for announcement in (A, replace(B, replica=2**64 - 1, name="x" * 63)):
        info = ServiceInfo(SERVICE_TYPE, f"x.{SERVICE_TYPE}", properties=announcement.text())
        assert Announcement.from_text_untrusted(info.properties) == announcement


def test_mdns_speaks_on_the_networks_of_the_own_addresses_or_on_loopback():
    assert mdns_interfaces(["10.0.0.2", "fd00::2"]) == ("10.0.0.2",)
    assert mdns_interfaces(["fd00::2"]) == ("fd00::2",)
    assert mdns_interfaces(["127.0.0.1", "10.0.0.2"]) == ("10.0.0.2",)
    assert mdns_interfaces(["127.0.0.1"]) == ("127.0.0.1",)
    assert mdns_interfaces([]) == ("127.0.0.1",)
