"""The directory that one node keeps on disk: whose it is, which replica it mints for, who holds it.

    lock          held with flock while a daemon runs; names its process for the next one
    identity      JSON: format, replica, name, cluster, created. Replaced as a whole, never edited
    incarnation   the latest start, in decimal; it outlives the database
    parkingd.db   the database (see `database`); beside it, names that begin with ``parkingd.db.``

A replica id may be minted from one disk only, ever: a dot that is used twice destroys data
(DESIGN section 8). So the database remembers the *fingerprint* of the ``identity`` file beside
which it was last opened: its inode, the inode's generation where the file system tells it, and
the id of the file system. A copy of the directory has another inode; an inode number that is
given out again (``rm -r`` and a copy put back do that on ext4 nearly always) has another
generation. Host names and machine ids say nothing: containers change them and clones share them.
``incarnation`` catches the remaining plain case, an old database copied over the present one
while ``identity`` stays where it is: its latest start is then older than the file says.

Not detectable from inside: the whole disk set back, as a rolled back virtual machine is. Peers
that have seen later dots tell (`StartOverReason.DOTS_SEEN_ELSEWHERE`).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parkingd.core.ids import REPLICA_MAX, ReplicaId, replica_hex
from parkingd.errors import ConfigError, StorageError

IDENTITY_FORMAT: Final = 1

IDENTITY_BYTES_MAX: Final = 4_096
"""An identity file is some 150 bytes; what is larger is not one."""

FS_IOC_GETVERSION: Final = (2 << 30) | (struct.calcsize("l") << 16) | (ord("v") << 8) | 1
"""Linux: read the generation of an inode, which tells two uses of one inode number apart."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the ``identity`` file says."""

    replica: ReplicaId
    name: str
    cluster: str
    created_ms: int
    """Wall milliseconds; for people."""


def new_replica_id(wall_ms: int) -> ReplicaId:
    """32 bits of creation time in seconds, 32 random bits that are not all zero."""
    return ((wall_ms // 1000) & 0xFFFF_FFFF) << 32 | (secrets.randbelow(0xFFFF_FFFF) + 1)


def new_journal_name() -> str:
    """16 random hex digits."""
    return secrets.token_hex(8)


def fsync_directory(path: Path) -> None:
    """Make creations and renames in a directory survive a loss of power. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_file(path: Path, content: bytes) -> None:
    """Put a new file, mode 0600, in the place of an old one: after a crash it is one of the two."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_directory(path.parent)


def _make_directory(path: Path) -> None:
    """Create it and the parents it lacks, all with mode 0700; one that is there stays as it is."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)


def _parse_identity(content: bytes) -> Identity | None:
    """None for anything that is not an identity file, so that a damaged one costs only the id."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    match value:
        case {"format": int(version)} if version > IDENTITY_FORMAT:
            raise ConfigError(
                f"the data directory was written by a newer parkingd (identity format {version})",
                hint="install that version, or give --data-dir another directory",
            )
        case {
            "format": int(),
            "replica": str(replica),
            "name": str(name),
            "cluster": str(cluster),
            "created": int(created_ms),
        }:
            try:
                number = int(replica, 16)
            except ValueError:
                return None
            if not 0 < number <= REPLICA_MAX:
                return None
            return Identity(number, name, cluster, created_ms)
        case _:
            return None


class DataDir:
    """A data directory that this process holds until `close`."""

    def __init__(self, path: Path, *, cluster: str, name: str, lock: int) -> None:
        self.path = path
        self.cluster = cluster
        self.name = name
        self.identity: Identity | None = None
        """None: there is none yet, or it is damaged."""
        self._lock: int | None = lock

    @classmethod
    def open(cls, path: Path, *, cluster: str, name: str) -> DataDir:
        """Create, lock and check a directory for the node ``name`` of ``cluster``.

        Raises ConfigError when it cannot be created or written, another process holds it, or it
        belongs to another node.
        """
        try:
            _make_directory(path)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        data_dir = cls(path, cluster=cluster, name=name, lock=lock)
        try:
            data_dir._take_lock(lock)
            data_dir._read_identity()
        except OSError as error:
            data_dir.close()
            raise _unusable(path, error) from error
        except ConfigError:
            data_dir.close()
            raise
        return data_dir

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            process = f"process {holder}" if holder.isdigit() else "another process"
            raise ConfigError(
                f"the data directory {self.path} is in use by {process}",
                hint="stop that daemon first, or give this one another --name or --data-dir",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def _read_identity(self) -> None:
        try:
            with self._identity_path.open("rb") as file:
                identity = _parse_identity(file.read(IDENTITY_BYTES_MAX))
        except FileNotFoundError:
            return
        if identity is not None:
            self.refuse_foreign(cluster=identity.cluster, name=identity.name)
        self.identity = identity

    def refuse_foreign(self, *, cluster: str, name: str) -> None:
        """Raise ConfigError unless what is stored here belongs to this node."""
        if (cluster, name) != (self.cluster, self.name):
            raise ConfigError(
                f"the data directory {self.path} belongs to node {name} of cluster {cluster}, "
                f"not to {self.name} of {self.cluster}",
                hint="give --data-dir another directory, or correct --name and --cluster",
            )

    @property
    def _identity_path(self) -> Path:
        return self.path / "identity"

    @property
    def database(self) -> Path:
        """Where the database is or will be."""
        return self.path / "parkingd.db"

    def renew_identity(self, wall_ms: int) -> Identity:
        """Write a new identity with a new replica id, on the disk when this returns.

        Raises StorageError.
        """
        identity = Identity(new_replica_id(wall_ms), self.name, self.cluster, wall_ms)
        text = json.dumps(
            {
                "format": IDENTITY_FORMAT,
                "replica": replica_hex(identity.replica),
                "name": identity.name,
                "cluster": identity.cluster,
                "created": identity.created_ms,
            }
        )
        self._write("identity", text + "\n")
        self.identity = identity
        return identity

    def fingerprint(self) -> str:
        """What tells this very ``identity`` file from any copy of it. Raises StorageError."""
        try:
            with self._identity_path.open("rb") as file:
                file_system = os.fstatvfs(file.fileno()).f_fsid
                inode = os.fstat(file.fileno()).st_ino
                generation = bytearray(struct.calcsize("l"))
                try:
                    fcntl.ioctl(file.fileno(), FS_IOC_GETVERSION, generation)
                except OSError:
                    # Not this kind of file system: the inode has to do.
                    generation = bytearray()
        except OSError as error:
            raise self._failed(error) from error
        return f"{file_system:x}:{inode:x}:{generation.hex()}"

    @property
    def incarnation(self) -> int:
        """The latest incarnation that started here; 0 if that is not known."""
        try:
            with (self.path / "incarnation").open("rb") as file:
                content = file.read(32).strip()
        except OSError:
            return 0
        return int(content) if content.isdigit() else 0

    def record_incarnation(self, incarnation: int) -> None:
        """Remember a start, after the database does. Raises StorageError."""
        self._write("incarnation", f"{incarnation}\n")

    def _write(self, name: str, text: str) -> None:
        try:
            _replace_file(self.path / name, text.encode())
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"the data directory {self.path} cannot be written: {error.strerror}",
            hint="make room or repair the disk, or give --data-dir another directory",
        )

    def close(self) -> None:
        """Let go of the directory. Repeating it does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the data directory {path} cannot be used: {error.strerror}",
        hint="give --data-dir a directory that can be written, or use --ephemeral",
    )
