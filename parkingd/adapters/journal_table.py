"""The journal as a table: lines to rows and back, what a reader asks for, what is too old.

``detail`` is a JSON object, so that the table can be read with any SQLite tool.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Final, TypeAlias

from parkingd.protocol.command_parsing import LineFilter
from parkingd.protocol.effects import Detail, Occurrence

LINES_READ_MAX: Final = 10_000
"""Lines looked at in one go: 10 ms, after which commits have their turn."""

LINES_FORGOTTEN_MAX: Final = 20_000
"""In one commit: 50 ms. What is left follows in commits of its own."""

META_JOURNAL_SEQ: Final = "journal_seq"
"""In ``meta``: the greatest number when lines were last forgotten, so that none is used twice."""

STORE_JOURNAL: Final = "journal"
"""In ``store``: the journal's name."""

JOURNAL_SCHEMA: Final = (
    "CREATE TABLE journal (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, type TEXT NOT NULL,"
    " plate TEXT, gate INTEGER, member TEXT, replica INTEGER, event INTEGER, reason TEXT,"
    " request BLOB, detail TEXT NOT NULL)",
    "CREATE INDEX journal_time ON journal (at_ms)",
)

LineValue: TypeAlias = int | str | bytes | bytearray | None
LineRow: TypeAlias = tuple[LineValue, ...]

_alike: Final = itemgetter(2, 5, 6, 8, 10)
"""Of a line or a row: type, member, replica, reason and detail."""
_SIGN: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class LineQuery:
    """Lines above ``after`` and up to ``upto``, ascending, so many at most."""

    after: int
    upto: int
    limit: int
    filter: LineFilter


@dataclass(frozen=True, slots=True)
class LineSlice:
    """What was found. ``upto``: looked at as far as this; ``oldest``: kept, None if none is."""

    lines: tuple[Occurrence, ...]
    upto: int
    oldest: int | None


def _row(line: Occurrence) -> LineRow:
    """The row of the table. SQLite's integers are signed: greater ids become negative."""
    seq, at_ms, type_, plate, gate, member, replica, event, reason, request, detail = line
    if replica is not None and replica >= _SIGN:
        replica -= 2 * _SIGN
    id_, text = request and bytearray(request), _detail_text(detail)
    return seq, at_ms, type_, plate, gate, member, replica, event, reason, id_, text


@lru_cache(maxsize=256)
def _detail_text(detail: Detail) -> str:
    return json.dumps(dict(detail), ensure_ascii=False, separators=(",", ":"))


def insert_lines(connection: sqlite3.Connection, lines: Sequence[Occurrence]) -> None:
    """With one statement, in the open transaction. Raises sqlite3.Error.

    The lines of an import differ in half of their columns only. What they have in common is handed
    over once: half of the time.
    """
    values: list[LineValue]
    is_alike = list(map(_alike, lines)).count(_alike(lines[0])) == len(lines)
    if is_alike:
        values = list(_alike(_row(lines[0])))
        for seq, at_ms, _, plate, gate, _, _, event, _, request, _ in lines:
            values += (seq, at_ms, plate, gate, event, request and bytearray(request))
    else:
        values = list(chain.from_iterable(map(_row, lines)))
    connection.execute(_insert_sql(len(lines), is_alike=is_alike), values)


@lru_cache(maxsize=64)
def _insert_sql(count: int, *, is_alike: bool) -> str:
    first = row = "(?,?,?,?,?,?,?,?,?,?,?)"
    if is_alike:  # A bare parameter has the number after the greatest before it.
        first, row = "(?6,?,?1,?,?,?2,?3,?,?4,?,?5)", "(?,?,?1,?,?,?2,?3,?,?4,?,?5)"
    return f"INSERT OR REPLACE INTO journal VALUES {','.join((first, *[row] * (count - 1)))}"


def read_lines(connection: sqlite3.Connection, query: LineQuery) -> LineSlice:
    """One slice, of `LINES_READ_MAX` numbers at most. Raises sqlite3.Error."""
    (oldest,) = connection.execute("SELECT min(seq) FROM journal").fetchone()
    if oldest is None or oldest > query.upto:
        return LineSlice((), query.upto, oldest)
    first = max(query.after + 1, oldest)
    last = min(query.upto, first + LINES_READ_MAX - 1)
    asked = query.filter
    where, bound = ["seq BETWEEN ? AND ?"], list[LineValue]((first, last))
    if asked.since_ms is not None:
        where.append("+at_ms >= ?")  # The plus: by number, not by the index of times.
        bound.append(asked.since_ms)
    if asked.until_ms is not None:
        where.append("+at_ms < ?")
        bound.append(asked.until_ms)
    if asked.types:
        where.append(f"type IN ({','.join('?' * len(asked.types))})")
        bound += asked.types
    if asked.plate is not None:
        where.append("(plate = ? OR instr(detail, ?) > 0)")
        bound += (asked.plate, _detail_text((("was", asked.plate),))[1:-1])
    sql = f"SELECT * FROM journal WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?"
    lines = tuple(map(_line, connection.execute(sql, [*bound, query.limit])))
    upto = lines[-1].seq if len(lines) == query.limit else last
    return LineSlice(lines, upto, oldest)


def _line(row: tuple[object, ...]) -> Occurrence:
    """Raises sqlite3.DatabaseError for a row that is not one of ours."""
    *plain, detail = row
    try:
        found = json.loads(str(detail))
        rest = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in found.items()
        )
    except (ValueError, AttributeError) as error:
        raise sqlite3.DatabaseError("a line of the journal is malformed") from error
    line = Occurrence._make((*plain, rest))
    if line.replica is not None and line.replica < 0:
        line = line._replace(replica=line.replica + 2 * _SIGN)
    return line


def forget_lines(connection: sqlite3.Connection, before_ms: int) -> bool:
    """In the open transaction; True if there is more to forget. Raises sqlite3.Error."""
    (top,) = connection.execute("SELECT max(seq) FROM journal").fetchone()
    forgotten = connection.execute(
        "DELETE FROM journal WHERE seq IN"
        " (SELECT seq FROM journal WHERE at_ms < ? ORDER BY at_ms LIMIT ?)",
        (before_ms, LINES_FORGOTTEN_MAX),
    ).rowcount
    if forgotten:
        top = max(top, used_seq(connection))
        value = top.to_bytes(8, "big")
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (META_JOURNAL_SEQ, value))
    return forgotten == LINES_FORGOTTEN_MAX


def used_seq(connection: sqlite3.Connection) -> int:
    """The greatest number when lines were last forgotten; 0: never."""
    sql = "SELECT value FROM meta WHERE key = ?"
    found = connection.execute(sql, (META_JOURNAL_SEQ,)).fetchone()
    return 0 if found is None else int.from_bytes(found[0], "big")


def greatest_seq(connection: sqlite3.Connection) -> int:
    """The greatest number ever used. Visits every page of the table, so that damage shows."""
    # The length of a column that is in no index: else the index would do.
    sql = "SELECT max(seq), sum(length(detail)) FROM journal"
    kept, _ = connection.execute(sql).fetchone()
    return max(kept or 0, used_seq(connection))


def take_over(connection: sqlite3.Connection, path: str) -> None:
    """Copy all lines of another database, which nobody has open, and their journal's name. Raises
    sqlite3.Error."""
    connection.execute("ATTACH DATABASE ? AS old", (path,))
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO journal SELECT * FROM old.journal")
        connection.execute(
            "INSERT OR REPLACE INTO meta SELECT * FROM old.meta WHERE key = ?", (META_JOURNAL_SEQ,)
        )
        connection.execute(
            "INSERT OR REPLACE INTO store SELECT * FROM old.store WHERE key = ?", (STORE_JOURNAL,)
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("DETACH DATABASE old")
