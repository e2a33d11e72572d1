"""Daemons of one network find each other by multicast DNS (RFC 6762, RFC 6763).

How it works. The browser asks by multicast from the first question on: several daemons of one
machine share port 5353, and a unicast answer would reach one of them at random. The own instance
name holds the incarnation, so that it is new at every start and nobody has to be asked whether it
is free; a restart is a new instance, and the old one expires. It is announced in the background.
What others announce is taken from the records that came with it, and asked for only when they
did not.

Invariants: announcements are untrusted: a bounded number of them is remembered, every text field
is checked before use, addresses nobody can be dialled at are dropped, and what belongs to another
cluster or cookie is proposed as such and named in the log once. A network where none of this
works costs the source and not the daemon: ``problem`` says why, and `start` returns.

This is the only module that imports zeroconf; it is imported only when mDNS is on.

Source: DESIGN section 10; RFC 6763 sections 4.1 (instance names) and 6 (text records).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

from zeroconf import DNSQuestionType, Error, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from parkingd.adapters.discovery.addresses import LOOPBACK, dialable, is_loopback, valid_name
from parkingd.core.ids import REPLICA_MAX, replica_hex
from parkingd.protocol.facts import Candidate, LinkFailure
from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address

SERVICE_TYPE: Final = "_parkingd._tcp.local."

INSTANCE_BYTES_MAX: Final = 63
"""One DNS label."""

FIRST_ROUND_S: Final = 0.6
"""Answers to the first question come within 0.3 s; who lost it hears the second after 1 s."""
READY_WAIT_S: Final = 1.0
STOP_WAIT_S: Final = 1.0
RESOLVE_WAIT_MS: Final = 3_000
RESOLVING_MAX: Final = 16
"""Announcements without their records that are asked about at one time."""
SILENCE_WAIT_S: Final = 5.0
"""Not having heard the own announcement for this long means that multicast is blocked."""
ADDRESSES_PER_SERVICE_MAX: Final = 4
NAMED_MAX: Final = 64
"""Foreign clusters named in the log; more of them are an attack, not a car park."""

_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

_log = logging.getLogger("parkingd.discovery.mdns")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one daemon says about itself to its network."""

    cluster: str
    name: str
    replica: int
    incarnation: int
    port: int
    pub_port: int
    fingerprint: str
    """Of the cluster's cookie, 1-64 printable ASCII characters: two that differ cannot talk."""

    @property
    def instance(self) -> str:
        """One DNS label, unique to this incarnation."""
        tail = "-" + _base36(self.incarnation)
        return self.name.replace(".", "-")[: INSTANCE_BYTES_MAX - len(tail)] + tail

    def text(self) -> dict[str, str]:
        """The fields of the text record."""
        return {
            "cluster": self.cluster,
            "name": self.name,
            "replica": replica_hex(self.replica),
            "incarnation": str(self.incarnation),
            "port": str(self.port),
            "pub_port": str(self.pub_port),
            "cookie": self.fingerprint,
        }

    @classmethod
    def from_text_untrusted(cls, fields: dict[bytes, bytes | None]) -> Announcement | None:
        """None when a field is missing or is not what it should be."""
        try:
            text = {
                key.decode("ascii"): (value or b"").decode("ascii") for key, value in fields.items()
            }
            announcement = cls(
                cluster=text["cluster"],
                name=text["name"],
                replica=_whole_untrusted(text["replica"], 16, REPLICA_MAX),
                incarnation=_whole_untrusted(text["incarnation"], 10, 2**53),
                port=_whole_untrusted(text["port"], 10, 65_535),
                pub_port=_whole_untrusted(text["pub_port"], 10, 65_535),
                fingerprint=text["cookie"],
            )
        except (ValueError, KeyError):
            return None
        if not (
            valid_name(announcement.cluster)
            and valid_name(announcement.name)
            and announcement.port > 0
            and announcement.pub_port > 0
            and 0 < len(announcement.fingerprint) <= 64
            and announcement.fingerprint.isprintable()
        ):
            return None
        return announcement


class MdnsSource:
    """Announces this daemon and proposes the addresses of those that announce themselves."""

    name: Final = "mdns"

    def __init__(
        self,
        own: Announcement,
        addresses: Sequence[str],
        interfaces: Sequence[str] | None = None,
    ) -> None:
        """``addresses``: where this daemon can be dialled, IPv4 or IPv6.

        ``interfaces``: own addresses whose networks are used; None: those of ``addresses``.
        """
        self.problem: str | None = None
        self.malformed = 0
        """Announcements that were dropped because of what they said."""
        self.ignored = 0
        """Announcements beyond the number that is remembered."""
        self._own = own
        self._addresses = tuple(addresses)
        self._interfaces = mdns_interfaces(addresses if interfaces is None else interfaces)
        self._on_loopback = all(is_loopback(host) for host in self._interfaces)
        self._services: dict[str, tuple[Candidate, ...]] = {}
        """Instance name -> what was proposed because of it; empty: being asked about."""
        self._named: set[tuple[str, LinkFailure]] = set()
        self._found: Callable[[Candidate], None] = _nobody_listens
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolving = asyncio.Semaphore(RESOLVING_MAX)
        self._own_heard = asyncio.Event()

    @property
    def tracked(self) -> int:
        """Announcements remembered now, at most `limits.CANDIDATES_MAX`."""
        return len(self._services)

    async def start(self, found: Callable[[Candidate], None]) -> None:
        """Ask who is there, wait 0.6 s for answers, announce oneself meanwhile."""
        self._found = found
        try:
            zeroconf = AsyncZeroconf(interfaces=list(self._interfaces))
            self._zeroconf = zeroconf
            await zeroconf.zeroconf.async_wait_for_start(READY_WAIT_S)
        except (OSError, RuntimeError, Error) as error:  # RuntimeError: an interface went away
            self.problem = f"mDNS is off: {_reason(error)}"
            _log.warning("mdns_off", extra={"values": {"reason": _reason(error)}})
            await self.stop()
            return
        if self._zeroconf is not zeroconf:
            return  # stopped meanwhile
        self._browser = AsyncServiceBrowser(
            zeroconf.zeroconf,
            SERVICE_TYPE,
            handlers=[self._changed],
            question_type=DNSQuestionType.QM,
        )
        self._spawn(self._announce(zeroconf), "mdns announce")
        await asyncio.sleep(FIRST_ROUND_S)

    async def stop(self) -> None:
        """Say goodbye and close, within 1 s."""
        self._found = _nobody_listens
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_WAIT_S / 4)
        zeroconf, self._zeroconf = self._zeroconf, None
        browser, self._browser = self._browser, None
        if zeroconf is None:
            return
        try:
            async with asyncio.timeout(STOP_WAIT_S * 3 / 4):
                if browser is not None:
                    await browser.async_cancel()
                await zeroconf.async_close()
        except (TimeoutError, OSError, Error) as error:
            _log.debug("mdns_goodbye_failed", extra={"values": {"reason": _reason(error)}})

    async def _announce(self, zeroconf: AsyncZeroconf) -> None:
        own = self._own
        service = AsyncServiceInfo(
            SERVICE_TYPE,
            f"{own.instance}.{SERVICE_TYPE}",
            port=own.port,
            properties=own.text(),
            server=f"{own.instance}.local.",
            parsed_addresses=list(self._addresses),
        )
        try:
            # The name is new by construction: no need to ask for 1.2 s whether it is taken.
            announced = await zeroconf.async_register_service(service, cooperating_responders=True)
            await announced
        except (OSError, Error) as error:
            self.problem = f"this node is not announced by mDNS: {_reason(error)}"
            _log.warning("mdns_not_announced", extra={"values": {"reason": _reason(error)}})
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_WAIT_S):
                await self._own_heard.wait()
        if not self._own_heard.is_set():
            self.problem = (
                f"nothing sent by multicast comes back on {', '.join(self._interfaces)}: "
                "is UDP port 5353 blocked?"
            )
            _log.warning("mdns_blocked", extra={"values": {"interfaces": self._interfaces}})

    def _changed(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Called by the browser, in the loop. Added and Updated are one: both bring records."""
        if state_change is ServiceStateChange.Removed:
            self._replace(name, None)
            return
        if name not in self._services and len(self._services) >= CANDIDATES_MAX:
            self.ignored += 1
            if self.ignored == 1:
                _log.warning("mdns_too_many", extra={"values": {"kept": CANDIDATES_MAX}})
            return
        try:
            service = AsyncServiceInfo(service_type, name)
        except Error:
            self.malformed += 1
            return
        if service.load_from_cache(zeroconf):
            self._take(service)
        elif name not in self._services:
            self._services[name] = ()
            self._spawn(self._resolve(zeroconf, service), "mdns resolve")

    async def _resolve(self, zeroconf: Zeroconf, service: AsyncServiceInfo) -> None:
        """Ask for the records that did not come with the announcement."""
        try:
            async with self._resolving:
                answered = await service.async_request(zeroconf, RESOLVE_WAIT_MS)
        except (OSError, Error) as error:
            answered = False
            _log.debug("mdns_resolve_failed", extra={"values": {"reason": _reason(error)}})
        if self._services.get(service.name) != ():
            return  # withdrawn, or its records came by themselves
        if answered:
            self._take(service)
        else:
            del self._services[service.name]

    def _take(self, service: AsyncServiceInfo) -> None:
        """An announcement with all its records."""
        said = Announcement.from_text_untrusted(service.properties)
        if said is None or service.port != said.port:
            self.malformed += 1
            _log.debug("mdns_malformed", extra={"values": {"instance": service.name[:64]}})
            self._replace(service.name, None)
            return
        if (said.replica, said.incarnation) == (self._own.replica, self._own.incarnation):
            self._own_heard.set()
            self._replace(service.name, None)
            return
        mismatch: LinkFailure | None = None
        if said.cluster != self._own.cluster:
            mismatch = LinkFailure.OTHER_CLUSTER
        elif said.fingerprint != self._own.fingerprint:
            mismatch = LinkFailure.OTHER_COOKIE
        hosts = [host for host in service.parsed_scoped_addresses() if self._worth_dialling(host)]
        self._replace(
            service.name,
            tuple(
                Candidate(Address(host, said.port), self.name, said.name, mismatch)
                for host in hosts[:ADDRESSES_PER_SERVICE_MAX]
            ),
        )
        if mismatch is not None:
            self._name_once(said, mismatch)

    def _worth_dialling(self, host: str) -> bool:
        """Loopback addresses mean something only to who browses on loopback."""
        return dialable(host) and (self._on_loopback or not is_loopback(host))

    def _replace(self, service_name: str, candidates: tuple[Candidate, ...] | None) -> None:
        """Propose what an instance says now, withdraw what only it said before."""
        before = self._services.pop(service_name, ())
        if candidates:
            self._services[service_name] = candidates
        if before:
            still = {kept.address for others in self._services.values() for kept in others}
            for old in before:
                if old.address not in still:
                    gone = Candidate(old.address, self.name, old.name, old.mismatch, gone=True)
                    self._found(gone)
        for new in candidates or ():
            if new not in before:
                self._found(new)

    def _name_once(self, said: Announcement, mismatch: LinkFailure) -> None:
        key = (said.cluster, mismatch)
        if key in self._named or len(self._named) >= NAMED_MAX:
            return
        self._named.add(key)
        _log.info(
            f"mdns_{mismatch.value}",
            extra={"values": {"cluster": said.cluster, "peer": said.name}},
        )

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def mdns_interfaces(addresses: Sequence[str]) -> tuple[str, ...]:
    """The own addresses on whose networks to speak: IPv4 if there is any, for it needs no zone."""
    usable = [host for host in addresses if not ipaddress.ip_address(host).is_loopback]
    ipv4 = [host for host in usable if ":" not in host]
    return tuple(ipv4 or usable or [LOOPBACK])


def _base36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits


def _whole_untrusted(text: str, base: int, largest: int) -> int:
    """A whole number of few plain digits; ValueError else."""
    if not text.isalnum() or len(text) > 20:
        raise ValueError(text)
    number = int(text, base)
    if number > largest:
        raise ValueError(text)
    return number


def _reason(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return strerror or str(error) or type(error).__name__


def _nobody_listens(_: Candidate) -> None:
    """Before the start and after the stop."""
