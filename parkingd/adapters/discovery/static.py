"""Peers that somebody named: ``--peer host:port``.

How it works. Every peer is looked up at the start and every 5 s after it, and each address that
comes back is proposed. A name server may hang far longer than a daemon may take to stop, so that
each look-up runs in a daemon thread of its own, one per peer at a time, and whoever waits for it
waits for a bounded time.

Invariants: a failed or empty answer withdraws nothing; an address is withdrawn only when a minute
of good answers did not contain it (a name that answers with some of its addresses in turn must
not make them flap); nothing here raises for a name that cannot be resolved: that is reported as a
`LookUp`, for `discover`, and logged when it is new.

Source: DESIGN section 10.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from parkingd.adapters.discovery.addresses import dialable, is_ip_address
from parkingd.protocol.facts import Candidate, Finding, LookUp
from parkingd.protocol.messages import Address

INTERVAL_S: Final = 5.0
"""Half: twice the queries. Double: a peer whose address changed is found that much later."""
FIRST_ROUND_S: Final = 2.0
WITHDRAW_AFTER: Final = 12
"""Good answers in a row without an address: one minute."""
ADDRESSES_PER_PEER_MAX: Final = 32

_UNKNOWN: Final = (socket.EAI_NONAME, socket.EAI_NODATA)
"""Errors of getaddrinfo: there is no such name, or it has no address."""

_log = logging.getLogger(__name__)

Lookup = Callable[[str, int], list[str]]
"""Host and port to IP addresses; blocks; raises OSError or UnicodeError."""


@dataclass(slots=True)
class _Peer:
    asked: Address
    """As the operator wrote it: the host may be a name."""
    absences: dict[Address, int] = field(default_factory=dict)
    """Proposed address -> good answers since one contained it."""
    pending: asyncio.Future[list[str]] | None = None
    failure: LookUp | None = None
    """Why the last question brought no address."""


def system_lookup(host: str, port: int) -> list[str]:
    """What the system's resolver says, link-local addresses with their zone."""
    hosts: dict[str, None] = {}
    for _, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = str(where[0])
        zone = where[3] if len(where) == 4 else 0
        hosts[f"{found}%{zone}" if zone and "%" not in found else found] = None
    return list(hosts)


class StaticSource:
    """Looks named peers up, again and again, and proposes their addresses."""

    name: Final = "static"

    def __init__(self, peers: Sequence[Address], lookup: Lookup = system_lookup) -> None:
        """``peers`` as configured: host a name or an IP address, port 1-65535."""
        self._peers = [_Peer(peer) for peer in dict.fromkeys(peers)]
        self._lookup = lookup
        self._found: Callable[[Finding], None] = _nobody_listens
        self._task: asyncio.Task[None] | None = None

    async def start(self, found: Callable[[Finding], None]) -> None:
        """Look every peer up once, 2 s at most, and go on in the background."""
        self._found = found
        await self._round(FIRST_ROUND_S)
        self._task = asyncio.get_running_loop().create_task(self._keep_looking(), name="static")

    async def stop(self) -> None:
        """Stop looking; a look-up under way is left to its thread."""
        self._found = _nobody_listens
        for peer in self._peers:
            if peer.pending is not None:
                peer.pending.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)
            self._task = None

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._round(INTERVAL_S)

    async def _round(self, wait_s: float) -> None:
        """Ask for every peer that is not being asked for already, and wait for the answers."""
        waiting: set[asyncio.Future[list[str]]] = set()
        for peer in self._peers:
            if is_ip_address(peer.asked.host):
                self._heard(peer, [peer.asked.host])
            elif peer.pending is None:
                waiting.add(self._ask(peer))
        if not waiting:
            return
        _, unanswered = await asyncio.wait(waiting, timeout=wait_s)
        for peer in self._peers:
            if peer.pending in unanswered:
                self._failed(peer, "timeout", f"no answer from the resolver within {wait_s:.0f} s")

    def _ask(self, peer: _Peer) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        peer.pending = answer
        answer.add_done_callback(lambda _: self._answered(peer, answer))
        threading.Thread(
            target=_look_up,
            args=(self._lookup, peer.asked, loop, answer),
            name=f"lookup {peer.asked.host}",
            daemon=True,
        ).start()
        return answer

    def _answered(self, peer: _Peer, answer: asyncio.Future[list[str]]) -> None:
        peer.pending = None
        if answer.cancelled():
            return
        match answer.exception():
            case None:
                self._heard(peer, answer.result())
            case error:
                reason = getattr(error, "strerror", None) or str(error)
                is_unknown = getattr(error, "errno", None) in _UNKNOWN
                state = "unknown_name" if is_unknown else "failed"
                self._failed(peer, state, f"the resolver of this system says: {reason}")

    def _failed(self, peer: _Peer, state: str, detail: str) -> None:
        """No address, or none of use: everything that was proposed stays."""
        before, peer.failure = peer.failure, LookUp(self.name, str(peer.asked), state, detail)
        self._found(peer.failure)
        if before is None or before.state != state:
            values = {"peer": str(peer.asked), "state": state, "reason": detail}
            _log.warning("peer_failed", extra={"values": values})

    def _heard(self, peer: _Peer, hosts: Sequence[str]) -> None:
        """A good answer: propose what is new, withdraw what has long been missing."""
        addresses = [Address(host, peer.asked.port) for host in hosts if dialable(host)]
        if not addresses:
            shown = ", ".join(hosts[:ADDRESSES_PER_PEER_MAX]) or "no address"
            self._failed(peer, "unusable", f"it leads to {shown}, where nobody can be")
            return
        if peer.failure is not None:
            self._found(replace(peer.failure, gone=True))
            _log.info("peer_answered", extra={"values": {"peer": str(peer.asked)}})
            peer.failure = None
        for address in list(peer.absences):
            peer.absences[address] += 1
            if address not in addresses and peer.absences[address] >= WITHDRAW_AFTER:
                del peer.absences[address]
                if not any(address in other.absences for other in self._peers):
                    self._found(Candidate(address, self.name, gone=True))
        for address in addresses:
            if address in peer.absences:
                peer.absences[address] = 0
            elif len(peer.absences) < ADDRESSES_PER_PEER_MAX:
                peer.absences[address] = 0
                self._found(Candidate(address, self.name))


def _look_up(
    lookup: Lookup,
    asked: Address,
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[list[str]],
) -> None:
    """In the look-up's own thread: hand the answer to the loop, if that still runs."""
    hosts: list[str] = []
    failure: OSError | UnicodeError | None = None
    try:
        hosts = lookup(asked.host, asked.port)
    except (OSError, UnicodeError) as error:
        failure = error

    def deliver() -> None:
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(hosts)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        return  # the daemon has stopped meanwhile


def _nobody_listens(_: Finding) -> None:
    """Before the start and after the stop."""
