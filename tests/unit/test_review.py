"""The review file of a node that was let go while it was cut off."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from parkingd.adapters.review import write_review
from parkingd.cli.importing import BadRow, read_rows
from parkingd.core.records import Stay
from parkingd.errors import StorageError
from parkingd.protocol.codec import pack_record

MS = 1_790_000_000_123
STAYS: list[Stay] = [
    (4, 7, MS << 16, "ABC123", 1, b"c" * 16, None),
    (5, 7, (MS + 5) << 16, "MÜKR1", 3, None, ("mü-kr 1", MS - 60_000, 0)),
]


def test_a_review_file_can_be_imported_as_it_is(tmp_path: Path):
    path = write_review(tmp_path, [pack_record(stay) for stay in STAYS], wall_ms=MS)
    assert path.stat().st_mode & 0o777 == 0o600
    rows = list(read_rows(io.BytesIO(path.read_bytes()), lambda _: None))
    assert not [row for row in rows if isinstance(row, BadRow)]
    assert [(row.plate, row.gate, row.since_ms) for row in rows] == [
        ("ABC123", 1, MS),
        ("MÜKR1", 3, MS - 60_000),
    ]


def test_a_review_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot write"):
        write_review(tmp_path / "missing", [pack_record(STAYS[0])], wall_ms=MS)
