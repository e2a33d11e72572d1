"""A program that is run once for each event: `watch -- CMD ARG...`.

The event is in its environment, field by field and whole, and on its standard input as one line of
JSON. Runs follow each other in the order of the events and never overlap; one that takes too long
is ended with everything it has started. What fails is said and counted.

Invariants: no run outlives this object's `run`, unless it ended by itself and left something
behind on purpose; a variable of ours is never one that configures parkingd or parkingd-ctl, but
for ``PARKINGD_CONTROL``, which makes parkingd-ctl ask the daemon that is watched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from parkingd.adapters.document_values import Document
from parkingd.cli.journal_options import EVENT_VARIABLE, HOOK_FIELDS, variable_of
from parkingd.cli.render import as_json, printable
from parkingd.errors import UsageError

TERM_S: Final = 1.0
"""Between being asked to end and being killed."""


class Hook:
    """The program, how often it ran and how often it failed."""

    def __init__(
        self,
        program: Sequence[str],
        run_s_max: float,
        environ: Mapping[str, str],
        say: Callable[[str, str], None],
    ) -> None:
        """``say`` is told a code and a sentence. Raises UsageError if there is no such program."""
        if shutil.which(program[0], path=environ.get("PATH")) is None:
            raise UsageError(f"there is no program {program[0]!r} to run", "watch -- CMD ARG...")
        self._program = tuple(program)
        self._run_s_max = run_s_max
        self._environ = dict(environ)
        self._say = say
        self.runs = 0
        self.failures = 0

    def tell_socket(self, socket: Path | None) -> None:
        """The daemon that is watched, for a `parkingd-ctl` in the program."""
        if socket is not None:
            self._environ["PARKINGD_CONTROL"] = f"ipc://{socket}"

    def run(self, event: Document) -> bool:
        """Run it for one event; whether it ended with status 0."""
        self.runs += 1
        complaint = self._run(event)
        if complaint is not None:
            self.failures += 1
            seq = event.get("seq")
            self._say("hook_failed", f"event {seq}: {printable(self._program[0])} {complaint}")
        return complaint is None

    def _run(self, event: Document) -> str | None:
        """What was wrong with it."""
        line = as_json(event)
        environment = self._environ | variables_of(event) | {EVENT_VARIABLE: line}
        try:
            child = subprocess.Popen(
                self._program,
                env=environment,
                stdin=subprocess.PIPE,
                process_group=0,  # Ctrl-C is ours: we end it, with whatever it has started.
            )
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        try:
            child.communicate(f"{line}\n".encode(), self._run_s_max)
        except subprocess.TimeoutExpired:
            return f"was ended after {self._run_s_max:g} s"
        finally:
            _end(child)
        if child.returncode < 0:
            return f"was ended by {signal.Signals(-child.returncode).name}"
        return f"failed with status {child.returncode}" if child.returncode else None


def variables_of(event: Document) -> dict[str, str]:
    """The event's fields as environment variables."""
    return {variable_of(field): _text(event.get(field)) for field in HOOK_FIELDS}


def _text(value: Any) -> str:
    return "" if value is None else printable(str(value))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing for one that has ended; else the end of its whole process group."""
    if child.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(TERM_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.close()
