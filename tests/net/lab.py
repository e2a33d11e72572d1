"""A cluster of which every daemon has a machine of its own, and what tests ask of it.

The daemons are those of `tests.daemon.harness`, observed through their control sockets only: these
are files, so that a cut in the network never comes between a test and a daemon. Each has a home, a
runtime directory and a data directory of its own; the cookie lies in every home, as if a person
had copied it.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.daemon.harness import Cluster, Daemon, agree, until
from tests.net.network import Machine, Network

COOKIE: Final = "one for all machines"
PORT: Final = 7744
"""Where a daemon that is told nothing listens first."""
TRIO: Final = ("gary", "diane", "joe")
GATES: Final = 6
SPACES: Final = 100_000
"""Of the trio that tests share; its lot is never full."""
PATIENCE_S: Final = 60.0
"""A node that died three times in a minute gets no gates for half a minute; all else takes less
than ten seconds, even on a busy machine."""

Document = dict[str, Any]


class NetLab(Cluster):
    """Daemons on machines of one LAN."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.network = Network()
        self.machines: dict[str, Machine] = {}
        self.nodes: dict[str, Daemon] = {}
        """The latest daemon of each name."""

    def home_of(self, name: str) -> Path:
        """With the cookie in it."""
        home = self.root / f"home-{name}"
        home.mkdir(exist_ok=True)
        cookie = home / ".parkingd.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(COOKIE)
        return home

    def machine(self, name: str) -> Machine:
        """The machine of this daemon, new when it has none."""
        if name not in self.machines:
            self.machines[name] = self.network.add_machine()
        return self.machines[name]

    def boot(
        self,
        name: str,
        *flags: str | int | Path,
        machine: Machine | None = None,
        mdns: bool = True,
    ) -> Daemon:
        """Start a daemon on its machine, or on another: then that is its from now on. Not waited
        for."""
        if machine is not None:
            self.machines[name] = machine
        daemon = self.start(
            name,
            "--port",
            PORT,
            *flags,
            apart=True,
            mdns=mdns,
            answers=False,
            prefix=self.machine(name).prefix,
            environment={"HOME": str(self.home_of(name))},
        )
        self.nodes[name] = daemon
        return daemon

    def boot_all(self, *names: str, flags: Sequence[str | int] = (), mdns: bool = True) -> None:
        """Start daemons at once and wait until they are one cluster, in sync."""
        for name in names:
            self.machine(name)
        for name in names:
            self.boot(name, *flags, mdns=mdns)
        self.until_together()

    def until_together(self) -> None:
        """Wait until all see all, and have what they have."""
        daemons = self.all()
        for daemon in daemons:
            until(daemon.answers, f"{daemon.name} answers", PATIENCE_S)
        for daemon in daemons:
            daemon.wait_for("ready", f"members={len(daemons)}", "synced", timeout_s=PATIENCE_S)

    def all(self) -> list[Daemon]:
        """The latest daemon of each name."""
        return list(self.nodes.values())

    def others(self, *names: str) -> list[Daemon]:
        """All but these."""
        return [daemon for name, daemon in self.nodes.items() if name not in names]

    def cut(self, ones: Iterable[str], others: Iterable[str]) -> None:
        """Nothing passes between the machines of these and of those."""
        self.network.cut(
            [self.machines[name] for name in ones], [self.machines[name] for name in others]
        )

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """The one does not reach the other, and the other still reaches the one."""
        self.network.cut_one_way(self.machines[sender], self.machines[receiver])

    def close(self) -> None:
        """End every daemon, remove the network, then insist that no log shows a traceback."""
        try:
            super().close()
        finally:
            self.network.close()


# --- what happens to them ------------------------------------------------------------------------


def last(seconds: float) -> None:
    """A misfortune lasts so long. Nothing is awaited by this."""
    time.sleep(seconds)


@contextmanager
def frozen(daemon: Daemon) -> Iterator[None]:
    """It is stopped meanwhile, as by a stalled disk or a virtual machine that is moved."""
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.process.send_signal(signal.SIGCONT)


# --- what they show ------------------------------------------------------------------------------


def admitted(daemon: Daemon, plate: str, gate: int) -> Document:
    """Ask here for this car at this gate; it must be let in."""
    decision = daemon.read("enter", plate, gate)
    assert (decision["decision"], decision["reason"]) == ("admitted", "ok"), decision
    return decision


def gates(daemon: Daemon) -> list[Document]:
    """One for each gate, by number."""
    return list(daemon.read("gates")["items"])


def epochs(daemon: Daemon) -> dict[int, int]:
    """Of each gate."""
    return {item["gate"]: item["epoch"] for item in gates(daemon)}


def gates_of(daemon: Daemon, name: str) -> list[int]:
    """The gates that the node of this name serves, as this daemon sees it."""
    return [item["gate"] for item in gates(daemon) if item["owner"] == name]


def shares(daemon: Daemon) -> Counter[str]:
    """How many gates each node serves."""
    return Counter(item["owner"] for item in gates(daemon))


def served_once(daemons: Sequence[Daemon], count: int) -> list[tuple[int, str, int]]:
    """Wait until each gate has one owner, the same for all; gate, owner and epoch of each."""
    for daemon in daemons:
        daemon.wait_for(f"gates={count}", timeout_s=PATIENCE_S)

    def table() -> list[tuple[int, str, int]]:
        seen = []
        for daemon in daemons:
            items = gates(daemon)
            if any(item["state"] != "served" or len(item["claims"]) != 1 for item in items):
                return []
            seen.append([(item["gate"], item["owner"], item["epoch"]) for item in items])
        return seen[0] if all(each == seen[0] for each in seen) else []

    found = until(table, f"{daemons} show one owner for each gate", PATIENCE_S)
    assert len(found) == count
    return found


def taken_over(daemons: Sequence[Daemon], name: str, count: int) -> list[tuple[int, str, int]]:
    """Wait until the node of this name serves nothing and others serve everything."""

    def is_replaced() -> bool:
        return not any(name in shares(daemon) for daemon in daemons)

    until(is_replaced, f"{daemons} see others at the gates of {name}", PATIENCE_S)
    table = served_once(daemons, count)
    assert name not in {owner for _, owner, _ in table}
    return table


def shared_out(daemons: Sequence[Daemon], count: int) -> list[tuple[int, str, int]]:
    """Wait until each gate has one owner and no node serves two more than another."""

    def is_fair() -> bool:
        loads = shares(daemons[0])
        served = [loads[daemon.name] for daemon in daemons]
        return sum(served) == count and max(served) - min(served) <= 1

    until(is_fair, f"{count} gates are shared out among {daemons}", PATIENCE_S)
    return served_once(daemons, count)


def whole(daemons: Sequence[Daemon]) -> str:
    """Wait until all see each other alive and have one root; it."""
    for daemon in daemons:
        daemon.wait_for(f"members={len(daemons)}", "synced", timeout_s=PATIENCE_S)
    return agree(daemons, PATIENCE_S)
