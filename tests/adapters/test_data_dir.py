"""Whose directory it is, who holds it, and what tells it from a copy."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parkingd.adapters.data_dir import FS_IOC_GETVERSION, DataDir, new_replica_id
from parkingd.errors import ConfigError

WALL_MS = 1_790_000_000_000

HOLD = """
import sys
from pathlib import Path
from parkingd.adapters.data_dir import DataDir
DataDir.open(Path(sys.argv[1]), cluster="c", name="n")
print("held", flush=True)
sys.stdin.read()
"""


def opened(path: Path, *, cluster: str = "c", name: str = "n") -> DataDir:
    return DataDir.open(path, cluster=cluster, name=name)


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """By another process, until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder


def test_missing_parents_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "c" / "n"
    opened(path).close()
    for directory in (path, path.parent, path.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_nothing_in_it_is_readable_for_others(tmp_path: Path) -> None:
    data_dir = opened(tmp_path / "n")
    data_dir.renew_identity(WALL_MS)
    data_dir.record_incarnation(1)
    data_dir.close()
    names = sorted(file.name for file in data_dir.path.iterdir())
    assert names == ["identity", "incarnation", "lock"]
    for file in data_dir.path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_directory_held_by_another_process_is_refused_naming_it(tmp_path: Path) -> None:
    with held(tmp_path / "n") as holder:
        with pytest.raises(ConfigError, match=f"in use by process {holder.pid}") as refused:
            opened(tmp_path / "n")
        assert "--data-dir" in refused.value.hint
        holder.communicate(timeout=20)
    opened(tmp_path / "n").close()


def test_the_lock_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    with held(tmp_path / "n") as holder:
        holder.kill()
        holder.wait(timeout=20)
    opened(tmp_path / "n").close()


def test_closing_lets_go_and_may_be_repeated(tmp_path: Path) -> None:
    first = opened(tmp_path / "n")
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        opened(tmp_path / "n")
    first.close()
    first.close()
    opened(tmp_path / "n").close()


@pytest.mark.parametrize(("cluster", "name"), [("other", "n"), ("c", "other")])
def test_the_directory_of_another_node_is_refused_naming_it(
    tmp_path: Path, cluster: str, name: str
) -> None:
    owner = opened(tmp_path / "n")
    owner.renew_identity(WALL_MS)
    owner.close()
    with pytest.raises(ConfigError, match="belongs to node n of cluster c"):
        opened(tmp_path / "n", cluster=cluster, name=name)
    opened(tmp_path / "n").close()


def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be used: Not a directory") as refused:
        opened(tmp_path / "file" / "n")
    assert "\n" not in str(refused.value)
    assert "--data-dir" in refused.value.hint


def test_a_file_in_its_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("")
    with pytest.raises(ConfigError, match="cannot be used: Not a directory"):
        opened(tmp_path / "n")


def test_the_identity_comes_back(tmp_path: Path) -> None:
    data_dir = opened(tmp_path / "n")
    assert data_dir.identity is None
    identity = data_dir.renew_identity(WALL_MS)
    data_dir.close()
    again = opened(tmp_path / "n")
    assert again.identity == identity
    again.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\0\0\0",
        "[]",
        "{}",
        '{"format": 1}',
        '{"format": 1, "replica": "xyz", "name": "n", "cluster": "c", "created": 1}',
        '{"format": 1, "replica": "0", "name": "n", "cluster": "c", "created": 1}',
        '{"format": 1, "replica": "1ffffffffffffffff", "name": "n", "cluster": "c", "created": 1}',
        "[" * 4096,
    ],
)
def test_a_damaged_identity_is_no_identity(tmp_path: Path, text: str) -> None:
    path = tmp_path / "n"
    path.mkdir()
    (path / "identity").write_text(text)
    data_dir = opened(path)
    assert data_dir.identity is None
    data_dir.close()


def test_an_identity_that_is_not_text_is_no_identity(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.mkdir()
    (path / "identity").write_bytes(b"\xff\xfe\x80")
    data_dir = opened(path)
    assert data_dir.identity is None
    data_dir.close()


def test_an_identity_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n"
    path.mkdir()
    (path / "identity").write_text(json.dumps({"format": 2, "who": "knows"}))
    with pytest.raises(ConfigError, match="newer parkingd"):
        opened(path)


def test_replica_ids_carry_their_second_and_differ() -> None:
    ids = {new_replica_id(WALL_MS) for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {replica >> 32 for replica in ids} == {WALL_MS // 1000}
    assert all(replica & 0xFFFF_FFFF for replica in ids)
    assert 0 < new_replica_id(2**70) < 2**64


def test_the_fingerprint_stays_until_the_identity_is_replaced(tmp_path: Path) -> None:
    data_dir = opened(tmp_path / "n")
    data_dir.renew_identity(WALL_MS)
    first = data_dir.fingerprint()
    data_dir.close()
    data_dir = opened(tmp_path / "n")
    assert data_dir.fingerprint() == first
    data_dir.renew_identity(WALL_MS)
    assert data_dir.fingerprint() != first
    data_dir.close()


def test_a_renamed_directory_keeps_its_fingerprint_and_a_copied_one_does_not(
    tmp_path: Path,
) -> None:
    data_dir = opened(tmp_path / "n")
    data_dir.renew_identity(WALL_MS)
    first = data_dir.fingerprint()
    data_dir.close()
    (tmp_path / "n").rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    prints = []
    for name in ("moved", "copy"):
        data_dir = opened(tmp_path / name)
        prints.append(data_dir.fingerprint())
        data_dir.close()
    assert prints[0] == first
    assert prints[1] != first


def test_an_inode_number_that_is_given_out_again_is_another_fingerprint(tmp_path: Path) -> None:
    data_dir = opened(tmp_path / "n")
    data_dir.renew_identity(WALL_MS)
    first = data_dir.fingerprint()
    identity = data_dir.path / "identity"
    with identity.open("rb") as file:
        try:
            fcntl.ioctl(file.fileno(), FS_IOC_GETVERSION, bytearray(8))
        except OSError:
            pytest.skip("this file system does not tell the generation of an inode")
    content = identity.read_bytes()
    for _ in range(20):
        identity.unlink()
        identity.write_bytes(content)
        assert data_dir.fingerprint() != first
    data_dir.close()


def test_the_latest_incarnation_is_remembered_and_garbage_there_is_harmless(
    tmp_path: Path,
) -> None:
    data_dir = opened(tmp_path / "n")
    assert data_dir.incarnation == 0
    data_dir.record_incarnation(WALL_MS)
    assert data_dir.incarnation == WALL_MS
    (data_dir.path / "incarnation").write_text("a few words")
    assert data_dir.incarnation == 0
    data_dir.close()
