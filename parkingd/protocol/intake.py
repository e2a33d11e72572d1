"""The intake: requests on their way to the desk, the reports and the rest of the node.

A request is performed at once, or waits until the node may: writes wait until this replica may
mint, reads until there is a lot, everything while a snapshot is being joined. Who has waited
until the deadline is told `not_ready`, and that nothing was recorded. Long answers go page by
page, one a turn of the loop, so that none holds up the heartbeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias, assert_never

from parkingd.core.ids import Now
from parkingd.protocol.changing import Changing
from parkingd.protocol.commands import (
    AskToEnter,
    Command,
    Correct,
    ForgetMember,
    ImportRows,
    Leave,
    ReadCandidates,
    ReadConflicts,
    ReadDigest,
    ReadGates,
    ReadLog,
    ReadLot,
    ReadMembers,
    ReadSettings,
    ReadStatus,
    ReadUnmatched,
    ReadVehicles,
    RecordExit,
    Remove,
    SetGates,
    SetLot,
    SetMode,
    SetSpaces,
    SetThreshold,
    Track,
    WaitFor,
    Where,
)
from parkingd.protocol.desk import Desk
from parkingd.protocol.forgetting import Fences
from parkingd.protocol.leaving import Leaving
from parkingd.protocol.outbox import storage_failure
from parkingd.protocol.outcomes import (
    ConflictList,
    Failure,
    GateList,
    LogPage,
    Outcome,
    UnmatchedList,
    VehicleList,
)
from parkingd.protocol.outcomes import ErrorCode as Code
from parkingd.protocol.repairs import Repairs
from parkingd.protocol.reports import Reports
from parkingd.protocol.roots import Roots
from parkingd.protocol.shared import Shared
from parkingd.protocol.snapshots import Snapshots

WAITING_MAX: Final = 1_024
"""Requests that wait for the node to be ready; more are refused at once."""

RETRY_MS: Final = 100
"""How often waiting requests are looked at when nothing else happens."""

Page: TypeAlias = VehicleList | LogPage | ConflictList | UnmatchedList
Minting: TypeAlias = Track | RecordExit | SetLot | Correct | Remove | ImportRows | ForgetMember


class Intake:
    """Requests of one node that are about the lot."""

    def __init__(
        self,
        shared: Shared,
        *,
        fences: Fences,
        leaving: Leaving,
        reports: Reports,
        roots: Roots,
        snapshots: Snapshots,
        may_mint: Callable[[Now], bool],
    ) -> None:
        self._shared = shared
        self._desk = Desk(shared)
        self._changing = Changing(shared)
        self._fences = fences
        self._leaving = leaving
        self._reports = reports
        self._repairs = Repairs(shared, reports)
        self._roots = roots
        self._snapshots = snapshots
        self._may_mint = may_mint
        self.waiting: list[tuple[int, Command, int]] = []
        """Not begun yet, with their deadlines; read only."""
        self.pages: list[tuple[int, Iterator[Page], Page]] = []
        """Long answers under way; read only."""

    def take(self, handle: int, command: Command, deadline_ms: int, now: Now) -> None:
        """Perform it, or let it wait; ``deadline_ms`` is monotonic."""
        if self._can_perform(command, now):
            self._perform(handle, command, now)
        elif len(self.waiting) >= WAITING_MAX:
            failure = Failure(Code.OVERLOADED, "too many requests wait for this node", "try later")
            self._shared.outbox.reply(handle, failure)
        else:
            self.waiting.append((handle, command, deadline_ms))

    def retry(self, now: Now) -> None:
        """Look at the waiting requests again. After its deadline none is performed, as by a node
        that stood still: a car that left a minute ago may be back by now."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        for handle, command, deadline_ms in waiting:
            if now.mono_ms >= deadline_ms:
                self._shared.outbox.reply(handle, self._not_ready())
            elif self._can_perform(command, now):
                self._perform(handle, command, now)
            else:
                self.waiting.append((handle, command, deadline_ms))

    def unanswered(self) -> list[tuple[int, Command, int]]:
        """Requests that have waited in vain, for another node to take; with their deadlines."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def _can_perform(self, command: Command, now: Now) -> bool:
        if self._snapshots.is_joining:
            return False
        replica = self._shared.replica
        if isinstance(command, Minting):
            if self._leaving.is_leaving or replica.failing:
                return True  # It is refused at once.
            return self._may_mint(now) and not replica.pending
        return self._shared.has_lot

    def _perform(self, handle: int, command: Command, now: Now) -> None:
        replies = self._shared.replies
        match command:
            case Track() | RecordExit() | Correct() | Remove() | ImportRows():
                replies.answer(handle, self._refusal() or self._desk.perform(command, now))
            case SetSpaces() | SetGates() | SetThreshold() | SetMode():
                replies.answer(handle, self._refusal() or self._changing.perform(command, now))
            case ForgetMember():
                outcome = self._refusal() or self._fences.forget(handle, command.name, now)
                if outcome is not None:
                    replies.answer(handle, outcome)
            case ReadLot() | Where() | ReadGates() | ReadSettings():
                replies.answer(handle, self._read(command, now), is_read=True)
            case ReadVehicles() | ReadConflicts() | ReadUnmatched() | ReadLog():
                self._begin_pages(handle, self._pages_of(command))
            case ReadDigest():
                self._roots.ask(handle, now)
            case (
                ReadStatus() | ReadMembers() | ReadCandidates() | WaitFor() | Leave() | AskToEnter()
            ):
                raise AssertionError("the node answers these itself")
            case _:
                assert_never(command)

    def _read(self, command: ReadLot | Where | ReadGates | ReadSettings, now: Now) -> Outcome:
        match command:
            case ReadLot():
                return self._reports.lot()
            case Where(plate=plate):
                return self._reports.vehicle(plate)
            case ReadGates():
                return GateList(self._reports.gates(now))
            case ReadSettings():
                return self._changing.settings()

    def _refusal(self) -> Failure | None:
        if self._leaving.is_leaving:
            return Failure(Code.DRAINING, "this node is leaving", "ask another node")
        if self._shared.replica.failing:
            return storage_failure(recorded=False)
        return None

    def _not_ready(self) -> Failure:
        if self._shared.lot is None:
            why = "no lot yet: this node still looks for others"
        elif self._snapshots.is_receiving:
            why = "this node is still taking over the record of the others"
        else:
            why = "this node waits for a member that knows it"
        return Failure(Code.NOT_READY, why, "see `parkingd-ctl status`; nothing was recorded")

    # --- pages ---------------------------------------------------------------------------

    def _pages_of(
        self, command: ReadVehicles | ReadConflicts | ReadUnmatched | ReadLog
    ) -> Iterator[Page]:
        match command:
            case ReadVehicles():
                return self._reports.vehicle_pages()
            case ReadConflicts():
                return self._repairs.conflict_pages()
            case ReadUnmatched():
                return self._repairs.unmatched_pages(command.dot)
            case ReadLog():
                return self._reports.log_pages()

    def _begin_pages(self, handle: int, pages: Iterator[Page]) -> None:
        self.pages.append((handle, pages, next(pages)))

    def _may_page(self) -> bool:
        replica = self._shared.replica
        return replica.durable_seq >= replica.own_seq or replica.failing

    def send_pages(self) -> None:
        """One page of every long answer."""
        if not self.pages or not self._may_page():
            return
        going_on: list[tuple[int, Iterator[Page], Page]] = []
        for handle, pages, page in self.pages:
            following = next(pages, None)
            self._shared.outbox.reply(handle, page, last=following is None)
            if following is not None:
                going_on.append((handle, pages, following))
        self.pages = going_on

    def next_deadline(self, now_ms: int) -> int | None:
        """When to look again, monotonic milliseconds."""
        if self.pages and self._may_page():
            return now_ms
        if self.waiting:
            return min(now_ms + RETRY_MS, *(deadline_ms for _, _, deadline_ms in self.waiting))
        return None
