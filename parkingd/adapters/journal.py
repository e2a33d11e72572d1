"""Who reads the journal: one answer for each question, at once or when something has happened.

How it works. A reader names the number up to which it knows everything and gets what came after.
The newest `RING_LINES` lines are in memory; older ones are read from the disk, slice by slice, by
the thread that writes it. A reader that has nothing to get waits: it is an entry in a dict until a
line comes that it asked for, or until its time is up. The daemon keeps nothing of a reader between
two questions, so that one that is slow, or gone, costs nothing: it asks again from where it was,
and when that is not kept any more it is told how many lines it has missed.

Lines reach memory when they are on the disk, in order and without a gap, so that ``last`` and
``next`` mean the same after a restart.

Invariants: every question is answered exactly once, at the latest when this is closed; at most
`WAITING_MAX` wait; no line that is too old to be kept is told, whether the disk has forgotten it
yet or not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from parkingd.adapters.document_values import Document, dot_document, rfc3339
from parkingd.adapters.journal_table import LineQuery, LineSlice
from parkingd.core.ids import replica_hex
from parkingd.errors import StorageError
from parkingd.protocol.command_parsing import LineFilter, ReadJournal
from parkingd.protocol.effects import Occurrence
from parkingd.protocol.outcomes import ErrorCode, Failure

RING_LINES: Final = 2_048
"""Lines in memory: some minutes of a busy lot, about 1 MB. Half: watchers that are a little behind
read the disk. Double: 10 bytes a car more in a lot of 100,000."""

WAITING_MAX: Final = 256
"""Readers that wait, over all clients."""


READ_S_MAX: Final = 2.0
"""So long one question may keep the disk busy, between its commits. What was found by then is the
answer, and ``next`` says how far it has looked."""


class LineStore(Protocol):
    """Where lines are that are not in memory any more."""

    def read_journal(
        self, query: LineQuery, on_done: Callable[[LineSlice | StorageError], None]
    ) -> None:
        """``on_done`` may be called from another thread, later or within this; never after the
        store was closed."""


class Answers(Protocol):
    """The control server, as far as it is needed here."""

    def reply(self, handle: int, outcome: Failure) -> None:
        """Answer with a failure."""

    def reply_document(self, handle: int, kind: str, body: Document) -> None:
        """Answer."""


@dataclass(slots=True)
class _Reader:
    """One question that has not been answered."""

    handle: int
    asked: ReadJournal
    position: int
    """Everything up to here was looked at."""
    found: list[Occurrence]
    missed: int | None = None
    """None: not known yet."""
    until: asyncio.TimerHandle | None = None
    begun_s: float = 0.0
    """In the loop's time."""
    slices: int = 0
    """Asked of the disk. Only the answer to the last one counts."""


class JournalReader:
    """Answers the verb ``journal`` of one daemon."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: Callable[[], LineStore],
        answers: Answers,
        name: str,
        last_seq: int,
    ) -> None:
        """``store``: the present one. ``name``: of the journal. ``last_seq``: the greatest number
        on the disk at start."""
        self._loop = loop
        self._store = store
        self._answers = answers
        self._name = name
        self._ring: deque[Occurrence] = deque(maxlen=RING_LINES)
        self._last = last_seq
        self._before_ms = 0
        self._reading: dict[int, _Reader] = {}
        self._waiting: dict[int, _Reader] = {}

    @property
    def last_seq(self) -> int:
        """The number of the newest line."""
        return self._last

    @property
    def waiting(self) -> int:
        """Readers that wait for something to happen."""
        return len(self._waiting)

    # --- what the node tells -------------------------------------------------------------

    def told(self, lines: Sequence[Occurrence]) -> None:
        """These are on the disk now."""
        if not lines:
            return
        if lines[0].seq != self._last + 1:
            self._ring.clear()  # What lies between is on the disk only: a crash came before this.
        self._ring.extend(lines)
        self._last = lines[-1].seq
        for reader in list(self._waiting.values()):
            self._go_on(reader)

    def forget(self, before_ms: int) -> None:
        """Lines from before this wall time are too old to be told."""
        self._before_ms = before_ms
        while self._ring and self._ring[0].at_ms < before_ms:
            self._ring.popleft()

    # --- what readers ask ----------------------------------------------------------------

    def ask(self, handle: int, asked: ReadJournal) -> None:
        """One answer follows."""
        if len(self._reading) + len(self._waiting) >= WAITING_MAX:
            reason = f"{WAITING_MAX} readers of the journal wait already"
            failure = Failure(ErrorCode.OVERLOADED, reason, "try again in a moment")
            self._answers.reply(handle, failure)
            return
        after = self._last if asked.after is None else asked.after
        reader = _Reader(handle, asked, after, [], begun_s=self._loop.time())
        if after > self._last:  # Another journal: that disk is gone. It begins with the first line.
            self._answer(reader, next_=0)
            return
        self._reading[handle] = reader
        self._go_on(reader)

    def start_over(self) -> None:
        """The store is another one: what the earlier one was asked is asked again."""
        for reader in list(self._reading.values()):
            self._go_on(reader)

    def close(self) -> None:
        """Answer everybody with what there is; nothing more is answered."""
        for reader in [*self._reading.values(), *self._waiting.values()]:
            self._answer(reader)

    # --- one reader ----------------------------------------------------------------------

    @property
    def _first(self) -> int:
        """The number of the oldest line in memory; of the next one if there is none."""
        return self._last + 1 - len(self._ring)

    def _go_on(self, reader: _Reader) -> None:
        """Look at what it has not seen; answer, read on, or let it wait."""
        if reader.position + 1 < self._first:
            limit = reader.asked.limit - len(reader.found)
            query = LineQuery(reader.position, self._first - 1, limit, reader.asked.filter)
            self._stop_waiting(reader)
            self._reading[reader.handle] = reader
            reader.slices += 1
            number = reader.slices
            self._store().read_journal(query, lambda found: self._in_loop(reader, number, found))
            return
        if reader.missed is None:
            reader.missed = 0
        skipped = reader.position + 1 - self._first
        for line in islice(self._ring, skipped, None):
            if len(reader.found) >= reader.asked.limit:
                break
            reader.position = line.seq
            if self._matches(line, reader.asked.filter):
                reader.found.append(line)
        if reader.found or not reader.asked.wait_s:
            self._answer(reader)
        elif reader.until is None:
            del self._reading[reader.handle]
            self._waiting[reader.handle] = reader
            reader.until = self._loop.call_later(reader.asked.wait_s, self._answer, reader)

    def _matches(self, line: Occurrence, asked: LineFilter) -> bool:
        since_ms, until_ms, types, plate = asked
        if line.at_ms < self._before_ms or (since_ms is not None and line.at_ms < since_ms):
            return False
        if until_ms is not None and line.at_ms >= until_ms:
            return False
        if types and line.type not in types:
            return False
        return plate is None or plate == line.plate or ("was", plate) in line.detail

    def _in_loop(self, reader: _Reader, number: int, found: LineSlice | StorageError) -> None:
        """From the writer thread, or from within the loop."""
        with contextlib.suppress(RuntimeError):  # The loop has ended; so has the client's wait.
            self._loop.call_soon_threadsafe(self._read, reader, number, found)

    def _read(self, reader: _Reader, number: int, found: LineSlice | StorageError) -> None:
        """The disk has answered."""
        if self._reading.get(reader.handle) is not reader or number != reader.slices:
            return  # This is closed, or the store is another one.
        if isinstance(found, StorageError):
            self._drop(reader)
            failure = Failure(ErrorCode.STORAGE_FAILED, str(found), "see the log of this node")
            self._answers.reply(reader.handle, failure)
            return
        oldest = self._first if found.oldest is None else found.oldest
        if reader.missed is None:
            reader.missed = max(0, oldest - 1 - reader.position)
        reader.found += (line for line in found.lines if line.at_ms >= self._before_ms)
        reader.position = max(reader.position, found.upto)
        is_late = self._loop.time() - reader.begun_s >= READ_S_MAX
        if is_late or len(reader.found) >= reader.asked.limit:
            self._answer(reader)
        else:
            self._go_on(reader)

    def _stop_waiting(self, reader: _Reader) -> None:
        self._waiting.pop(reader.handle, None)
        if reader.until is not None:
            reader.until.cancel()
            reader.until = None

    def _drop(self, reader: _Reader) -> None:
        self._stop_waiting(reader)
        self._reading.pop(reader.handle, None)

    def _answer(self, reader: _Reader, next_: int | None = None) -> None:
        self._drop(reader)
        body = {
            "items": [line_document(line) for line in reader.found],
            "next": reader.position if next_ is None else next_,
            "missed": reader.missed or 0,
            "last": self._last,
            "journal": self._name,
        }
        self._answers.reply_document(reader.handle, "EventList", body)


def line_document(line: Occurrence) -> Document:
    """One event as scripts see it: what it lacks is left out."""
    seq, at_ms, type_, plate, gate, member, replica, event, reason, request, detail = line
    item: Document = {"seq": seq, "time": rfc3339(at_ms), "type": type_}
    optional = (("plate", plate), ("gate", gate), ("member", member), ("reason", reason))
    item.update((key, value) for key, value in optional if value is not None)
    if replica is not None:
        item["replica"] = replica_hex(replica)
        if event is not None:
            item["dot"] = dot_document(replica, event)
    if request is not None:
        item["request"] = request.hex()
    item.update((key, value) for key, value in detail if value is not None)
    return item
