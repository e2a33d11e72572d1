from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from parkingd.adapters.rundir import (
    ControlLock,
    control_socket_path,
    default_runtime_dir,
    ensure_runtime_dir,
    find_daemons,
    hidden_directory,
    hidden_lock,
    lock_path,
    search_dirs,
)
from parkingd.errors import ConfigError

UID = os.getuid()


def test_the_default_is_a_folder_in_the_users_runtime_directory() -> None:
    assert default_runtime_dir({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/parkingd")


@pytest.mark.parametrize("xdg", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "relative"}])
def test_without_a_runtime_directory_the_default_is_in_the_temporary_folder(
    xdg: dict[str, str],
) -> None:
    assert default_runtime_dir(xdg) == Path(f"/tmp/parkingd-{UID}")
    assert default_runtime_dir(xdg | {"TMPDIR": "/var/tmp"}) == Path(f"/var/tmp/parkingd-{UID}")


def test_ctl_looks_where_a_daemon_with_or_without_a_runtime_directory_puts_its_socket() -> None:
    found = search_dirs({"XDG_RUNTIME_DIR": f"/run/user/{UID}", "TMPDIR": "/nowhere"})
    assert found == [
        Path(f"/run/user/{UID}/parkingd"),
        Path(f"/nowhere/parkingd-{UID}"),
        Path(f"/tmp/parkingd-{UID}"),
        Path("/run/parkingd"),
    ]


def test_a_planted_folder_in_the_temporary_folder_is_not_searched(tmp_path: Path) -> None:
    planted = tmp_path / f"parkingd-{UID}"
    planted.symlink_to(tmp_path)
    assert planted not in search_dirs({"TMPDIR": str(tmp_path)})
    planted.unlink()
    assert planted in search_dirs({"TMPDIR": str(tmp_path)})


def test_a_new_runtime_directory_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        ensure_runtime_dir(tmp_path / "a" / "b")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    ensure_runtime_dir(tmp_path / "a" / "b")


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="symbolic link"):
        ensure_runtime_dir(tmp_path / "link")


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a directory"):
        ensure_runtime_dir(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot use"):
        ensure_runtime_dir(tmp_path / "file" / "below")


def test_another_users_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: UID + 1)
    with pytest.raises(ConfigError, match="another user"):
        ensure_runtime_dir(tmp_path)


def test_a_directory_in_which_everybody_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="everybody"):
        ensure_runtime_dir(tmp_path)
    tmp_path.chmod(0o1777)
    ensure_runtime_dir(tmp_path)
    tmp_path.chmod(0o700)


def test_the_socket_is_named_by_cluster_and_node() -> None:
    assert control_socket_path(Path("/r"), "east", "gary.1") == Path("/r/east/gary.1.ctl")


def test_a_path_over_100_bytes_names_the_flag_that_helps() -> None:
    with pytest.raises(ConfigError) as refusal:
        control_socket_path(Path("/" + "d" * 90), "default", "gary")
    assert "--runtime-dir" in refusal.value.hint


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "-a", "a" * 64, "a\n", "ä"])
def test_a_name_that_leads_elsewhere_is_none(name: str) -> None:
    with pytest.raises(ConfigError):
        control_socket_path(Path("/r"), "default", name)
    with pytest.raises(ConfigError):
        control_socket_path(Path("/r"), name, "gary")


def test_a_second_daemon_of_a_name_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    socket = control_socket_path(tmp_path, "default", "gary")
    lock = ControlLock.acquire(socket)
    with pytest.raises(ConfigError, match=rf"gary already runs here \(pid {os.getpid()}\)"):
        ControlLock.acquire(socket)
    lock.release()
    lock.release()
    ControlLock.acquire(socket).release()


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    socket = control_socket_path(tmp_path, "default", "gary")
    ensure_runtime_dir(socket.parent)
    lock_path(socket).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="lock file"):
        ControlLock.acquire(socket)
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_kept_fresh_is_young(tmp_path: Path) -> None:
    lock = ControlLock.acquire(control_socket_path(tmp_path, "default", "gary"))
    os.utime(lock.path, (1, 1))
    lock.keep_fresh()
    assert lock.path.stat().st_mtime > 1
    lock.release()


def test_only_daemons_whose_lock_is_held_are_found(tmp_path: Path) -> None:
    locks = [
        ControlLock.acquire(control_socket_path(tmp_path, cluster, name))
        for cluster, name in (("west", "joe"), ("east", "mary"), ("east", "gary"))
    ]
    ControlLock.acquire(control_socket_path(tmp_path, "east", "crashed")).release()
    (tmp_path / "east" / "crashed.ctl").touch()
    (tmp_path / "stray.lock").touch()

    found = find_daemons([tmp_path, tmp_path, tmp_path / "absent"], None)
    assert [(daemon.cluster, daemon.name) for daemon in found] == [
        ("east", "gary"),
        ("east", "mary"),
        ("west", "joe"),
    ]
    assert {daemon.pid for daemon in found} == {os.getpid()}
    assert [daemon.name for daemon in find_daemons([tmp_path], "west")] == ["joe"]
    for lock in locks:
        lock.release()
    assert find_daemons([tmp_path], None) == []


def test_a_lock_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "east").mkdir()
    lock = tmp_path / "east/gary.lock"
    lock.touch()
    assert hidden_lock([tmp_path], None, None) is None
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != lock)  # root may read all
    assert hidden_lock([tmp_path], None, None) == lock
    assert hidden_lock([tmp_path], "east", "gary") == lock
    assert hidden_lock([tmp_path], None, "larry") is None
    assert hidden_lock([tmp_path], "west", "gary") is None


@pytest.mark.skipif(UID == 0, reason="root may look everywhere")
def test_a_directory_that_may_not_be_looked_into_is_named(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir(mode=0o000)
    assert hidden_directory([tmp_path]) == tmp_path / "default"
    (tmp_path / "default").chmod(0o700)
    assert hidden_directory([tmp_path]) is None
