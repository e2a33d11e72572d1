"""The ops port as the daemon sees it: one object that is told what passes, and answers clients.

How it works. A route asks the node by the same commands as a client of the control socket, under
handles below zero, and awaits the reply that the daemon hands back when it executes the node's
effects. So an answer over HTTP has gone the whole way through the loop and the node.

Whoever imports this module has called `extra.require_extra`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from parkingd.adapters.ops.http import HttpServer
from parkingd.adapters.ops.routes import OutcomeT, Routes, Unanswered, not_answered
from parkingd.adapters.ops.sight import Inside, Sight, clock_offsets_s
from parkingd.adapters.ops.tally import Tally
from parkingd.protocol.commands import (
    Command,
    ReadCandidates,
    ReadGates,
    ReadMembers,
    ReadStatus,
)
from parkingd.protocol.effects import Reply
from parkingd.protocol.messages import Address
from parkingd.protocol.outcomes import CandidateList, Failure, GateList, MemberList, Outcome, Status

FIRST_HANDLE: Final = -1_000
"""The handles of questions go down from here; those above belong to the daemon itself."""

QUESTION_MS: Final = 1_000
"""A node that cannot answer for now says so after this time: probes wait one or two seconds."""

ANSWER_S: Final = 1.5
"""A read may wait for the disk; after this time the client hears that there was no answer."""


class OpsService:
    """Binds at once; ConfigError when that cannot be done."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        submit: Callable[[int, Command, int], None],
        inside: Callable[[], Inside],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """``submit(handle, command, deadline_ms)`` asks the node; ``ended`` hears of every task."""
        self.node = name
        self.tally = Tally()
        self.inside = inside
        self._submit = submit
        self._questions: dict[int, asyncio.Future[Outcome]] = {}
        self._next_handle = FIRST_HANDLE
        self._server = HttpServer(address, Routes(self).answer, ended)
        self.address = Address(address.host, self._server.port)
        """Where it listens; the port is never 0."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer from now on."""
        self._server.start(loop)

    async def stop(self) -> None:
        """Drop every client; the port is free afterwards."""
        await self._server.stop()

    def is_asked(self, handle: int) -> bool:
        """Whether a reply with this handle is for this service."""
        return handle <= FIRST_HANDLE

    def reply(self, reply: Reply) -> None:
        """The node's answer. Nobody may wait for it any more."""
        question = self._questions.pop(reply.handle, None)
        if question is not None and not question.done():
            question.set_result(reply.outcome)

    async def ask(self, command: Command, kind: type[OutcomeT]) -> OutcomeT:
        """One answer of the node. Raises Unanswered."""
        outcome = await self._ask(command)
        if isinstance(outcome, Failure):
            raise Unanswered(outcome)
        assert isinstance(outcome, kind), outcome
        return outcome

    async def _ask(self, command: Command) -> Outcome:
        handle = self._next_handle
        self._next_handle -= 1
        question: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._questions[handle] = question
        try:
            self._submit(handle, command, QUESTION_MS)
            async with asyncio.timeout(ANSWER_S):
                return await question
        except TimeoutError:
            return not_answered(ANSWER_S)
        finally:
            self._questions.pop(handle, None)

    async def look(self) -> Sight:
        """All that the metrics show. Raises Unanswered."""
        status = await self.ask(ReadStatus(), Status)
        members = await self.ask(ReadMembers(), MemberList)
        candidates = await self.ask(ReadCandidates(), CandidateList)
        gates = await self._ask(ReadGates()) if status.lot is not None else None
        inside = self.inside()
        node = inside.node
        return Sight(
            status=status,
            members=members.items,
            gates=gates.items if isinstance(gates, GateList) else (),
            candidates=candidates.items,
            clock_offsets_s=clock_offsets_s(inside),
            exit_marks=node.state.stays.mark_count,
            log_unsaved=node.own_seq - node.durable_seq,
            inside=inside,
            tally=self.tally,
        )
