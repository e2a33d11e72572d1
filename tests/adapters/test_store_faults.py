"""Real files, real processes, real full disks: what the store keeps when things break."""

from __future__ import annotations

import fcntl
import os
import queue
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from parkingd.adapters import store as store_module
from parkingd.adapters import succession
from parkingd.adapters.data_dir import FS_IOC_GETVERSION, DataDir, fsync_directory
from parkingd.adapters.database import Database
from parkingd.adapters.journal_table import LineQuery, LineSlice
from parkingd.adapters.store import EphemeralStore, SqliteStore
from parkingd.adapters.succession import begin_again
from parkingd.errors import ConfigError, StorageError
from parkingd.protocol.command_parsing import LineFilter
from parkingd.protocol.effects import Persist, StartOver, StartOverReason, StoredState
from parkingd.protocol.facts import Fact, Persisted, StorageFailed, StorageRecovered
from parkingd.protocol.messages import Run

WALL_MS = 1_790_000_000_000
PATIENCE_S = 20.0

WRITER = """
import os, sys, threading
from pathlib import Path
from parkingd.adapters.data_dir import DataDir
from parkingd.adapters.store import SqliteStore
from parkingd.protocol.effects import Persist
from parkingd.protocol.messages import Run

room = threading.Semaphore(300)

def tell(fact):
    os.write(1, b"%d\\n" % fact.token)
    for _ in range(fact.token - tell.latest):
        room.release()
    tell.latest = fact.token

data_dir = DataDir.open(Path(sys.argv[1]), cluster="c", name="n")
store, state = SqliteStore.open(data_dir, wall_ms=1, on_fact=tell)
tell.latest = token = int(state.meta.get("head", b"0"))
os.write(1, b"%d\\n" % token)
while True:
    room.acquire()
    token += 1
    store.submit(
        Persist(
            open_ended=token % 5 in (1, 2),
            runs=(Run(7, token, (b"event %d" % token,)),),
            records=((7, token, b"%d" % token),),
            meta=(("head", b"%d" % token),),
            token=token,
            own_seq=token,
        )
    )
"""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that other tests keep busy is no news."""
    monkeypatch.setattr(succession, "SLOW_COMMIT_MS", PATIENCE_S * 1_000)


class Node:
    """A data directory, its open store and the facts heard from it."""

    def __init__(self, path: Path, *, wall_ms: int = WALL_MS) -> None:
        self.facts: queue.SimpleQueue[Fact] = queue.SimpleQueue()
        self.data_dir = DataDir.open(path, cluster="c", name="n")
        try:
            self.store, self.state = SqliteStore.open(
                self.data_dir, wall_ms=wall_ms, on_fact=self.facts.put
            )
        except (ConfigError, StorageError):
            self.data_dir.close()
            raise

    def hear(self) -> Fact:
        return self.facts.get(timeout=PATIENCE_S)

    def commit(self, batch: Persist) -> None:
        self.store.submit(batch)
        while self.hear() != Persisted(batch.token, batch.own_seq):
            pass

    def back_up(self, path: Path) -> StorageError | None:
        answer: queue.SimpleQueue[StorageError | None] = queue.SimpleQueue()
        self.store.backup(path, answer.put)
        return answer.get(timeout=PATIENCE_S)

    def close(self) -> bool:
        complete = self.store.close(PATIENCE_S)
        self.data_dir.close()
        return complete


def record(seq: int, size: int = 10) -> Persist:
    return Persist(records=((7, seq, bytes(size)),), token=seq, own_seq=seq)


def tells_generations(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.ioctl(opened.fileno(), FS_IOC_GETVERSION, bytearray(8))
        except OSError:
            return False
    return True


def large_parts() -> list[Persist]:
    """Parts 2 to 5 of a transaction that is larger than SQLite's cache, the last one missing."""
    return [
        Persist(
            wipe=token == 2,
            open_ended=True,
            records=tuple((7, token * 1_000 + i, bytes(1_000)) for i in range(1_000)),
            token=token,
        )
        for token in range(2, 6)
    ]


def seqs(state: StoredState) -> list[int]:
    return [seq for _, seq, _ in state.records]


def started(path: Path) -> StoredState:
    """What a start finds; it is stopped again."""
    node = Node(path)
    node.close()
    return node.state


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RETRY_S", 0.02)


def test_what_was_reported_as_persisted_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "n"
    replicas = set()
    for attempt in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            told = [child.stdout.readline() for _ in range(2 + attempt * 3)]
            child.send_signal(signal.SIGKILL)
            told += child.stdout.readlines()
        state = started(path)
        replicas.add(state.replica)
        kept = seqs(state)
        head = int(state.meta.get("head", b"0"))
        assert head >= int(told[-1]) > 0
        assert kept == list(range(1, head + 1))
        assert [e for run in state.runs for e in run.events] == [b"event %d" % n for n in kept]
        assert head % 5 not in (1, 2)
    assert len(replicas) == 1


@contextmanager
def full_by_limit(path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """No file of this process may grow beyond 400 kB until room is made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        yield path / "n", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_by_file_system(path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A file system of 2 MiB of which a file takes most until room is made."""
    mount = path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    filler = mount / "filler"
    filler.write_bytes(bytes(1_500_000))
    try:
        yield mount / "n", filler.unlink
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("full", [full_by_limit, full_by_file_system])
@pytest.mark.usefixtures("quick_retry")
def test_a_full_disk_is_told_once_loses_nothing_and_recovers_in_order(
    tmp_path: Path,
    full: Callable[[Path], Iterator[tuple[Path, Callable[[], None]]]],
) -> None:
    with full(tmp_path) as (path, make_room):  # type: ignore[attr-defined]
        node = Node(path)
        node.commit(record(1))
        node.store.submit(record(2, 700_000))
        failed = node.hear()
        assert isinstance(failed, StorageFailed)
        assert failed.reason
        for seq in (3, 4, 5):
            node.store.submit(record(seq))
        assert node.store.queued == 4
        make_room()
        assert node.hear() == StorageRecovered()
        heard = [node.hear()]
        while heard[-1] != Persisted(5, 5):
            heard.append(node.hear())
        assert all(isinstance(fact, Persisted) for fact in heard)
        assert node.store.queued == 0
        assert node.close()
        state = started(path)
        assert seqs(state) == [1, 2, 3, 4, 5]
        assert state.warnings == ()


@pytest.mark.usefixtures("quick_retry")
def test_a_large_transaction_that_fails_midway_is_repeated_from_its_first_part(
    tmp_path: Path,
) -> None:
    with full_by_limit(tmp_path) as (path, make_room):
        node = Node(path)
        node.commit(record(1))
        for part in large_parts():
            node.store.submit(part)
        assert isinstance(node.hear(), StorageFailed)
        make_room()
        node.store.submit(Persist(records=((7, 6_000, b"last"),), token=6))
        assert node.hear() == StorageRecovered()
        assert node.hear() == Persisted(6, 0)
        node.close()
        assert seqs(started(path)) == [*range(2_000, 6_000), 6_000]


def test_closing_while_the_disk_fails_ends_at_once_and_says_that_something_is_missing(
    tmp_path: Path,
) -> None:
    with full_by_limit(tmp_path) as (path, make_room):
        node = Node(path)
        node.commit(record(1))
        node.store.submit(record(2, 700_000))
        assert isinstance(node.hear(), StorageFailed)
        assert not node.close()
        make_room()
        state = started(path)
        assert seqs(state) == [1]
        assert state.replica == node.state.replica


def remove(path: Path) -> None:
    shutil.rmtree(path)


def move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace_by_a_copy(path: Path) -> None:
    copy = path / "copy"
    shutil.copy(path / "parkingd.db", copy)
    copy.rename(path / "parkingd.db")


@pytest.mark.usefixtures("quick_retry")
@pytest.mark.parametrize("lose", [remove, move_away, replace_by_a_copy])
def test_nothing_counts_as_kept_in_a_database_that_is_no_longer_at_its_place(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    lose(path)
    node.store.submit(record(2))
    told = node.hear()
    assert isinstance(told, StorageFailed)
    assert str(path / "parkingd.db") in told.reason
    node.store.submit(record(3))
    if lose is move_away:
        path.with_name("elsewhere").rename(path)
        assert node.hear() == StorageRecovered()
        while node.hear() != Persisted(3, 3):
            pass
        assert node.close()
        assert seqs(started(path)) == [1, 2, 3]
    else:
        assert not node.close()
        assert node.facts.empty()


def test_parts_that_had_reached_the_disk_are_void_without_the_last(tmp_path: Path) -> None:
    """What a loss of power leaves of an open transaction is pages in the WAL and no commit."""
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    wal = path / "parkingd.db-wal"
    before = wal.stat().st_size
    for part in large_parts():
        node.store.submit(part)
    wait_until(lambda: wal.stat().st_size > before + 1_000_000)
    left = [(file, file.read_bytes()) for file in (path / "parkingd.db", wal)]
    node.close()
    for file, content in left:
        file.write_bytes(content)
    state = started(path)
    assert seqs(state) == [1]
    assert state.warnings == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"no database at all" + content[18:],
        lambda content: content[: len(content) // 2],
        lambda content: content[:4096] + os.urandom(len(content) - 4096),
        lambda content: content[: len(content) // 2] + bytes(len(content) // 2),
    ],
    ids=["header", "truncated", "noise", "zeros"],
)
def test_a_damaged_database_is_set_aside_and_another_replica_begins_empty(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "n"
    node = Node(path)
    for token in range(1, 40):
        node.commit(
            Persist(records=tuple((7, token * 100 + i, bytes(90)) for i in range(100)), token=token)
        )
    node.close()
    database = path / "parkingd.db"
    broken = damage(database.read_bytes())
    database.write_bytes(broken)
    state = started(path)
    assert state.fresh
    assert state.records == ()
    assert state.replica != node.state.replica
    assert state.incarnation > node.state.incarnation
    (warning,) = state.warnings
    assert "damaged" in warning
    assert "parkingd.db.corrupt-1" in warning
    assert (path / "parkingd.db.corrupt-1").stat().st_size > 0
    again = started(path)
    assert again.replica == state.replica
    assert again.warnings == ()


def test_a_second_damaged_database_does_not_replace_the_first_one_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "n"
    for _ in range(2):
        started(path)
        (path / "parkingd.db").write_bytes(b"no database" * 1_000)
    started(path)
    assert (path / "parkingd.db.corrupt-1").exists()
    assert (path / "parkingd.db.corrupt-2").exists()


def test_a_malformed_run_is_damage_and_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(Persist(runs=(Run(7, 1, (b"a", b"b")),), token=1))
    node.close()
    for packed in (b"", b"\0\0\0\x02", b"\0\0\0\x01\0\0\0\x01a", b"\0\0\0\x01\0\0\0\x09a"):
        started(path)
        with closing(sqlite3.connect(path / "parkingd.db", isolation_level=None)) as other:
            other.execute("INSERT OR REPLACE INTO run VALUES (7, 1, 2, ?)", (packed,))
        assert "damaged" in started(path).warnings[0]


def test_a_missing_database_is_another_replica(tmp_path: Path) -> None:
    path = tmp_path / "n"
    before = started(path)
    (path / "parkingd.db").unlink()
    state = started(path)
    assert state.fresh
    assert state.replica != before.replica
    assert state.incarnation > before.incarnation
    assert "missing" in state.warnings[0]


@pytest.mark.parametrize("content", [None, b"{}"], ids=["missing", "damaged"])
def test_without_an_identity_file_everything_is_kept_under_a_new_id(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    node.close()
    (path / "identity").unlink()
    if content is not None:
        (path / "identity").write_bytes(content)
    state = started(path)
    assert seqs(state) == [1]
    assert state.replica != node.state.replica
    assert "identity" in state.warnings[0]
    assert started(path).replica == state.replica


def test_a_copied_directory_takes_a_new_id_and_keeps_everything(tmp_path: Path) -> None:
    node = Node(tmp_path / "n")
    node.commit(record(1))
    node.close()
    shutil.copytree(tmp_path / "n", tmp_path / "copy")
    copy, original = started(tmp_path / "copy"), started(tmp_path / "n")
    assert seqs(copy) == seqs(original) == [1]
    assert original.replica == node.state.replica != copy.replica
    assert "copy" in copy.warnings[0]
    assert started(tmp_path / "copy").replica == copy.replica


def test_a_directory_removed_and_put_back_from_a_copy_takes_a_new_id(tmp_path: Path) -> None:
    """The file system likes to give out the same inode numbers again."""
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    node.close()
    if not tells_generations(path / "identity"):
        pytest.skip("this file system does not tell the generation of an inode")
    shutil.copytree(path, tmp_path / "kept")
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "kept", path)
    state = started(path)
    assert seqs(state) == [1]
    assert state.replica != node.state.replica


def test_an_older_copy_of_the_database_alone_takes_a_new_id(tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    node.close()
    older = (path / "parkingd.db").read_bytes()
    later = Node(path)
    later.commit(record(2))
    later.close()
    assert later.state.replica == node.state.replica
    (path / "parkingd.db").write_bytes(older)
    state = started(path)
    assert seqs(state) == [1]
    assert state.replica != node.state.replica
    assert "restored" in state.warnings[0]


def test_a_restored_backup_takes_a_new_id_even_beside_its_own_identity(tmp_path: Path) -> None:
    path, copy = tmp_path / "n", tmp_path / "copy.db"
    node = Node(path)
    node.commit(record(1))
    assert node.back_up(copy) is None
    node.commit(record(2))
    node.close()
    shutil.copy(copy, path / "parkingd.db")
    state = started(path)
    assert seqs(state) == [1]
    assert state.replica != node.state.replica
    assert state.incarnation > node.state.incarnation
    assert "restored" in state.warnings[0]


def test_a_backup_restored_into_an_empty_directory_is_another_replica(tmp_path: Path) -> None:
    node = Node(tmp_path / "n")
    node.commit(record(1))
    assert node.back_up(tmp_path / "copy.db") is None
    node.close()
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "copy.db", tmp_path / "new" / "parkingd.db")
    state = started(tmp_path / "new")
    assert seqs(state) == [1]
    assert state.replica != node.state.replica


def test_a_backup_restored_for_another_node_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path / "n")
    assert node.back_up(tmp_path / "copy.db") is None
    node.close()
    (tmp_path / "m").mkdir()
    shutil.copy(tmp_path / "copy.db", tmp_path / "m" / "parkingd.db")
    data_dir = DataDir.open(tmp_path / "m", cluster="c", name="m")
    with pytest.raises(ConfigError, match="belongs to node n of cluster c"):
        SqliteStore.open(data_dir, wall_ms=WALL_MS, on_fact=print)
    data_dir.close()


def test_commits_go_on_while_a_backup_is_made_and_it_is_consistent(tmp_path: Path) -> None:
    path, copy = tmp_path / "n", tmp_path / "copy.db"
    node = Node(path)
    batches = 12  # Of 1 MiB each, which is what is copied between two looks at the queue.
    for token in range(1, batches + 1):
        rows = tuple((7, token * 1_000 + i, bytes(1_000)) for i in range(1_000))
        node.store.submit(Persist(records=rows, meta=(("head", b"%d" % token),), token=token))
    answer: queue.SimpleQueue[StorageError | None] = queue.SimpleQueue()
    node.store.backup(copy, answer.put)
    order: list[str] = []
    token = batches
    while answer.empty():
        token += 1
        # Two parts of one transaction: the copy must have both or neither.
        for part, open_ended in ((0, True), (1, False)):
            node.store.submit(
                Persist(
                    open_ended=open_ended,
                    records=((8, 2 * token + part, b"part"),),
                    meta=(("head", b"%d" % token),),
                    token=2 * token + part,
                )
            )
        while node.hear() != Persisted(2 * token + 1, 0):
            pass
        order.append("committed" if answer.empty() else "done")
    assert answer.get() is None
    node.close()
    assert order.count("committed") >= 3
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(copy, restored / "parkingd.db")
    state = started(restored)
    extra = [seq for origin, seq, _ in state.records if origin == 8]
    head = int(state.meta["head"])
    assert len(state.records) - len(extra) == batches * 1_000
    assert extra == list(range(2 * batches + 2, 2 * head + 2))


def test_a_backup_is_one_private_file_and_refuses_to_overwrite(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    node = Node(tmp_path / "n")
    assert node.back_up(copies / "one.db") is None
    assert [file.name for file in copies.iterdir()] == ["one.db"]
    assert stat.S_IMODE((copies / "one.db").stat().st_mode) == 0o600
    content = (copies / "one.db").read_bytes()
    refused = node.back_up(copies / "one.db")
    assert refused is not None
    assert "exists" in str(refused)
    assert (copies / "one.db").read_bytes() == content
    failed = node.back_up(tmp_path / "nowhere" / "one.db")
    assert isinstance(failed, StorageError)
    missing = tmp_path / "nowhere" / "one.db"
    assert str(failed) == f"cannot write the backup {missing}: No such file or directory"
    assert "folder" in failed.hint
    node.commit(record(1))
    node.close()


@pytest.mark.usefixtures("quick_retry")
def test_a_backup_that_fills_the_disk_is_given_up_and_removed(tmp_path: Path) -> None:
    node = Node(tmp_path / "n")
    for seq in range(1, 11):
        node.commit(record(seq, 100_000))
    copies = tmp_path / "copies"
    copies.mkdir()
    with full_by_limit(tmp_path):
        failed = node.back_up(copies / "one.db")
    assert isinstance(failed, StorageError)
    assert list(copies.iterdir()) == []
    node.commit(record(11))
    assert node.close()


@pytest.mark.usefixtures("quick_retry")
def test_a_commit_that_fails_during_a_backup_ends_the_backup_and_not_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unfinished copy may be what fills the disk."""
    with full_by_limit(tmp_path) as (path, make_room):
        node = Node(path)

        def copy_slowly(
            _database: Database, _path: Path, between_steps: Callable[[], None]
        ) -> None:
            node.store.submit(record(1, 700_000))
            between_steps()

        monkeypatch.setattr(Database, "copy_to", copy_slowly)
        failed = node.back_up(tmp_path / "copy.db")
        assert failed is not None
        assert "disk" in str(failed)
        assert isinstance(node.hear(), StorageFailed)
        make_room()
        assert node.hear() == StorageRecovered()
        assert node.hear() == Persisted(1, 1)
        assert node.close()


@pytest.mark.usefixtures("quick_retry")
def test_while_commits_fail_a_backup_is_refused_and_the_journal_is_read(tmp_path: Path) -> None:
    with full_by_limit(tmp_path) as (path, make_room):
        node = Node(path)
        node.store.submit(record(1, 700_000))
        assert isinstance(node.hear(), StorageFailed)
        refused = node.back_up(tmp_path / "copy.db")
        assert refused is not None
        assert "disk" in str(refused)
        assert refused.hint
        assert not (tmp_path / "copy.db").exists()
        answer: queue.SimpleQueue[LineSlice | StorageError] = queue.SimpleQueue()
        node.store.read_journal(LineQuery(0, 10, 10, LineFilter()), answer.put)
        assert answer.get(timeout=PATIENCE_S) == LineSlice((), 10, None)
        make_room()
        assert node.hear() == StorageRecovered()
        assert node.hear() == Persisted(1, 1)
        assert node.close()


def test_the_database_is_private_and_nobody_else_can_open_it_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    for name in ("parkingd.db", "parkingd.db-wal"):
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o600
    probe = (
        "import sqlite3, sys\n"
        "try: sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT count(*) FROM record')\n"
        "except sqlite3.OperationalError as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", probe, str(path / "parkingd.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "database is locked\n"
    node.close()
    assert sorted(file.name for file in path.iterdir()) == [
        "identity",
        "incarnation",
        "lock",
        "parkingd.db",
    ]


def test_a_database_that_somebody_else_holds_is_an_error_and_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n"
    before = started(path)
    monkeypatch.setattr("parkingd.adapters.database.LOCK_WAIT_S", 0.01)
    with closing(sqlite3.connect(path / "parkingd.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            Node(path)
    assert started(path).replica == before.replica


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "n"
    started(path)
    with closing(sqlite3.connect(path / "parkingd.db")) as other:
        other.execute("PRAGMA user_version = 3")
    content = (path / "parkingd.db").read_bytes()
    with pytest.raises(ConfigError, match=r"newer parkingd \(format 3\)"):
        Node(path)
    assert (path / "parkingd.db").read_bytes() == content


def test_a_database_of_another_program_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.mkdir()
    with closing(sqlite3.connect(path / "parkingd.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE music (title TEXT)")
    state = started(path)
    assert state.fresh
    assert "not a database of parkingd" in state.warnings[0]


def test_a_wal_without_its_database_does_not_meet_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    wal = (path / "parkingd.db-wal").read_bytes()
    node.close()
    (path / "parkingd.db").unlink()
    (path / "parkingd.db-wal").write_bytes(wal)
    state = started(path)
    assert state.fresh
    assert state.replica != node.state.replica


def test_a_wal_left_behind_does_not_meet_the_successor_of_its_database(tmp_path: Path) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    wal = (path / "parkingd.db-wal").read_bytes()
    node.close()
    data_dir = DataDir.open(path, cluster="c", name="n")
    begin_again(
        data_dir,
        StartOver(StartOverReason.OLDER_LOT, keep=False, pending=(b"p",)),
        wall_ms=WALL_MS,
    )
    data_dir.close()
    # As if it had stopped before the last rename, and the old database had been damaged.
    (path / "parkingd.db").rename(path / "parkingd.db.next")
    (path / "parkingd.db-wal").write_bytes(wal)
    state = started(path)
    assert state.pending == ((1, b"p"),)
    assert state.records == ()
    assert len(state.warnings) == 1


class Stopped(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("stop_at", range(6))
def test_beginning_again_leaves_the_old_database_or_the_pending_stays_wherever_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    path = tmp_path / "n"
    node = Node(path)
    node.commit(record(1))
    node.close()
    steps = 0

    def stopping(step: Callable[..., object]) -> Callable[..., object]:
        def stopped_or_done(*arguments: object) -> object:
            nonlocal steps
            steps += 1
            if steps > stop_at:
                raise Stopped
            return step(*arguments)

        return stopped_or_done

    start_over = StartOver(StartOverReason.OLDER_LOT, keep=False, pending=(b"p1", b"p2"))
    data_dir = DataDir.open(path, cluster="c", name="n")
    with monkeypatch.context() as patched:
        patched.setattr(succession, "_mark_renewed", stopping(succession._mark_renewed))
        patched.setattr(succession, "fsync_directory", stopping(fsync_directory))
        patched.setattr(os, "rename", stopping(os.rename))
        try:
            begin_again(data_dir, start_over, wall_ms=WALL_MS)
        except Stopped:
            assert steps <= 6
    data_dir.close()
    state = started(path)
    if state.pending:
        assert state.pending == ((1, b"p1"), (2, b"p2"))
        assert state.records == ()
        assert state.replica != node.state.replica
        assert len(list(path.glob("parkingd.db.set-aside-*"))) == 1
    else:
        assert seqs(state) == [1]
        assert state.replica == node.state.replica
        assert stop_at < 3
    assert not (path / "parkingd.db.next").exists()


def test_beginning_again_before_the_store_has_let_go_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parkingd.adapters.database.LOCK_WAIT_S", 0.01)
    node = Node(tmp_path / "n")
    start_over = StartOver(StartOverReason.OLDER_LOT, keep=False)
    with pytest.raises(StorageError, match="locked"):
        begin_again(node.data_dir, start_over, wall_ms=WALL_MS)
    node.commit(record(1))
    node.close()
    assert started(tmp_path / "n").replica == node.state.replica


def test_one_process_may_begin_again_on_the_directory_it_holds(tmp_path: Path) -> None:
    node = Node(tmp_path / "n")
    node.store.close(PATIENCE_S)
    begin_again(node.data_dir, StartOver(StartOverReason.REPLICA_TWICE, keep=True), wall_ms=WALL_MS)
    store, state = SqliteStore.open(node.data_dir, wall_ms=WALL_MS, on_fact=print)
    assert state.replica != node.state.replica
    assert state.incarnation == node.state.incarnation + 1
    store.close(PATIENCE_S)
    node.data_dir.close()


def test_a_slow_disk_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "SLOW_COMMIT_MS", -1)
    (warning,) = started(tmp_path / "n").warnings
    assert warning.startswith("slow disk: a commit took")


def test_an_ephemeral_store_keeps_nothing_and_answers_at_once(tmp_path: Path) -> None:
    facts: list[Fact] = []
    store, state = EphemeralStore.open(wall_ms=WALL_MS, on_fact=facts.append)
    other, later = EphemeralStore.open(
        wall_ms=WALL_MS - 9, on_fact=print, pending=(b"p",), incarnation_after=state.incarnation
    )
    assert state.fresh
    assert later.replica != state.replica
    assert later.incarnation == state.incarnation + 1
    assert later.pending == ((1, b"p"),)
    store.submit(Persist(open_ended=True, token=1))
    store.submit(Persist(own_seq=4, token=2))
    assert facts == [Persisted(2, 4)]
    assert store.queued == 0
    answers: list[StorageError | None] = []
    other.backup(tmp_path / "copy.db", answers.append)
    assert isinstance(answers[0], StorageError)
    assert store.close(1.0)
