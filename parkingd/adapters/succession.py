"""Which database, and under which replica id, the next start of a node uses.

The id in the ``identity`` file is used again only if the database agrees in every respect: it is
there, it is whole, it names that id and the fingerprint of that very file, and it knows of the
latest start. Else there is a new id, and only that: what is stored stays and is offered. The new
id is on the disk in ``identity`` before the database names it, so that a crash in between costs
one more id and never gives one id to two starts that disagree.

A new lot under the same name (`begin_again`) is prepared whole under ``parkingd.db.next``, with
the journal of the old one: what happened here has happened whatever lot it was in. Then
the old database is renamed aside, then the new one into its place. With the old one there, a
``next`` is a broken attempt and is deleted; without it, the ``next`` is complete (it was closed
and synced before the first rename) and the next start renames it. At every moment either the old
database or the pending stays are there.

A WAL must never meet another database than its own: a database is renamed before what lies beside
it, and what lies beside no database is removed. The other order could leave an older state under
the same id.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from parkingd.adapters.data_dir import DataDir, fsync_directory, new_journal_name
from parkingd.adapters.database import Contents, Database, is_damage
from parkingd.adapters.journal_table import STORE_JOURNAL
from parkingd.core.ids import replica_hex
from parkingd.errors import LocalError, StorageError
from parkingd.protocol.effects import StartOver, StoredState

SLOW_COMMIT_MS: Final = 50
"""Every acknowledged entry waits for a commit: longer than this is worth a warning."""

SIDE_FILES: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""


def open_latest(data_dir: DataDir, *, wall_ms: int) -> tuple[Database, StoredState]:
    """Load what is stored, settle the replica id and commit a new incarnation.

    Raises StorageError when the disk cannot be used, ConfigError when the database is of a newer
    format or belongs to another node.
    """
    path = data_dir.database
    try:
        _end_switch(path)
        database, contents, doubt = _load(path)
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from error
    try:
        return database, _start(database, contents, data_dir, doubt=doubt, wall_ms=wall_ms)
    except sqlite3.Error as error:
        database.close()
        raise _unusable(path, error) from error
    except LocalError:
        database.close()
        raise


def begin_again(data_dir: DataDir, start_over: StartOver, *, wall_ms: int) -> None:
    """Make the next `SqliteStore.open` another replica, after the store has been closed.

    ``keep``: everything stored stays. Otherwise the database is set aside and the pending stays
    are the content of a new one. Raises StorageError; the next start then finds the old state,
    or finishes the change.
    """
    path = data_dir.database
    reason = start_over.reason
    try:
        _end_switch(path)
        if start_over.keep:
            _mark_renewed(path, reason.value)
            return
        successor = _next_path(path)
        has_old = path.exists()
        if has_old:
            _fold_wal(path)
        _mark_renewed(successor, reason.value, start_over.pending, path if has_old else None)
        fsync_directory(path.parent)
        if has_old:
            _set_aside(path, f"set-aside-{wall_ms}-{reason.name.lower()}")
        os.rename(successor, path)
        fsync_directory(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from error


def _next_path(path: Path) -> Path:
    return path.with_name(path.name + ".next")


def _end_switch(path: Path) -> None:
    """Finish or undo what `begin_again` was doing when the machine stopped."""
    successor = _next_path(path)
    if path.exists():
        successor.unlink(missing_ok=True)
        _remove_side_files(successor)
        return
    _remove_side_files(path)
    if successor.exists():
        os.rename(successor, path)
    fsync_directory(path.parent)


def _remove_side_files(path: Path) -> None:
    for suffix in SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _mark_renewed(
    path: Path, reason: str, pending: tuple[bytes, ...] = (), old: Path | None = None
) -> None:
    """Leave word in a database that its next start takes a new replica id.

    ``old``: the database whose journal is to go on in this one.
    """
    database = Database.open(path)
    try:
        if old is not None:
            _take_over_lines(database, old)
        if pending:
            database.add_pending(pending)
        database.replace_own({**database.own(), "renewed": reason})
    finally:
        database.close()
    _require_folded(path)


def _take_over_lines(database: Database, old: Path) -> None:
    """What a damaged database has kept of the past stays in it."""
    try:
        database.take_over_lines(old)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise


def _fold_wal(path: Path) -> None:
    """Bring the WAL of a database that was not closed well into its file."""
    try:
        Database.open(path).close()
    except sqlite3.Error as error:
        if is_damage(error):
            return
        raise
    _require_folded(path)


def _require_folded(path: Path) -> None:
    """Closing a database folds its WAL in, and says nothing when the disk is too full for that."""
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        raise OSError(f"{wal} could not be folded in")


def _set_aside(path: Path, label: str) -> Path:
    """Rename a database, with what belongs to it, to a numbered name that is free."""
    number = 1
    while (target := path.with_name(f"{path.name}.{label}-{number}")).exists():
        number += 1
    os.rename(path, target)
    fsync_directory(path.parent)
    for suffix in SIDE_FILES:
        side = path.with_name(path.name + suffix)
        if side.exists():
            os.rename(side, target.with_name(target.name + suffix))
    return target


def _load(path: Path) -> tuple[Database, Contents, str | None]:
    """Open and read; a damaged file is set aside and an empty one begun (then: why)."""
    database: Database | None = None
    try:
        database = Database.open(path)
        return database, database.load(), None
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        if not is_damage(error):
            raise
        aside = _set_aside(path, "corrupt")
        database = Database.open(path)
        return database, database.load(), f"the database was damaged ({error}), see {aside}"


def _start(
    database: Database, contents: Contents, data_dir: DataDir, *, doubt: str | None, wall_ms: int
) -> StoredState:
    """Settle who this start is, and commit it."""
    own = contents.own
    data_dir.refuse_foreign(
        cluster=own.get("cluster", data_dir.cluster), name=own.get("name", data_dir.name)
    )
    warnings = []
    doubt = doubt or _doubt(own, data_dir)
    identity = data_dir.identity
    if identity is None or doubt is not None:
        if doubt is not None:
            warnings.append(f"new replica id: {doubt}")
        identity = data_dir.renew_identity(wall_ms)
    journal = own.get(STORE_JOURNAL) or new_journal_name()
    incarnation = max(wall_ms, _incarnation(own) + 1, data_dir.incarnation + 1)
    started = time.perf_counter()
    database.replace_own(
        {
            "cluster": data_dir.cluster,
            "name": data_dir.name,
            "replica": replica_hex(identity.replica),
            "fingerprint": data_dir.fingerprint(),
            "incarnation": str(incarnation),
            STORE_JOURNAL: journal,
        }
    )
    commit_ms = (time.perf_counter() - started) * 1000
    if commit_ms > SLOW_COMMIT_MS:
        warnings.append(f"slow disk: a commit took {commit_ms:.0f} ms, entries wait as long")
    data_dir.record_incarnation(incarnation)
    return StoredState(
        replica=identity.replica,
        incarnation=incarnation,
        fresh=not (contents.runs or contents.records or contents.requests or contents.meta),
        runs=contents.runs,
        records=contents.records,
        requests=contents.requests,
        meta=contents.meta,
        pending=contents.pending,
        journal_seq=contents.journal_seq,
        journal=journal,
        warnings=tuple(warnings),
    )


def _incarnation(own: dict[str, str]) -> int:
    text = own.get("incarnation", "")
    return int(text) if text.isdecimal() else 0


def _doubt(own: dict[str, str], data_dir: DataDir) -> str | None:
    """Why the replica id in the identity file must not be used again; None: it may."""
    identity = data_dir.identity
    if not own:
        return None if identity is None else "the database is missing"
    if "renewed" in own:
        return own["renewed"]
    if identity is None:
        return "the identity file is missing or damaged"
    if own.get("replica") != replica_hex(identity.replica) or (
        own.get("fingerprint") != data_dir.fingerprint()
    ):
        return "the data directory or its database is a copy or was restored"
    if _incarnation(own) < data_dir.incarnation:
        return "the database is older than the latest start: it was restored"
    return None


def _unusable(path: Path, error: sqlite3.Error | OSError) -> StorageError:
    return StorageError(
        f"cannot use the database {path}: {error}",
        hint="make room, repair the disk or the permissions; the data is still there",
    )
