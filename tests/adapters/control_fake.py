"""A control server on a real socket, in a thread of its own, answered by a function."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parkingd.adapters.control import ControlServer
from parkingd.adapters.rundir import ControlLock, control_socket_path
from parkingd.core.gates import Fence
from parkingd.protocol.command_parsing import Backup, Direct, Version
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
    SetMode,
    SetSpaces,
    SetThreshold,
    Track,
    WaitFor,
    Where,
)
from parkingd.protocol.outcomes import (
    CandidateList,
    CandidateRow,
    Change,
    ConditionState,
    ConflictList,
    Decision,
    Digest,
    DigestGroup,
    Entry,
    Exit,
    Failure,
    GateList,
    GateRow,
    ImportResult,
    Left,
    LogPage,
    Lot,
    MemberList,
    MemberRow,
    Outcome,
    RowFailure,
    SettingList,
    SettingRow,
    Status,
    UnmatchedList,
    UnmatchedRow,
    Vehicle,
    VehicleList,
    VehicleRow,
    Wait,
)

REPLICA = 0xAB
NOON_MS = 1_785_585_600_000
NOON = "2026-08-01T12:00:00.000Z"
OWNER_SCORE = 0xFE
GHOST_DOT = (REPLICA, 31)

Answer = Callable[[Command], Iterable[Outcome]]


def vehicle_rows(count: int) -> tuple[VehicleRow, ...]:
    return tuple(
        (f"CAR{number:06d}", NOON_MS + number, number % 4 + 1, "gary", REPLICA, number + 1, False)
        for number in range(count)
    )


class FakeNode:
    """Answers every command like a node with one car, ABC123, inside."""

    def __init__(self) -> None:
        self.seen: list[Command] = []
        self.rows = vehicle_rows(1)
        self.page_rows = 2_000
        self.conflicts: tuple[VehicleRow, ...] = (
            ("TWICE1", NOON_MS, 1, "gary", REPLICA, 3, True),
            ("TWICE1", NOON_MS + 5, 2, "joe", 2, 9, True),
        )
        self.unmatched: tuple[UnmatchedRow, ...] = (
            ("GHOST1", NOON_MS + 9, 2, "gary", *GHOST_DOT, vehicle_rows(2)),
            ("GHOST2", NOON_MS + 8, 2, "gary", REPLICA, 30, ()),
        )
        self.instead: Outcome | None = None
        """Answered whatever is asked."""
        self.silent = False
        self.log_is_empty = False
        self.is_busy = False
        """Too much so to look for plates."""
        self.requests: dict[bytes, int] = {}

    def __call__(self, command: Command) -> Iterable[Outcome]:
        self.seen.append(command)
        if self.silent:
            return ()
        if self.instead is not None:
            return (self.instead,)
        return self._answer(command)

    def _answer(self, command: Command) -> Iterable[Outcome]:  # noqa: C901
        match command:
            case Track(plate=plate, gate=gate):
                if gate > 4:
                    return (Failure("unknown_gate", f"the lot has 4 gates, not {gate}"),)
                return (Entry(plate, gate, (REPLICA, 7), NOON_MS, ("missed_exit",)),)
            case AskToEnter(plate=plate, gate=gate, request=request):
                return (_decide(plate, gate, request),)
            case RecordExit(plate=plate, gate=gate) if plate.startswith("GHOST"):
                return (Exit(plate, gate, "none", None, GHOST_DOT, ("unmatched",)),)
            case RecordExit(plate=plate, gate=gate):
                return (Exit(plate, gate, "exact", 12.5, (REPLICA, 8)),)
            case ReadLot():
                return (_LOT,)
            case ReadVehicles():
                return self._pages()
            case ReadConflicts():
                return (ConflictList(self.conflicts),)
            case ReadUnmatched() if self.is_busy:
                return (Failure("overloaded", "too much to do"),)
            case ReadUnmatched():
                return (UnmatchedList(()), UnmatchedList(self.unmatched))
            case Where(plate=plate):
                rows = tuple(row for row in self.rows if row[0] == plate)
                return (Vehicle(plate, bool(rows), rows),)
            case ReadGates():
                return (_GATES,)
            case ReadMembers():
                return (
                    MemberList(
                        (
                            MemberRow("gary", "alive", REPLICA, 1, None, 0.0, None, 2, "0.1"),
                            MemberRow("joe", "dead", 2, 1, "10.0.0.2:7744", 9.25, 0.4, 0, "0.1"),
                        )
                    ),
                )
            case ReadStatus():
                return (_STATUS,)
            case ReadDigest():
                return (Digest((DigestGroup("c0ffee", ("gary", "mary")),), ("joe",)),)
            case ReadCandidates():
                row = CandidateRow("static", "10.0.0.9:7744", None, "refused", "\x1b[2Jno")
                return (CandidateList((row,)),)
            case SetSpaces() | SetGates() | SetThreshold() | SetMode() | Correct() | Remove():
                return (Change(((REPLICA, 1),), ((REPLICA, 9),), (), "as asked"),)
            case ReadSettings():
                spaces = SettingRow("spaces", 120, 100, "gary", NOON_MS, "fair week")
                full = SettingRow("full", 100, None, None, None, "")
                return (SettingList((spaces, full)),)
            case ForgetMember(name=name):
                if name == "nobody":
                    return (Failure("unknown_member", "no member of that name"),)
                return (Failure("member_alive", f"{name} lives", "stop it first"),)
            case WaitFor(conditions=conditions):
                met = all(each.key != "members" or each.value <= 1 for each in conditions)
                states = tuple(ConditionState(each.key, met, "1") for each in conditions)
                return (Wait(met, states),)
            case ImportRows():
                return (self._import(command),)
            case ReadLog() if self.log_is_empty:
                return (LogPage(()),)
            case ReadLog():
                row = (REPLICA, 1, NOON_MS, "join", None, None, "=1+1")
                other = (REPLICA, 2, NOON_MS, "enter", "ABC123", 1, None)
                return (LogPage((row,)), LogPage((other,)))
            case Leave():
                return (Left(9, "mary"),)

    def _pages(self) -> Iterator[Outcome]:
        for first in range(0, max(len(self.rows), 1), self.page_rows):
            yield VehicleList(self.rows[first : first + self.page_rows])

    def _import(self, command: ImportRows) -> ImportResult:
        fresh = [row for row in command.rows if row.request not in self.requests]
        failed = tuple(RowFailure(row.line, "unknown_gate") for row in fresh if row.gate > 4)
        good = [row for row in fresh if row.gate <= 4]
        self.requests.update((row.request, row.line) for row in good)
        return ImportResult(len(good), len(command.rows) - len(fresh), failed)


def _decide(plate: str, gate: int, request: bytes | None) -> Decision:
    if gate > 4:
        return Decision("denied", "unknown_gate", plate, gate, None, None, 99, request=request)
    fence = Fence(7, OWNER_SCORE, "gary")
    return Decision("admitted", "ok", plate, gate, 7, "gary", 98, fence, request)


_GATES = GateList(
    (
        GateRow(1, "gary", 7, "served", ("gary",)),
        GateRow(2, "gary", 9, "contested", ("gary", "joe")),
        GateRow(3, None, 8, "unowned", ()),
        GateRow(4, "mary", 12, "moving", ("mary",), "gary"),
    )
)
_LOT = Lot("0" * 32, 100, 1, 99, 0, "open", "local", ())
_STATUS = Status(
    replica=REPLICA,
    incarnation=1,
    cluster="default",
    uptime_s=3.5,
    synced=True,
    ready=True,
    root="c0ffee",
    lot=_LOT,
    members=(("alive", 2),),
    gates_total=4,
    gates_owned=(1, 2),
    gates_unowned=(3,),
    gates_contested=(),
    warnings=("clock joe +3600 s",),
    counters=(("control_requests", 1),),
)


class RunningServer:
    """The server, its lock and its loop. Touch ``server`` from other threads only to read."""

    def __init__(self, path: Path, node: FakeNode) -> None:
        self.path = path
        self.node = node
        self._loop = asyncio.new_event_loop()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._lock = ControlLock.acquire(path)
        self._thread.start()
        assert self._bound.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self.server = ControlServer(
            self._loop, self.path, self._on_command, self._on_direct, node="gary"
        )
        self._bound.set()
        self._loop.run_forever()
        self.server.close()
        self._loop.close()
        self._lock.release()

    def _on_command(self, handle: int, command: Command, deadline_ms: int) -> None:
        outcomes = list(self.node(command))
        for outcome in outcomes[:-1]:
            self.server.reply(handle, outcome, last=False)
        if outcomes:
            self.server.reply(handle, outcomes[-1])
        if isinstance(command, Leave):
            self._loop.stop()  # As a daemon does: it answers, ends and lets go of its lock.

    def _on_direct(self, handle: int, direct: Direct) -> None:
        match direct:
            case Version():
                self.server.reply_document(handle, "Version", {"version": "0.1", "wire": 1})
            case Backup(path=path):
                self.server.reply_document(handle, "Backup", {"path": path, "bytes": 4096})

    def on_loop(self, act: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(act)

    def stop(self) -> None:
        if self._thread.is_alive():
            with suppress(RuntimeError):  # It has ended in this moment.
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def running(
    runtime_dir: Path, name: str = "gary", cluster: str = "default"
) -> Iterator[RunningServer]:
    server = RunningServer(control_socket_path(runtime_dir, cluster, name), FakeNode())
    try:
        yield server
    finally:
        server.stop()


def eventually(claim: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.005)
