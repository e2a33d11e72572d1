"""The simulator's disk: what `SqliteStore` promises, as plain dicts and without a thread.

Batches wait until the simulator calls `commit_next`, which applies them at that moment; nothing
that waits is on the disk. A crash loses what waits, except that with ``torn`` the part that was
being committed may be there although nobody was told: whole batches in their order, and never a
part of a transaction, because SQLite's transactions are atomic.

The disk is stricter than SQLite where a node must not rely on kindness: two runs may not begin at
the same event, and tokens must ascend.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from operator import attrgetter

from parkingd.core.ids import ReplicaId
from parkingd.protocol.effects import Persist, StartOver, StoredState
from parkingd.protocol.facts import Persisted, StorageFailed, StorageRecovered
from parkingd.protocol.messages import Run


@dataclass(slots=True)
class Image:
    """The committed content of a disk."""

    replica: ReplicaId | None = None
    """None: the next start takes a new one."""
    doubt: str | None = None
    """Why, for the warning."""
    incarnation: int = 0
    runs: dict[ReplicaId, list[Run]] = field(default_factory=dict)
    """By origin, ascending: runs do not overlap."""
    records: dict[tuple[ReplicaId, int], bytes] = field(default_factory=dict)
    requests: dict[bytes, bytes] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)
    pending: dict[int, bytes] = field(default_factory=dict)
    journal_seq: int = 0
    """Of the journal only its greatest number is kept."""

    def copy(self) -> Image:
        """An image that shares nothing that changes."""
        return replace(
            self,
            runs={origin: list(runs) for origin, runs in self.runs.items()},
            records=dict(self.records),
            requests=dict(self.requests),
            meta=dict(self.meta),
            pending=dict(self.pending),
        )

    def apply(self, batch: Persist) -> None:
        """Change the image as the batch says, in the order of its fields."""
        if batch.wipe:
            for kept in (self.runs, self.records, self.requests):
                kept.clear()
        for run in batch.runs:
            runs = self.runs.setdefault(run.origin, [])
            at = len(runs)
            if runs and run.first <= runs[-1].first:
                at = bisect_left(runs, run.first, key=attrgetter("first"))
                assert runs[at].first != run.first, f"stored twice: {run}"
            runs.insert(at, run)
        for origin, floor in batch.floors:
            runs = self.runs.get(origin, [])
            del runs[: bisect_left(runs, floor + 1, key=attrgetter("last"))]
        for origin, seq, packed in batch.records:
            self.records[origin, seq] = packed
        for dot in batch.dropped:
            self.records.pop(dot, None)
        self.requests.update(batch.requests)
        for request in batch.expired:
            self.requests.pop(request, None)
        for number in batch.pending_done:
            self.pending.pop(number, None)
        for line in batch.journal:
            assert line.seq > self.journal_seq, f"line {line.seq} after {self.journal_seq}"
            self.journal_seq = line.seq
        self.meta.update(batch.meta)


class FakeDisk:
    """The disk of one simulated machine. ``rng`` draws replica ids."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._image = Image()
        self._waiting: list[Persist] = []
        self._failure: str | None = None
        self._failure_told = False
        self._last_token = 0

    @property
    def queued(self) -> int:
        """Batches submitted and not yet committed."""
        return len(self._waiting)

    @property
    def journal_seq(self) -> int:
        """The greatest number of a line that is committed."""
        return self._image.journal_seq

    def load(self, wall_ms: int) -> StoredState:
        """What a start finds; its incarnation is on the disk when this returns."""
        image = self._image
        fresh = not (image.runs or image.records or image.requests or image.meta)
        if image.replica is None:
            created = (wall_ms // 1000) & 0xFFFF_FFFF
            image.replica = created << 32 | self._rng.randrange(1, 1 << 32)
        warnings = () if image.doubt is None else (f"new replica id: {image.doubt}",)
        image.doubt = None
        image.incarnation = max(wall_ms, image.incarnation + 1)
        self._last_token = 0
        return StoredState(
            replica=image.replica,
            incarnation=image.incarnation,
            fresh=fresh,
            runs=tuple(run for origin in sorted(image.runs) for run in image.runs[origin]),
            records=tuple((*dot, packed) for dot, packed in sorted(image.records.items())),
            requests=tuple(sorted(image.requests.items())),
            meta=dict(image.meta),
            pending=tuple(sorted(image.pending.items())),
            journal_seq=image.journal_seq,
            warnings=warnings,
        )

    def submit(self, batch: Persist) -> None:
        """Queue a batch."""
        assert batch.token > self._last_token, f"token {batch.token} after {self._last_token}"
        self._last_token = batch.token
        self._waiting.append(batch)

    def commit_next(self) -> list[Persisted | StorageFailed | StorageRecovered]:
        """Commit everything that waits as one group; what the store would tell the daemon."""
        committable = self._committable()
        if not committable:
            return []
        if self._failure is not None:
            if self._failure_told:
                return []
            self._failure_told = True
            return [StorageFailed(self._failure)]
        facts: list[Persisted | StorageFailed | StorageRecovered] = []
        if self._failure_told:
            self._failure_told = False
            facts.append(StorageRecovered())
        newest = self._waiting[committable - 1]
        self._commit(committable)
        facts.append(Persisted(newest.token, newest.own_seq))
        return facts

    def _committable(self) -> int:
        """How many waiting batches end in a complete transaction."""
        count = len(self._waiting)
        while count and self._waiting[count - 1].open_ended:
            count -= 1
        return count

    def _commit(self, count: int) -> None:
        for batch in self._waiting[:count]:
            self._image.apply(batch)
        del self._waiting[:count]

    def crash(self, rng: random.Random, *, keep: bool, torn: bool) -> None:
        """Lose power. ``keep`` False: the disk is lost too, and the next start is another replica.

        ``torn``: of what was not yet acknowledged, any number of whole transactions may have
        reached the disk, drawn from ``rng``.
        """
        if torn and self._failure is None:
            ends = [0] + [
                count for count, batch in enumerate(self._waiting, 1) if not batch.open_ended
            ]
            self._commit(rng.choice(ends))
        self._waiting.clear()
        self._failure_told = False
        if not keep:
            self._image = Image()

    def close(self) -> bool:
        """Stop in order: commit what is complete, unless the disk fails. True: all of it is in."""
        if self._failure is None:
            self._commit(self._committable())
        complete = not self._waiting
        self._waiting.clear()
        self._failure_told = False
        return complete

    def begin_again(self, start_over: StartOver) -> None:
        """The next `load` is another replica, as `succession.begin_again` makes it."""
        assert not self._waiting, "close the disk first"
        if not start_over.keep:
            self._image = Image(
                incarnation=self._image.incarnation,
                pending=dict(enumerate(start_over.pending, start=1)),
                journal_seq=self._image.journal_seq,
            )
        self._image.replica = None
        self._image.doubt = start_over.reason.value

    def snapshot(self) -> Image:
        """A copy of what is committed."""
        return self._image.copy()

    def restore(self, older: Image, *, noticed: bool) -> None:
        """Put an earlier snapshot in place, while no node runs on this disk.

        ``noticed``: it shows in the fingerprint, as with a restored backup or a copied directory,
        and the next start takes a new id. Not noticed is a virtual machine that was set back.
        """
        self._waiting.clear()
        self._failure_told = False
        self._image = older.copy()
        if noticed:
            self._image.replica = None
            self._image.doubt = "the data directory or its database is a copy or was restored"

    def fail(self, reason: str) -> None:
        """From now on every commit fails: the disk is full."""
        self._failure = reason

    def recover(self) -> None:
        """Commits work again."""
        self._failure = None
