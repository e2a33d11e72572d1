"""Daemons of one machine find each other through a folder: no multicast, no port, no wait.

How it works. Each daemon writes ``<runtime-dir>/<cluster>/<name>.addr``, a small JSON object, by
writing a temporary file and renaming it, and reads what the others wrote: four times a second
while it is young, once a second later. A file is read again only when its inode, size or time of
change differ. One whose process is gone is ignored and removed; the own one is put back when
somebody swept it away (cleaners of temporary folders do).

Invariants: files are untrusted (bounded in size and number, regular files only, every field
checked); nothing here raises for a folder that cannot be used, ``problem`` says what is wrong
and the next round tries again; what is withdrawn was proposed before.

Source: DESIGN section 10.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parkingd.adapters.discovery.addresses import dialable, valid_name
from parkingd.protocol.facts import Candidate, LinkFailure
from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address

_log = logging.getLogger(__name__)

YOUNG_S: Final = 10.0
"""For this long after the start neighbours are likely to be starting too."""
YOUNG_INTERVAL_S: Final = 0.25
INTERVAL_S: Final = 1.0

SUFFIX: Final = ".addr"
FILE_BYTES_MAX: Final = 4_096
FINGERPRINT_LENGTH_MAX: Final = 128

_Stamp = tuple[int, int, int]
"""Inode, size, time of the last change: another one means another content."""


@dataclass(frozen=True, slots=True)
class AddressFile:
    """What one daemon says about itself."""

    name: str
    host: str
    port: int
    pub_port: int
    pid: int
    fingerprint: str
    """Of the cluster's cookie: two that differ cannot talk."""

    def encode(self) -> bytes:
        """One JSON object."""
        fields = {key: getattr(self, key) for key in self.__slots__}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def decode_untrusted(cls, data: bytes) -> AddressFile | None:
        """None when these bytes are not an address file."""
        try:
            fields: object = json.loads(data)
        except (ValueError, RecursionError):
            return None
        match fields:
            case {
                "name": str(name),
                "host": str(host),
                "port": int(port),
                "pub_port": int(pub_port),
                "pid": int(pid),
                "fingerprint": str(fingerprint),
            } if (
                valid_name(name)
                and dialable(host)
                and 0 < port < 65_536
                and 0 < pub_port < 65_536
                and 0 < pid < 2**31
                and len(fingerprint) <= FINGERPRINT_LENGTH_MAX
            ):
                return cls(name, host, port, pub_port, pid, fingerprint)
        return None


@dataclass(frozen=True, slots=True)
class _Known:
    stamp: _Stamp
    said: AddressFile | None
    """None: not an address file; remembered so that it is not read every round."""
    candidate: Candidate | None


class LocalSource:
    """Writes the own address file and proposes the addresses in those of others."""

    name: Final = "local"

    def __init__(self, folder: Path, own: AddressFile) -> None:
        """``folder`` is ``<runtime-dir>/<cluster>``; it is made when missing, mode 0700."""
        self.problem: str | None = None
        self._folder = folder
        self._own = own
        self._own_path = folder / f"{own.name}{SUFFIX}"
        self._own_stamp: _Stamp | None = None
        self._known: dict[str, _Known] = {}
        self._found: Callable[[Candidate], None] = _nobody_listens
        self._task: asyncio.Task[None] | None = None

    async def start(self, found: Callable[[Candidate], None]) -> None:
        """Publish, scan once, and go on scanning in the background."""
        self._found = found
        self._round()
        self._task = asyncio.get_running_loop().create_task(self._keep_scanning(), name="local")

    async def stop(self) -> None:
        """Stop scanning and withdraw the own file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)
            self._task = None
        with contextlib.suppress(OSError):
            if self._own_stamp is not None and _stamp(self._own_path.lstat()) == self._own_stamp:
                self._own_path.unlink()
        self._own_stamp = None

    async def _keep_scanning(self) -> None:
        loop = asyncio.get_running_loop()
        young_until_s = loop.time() + YOUNG_S
        while True:
            await asyncio.sleep(YOUNG_INTERVAL_S if loop.time() < young_until_s else INTERVAL_S)
            self._round()

    def _round(self) -> None:
        try:
            self._publish()
            self._scan()
        except OSError as error:
            reason = error.strerror or str(error)
            if self.problem is None:
                values = {"folder": str(self._folder), "reason": reason}
                _log.warning("local_failed", extra={"values": values})
            self.problem = f"cannot use {self._folder}: {reason}"
        else:
            if self.problem is not None:
                _log.info("local_works", extra={"values": {"folder": str(self._folder)}})
            self.problem = None

    def _publish(self) -> None:
        """Write the own file unless it is there as it was written."""
        with contextlib.suppress(FileNotFoundError):
            if self._own_stamp == _stamp(self._own_path.lstat()):
                return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._own_path.with_name(f"{self._own_path.name}.{self._own.pid}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(self._own.encode())
            file.flush()
            stamp = _stamp(os.fstat(descriptor))
        draft.rename(self._own_path)
        self._own_stamp = stamp

    def _scan(self) -> None:
        present: set[str] = set()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.name.endswith(SUFFIX) or entry.name == self._own_path.name:
                    continue
                if len(present) >= CANDIDATES_MAX:
                    break
                with contextlib.suppress(FileNotFoundError):  # left between listing and looking
                    self._look_at(entry)
                    present.add(entry.name)
        for file_name in self._known.keys() - present:
            self._forget(file_name)

    def _look_at(self, entry: os.DirEntry[str]) -> None:
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return
        known = self._known.get(entry.name)
        if known is None or known.stamp != _stamp(status):
            known = self._read(entry, _stamp(status))
        if known.said is not None and not _process_lives(known.said.pid):
            with contextlib.suppress(OSError):  # not ours to remove: then it is only ignored
                os.unlink(entry.path)
            self._forget(entry.name)

    def _read(self, entry: os.DirEntry[str], stamp: _Stamp) -> _Known:
        """Read a file that is new or has changed, and say what it proposes."""
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                said = AddressFile.decode_untrusted(file.read(FILE_BYTES_MAX))
        except PermissionError:
            said = None
        if said is not None and said.name + SUFFIX != entry.name:
            said = None
        candidate: Candidate | None = None
        if said is not None and _process_lives(said.pid):
            candidate = Candidate(
                address=Address(said.host, said.port),
                source=self.name,
                name=said.name,
                mismatch=None
                if said.fingerprint == self._own.fingerprint
                else LinkFailure.OTHER_COOKIE,
            )
        before = self._known.get(entry.name)
        known = _Known(stamp, said, candidate)
        self._known[entry.name] = known
        if (
            before is not None
            and before.candidate is not None
            and (candidate is None or candidate.address != before.candidate.address)
        ):
            self._withdraw(before.candidate)
        if candidate is not None:
            self._found(candidate)
        return known

    def _forget(self, file_name: str) -> None:
        known = self._known.pop(file_name, None)
        if known is not None and known.candidate is not None:
            self._withdraw(known.candidate)

    def _withdraw(self, candidate: Candidate) -> None:
        self._found(
            Candidate(candidate.address, self.name, candidate.name, candidate.mismatch, gone=True)
        )


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's, but there
    return True


def _nobody_listens(_: Candidate) -> None:
    """Before the start."""
