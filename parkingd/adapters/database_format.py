"""The tables of a node's database, and how a file of an older format becomes one of this."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from parkingd.adapters.journal_table import JOURNAL_SCHEMA
from parkingd.errors import ConfigError

FORMAT: Final = 2
"""Kept in ``PRAGMA user_version``. A larger one is refused, 1 (without the journal) upgraded."""

_SCHEMA: Final = (
    "CREATE TABLE run (origin INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,"
    " events BLOB NOT NULL, PRIMARY KEY (origin, first)) WITHOUT ROWID",
    "CREATE TABLE record (origin INTEGER NOT NULL, seq INTEGER NOT NULL, packed BLOB NOT NULL,"
    " PRIMARY KEY (origin, seq)) WITHOUT ROWID",
    "CREATE TABLE request (id BLOB NOT NULL PRIMARY KEY, packed BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE pending (n INTEGER NOT NULL PRIMARY KEY, packed BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE store (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    *JOURNAL_SCHEMA,
    f"PRAGMA user_version = {FORMAT}",
)

_UPGRADES: Final = {1: JOURNAL_SCHEMA}
"""By the format that was found: what makes the next one of it."""


def settle_format(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file; bring what an older version wrote up to date, in one
    transaction; refuse what a newer one wrote."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise ConfigError(
            f"the database {path} was written by a newer parkingd (format {version})",
            hint="install that version, or give --data-dir another directory",
        )
    if version == FORMAT:
        return
    statements: list[str] = []
    if version in _UPGRADES:
        for step in range(version, FORMAT):
            statements += _UPGRADES[step]
        statements.append(f"PRAGMA user_version = {FORMAT}")
    elif connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
        raise sqlite3.DatabaseError("not a database of parkingd")
    else:
        statements += _SCHEMA
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements:
        connection.execute(statement)
    connection.execute("COMMIT")
