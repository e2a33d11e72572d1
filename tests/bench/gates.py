"""Gates as the nodes show them: who serves what, and whether all say the same."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from parkingd.adapters.client import ControlClient
from tests.bench.cars import Row, ask
from tests.bench.figures import BenchError
from tests.bench.processes import POLL_S

GATES: Final = 4
"""Of a lot that nobody asked for another number."""

ASK_S: Final = 10.0
SHARE_S: Final = 45.0
"""A joiner is given gates after seconds; a gate that has just moved stays for five more."""


class Gate(NamedTuple):
    """One gate as one node shows it."""

    owner: str | None
    epoch: int
    state: str
    claims: tuple[str, ...]


View = Mapping[int, Gate]
"""By number."""


def gates_of(client: ControlClient, timeout_s: float = ASK_S) -> View:
    """What this node shows."""
    return {
        item["gate"]: Gate(item["owner"], item["epoch"], item["state"], tuple(item["claims"]))
        for item in ask(client, "gates", timeout_s=timeout_s)["items"]
    }


def is_served(view: View, living: Collection[str], count: int = GATES) -> bool:
    """Whether every gate has exactly one owner and that is one of these."""
    return len(view) == count and all(
        gate.state == "served" and gate.owner in living and gate.claims == (gate.owner,)
        for gate in view.values()
    )


def owned_by(view: View, name: str) -> list[int]:
    """The gates of this node."""
    return [number for number, gate in view.items() if gate.owner == name]


def is_even(view: View, names: Collection[str]) -> bool:
    """Whether none of these nodes has two gates more than another."""
    held = [len(owned_by(view, name)) for name in names]
    return max(held) - min(held) <= 1


def agreed(
    clients: Sequence[ControlClient], names: Collection[str], count: int = GATES
) -> View | None:
    """What all show alike, with one owner among these for every gate; None if they do not."""
    views = [gates_of(client) for client in clients]
    is_alike = all(view == views[0] for view in views)
    return views[0] if is_alike and is_served(views[0], names, count) else None


def until_shared(
    clients: Sequence[ControlClient],
    names: Collection[str],
    count: int = GATES,
    *,
    evenly: bool = True,
) -> View:
    """Wait until all show the same, and the gates are shared out over these nodes."""
    until_s = time.monotonic() + SHARE_S
    while True:
        view = agreed(clients, names, count)
        if view is not None and (is_even(view, names) or not evenly):
            return view
        if time.monotonic() > until_s:
            shown = [gates_of(client) for client in clients]
            raise BenchError(f"the gates are not shared out over {', '.join(names)}: {shown}")
        time.sleep(POLL_S)


def arrival(car: Row, gate: int) -> dict[Any, Any]:
    """The arguments of `enter` for this car."""
    return {"plate": car[1], "gate": gate, "request": car[4]}
