"""The SQLite file of a node: its tables, how a `Persist` becomes rows, how rows come back.

One connection, in WAL mode with ``synchronous=FULL``, holding the file exclusively. SQLite
before 3.51.3 may corrupt a WAL when two connections write or checkpoint at the same moment; with
one connection, and a lock that keeps everybody else out, every version is safe. No ``mmap``: an
I/O error would be a signal instead of an error.

    run      origin, first, last, events    one row per run of the log
    record   origin, seq, packed            stays and marks
    request  id, packed                     remembered effects
    pending  n, packed                      stays of a younger lot, to be recorded anew
    journal  seq, at_ms, type, ...          what happened; `detail` is a JSON object
    meta     key, value                     the node's small values
    store    key, value                     the store's own: replica, fingerprint, incarnation...

All but the journal are WITHOUT ROWID: there is no second index that could disagree with the first.
Loading reads all rows, and so visits every page: damage to the file's structure shows then. Of the
journal too, though nothing of it is kept in memory: a write that runs into damage has no way out.

The journal alone grows with the time, not with the lot. It has an index by time for what must be
forgotten in time, a prefix of its lines but for those that came late.

Rows are gathered in memory until a thousand of a table are waiting or the transaction ends, and
written with *one* statement. The reason is the interpreter's lock: ``executemany`` gives it away
and asks for it back at every row, and beside a busy event loop each request waits up to 5 ms.
Measured on two cores, 100,000 records beside a thread that never rests: 30 s by ``executemany``,
0.5 s so (0.2 s without that thread).
A statement has a power of two of rows, filled up by repeating the last (``INSERT OR REPLACE``),
so that a dozen prepared statements per table serve all sizes. Blobs are handed over as `bytearray`:
the module sqlite3 asks every value of another type than int, float, str and bytearray for what it
wants to be stored as, and that takes five times as long as to store it.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise, repeat
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, TypeVar

from parkingd.adapters.database_format import settle_format
from parkingd.adapters.journal_table import (
    META_JOURNAL_SEQ,
    LineQuery,
    LineSlice,
    LineValue,
    forget_lines,
    greatest_seq,
    insert_lines,
    read_lines,
    take_over,
)
from parkingd.core.ids import ReplicaId
from parkingd.errors import ConfigError
from parkingd.protocol.effects import Occurrence, Persist
from parkingd.protocol.messages import Run

ROWS_WAITING_MAX: Final = 1_024
"""Rows in one statement: preparing it costs 1.4 ms, once. Twice as many gained nothing."""

RUNS_WAITING_MAX: Final = 64
"""A run has up to 48 KiB, so that 3 MiB wait."""

LOADED_RUN_EVENTS_MAX: Final = 512
"""Neighbouring runs are loaded as one up to this length: a million of one event each are slow."""

LINES_WAITING_MAX: Final = 256
"""Lines of the journal in one statement: they are as wide as four of the other rows."""

BACKUP_PAGES: Final = 256
"""Pages of 4 KiB copied between two looks at the queue: about 3 ms."""

CACHE_KIB: Final = 512
"""Of SQLite's own copies of pages. Its default, 2,000, is 15 bytes a car of 100,000 more and gained
nothing where it was measured: imports, exits, deletions all over a table, loading. What is read
again is in the kernel's cache."""

WAL_BYTES_KEPT: Final = 16 * 1024 * 1024
"""A WAL that one large transaction has stretched is cut back to this."""

LOCK_WAIT_S: Final = 1.0
"""Somebody's database browser may hold the file for a moment while we open it."""

DAMAGE: Final = frozenset(
    (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR)
)
"""Primary result codes that mean: these bytes are no database of ours. SQLITE_ERROR is a missing
table or column. Not among them: full, busy, I/O error, no permission, which pass or need a person.
"""

_Value: TypeAlias = LineValue
_Item = TypeVar("_Item")
_SIGN: Final = 1 << 63


class Contents(NamedTuple):
    """Everything that the node has stored, as `StoredState` wants it."""

    runs: tuple[Run, ...]
    records: tuple[tuple[ReplicaId, int, bytes], ...]
    requests: tuple[tuple[bytes, bytes], ...]
    meta: dict[str, bytes]
    pending: tuple[tuple[int, bytes], ...]
    journal_seq: int
    own: dict[str, str]
    """The store's own values; empty in a database that was never started."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error while opening or loading means that the file itself is broken."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in DAMAGE


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _signed(replica: ReplicaId) -> int:
    """SQLite's integers are signed: ids from 2**63 on are stored as negative numbers."""
    return replica if replica < _SIGN else replica - 2 * _SIGN


def pack_events(events: tuple[bytes, ...]) -> bytes:
    """The number of events, the length of each (32 bit, big endian), then the events."""
    count = len(events)
    return struct.pack(f">{count + 1}I", count, *map(len, events)) + b"".join(events)


def unpack_events(packed: bytes) -> list[bytes]:
    """The inverse of `pack_events`. Raises sqlite3.DatabaseError: the row is damaged."""
    try:
        (count,) = struct.unpack_from(">I", packed)
        lengths = struct.unpack_from(f">{count}I", packed, 4)
    except struct.error as error:
        raise sqlite3.DatabaseError("a run is malformed") from error
    ends = list(accumulate(lengths, initial=4 + 4 * count))
    if ends[-1] != len(packed):
        raise sqlite3.DatabaseError("a run is malformed")
    return [packed[start:end] for start, end in pairwise(ends)]


class Database:
    """An open database file. Used by one thread at a time; every method raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection, path: Path, inode: tuple[int, int]) -> None:
        """``inode``: device and number of the file that was opened."""
        self._connection = connection
        self._path = path
        self._inode = inode
        variables = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._rows_max = 1 << (min(4 * ROWS_WAITING_MAX, variables) // 4).bit_length() - 1
        self._lines_max = min(LINES_WAITING_MAX, self._rows_max // 4)
        # The net effect of what has been applied and is not yet in the open transaction.
        self._runs: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._records: dict[tuple[int, int], bytes | None] = {}
        self._requests: dict[bytes, bytes | None] = {}
        self._pending_done: list[int] = []
        self._meta: dict[str, bytes] = {}
        self._lines: list[Occurrence] = []
        self.overdue_ms: int | None = None
        """There are more lines of the journal from before this wall time, to be forgotten."""

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open a file, creating it with its tables (mode 0600) when it is missing or empty.

        Raises sqlite3.Error (see `is_damage`), OSError, and ConfigError for a newer format.
        """
        # SQLite would create it readable for all; its WAL takes over this mode too.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            inode = _inode(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        connection = sqlite3.connect(
            path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA mmap_size = 0")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
            settle_format(connection, path)
        except (sqlite3.Error, ConfigError):
            connection.close()
            raise
        return cls(connection, path, inode)

    def own(self) -> dict[str, str]:
        """The values that the store keeps for itself."""
        own: dict[str, str] = dict(self._connection.execute("SELECT key, value FROM store"))
        if not all(isinstance(value, str) for value in own.values()):
            raise sqlite3.DatabaseError("a value of the store is malformed")
        return own

    def replace_own(self, values: dict[str, str]) -> None:
        """Forget the store's own values and keep these, in a transaction of its own."""
        self.begin()
        self._connection.execute("DELETE FROM store")
        self._upsert("store", values.items())
        self.commit()

    def add_pending(self, pending: Iterable[bytes]) -> None:
        """Keep pending stays, numbered from 1, in a transaction of its own."""
        self.begin()
        self._upsert("pending", enumerate(pending, start=1))
        self.commit()

    def load(self) -> Contents:
        """Read every row. Damage shows here if it is anywhere in the structure of the file."""
        rows = self._connection.execute
        records = rows("SELECT origin, seq, packed FROM record WHERE origin >= 0").fetchall()
        records.extend(
            (origin + 2 * _SIGN, seq, packed)
            for origin, seq, packed in rows("SELECT * FROM record WHERE origin < 0")
        )
        meta = dict(rows("SELECT key, value FROM meta"))
        meta.pop(META_JOURNAL_SEQ, None)
        return Contents(
            runs=tuple(self._load_runs()),
            records=tuple(records),
            requests=tuple(rows("SELECT id, packed FROM request")),
            meta=meta,
            pending=tuple(rows("SELECT n, packed FROM pending")),
            journal_seq=greatest_seq(self._connection),
            own=self.own(),
        )

    def _load_runs(self) -> Iterator[Run]:
        """By origin as unsigned numbers, then seq; small neighbours joined."""
        origin, first = -1, 0
        events: list[bytes] = []
        for condition, shift in (("origin >= 0", 0), ("origin < 0", 2 * _SIGN)):
            for row_origin, row_first, row_last, packed in self._connection.execute(
                f"SELECT * FROM run WHERE {condition} ORDER BY origin, first"
            ):
                more = unpack_events(packed)
                if len(more) != row_last - row_first + 1:
                    raise sqlite3.DatabaseError("a run has another number of events than it says")
                adjoins = row_origin + shift == origin and row_first == first + len(events)
                if not adjoins or len(events) + len(more) > LOADED_RUN_EVENTS_MAX:
                    if events:
                        yield Run(origin, first, tuple(events))
                    origin, first, events = row_origin + shift, row_first, []
                events += more
        if events:
            yield Run(origin, first, tuple(events))

    @property
    def in_transaction(self) -> bool:
        """Whether `begin` was called and neither `commit` nor `roll_back` since."""
        return self._connection.in_transaction

    def begin(self) -> None:
        """Open a transaction."""
        self._connection.execute("BEGIN IMMEDIATE")

    def apply(self, batch: Persist) -> None:
        """Add a batch to the open transaction, in the order of its fields."""
        if batch.wipe:
            self._forget_waiting(keep_meta=True)
            for table in ("run", "record", "request"):
                self._connection.execute(f"DELETE FROM {table}")
        for run in batch.runs:
            self._runs[_signed(run.origin), run.first] = (run.last, pack_events(run.events))
        if batch.floors:
            self._write_runs()
            # Runs do not overlap: those that end at or below the floor begin there too, so that
            # the key finds them without looking at the rest of the log.
            self._connection.executemany(
                "DELETE FROM run WHERE origin = ?1 AND first <= ?2 AND last <= ?2",
                [(_signed(origin), seq) for origin, seq in batch.floors],
            )
        for origin, seq, packed in batch.records:
            self._records[_signed(origin), seq] = packed
        for origin, seq in batch.dropped:
            self._records[_signed(origin), seq] = None
        self._requests.update(batch.requests)
        self._requests.update(zip(batch.expired, repeat(None)))
        self._pending_done += batch.pending_done
        self._meta.update(batch.meta)
        self._lines += batch.journal
        if batch.journal_before is not None:
            self.forget_lines(batch.journal_before)
        if len(self._runs) >= RUNS_WAITING_MAX:
            self._write_runs()
        if len(self._records) >= ROWS_WAITING_MAX:
            self._write_records()
        if len(self._requests) >= ROWS_WAITING_MAX:
            self._write_requests()
        if len(self._lines) >= self._lines_max:
            self._write_lines(len(self._lines) // self._lines_max * self._lines_max)

    def commit(self) -> None:
        """End the open transaction: everything applied is on the disk when this returns."""
        self._write_runs()
        self._write_records()
        self._write_requests()
        self._write_lines(len(self._lines))
        self._delete("pending WHERE n", [], self._pending_done)
        self._upsert("meta", self._meta.items())
        self._forget_waiting(keep_meta=False)
        self._connection.execute("COMMIT")

    def require_in_place(self) -> None:
        """Raise sqlite3.OperationalError if the open file is no longer the one at its path: it was
        removed or moved away, and a commit to it is gone when it is closed. Takes 1 to 2 us."""
        try:
            is_in_place = _inode(os.stat(self._path)) == self._inode
        except OSError as error:
            what = f"the database {self._path} is gone ({error.strerror})"
        else:
            if is_in_place:
                return
            what = f"the database {self._path} was replaced by another file"
        todo = "put it back, or save the cars with `parkingd-ctl export` and start the node again"
        raise sqlite3.OperationalError(f"{what}: {todo}")

    def roll_back(self) -> None:
        """Forget everything applied since `begin`, if there is anything."""
        self._forget_waiting(keep_meta=False)
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def forget_lines(self, before_ms: int) -> None:
        """Add to the open transaction: forget so many of the lines from before this wall time that
        the commit is not long; see `overdue_ms` for the rest."""
        self._write_lines(len(self._lines))
        is_more = forget_lines(self._connection, before_ms)
        self.overdue_ms = before_ms if is_more else None

    def read_lines(self, query: LineQuery) -> LineSlice:
        """Lines of the journal that are on the disk."""
        return read_lines(self._connection, query)

    def take_over_lines(self, path: Path) -> None:
        """Copy the journal of another database, in a transaction of its own."""
        take_over(self._connection, str(path))

    def close(self) -> None:
        """Close the file; what was not committed is gone. The WAL is folded in and removed."""
        self._connection.close()

    def copy_to(self, path: Path, between_steps: Callable[[], None]) -> None:
        """Copy the committed state into a new single file that claims no replica id.

        ``between_steps`` is called every 1 MiB and may apply and commit; the copy follows. What it
        raises ends the copy.
        """

        def progress(_status: int, _remaining: int, _total: int) -> None:
            between_steps()

        target = sqlite3.connect(path, isolation_level=None)
        try:
            self._connection.backup(target, pages=BACKUP_PAGES, progress=progress, sleep=0.01)
            target.execute("PRAGMA journal_mode = DELETE")
            # Without it the copy never matches the identity file that it is restored beside.
            target.execute("DELETE FROM store WHERE key = 'fingerprint'")
        finally:
            target.close()

    def _forget_waiting(self, *, keep_meta: bool) -> None:
        for waiting in (self._runs, self._records, self._requests, self._pending_done):
            waiting.clear()
        if not keep_meta:
            self._meta.clear()
            self._lines.clear()

    def _write_runs(self) -> None:
        self._upsert("run", ((*key, *value) for key, value in self._runs.items()))
        self._runs.clear()

    def _write_records(self) -> None:
        records = self._records.items()
        self._upsert("record", ((*key, bytearray(p)) for key, p in records if p is not None))
        dropped: dict[int, list[_Value]] = {}
        for (origin, seq), packed in records:
            if packed is None:
                dropped.setdefault(origin, []).append(seq)
        for origin, seqs in dropped.items():
            self._delete("record WHERE origin = ? AND seq", [origin], seqs)
        self._records.clear()

    def _write_requests(self) -> None:
        requests = [(bytearray(key), packed) for key, packed in self._requests.items()]
        self._upsert("request", ((key, bytearray(p)) for key, p in requests if p is not None))
        self._delete("request WHERE id", [], [key for key, packed in requests if packed is None])
        self._requests.clear()

    def _write_lines(self, count: int) -> None:
        """The first so many lines of the journal that wait."""
        for part in self._slices(self._lines[:count], self._lines_max):
            insert_lines(self._connection, part)
        del self._lines[:count]

    def _upsert(self, table: str, rows: Iterable[tuple[_Value, ...]]) -> None:
        """Insert or replace rows, all of the width of the table."""
        for part in self._slices(list(rows)):
            one = f"({','.join('?' * len(part[0]))})"
            self._connection.execute(
                f"INSERT OR REPLACE INTO {table} VALUES {','.join(repeat(one, len(part)))}",
                list(chain.from_iterable(part)),
            )

    def _delete(self, where: str, fixed: list[_Value], keys: Sequence[_Value]) -> None:
        """Delete the rows of these keys; ``where`` ends in the column that they are in."""
        for part in self._slices(keys):
            self._connection.execute(
                f"DELETE FROM {where} IN ({','.join('?' * len(part))})", fixed + part
            )

    def _slices(
        self, items: Sequence[_Item], items_max: int | None = None
    ) -> Iterator[list[_Item]]:
        """Parts of a power of two of items, the last one filled up with its last item."""
        items_max = items_max or self._rows_max
        for start in range(0, len(items), items_max):
            part = list(items[start : start + items_max])
            size = 1 << (len(part) - 1).bit_length()
            yield part + [part[-1]] * (size - len(part))
