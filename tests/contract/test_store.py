"""What a node may rely on from its disk, on the real one and on the simulator's."""

from __future__ import annotations

import queue
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from parkingd.adapters import succession
from parkingd.adapters.data_dir import DataDir
from parkingd.adapters.store import SqliteStore
from parkingd.adapters.succession import begin_again
from parkingd.core.ids import REPLICA_MAX
from parkingd.protocol.effects import Occurrence, Persist, StartOver, StartOverReason, StoredState
from parkingd.protocol.facts import Fact, Persisted
from parkingd.protocol.messages import Run
from tests.sim.disk import FakeDisk

WALL_MS = 1_790_000_000_000
A, B = 7, REPLICA_MAX - 1
"""B does not fit a signed 64-bit integer."""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that other tests keep busy is no news."""
    monkeypatch.setattr(succession, "SLOW_COMMIT_MS", 60_000)


class Bench(ABC):
    """One disk and the node that comes and goes on it."""

    @abstractmethod
    def start(self, wall_ms: int = WALL_MS) -> StoredState: ...

    @abstractmethod
    def submit(self, batch: Persist) -> None: ...

    @abstractmethod
    def commit(self) -> list[Fact]:
        """Wait until all complete transactions are committed; the facts heard meanwhile."""

    @abstractmethod
    def crash(self) -> None: ...

    @abstractmethod
    def close(self) -> bool: ...

    @abstractmethod
    def begin_again(self, start_over: StartOver) -> None: ...


class SqliteBench(Bench):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: queue.SimpleQueue[Fact] = queue.SimpleQueue()
        self.data_dir: DataDir | None = None
        self.store: SqliteStore | None = None
        self.submitted: list[Persist] = []

    def start(self, wall_ms: int = WALL_MS) -> StoredState:
        self.data_dir = DataDir.open(self.path, cluster="c", name="n")
        self.store, state = SqliteStore.open(self.data_dir, wall_ms=wall_ms, on_fact=self.facts.put)
        self.submitted = []
        return state

    def submit(self, batch: Persist) -> None:
        assert self.store is not None
        self.submitted.append(batch)
        self.store.submit(batch)

    def commit(self) -> list[Fact]:
        complete = [batch.token for batch in self.submitted if not batch.open_ended]
        heard: list[Fact] = []
        while complete:
            heard.append(self.facts.get(timeout=20))
            if isinstance(heard[-1], Persisted) and heard[-1].token == complete[-1]:
                break
        self.submitted = []
        return heard

    def crash(self) -> None:
        """What a loss of power leaves: the files as they are now, whatever happens after."""
        self.commit()
        names = ["parkingd.db", "parkingd.db-wal"]
        left = {name: (self.path / name).read_bytes() for name in names}
        self.close()
        for name, content in left.items():
            (self.path / name).write_bytes(content)

    def close(self) -> bool:
        assert self.store is not None
        assert self.data_dir is not None
        complete = self.store.close(20)
        self.data_dir.close()
        self.store = None
        return complete

    def begin_again(self, start_over: StartOver) -> None:
        data_dir = DataDir.open(self.path, cluster="c", name="n")
        begin_again(data_dir, start_over, wall_ms=WALL_MS)
        data_dir.close()


class FakeBench(Bench):
    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.disk = FakeDisk(self.rng)

    def start(self, wall_ms: int = WALL_MS) -> StoredState:
        return self.disk.load(wall_ms)

    def submit(self, batch: Persist) -> None:
        self.disk.submit(batch)

    def commit(self) -> list[Fact]:
        return list(self.disk.commit_next())

    def crash(self) -> None:
        self.commit()
        self.disk.crash(self.rng, keep=True, torn=False)

    def close(self) -> bool:
        return self.disk.close()

    def begin_again(self, start_over: StartOver) -> None:
        self.disk.begin_again(start_over)


@pytest.fixture(params=["sqlite", "fake"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "fake":
        yield FakeBench()
        return
    sqlite = SqliteBench(tmp_path / "n")
    yield sqlite
    if sqlite.store is not None:
        sqlite.close()


def events(state: StoredState) -> list[tuple[int, int, bytes]]:
    """What the log holds, however it is cut into runs."""
    return [
        (run.origin, seq, event)
        for run in state.runs
        for seq, event in enumerate(run.events, run.first)
    ]


def content(state: StoredState) -> tuple[object, ...]:
    """Everything that is the node's."""
    return (events(state), state.records, state.requests, state.meta, state.pending)


def run(origin: int, first: int, last: int) -> Run:
    return Run(origin, first, tuple(b"%d/%d" % (origin, seq) for seq in range(first, last + 1)))


def test_a_new_disk_is_fresh_and_empty(bench: Bench) -> None:
    state = bench.start()
    assert state.fresh
    assert content(state) == ([], (), (), {}, ())
    assert state.warnings == ()
    assert 0 < state.replica <= REPLICA_MAX
    assert state.replica >> 32 == WALL_MS // 1000


def test_everything_committed_comes_back_in_order(bench: Bench) -> None:
    bench.start()
    bench.submit(
        Persist(
            runs=(run(B, 1, 2), run(A, 5, 7)),
            records=((B, 2, b"b2"), (A, 9, b"a9"), (A, 1, b"a1")),
            requests=((b"r" * 16, b"effect"),),
            meta=(("context", b"\x00\x01"), ("hybrid", b"9")),
            token=1,
        )
    )
    bench.submit(Persist(runs=(run(A, 1, 4),), token=2))
    bench.commit()
    bench.close()
    state = bench.start()
    assert not state.fresh
    assert [(origin, seq) for origin, seq, _ in events(state)] == [
        *((A, seq) for seq in range(1, 8)),
        (B, 1),
        (B, 2),
    ]
    assert events(state)[0] == (A, 1, b"7/1")
    assert state.records == ((A, 1, b"a1"), (A, 9, b"a9"), (B, 2, b"b2"))
    assert state.requests == ((b"r" * 16, b"effect"),)
    assert state.meta == {"context": b"\x00\x01", "hybrid": b"9"}


def test_the_replica_stays_and_the_incarnation_grows_even_if_the_clock_goes_back(
    bench: Bench,
) -> None:
    first = bench.start(WALL_MS)
    bench.close()
    second = bench.start(WALL_MS - 5_000)
    bench.crash()
    third = bench.start(WALL_MS + 5_000)
    assert first.replica == second.replica == third.replica
    assert [s.incarnation for s in (first, second, third)] == [WALL_MS, WALL_MS + 1, WALL_MS + 5000]
    assert second.warnings == third.warnings == ()


def test_persisted_names_the_newest_batch_and_tokens_ascend(bench: Bench) -> None:
    bench.start()
    tokens = []
    for first in (1, 11, 21):
        for token in range(first, first + 10):
            bench.submit(Persist(records=((A, token, b"x"),), own_seq=token * 2, token=token))
        for fact in bench.commit():
            assert isinstance(fact, Persisted)
            assert fact.own_seq == fact.token * 2
            tokens.append(fact.token)
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == 30


def test_a_crash_keeps_what_was_reported_as_persisted(bench: Bench) -> None:
    bench.start()
    bench.submit(Persist(records=((A, 1, b"x"),), meta=(("head", b"1"),), token=1))
    bench.commit()
    bench.crash()
    state = bench.start()
    assert state.records == ((A, 1, b"x"),)
    assert state.meta == {"head": b"1"}


def test_a_crash_between_the_parts_of_a_transaction_leaves_nothing_of_it(bench: Bench) -> None:
    bench.start()
    bench.submit(Persist(records=((A, 1, b"before"),), token=1))
    bench.commit()
    bench.submit(Persist(wipe=True, open_ended=True, records=((A, 2, b"part"),), token=2))
    bench.submit(Persist(open_ended=True, records=((A, 3, b"part"),), token=3))
    assert bench.commit() == []
    bench.crash()
    assert bench.start().records == ((A, 1, b"before"),)


def test_stopping_between_the_parts_of_a_transaction_leaves_nothing_and_says_so(
    bench: Bench,
) -> None:
    bench.start()
    bench.submit(Persist(records=((A, 1, b"before"),), token=1))
    bench.submit(Persist(wipe=True, open_ended=True, records=((A, 2, b"part"),), token=2))
    assert not bench.close()
    assert bench.start().records == ((A, 1, b"before"),)


def test_the_last_part_commits_all_parts(bench: Bench) -> None:
    bench.start()
    bench.submit(Persist(records=((A, 1, b"before"),), meta=(("kept", b"1"),), token=1))
    bench.submit(Persist(wipe=True, open_ended=True, records=((A, 2, b"part"),), token=2))
    bench.submit(Persist(open_ended=True, records=((A, 3, b"part"),), token=3))
    bench.submit(Persist(records=((A, 4, b"last"),), own_seq=4, token=4))
    assert bench.commit()[-1] == Persisted(token=4, own_seq=4)
    assert bench.close()
    state = bench.start()
    assert state.records == ((A, 2, b"part"), (A, 3, b"part"), (A, 4, b"last"))
    assert state.meta == {"kept": b"1"}


def test_a_batch_before_an_open_transaction_does_not_wait_for_its_end(bench: Bench) -> None:
    bench.start()
    bench.submit(Persist(records=((A, 1, b"x"),), token=1))
    bench.submit(Persist(open_ended=True, records=((A, 2, b"part"),), token=2))
    assert bench.commit() == [Persisted(token=1, own_seq=0)]


def test_wipe_forgets_all_but_meta_and_comes_before_the_rest_of_its_batch(bench: Bench) -> None:
    bench.start()
    for token in (1, 2):
        bench.submit(
            Persist(
                runs=(run(A, token, token),),
                records=((A, token, b"x"),),
                requests=((b"%016d" % token, b"x"),),
                meta=((f"key{token}", b"x"),),
                token=token,
            )
        )
        bench.commit()
    bench.submit(Persist(records=((B, 1, b"gone too"),), token=3))
    bench.submit(Persist(wipe=True, records=((B, 2, b"new"),), meta=(("key2", b"y"),), token=4))
    bench.commit()
    bench.close()
    assert content(bench.start()) == (
        [],
        ((B, 2, b"new"),),
        (),
        {"key1": b"x", "key2": b"y"},
        (),
    )


def test_a_floor_drops_whole_runs_of_its_origin_and_spares_the_one_across_it(bench: Bench) -> None:
    bench.start()
    bench.submit(Persist(runs=(run(A, 1, 3), run(A, 4, 6), run(A, 7, 9), run(B, 1, 9)), token=1))
    bench.commit()
    bench.submit(Persist(floors=((A, 5), (12345, 10)), token=2))
    bench.commit()
    bench.close()
    left = events(bench.start())
    assert [seq for origin, seq, _ in left if origin == A and seq > 5] == [6, 7, 8, 9]
    assert not [seq for origin, seq, _ in left if origin == A and seq < 4]
    assert len([seq for origin, seq, _ in left if origin == B]) == 9


def test_a_floor_applies_to_the_runs_of_its_own_batch(bench: Bench) -> None:
    bench.start()
    bench.submit(Persist(runs=(run(B, 1, 3), run(B, 4, 6)), floors=((B, 3),), token=1))
    bench.commit()
    bench.close()
    assert [seq for _, seq, _ in events(bench.start())] == [4, 5, 6]


def test_the_last_word_on_a_key_counts_within_and_across_batches(bench: Bench) -> None:
    bench.start()
    key = b"k" * 16
    bench.submit(Persist(records=((A, 1, b"x"), (A, 2, b"x")), requests=((key, b"x"),), token=1))
    bench.submit(Persist(dropped=((A, 1), (A, 99)), expired=(key, b"unknown"), token=2))
    bench.submit(Persist(records=((A, 2, b"y"), (B, 3, b"z")), dropped=((B, 3),), token=3))
    bench.submit(Persist(requests=((key, b"again"),), token=4))
    bench.commit()
    bench.close()
    state = bench.start()
    assert state.records == ((A, 2, b"y"),)
    assert state.requests == ((key, b"again"),)


def test_another_lot_begins_with_the_pending_stays_alone_and_another_replica(bench: Bench) -> None:
    before = bench.start()
    bench.submit(Persist(records=((A, 1, b"old"),), meta=(("lot", b"old"),), token=1))
    bench.commit()
    bench.close()
    bench.begin_again(StartOver(StartOverReason.OLDER_LOT, keep=False, pending=(b"p1", b"p2")))
    state = bench.start(WALL_MS - 1)
    assert state.replica != before.replica
    assert state.incarnation > before.incarnation
    assert content(state) == ([], (), (), {}, ((1, b"p1"), (2, b"p2")))
    assert state.fresh
    assert state.warnings == (f"new replica id: {StartOverReason.OLDER_LOT.value}",)


def test_pending_stays_remain_until_they_are_done_even_through_a_wipe(bench: Bench) -> None:
    bench.start()
    bench.close()
    pending = tuple(b"p%d" % n for n in range(1, 5))
    bench.begin_again(StartOver(StartOverReason.OLDER_LOT, keep=False, pending=pending))
    bench.start()
    bench.submit(Persist(pending_done=(2, 3), token=1))
    bench.commit()
    bench.crash()
    assert bench.start().pending == ((1, b"p1"), (4, b"p4"))
    bench.submit(Persist(wipe=True, token=1))
    bench.commit()
    bench.close()
    assert bench.start().pending == ((1, b"p1"), (4, b"p4"))


def test_a_new_replica_on_the_same_state_keeps_everything_else(bench: Bench) -> None:
    before = bench.start()
    bench.submit(Persist(runs=(run(A, 1, 3),), records=((A, 1, b"x"),), token=1))
    bench.commit()
    bench.close()
    bench.begin_again(StartOver(StartOverReason.REPLICA_TWICE, keep=True))
    state = bench.start()
    assert state.replica != before.replica
    assert state.records == ((A, 1, b"x"),)
    assert len(events(state)) == 3
    assert not state.fresh
    bench.close()
    after = bench.start()
    assert after.replica == state.replica
    assert after.warnings == ()


def random_batch(rng: random.Random, token: int, heads: dict[int, int]) -> Persist:
    """Any batch a node could write; ``heads`` keeps its runs from overlapping."""
    origins = [rng.choice((A, B, 1 << 63, (1 << 63) - 1)) for _ in range(rng.randint(0, 3))]
    runs = []
    for origin in origins:
        first = heads.get(origin, 0) + 1
        heads[origin] = first + rng.randint(0, 40)
        runs.append(run(origin, first, heads[origin]))
    dots = [(rng.choice((A, B)), rng.randint(1, 40)) for _ in range(rng.choice((0, 3, 30)))]
    requests = [b"%016d" % rng.randint(1, 20) for _ in range(rng.randint(0, 6))]
    cut, half = len(dots) // 2, len(requests) // 2
    return Persist(
        wipe=rng.random() < 0.02,
        open_ended=rng.random() < 0.3,
        runs=tuple(runs),
        floors=tuple((o, rng.randint(0, heads[o])) for o in origins[:1] if rng.random() < 0.5),
        records=tuple((*dot, b"%d" % token) for dot in dots[:cut]),
        dropped=tuple(dots[cut:]),
        requests=tuple((request, b"%d" % token) for request in requests[:half]),
        expired=tuple(requests[half:]),
        meta=((f"key{rng.randint(1, 4)}", b"%d" % token),),
        token=token,
    )


@pytest.mark.parametrize("seed", range(8))
def test_both_disks_keep_the_same_of_any_sequence_of_batches(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    real, fake = SqliteBench(tmp_path / "n"), FakeBench()
    both: tuple[Bench, Bench] = (real, fake)
    heads: dict[int, int] = {}
    for disk in both:
        disk.start()
    for _restart in range(4):
        for token in range(1, rng.randint(2, 80)):
            batch = random_batch(rng, token, heads)
            for disk in both:
                disk.submit(batch)
            if rng.random() < 0.2:
                for disk in both:
                    disk.commit()
        crash = rng.random() < 0.5
        states = []
        for disk in both:
            if crash:
                disk.crash()
            else:
                disk.commit()
                disk.close()
            states.append(disk.start())
        assert content(states[0]) == content(states[1])
    real.close()


def test_thousands_of_rows_in_one_batch_come_back(bench: Bench, tmp_path: Path) -> None:
    bench.start()
    count = 5_000
    records = tuple((A if seq % 2 else B, seq, b"%d" % seq) for seq in range(count))
    bench.submit(Persist(records=records, runs=(run(A, 1, count),), token=1))
    bench.submit(Persist(dropped=tuple(record[:2] for record in records[10:]), token=2))
    bench.commit()
    bench.close()
    state = bench.start()
    assert sorted(state.records) == sorted(records[:10])
    assert [seq for _, seq, _ in events(state)] == list(range(1, count + 1))


def test_a_torn_crash_of_the_fake_leaves_whole_transactions_in_order() -> None:
    outcomes = set()
    for seed in range(40):
        rng = random.Random(seed)
        disk = FakeDisk(rng)
        disk.load(WALL_MS)
        for token, open_ended in ((1, False), (2, True), (3, False), (4, True)):
            disk.submit(Persist(open_ended=open_ended, records=((A, token, b""),), token=token))
        disk.crash(rng, keep=True, torn=True)
        outcomes.add(tuple(seq for _, seq, _ in disk.load(WALL_MS).records))
    assert outcomes == {(), (1,), (1, 2, 3)}


def test_a_lost_disk_of_the_fake_is_another_replica() -> None:
    rng = random.Random(3)
    disk = FakeDisk(rng)
    before = disk.load(WALL_MS)
    disk.submit(Persist(records=((A, 1, b"x"),), token=1))
    disk.commit_next()
    disk.crash(rng, keep=False, torn=False)
    after = disk.load(WALL_MS)
    assert after.fresh
    assert after.replica != before.replica


@pytest.mark.parametrize("noticed", [False, True])
def test_an_older_disk_of_the_fake_takes_a_new_id_only_if_that_is_noticed(noticed: bool) -> None:
    disk = FakeDisk(random.Random(4))
    before = disk.load(WALL_MS)
    disk.submit(Persist(records=((A, 1, b"x"),), token=1))
    disk.commit_next()
    older = disk.snapshot()
    disk.submit(Persist(records=((A, 2, b"x"),), token=2))
    disk.commit_next()
    disk.restore(older, noticed=noticed)
    after = disk.load(WALL_MS)
    assert after.records == ((A, 1, b"x"),)
    assert (after.replica != before.replica) is noticed


def test_a_full_disk_of_the_fake_keeps_the_queue_and_says_so_once() -> None:
    disk = FakeDisk(random.Random(5))
    disk.load(WALL_MS)
    disk.fail("full")
    disk.submit(Persist(records=((A, 1, b"x"),), token=1))
    assert [type(fact).__name__ for fact in disk.commit_next()] == ["StorageFailed"]
    disk.submit(Persist(records=((A, 2, b"x"),), token=2))
    assert disk.commit_next() == []
    assert disk.queued == 2
    disk.recover()
    facts = disk.commit_next()
    assert [type(fact).__name__ for fact in facts] == ["StorageRecovered", "Persisted"]
    assert len(disk.load(WALL_MS).records) == 2


def test_a_database_set_aside_can_be_put_back_and_mints_under_a_third_id(tmp_path: Path) -> None:
    bench = SqliteBench(tmp_path / "n")
    replicas = {bench.start().replica}
    bench.submit(Persist(records=((A, 1, b"old"),), token=1))
    bench.commit()
    bench.close()
    bench.begin_again(StartOver(StartOverReason.OLDER_LOT, keep=False))
    replicas.add(bench.start().replica)
    bench.close()
    (aside,) = bench.path.glob("parkingd.db.set-aside-*")
    assert f"{WALL_MS}-older_lot" in aside.name
    shutil.copy(aside, bench.path / "parkingd.db")
    state = bench.start()
    assert state.records == ((A, 1, b"old"),)
    assert len(replicas | {state.replica}) == 3
    bench.close()


@pytest.mark.parametrize("keep", [True, False])
def test_the_numbers_of_the_journal_go_on_whatever_happens(bench: Bench, keep: bool) -> None:
    assert bench.start().journal_seq == 0
    lines = tuple(Occurrence(seq, WALL_MS, "entered") for seq in (1, 2, 3))
    bench.submit(Persist(journal=lines[:1], token=1))
    bench.submit(Persist(wipe=True, journal=lines[1:2], token=2))
    bench.commit()
    bench.crash()
    assert bench.start().journal_seq == 2
    bench.submit(Persist(journal=lines[2:], token=1))
    bench.submit(Persist(journal_before=WALL_MS + 1, token=2))
    bench.commit()
    bench.close()
    bench.begin_again(StartOver(StartOverReason.OLDER_LOT, keep))
    assert bench.start().journal_seq == 3
