"""Requests that concern the disk and the software of a daemon, not its node: answered here."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import assert_never

from parkingd import __version__
from parkingd.adapters.control import ControlServer
from parkingd.adapters.current_store import CurrentStore
from parkingd.adapters.journal import JournalReader
from parkingd.errors import StorageError
from parkingd.protocol.command_parsing import Backup, Direct, ReadJournal, Version
from parkingd.protocol.messages import WIRE_VERSION
from parkingd.protocol.outcomes import ErrorCode, Failure


class DirectAnswers:
    """Each question is answered once, through the control server that it came from."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        control: ControlServer,
        journal: JournalReader,
        store: CurrentStore,
    ) -> None:
        self._loop = loop
        self._control = control
        self._journal = journal
        self._store = store

    def ask(self, handle: int, verb: Direct) -> None:
        """Answer now, or when the disk has done its part."""
        match verb:
            case Version():
                body = {"version": __version__, "wire": WIRE_VERSION}
                self._control.reply_document(handle, "Version", body)
            case ReadJournal():
                self._journal.ask(handle, verb)
            case Backup(path=path):
                self._store.store.backup(Path(path), lambda e: self._backed_up(handle, path, e))
            case _:
                assert_never(verb)

    def _backed_up(self, handle: int, path: str, error: StorageError | None) -> None:
        """From the writer thread."""
        with contextlib.suppress(RuntimeError):  # The loop has ended; so has the client's wait.
            self._loop.call_soon_threadsafe(self._reply_backup, handle, path, error)

    def _reply_backup(self, handle: int, path: str, error: StorageError | None) -> None:
        if error is not None:
            failure = Failure(ErrorCode.STORAGE_FAILED, str(error), error.hint)
            self._control.reply(handle, failure)
            return
        try:
            size = os.path.getsize(path)
        except OSError as gone:
            reason = f"the backup {path} has been made and is gone: {gone.strerror}"
            self._control.reply(handle, Failure(ErrorCode.STORAGE_FAILED, reason, "make another"))
            return
        self._control.reply_document(handle, "Backup", {"path": path, "bytes": size})
