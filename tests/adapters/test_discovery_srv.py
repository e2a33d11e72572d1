"""SRV records: one look-up against a name server that may say anything, and what is made of it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parkingd.adapters.discovery import resolver, srv
from parkingd.adapters.discovery.resolver import Answer, Target, Trouble, look_up
from parkingd.adapters.discovery.srv import SrvSource, about
from parkingd.protocol.facts import Candidate, Finding, LookUp
from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address
from tests.adapters.dns_stub import (
    Asked,
    DnsStub,
    Reply,
    by_tcp,
    code,
    cut_off,
    raw,
    records_of,
    reset,
    silence,
    to_another_question,
    with_id,
)

SERVICE = "_gossip._tcp.lot.test"


@pytest.fixture
def stub() -> Iterator[DnsStub]:
    with DnsStub() as stub:
        yield stub


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For name servers that keep silent."""
    monkeypatch.setattr(resolver, "ATTEMPT_S", 0.1)
    monkeypatch.setattr(resolver, "LIFETIME_S", 0.3)


def ask(stub: DnsStub) -> Answer | Trouble:
    return look_up(SERVICE, Address(stub.host, stub.port))


def answered(stub: DnsStub) -> Answer:
    answer = ask(stub)
    assert isinstance(answer, Answer), answer
    return answer


def found(target: Target) -> set[str]:
    assert not isinstance(target.found, Trouble), target
    return set(target.found)


def trouble(target: Target) -> Trouble:
    assert isinstance(target.found, Trouble), target
    return target.found


# --- one look-up ---------------------------------------------------------------------------------


def test_addresses_that_come_along_are_not_asked_for(stub: DnsStub) -> None:
    reply = records_of(
        (SERVICE, "SRV", "0 0 7744 pod-0.lot.test.", "0 0 7746 Pod-1.lot.test."),
        additional=[
            ("POD-0.lot.test", "A", "10.0.0.1"),
            ("pod-0.lot.test", "AAAA", "fd00::1"),
            ("pod-1.lot.test", "A", "10.0.0.2"),
            ("other.lot.test", "A", "10.0.0.9"),
        ],
    )
    stub.says(SERVICE, "SRV", reply)
    answer = answered(stub)
    assert [(target.host, target.port) for target in answer.targets] == [
        ("pod-0.lot.test", 7744),
        ("pod-1.lot.test", 7746),
    ]
    assert [found(target) for target in answer.targets] == [{"10.0.0.1", "fd00::1"}, {"10.0.0.2"}]
    assert stub.asked == [Asked(SERVICE, "SRV", "udp")]
    assert answer.servers == f"127.0.0.1:{stub.port}"


def test_addresses_that_do_not_come_along_are_asked_for_and_one_missing_name_costs_only_itself(
    stub: DnsStub,
) -> None:
    targets = (f"0 0 7744 pod-{number}.lot.test." for number in range(4))
    stub.knows(SERVICE, "SRV", *targets)
    stub.knows("pod-0.lot.test", "A", "10.0.0.1")
    stub.knows("pod-0.lot.test", "AAAA", "fd00::1")
    stub.knows("pod-1.lot.test", "AAAA", "fd00::2")
    stub.knows("pod-3.lot.test", "A", "10.0.0.4")
    stub.says("pod-3.lot.test", "AAAA", code("SERVFAIL"))
    answer = answered(stub)
    both, ipv6, gone, ipv4 = answer.targets
    assert (found(both), found(ipv6), found(ipv4)) == (
        {"10.0.0.1", "fd00::1"},
        {"fd00::2"},
        {"10.0.0.4"},
    )
    assert (trouble(gone).question, trouble(gone).state) == ("pod-2.lot.test", "nxdomain")


def test_a_target_that_several_records_name_is_asked_for_once(stub: DnsStub) -> None:
    stub.knows(SERVICE, "SRV", "0 0 1 a.test.", "5 0 1 a.test.", "0 0 2 a.test.")
    stub.knows("a.test", "A", "10.0.0.1")
    answer = answered(stub)
    assert [(target.host, target.port) for target in answer.targets] == [
        ("a.test", 1),
        ("a.test", 2),
    ]
    assert (stub.count("a.test", "A"), stub.count("a.test", "AAAA")) == (1, 1)


def test_aliases_are_followed_for_the_service_and_for_a_target(stub: DnsStub) -> None:
    real = "_gossip._tcp.real.test"
    stub.says(
        SERVICE,
        "SRV",
        records_of((SERVICE, "CNAME", f"{real}."), (real, "SRV", "0 0 7744 alias.test.")),
    )
    stub.says(
        "alias.test",
        "A",
        records_of(("alias.test", "CNAME", "pod-0.test."), ("pod-0.test", "A", "10.0.0.1")),
    )
    (target,) = answered(stub).targets
    assert (target.host, found(target)) == ("alias.test", {"10.0.0.1"})


@pytest.mark.parametrize(
    ("reply", "state", "said"),
    [
        (code("NXDOMAIN"), "nxdomain", "there is no such name"),
        (code("NOERROR"), "empty", "the name has no SRV record"),
        (code("SERVFAIL"), "servfail", "the server says SERVFAIL"),
        (code("REFUSED"), "refused", "the server says REFUSED"),
        (records_of((SERVICE, "A", "10.0.0.1")), "empty", "no SRV record"),
        (records_of((SERVICE, "CNAME", f"{SERVICE}.")), "malformed", "no answer"),
        (silence, "timeout", "no answer within"),
        (raw(b""), "timeout", "no answer within"),
        (raw(b"\xff" * 500), "timeout", "no answer within"),
        (with_id(1, code("NXDOMAIN")), "timeout", "no answer within"),
        (to_another_question("other.test", code("NXDOMAIN")), "timeout", "no answer within"),
        (by_tcp(silence), "timeout", "too long for UDP, and over TCP there is none"),
        (by_tcp(reset), "unreachable", "over TCP"),
        (by_tcp(raw(b"")), "malformed", "over TCP"),
        (by_tcp(raw(b"\xff" * 500)), "malformed", "over TCP"),
        (by_tcp(with_id(1, code("NXDOMAIN"))), "malformed", "over TCP"),
        (cut_off, "empty", "no SRV record"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_name_server_that_brings_nothing_is_told_as_what_it_did(
    stub: DnsStub, reply: Reply, state: str, said: str
) -> None:
    stub.says(SERVICE, "SRV", reply)
    answer = ask(stub)
    assert isinstance(answer, Trouble), answer
    assert (answer.question, answer.state) == (SERVICE, state), answer
    assert answer.detail.startswith(f"asked 127.0.0.1:{stub.port}: ")
    assert said in answer.detail
    assert "\n" not in answer.detail


@pytest.mark.usefixtures("impatient")
def test_a_name_server_that_is_not_there_is_told(stub: DnsStub) -> None:
    stub.close()
    answer = ask(stub)
    assert isinstance(answer, Trouble)
    assert answer.state in ("timeout", "unreachable")


def test_what_is_too_long_for_udp_comes_by_tcp_and_of_300_targets_256_are_used(
    stub: DnsStub,
) -> None:
    names = [f"pod-{number:03}.lot.test" for number in range(300)]
    reply = records_of(
        (SERVICE, "SRV", *(f"0 0 7744 {name}." for name in names)),
        additional=[
            (name, "A", f"10.0.{at // 250}.{at % 250 + 1}") for at, name in enumerate(names)
        ],
    )
    stub.says(SERVICE, "SRV", reply)
    answer = answered(stub)
    assert stub.asked == [Asked(SERVICE, "SRV", "udp"), Asked(SERVICE, "SRV", "tcp")]
    assert [target.host for target in answer.targets] == names[:CANDIDATES_MAX]
    assert answer.named == 300
    assert all(len(found(target)) == 1 for target in answer.targets)


def test_256_targets_without_addresses_are_all_asked_for_and_no_more(
    stub: DnsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("ATTEMPT_S", "LIFETIME_S", "ROUND_S"):  # The stub is slower than any server.
        monkeypatch.setattr(resolver, limit, 30.0)
    names = [f"pod-{number:03}.lot.test" for number in range(300)]
    stub.knows(SERVICE, "SRV", *(f"0 0 7744 {name}." for name in names))
    for at, name in enumerate(names):
        stub.knows(name, "A", f"10.0.{at // 250}.{at % 250 + 1}")
    answer = answered(stub)
    assert all(len(found(target)) == 1 for target in answer.targets)
    assert len([each for each in stub.asked if each.kind == "A"]) == CANDIDATES_MAX


def test_lower_priorities_come_first(stub: DnsStub) -> None:
    stub.knows(SERVICE, "SRV", "20 9 1 a.test.", "10 0 2 c.test.", "10 5 3 b.test.")
    hosts = [target.host for target in answered(stub).targets]
    assert hosts == ["b.test", "c.test", "a.test"]


def test_port_0_and_a_target_of_one_dot_mean_that_there_is_no_service(stub: DnsStub) -> None:
    stub.knows(SERVICE, "SRV", "0 0 0 a.test.", "0 0 7744 .")
    answer = answered(stub)
    assert [(trouble(each).question, trouble(each).state) for each in answer.targets] == [
        (".:7744", "unusable"),
        ("a.test:0", "unusable"),
    ]
    assert stub.asked == [Asked(SERVICE, "SRV", "udp")]


def test_a_target_of_unprintable_bytes_is_shown_escaped_and_short(stub: DnsStub) -> None:
    label = "".join(f"\\{code:03}" for code in (27, 10, 200)) + "\\000" * 50
    stub.knows(SERVICE, "SRV", f"0 0 7744 {label}.{label}.{label}.{label}.")
    (target,) = answered(stub).targets
    assert target.host.isascii()
    assert target.host.isprintable()
    assert len(trouble(target).detail) <= resolver.TEXT_LENGTH_MAX


@pytest.mark.usefixtures("impatient")
def test_targets_whose_server_keeps_silent_are_given_up_together(
    stub: DnsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "ASKING_MAX", 2)
    monkeypatch.setattr(resolver, "ROUND_S", 0.6)
    stub.knows(SERVICE, "SRV", *(f"0 0 7744 pod-{number}.test." for number in range(40)))
    for number in range(40):
        for kind in ("A", "AAAA"):
            stub.says(f"pod-{number}.test", kind, silence)
    answer = answered(stub)
    assert {trouble(target).state for target in answer.targets} == {"timeout"}
    asked = {each.name for each in stub.asked} - {SERVICE}
    assert 0 < len(asked) < 40


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "search lot.test\n",
        "nameserver\n",
        "nameserver name.lot.test\n",
        "nameserver 127.0.0.1\nsearch ..\n",
    ],
)
def test_a_system_without_a_usable_resolv_conf_is_told(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    answer = look_up(SERVICE, None, file)
    assert isinstance(answer, Trouble)
    assert (answer.question, answer.state) == (SERVICE, "no_resolver")
    assert "--dns" in answer.detail


def test_a_resolv_conf_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_bytes(b"\xff\xfe\x00")
    answer = look_up(SERVICE, None, file)
    assert isinstance(answer, Trouble)
    assert answer.state == "no_resolver"
    folder = look_up(SERVICE, None, tmp_path)
    assert isinstance(folder, Trouble)
    assert folder.state == "no_resolver"


@pytest.mark.usefixtures("impatient")
def test_the_servers_of_resolv_conf_are_asked_one_after_the_other_and_read_anew_every_time(
    tmp_path: Path,
) -> None:
    try:
        stub = DnsStub("127.77.0.53", 53)
    except OSError as error:
        pytest.skip(f"port 53: {error}")
    with stub:
        stub.knows(SERVICE, "SRV", "0 0 7744 a.test.")
        stub.knows("a.test", "A", "10.0.0.1")
        file = tmp_path / "resolv.conf"
        file.write_text("nameserver 127.77.0.54\n")
        before = look_up(SERVICE, None, file)
        assert isinstance(before, Trouble)
        assert before.detail.startswith("asked 127.77.0.54:53: ")
        # A first server that is dead must not take all the time, whatever the file says.
        file.write_text(
            "search lot.test\noptions timeout:30 ndots:5\n"
            "nameserver 127.77.0.54\nnameserver 127.77.0.53\n"
        )
        after = look_up(SERVICE, None, file)
        assert isinstance(after, Answer), after
        assert found(after.targets[0]) == {"10.0.0.1"}
        assert {each.name for each in stub.asked} == {SERVICE, "a.test"}


@pytest.mark.usefixtures("impatient")
def test_a_wall_clock_that_is_put_back_does_not_stretch_the_wait(
    stub: DnsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dnspython computes its waits by the wall clock."""
    stub.says(SERVICE, "SRV", silence)
    wall = time.time

    def put_back() -> float:
        return wall() - (3600 if stub.asked else 0)

    monkeypatch.setattr(time, "time", put_back)
    answer = ask(stub)
    assert isinstance(answer, Trouble)
    assert answer.state == "timeout"


def test_a_real_name_server_is_understood(tmp_path: Path) -> None:
    program = shutil.which("dnsmasq")
    if program is None:
        pytest.skip("dnsmasq is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [program, "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"]
    words += [f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces"]
    words += [f"--pid-file={tmp_path / 'pid'}", "--user=", "--group="]
    for number in range(20):
        words.append(f"--srv-host={SERVICE},pod-{number}.lot.test,{7744 + number}")
        words.append(f"--host-record=pod-{number}.lot.test,10.0.0.{number + 1},fd00::{number + 1}")
    server = Address("127.0.0.1", port)
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(50):
                answer = look_up(SERVICE, server)
                if isinstance(answer, Answer):
                    break
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            assert isinstance(answer, Answer), answer
            assert len(answer.targets) == 20
            for target in answer.targets:
                number = target.port - 7744
                assert target.host == f"pod-{number}.lot.test"
                assert "10.0.0." + str(number + 1) in found(target)
            missing = look_up("_gossip._tcp.pod-0.lot.test", server)
            assert isinstance(missing, Trouble)
            assert missing.state in ("nxdomain", "refused")
        finally:
            process.kill()


# --- the source ----------------------------------------------------------------------------------


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srv, "ALONE_INTERVAL_S", 0.001)
    monkeypatch.setattr(srv, "INTERVAL_S", 0.001)


def said(*targets: tuple[str, int, tuple[str, ...] | Trouble]) -> Answer:
    return Answer(tuple(Target(*target) for target in targets), len(targets), "10.0.0.53:53")


def pod(number: int, *hosts: str) -> tuple[str, int, tuple[str, ...]]:
    return (f"pod-{number}.test", 7744, hosts or (f"10.0.0.{number}",))


def at(number: int) -> Address:
    return Address(f"10.0.0.{number}", 7744)


class Oracle:
    """Answers in turn; the last one for ever."""

    def __init__(self, *answers: Answer | Trouble) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.threads: set[int] = set()

    def __call__(self) -> Answer | Trouble:
        self.threads.add(threading.get_ident())
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


class Heard:
    """What a source reports, and what holds after all of it."""

    def __init__(self) -> None:
        self.all: list[Finding] = []
        self.addresses: dict[Address, Candidate] = {}
        self.failures: dict[str, LookUp] = {}

    def __call__(self, finding: Finding) -> None:
        self.all.append(finding)
        match finding:
            case Candidate(gone=True):
                del self.addresses[finding.address]
            case Candidate():
                self.addresses[finding.address] = finding
            case LookUp(gone=True):
                del self.failures[finding.question]
            case LookUp():
                self.failures[finding.question] = finding


def source(oracle: Callable[[], Answer | Trouble], *, alone: bool = True) -> SrvSource:
    return SrvSource(SERVICE, oracle, lambda: alone)


NXDOMAIN = Trouble(SERVICE, "nxdomain", "asked 10.0.0.53:53: there is no such name")


def test_every_address_of_every_target_is_proposed_with_what_was_asked(stub: DnsStub) -> None:
    reply = records_of(
        (SERVICE, "SRV", "0 0 7744 pod-0.lot.test.", "0 0 7746 pod-1.lot.test."),
        additional=[
            ("pod-0.lot.test", "A", "10.0.0.1", "10.0.0.2"),
            ("pod-1.lot.test", "AAAA", "fd00::1"),
        ],
    )
    stub.says(SERVICE, "SRV", reply)

    async def scenario() -> None:
        heard = Heard()
        asking = source(lambda: ask(stub))
        await asking.start(heard)
        assert {str(address): c.detail for address, c in heard.addresses.items()} == {
            "10.0.0.1:7744": f"SRV {SERVICE} -> pod-0.lot.test:7744",
            "10.0.0.2:7744": f"SRV {SERVICE} -> pod-0.lot.test:7744",
            "[fd00::1]:7746": f"SRV {SERVICE} -> pod-1.lot.test:7746",
        }
        assert {candidate.source for candidate in heard.addresses.values()} == {"srv"}
        assert heard.failures == {}
        await asking.stop()

    asyncio.run(scenario())


@pytest.mark.usefixtures("quick", "impatient")
def test_a_name_server_that_is_absent_at_the_start_is_noted_and_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = DnsStub()
    stub.close()
    later: list[DnsStub] = []

    async def scenario() -> None:
        heard = Heard()
        asking = source(lambda: ask(stub))
        await asking.start(heard)
        assert heard.addresses == {}
        (failure,) = heard.failures.values()
        assert (failure.source, failure.question) == ("srv", SERVICE)
        assert failure.state in ("timeout", "unreachable")
        later.append(DnsStub(port=stub.port))
        later[0].knows(SERVICE, "SRV", "0 0 7744 pod-1.test.")
        later[0].knows("pod-1.test", "A", "10.0.0.1")
        await until(lambda: list(heard.addresses) == [at(1)])
        assert heard.failures == {}
        await asking.stop()

    try:
        asyncio.run(scenario())
    finally:
        for server in later:
            server.close()


def test_a_look_up_runs_in_a_thread_of_its_own() -> None:
    """An answer that takes seconds to take apart must not stop the heartbeats."""
    oracle = Oracle(said(pod(1)))

    async def scenario() -> None:
        asking = source(oracle)
        await asking.start(Heard())
        await asking.stop()

    asyncio.run(scenario())
    assert threading.get_ident() not in oracle.threads
    assert len(oracle.threads) == 1


def test_a_large_answer_of_long_names_leaves_the_loop_running(stub: DnsStub) -> None:
    label = b"\x01x" * 125 + b"\x00"

    def huge(query: object, by: str) -> bytes:
        """500 records, each a pointer to the longest name: a second's work."""
        head = struct.pack("!6H", query.id, 0x8180, 1, 500, 0, 0)  # type: ignore[attr-defined]
        question = label + struct.pack("!HH", 33, 1)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 33, 1, 5, 8)
        return (
            head
            + question
            + b"".join(
                record + struct.pack("!HHH", 0, number, 7744) + b"\xc0\x0c" for number in range(500)
            )
        )

    service = ".".join(["x"] * 125)
    stub.says(service, "SRV", by_tcp(huge))
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        heard = Heard()
        asking = SrvSource(
            service, lambda: look_up(service, Address(stub.host, stub.port)), lambda: True
        )
        starting = asyncio.ensure_future(asking.start(heard))
        while not starting.done():
            await asyncio.sleep(0.001)
            turns += 1
        await starting
        assert service in heard.failures
        await asking.stop()

    asyncio.run(scenario())
    assert turns > 20


@pytest.mark.parametrize(
    "useless",
    [
        NXDOMAIN,
        Trouble(SERVICE, "empty", ""),
        Trouble(SERVICE, "timeout", ""),
        said(),
        said(("pod-1.test", 7744, Trouble("pod-1.test", "servfail", ""))),
        said(pod(1, "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1")),
    ],
)
@pytest.mark.usefixtures("quick")
def test_an_answer_of_no_use_withdraws_nothing_and_is_shown(useless: Answer | Trouble) -> None:
    oracle = Oracle(said(pod(1)), useless)

    async def scenario() -> None:
        heard = Heard()
        asking = source(oracle)
        await asking.start(heard)
        await until(lambda: oracle.asked > 3 * srv.WITHDRAW_AFTER)
        assert list(heard.addresses) == [at(1)]
        assert SERVICE in heard.failures
        assert all(failure.state and failure.source == "srv" for failure in heard.failures.values())
        oracle.answers.append(said(pod(1)))
        await until(lambda: heard.failures == {})
        assert [f for f in heard.all if isinstance(f, Candidate)] == [heard.addresses[at(1)]]
        await asking.stop()

    asyncio.run(scenario())


def test_addresses_where_nobody_can_be_are_not_proposed_and_shown_beside_those_that_are() -> None:
    lies = pod(2, "0.0.0.0", "239.1.2.3", "255.255.255.255", "::", "ff02::1")
    unknown = ("pod-3.test", 7744, Trouble("pod-3.test", "nxdomain", "no"))
    oracle = Oracle(said(pod(1, "10.0.0.1", "0.0.0.0"), lies, unknown))

    async def scenario() -> None:
        heard = Heard()
        asking = source(oracle)
        await asking.start(heard)
        assert list(heard.addresses) == [at(1)]
        assert {key: each.state for key, each in heard.failures.items()} == {
            "pod-2.test:7744": "unusable",
            "pod-3.test": "nxdomain",
        }
        assert "0.0.0.0, 239.1.2.3" in heard.failures["pod-2.test:7744"].detail
        await asking.stop()

    asyncio.run(scenario())


@pytest.mark.usefixtures("quick")
def test_an_address_is_withdrawn_when_several_good_answers_did_not_contain_it() -> None:
    oracle = Oracle(said(pod(1), pod(2)), *[said(pod(2))] * (srv.WITHDRAW_AFTER - 1), NXDOMAIN)

    async def scenario() -> None:
        heard = Heard()
        asking = source(oracle)
        await asking.start(heard)
        await until(lambda: oracle.asked > 3 * srv.WITHDRAW_AFTER)
        assert list(heard.addresses) == [at(1), at(2)], "one good answer less than it takes"
        oracle.answers.append(said(pod(2)))
        await until(lambda: list(heard.addresses) == [at(2)])
        await asking.stop()

    asyncio.run(scenario())


@pytest.mark.usefixtures("quick")
def test_addresses_that_take_turns_do_not_flap() -> None:
    turns = [said(pod(number)) for number in (1, 2, 3)] * 20
    oracle = Oracle(*turns)

    async def scenario() -> None:
        heard = Heard()
        asking = source(oracle)
        await asking.start(heard)
        await until(lambda: oracle.asked >= len(turns) - 1)
        assert [finding.address for finding in heard.all if isinstance(finding, Candidate)] == [
            at(1),
            at(2),
            at(3),
        ]
        await asking.stop()

    asyncio.run(scenario())


@pytest.mark.usefixtures("quick")
def test_an_address_stays_while_its_target_is_named_and_cannot_be_looked_up() -> None:
    lost = ("pod-1.test", 7744, Trouble("pod-1.test", "timeout", "no answer"))
    oracle = Oracle(said(pod(1), pod(2)), said(lost, pod(2)))

    async def scenario() -> None:
        heard = Heard()
        asking = source(oracle)
        await asking.start(heard)
        await until(lambda: oracle.asked > 3 * srv.WITHDRAW_AFTER)
        assert list(heard.addresses) == [at(1), at(2)]
        assert heard.failures["pod-1.test"].state == "timeout"
        await asking.stop()

    asyncio.run(scenario())


@pytest.mark.usefixtures("quick")
def test_a_name_server_that_invents_new_addresses_for_ever_fills_a_bounded_table() -> None:
    asked = 0

    def inventing() -> Answer:
        nonlocal asked
        asked += 1
        hosts = (f"10.{asked % 250}.{at % 250}.{at // 250 + 1}" for at in range(CANDIDATES_MAX))
        return said(*((f"{host}.test", 7744, (host,)) for host in hosts))

    async def scenario() -> None:
        heard = Heard()
        largest = 0
        asking = source(inventing)
        await asking.start(heard)
        while asked < 3 * srv.WITHDRAW_AFTER:
            await asyncio.sleep(0.001)
            largest = max(largest, len(heard.addresses))
        assert largest == CANDIDATES_MAX
        assert any(isinstance(f, Candidate) and f.gone for f in heard.all), "and forgets the old"
        await asking.stop()

    asyncio.run(scenario())


def test_of_one_target_a_bounded_number_of_addresses_is_proposed() -> None:
    hosts = tuple(f"10.0.0.{number}" for number in range(1, 200))
    oracle = Oracle(said(pod(1, *hosts)))

    async def scenario() -> None:
        heard = Heard()
        asking = source(oracle)
        await asking.start(heard)
        assert len(heard.addresses) == srv.ADDRESSES_PER_TARGET_MAX
        await asking.stop()

    asyncio.run(scenario())


def test_more_targets_than_are_used_are_shown() -> None:
    oracle = Oracle(Answer((Target("pod-1.test", 7744, ("10.0.0.1",)),), 300, "10.0.0.53:53"))

    async def scenario() -> None:
        heard = Heard()
        asking = source(oracle)
        await asking.start(heard)
        assert list(heard.addresses) == [at(1)]
        assert heard.failures[SERVICE].state == "too_many"
        assert "300 targets, of which 1" in heard.failures[SERVICE].detail
        await asking.stop()

    asyncio.run(scenario())


def test_while_alone_it_is_asked_often_and_with_others_there_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(srv, "ALONE_INTERVAL_S", 0.001)
    monkeypatch.setattr(srv, "INTERVAL_S", 1_000.0)
    oracle = Oracle(said(pod(1)))
    alone = True
    looked = 0

    def is_alone() -> bool:
        nonlocal looked
        looked += 1
        return alone

    async def scenario() -> None:
        nonlocal alone, looked
        asking = SrvSource(SERVICE, oracle, is_alone)
        await asking.start(Heard())
        await until(lambda: oracle.asked > 10)
        alone, looked = False, 0
        await until(lambda: looked > 2)
        before = oracle.asked
        await until(lambda: looked > 50)
        assert oracle.asked == before
        alone = True
        await until(lambda: oracle.asked > before + 10)
        await asking.stop()

    asyncio.run(scenario())


def test_with_others_there_it_is_asked_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srv, "ALONE_INTERVAL_S", 0.001)
    monkeypatch.setattr(srv, "INTERVAL_S", 0.01)
    oracle = Oracle(said(pod(1)))

    async def scenario() -> None:
        asking = source(oracle, alone=False)
        await asking.start(Heard())
        await until(lambda: oracle.asked > 5)
        await asking.stop()

    asyncio.run(scenario())


def test_intervals_differ_by_a_fifth_at_most() -> None:
    drawn = {about(10.0) for _ in range(1_000)}
    assert 8.0 <= min(drawn) < 8.5
    assert 11.5 < max(drawn) <= 12.0


def test_a_look_up_that_hangs_is_reported_not_repeated_and_delays_no_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(srv, "ALONE_INTERVAL_S", 0.001)
    monkeypatch.setattr(srv, "ROUND_WAIT_S", 0.02)
    release = threading.Event()
    asked = 0

    def hanging() -> Answer:
        nonlocal asked
        asked += 1
        release.wait(30)
        return said(pod(1))

    async def scenario() -> None:
        heard = Heard()
        asking = source(hanging)
        await asking.start(heard)
        assert heard.failures[SERVICE].state == "timeout"
        await until(lambda: len(heard.all) >= 3)
        assert asked == 1
        release.set()
        await until(lambda: list(heard.addresses) == [at(1)])
        assert heard.failures == {}
        release.clear()
        await until(lambda: asked == 2 or SERVICE in heard.failures)
        await asking.stop()
        assert not release.is_set()

    try:
        asyncio.run(scenario())
    finally:
        release.set()


def test_an_answer_after_the_stop_or_after_the_loop_has_closed_is_dropped() -> None:
    release = threading.Event()
    heard = Heard()

    asking_threads: list[threading.Thread] = []

    def hanging() -> Answer:
        asking_threads.append(threading.current_thread())
        release.wait(30)
        return said(pod(1))

    async def scenario() -> None:
        asking = source(hanging)
        starting = asyncio.ensure_future(asking.start(heard))
        await until(lambda: bool(asking_threads))
        starting.cancel()
        await asking.stop()

    asyncio.run(scenario())
    release.set()
    for thread in asking_threads:
        thread.join(10)
        assert not thread.is_alive()
    assert heard.all == []


@pytest.mark.usefixtures("quick")
def test_the_log_has_one_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "parkingd.discovery.srv")
    servfail = Trouble(SERVICE, "servfail", "asked 10.0.0.53:53: SERVFAIL")
    oracle = Oracle(NXDOMAIN, NXDOMAIN, NXDOMAIN, servfail, said(pod(1)), said(pod(1)), NXDOMAIN)

    async def scenario() -> None:
        asking = source(oracle)
        await asking.start(Heard())
        await until(lambda: oracle.asked > 20)
        await asking.stop()

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == [
        "srv_failed",
        "srv_failed",
        "srv_answered",
        "srv_failed",
    ]
