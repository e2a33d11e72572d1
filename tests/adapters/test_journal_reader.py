"""Who reads the journal: from memory, from the disk, or waiting for what comes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from parkingd.adapters import journal, journal_table
from parkingd.adapters.data_dir import DataDir
from parkingd.adapters.journal import JournalReader, line_document
from parkingd.adapters.store import EphemeralStore, SqliteStore
from parkingd.core.ids import REPLICA_MAX
from parkingd.protocol.command_parsing import LineFilter, ReadJournal
from parkingd.protocol.effects import Occurrence, Persist
from parkingd.protocol.facts import Fact
from parkingd.protocol.outcomes import ErrorCode, Failure

WALL_MS = 1_790_000_000_000
PATIENCE_S = 20.0
RING = 16


def line(seq: int, **rest: Any) -> Occurrence:
    kind = "exited" if seq % 3 == 0 else "entered"
    return Occurrence(seq, WALL_MS + seq, **{"type": kind, "plate": f"CAR{seq % 5}", **rest})


class Desk:
    """A reader over a store, and the answers it has given."""

    def __init__(self, store: SqliteStore | EphemeralStore, last_seq: int = 0) -> None:
        self.store = store
        self.answers: dict[int, dict[str, Any] | Failure] = {}
        self.handles = itertools.count(1)
        self.token = 0
        loop = asyncio.get_running_loop()
        self.reader = JournalReader(loop, lambda: self.store, self, "0a", last_seq)

    def reply(self, handle: int, outcome: Failure) -> None:
        assert handle not in self.answers
        self.answers[handle] = outcome

    def reply_document(self, handle: int, kind: str, body: dict[str, Any]) -> None:
        assert kind == "EventList"
        assert handle not in self.answers
        self.answers[handle] = body

    def happen(self, *lines: Occurrence) -> None:
        """To the disk, then to the reader, as the daemon does."""
        self.token += 1
        self.store.submit(Persist(journal=lines, token=self.token))
        self.reader.told(lines)

    def ask(self, after: int | None, *, limit: int = 1_000, wait_s: int = 0, **asked: Any) -> int:
        handle = next(self.handles)
        self.reader.ask(handle, ReadJournal(after, limit, wait_s, LineFilter(**asked)))
        return handle

    async def answer(self, handle: int) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while handle not in self.answers:
                await asyncio.sleep(0.002)
        found = self.answers[handle]
        assert isinstance(found, dict), found
        return found

    async def read(self, after: int | None, **asked: Any) -> tuple[list[int], int, int]:
        """The numbers, ``next`` and ``missed``."""
        found = await self.answer(self.ask(after, **asked))
        return [item["seq"] for item in found["items"]], found["next"], found["missed"]


@pytest.fixture(autouse=True)
def small_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "RING_LINES", RING)
    monkeypatch.setattr(journal_table, "LINES_READ_MAX", 7)


def on_disk(path: Path, act: Callable[[Desk], Coroutine[None, None, None]]) -> None:
    facts: list[Fact] = []
    data_dir = DataDir.open(path, cluster="c", name="n")
    store, state = SqliteStore.open(data_dir, wall_ms=WALL_MS, on_fact=facts.append)

    async def whole() -> None:
        await act(Desk(store, state.journal_seq))

    try:
        asyncio.run(whole())
    finally:
        store.close(PATIENCE_S)
        data_dir.close()


def in_memory(act: Callable[[Desk], Coroutine[None, None, None]]) -> None:
    async def whole() -> None:
        await act(Desk(EphemeralStore(lambda fact: None)))

    asyncio.run(whole())


FILTERS: list[dict[str, Any]] = [
    {},
    {"limit": 1},
    {"limit": 9},
    {"types": ("exited",)},
    {"plate": "CAR2", "limit": 3},
    {"since_ms": WALL_MS + 11, "until_ms": WALL_MS + 37},
    {"types": ("denied",)},
]


def test_disk_and_memory_give_what_a_look_at_all_lines_gives(tmp_path: Path) -> None:
    lines = [line(seq) for seq in range(1, 41)]

    def expected(after: int, limit: int = 1_000, **asked: Any) -> list[int]:
        types, plate = asked.get("types", ()), asked.get("plate")
        low, high = asked.get("since_ms", 0), asked.get("until_ms", 2**60)
        return [
            each.seq
            for each in lines
            if each.seq > after and low <= each.at_ms < high
            if not types or each.type in types
            if plate in (None, each.plate)
        ][:limit]

    async def act(desk: Desk) -> None:
        for start in range(0, 40, 4):
            desk.happen(*lines[start : start + 4])
        for after in (0, 6, 23, 24, 25, 39, 40):
            for asked in FILTERS:
                found, next_, missed = await desk.read(after, **asked)
                assert found == expected(after, **asked), (after, asked)
                is_cut = len(found) == asked.get("limit")
                assert next_ == (found[-1] if is_cut else 40)
                assert missed == 0

    on_disk(tmp_path / "n", act)


def test_who_waits_is_answered_by_the_first_line_that_it_asked_for(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.happen(line(1))
        new = desk.ask(None, wait_s=30)
        exits = desk.ask(1, wait_s=30, types=("exited",))
        assert (desk.reader.waiting, desk.answers) == (2, {})
        desk.happen(line(2))
        assert desk.answers.keys() == {new}
        desk.happen(line(3), line(4))
        assert desk.answers.keys() == {new, exits}
        found = await desk.answer(exits)
        assert [item["seq"] for item in found["items"]] == [3]
        assert (found["next"], found["last"]) == (4, 4)
        assert desk.reader.waiting == 0

    on_disk(tmp_path / "n", act)


def test_who_waits_in_vain_is_told_how_far_it_has_been_looked_for_it() -> None:
    async def act(desk: Desk) -> None:
        desk.happen(line(1))
        handle = desk.ask(0, wait_s=1, types=("denied",))
        desk.happen(line(2))
        assert not desk.answers
        answer = {"items": [], "next": 2, "missed": 0, "last": 2, "journal": "0a"}
        assert await desk.answer(handle) == answer

    in_memory(act)


def test_a_reader_that_fell_behind_is_told_how_many_lines_it_missed(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.happen(*(line(seq) for seq in range(1, 31)))
        desk.reader.forget(WALL_MS + 11)
        desk.store.submit(Persist(journal_before=WALL_MS + 11, token=2))
        assert await desk.read(4, limit=2) == ([11, 12], 12, 6)
        assert await desk.read(10, limit=2) == ([11, 12], 12, 0)
        desk.reader.forget(WALL_MS + 99)
        desk.store.submit(Persist(journal_before=WALL_MS + 99, token=3))
        assert await desk.read(4) == ([], 30, 26)
        assert await desk.read(30) == ([], 30, 0)

    on_disk(tmp_path / "n", act)


def test_what_keeps_nothing_on_disk_misses_what_memory_has_lost() -> None:
    async def act(desk: Desk) -> None:
        desk.happen(*(line(seq) for seq in range(1, 31)))
        found, next_, missed = await desk.read(4)
        assert (found, next_, missed) == (list(range(15, 31)), 30, 10)

    in_memory(act)


def test_a_line_that_is_too_old_is_not_told_wherever_it_stands_in_memory() -> None:
    async def act(desk: Desk) -> None:
        desk.happen(line(1), line(2), Occurrence(3, 5, "entered"), line(4))
        desk.reader.forget(WALL_MS + 2)
        assert (await desk.read(0))[0] == [2, 4]

    in_memory(act)


def test_after_a_restart_the_reader_goes_on_from_the_disk(tmp_path: Path) -> None:
    async def before(desk: Desk) -> None:
        desk.happen(*(line(seq) for seq in range(1, 6)))

    async def after(desk: Desk) -> None:
        assert await desk.read(None) == ([], 5, 0)
        desk.happen(line(6))
        assert await desk.read(3) == ([4, 5, 6], 6, 0)

    on_disk(tmp_path / "n", before)
    on_disk(tmp_path / "n", after)


def test_numbers_that_began_anew_are_read_from_the_first() -> None:
    async def act(desk: Desk) -> None:
        desk.happen(line(1))
        found = await desk.answer(desk.ask(900, wait_s=30))
        assert found == {"items": [], "next": 0, "missed": 0, "last": 1, "journal": "0a"}

    in_memory(act)


def test_no_more_wait_than_may_and_all_are_answered_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "WAITING_MAX", 3)

    async def act(desk: Desk) -> None:
        handles = [desk.ask(None, wait_s=30) for _ in range(4)]
        refused = desk.answers[handles[3]]
        assert isinstance(refused, Failure)
        assert refused.code == ErrorCode.OVERLOADED
        desk.reader.close()
        assert desk.answers.keys() == set(handles)
        assert desk.reader.waiting == 0

    in_memory(act)


def test_a_store_that_was_closed_while_it_was_asked_is_asked_again_in_its_successor(
    tmp_path: Path,
) -> None:
    async def act(desk: Desk) -> None:
        desk.happen(*(line(seq) for seq in range(1, 31)))
        first = desk.store
        assert isinstance(first, SqliteStore)
        assert first.close(PATIENCE_S)
        handle = desk.ask(0, limit=3)
        data_dir = DataDir.open(tmp_path / "other", cluster="c", name="n")
        desk.store, _ = SqliteStore.open(data_dir, wall_ms=WALL_MS, on_fact=lambda fact: None)
        desk.store.submit(Persist(journal=tuple(map(line, range(1, 31))), token=1))
        desk.reader.start_over()
        found = await desk.answer(handle)
        assert [item["seq"] for item in found["items"]] == [1, 2, 3]
        assert desk.store.close(PATIENCE_S)
        data_dir.close()

    on_disk(tmp_path / "n", act)


def test_an_event_as_scripts_see_it_has_what_it_has_and_nothing_else() -> None:
    assert line_document(Occurrence(1, 0, "overbooking_ended")) == {
        "seq": 1,
        "time": "1970-01-01T00:00:00.000Z",
        "type": "overbooking_ended",
    }
    whole = Occurrence(
        *(7, 86_399_999, "exited", "KA1", 2, "gary", REPLICA_MAX, 9, "why", bytes(16)),
        (("matched", "exact"), ("stay_s", None), ("claims", ("a", "b"))),
    )
    assert line_document(whole) == {
        "seq": 7,
        "time": "1970-01-01T23:59:59.999Z",
        "type": "exited",
        "plate": "KA1",
        "gate": 2,
        "member": "gary",
        "replica": "f" * 16,
        "dot": ["f" * 16, 9],
        "reason": "why",
        "request": "0" * 32,
        "matched": "exact",
        "claims": ("a", "b"),
    }
