"""Nodes that a name server knows: ``--srv NAME``, the SRV records of a service.

How it works. The name is asked for at the start, every 2 s while no member is alive, and every
10 s after that, each time a little sooner or later, because daemons that start together should not
ask together. Every address behind every target is proposed; that two lead to one node shows when
they are greeted. A look-up runs in a daemon thread of its own, one at a time, and whoever waits
for it waits for a bounded time.

Invariants: a failed, empty or useless answer withdraws nothing; an address is withdrawn when
several good answers in a row did not contain it, and not while the addresses of its target cannot
be looked up; an answer is untrusted (bounded in targets and addresses, and only what can be
dialled is proposed); nothing here raises for what a name server says: what failed is reported as
`LookUp`, at every failure anew, and goes when it has been answered.

Source: DESIGN section 10; RFC 2782.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from parkingd.adapters.discovery.addresses import dialable
from parkingd.adapters.discovery.resolver import ROUND_S, Answer, Target, Trouble
from parkingd.protocol.facts import Candidate, Finding, LookUp
from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address

ALONE_INTERVAL_S: Final = 2.0
"""Half: twice the queries of every node that starts. Double: found that much later."""
INTERVAL_S: Final = 10.0
"""Members tell each other where the others are: this is for the one that nobody knows."""
JITTER: Final = 0.2
"""Of an interval, either way."""
ROUND_WAIT_S: Final = ROUND_S + 1.0
"""A look-up takes longer than it may only while a long answer is taken apart."""
WITHDRAW_AFTER: Final = 6
"""Good answers in a row without an address: name servers may answer with some of them in turn."""
ADDRESSES_PER_TARGET_MAX: Final = 8

Ask = Callable[[], Answer | Trouble]
"""One look-up; blocks."""

_log = logging.getLogger("parkingd.discovery.srv")


@dataclass(slots=True)
class _Proposal:
    target: tuple[str, int]
    """Host and port that led to it last."""
    candidate: Candidate
    absences: int = 0
    """Good answers since one contained it."""


class SrvSource:
    """Asks for the records of one service, again and again, and proposes what they lead to."""

    name: Final = "srv"

    def __init__(self, service: str, ask: Ask, is_alone: Callable[[], bool]) -> None:
        """``is_alone``: whether no member is alive, so that the next answer is waited for."""
        self._service = service
        self._ask = ask
        self._is_alone = is_alone
        self._proposals: dict[Address, _Proposal] = {}
        self._failures: dict[str, LookUp] = {}
        self._state = ""
        self._found: Callable[[Finding], None] = _nobody_listens
        self._pending: asyncio.Future[Answer | Trouble] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, found: Callable[[Finding], None]) -> None:
        """Ask once, 6 s at most, and go on in the background."""
        self._found = found
        await self._round()
        self._task = asyncio.get_running_loop().create_task(self._keep_asking(), name="srv")

    async def stop(self) -> None:
        """Stop asking; a look-up under way is left to its thread."""
        self._found = _nobody_listens
        if self._pending is not None:
            self._pending.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)
            self._task = None

    async def _keep_asking(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + about(INTERVAL_S)
            while True:
                await asyncio.sleep(about(ALONE_INTERVAL_S))
                if self._is_alone() or loop.time() >= due_s:
                    break
            await self._round()

    async def _round(self) -> None:
        """Ask, unless that is being done already, and wait for the answer."""
        if self._pending is None:
            self._pending = self._begin()
        await asyncio.wait({self._pending}, timeout=ROUND_WAIT_S)
        if self._pending is not None:
            late = f"no answer within {ROUND_WAIT_S:.0f} s, still waiting"
            self._failed(Trouble(self._service, "timeout", late))

    def _begin(self) -> asyncio.Future[Answer | Trouble]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer | Trouble] = loop.create_future()
        answer.add_done_callback(self._answered)
        threading.Thread(
            target=_look_up, args=(self._ask, loop, answer), name="srv look-up", daemon=True
        ).start()
        return answer

    def _answered(self, future: asyncio.Future[Answer | Trouble]) -> None:
        self._pending = None
        if future.cancelled():
            return
        match future.result():
            case Trouble() as trouble:
                self._failed(trouble)
            case Answer() as answer:
                self._heard(answer)

    def _failed(self, trouble: Trouble, others: Sequence[Trouble] = ()) -> None:
        """No answer, or none of use: everything that was proposed stays."""
        self._show([trouble, *others])
        if self._note(trouble.state):
            values = {"service": self._service, "state": trouble.state, "reason": trouble.detail}
            _log.warning("srv_failed", extra={"values": values, "limit_key": trouble.state})

    def _heard(self, answer: Answer) -> None:
        """What the name server says: troubles are shown, addresses proposed and withdrawn."""
        proposals: dict[Address, _Proposal] = {}
        troubles: list[Trouble] = []
        for target in answer.targets:
            match self._usable(target):
                case Trouble() as trouble:
                    troubles.append(trouble)
                case candidates:
                    where = (target.host, target.port)
                    for candidate in candidates:
                        proposals.setdefault(candidate.address, _Proposal(where, candidate))
        if not proposals:
            what = f"asked {answer.servers}: of {answer.named} targets none can be dialled"
            self._failed(Trouble(self._service, "unusable", what), troubles)
            return
        if answer.named > len(answer.targets):
            what = f"{answer.named} targets, of which {len(answer.targets)} are used"
            troubles.insert(0, Trouble(self._service, "too_many", what))
        self._show(troubles)
        if self._note("answered"):
            values = {"service": self._service, "addresses": len(proposals)}
            _log.info("srv_answered", extra={"values": values, "limit_key": "answered"})
        unknown = {(t.host, t.port) for t in answer.targets if isinstance(t.found, Trouble)}
        self._withdraw(proposals, unknown)
        self._propose(proposals)

    def _withdraw(self, proposals: dict[Address, _Proposal], unknown: set[tuple[str, int]]) -> None:
        """Drop what good answers have not contained for long. ``unknown``: targets of which it
        cannot be told this time."""
        for address, known in list(self._proposals.items()):
            if address in proposals or known.target in unknown:
                continue
            known.absences += 1
            if known.absences >= WITHDRAW_AFTER:
                del self._proposals[address]
                self._found(Candidate(address, self.name, gone=True))

    def _propose(self, proposals: dict[Address, _Proposal]) -> None:
        for address, proposal in proposals.items():
            known = self._proposals.get(address)
            if known is None and len(self._proposals) >= CANDIDATES_MAX:
                continue
            self._proposals[address] = proposal
            if known is None or known.candidate != proposal.candidate:
                self._found(proposal.candidate)

    def _usable(self, target: Target) -> list[Candidate] | Trouble:
        """What one target proposes, or why nothing."""
        if isinstance(target.found, Trouble):
            return target.found
        where = f"{target.host}:{target.port}"
        detail = f"SRV {self._service} -> {where}"
        hosts = [host for host in dict.fromkeys(target.found) if dialable(host)]
        if not hosts:
            shown = ", ".join(target.found[:ADDRESSES_PER_TARGET_MAX])
            return Trouble(where, "unusable", f"it leads to {shown}, where nobody can be")
        return [
            Candidate(Address(host, target.port), self.name, detail=detail)
            for host in hosts[:ADDRESSES_PER_TARGET_MAX]
        ]

    def _show(self, troubles: Sequence[Trouble]) -> None:
        """Report what failed now, and take back what failed before."""
        failures = {
            trouble.question: LookUp(self.name, trouble.question, trouble.state, trouble.detail)
            for trouble in troubles
        }
        for question, before in self._failures.items():
            if question not in failures:
                self._found(LookUp(self.name, question, before.state, before.detail, gone=True))
        self._failures = failures
        for failure in failures.values():
            self._found(failure)

    def _note(self, state: str) -> bool:
        """Whether this is new, and worth a line in the log."""
        is_new, self._state = state != self._state, state
        return is_new


def about(interval_s: float) -> float:
    """The interval, give or take `JITTER`."""
    return interval_s * random.uniform(1 - JITTER, 1 + JITTER)


def _look_up(
    ask: Ask, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Answer | Trouble]
) -> None:
    """In the look-up's own thread: hand the answer to the loop, if that still runs."""
    result = ask()

    def deliver() -> None:
        if not answer.done():
            answer.set_result(result)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        return  # the daemon has stopped meanwhile


def _nobody_listens(_: Finding) -> None:
    """Before the start and after the stop."""
