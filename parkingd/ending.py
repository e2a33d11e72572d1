"""What ends a daemon: a signal, its own node, or a bug.

The first signal asks the node to leave, and a second one ends the daemon at once. While nobody can
know of the node yet, there is nothing to leave: one is enough.

An exception in a callback, a task or a thread is a bug: it stops the loop and ends the process
with its traceback reported by the command, because half a daemon is worse than none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_log = logging.getLogger("parkingd")


class Ending:
    """The end of one daemon, awaited by its loop; listens for signals from the start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leave: Callable[[], None]) -> None:
        """``leave``: ask the node to leave; called at most once, and not before `is_serving`."""
        self._loop = loop
        self._leave = leave
        self._ended: asyncio.Future[None] = loop.create_future()
        self._is_signalled = False
        self.is_serving = False
        """Others may know of the node."""
        loop.set_exception_handler(self._callback_failed)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # As nohup has it.
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    @property
    def has_come(self) -> bool:
        """Nothing is to be begun any more."""
        return self._ended.done()

    async def wait(self) -> None:
        """Until it has come. Raises what ended it."""
        await self._ended

    def finish(self, error: BaseException | None) -> None:
        """End now; only the first call counts. ``error``: what `wait` is to raise."""
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)

    def task_ended(self, task: asyncio.Task[None]) -> None:
        """To be called when this task is done: one that failed ends the daemon."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.finish(error)

    @contextlib.contextmanager
    def watching_threads(self) -> Iterator[None]:
        """Meanwhile a thread that fails ends the daemon."""
        before = threading.excepthook
        threading.excepthook = self._thread_failed
        try:
            yield
        finally:
            threading.excepthook = before

    def _signalled(self) -> None:
        if not self.is_serving:
            self.finish(None)  # Nobody knows of us yet.
            return
        if self._is_signalled:
            _log.warning("stopped_at_once")
            self.finish(None)
            return
        self._is_signalled = True
        self._leave()

    def _hung_up(self) -> None:
        """The terminal is gone. The kernel and the shell both say so: a second time is no haste."""
        if not self._is_signalled:
            self._signalled()

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.finish(error or AssertionError(str(context.get("message"))))

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """In the thread that has ended by an exception."""
        with contextlib.suppress(RuntimeError):  # The loop has ended before.
            self._loop.call_soon_threadsafe(self.finish, failure.exc_value)
