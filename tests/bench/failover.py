"""Failover: the gates of a node that is killed (kill -9) or frozen (SIGSTOP) are served by others.

Time runs from the signal until `gates` on *all* survivors shows every gate with one living owner,
and then until an `enter` at each orphaned gate, asked of every survivor, is admitted. Survivors are
asked for their gates all the time. Cars that arrive at the orphaned gates at the very moment of the
signal are counted apart: they wait for the new owner.

A node may die only so often before it is given no more gates, so a lot is used for a few deaths and
then a new one is founded. Before each, all have to agree, and the gates are shared out.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from parkingd.adapters.client import ControlClient, Trouble
from parkingd.adapters.control_wire import Reply
from tests.bench.cars import cars
from tests.bench.figures import BenchError, Figure
from tests.bench.gates import View, arrival, gates_of, is_served, owned_by
from tests.bench.processes import Lot, root_of
from tests.bench.site import FLAGS, NAMES, POLL_S, Site
from tests.bench.traffic import Traffic, under_way

KILLS: Final = 6
"""Of one lot: each node twice."""
FREEZES: Final = 3
"""Of one lot: each node once."""

SERVED_S: Final = 20.0
AGREED_S: Final = 30.0
STAY_FROZEN_S: Final = 1.0
"""After the others have taken over."""

SURVIVOR: Final = "any survivor, while the other was frozen"


class Moment(NamedTuple):
    """One moment on two clocks: daemons stamp their answers with the wall clock."""

    mono_s: float
    wall_s: float

    @classmethod
    def now(cls) -> Moment:
        """This one."""
        return cls(time.monotonic(), time.time())


class Takeover(NamedTuple):
    """How long it took, seconds since the signal."""

    shown_s: float
    """`gates` on all survivors shows a living owner for every gate."""
    admitted_s: float
    """And arrivals asked then were admitted."""
    waiting_s: tuple[float, ...]
    """Arrivals asked at the moment of the signal, until each was admitted."""
    refused: Counter[str]
    """What those were told otherwise."""


def measure_kill(runs: int, *, quick: bool) -> list[Figure]:
    """Deaths of whole lots; a quick run has one death."""
    taken: list[Takeover] = []
    for run in range(runs):
        with Lot(*FLAGS) as lot:
            site = Site(lot, run)
            deaths = Counter(dict.fromkeys(NAMES, 0))
            for _ in range(1 if quick else KILLS):
                view = site.shared_out(evenly=not quick)
                # As the peer was measured: the node with most gates, of those that died least.
                least = min(deaths.values())
                mortal = [name for name in NAMES if deaths[name] == least]
                victim = max(mortal, key=lambda name: len(owned_by(view, name)))
                deaths[victim] += 1
                begun = Moment.now()
                site.nodes[victim].process.send_signal(signal.SIGKILL)
                taken.append(_take_over(site, victim, owned_by(view, victim), begun))
    return [*_taken_over("kill", "killed", "217", taken, must_s=0.2, must_worst_s=1.0)]


def measure_freeze(runs: int, *, quick: bool) -> list[Figure]:
    """A quick run has one freeze."""
    taken: list[Takeover] = []
    lookups: list[float] = []
    enters: list[float] = []
    refused: Counter[str] = Counter()
    healed: list[float] = []
    fallen = 0
    for run in range(runs):
        with Lot(*FLAGS) as lot:
            site = Site(lot, run)
            for victim in NAMES[: 1 if quick else FREEZES]:
                view = site.shared_out()
                elsewhere = [gate for gate in view if view[gate].owner != victim]
                traffic = [
                    Traffic(node, elsewhere, cars(100 + 10 * run + index), seed=index)
                    for index, node in enumerate(site.others(victim))
                ]
                epochs = Epochs()
                begun = Moment.now()
                with site.nodes[victim].frozen(), under_way(*traffic):
                    taken.append(_take_over(site, victim, owned_by(view, victim), begun))
                    time.sleep(STAY_FROZEN_S)
                    for node in site.others(victim):
                        epochs.note(SURVIVOR, gates_of(site.clients[node.name]))
                healed.append(_heal(site, epochs))
                fallen += epochs.fallen
                for each in traffic:
                    lookups.append(max(each.lookups_s))
                    enters.append(max(each.enters_s))
                    refused += each.refused
    note = f"refused: {dict(refused)}" if refused else "none was refused"
    return [
        *_taken_over("freeze", "frozen", "71,000", taken, must_s=3.0),
        Figure("freeze", "longest look-up (`lot`) meanwhile on a survivor", "ms",
               _ms(lookups), "70,800-71,200", 1_000),
        Figure("freeze", "longest `enter` meanwhile at a gate of a survivor", "ms", _ms(enters),
               must=1_000, note=note),
        Figure("freeze", "thawed until one claim per gate and equal roots on all", "s",
               tuple(healed), "for good in 1 of 2", 5),
        Figure("freeze", "epochs that fell on a node", "gates", (float(fallen),), must=0),
    ]  # fmt: skip


class Epochs:
    """The highest epoch of every gate that each of some nodes has shown."""

    def __init__(self) -> None:
        self._highest: dict[tuple[str, int], int] = {}
        self.fallen = 0

    def note(self, where: str, view: View) -> None:
        """What this node shows now."""
        for number, gate in view.items():
            highest = self._highest.get((where, number), 0)
            self.fallen += gate.epoch < highest
            self._highest[where, number] = max(highest, gate.epoch)

    def are_reached(self, where: str, view: View) -> bool:
        """Whether no gate in this view is behind what was shown there."""
        return all(
            number in view and view[number].epoch >= epoch
            for (shown, number), epoch in self._highest.items()
            if shown == where
        )


def _heal(site: Site, epochs: Epochs) -> float:
    """Seconds since the frozen node runs again."""
    clients = site.clients
    begun_s = time.monotonic()
    while True:
        views = {name: gates_of(client) for name, client in clients.items()}
        for name, view in views.items():
            epochs.note(name, view)
        first = next(iter(views.values()))
        if (
            is_served(first, NAMES)
            and all(view == first for view in views.values())
            and epochs.are_reached(SURVIVOR, first)
            and len({root_of(client) for client in clients.values()}) == 1
        ):
            return time.monotonic() - begun_s
        if time.monotonic() - begun_s > AGREED_S:
            raise BenchError(f"{AGREED_S:.0f} s after the freeze the gates are {views}")
        time.sleep(POLL_S)


def _take_over(site: Site, victim: str, orphans: Sequence[int], begun: Moment) -> Takeover:
    names = [node.name for node in site.others(victim)]
    until_s = begun.mono_s + SERVED_S
    for name in names:
        _send(site, site.lanes[name], orphans)
    shown_s = site.until_served_without(victim, until_s) - begun.mono_s
    for name in names:
        _send(site, site.clients[name], orphans)
    for name in names:
        for answer in _answers(site.clients[name], len(orphans), until_s):
            if _refusal(answer) is not None:
                raise BenchError(f"an arrival at a gate that {name} showed as served: {answer}")
    admitted_s = time.monotonic() - begun.mono_s
    waiting_s, refused = [], Counter[str]()
    for name in names:
        for answer in _answers(site.lanes[name], len(orphans), until_s):
            reason = _refusal(answer)
            if reason is not None:
                refused[reason] += 1
            elif isinstance(answer, Reply):
                waiting_s.append(answer.at_ms / 1000 - begun.wall_s)
    return Takeover(shown_s, admitted_s, tuple(waiting_s), refused)


def _send(site: Site, client: ControlClient, gates: Sequence[int]) -> None:
    """One arrival at each of these gates, all at once."""
    for gate in gates:
        client.send("enter", arrival(next(site.rows), gate), SERVED_S / 2)


def _answers(client: ControlClient, count: int, until_s: float) -> list[Reply | Trouble]:
    """To all that was asked over this connection, in the order of their arrival."""
    return [client.receive(until_s) for _ in range(count)]


def _refusal(answer: Reply | Trouble) -> str | None:
    """Why the car was not admitted; None: it was."""
    if isinstance(answer, Trouble):
        return answer.code
    return None if answer.body["decision"] == "admitted" else str(answer.body["reason"])


def _taken_over(
    row: str,
    what: str,
    peer: str,
    taken: Sequence[Takeover],
    *,
    must_s: float,
    must_worst_s: float | None = None,
) -> Iterator[Figure]:
    name = f"gates of a {what} node served by others"
    refused = sum((each.refused for each in taken), Counter[str]())
    waited = [seconds for each in taken for seconds in each.waiting_s]
    served = _ms([each.admitted_s for each in taken])
    note = "signal until shown by all survivors and arrivals at each of these gates are admitted"
    yield Figure(row, name, "ms", served, peer, must_s * 1000, note=note)
    if must_worst_s is not None:
        yield Figure(row, f"{name}: the worst", "ms", (max(served),), must=must_worst_s * 1000)
    yield Figure(row, f"{name}: shown", "ms", _ms([each.shown_s for each in taken]))
    if waited:
        note = f"refused: {dict(refused)}" if refused else "none was refused"
        what = f"arrivals at gates of a {what} node, asked at that moment, until admitted"
        yield Figure(row, what, "ms", _ms(waited), note=note)


def _ms(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(1000 * each for each in seconds)
