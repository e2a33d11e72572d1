"""Disks that are full, and directories that were copied, damaged or restored."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from tests.daemon.harness import Cluster, Daemon, agree, plate_numbers, until


class Disk(Protocol):
    """Where a data directory is, and how to make it full."""

    path: Path

    def fill(self, daemon: Daemon) -> None: ...

    def free(self, daemon: Daemon) -> None: ...


class SmallDisk:
    """A file system of its own in memory."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a file system is not permitted here")
        self.path = path / "data"
        self._ballast = path / "ballast"

    def fill(self, daemon: Daemon) -> None:
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4_096)):
                pass

    def free(self, daemon: Daemon) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path.parent)], check=True)


class LimitedFiles:
    """A limit to the size of the daemon's files, set from outside while it runs."""

    def __init__(self, path: Path) -> None:
        if not hasattr(resource, "prlimit"):
            pytest.skip("the limits of another process cannot be changed here")
        self.path = path

    def fill(self, daemon: Daemon) -> None:
        size = max(file.stat().st_size for file in self.path.iterdir())
        self._limit(daemon, size)

    def free(self, daemon: Daemon) -> None:
        self._limit(daemon, resource.RLIM_INFINITY)

    def _limit(self, daemon: Daemon, size: int) -> None:
        limits = (size, resource.RLIM_INFINITY)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, limits)

    def close(self) -> None: ...


@pytest.fixture(params=[SmallDisk, LimitedFiles])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    disk = request.param(tmp_path / "disk")
    yield disk
    disk.close()


def test_a_full_disk_refuses_writes_answers_reads_and_recovers_by_itself(
    disk: Disk, cluster: Cluster
) -> None:
    gary = cluster.start("gary", "--data-dir", disk.path)
    gary.read("track", "BEFORE1", 1)
    disk.fill(gary)
    acknowledged, plates = ["BEFORE1"], plate_numbers("F")
    request = ("--request-id", "0f" * 16)
    while True:
        plate = next(plates)
        answer = gary.ctl("track", plate, 1, *request)
        if answer.status:
            break
        acknowledged.append(plate)
        request = ("--request-id", f"{len(acknowledged):032x}")
    assert answer.status == 6
    assert answer.error["code"] == "storage_failed"
    assert request[1] in answer.error["hint"]

    second = gary.ctl("exit", "BEFORE1", 1)
    assert (second.status, second.error["code"]) == (6, "storage_failed")
    vehicles = gary.read("vehicles")
    assert set(acknowledged) <= {item["plate"] for item in vehicles["items"]}
    assert len(vehicles["warnings"]) == 1
    assert gary.read("where", "BEFORE1")["warnings"] == vehicles["warnings"]
    assert vehicles["warnings"][0] in gary.read("status")["warnings"]
    assert len(gary.events("storage_failed")) == 1

    disk.free(gary)
    until(lambda: gary.ctl("track", plate, 1, *request).status == 0, "it recovers")
    assert gary.events("storage_recovered")
    assert gary.plates() == sorted([*acknowledged, plate])
    assert vehicles["warnings"][0] not in gary.read("status")["warnings"]
    gary.end(signal.SIGKILL)
    again = cluster.start("gary", "--data-dir", disk.path)
    assert again.plates() == sorted([*acknowledged, plate])


def test_a_data_directory_that_is_removed_under_a_node_is_a_failing_disk_that_names_it(
    cluster: Cluster,
) -> None:
    gary = cluster.start("gary")
    gary.read("track", "KEPT1", 1)
    shutil.rmtree(cluster.data_dir("gary"))
    for verb in ("track", "enter", "exit"):
        answer = gary.ctl(verb, "LOST1", 1)
        assert (answer.status, answer.error["code"]) == (6, "storage_failed")
    assert gary.read("where", "KEPT1")["inside"]
    (line,) = [line for line in gary.read("status")["warnings"] if "storage_failed" in line]
    assert str(cluster.data_dir("gary")) in line
    (event,) = gary.events("storage_failed")
    assert event["reason"] in line
    assert "KEPT1" in gary.ctl("export").out


def test_a_start_on_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, cluster: Cluster
) -> None:
    disk = SmallDisk(tmp_path / "disk")
    try:
        gary = cluster.start("gary", "--data-dir", disk.path)
        gary.read("track", "KEPT1", 1)
        gary.end(signal.SIGKILL)
        disk.fill(gary)
        ended = cluster.fail_to_start("gary", "--data-dir", disk.path)
        assert ended.status == 2
        assert str(disk.path) in ended.complaint
        assert "make room" in ended.complaint
        disk.free(gary)
        assert cluster.start("gary", "--data-dir", disk.path).plates() == ["KEPT1"]
    finally:
        for daemon in cluster.daemons:
            daemon.end()
        disk.close()


def test_a_disk_that_fails_at_one_node_does_not_hold_up_the_others(cluster: Cluster) -> None:
    gary, diane = cluster.start_all("gary", "diane")
    limited = LimitedFiles(cluster.data_dir("gary"))
    gary.read("track", "FIRST1", 1)
    limited.fill(gary)
    until(lambda: gary.ctl("track", "LOST1", 1).status == 6, "gary's disk is full")
    diane.read("track", "SECOND1", 1)
    until(lambda: "SECOND1" in gary.plates(), "gary still hears diane")
    limited.free(gary)
    until(lambda: gary.ctl("track", "THIRD1", 1).status == 0, "gary's disk has room")
    agree([gary, diane])


def replica(daemon: Daemon) -> str:
    return str(daemon.read("status")["replica"])


def test_a_copied_data_directory_takes_a_new_replica_id_and_keeps_its_cars(
    cluster: Cluster,
) -> None:
    """Both run at the same time, as a machine and its clone do: no dot is used twice."""
    gary = cluster.start("gary")
    gary.read("track", "COPIED1", 1)
    before = replica(gary)
    gary.stop()
    copy = cluster.root / "copy"
    shutil.copytree(cluster.data_dir("gary"), copy)
    original = cluster.start("gary")
    clone = cluster.start("gary", "--data-dir", copy, apart=True)
    assert replica(original) == before
    assert replica(clone) != before
    assert any("copy" in record["warning"] for record in clone.events("storage"))
    dots = [daemon.read("track", "NEXT1", 1)["dot"] for daemon in (original, clone)]
    assert [dot[0] for dot in dots] == [before, replica(clone)]
    assert original.plates() == clone.plates() == ["COPIED1", "NEXT1"]


def test_a_corrupt_database_is_set_aside_and_the_record_comes_back_from_the_others(
    cluster: Cluster,
) -> None:
    gary, diane = cluster.start_all("gary", "diane")
    gary.read("track", "BYGARY1", 1)
    diane.read("track", "BYDIANE1", 2)
    agree([gary, diane])
    before = replica(gary)
    gary.stop()
    database = cluster.data_dir("gary") / "parkingd.db"
    content = bytearray(database.read_bytes())
    content[:20_000] = os.urandom(20_000)
    database.write_bytes(content)
    gary = cluster.start("gary")
    gary.wait_for("members=2", "synced", "inside=2")
    assert replica(gary) != before
    agree([gary, diane])
    assert gary.read("track", "AFTER1", 1)["warnings"] == []
    assert any("damaged" in line for line in gary.read("status")["warnings"])
    (aside,) = cluster.data_dir("gary").glob("parkingd.db.corrupt-*")
    assert aside.read_bytes() == content


def test_a_corrupt_database_of_the_only_node_is_set_aside_and_it_starts(cluster: Cluster) -> None:
    cluster.start("gary", lot=False).stop()
    (cluster.data_dir("gary") / "parkingd.db").write_bytes(b"not a database at all" * 500)
    gary = cluster.start("gary")
    assert gary.plates() == []
    gary.read("track", "NEW1", 1)


def test_a_missing_database_comes_back_from_the_others_under_a_new_replica_id(
    cluster: Cluster,
) -> None:
    gary, diane = cluster.start_all("gary", "diane")
    gary.read("track", "BYGARY1", 1)
    agree([gary, diane])
    before = replica(gary)
    gary.stop()
    shutil.rmtree(cluster.data_dir("gary"))
    gary = cluster.start("gary")
    gary.wait_for("members=2", "synced", "inside=1")
    assert replica(gary) != before
    agree([gary, diane])


def test_an_old_database_put_back_takes_a_new_replica_id_and_nothing_is_lost(
    cluster: Cluster,
) -> None:
    """Else its next car would use a dot that the others know for another one."""
    gary, diane = cluster.start_all("gary", "diane")
    gary.read("track", "OLD1", 1)
    gary.stop()
    backup = cluster.root / "backup"
    shutil.copytree(cluster.data_dir("gary"), backup)
    gary = cluster.start("gary")
    gary.read("track", "NEW1", 1)
    before = replica(gary)
    agree([gary, diane])
    gary.stop()
    for file in backup.iterdir():  # In place: every inode stays what it was.
        (cluster.data_dir("gary") / file.name).write_bytes(file.read_bytes())
    gary = cluster.start("gary")
    gary.wait_for("members=2", "synced")
    gary.read("track", "NEWER1", 1)
    assert replica(gary) != before
    agree([gary, diane])
    assert diane.plates() == ["NEW1", "NEWER1", "OLD1"]


def test_a_backup_made_while_it_runs_restores_into_a_new_directory_with_a_new_replica_id(
    cluster: Cluster,
) -> None:
    gary = cluster.start("gary")
    gary.read("track", "SAVED1", 1)
    file = cluster.root / "gary.db"
    saved = gary.read("backup", str(file))
    assert (saved["path"], saved["bytes"]) == (str(file), file.stat().st_size)
    assert file.stat().st_mode & 0o777 == 0o600
    gary.read("track", "LATER1", 1)
    again = gary.ctl("backup", str(file))
    assert (again.status, again.error["code"]) == (6, "storage_failed")
    assert f"{file} exists" in again.error["reason"]
    before = replica(gary)
    gary.stop()

    restored = cluster.root / "restored"
    restored.mkdir()
    shutil.copy(file, restored / "parkingd.db")
    gary = cluster.start("gary", "--data-dir", restored)
    assert replica(gary) != before
    assert gary.plates() == ["SAVED1"]
    gary.read("exit", "SAVED1", 1)


@pytest.mark.parametrize("path", ["/nowhere/gary.db", "/proc/gary.db"])
def test_a_backup_that_cannot_be_written_is_refused(trio: tuple[Daemon, ...], path: str) -> None:
    answer = trio[0].ctl("backup", path)
    assert answer.status == 6
    assert answer.error["code"] == "storage_failed"
    assert path in answer.error["reason"]
