"""The dashboard: what `top` writes while nothing happens, and how soon it shows what happened.

Five nodes, and `parkingd-ctl top` in a terminal of 120x36 that a program reads. Quiet means that no
car comes; the last car of each gate is on the screen, so that ages are counted there.

How soon: a node is killed and started again, and the network is cut and mended. Beside the screen
the control socket of the node that the dashboard asks is read all the time. Judged is what the
dashboard adds: from the last answer of the node that did not say so yet until a whole frame says
so. Noticing a death takes a node up to 2 s by design, and stands in the time since it happened.
The panel of members is read anew once a second and it happens just after such a reading, so that
the figures are the bad ones; the lines of events come by themselves.

A cut needs a network namespace for each node, which needs root.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from tests.bench.cars import ask, cars
from tests.bench.figures import BenchError, Figure, Unavailable
from tests.bench.gates import GATES, until_shared
from tests.bench.processes import ROOT, Lot, Node, in_sync
from tests.emulator import Emulator
from tests.net.network import Network, refusal

NAMES: Final = ("ann", "bob", "cid", "dan", "eve")
VICTIM: Final = "eve"
SIDES: Final = (("ann", "bob"), ("cid", "dan", "eve"))
"""Of the cut. The first of each has a dashboard."""

WIDTH: Final = 120
HEIGHT: Final = 36

COMMAND: Final = "import sys; from parkingd.cli.ctl import main; sys.exit(main())"

QUIET_S: Final = 20.0
QUIET_QUICK_S: Final = 8.0
SETTLE_S: Final = 3.0
"""After the last car and the first frame."""

LOOK_S: Final = 0.01
"""Between two looks at a node; what has come on the screen is read at once."""
SHOWN_S: Final = 60.0
"""A failed run, not a slow one."""

BYTES_PER_S_MUST: Final = 2_000
LAG_S_MUST: Final = 2.0

SYNCHRONIZED_UPDATE: Final = 2026
"""A terminal's mode: while it is on, what has come is part of a frame."""

NOTICED: Final = ("suspect", "dead")
"""The states of a member that was missed."""
DEAD: Final = ("dead",)
ALIVE: Final = ("alive",)

_MEMBER: Final = re.compile(rf"\b(alive|suspect|dead|left) +({'|'.join(NAMES)})\b")
"""A line of the members panel; no word of a line of events begins so."""
_EVENT: Final = re.compile(rf"\bmember_(alive|suspect|dead) +({'|'.join(NAMES)})\b")

States = Mapping[str, str]
"""Of each member."""


class Dashboard:
    """`parkingd-ctl top` of one node, in a terminal of its own."""

    def __init__(self, lot: Lot, node: Node) -> None:
        self.node = node
        self.received = 0
        """Bytes so far."""
        self._screen = Emulator(WIDTH, HEIGHT)
        self._leader, follower = pty.openpty()
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "top", "--control", f"ipc://{node.socket}"],
            cwd=ROOT,
            env=lot.environment() | {"TERM": "xterm-256color", "LANG": "C.UTF-8"},
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)

    def read(self, wait_s: float) -> None:
        """What comes within this time, and everything that has come with it."""
        while select.select([self._leader], [], [], wait_s)[0]:
            try:
                data = os.read(self._leader, 65_536)
            except OSError as error:
                raise BenchError(f"top of {self.node.name} ended:\n{self.text}") from error
            self.received += len(data)
            self._screen.feed(data)
            wait_s = 0.0

    @property
    def text(self) -> str:
        """What is on the screen."""
        return self._screen.text

    def states(self, *, by_event: bool) -> States | None:
        """By the panel of members, or by the events; None while a frame is on its way."""
        if SYNCHRONIZED_UPDATE in self._screen.modes:
            return None
        lines = _EVENT if by_event else _MEMBER
        return {name: state for state, name in lines.findall(self.text)}

    def until_shown(self, words: str) -> None:
        """Wait for them."""
        until_s = time.monotonic() + SHOWN_S
        while words not in self.text:
            if time.monotonic() > until_s:
                raise BenchError(f"top of {self.node.name} does not show {words!r}:\n{self.text}")
            self.read(LOOK_S)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._leader)


class Shown(NamedTuple):
    """How long it took, seconds."""

    lag_s: float
    """Since the node that is asked knew it."""
    total_s: float
    """Since it happened."""


class Wanted(NamedTuple):
    """What a dashboard is to show."""

    dashboard: Dashboard
    names: Collection[str]
    """Of these members, each."""
    states: Collection[str]
    """One of these."""
    by_event: bool = False
    """In the lines of events, not in the panel of members."""

    def holds(self, states: States) -> bool:
        """Whether these say so."""
        return all(states.get(name) in self.states for name in self.names)


class Watch:
    """A dashboard, and the node that it asks, until both say what is wanted."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._client = wanted.dashboard.node.connect()
        self._unknown_s = self._shown_s = 0.0
        """When the node was last asked in vain, and when the screen said it first."""
        self._is_known = False

    def look(self) -> bool:
        """Whether both have said it."""
        wanted = self.wanted
        wanted.dashboard.read(LOOK_S)
        states = wanted.dashboard.states(by_event=wanted.by_event)
        if not self._shown_s and states is not None and wanted.holds(states):
            self._shown_s = time.monotonic()
        if not self._is_known:
            asked_s = time.monotonic()
            items: list[dict[str, Any]] = ask(self._client, "members")["items"]
            self._is_known = wanted.holds({item["name"]: item["state"] for item in items})
            if not self._is_known:
                self._unknown_s = asked_s
        return self._is_known and self._shown_s > 0

    def shown(self, begun_s: float) -> Shown:
        """What happened at ``begun_s`` cannot have been known before."""
        known_s = max(begun_s, self._unknown_s)
        return Shown(self._shown_s - known_s, self._shown_s - begun_s)


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """Bytes that `top` writes a second when nothing happens."""
    quiet_s = QUIET_QUICK_S if quick else QUIET_S
    rates: list[float] = []
    first = 0
    for run in range(runs):
        with Lot() as lot:
            nodes = lot.start_all(*NAMES)
            clients = [node.connect() for node in nodes]
            until_shared(clients, NAMES)
            for gate, car in zip(range(1, GATES + 1), cars(run), strict=False):
                ask(clients[0], "track", {"plate": car[1], "gate": gate})
            with closing(Dashboard(lot, nodes[0])) as dashboard:
                dashboard.until_shown(f"all {len(NAMES)} equal")
                first = dashboard.received
                _read_for(dashboard, SETTLE_S)
                before, begun_s = dashboard.received, time.monotonic()
                _read_for(dashboard, quiet_s)
                rates.append((dashboard.received - before) / (time.monotonic() - begun_s))
    note = f"over {quiet_s:.0f} s; everything is shown first in {first:,} bytes"
    what = f"`top` of {len(NAMES)} quiet nodes at {WIDTH}x{HEIGHT}, bytes to the terminal"
    return [Figure("top", what, "B/s", tuple(rates), must=BYTES_PER_S_MUST, note=note)]


def measure_kill(runs: int, *, quick: bool) -> list[Figure]:
    """One death and one return of each lot."""
    dead: list[Shown] = []
    told: list[Shown] = []
    back: list[Shown] = []
    for _ in range(runs):
        with Lot() as lot:
            nodes = lot.start_all(*NAMES)
            with _dashboards(lot, nodes[:1]) as (dashboard,):
                killed = lot.nodes[VICTIM]
                shown = _happened(
                    partial(killed.process.send_signal, signal.SIGKILL),
                    Wanted(dashboard, (VICTIM,), DEAD),
                    Wanted(dashboard, (VICTIM,), DEAD, by_event=True),
                )
                dead += shown[:1]
                told += shown[1:]
                killed.stop()
                back += _happened(partial(lot.start, VICTIM), Wanted(dashboard, NAMES, ALIVE))
    return [
        *_figures("topkill", "a killed node as dead", dead, told),
        *_figures("topkill", "a node that is started again as alive", back),
    ]


def measure_cut(runs: int, *, quick: bool) -> list[Figure]:
    """One cut of each lot, as both of its sides show it."""
    why = refusal()
    if why is not None:
        raise Unavailable(f"a cut {why}")
    missed: list[Shown] = []
    told: list[Shown] = []
    dead: list[Shown] = []
    healed: list[Shown] = []
    healed_told: list[Shown] = []
    for _ in range(runs):
        with closing(Network()) as network, Lot() as lot:
            machines = {name: network.add_machine() for name in NAMES}
            nodes = {name: lot.start(name, machine=machines[name]) for name in NAMES}
            for node in nodes.values():
                in_sync(node.connect(), len(NAMES))
            pieces = [[machines[name] for name in side] for side in SIDES]
            firsts = [nodes[side[0]] for side in SIDES]
            with _dashboards(lot, firsts) as dashboards:
                far = list(zip(dashboards, reversed(SIDES), strict=True))
                shown = _happened(
                    partial(network.cut, *pieces),
                    *(Wanted(each, names, NOTICED) for each, names in far),
                    *(Wanted(each, names, NOTICED, by_event=True) for each, names in far),
                    *(Wanted(each, names, DEAD) for each, names in far),
                )
                missed += shown[:2]
                told += shown[2:4]
                dead += shown[4:]
                shown = _happened(
                    network.mend,
                    *(Wanted(each, NAMES, ALIVE) for each in dashboards),
                    *(Wanted(each, names, ALIVE, by_event=True) for each, names in far),
                )
                healed += shown[:2]
                healed_told += shown[2:]
    return [
        *_figures("topcut", "all beyond a cut as suspect or dead", missed, told),
        *_figures("topcut", "all beyond a cut as dead", dead),
        *_figures("topcut", "all as alive after a cut was mended", healed, healed_told),
    ]


def _read_for(dashboard: Dashboard, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        dashboard.read(left_s)


@contextmanager
def _dashboards(lot: Lot, nodes: Sequence[Node]) -> Iterator[list[Dashboard]]:
    """One of each of these nodes, when it shows all members."""
    with ExitStack() as open_ones:
        dashboards = [open_ones.enter_context(closing(Dashboard(lot, node))) for node in nodes]
        for each in dashboards:
            each.until_shown(f"all {len(NAMES)} equal")
            each.until_shown(f"{len(NAMES)} alive")
        yield dashboards


def _happened(event: Callable[[], object], *wanted: Wanted) -> list[Shown]:
    """Let it happen; how soon the dashboards show each of these."""
    watches = [Watch(each) for each in wanted]
    begun_s = time.monotonic()
    event()
    left = watches
    while left:
        left = [watch for watch in left if not watch.look()]
        if left and time.monotonic() - begun_s > SHOWN_S:
            dashboard, names, states, _ = left[0].wanted
            raise BenchError(f"{names} are not shown as {states}:\n{dashboard.text}")
    return [watch.shown(begun_s) for watch in watches]


def _figures(
    row: str, what: str, shown: Sequence[Shown], told: Sequence[Shown] = ()
) -> Iterator[Figure]:
    """``told``: in the lines of events."""
    name, since = f"`top` shows {what}", "since it happened"
    note = "since the last answer of its node that did not say so"
    lags = tuple(each.lag_s for each in shown)
    yield Figure(row, f"{name}, since its node knows", "s", lags, must=LAG_S_MUST, note=note)
    yield Figure(row, f"{name}, {since}", "s", tuple(each.total_s for each in shown))
    if told:
        yield Figure(row, f"{name}: events, {since}", "s", tuple(each.total_s for each in told))
