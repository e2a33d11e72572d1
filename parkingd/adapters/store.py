"""What a node has on disk: one writer thread, commits first in, first out.

The node's batches (`Persist`) are queued by the event loop and written by the thread that owns
the only connection. While one commit waits for the disk the next batches gather, and the thread
takes them together: one fsync pays for up to `GROUP_MAX` batches. A batch that is ``open_ended``
keeps its transaction open until the first later batch that is not; what is complete before it is
committed first and never waits for it.

The queue order is part of the correctness of replication (an own event must not be durable before
the remote events that it covers), so nothing overtakes: a failed commit is rolled back in SQLite,
its batches stay at the head of the queue, and the same batches are tried again every second until
they are in or the store is closed. A commit into a file that was removed counts as a failed one:
applying a batch again changes nothing.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias, assert_never

from parkingd.adapters.data_dir import DataDir, fsync_directory, new_journal_name, new_replica_id
from parkingd.adapters.database import Database
from parkingd.adapters.journal_table import LineQuery, LineSlice
from parkingd.adapters.succession import open_latest
from parkingd.errors import StorageError
from parkingd.protocol.effects import Persist, StoredState
from parkingd.protocol.facts import Fact, Persisted, StorageFailed, StorageRecovered

GROUP_MAX: Final = 64
"""Batches in one commit: of imports some 3 MiB, 50 ms on a slow disk. More only adds waiting."""

RETRY_S: Final = 1.0
"""Between two attempts of a commit that fails."""

_MISUSE: Final = (
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.NotSupportedError,
)
"""Errors of ours, not of the disk: they must not be retried."""

OnFact: TypeAlias = Callable[[Fact], None]
OnBackup: TypeAlias = Callable[[StorageError | None], None]
OnLines: TypeAlias = Callable[[LineSlice | StorageError], None]


@dataclass(frozen=True, slots=True)
class _Backup:
    path: Path
    on_done: OnBackup


@dataclass(frozen=True, slots=True)
class _Read:
    query: LineQuery
    on_done: OnLines


@dataclass(frozen=True, slots=True)
class _Forget:
    """What one commit has left of the lines from before this wall time."""

    before_ms: int


_Job: TypeAlias = _Backup | _Read | _Forget
"""What the writer thread does between two commits."""


class SqliteStore:
    """The store of a node with a data directory. Made by `open`."""

    def __init__(self, database: Database, on_fact: OnFact) -> None:
        self._database = database
        self._on_fact = on_fact
        self._queue: SimpleQueue[Persist | _Job | None] = SimpleQueue()
        self._closing = threading.Event()
        self._submitted = 0
        # Below: the writer thread's own, but for reading `_committed`.
        self._committed = 0
        self._taken: list[Persist] = []
        self._applied = 0
        self._jobs: deque[_Job] = deque()
        self._failing = False
        self._ended = False
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)

    @classmethod
    def open(
        cls, data_dir: DataDir, *, wall_ms: int, on_fact: OnFact
    ) -> tuple[SqliteStore, StoredState]:
        """Load what is stored and commit a new incarnation.

        ``on_fact`` is called from the writer thread, not before this returns: `Persisted` with
        the newest token after each commit, `StorageFailed` once when commits begin to fail,
        `StorageRecovered` when one succeeds again. Raises StorageError when the disk cannot be
        used, ConfigError when the database is of a newer format or belongs to another node.
        """
        database, state = open_latest(data_dir, wall_ms=wall_ms)
        store = cls(database, on_fact)
        store._thread.start()
        return store, state

    @property
    def queued(self) -> int:
        """Batches submitted and not yet committed."""
        return self._submitted - self._committed

    def submit(self, batch: Persist) -> None:
        """Queue a batch. Never waits; call it from one thread only."""
        self._submitted += 1
        self._queue.put(batch)

    def backup(self, path: Path, on_done: OnBackup) -> None:
        """Copy the database, with all that was submitted before, to a new file of mode 0600.

        Commits go on meanwhile. ``on_done`` is called from the writer thread, with None or what
        went wrong. A database that is restored from the copy takes a new replica id.
        """
        self._queue.put(_Backup(path, on_done))

    def read_journal(self, query: LineQuery, on_done: OnLines) -> None:
        """Read lines of the journal, with those that were submitted before.

        ``on_done`` is called from the writer thread, with the lines or what went wrong; not at all
        after `close`.
        """
        self._queue.put(_Read(query, on_done))

    def close(self, timeout_s: float) -> bool:
        """Commit what is queued, unless commits fail, and close the file.

        True: everything submitted is on the disk. False: something is not, or the disk did not
        answer within ``timeout_s``. Repeating it does nothing more.
        """
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self.queued == 0

    def _write(self) -> None:
        """The writer thread."""
        try:
            while not self._ended:
                self._take(wait=not self._jobs or self._database.in_transaction)
                self._commit_taken()
                if self._jobs and not self._database.in_transaction:
                    self._do(self._jobs.popleft())
                    # A backup that filled the disk has ended: what failed meanwhile goes on.
                    self._commit_taken()
            self._database.roll_back()
        finally:
            self._database.close()
            for job in self._jobs:
                if isinstance(job, _Backup):
                    job.on_done(StorageError("the daemon stopped before the backup was made"))

    def _take(self, *, wait: bool) -> None:
        """Take what is queued, up to a group."""
        for _ in range(GROUP_MAX):
            try:
                item = self._queue.get(block=wait)
            except Empty:
                return
            wait = False
            match item:
                case Persist():
                    self._taken.append(item)
                case None:
                    self._ended = True
                    return
                case _:
                    self._jobs.append(item)

    def _commit_taken(self) -> None:
        """Commit what was taken, however long the disk fails; closing ends the attempts.

        Who asks for something else meanwhile is answered between two of them.
        """
        while not self._try_commit():
            if self._closing.wait(RETRY_S):
                self._ended = True
                return
            self._take(wait=False)
            while self._jobs:
                self._do(self._jobs.popleft())

    def _try_commit(self) -> bool:
        """Apply and commit what was taken but for open ends; False if the disk refused."""
        try:
            while self._applied < len(self._taken):
                batch = self._taken[self._applied]
                if batch.open_ended and self._is_complete():
                    self._commit()
                    continue
                if not self._database.in_transaction:
                    self._database.begin()
                self._database.apply(batch)
                self._applied += 1
            if self._is_complete():
                self._commit()
        except _MISUSE:
            raise
        except sqlite3.Error as error:
            self._applied = 0
            self._database.roll_back()
            if not self._failing:
                self._failing = True
                self._on_fact(StorageFailed(str(error)))
            return False
        return True

    def _is_complete(self) -> bool:
        """Whether what has been applied may be committed."""
        return self._applied > 0 and not self._taken[self._applied - 1].open_ended

    def _commit(self) -> None:
        self._database.commit()
        self._database.require_in_place()  # Afterwards: the file may have gone at any moment.
        newest = self._taken[self._applied - 1]
        del self._taken[: self._applied]
        self._committed += self._applied
        self._applied = 0
        if self._failing:
            self._failing = False
            self._on_fact(StorageRecovered())
        self._on_fact(Persisted(newest.token, newest.own_seq))
        self._plan_forgetting()

    def _plan_forgetting(self) -> None:
        overdue_ms, self._database.overdue_ms = self._database.overdue_ms, None
        if overdue_ms is not None:
            self._jobs.append(_Forget(overdue_ms))

    def _do(self, job: _Job) -> None:
        match job:
            case _Backup():
                self._back_up(job)
            case _Read(query=query, on_done=on_done):
                on_done(self._read(query))
            case _Forget(before_ms=before_ms):
                self._forget(before_ms)
            case _:
                assert_never(job)

    def _read(self, query: LineQuery) -> LineSlice | StorageError:
        try:
            return self._database.read_lines(query)
        except _MISUSE:
            raise
        except sqlite3.Error as error:
            return StorageError(f"cannot read the journal: {error}")

    def _forget(self, before_ms: int) -> None:
        """A disk that refuses is asked again with the next batch that says what is too old."""
        try:
            self._database.begin()
            self._database.forget_lines(before_ms)
            self._database.commit()
        except _MISUSE:
            raise
        except sqlite3.Error:
            self._database.roll_back()
        else:
            self._plan_forgetting()

    def _back_up(self, backup: _Backup) -> None:
        try:
            _copy(self._database, backup.path, self._between_steps)
        except StorageError as error:
            backup.on_done(error)
        else:
            backup.on_done(None)

    def _between_steps(self) -> None:
        """Let the queue move while a backup is made; a full disk or a stop ends the backup."""
        self._take(wait=False)
        if not self._try_commit():
            raise StorageError(
                "the disk of this node fails or is full: no backup was made",
                hint="make room there, or ask another node",
            )
        if self._ended:
            raise StorageError("the daemon stopped before the backup was made")


class EphemeralStore:
    """The store of a node that keeps nothing: every batch is done as soon as it is submitted."""

    def __init__(self, on_fact: OnFact) -> None:
        self._on_fact = on_fact
        self.queued = 0

    @classmethod
    def open(
        cls,
        *,
        wall_ms: int,
        on_fact: OnFact,
        pending: tuple[bytes, ...] = (),
        incarnation_after: int = 0,
    ) -> tuple[EphemeralStore, StoredState]:
        """A new replica each time; ``on_fact`` is called within `submit`.

        After a `StartOver` pass its ``pending`` on, and the incarnation that has ended.
        """
        state = StoredState(
            replica=new_replica_id(wall_ms),
            incarnation=max(wall_ms, incarnation_after + 1),
            fresh=True,
            pending=tuple(enumerate(pending, start=1)),
            journal=new_journal_name(),
        )
        return cls(on_fact), state

    def submit(self, batch: Persist) -> None:
        """Report the batch as kept, unless it is the open part of a transaction."""
        if not batch.open_ended:
            self._on_fact(Persisted(batch.token, batch.own_seq))

    def backup(self, path: Path, on_done: OnBackup) -> None:
        """There is nothing to copy."""
        on_done(StorageError("an ephemeral node keeps nothing on disk", hint="drop --ephemeral"))

    def read_journal(self, query: LineQuery, on_done: OnLines) -> None:
        """There is none but in memory; ``on_done`` is called within this."""
        on_done(LineSlice((), query.upto, None))

    def close(self, timeout_s: float) -> bool:
        """Nothing is lost that was promised."""
        return True


def _copy(database: Database, path: Path, between_steps: Callable[[], None]) -> None:
    """Make a backup under a temporary name and give it its own when it is complete."""
    partial = path.with_name(path.name + ".partial")
    try:
        if path.exists():
            raise StorageError(f"{path} exists", hint="name a file that does not")
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            database.copy_to(partial, between_steps)
            os.rename(partial, path)
            fsync_directory(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    except (sqlite3.Error, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StorageError(
            f"cannot write the backup {path}: {why}",
            hint="name a file in a folder that the daemon can write to",
        ) from error
