"""Real daemons for tests: started, asked, cut off and, whatever happens, ended.

A `Cluster` is a home, a runtime directory with a short path (a control socket's has 100 bytes)
and the daemons started there. Each writes its log to a file, and `close` insists that no log ever
held a traceback. `ctl` runs parkingd-ctl within this process: the same code in a tenth of the
time; `ctl_process` runs the command itself. So does `run_here` with parkingd, and `run`.

Nothing sleeps for a while and hopes: `until` polls with a deadline.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from parkingd.adapters.client import ControlClient
from parkingd.cli.ctl import main as ctl_main
from parkingd.cli.parkingd import main as daemon_main

ValueT = TypeVar("ValueT")

COMMAND = (sys.executable, "-m", "parkingd")
CTL_COMMAND = (
    sys.executable,
    "-c",
    "import sys; from parkingd.cli.ctl import main; sys.exit(main())",
)
PATIENCE_S = 15.0
"""Everything here takes a tenth of that on an idle machine."""
POLL_S = 0.05

_living: set[subprocess.Popen[bytes]] = set()


@atexit.register
def _end_all() -> None:
    for process in _living:
        process.kill()


def until(condition: Callable[[], ValueT], what: str, timeout_s: float = PATIENCE_S) -> ValueT:
    """The first true value of ``condition``; AssertionError when there is none in time."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)
    return value


class Answer(NamedTuple):
    """What one run of parkingd-ctl said."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The object on standard output."""
        assert self.status in (0, 1, 4, 5), (self.status, self.err)
        return dict(json.loads(self.out))

    @property
    def error(self) -> dict[str, Any]:
        """The object on standard error, the only line there."""
        assert self.status != 0, self.out
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return dict(json.loads(self.err))


class Ended(NamedTuple):
    """What a daemon that did not stay said."""

    status: int
    err: str

    @property
    def complaint(self) -> str:
        """The last line of standard error: the one that is not a log record."""
        lines = self.err.splitlines()
        complaints = [line for line in lines if not line.startswith("{")]
        assert len(complaints) == 1, self.err
        assert complaints[0].startswith("parkingd: ")
        return complaints[0]


class Daemon:
    """One daemon, running or ended."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], log: Path, control: Path
    ) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.control = control

    def __repr__(self) -> str:
        return f"<{self.name} {self.process.pid}>"

    @property
    def is_running(self) -> bool:
        """Not ended yet."""
        return self.process.poll() is None

    def said(self) -> str:
        """Everything on standard error so far."""
        return self.log.read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log records of this event."""
        lines = [line for line in self.said().splitlines() if line.startswith("{")]
        records = [json.loads(line) for line in lines if line.endswith("}")]
        return [record for record in records if record["event"] == event]

    def ctl(self, *words: str | int, timeout_s: float = PATIENCE_S) -> Answer:
        """parkingd-ctl, within this process, with JSON asked for."""
        where = ("--control", f"ipc://{self.control}", "--timeout", str(timeout_s), "--json")
        return ctl_plain(*words, *where)

    def read(self, *words: str | int) -> dict[str, Any]:
        """The document that a command answers with; it must succeed."""
        answer = self.ctl(*words)
        assert answer.status == 0, (words, answer)
        return answer.document

    def client(self, timeout_s: float = PATIENCE_S) -> ControlClient:
        """A connection to its control socket."""
        client = ControlClient.connect(self.control, timeout_s)
        assert isinstance(client, ControlClient), client
        return client

    def wait_for(self, *conditions: str, timeout_s: float = PATIENCE_S) -> None:
        """`wait --for` each of them."""
        words = [word for condition in conditions for word in ("--for", condition)]
        answer = self.ctl("wait", *words, timeout_s=timeout_s)
        assert answer.status == 0, (self.name, answer.out, answer.err, self.said())

    def answers(self) -> bool:
        """Whether its control socket does."""
        assert self.is_running, self.said()
        return self.ctl("status", timeout_s=2.0).status == 0

    def is_ready(self) -> bool:
        """Whether its control socket answers that it is ready."""
        assert self.is_running, self.said()
        answer = self.ctl("status", timeout_s=2.0)
        return answer.status == 0 and bool(answer.document["ready"])

    def until_status(
        self,
        holds: Callable[[dict[str, Any]], object],
        what: str,
        timeout_s: float = PATIENCE_S,
    ) -> dict[str, Any]:
        """The first status for which this holds."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            status = self.read("status")
            if holds(status):
                return status
            assert time.monotonic() < deadline_s, f"{self.name}: no {what}: {status}"
            time.sleep(POLL_S)

    @property
    def port(self) -> int:
        """Of its ROUTER; the PUB has the next."""
        (own, *_) = self.read("members")["items"]
        return int(own["address"].rpartition(":")[2])

    def plates(self) -> list[str]:
        """One for each stay, sorted."""
        return sorted(item["plate"] for item in self.read("vehicles")["items"])

    def end(self, number: int = signal.SIGKILL, timeout_s: float = PATIENCE_S) -> int:
        """Send a signal and wait; the exit status."""
        if self.is_running:
            self.process.send_signal(number)
        return self.wait(timeout_s)

    def stop(self) -> None:
        """Let it leave in good order."""
        assert self.end(signal.SIGTERM) == 0, self.said()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Until it has ended by itself; the exit status."""
        status = self.process.wait(timeout_s)
        _living.discard(self.process)
        return status


class Cluster:
    """Daemons of one user on one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.runtime = Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp"))
        self.daemons: list[Daemon] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def environment(self, **more: str) -> dict[str, str]:
        """What the daemons see: nothing of the machine's own settings."""
        kept = {
            key: os.environ[key] for key in ("PATH", "LANG", "COVERAGE_FILE") if key in os.environ
        }
        return kept | {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.runtime)} | more

    def start(
        self,
        name: str,
        *flags: str | int | Path,
        apart: bool = False,
        mdns: bool = False,
        answers: bool = True,
        lot: bool = True,
        prefix: Sequence[str] = (),
        command: Sequence[str] = COMMAND,
        environment: Mapping[str, str] | None = None,
    ) -> Daemon:
        """Start a daemon, by default without mDNS, on any port, and wait until it is ready.

        ``apart``: in a runtime directory of its own, where no other looks for it. ``lot``: wait
        until it has one (1.5 s when it is alone), not only until it ``answers``. ``prefix``: words
        before the ``command``.
        """
        runtime = self.runtime / (name if apart else "all")
        words = [*prefix, *command, "--name", name, "--runtime-dir", str(runtime)]
        if "--port" not in flags:
            words += ["--port", "0"]
        if not mdns:
            words.append("--no-mdns")
        words += [str(flag) for flag in flags]
        cluster = words[words.index("--cluster") + 1] if "--cluster" in words else "default"
        log = self.root / f"{name}-{len(self.daemons)}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                words,
                env=self.environment(**(environment or {})),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        _living.add(process)
        daemon = Daemon(name, process, log, runtime / cluster / f"{name}.ctl")
        self.daemons.append(daemon)
        if answers:
            until(daemon.is_ready if lot else daemon.answers, f"{name} answers")
        return daemon

    def start_all(self, *names: str) -> list[Daemon]:
        """Daemons that know each other, in one lot and in sync."""
        daemons = [self.start(name, answers=False) for name in names]
        for daemon in daemons:
            until(daemon.is_ready, f"{daemon.name} is ready")
            daemon.wait_for(f"members={len(names)}", "synced")
        return daemons

    def data_dir(self, name: str) -> Path:
        """Where the daemon of this name keeps its database by default."""
        return self.home / ".local/state/parkingd/default" / name

    def run(
        self,
        *flags: str | int | Path,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> Ended:
        """Run parkingd to its end: for starts that must fail, and for what is only printed."""
        ended = subprocess.run(
            [*COMMAND, *(str(flag) for flag in flags)],
            env=self.environment() | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
        )
        err = ended.stderr.decode()
        assert "Traceback" not in err, err
        return Ended(ended.returncode, err)

    def fail_to_start(self, name: str, *flags: str | int | Path, **more: Any) -> Ended:
        """Start a daemon as `start` does; it must end by itself."""
        daemon = self.start(name, *flags, answers=False, **more)
        return Ended(daemon.wait(), daemon.said())

    def ctl_process(self, *words: str, **environment: str) -> Answer:
        """parkingd-ctl in a process of its own."""
        ended = subprocess.run(
            [*CTL_COMMAND, *words],
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Answer(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def close(self) -> None:
        """End every daemon, then insist that none showed a traceback."""
        for daemon in self.daemons:
            daemon.end(signal.SIGKILL)
        shutil.rmtree(self.runtime, ignore_errors=True)
        for daemon in self.daemons:
            said = daemon.said()
            assert "Traceback" not in said, said
            assert '"level": "critical"' not in said, said


def run_here(*flags: str | int | Path) -> Ended:
    """parkingd within this process: for what ends before it starts anything."""
    err = io.StringIO()
    with redirect_stderr(err):
        status = daemon_main([str(flag) for flag in flags])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Ended(status, err.getvalue())


def ctl_plain(*words: str | int) -> Answer:
    """parkingd-ctl within this process, with exactly these words."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = ctl_main([str(word) for word in words])
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Answer(status, out.getvalue(), err.getvalue())


def same_root(daemons: Sequence[Daemon]) -> str | None:
    """The root that all of them have; None while they differ."""
    roots = {str(daemon.read("status")["root"]) for daemon in daemons}
    return roots.pop() if len(roots) == 1 else None


def agree(daemons: Sequence[Daemon], timeout_s: float = PATIENCE_S) -> str:
    """Wait until all have one root; it."""
    root = until(lambda: same_root(daemons), f"{daemons} have one root", timeout_s)
    assert root is not None
    return root


def plate_numbers(prefix: str) -> Iterator[str]:
    """Plates nobody else uses."""
    number = 0
    while True:
        number += 1
        yield f"{prefix}{number:05}"
