"""Machines of one LAN: network namespaces, plugged into a bridge that has a namespace of its own.

Whatever one machine says to another is forwarded by the bridge, and there nftables cuts it, by the
ports through which a frame comes in and goes out. So a cut is silent, as a pulled cable is, takes
ARP and multicast with it, and can be made in one direction only.

The names of the namespaces carry the process that made them. What the machine still has of a
process that is gone was left by an interrupted run: it is removed before the first network is made.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "pknet"
"""Of every namespace made here; what follows is the process's number."""
NEEDED: Final = "needs root and network namespaces"
SUBNET: Final = "10.77.0"
MACHINES_MAX: Final = 254

RULES: Final = """
table bridge cuts {
    set pairs { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname . oifname @pairs drop
    }
}
"""
"""What is in `pairs` does not pass; it is empty at first."""

_counter = itertools.count(1)
_open: list[Network] = []


@functools.cache
def refusal() -> str | None:
    """Why there can be no networks here; None when there can."""
    if os.geteuid() != 0:
        return NEEDED
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(tool) is None:
            return f"needs `{tool}` (Debian package {package})"
    _remove_leftovers()
    try:
        Network().close()
    except RuntimeError as error:
        return f"{NEEDED}, which are refused here: {error}"
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """One network namespace."""

    namespace: str
    address: str | None
    """On the LAN; None: it is not plugged in."""
    port: str = ""
    """Of the bridge, where it is plugged in."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words that run a command there."""
        return ("ip", "netns", "exec", self.namespace)


@dataclass(slots=True, eq=False)
class Network:
    """A bridge and the machines on it. RuntimeError when the system refuses one."""

    _name: str = field(default_factory=lambda: f"{PREFIX}{os.getpid()}-{next(_counter)}")
    _namespaces: list[str] = field(default_factory=list)
    _cuts: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        _open.append(self)
        try:
            lan = self._add_namespace("lan")
            run("ip", "-n", lan, "link", "add", "lan", "type", "bridge", "mcast_snooping", "0")
            run("ip", "-n", lan, "link", "set", "lan", "up")
            self._nft(RULES)
        except BaseException:
            self.close()
            raise

    @property
    def _lan(self) -> str:
        return self._namespaces[0]

    def add_machine(self, *, plugged: bool = True) -> Machine:
        """A machine with an address nobody else had, or, not ``plugged`` in, only with itself."""
        number = len(self._namespaces)
        assert number <= MACHINES_MAX
        name = self._add_namespace(str(number))
        if not plugged:
            return Machine(name, None)
        port, address, lan = f"p{number}", f"{SUBNET}.{number}", self._lan
        cable = ("type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "-n", lan, "link", "add", port, *cable)
        run("ip", "-n", lan, "link", "set", port, "master", "lan", "up")
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        return Machine(name, address, port)

    def cut(self, ones: Collection[Machine], others: Iterable[Machine]) -> None:
        """From now on nothing passes between these and those."""
        for other in others:
            for one in ones:
                self._cuts |= {(one.port, other.port), (other.port, one.port)}
        self._apply()

    def cut_one_way(self, sender: Machine, receiver: Machine) -> None:
        """From now on the one does not reach the other, and the other still reaches the one."""
        self._cuts.add((sender.port, receiver.port))
        self._apply()

    def mend(self) -> None:
        """From now on everything passes."""
        self._cuts.clear()
        self._apply()

    def close(self) -> None:
        """Remove the namespaces, and end whatever still runs there."""
        _remove(self._namespaces)
        self._namespaces.clear()
        with suppress(ValueError):
            _open.remove(self)

    def _add_namespace(self, name: str) -> str:
        namespace = f"{self._name}-{name}"
        run("ip", "netns", "add", namespace)
        self._namespaces.append(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _apply(self) -> None:
        """In one transaction: no frame sees half of it."""
        lines = ["flush set bridge cuts pairs"]
        lines += [f'add element bridge cuts pairs {{ "{a}" . "{b}" }}' for a, b in self._cuts]
        self._nft("\n".join(lines))

    def _nft(self, rules: str) -> None:
        run("ip", "netns", "exec", self._lan, "nft", "-f", "-", stdin=rules)


def run(*words: str, stdin: str = "") -> str:
    """What a command of the system says. RuntimeError, with its own words, when it fails."""
    ended = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {ended.stderr.strip()}")
    return ended.stdout


def _remove(namespaces: Iterable[str]) -> None:
    """Another process may be at it too: that a name is gone already is fine."""
    for name in namespaces:
        for pid in _quietly("ip", "netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _quietly("ip", "netns", "delete", name)


def _remove_leftovers() -> None:
    """Called before this process has made any: what carries its number is old too."""
    names = [line.split()[0] for line in _quietly("ip", "netns", "list").splitlines() if line]
    for name in names:
        maker = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and maker.isdigit() and _is_gone(int(maker)):
            _remove([name])


def _is_gone(pid: int) -> bool:
    return pid == os.getpid() or not os.path.exists(f"/proc/{pid}")


def _quietly(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


@atexit.register
def _close_all() -> None:
    while _open:
        _open[-1].close()
