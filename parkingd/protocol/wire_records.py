"""Records and remembered requests as rows and as columns, checked in bulk.

One record alone is a row, [tag, *fields]. Many are columns: the values of one field stand side by
side, seqs and times as differences, origins as places in a table. Columns of 2,500 stays are
parsed, checked and turned into tuples by a dozen calls of C code instead of 2,500 by Python code,
and they deflate to nearly nothing but their causes. Both forms pass the same checks.

Origins of unpacked records are shared objects: one int per replica, not per car.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from typing import Final, TypeAlias, cast

from parkingd.core.events import MATCHED_CONFLICT, MATCHED_NONE
from parkingd.core.ids import REPLICA_MAX, REQUEST_ID_BYTES, SEQ_MAX
from parkingd.core.plates import PLATE_LENGTH_MAX
from parkingd.core.records import (
    EFFECT_FIELDS,
    MARK_FIELDS,
    STAY_FIELDS,
    Mark,
    Record,
    RequestEffect,
    Stay,
)
from parkingd.protocol import checks
from parkingd.protocol.limits import CAUSES_MAX, CHUNK_RECORDS_MAX, GATES_MAX
from parkingd.protocol.wire_events import FLAGS_MAX

Column: TypeAlias = tuple[object, ...]
Columns: TypeAlias = tuple[Column, ...]

TAG_STAY: Final = 0
TAG_MARK: Final = 1
_FIELDS: Final = {TAG_STAY: STAY_FIELDS, TAG_MARK: MARK_FIELDS}

VERB_MAX: Final = 15


def record_row(record: Record) -> Column:
    """The row of one record."""
    return (TAG_STAY if len(record) == STAY_FIELDS else TAG_MARK, *record)


def record_of(row: object) -> Record:
    """The record of one row. Raises WireError."""
    return records_of_rows((row,))[0]


def records_of_rows(rows: object) -> list[Record]:
    """The records of an array of rows, all stays before all marks. Raises WireError."""
    by_tag: dict[int, list[Column]] = {TAG_STAY: [], TAG_MARK: []}
    for row in checks.array(rows, CHUNK_RECORDS_MAX, "rows"):
        if type(row) is not tuple or not row or type(row[0]) is not int or row[0] not in by_tag:
            raise checks.malformed("record")
        if len(row) <= _FIELDS[row[0]]:
            raise checks.malformed("record")
        by_tag[row[0]].append(row)
    records: list[Record] = []
    if stays := by_tag[TAG_STAY]:
        records.extend(_stays(tuple(zip(*stays, strict=False))[1 : STAY_FIELDS + 1]))
    if marks := by_tag[TAG_MARK]:
        records.extend(_marks(tuple(zip(*marks, strict=False))[1 : MARK_FIELDS + 1]))
    return records


def record_columns(records: Sequence[Record]) -> tuple[Column, Column]:
    """Two groups of columns: those of the stays and those of the marks."""
    stays = [record for record in records if len(record) == STAY_FIELDS]
    if len(stays) == len(records):
        return (_packed(stays, 0, 1, 2), ())
    marks = [record for record in records if len(record) == MARK_FIELDS]
    return (_packed(stays, 0, 1, 2), _packed(marks, 0, 1, 2))


def records_of(groups: object) -> list[Record]:
    """All stays, then all marks, each in the order in which they were packed. Raises WireError."""
    stays, marks = checks.fields(groups, 2, "records")[:2]
    records: list[Record] = []
    if stays != ():
        records.extend(_stays(_unpacked(stays, STAY_FIELDS, 0, 1, 2)))
    if marks != ():
        records.extend(_marks(_unpacked(marks, MARK_FIELDS, 0, 1, 2)))
    if len(records) > CHUNK_RECORDS_MAX:
        raise checks.malformed("too many records")
    return records


def effects_of_rows(rows: object) -> list[RequestEffect]:
    """The remembered effects of an array of rows, which is not empty. Raises WireError."""
    columns = zip(
        *[
            checks.fields(row, EFFECT_FIELDS, "request")[:EFFECT_FIELDS]
            for row in checks.array(rows, CHUNK_RECORDS_MAX, "requests")
        ],
        strict=True,
    )
    return _effects(tuple(columns))


def request_columns(requests: Sequence[tuple[bytes, RequestEffect]]) -> Column:
    """Columns: the request ids, then the fields of the effects."""
    return _packed([(request, *effect) for request, effect in requests], 5, 4, 1)


def requests_of(column: object) -> list[tuple[bytes, RequestEffect]]:
    """The inverse of `request_columns`, in the same order. Raises WireError."""
    if column == ():
        return []
    columns = _unpacked(column, EFFECT_FIELDS + 1, 5, 4, 1)
    _binaries(columns[0], "request id")
    return list(zip(cast("tuple[bytes, ...]", columns[0]), _effects(columns[1:]), strict=True))


# --- columns -----------------------------------------------------------------------------------


def _packed(rows: Sequence[Column], seq: int, origin: int, time: int) -> Column:
    """Columns of rows, with the origins' table in front; the arguments are places in a row."""
    if not rows:
        return ()
    columns: list[Column] = list(zip(*rows, strict=True))
    origins = cast("tuple[int, ...]", columns[origin])
    table = tuple(dict.fromkeys(origins))
    place = {replica: index for index, replica in enumerate(table)}
    columns[origin] = tuple(map(place.__getitem__, origins))
    for delta in (seq, time):
        numbers = cast("tuple[int, ...]", columns[delta])
        columns[delta] = tuple(map(sub, numbers, (0, *numbers)))
    return (table, *columns)


def _unpacked(packed: object, count: int, seq: int, origin: int, time: int) -> Columns:
    """``count`` columns of equal length, with origins, seqs and times as they were."""
    group = checks.fields(packed, count + 1, "columns")
    table = checks.array(group[0], CHUNK_RECORDS_MAX, "origins")
    columns = [checks.array(column, CHUNK_RECORDS_MAX, "column") for column in group[1 : count + 1]]
    if len(set(map(len, columns))) != 1 or not columns[0]:
        raise checks.malformed("columns of unequal length")
    places = _integers(columns[origin], 0, len(table) - 1, "origin")
    columns[origin] = tuple(map(table.__getitem__, places))
    for delta in (seq, time):
        differences = _integers(columns[delta], -checks.TIME_MAX, checks.TIME_MAX, "difference")
        columns[delta] = tuple(accumulate(differences))
    return tuple(columns)


def _stays(columns: Columns) -> list[Stay]:
    _heads(columns)
    _optional_binaries(columns[5], "cause")
    for extra in columns[6]:
        if extra is not None:
            _extra(extra)
    return cast("list[Stay]", list(zip(*columns, strict=True)))


def _marks(columns: Columns) -> list[Mark]:
    _heads(columns)
    _optional_binaries(columns[5], "request")
    for causes in columns[6]:
        if causes != ():
            checks.request_ids(causes, CAUSES_MAX, "causes")
    _integers(columns[7], MATCHED_NONE, MATCHED_CONFLICT, "matched")
    _optional_integers(columns[8], checks.WALL_MS_MAX, "since")
    return cast("list[Mark]", list(zip(*columns, strict=True)))


def _heads(columns: Columns) -> None:
    """What stays and marks have in common."""
    _integers(columns[0], 1, SEQ_MAX, "seq")
    _integers(columns[1], 1, REPLICA_MAX, "origin")
    _integers(columns[2], 0, checks.TIME_MAX, "time")
    _plates(columns[3])
    _integers(columns[4], 0, GATES_MAX, "gate")


def _effects(columns: Columns) -> list[RequestEffect]:
    times, verbs, plates, origins, seqs, gates, matched, sinces = columns
    _integers(times, 0, checks.TIME_MAX, "time")
    _integers(verbs, 0, VERB_MAX, "verb")
    for plate in plates:
        checks.text(plate, "plate", PLATE_LENGTH_MAX)
    _integers(origins, 1, REPLICA_MAX, "origin")
    _integers(seqs, 1, SEQ_MAX, "seq")
    _integers(gates, 0, GATES_MAX, "gate")
    _integers(matched, MATCHED_NONE, MATCHED_CONFLICT, "matched")
    _optional_integers(sinces, checks.WALL_MS_MAX, "since")
    return cast("list[RequestEffect]", list(zip(*columns, strict=True)))


def _extra(value: object) -> None:
    if type(value) is not tuple or len(value) != 3:
        raise checks.malformed("extra")
    checks.raw_plate(value[0])
    checks.optional_integer(value[1], 0, checks.WALL_MS_MAX, "since")
    checks.integer(value[2], 0, FLAGS_MAX, "flags")


def _integers(column: Column, low: int, high: int, what: str) -> tuple[int, ...]:
    if set(map(type, column)) != {int}:
        raise checks.malformed(what)
    numbers = cast("tuple[int, ...]", column)
    if min(numbers) < low or max(numbers) > high:
        raise checks.malformed(what)
    return numbers


def _optional_integers(column: Column, high: int, what: str) -> None:
    numbers = tuple(number for number in column if number is not None)
    if numbers:
        _integers(numbers, 0, high, what)


def _binaries(column: Column, what: str) -> None:
    if set(map(type, column)) != {bytes}:
        raise checks.malformed(what)
    if set(map(len, cast("tuple[bytes, ...]", column))) != {REQUEST_ID_BYTES}:
        raise checks.malformed(what)


def _optional_binaries(column: Column, what: str) -> None:
    present = tuple(item for item in column if item is not None) if None in column else column
    if present:
        _binaries(present, what)


def _plates(column: Column) -> None:
    if set(map(type, column)) != {str}:
        raise checks.malformed("plate")
    plates = cast("tuple[str, ...]", column)
    lengths = set(map(len, plates))
    if min(lengths) < 1 or max(lengths) > PLATE_LENGTH_MAX:
        raise checks.malformed("plate")
    together = "".join(plates)
    if together.isascii():
        if not together.isalnum() or together != together.upper():
            raise checks.malformed("plate")
    else:
        for plate in plates:
            checks.plate(plate)
