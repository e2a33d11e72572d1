"""Daemons on this machine, in a folder of their own, that never outlive their script.

Every daemon gets a HOME and a runtime directory inside one temporary folder, and no setting of the
user's environment, so that neither its cookie nor its data nor its sockets touch what the user has
running. Leaving the `with` block stops whatever still lives and removes the folder, also after an
exception, Ctrl-C or SIGTERM.

The examples use this; a program that only wants to talk to a daemon needs
`parkingd.adapters.client.ControlClient` and nothing from here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, NoReturn

from parkingd.adapters.client import ControlClient

START_S_MAX: Final = 20.0
"""From the start of a process to its control socket: half a second, more on a busy machine."""

STOP_S_MAX: Final = 10.0
"""A daemon that was asked to stop hands over and leaves within this time."""

LEAVING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a script early, and never before its daemons and their folder are gone."""

POLL_S: Final = 0.02
LOG_LINES_SHOWN: Final = 5


class Unexpected(Exception):
    """Something is not as it should be; the text is for people."""


def run_script(main: Callable[[], int]) -> int:
    """Run an example; its exit status. What ends it early is said in one line, or not at all."""
    try:
        return main()
    except Unexpected as error:
        print(f"{Path(sys.argv[0]).stem}: not as it should be: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output had enough of it; what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


class LocalCluster:
    """The processes of one cluster, by name."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        """``flags`` go to every daemon."""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._flags = tuple(flags)
        scripts = Path(sys.executable).parent
        self._search_path = f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        if any(self.find(command) is None for command in ("parkingd", "parkingd-ctl")):
            raise Unexpected("parkingd is not installed for this Python: pip install parkingd")

    def __enter__(self) -> LocalCluster:
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGHUP, _leave)
        # A socket's path has at most 100 bytes: the user's own temporary folder may be too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="parkingd-", dir="/tmp"))
        home, runtime = self.folder / "home", self.folder / "run"
        home.mkdir()
        runtime.mkdir(mode=0o700)
        self.environment = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith(("PARKINGD_", "XDG_"))
        } | {
            "PATH": self._search_path,
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            # The same place, said outright: parkingd-ctl then looks nowhere else.
            "PARKINGD_RUNTIME_DIR": str(runtime / "parkingd"),
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Who presses Ctrl-C twice shall not keep us from this: the second one waits a moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, LEAVING)
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LEAVING)

    def find(self, command: str) -> str | None:
        """The full path of an installed command; the one beside this Python comes first."""
        return shutil.which(command, path=self._search_path)

    def socket(self, name: str) -> Path:
        """Where the daemon of this name listens for requests."""
        return Path(self.environment["PARKINGD_RUNTIME_DIR"], "default", f"{name}.ctl")

    def log(self, name: str) -> Path:
        """What the daemon of this name wrote, over all its starts."""
        return self.folder / f"{name}.log"

    def start(self, names: Iterable[str]) -> None:
        """Start daemons and wait until each answers on its control socket."""
        names = list(names)
        command = self.find("parkingd")
        assert command is not None
        for name in names:
            with self.log(name).open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [command, "--name", name, *self._flags],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,  # Ctrl-C stops this script, and this script stops them
                )
        until_s = time.monotonic() + START_S_MAX
        for name in names:
            self._wait_for_socket(name, until_s)

    def kill(self, name: str) -> None:
        """As if somebody pulled its plug."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Ctrl-C in every terminal. Raises Unexpected for an exit status other than 0."""
        for process in self.processes.values():
            process.send_signal(signal.SIGINT)
        until_s = time.monotonic() + STOP_S_MAX
        for name, process in self.processes.items():
            try:
                status = process.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Unexpected(f"{name} did not stop within {STOP_S_MAX:g} s") from None
            if status != 0:
                raise Unexpected(f"{name} stopped with exit status {status}{self.tail(name)}")
        self.processes.clear()

    def tail(self, name: str) -> str:
        """The last lines of a daemon's log, indented, for a message."""
        lines = self.log(name).read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "".join(f"\n  {name}: {line}" for line in lines)

    def _wait_for_socket(self, name: str, until_s: float) -> None:
        while time.monotonic() < until_s:
            if self.processes[name].poll() is not None:
                raise Unexpected(f"{name} did not start{self.tail(name)}")
            client = ControlClient.connect(self.socket(name), POLL_S)
            if isinstance(client, ControlClient):
                client.close()
                return
            time.sleep(POLL_S)
        raise Unexpected(f"{name} has no control socket after {START_S_MAX:g} s{self.tail(name)}")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
