"""Effects in the making, and the replies that wait for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from parkingd.protocol.effects import (
    Effects,
    Level,
    Notice,
    Occurrence,
    Outgoing,
    Persist,
    Publish,
    Reply,
    Send,
    StartOver,
    Stop,
)
from parkingd.protocol.messages import Address, Message, Route
from parkingd.protocol.outcomes import (
    Decision,
    Entry,
    ErrorCode,
    Exit,
    Failure,
    ImportResult,
    Lot,
    Outcome,
    Vehicle,
)
from parkingd.protocol.replica import Replica

STORAGE_WARNING = "the disk is failing: what this shows may not be on disk yet"


NOTHING: Final = Effects()

_RECORDED: Final = (Entry, Exit, ImportResult, Decision)
"""Answers to what is an event by now, though not on disk."""


class Outbox:
    """Effects in the making."""

    def __init__(self) -> None:
        self.outgoing: list[Outgoing] = []
        self.replies: list[Reply] = []
        self.notices: list[Notice] = []
        self.occurrences: list[Occurrence] = []
        self.end: StartOver | Stop | None = None

    def send(self, to: Address | Route, message: Message) -> None:
        """To one peer."""
        self.outgoing.append(Send(to, message))

    def publish(self, message: Message) -> None:
        """To all subscribers."""
        self.outgoing.append(Publish(message))

    def reply(self, handle: int, outcome: Outcome, *, last: bool = True) -> None:
        """To the client that submitted ``handle``."""
        self.replies.append(Reply(handle, outcome, last))

    def notice(self, level: Level, event: str, **values: object) -> None:
        """For the log."""
        self.notices.append(Notice(level, event, tuple(values.items())))

    def take(self, batch: Persist | None) -> Effects:
        """Everything so far, and the batch that has to be on its way to the disk first."""
        outgoing, rest = self.outgoing, self.replies or self.notices or self.occurrences
        if not (batch or outgoing or rest or self.end):
            return NOTHING
        persist = (batch,) if batch is not None else ()
        if outgoing:
            self.outgoing = []
        if not rest:
            return Effects(persist, tuple(outgoing), end=self.end)
        replies, notices, occurrences = self.replies, self.notices, self.occurrences
        self.replies, self.notices, self.occurrences = [], [], []
        return Effects(
            persist,
            tuple(outgoing),
            tuple(replies),
            tuple(notices),
            tuple(occurrences),
            self.end,
        )


class Replies:
    """Answers that depend on own events are held until the disk has them.

    A failed commit is not rolled back: the events stay, and are retried. Who waits for them hears
    `storage_failed` (outcome unknown, safe to repeat with the same request id); reads go on, with
    a warning.
    """

    def __init__(self, replica: Replica, outbox: Outbox) -> None:
        self._replica = replica
        self._outbox = outbox
        self._held: deque[tuple[int, Callable[[Outcome], None], Outcome, bool]] = deque()

    def answer(self, handle: int, outcome: Outcome, *, is_read: bool = False) -> None:
        """Reply as soon as the disk has what it depends on."""
        self.when_durable(outcome, partial(self._outbox.reply, handle), is_read=is_read)

    def when_durable(
        self, outcome: Outcome, deliver: Callable[[Outcome], None], *, is_read: bool = False
    ) -> None:
        """Deliver it as soon as the disk has what it depends on, or a failure instead.

        A read depends on own events only. An answer to a write depends on everything: a repeated
        request is answered with what another node recorded, which must be on *this* disk then.
        """
        replica = self._replica
        covered = replica.durable_seq >= replica.own_seq if is_read else replica.is_settled
        if covered:
            deliver(outcome)
        elif replica.failing:
            deliver(_while_failing(outcome, is_read=is_read))
        else:
            self._held.append((replica.covering_token, deliver, outcome, is_read))

    def release(self) -> None:
        """The disk has moved on."""
        while self._held and self._held[0][0] <= self._replica.durable_token:
            _, deliver, outcome, _ = self._held.popleft()
            deliver(outcome)

    def fail(self) -> None:
        """A commit has failed: nobody waits for it any longer."""
        while self._held:
            _, deliver, outcome, is_read = self._held.popleft()
            deliver(_while_failing(outcome, is_read=is_read))


def _while_failing(outcome: Outcome, *, is_read: bool) -> Outcome:
    if is_read:
        if isinstance(outcome, Lot | Vehicle) and STORAGE_WARNING not in outcome.warnings:
            return replace(outcome, warnings=(*outcome.warnings, STORAGE_WARNING))
        return outcome
    if isinstance(outcome, Failure):
        return outcome
    assert not isinstance(outcome, Lot)
    return storage_failure(recorded=isinstance(outcome, _RECORDED))


def storage_failure(*, recorded: bool) -> Failure:
    """The disk does not take anything."""
    reason = "the disk of this node is failing"
    if recorded:
        reason += ": this will be recorded if it recovers"
    else:
        reason += ": nothing was recorded"
    hint = "repeat it with the same --request-id, here or on another node"
    return Failure(ErrorCode.STORAGE_FAILED, reason, hint)
