"""``import``: many entries from CSV or JSON lines, repeatable without doing anything twice.

The file is read twice: once for its hash, once for its rows, so that its size is no matter. The
request id of a row is the file's hash and the row's line number: the same file imported again,
after a time-out or by two people, is skipped row by row. Rows go in batches, several under way at
a time, so that the daemon's disk is never idle; a row that cannot be read is reported with its
line and does not stop the others.

Source: the command contract, ``import FILE``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import datetime
from typing import IO, Any, Final, NamedTuple

from parkingd.adapters.client import GRACE_S, ControlClient, Trouble
from parkingd.adapters.document_values import WALL_MS_MAX
from parkingd.cli.ctl_session import EXIT_DONE, EXIT_NO, Session, local_document
from parkingd.cli.render import printable
from parkingd.core.ids import REQUEST_ID_BYTES
from parkingd.errors import UsageError
from parkingd.protocol.limits import IMPORT_ROWS_MAX, RAW_LENGTH_MAX

REQUESTS_UNDER_WAY: Final = 4
"""While one is committed, one is applied and the next wait in the socket."""

BATCH_BYTES_MAX: Final = 48 * 1024
"""Of plates and what goes with them; leaves room in a 64 KiB frame."""
ROW_BYTES: Final = 48
"""A row without its plate, at most."""

LINE_BYTES_MAX: Final = 4_096
READ_BYTES: Final = 1024 * 1024
SPOOL_BYTES_MAX: Final = 16 * 1024 * 1024
"""Standard input up to this size stays in memory."""

FAILURES_SHOWN_MAX: Final = 100
HASH_BYTES: Final = 12
LINE_NUMBER_BYTES: Final = REQUEST_ID_BYTES - HASH_BYTES


class Row(NamedTuple):
    """One car of the file."""

    line: int
    plate: str
    gate: int
    since_ms: int | None


class BadRow(NamedTuple):
    """A line that is none, and why."""

    line: int
    reason: str


class _Tally:
    """What became of the rows so far."""

    def __init__(self) -> None:
        self.accepted = 0
        self.skipped = 0
        self.failed_count = 0
        self.failed: list[BadRow] = []
        self.warnings: dict[str, None] = {}
        self.node: str | None = None

    def fail(self, row: BadRow) -> None:
        self.failed_count += 1
        if len(self.failed) < FAILURES_SHOWN_MAX:
            self.failed.append(row)

    def add(self, body: dict[str, Any]) -> None:
        self.accepted += body["accepted"]
        self.skipped += body["skipped"]
        for failure in body["failed"]:
            self.fail(BadRow(failure["line"], failure["reason"]))
        self.warnings.update(dict.fromkeys(body.get("warnings", ())))

    def body(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "skipped": self.skipped,
            "failed": [row._asdict() for row in sorted(self.failed)],
            "failed_count": self.failed_count,
            "warnings": list(self.warnings),
        }


def run_import(session: Session) -> int:
    """The exit status: 1 when a row failed, else that of what stopped it, else 0."""
    client = session.connect()
    if isinstance(client, Trouble):
        return session.fail(client)
    tally = _Tally()
    tally.node = client.node
    with ExitStack() as stack:
        source = stack.enter_context(_open(session.args.file))
        digest, size = _hash(source)
        show_progress = stack.enter_context(_progress(session, size))
        rows = read_rows(source, show_progress)
        trouble = _send_all(client, session.timeout_s, rows, digest, tally)
    document = local_document("ImportResult", tally.body(), tally.node)
    session.show(document)
    if session.output in ("table", "tsv"):
        for row in sorted(tally.failed):
            print(f"{session.args.file}:{row.line}: {printable(row.reason)}", file=session.err)
        if tally.failed_count > len(tally.failed):
            more = tally.failed_count - len(tally.failed)
            print(f"... and {more} more rows that failed", file=session.err)
    if trouble is not None:
        hint = "import the same file again: rows already recorded are skipped"
        return session.fail(trouble._replace(hint=f"{trouble.hint}; {hint}".lstrip("; ")))
    return EXIT_NO if tally.failed_count else EXIT_DONE


def _send_all(
    client: ControlClient,
    timeout_s: float,
    rows: Iterator[Row | BadRow],
    digest: bytes,
    tally: _Tally,
) -> Trouble | None:
    """Everything, some requests ahead of their answers; what stopped it, if anything did."""
    batches = _batches(rows, digest, tally)
    under_way: set[int] = set()
    more = True
    while True:
        while more and len(under_way) < REQUESTS_UNDER_WAY:
            batch = next(batches, None)
            if batch is None:
                more = False
            else:
                under_way.add(client.send("import_rows", {"rows": batch}, timeout_s))
        if not under_way:
            return None
        reply = client.receive(time.monotonic() + timeout_s + GRACE_S)
        if isinstance(reply, Trouble):
            return reply
        if reply.id in under_way:
            under_way.remove(reply.id)
            tally.node = reply.node
            tally.add(reply.body)


def _batches(
    rows: Iterator[Row | BadRow], digest: bytes, tally: _Tally
) -> Iterator[list[tuple[object, ...]]]:
    batch: list[tuple[object, ...]] = []
    batch_bytes = 0
    for row in rows:
        if isinstance(row, BadRow):
            tally.fail(row)
            continue
        row_bytes = len(row.plate.encode()) + ROW_BYTES
        if len(batch) == IMPORT_ROWS_MAX or batch_bytes + row_bytes > BATCH_BYTES_MAX:
            yield batch
            batch, batch_bytes = [], 0
        batch.append((*row, digest + row.line.to_bytes(LINE_NUMBER_BYTES, "big")))
        batch_bytes += row_bytes
    if batch:
        yield batch


def read_rows(source: IO[bytes], show_progress: Callable[[int], None]) -> Iterator[Row | BadRow]:
    """Every row of the file; empty lines and a CSV header are none."""
    parse: Callable[[int, str], Row | BadRow] | None = None
    for line, raw in _lines(source, show_progress):
        if raw is None:
            yield BadRow(line, f"longer than {LINE_BYTES_MAX} bytes")
            continue
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            yield BadRow(line, "not UTF-8")
            continue
        if not text:
            continue
        if parse is None:
            parse = _parser_for(text)
            if isinstance(parse, _CsvRows) and parse.has_header:
                continue
        yield parse(line, text)


def _lines(
    source: IO[bytes], show_progress: Callable[[int], None]
) -> Iterator[tuple[int, bytes | None]]:
    """Line numbers from 1 and lines; None for one that is too long."""
    line = 0
    while raw := source.readline(LINE_BYTES_MAX + 1):
        line += 1
        length = len(raw)
        whole = length <= LINE_BYTES_MAX
        while len(raw) == LINE_BYTES_MAX + 1 and not raw.endswith(b"\n"):
            raw = source.readline(LINE_BYTES_MAX + 1)
            length += len(raw)
        show_progress(length)
        yield line, raw if whole else None


def _parser_for(first: str) -> Callable[[int, str], Row | BadRow]:
    return _json_row if first.startswith("{") else _CsvRows(first)


class _CsvRows:
    """Rows of a CSV file: by the names in its header, else plate, gate and perhaps a time."""

    def __init__(self, first: str) -> None:
        names = [field.strip().casefold() for field in _csv_fields(first) or ()]
        self.has_header = "plate" in names and "gate" in names
        self._width = len(names) if self.has_header else 3
        self._plate, self._gate = 0, 1
        self._time: int | None = 2
        if self.has_header:
            self._plate, self._gate = names.index("plate"), names.index("gate")
            self._time = names.index("time") if "time" in names else None

    def __call__(self, line: int, text: str) -> Row | BadRow:
        fields = _csv_fields(text)
        if fields is None:
            return BadRow(line, "broken quotes")
        if len(fields) <= max(self._plate, self._gate) or len(fields) > self._width:
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            return BadRow(line, f"{count}, expected plate,gate[,time]")
        gate = fields[self._gate].strip()
        number = int(gate) if gate.isascii() and gate.isdecimal() and len(gate) <= 9 else None
        at = fields[self._time] if self._time is not None and self._time < len(fields) else ""
        return _checked(line, fields[self._plate], number, at.strip())


def _csv_fields(text: str) -> list[str] | None:
    """None for broken quotes. A row is a line: a plate has no line break in it."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True), None)
    except csv.Error:
        return None


def _json_row(line: int, text: str) -> Row | BadRow:
    try:
        fields: object = json.loads(text)
    except (ValueError, RecursionError):
        return BadRow(line, "not JSON")
    match fields:
        case {"plate": str(plate), "gate": gate, **others}:
            return _checked(line, plate, gate, others.get("time"))
        case _:
            return BadRow(line, "not an object with plate and gate")


def _checked(line: int, plate: str, gate: object, at: object) -> Row | BadRow:
    """What the daemon would refuse together with the whole batch is refused here, alone."""
    plate = plate.strip()
    if not plate or len(plate) > RAW_LENGTH_MAX or not _is_unicode(plate):
        return BadRow(line, "not a plate")
    if not isinstance(gate, int) or isinstance(gate, bool) or not 1 <= gate < 2**31:
        return BadRow(line, "not a gate number")
    if at in (None, ""):
        return Row(line, plate, gate, None)
    since_ms = _wall_ms(at)
    if since_ms is None:
        return BadRow(line, "the time is not like 2026-08-01T12:00:00Z")
    return Row(line, plate, gate, since_ms)


def _is_unicode(text: str) -> bool:
    """JSON can name half a surrogate pair, which no encoding can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wall_ms(at: object) -> int | None:
    """RFC 3339 with its zone, as milliseconds since 1970."""
    if not isinstance(at, str):
        return None
    try:
        moment = datetime.fromisoformat(at)
        wall_ms = round(moment.timestamp() * 1_000)
    except (ValueError, OverflowError):
        return None
    return wall_ms if moment.tzinfo is not None and 0 <= wall_ms <= WALL_MS_MAX else None


def _open(name: str) -> AbstractContextManager[IO[bytes]]:
    """The file, or a copy of what can be read only once. Raises UsageError."""
    try:
        if name == "-":
            return _spooled(sys.stdin.buffer)
        source = open(name, "rb")  # noqa: SIM115 - the caller closes it
        if source.seekable():
            return source
        with source:
            return _spooled(source)
    except OSError as error:
        raise UsageError(
            f"cannot read {name}: {error.strerror}", "name a file that can be read, or - for input"
        ) from error


def _spooled(source: IO[bytes]) -> IO[bytes]:
    copy = tempfile.SpooledTemporaryFile(SPOOL_BYTES_MAX)  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(source, copy, READ_BYTES)
    copy.seek(0)
    return copy


def _hash(source: IO[bytes]) -> tuple[bytes, int]:
    """The first bytes of the file's hash, and its size; rewinds it. Raises UsageError."""
    hashed = hashlib.blake2b()
    size = 0
    try:
        while block := source.read(READ_BYTES):
            hashed.update(block)
            size += len(block)
        source.seek(0)
    except OSError as error:
        raise UsageError(
            f"cannot read the file: {error.strerror}", "try again, or copy it elsewhere first"
        ) from error
    return hashed.digest()[:HASH_BYTES], size


def _progress(session: Session, size: int) -> AbstractContextManager[Callable[[int], None]]:
    """Takes note of bytes read; shows them as a bar where people look at it."""
    if session.err.isatty() and session.output in ("table", "tsv"):
        from parkingd.cli.progress import progress_bar

        return progress_bar(size)
    return nullcontext(lambda count: None)
