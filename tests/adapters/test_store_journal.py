"""The journal on real files: what was written comes back, and what is too old goes."""

from __future__ import annotations

import queue
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from parkingd.adapters import journal_table
from parkingd.adapters.data_dir import DataDir
from parkingd.adapters.database import Database
from parkingd.adapters.journal_table import LineQuery, LineSlice
from parkingd.adapters.store import SqliteStore
from parkingd.adapters.succession import begin_again
from parkingd.errors import StorageError
from parkingd.protocol.command_parsing import LineFilter
from parkingd.protocol.effects import Occurrence, Persist, StartOver, StartOverReason
from parkingd.protocol.facts import Fact, Persisted

WALL_MS = 1_790_000_000_000
PATIENCE_S = 20.0
FORMAT_1 = Path(__file__).parents[1] / "golden/database-1.sql"
GREAT = 2**64 - 2
"""A replica id that does not fit a signed integer."""


class Node:
    """A data directory and its open store."""

    def __init__(self, path: Path) -> None:
        self.facts: queue.SimpleQueue[Fact] = queue.SimpleQueue()
        self.data_dir = DataDir.open(path, cluster="c", name="n")
        self.store, self.state = SqliteStore.open(
            self.data_dir, wall_ms=WALL_MS, on_fact=self.facts.put
        )

    def commit(self, batch: Persist) -> None:
        self.store.submit(batch)
        while self.facts.get(timeout=PATIENCE_S) != Persisted(batch.token, batch.own_seq):
            pass

    def read(self, query: LineQuery) -> LineSlice | StorageError:
        answer: queue.SimpleQueue[LineSlice | StorageError] = queue.SimpleQueue()
        self.store.read_journal(query, answer.put)
        return answer.get(timeout=PATIENCE_S)

    def lines(self, after: int = 0, limit: int = 1_000, **asked: object) -> list[Occurrence]:
        found = self.read(LineQuery(after, 10**6, limit, LineFilter(**asked)))  # type: ignore[arg-type]
        assert isinstance(found, LineSlice)
        return list(found.lines)

    def close(self) -> None:
        assert self.store.close(PATIENCE_S)
        self.data_dir.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "n")
    yield node
    node.close()


def line(seq: int, at_ms: int = WALL_MS, **rest: object) -> Occurrence:
    return Occurrence(seq, at_ms, **{"type": "entered", "plate": f"CAR{seq}", **rest})  # type: ignore[arg-type]


FULL = Occurrence(
    3,
    WALL_MS + 5,
    "corrected",
    "KÄ1",
    2,
    "gary",
    GREAT,
    17,
    "a reason",
    b"r" * 16,
    (("was", "KÅ1"), ("stay_s", 7), ("owner", None), ("claims", ("a", "b"))),
)
LINES = (line(1), line(2, WALL_MS + 1, type="exited", gate=4), FULL, line(4, WALL_MS + 9))


@pytest.mark.parametrize(
    ("asked", "seqs"),
    [
        ({}, [1, 2, 3, 4]),
        ({"after": 2}, [3, 4]),
        ({"limit": 2}, [1, 2]),
        ({"since_ms": WALL_MS + 1, "until_ms": WALL_MS + 9}, [2, 3]),
        ({"types": ("exited", "corrected")}, [2, 3]),
        ({"plate": "CAR2"}, [2]),
        ({"plate": "KÄ1"}, [3]),
        ({"plate": "KÅ1"}, [3]),
        ({"plate": "WAS"}, []),
    ],
)
def test_lines_come_back_as_they_were_and_those_that_were_asked_for(
    node: Node, asked: dict[str, object], seqs: list[int]
) -> None:
    node.commit(Persist(journal=LINES, token=1))
    found = node.lines(**asked)  # type: ignore[arg-type]
    assert found == [LINES[seq - 1] for seq in seqs]


def test_a_long_journal_is_read_in_slices_and_each_says_how_far_it_looked(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_table, "LINES_READ_MAX", 10)
    node.commit(Persist(journal=tuple(map(line, range(1, 1_001))), token=1))
    nothing = LineFilter(plate="NOBODY")
    assert node.read(LineQuery(0, 1_000, 5, nothing)) == LineSlice((), 10, 1)
    assert node.read(LineQuery(995, 998, 5, nothing)) == LineSlice((), 998, 1)
    found = node.read(LineQuery(400, 1_000, 5, LineFilter()))
    assert isinstance(found, LineSlice)
    assert ([each.seq for each in found.lines], found.upto) == ([401, 402, 403, 404, 405], 405)


def test_lines_are_written_with_what_they_tell_of_or_not_at_all(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "db")
    many = tuple(map(line, range(1, 701)))
    batch = Persist(records=((7, 1, b"car"),), journal=many)
    with closing(database):
        database.begin()
        database.apply(batch)
        database.roll_back()
        assert (database.load().records, database.load().journal_seq) == ((), 0)
        database.begin()
        database.apply(batch)
        database.commit()
        assert (database.load().records, database.load().journal_seq) == (((7, 1, b"car"),), 700)
        found = database.read_lines(LineQuery(0, 700, 1_000, LineFilter()))
        assert found.lines == many


def like(seq: int, **other: object) -> Occurrence:
    here = FULL._replace(seq=seq, at_ms=WALL_MS + seq, plate=f"P{seq}", gate=seq, event=seq + 9)
    return here._replace(request=bytes([seq]) * 16, **other)  # type: ignore[arg-type]


def test_lines_that_are_nearly_alike_come_back_each_as_it_was(node: Node) -> None:
    """As many as a batch has are written at once, what they have in common once."""
    batches = [
        [like(seq) for seq in range(1, 6)],
        [like(6), like(7, type="entered")],
        [like(8), like(9, member="ann")],
        [like(10), like(11, replica=7)],
        [like(12), like(13, reason=None)],
        [like(14), like(15, detail=())],
    ]
    for token, lines in enumerate(batches, start=1):
        node.commit(Persist(journal=tuple(lines), token=token))
    assert node.lines() == [each for lines in batches for each in lines]


def test_a_record_that_is_wiped_leaves_what_happened(node: Node) -> None:
    node.commit(Persist(records=((7, 1, b"car"),), journal=LINES[:2], token=1))
    node.commit(Persist(wipe=True, journal=LINES[2:], token=2))
    assert node.lines() == list(LINES)


# --- what is too old -------------------------------------------------------------------------


OLD = [line(seq, WALL_MS - 1) for seq in range(1, 96)]
YOUNG = [line(96), line(98, WALL_MS + 5)]
LATE = line(97, WALL_MS - 2)


def test_one_commit_forgets_no_more_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_table, "LINES_FORGOTTEN_MAX", 10)
    with closing(Database.open(tmp_path / "db")) as database:
        database.begin()
        database.apply(Persist(journal=(*OLD, YOUNG[0], LATE, YOUNG[1]), journal_before=WALL_MS))
        database.commit()
        assert database.overdue_ms == WALL_MS
        left = database.read_lines(LineQuery(0, 98, 1_000, LineFilter()))
        assert len(left.lines) == 88
        assert LATE not in left.lines, "the oldest go first, wherever they stand"


def test_what_is_too_old_goes_commit_by_commit_until_nothing_is_left_of_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_table, "LINES_FORGOTTEN_MAX", 10)
    node.commit(Persist(journal=(*OLD, YOUNG[0], LATE, YOUNG[1]), token=1))
    node.commit(Persist(journal_before=WALL_MS, token=2))
    deadline_s = time.monotonic() + PATIENCE_S
    while node.lines() != YOUNG:
        assert time.monotonic() < deadline_s, node.lines()
    found = node.read(LineQuery(0, 98, 10, LineFilter(plate="NOBODY")))
    assert isinstance(found, LineSlice)
    assert found.oldest == 96


def test_no_number_is_used_twice_even_if_all_lines_are_forgotten(tmp_path: Path) -> None:
    node = Node(tmp_path / "n")
    node.commit(Persist(journal=LINES, token=1))
    node.commit(Persist(journal_before=WALL_MS + 9, token=2))
    node.commit(Persist(journal_before=WALL_MS + 99, token=3))
    assert node.lines() == []
    node.close()
    node = Node(tmp_path / "n")
    assert (node.state.journal_seq, node.state.meta) == (4, {})
    node.close()


def test_a_line_that_comes_too_old_goes_with_the_next_look(node: Node) -> None:
    node.commit(Persist(journal=(line(1), line(2, 5)), journal_before=WALL_MS, token=1))
    assert [each.seq for each in node.lines()] == [1]


def test_a_journal_keeps_its_name_and_another_one_has_another(tmp_path: Path) -> None:
    names = []
    for path in (tmp_path / "n", tmp_path / "n", tmp_path / "m"):
        node = Node(path)
        names.append(node.state.journal)
        node.close()
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == 16


# --- other databases -------------------------------------------------------------------------


def test_a_database_of_format_1_is_brought_up_to_date_and_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.mkdir(mode=0o700)
    with closing(sqlite3.connect(path / "parkingd.db")) as older:
        older.executescript(FORMAT_1.read_text(encoding="utf-8"))
    node = Node(path)
    assert node.state.journal_seq == 0
    assert node.state.records == ((7, 2, b"record"), (GREAT, 1, b"other"))
    assert [(run.origin, run.events) for run in node.state.runs] == [
        (7, (b"7/1", b"7/2")),
        (GREAT, (b"b/1",)),
    ]
    assert node.state.requests == ((b"r" * 16, b"effect"),)
    assert node.state.meta == {"context": b"\x00\x01", "hybrid_high": b"9"}
    node.commit(Persist(journal=LINES, token=1))
    node.close()
    with closing(sqlite3.connect(path / "parkingd.db")) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (2,)
    node = Node(path)
    assert (node.state.journal_seq, node.lines()) == (4, list(LINES))
    node.close()


@pytest.mark.parametrize("keep", [True, False])
def test_the_journal_goes_on_in_another_lot(tmp_path: Path, keep: bool) -> None:
    path = tmp_path / "n"
    node = Node(path)
    name = node.state.journal
    node.commit(Persist(records=((7, 1, b"car"),), journal=LINES, token=1))
    node.commit(Persist(journal_before=WALL_MS + 1, token=2))
    node.close()
    data_dir = DataDir.open(path, cluster="c", name="n")
    begin_again(data_dir, StartOver(StartOverReason.OLDER_LOT, keep), wall_ms=WALL_MS)
    data_dir.close()
    beside = [each.name for each in path.iterdir() if each.name.endswith(("-wal", "-shm"))]
    assert beside == []
    node = Node(path)
    assert bool(node.state.records) is keep
    assert (node.state.journal_seq, node.lines()) == (4, list(LINES[1:]))
    assert node.state.journal == name
    node.close()


def test_a_damaged_database_does_not_keep_a_node_from_another_lot(tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(Persist(journal=tuple(map(line, range(1, 2_000))), token=1))
    node.close()
    content = bytearray((path / "parkingd.db").read_bytes())
    content[8_192:] = bytes(len(content) - 8_192)
    (path / "parkingd.db").write_bytes(content)
    data_dir = DataDir.open(path, cluster="c", name="n")
    begin_again(data_dir, StartOver(StartOverReason.OLDER_LOT, False), wall_ms=WALL_MS)
    data_dir.close()
    node = Node(path)
    assert node.lines() == []
    node.close()


def test_damage_in_the_journal_shows_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(Persist(journal=tuple(map(line, range(1, 3_000))), token=1))
    node.close()
    content = bytearray((path / "parkingd.db").read_bytes())
    middle = content.index(b"CAR1500") // 4_096 * 4_096
    content[middle : middle + 4_096] = bytes(4_096)
    (path / "parkingd.db").write_bytes(content)
    node = Node(path)
    assert "the database was damaged" in node.state.warnings[0]
    node.close()
