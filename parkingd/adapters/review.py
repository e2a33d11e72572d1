"""The review file: entries of a replica that was let go, for an operator to judge.

A node that was cut off while the others let its replica go begins anew. What nobody else had
recorded is never merged by itself: the cars may have left unseen. It is written as CSV in the form
that `parkingd-ctl import` reads.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from parkingd.adapters.document_values import rfc3339
from parkingd.core.stays import stay_since_ms
from parkingd.errors import StorageError
from parkingd.protocol.codec import unpack_rows_untrusted


def write_review(folder: Path, packed: Sequence[bytes], *, wall_ms: int) -> Path:
    """Write these stays to a new file, mode 0600, on disk when this returns. StorageError."""
    path = folder / f"review-{wall_ms}.csv"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("plate", "gate", "time"))
            for stay in unpack_rows_untrusted(packed):
                assert len(stay) == 7
                rows.writerow((stay[3], stay[4], rfc3339(stay_since_ms(stay))))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", "make room there and start again"
        ) from error
    return path
