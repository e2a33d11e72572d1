"""Peers that were named by the operator."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from parkingd.adapters.discovery import static
from parkingd.adapters.discovery.static import StaticSource, system_lookup
from parkingd.protocol.facts import Candidate, Finding, LookUp
from parkingd.protocol.messages import Address


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def test_an_ip_address_is_proposed_without_asking_anybody():
    def lookup(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    async def scenario() -> None:
        found: list[Candidate] = []
        source = StaticSource([Address("10.0.0.2", 7744), Address("fd00::2", 7746)], lookup)
        await source.start(found.append)
        assert found == [
            Candidate(Address("10.0.0.2", 7744), "static"),
            Candidate(Address("fd00::2", 7746), "static"),
        ]
        await source.stop()

    asyncio.run(scenario())


def test_a_name_is_proposed_with_all_its_addresses_in_the_first_round():
    async def scenario() -> None:
        found: list[Candidate] = []
        source = StaticSource([Address("lane.lan", 1)], lambda *_: ["10.0.0.2", "fd00::2"])
        await source.start(found.append)
        assert {str(candidate.address) for candidate in found} == {"10.0.0.2:1", "[fd00::2]:1"}
        await source.stop()

    asyncio.run(scenario())


def test_the_system_knows_localhost():
    async def scenario() -> None:
        found: list[Candidate] = []
        source = StaticSource([Address("localhost", 7744)])
        await source.start(found.append)
        assert Address("127.0.0.1", 7744) in [candidate.address for candidate in found]
        await source.stop()

    asyncio.run(scenario())


def test_a_link_local_answer_keeps_its_zone(monkeypatch: pytest.MonkeyPatch):
    answer = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 1, 0, 7))] * 2
    monkeypatch.setattr(static.socket, "getaddrinfo", lambda *_, **__: answer)
    assert system_lookup("lane.local", 1) == ["fe80::1%7"]


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "unknown_name"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "failed"),
        (UnicodeError("label too long"), "failed"),
    ],
)
def test_a_name_that_cannot_be_looked_up_is_reported_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    state: str,
):
    monkeypatch.setattr(static, "INTERVAL_S", 0.01)
    works = threading.Event()

    def lookup(host: str, port: int) -> list[str]:
        if works.is_set():
            return ["10.0.0.2"]
        raise failure

    async def scenario() -> None:
        found: list[Finding] = []
        source = StaticSource([Address("lane.lan", 1)], lookup)
        await source.start(found.append)
        (failed,) = found
        assert isinstance(failed, LookUp)
        assert (failed.question, failed.state, failed.gone) == ("lane.lan:1", state, False)
        assert str(failure.args[-1]) in failed.detail
        await until(lambda: len(found) > 1)
        works.set()
        await until(lambda: isinstance(found[-1], Candidate))
        assert found[-2:] == [
            replace(failed, gone=True),
            Candidate(Address("10.0.0.2", 1), "static"),
        ]
        await source.stop()

    asyncio.run(scenario())
    assert [record.message for record in caplog.records] == ["peer_failed"], "once"


def test_a_name_server_that_hangs_delays_neither_start_nor_stop_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(static, "INTERVAL_S", 0.01)
    monkeypatch.setattr(static, "FIRST_ROUND_S", 0.05)
    release = threading.Event()
    asked: list[str] = []

    def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        if host == "slow":
            release.wait(30)
        return ["10.0.0.2"]

    async def scenario() -> None:
        found: list[Finding] = []
        source = StaticSource([Address("slow", 1), Address("fast", 2)], lookup)
        await source.start(found.append)
        fast, slow = found
        assert fast == Candidate(Address("10.0.0.2", 2), "static")
        assert isinstance(slow, LookUp)
        assert (slow.question, slow.state) == ("slow:1", "timeout")
        await until(lambda: asked.count("fast") >= 3)
        assert asked.count("slow") == 1
        await source.stop()

    try:
        asyncio.run(scenario())
        assert not release.is_set()
    finally:
        release.set()
        for thread in threading.enumerate():
            if thread.name.startswith("lookup "):
                thread.join(10)


def test_an_answer_after_the_loop_has_closed_is_dropped():
    release = threading.Event()

    def lookup(host: str, port: int) -> list[str]:
        release.wait(30)
        return ["10.0.0.2"]

    async def scenario() -> None:
        source = StaticSource([Address("late", 1)], lookup)
        starting = asyncio.ensure_future(source.start(lambda _: None))
        await until(lambda: any(t.name == "lookup late" for t in threading.enumerate()))
        starting.cancel()
        await source.stop()

    asyncio.run(scenario())
    (thread,) = [t for t in threading.enumerate() if t.name == "lookup late"]
    release.set()
    thread.join(10)
    assert not thread.is_alive()


def test_an_address_is_withdrawn_after_a_minute_of_answers_without_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(static, "INTERVAL_S", 0.001)
    answers = [["10.0.0.2", "10.0.0.3"]]

    def lookup(host: str, port: int) -> list[str]:
        answers.append(["10.0.0.3"])
        return answers[0] if len(answers) == 2 else answers[-1]

    async def scenario() -> None:
        found: list[Candidate] = []
        source = StaticSource([Address("lane.lan", 1)], lookup)
        await source.start(found.append)
        assert len(found) == 2
        await until(lambda: len(found) == 3)
        assert found[2] == Candidate(Address("10.0.0.2", 1), "static", gone=True)
        assert len(answers) - 1 > static.WITHDRAW_AFTER
        await source.stop()

    asyncio.run(scenario())


def test_addresses_that_take_turns_do_not_flap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(static, "INTERVAL_S", 0.001)
    turns: list[int] = []

    def lookup(host: str, port: int) -> list[str]:
        turns.append(1)
        return [f"10.0.0.{1 + len(turns) % 3}"]

    async def scenario() -> None:
        found: list[Candidate] = []
        source = StaticSource([Address("lane.lan", 1)], lookup)
        await source.start(found.append)
        await until(lambda: len(turns) > 3 * static.WITHDRAW_AFTER)
        assert len(found) == 3
        assert not any(candidate.gone for candidate in found)
        await source.stop()

    asyncio.run(scenario())


def test_an_answer_that_is_empty_or_cannot_be_dialled_withdraws_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(static, "INTERVAL_S", 0.001)
    turns: list[int] = []

    def lookup(host: str, port: int) -> list[str]:
        turns.append(1)
        return ["10.0.0.2"] if len(turns) == 1 else [] if len(turns) % 2 else ["224.0.0.1"]

    async def scenario() -> None:
        found: list[Finding] = []
        source = StaticSource([Address("lane.lan", 1)], lookup)
        await source.start(found.append)
        await until(lambda: len(turns) > 3 * static.WITHDRAW_AFTER)
        first, *others = found
        assert first == Candidate(Address("10.0.0.2", 1), "static")
        assert {type(other) for other in others} == {LookUp}
        assert isinstance(others[0], LookUp)
        assert others[0].state == "unusable"
        await source.stop()

    asyncio.run(scenario())
