"""Daemons as real processes: started, asked, looked at from outside and ended.

A lot lives in a temporary directory of its own: one HOME (one cookie), one runtime directory, one
data directory a node, all on the disk of that directory. Nodes are bound to loopback, or each to
the address of a machine of its own, and find each other through the runtime directory; multicast
DNS is off unless asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from parkingd.adapters.client import ControlClient, Trouble
from tests.bench.cars import ask
from tests.bench.figures import BenchError
from tests.net.network import Machine

ROOT: Final = Path(__file__).parents[2]
CLUSTER: Final = "default"
START_S: Final = 20.0
STOP_S: Final = 15.0
POLL_S: Final = 0.02
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


class Node:
    """One running daemon."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], socket: Path, log: Path):
        self.name = name
        self.process = process
        self.socket = socket
        self.log = log
        self._clients: list[ControlClient] = []

    @property
    def pid(self) -> int:
        """Of the daemon itself."""
        return self.process.pid

    def connect(self) -> ControlClient:
        """A new connection; closed with the node."""
        until_s = time.monotonic() + START_S
        while True:
            client = ControlClient.connect(self.socket, START_S)
            if not isinstance(client, Trouble):
                self._clients.append(client)
                return client
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise BenchError(
                    f"{self.name} did not start: {client.reason}\n{self._last_lines()}"
                )
            time.sleep(POLL_S)

    def cpu_s(self) -> tuple[float, float]:
        """CPU time in the program and in the kernel since the start, seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) * TICK_S, int(fields[12]) * TICK_S

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return self._status_bytes("VmRSS")

    def peak_rss_bytes(self) -> int:
        """The most that was ever resident."""
        return self._status_bytes("VmHWM")

    def _status_bytes(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"no {key} of {self.name}")

    def wall_s_of(self, event: str) -> float:
        """When the log first named this event. Raises BenchError if it has not."""
        for entry in self._entries():
            if entry.get("event") == event:
                return datetime.fromisoformat(entry["ts"]).timestamp()
        raise BenchError(f"the log of {self.name} does not name {event}")

    def value_of(self, event: str, key: str) -> str:
        """What the log first said with this event. Raises BenchError if it has not."""
        for entry in self._entries():
            if entry.get("event") == event:
                return str(entry[key])
        raise BenchError(f"the log of {self.name} does not name {event}")

    def events(self) -> Counter[str]:
        """How often the log has named each event."""
        return Counter(str(entry.get("event")) for entry in self._entries())

    def _entries(self) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT whatever happens meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, the hard way when it takes too long."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-5:])


class Lot:
    """The daemons of one run; leaving it ends them and removes everything they wrote."""

    directory: Path | None = None
    """Where lots put their temporary directories; None: the system's folder for that."""
    profile: Path | None = None
    """Where profiles of the daemons' loops go; None: they are not profiled."""

    def __init__(self, *flags: str) -> None:
        """``flags``: for every daemon of this lot."""
        self.flags = flags
        self.home = Path(tempfile.mkdtemp(prefix="pkb", dir=self.directory))
        self.nodes: dict[str, Node] = {}

    def __enter__(self) -> Lot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes.values():
            if node.process.poll() is None:
                # All at once: one after the other they would wait for each other's hand-over.
                node.process.send_signal(signal.SIGTERM)
        for node in self.nodes.values():
            node.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Of every process of this lot: nothing of the caller's parkingd gets in."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PARKINGD_", "XDG_"))}
        return kept | {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home)}

    def start(self, name: str, *, mdns: bool = False, machine: Machine | None = None) -> Node:
        """Start a daemon, for the first time or again; returns at once. ``machine``: not on
        loopback but there."""
        host, interpreter = "127.0.0.1", [sys.executable]
        if machine is not None:
            assert machine.address is not None, "it is not plugged in"
            host, interpreter = machine.address, [*machine.prefix, sys.executable]
        if self.profile is not None:
            out = self.profile / f"{self.home.name}-{name}.prof"
            interpreter += ["-m", "cProfile", "-o", str(out)]
        command = [*interpreter, "-m", "parkingd", "--name", name, "--host", host]
        command += ["--log-format", "json", *(() if mdns else ("--no-mdns",))]
        command += self.flags
        log = self.home / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        socket = self.home / "parkingd" / CLUSTER / f"{name}.ctl"
        node = self.nodes[name] = Node(name, process, socket, log)
        return node

    def start_all(self, *names: str, mdns: bool = False) -> list[Node]:
        """Start these daemons and return when each sees all of them and is in sync."""
        nodes = [self.start(name, mdns=mdns) for name in names]
        for node in nodes:
            in_sync(node.connect(), len(self.running()))
        return nodes

    def running(self) -> list[Node]:
        """Those that have not ended."""
        return [node for node in self.nodes.values() if node.process.poll() is None]


def in_sync(client: ControlClient, members: int, timeout_s: float = 60.0) -> None:
    """Wait until the node sees so many members, itself included, and misses nothing known."""
    conditions = [["members", members, False], ["synced", 1, False]]
    answer = ask(client, "wait", {"conditions": conditions}, timeout_s)
    if not answer["met"]:
        raise BenchError(f"{client.node} is not in sync: {answer['conditions']}")


def root_of(client: ControlClient) -> str:
    """The hash of the resolved state."""
    return str(ask(client, "status")["root"])


def equal_roots(clients: list[ControlClient], timeout_s: float = 30.0) -> float:
    """Wait until all roots are equal; when that was seen, as `time.time`."""
    until_s = time.monotonic() + timeout_s
    while len({root_of(client) for client in clients}) > 1:
        if time.monotonic() > until_s:
            raise BenchError("the roots are still unequal")
        time.sleep(POLL_S / 4)
    return time.time()
