"""The runtime directory: where a daemon puts its control socket and how others find it.

``<runtime-dir>/<cluster>/<name>.ctl`` is the socket, ``<name>.lock`` beside it the lock file. The
daemon holds an exclusive flock on the lock file for as long as it lives: binding an ipc path
silently steals it from whoever is bound there, so the lock, and never the socket file, says who
lives. A crash leaves both files and no lock, which reads as "no daemon here". The lock file is
never removed: two daemons would otherwise hold locks on two files of one name.

Invariants: nothing is created or trusted behind a symbolic link or in another user's directory; a
name never leads out of its cluster's directory. Imported by parkingd-ctl: standard library only,
and of that only what starts in a few milliseconds.

Source: DESIGN section 11.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from parkingd.errors import ConfigError
from parkingd.protocol.limits import NAME_LENGTH_MAX

SOCKET_SUFFIX: Final = ".ctl"
LOCK_SUFFIX: Final = ".lock"

SOCKET_PATH_BYTES_MAX: Final = 100
"""sun_path has 104 bytes on macOS and 108 on Linux, the closing zero included."""

LOCK_ATTEMPTS: Final = 25
LOCK_ATTEMPT_WAIT_S: Final = 0.01
"""Whoever looks for daemons holds a shared lock for microseconds; a daemon holds it for days."""

SYSTEM_DIR: Final = Path("/run/parkingd")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Daemon(NamedTuple):
    """A running daemon, as its lock says."""

    cluster: str
    name: str
    socket: Path
    pid: int | None
    """None when the lock file does not say."""


def default_runtime_dir(environ: Mapping[str, str]) -> Path:
    """``$XDG_RUNTIME_DIR/parkingd``, else ``parkingd-<uid>`` in the temporary folder."""
    xdg = environ.get("XDG_RUNTIME_DIR", "")
    if xdg.startswith("/"):
        return Path(xdg, "parkingd")
    return _in_temporary_folder(environ)


def search_dirs(environ: Mapping[str, str]) -> list[Path]:
    """Where daemons of this user, and then the system's, put their sockets, without duplicates.

    Does not need ``XDG_RUNTIME_DIR``: ssh, cron and sudo do not set it. A directory in the
    temporary folder counts only if it is this user's own.
    """
    candidates = [default_runtime_dir(environ), Path(f"/run/user/{os.getuid()}/parkingd")]
    temporary = [_in_temporary_folder(environ), Path(f"/tmp/parkingd-{os.getuid()}")]
    candidates += temporary
    candidates.append(SYSTEM_DIR)
    return [
        directory
        for directory in dict.fromkeys(candidates)
        if directory not in temporary or not _is_foreign(directory)
    ]


def _in_temporary_folder(environ: Mapping[str, str]) -> Path:
    for variable in ("TMPDIR", "TEMP", "TMP"):
        folder = environ.get(variable, "")
        if folder.startswith("/"):
            return Path(folder, f"parkingd-{os.getuid()}")
    return Path(f"/tmp/parkingd-{os.getuid()}")


def _is_foreign(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid()


def ensure_runtime_dir(path: Path) -> None:
    """Make the directory with mode 0700, or check that the one there is ours.

    Raises ConfigError for a symbolic link, another owner, or a directory in which everybody may
    write and remove what others wrote.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError:
        _check_directory(path)
    except OSError as error:
        raise ConfigError(
            f"cannot create the runtime directory {path}: {error.strerror}",
            "name another one with --runtime-dir",
        ) from error


def _check_directory(path: Path) -> None:
    hint = "name another one with --runtime-dir"
    try:
        found = path.lstat()
    except OSError as error:
        raise ConfigError(f"cannot use {path}: {error.strerror}", hint) from error
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"the runtime directory {path} is a symbolic link", hint)
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"the runtime directory {path} is not a directory", hint)
    if found.st_uid != os.geteuid():
        raise ConfigError(f"the runtime directory {path} belongs to another user", hint)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"everybody can write to the runtime directory {path}", f"chmod 700 {path}"
        )


def control_socket_path(runtime_dir: Path, cluster: str, name: str) -> Path:
    """Where the daemon of this name listens.

    Raises ConfigError for a cluster or node name that is none, and over 100 bytes.
    """
    check_name("cluster", cluster)
    check_name("node", name)
    path = runtime_dir / cluster / f"{name}{SOCKET_SUFFIX}"
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"the control socket's path has {length} bytes,"
            f" {SOCKET_PATH_BYTES_MAX} are possible: {path}",
            "name a shorter directory with --runtime-dir",
        )
    return path


def check_name(what: str, text: str) -> None:
    """Raises ConfigError for what is not a ``what`` name and could lead out of a directory."""
    if len(text) > NAME_LENGTH_MAX or _NAME.fullmatch(text) is None:
        raise ConfigError(
            f"{text!r} is not a {what} name",
            f"1-{NAME_LENGTH_MAX} of letters, digits, '.', '_', '-', the first a letter or digit",
        )


def lock_path(socket: Path) -> Path:
    """The lock file that belongs to a control socket."""
    return socket.with_name(socket.name.removesuffix(SOCKET_SUFFIX) + LOCK_SUFFIX)


class ControlLock:
    """The right to be the daemon of one name: held from before binding until after closing."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def acquire(cls, socket: Path) -> ControlLock:
        """Take the lock beside this socket path; makes its directory (0700) where missing.

        Raises ConfigError when a living daemon holds it or the file cannot be used.
        """
        ensure_runtime_dir(socket.parent)
        path = lock_path(socket)
        name = socket.name.removesuffix(SOCKET_SUFFIX)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot open the lock file {path}: {error.strerror}",
                "name another directory with --runtime-dir",
            ) from error
        if not _take(fd):
            pid = _read_pid(fd)
            os.close(fd)
            raise ConfigError(
                f"a daemon named {name} already runs here"
                + (f" (pid {pid})" if pid is not None else ""),
                "stop it, or give this one another --name",
            )
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            os.close(fd)
            raise ConfigError(
                f"cannot write the lock file {path}: {error.strerror}",
                "make room there, or name another directory with --runtime-dir",
            ) from error
        return cls(path, fd)

    def keep_fresh(self) -> None:
        """Renew the file's time, so that cleaners of temporary folders leave it alone."""
        os.utime(self._fd)

    def release(self) -> None:
        """Let another daemon have the name. The file stays. Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _take(fd: int) -> bool:
    for attempt in range(LOCK_ATTEMPTS):
        if attempt:
            time.sleep(LOCK_ATTEMPT_WAIT_S)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise ConfigError(
                    f"cannot lock a file in the runtime directory: {error.strerror}",
                    "name a directory on a local file system with --runtime-dir",
                ) from error
        else:
            return True
    return False


def _read_pid(fd: int) -> int | None:
    try:
        text = os.pread(fd, 20, 0).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def lock_holder(socket: Path) -> Daemon | None:
    """The living daemon behind a control socket's path; None when nobody holds its lock.

    Raises PermissionError when this user may not look.
    """
    try:
        fd = os.open(lock_path(socket), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except PermissionError:
        raise
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        name = socket.name.removesuffix(SOCKET_SUFFIX)
        return Daemon(socket.parent.name, name, socket, _read_pid(fd))
    finally:
        os.close(fd)
    return None


def find_daemons(runtime_dirs: Iterable[Path], cluster: str | None) -> list[Daemon]:
    """The daemons that live in these directories, of one cluster or of all, by cluster and name.

    What cannot be read is left out: a daemon of another user is not there for this one.
    """
    found: dict[Path, Daemon] = {}
    for socket in _sockets(runtime_dirs, cluster):
        try:
            daemon = lock_holder(socket)
        except PermissionError:
            continue
        if daemon is not None:
            found.setdefault(socket.resolve(), daemon)
    return sorted(found.values())


def hidden_lock(runtime_dirs: Iterable[Path], cluster: str | None, name: str | None) -> Path | None:
    """A lock file that this user is not permitted to read, of this name or of any, if there is
    one."""
    for socket in _sockets(runtime_dirs, cluster):
        path = lock_path(socket)
        is_meant = name is None or socket.name == name + SOCKET_SUFFIX
        if is_meant and not os.access(path, os.R_OK):
            return path
    return None


def hidden_directory(runtime_dirs: Iterable[Path]) -> Path | None:
    """A directory in which daemons may live that this user is not permitted to see, if any."""
    for runtime_dir in runtime_dirs:
        for directory in (runtime_dir, *(runtime_dir / name for name in _entries(runtime_dir))):
            try:
                os.listdir(directory)
            except PermissionError:
                return directory
            except OSError:
                continue
    return None


def _sockets(runtime_dirs: Iterable[Path], cluster: str | None) -> Iterator[Path]:
    """Those with a lock file beside them, of one cluster or of all."""
    for runtime_dir in runtime_dirs:
        for each in [cluster] if cluster is not None else _entries(runtime_dir):
            for entry in _entries(runtime_dir / each):
                if entry.endswith(LOCK_SUFFIX):
                    yield runtime_dir / each / (entry.removesuffix(LOCK_SUFFIX) + SOCKET_SUFFIX)


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
