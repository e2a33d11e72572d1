"""Starts: three nodes with fresh data directories, one after the other or all at once.

Judged is what is left when everything has settled: a gate that nobody serves, a gate that two
serve, more than one lot. What was seen for a moment on the way there is reported, not judged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tests.bench.cars import ask
from tests.bench.figures import Figure
from tests.bench.gates import GATES, View, gates_of, is_even, is_served, owned_by
from tests.bench.processes import Lot, Node, in_sync

NAMES: Final = ("ann", "bob", "cid")

STAGGERED: Final = 20
AT_ONCE: Final = 15
GAPS_S: Final = (0.2, 0.5, 1.5, 5.0)
"""Between two starts, in turn: while the first looks for a lot, while it founds one, and after, as
the peer was measured (1.5 and 5 s)."""

GAP_QUICK_S: Final = 0.5

SETTLE_S: Final = 25.0
"""After it, what is wrong is wrong for good."""

QUIET_S: Final = 2.0
QUIET_QUICK_S: Final = 1.0
"""So long has it to be right without a break, and evenly shared out, before it is left alone: gates
move to those who came later some seconds after they came."""

POLL_S: Final = 0.02


class Start(NamedTuple):
    """What became of one cluster."""

    served_s: float
    """Since the last node was started, until all was right for the first time; `SETTLE_S` when it
    never was."""
    is_lost: bool
    is_doubled: bool
    has_lots: bool
    """More than one lot."""
    was_doubled: bool
    """For a moment two nodes took themselves for the owner of a gate, or a gate was contested."""
    founded: int
    """Lots that were founded, those that later merged included."""
    deaths: int
    """Members that were taken for dead, although all lived."""
    last: Sequence[View]


def measure(runs: int, *, quick: bool) -> list[Figure]:
    """The number of clusters is given; ``runs`` does not multiply it. A quick run starts two."""
    gaps = [GAP_QUICK_S] if quick else [GAPS_S[index % len(GAPS_S)] for index in range(STAGGERED)]
    staggered = [_start(gap, quick=quick) for gap in gaps]
    at_once = [_start(0.0, quick=quick) for _ in range(1 if quick else AT_ONCE)]
    return [
        *_figures("one after the other", staggered, "7 of 20"),
        *_figures("at once", at_once, "2 of 15"),
    ]


def _figures(how: str, starts: Sequence[Start], peer: str) -> list[Figure]:
    name = f"{len(starts)} starts of three nodes {how}"

    def count(wrong: Callable[[Start], bool]) -> tuple[float]:
        return (float(sum(map(wrong, starts))),)

    broken = [start.last for start in starts if start.is_lost or start.is_doubled]
    note = (
        f"two owners for a moment in {count(lambda start: start.was_doubled)[0]:.0f}, a second lot "
        f"that merged in {count(lambda start: start.founded > 1)[0]:.0f}, "
        f"{sum(start.deaths for start in starts)} false deaths"
    )
    return [
        Figure("start", f"{name}: a gate was lost", "clusters",
               count(lambda start: start.is_lost), peer, 0, note=str(broken) if broken else ""),
        Figure("start", f"{name}: a gate had two owners", "clusters",
               count(lambda start: start.is_doubled), must=0, note=note),
        Figure("start", f"{name}: more than one lot", "clusters",
               count(lambda start: start.has_lots), must=0),
        Figure("start", f"{name}: last start until all gates are served, as all show", "s",
               tuple(start.served_s for start in starts)),
    ]  # fmt: skip


def _start(gap_s: float, *, quick: bool) -> Start:
    with Lot() as lot:
        nodes = []
        for index, name in enumerate(NAMES):
            if index:
                time.sleep(gap_s)
            nodes.append(lot.start(name))
        begun_s = time.monotonic()
        clients = [node.connect() for node in nodes]
        for client in clients:
            in_sync(client, len(nodes))
        quiet_for_s = QUIET_QUICK_S if quick else QUIET_S
        served_s: float | None = None
        quiet_s: float | None = None
        was_doubled = False
        claimed: set[tuple[int, str]] = set()
        while True:
            views, claimed_before = [gates_of(client) for client in clients], claimed
            passed_s = time.monotonic() - begun_s
            is_right = is_served(views[0], NAMES) and all(view == views[0] for view in views)
            if is_right and served_s is None:
                served_s = passed_s
            # In two polls running: a gate may move between the questions of one.
            claimed = _claimed(nodes, views)
            was_doubled |= _has_two(claimed & claimed_before) or _is_contested(views)
            if not (is_right and (quick or is_even(views[0], NAMES))):
                quiet_s = None
            elif quiet_s is None:
                quiet_s = passed_s
            if passed_s > SETTLE_S or (quiet_s is not None and passed_s - quiet_s >= quiet_for_s):
                break
            time.sleep(POLL_S)
        lots = {ask(client, "lot")["lot"] for client in clients}
        events = [node.events() for node in nodes]
    return Start(
        SETTLE_S if served_s is None else served_s,
        any(_is_lost(view) for view in views),
        _has_two(claimed) or _is_contested(views),
        len(lots) > 1,
        was_doubled,
        sum(each["lot_founded"] for each in events),
        sum(each["member_dead"] for each in events),
        () if is_right else views,
    )


def _claimed(nodes: Sequence[Node], views: Sequence[View]) -> set[tuple[int, str]]:
    """Gates and the nodes that show themselves as serving them."""
    return {
        (gate, node.name)
        for node, view in zip(nodes, views, strict=True)
        for gate in owned_by(view, node.name)
        if view[gate].state in ("served", "contested")
    }


def _has_two(claimed: set[tuple[int, str]]) -> bool:
    return len(claimed) > len({gate for gate, _ in claimed})


def _is_contested(views: Sequence[View]) -> bool:
    return any(
        gate.state == "contested" or len(gate.claims) > 1
        for view in views
        for gate in view.values()
    )


def _is_lost(view: View) -> bool:
    return len(view) < GATES or any(gate.owner is None for gate in view.values())
