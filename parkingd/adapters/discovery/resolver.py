"""Asks name servers for the SRV records of a service and for the addresses behind them.

How it works. `look_up` asks once, over UDP and over TCP where an answer was cut off, and returns
what came back: the targets in their order, each with its addresses or with what went wrong. It
blocks, and is made for a thread of its own, where it runs a small event loop: a name server may
send 64 KiB that take dnspython eight seconds to take apart (3,000 records with names of 126
labels), and the daemon's loop has heartbeats to send meanwhile. Every look-up reads resolv.conf
anew, because networks come and go.

Invariants: a name server can say whatever it likes, or nothing: the answer is a value, never an
exception. Waiting is bounded by the monotonic clock, because dnspython looks at the wall clock.
Nobody is asked about more targets than are used, nor about many at a time.

This is the only module that imports dnspython; it is imported only when SRV records are used.

Source: DESIGN section 10; RFC 2782 (SRV); RFC 1035 section 4.2 (UDP and TCP).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver

from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address

LIFETIME_S: Final = 3.0
"""For one question, all servers and both transports. Less: a busy server counts as silent. More:
a daemon whose name server is dead founds its lot that much later."""
ATTEMPT_S: Final = 1.0
"""For one server: three are asked within a lifetime, so that a dead first one costs no answer."""
SLACK_S: Final = 1.0
"""dnspython looks at its lifetime only between attempts."""
ROUND_S: Final = 5.0
"""For the SRV records and all addresses behind them."""
ASKING_MAX: Final = 16
"""Targets looked up at a time: 256 of them take 0.35 s where the server is near."""
TEXT_LENGTH_MAX: Final = 300
"""Of one sentence about what happened; names of 255 bytes may need four letters for each."""

RESOLV_CONF: Final = Path("/etc/resolv.conf")

_ADDRESS_KINDS: Final = (dns.rdatatype.A, dns.rdatatype.AAAA)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A question that brought nothing usable."""

    question: str
    state: str
    """One word for `discover`."""
    detail: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a service is said to listen."""

    host: str
    port: int
    found: tuple[str, ...] | Trouble
    """Its IP addresses, at least one, untrusted; or why there are none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The SRV records of a service."""

    targets: tuple[Target, ...]
    """By priority, then by name; at most `limits.CANDIDATES_MAX`."""
    named: int
    """Different targets in the answer, used or not."""
    servers: str
    """Who was asked."""


_Found: TypeAlias = tuple[str, ...] | Trouble


def look_up(
    service: str, server: Address | None, resolv_conf: Path = RESOLV_CONF
) -> Answer | Trouble:
    """Ask for the SRV records of ``service``, a full name, and for the addresses of their targets.

    ``server``: the name server; None: those of ``resolv_conf``. Blocks for `ROUND_S` at most, and
    beyond that only while an answer that has arrived is taken apart.
    """
    return asyncio.run(_look_up(service, server, resolv_conf))


async def _look_up(service: str, server: Address | None, resolv_conf: Path) -> Answer | Trouble:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + ROUND_S
    try:
        asking = _Asking(server, resolv_conf)
    except (dns.exception.DNSException, OSError, ValueError) as error:
        what = f"no name server to ask: {error}; --dns can name one"
        return Trouble(service, "no_resolver", _short(what))
    answer = await asking.ask(dns.name.from_text(service), dns.rdatatype.SRV)
    if isinstance(answer, Trouble):
        return answer
    records = {(each.priority, each.target.canonicalize(), each.port) for each in answer}
    ordered = sorted(records, key=lambda record: (record[0], _text(record[1]), record[2]))
    wanted = list(dict.fromkeys((host, port) for _, host, port in ordered))
    used = wanted[:CANDIDATES_MAX]
    known = _additional(answer)
    hosts = {host for host, port in used if port and host != dns.name.root and host not in known}
    known |= await asking.addresses(hosts, deadline_s - loop.time())
    targets = (Target(_text(host), port, _found(host, port, known)) for host, port in used)
    return Answer(tuple(targets), len(wanted), asking.servers)


def _additional(answer: dns.resolver.Answer) -> dict[dns.name.Name, _Found]:
    """The addresses that came along, whatever they belong to."""
    found: dict[dns.name.Name, tuple[str, ...]] = {}
    for records in answer.response.additional:
        if records.rdtype in _ADDRESS_KINDS:
            host = records.name.canonicalize()
            found[host] = (*found.get(host, ()), *(record.address for record in records))
    return dict(found)


def _found(host: dns.name.Name, port: int, known: Mapping[dns.name.Name, _Found]) -> _Found:
    question = f"{_text(host)}:{port}"
    if host == dns.name.root:
        return Trouble(question, "unusable", "a target '.' says that the service is not offered")
    if not port:
        return Trouble(question, "unusable", "nobody listens on port 0")
    return known[host]


class _Asking:
    """The name servers, and how to ask them."""

    def __init__(self, server: Address | None, resolv_conf: Path) -> None:
        """Raises DNSException, OSError or ValueError if there is no name server to ask."""
        if server is None:
            self._resolver = dns.asyncresolver.Resolver(str(resolv_conf))
        else:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            self._resolver.nameservers = [server.host]
            self._resolver.port = server.port
        self._resolver.timeout = ATTEMPT_S  # Whatever resolv.conf says.
        addresses = (Address(str(n), self._resolver.port) for n in self._resolver.nameservers)
        self.servers = _short(", ".join(map(str, addresses)))

    async def ask(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.resolver.Answer | Trouble:
        """Ask for the records of one kind of a full name."""
        silence = f"no answer within {LIFETIME_S:.0f} s"
        try:
            async with asyncio.timeout(LIFETIME_S + SLACK_S):
                return await self._resolver.resolve(name, kind, search=False, lifetime=LIFETIME_S)
        except TimeoutError:  # The wall clock was put back meanwhile.
            return self._trouble(name, "timeout", silence)
        except dns.resolver.NXDOMAIN:
            what = "there is no such name (it was asked for as a full one, nothing appended)"
            return self._trouble(name, "nxdomain", what)
        except dns.resolver.NoAnswer:
            what = f"the name has no {dns.rdatatype.to_text(kind)} record"
            return self._trouble(name, "empty", what)
        except dns.exception.Timeout as error:
            _, said = _last_said(error.kwargs.get("errors", ()))
            return self._trouble(name, "timeout", f"{silence}; {said}" if said else silence)
        except dns.resolver.NoNameservers as error:
            return self._trouble(name, *_last_said(error.kwargs["errors"]))
        except dns.exception.DNSException as error:
            return self._trouble(name, "malformed", str(error))

    def _trouble(self, name: dns.name.Name, state: str, what: str) -> Trouble:
        return Trouble(_text(name), state, _short(f"asked {self.servers}: {what}"))

    async def addresses(
        self, hosts: Collection[dns.name.Name], within_s: float
    ) -> dict[dns.name.Name, _Found]:
        """IPv4 and IPv6 addresses of each host, in no fixed order, so that each gets its turn."""
        limit = asyncio.Semaphore(ASKING_MAX)
        order = random.sample(list(hosts), len(hosts))
        asked = {host: asyncio.create_task(self._addresses(host, limit)) for host in order}
        if asked:
            await asyncio.wait(asked.values(), timeout=within_s)
        found: dict[dns.name.Name, _Found] = {}
        for host, task in asked.items():
            if task.done():
                found[host] = task.result()
            else:
                task.cancel()
                found[host] = self._trouble(host, "timeout", f"no answer within {ROUND_S:.0f} s")
        return found

    async def _addresses(self, host: dns.name.Name, limit: asyncio.Semaphore) -> _Found:
        async with limit:
            answers = await asyncio.gather(*(self.ask(host, kind) for kind in _ADDRESS_KINDS))
        troubles = [answer for answer in answers if isinstance(answer, Trouble)]
        found = [
            record.address
            for answer in answers
            if not isinstance(answer, Trouble)
            for record in answer
        ]
        if found:
            return tuple(found)
        if all(trouble.state == "empty" for trouble in troubles):
            return self._trouble(host, "empty", "the name has neither an A nor an AAAA record")
        return next(trouble for trouble in troubles if trouble.state != "empty")


def _last_said(errors: Iterable[dns.resolver.ErrorTuple]) -> tuple[str, str]:
    """State and sentence: what the last server that did not keep silent said instead."""
    state, said = "unreachable", ""
    for _, by_tcp, _, error, _ in errors:
        over = " over TCP" if by_tcp else ""
        match error:
            case str(code):
                state, said = code.lower(), f"the server says {code}"
            case dns.exception.Timeout():
                pass
            case OSError():
                state, said = (
                    "unreachable",
                    f"{error.strerror or str(error) or type(error).__name__}{over}",
                )
            case dns.message.Truncated():
                said = "the answer is too long for UDP, and over TCP there is none"
            case _:
                what = str(error) or type(error).__name__
                state, said = "malformed", f"what came back{over} is no answer: {what}"
    return state, said


def _text(name: dns.name.Name) -> str:
    """As people write it: without the last dot; what is not printable is escaped."""
    return name.to_text(omit_final_dot=True)


def _short(text: str) -> str:
    """On one line, and not without end."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_LENGTH_MAX else f"{line[: TEXT_LENGTH_MAX - 3]}..."
