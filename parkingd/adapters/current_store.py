"""The store of this run: opened, and opened again when another replica takes the node's place.

A store reports from its writer thread. Here that becomes a fact in the loop, and one that comes
from a store which is no longer the current one is dropped: its node is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from parkingd.adapters.clock import wall_ms
from parkingd.adapters.data_dir import DataDir
from parkingd.adapters.review import write_review
from parkingd.adapters.store import EphemeralStore, SqliteStore
from parkingd.adapters.succession import begin_again
from parkingd.protocol.effects import Persist, StartOver, StoredState
from parkingd.protocol.facts import Fact

STORE_CLOSE_S: Final = 3.0

_log = logging.getLogger("parkingd")


class CurrentStore:
    """On disk, or in memory where there is no data directory."""

    store: SqliteStore | EphemeralStore
    """There from the first `open` on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        data_dir: DataDir | None,
        on_fact: Callable[[Fact], None],
    ) -> None:
        """``on_fact`` is called in the loop."""
        self._loop = loop
        self._data_dir = data_dir
        self._on_fact = on_fact
        self.last_token = 0
        """Of the batch that was submitted last."""

    @property
    def place(self) -> Path | str:
        """Where it is, for people."""
        return self._data_dir.database if self._data_dir is not None else "memory"

    def open(self, pending: tuple[bytes, ...] = (), incarnation_after: int = 0) -> StoredState:
        """What is stored. The arguments are for a store in memory: see `EphemeralStore.open`.

        Raises StorageError or ConfigError: see `SqliteStore.open`.
        """
        if self._data_dir is None:
            self.store, stored = EphemeralStore.open(
                wall_ms=wall_ms(),
                on_fact=self._reported,
                pending=pending,
                incarnation_after=incarnation_after,
            )
        else:
            self.store, stored = SqliteStore.open(
                self._data_dir, wall_ms=wall_ms(), on_fact=self._reported
            )
        for warning in stored.warnings:
            _log.warning("storage", extra={"values": {"warning": warning}})
        return stored

    def submit(self, batch: Persist) -> None:
        """Queue a batch; its commit comes as a fact."""
        self.store.submit(batch)
        self.last_token = batch.token

    def close(self) -> bool:
        """True: everything submitted is on the disk."""
        return self.store.close(STORE_CLOSE_S)

    def begin_again(self, start_over: StartOver, incarnation: int) -> StoredState:
        """Open another, after `close`, with a new replica id; the warnings say what is to be done.

        ``incarnation``: the one that has ended. Raises StorageError or ConfigError.
        """
        warnings: tuple[str, ...] = ()
        if self._data_dir is not None:
            if start_over.review:
                path = write_review(self._data_dir.path, start_over.review, wall_ms=wall_ms())
                warnings = (
                    f"cars that perhaps only this node had recorded: {len(start_over.review)}, "
                    f"listed in {path}; look whether they are inside, then `parkingd-ctl import` "
                    "them",
                )
            begin_again(self._data_dir, start_over, wall_ms=wall_ms())
        stored = self.open(start_over.pending, incarnation)
        return replace(stored, warnings=(*stored.warnings, *warnings))

    def _reported(self, fact: Fact) -> None:
        """From the writer thread."""
        store = self.store
        with contextlib.suppress(RuntimeError):  # The loop has ended; so has the node.
            self._loop.call_soon_threadsafe(self._stored, store, fact)

    def _stored(self, store: SqliteStore | EphemeralStore, fact: Fact) -> None:
        if store is self.store:
            self._on_fact(fact)
