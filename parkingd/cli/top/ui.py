"""What the person at the keyboard has chosen, and what each key does to it. Pure.

`press` takes the choices, a key and what the focused panel can show, and gives the next choices.
No key changes anything in the car park: the dashboard only looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple, TypeVar

from parkingd.cli.top.ink import UNICODE, Glyphs

INTERVALS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Steps of + and -. Every look costs the daemon some 2 ms."""

FILTER_LENGTH_MAX: Final = 40


class Panel(Enum):
    """The panels, with the digit that chooses each."""

    LOT = 1
    MEMBERS = 2
    GATES = 3
    REPLICAS = 4
    EVENTS = 5


SORTS: Final[Mapping[Panel, tuple[str, ...]]] = {
    Panel.MEMBERS: ("trouble", "name", "last heard", "round trip", "gates"),
    Panel.GATES: ("number", "trouble", "owner", "epoch", "last car"),
}
"""Orders of the panels that have more than one; the first is where it begins."""

ValueT = TypeVar("ValueT")


class Extent(NamedTuple):
    """How much of a panel there is. ``first`` counts also what is no longer kept."""

    first: int = 0
    rows: int = 0
    visible: int = 0


@dataclass(frozen=True, slots=True)
class Ui:
    """The choices. Maps hold only what differs from the beginning."""

    focus: Panel = Panel.EVENTS
    whole: bool = False
    """The focused panel has the window to itself."""
    help: bool = False
    paused: bool = False
    masked: bool = False
    interval_s: float = 1.0
    typing: str | None = None
    """The filter that is being typed."""
    filters: Mapping[Panel, str] = field(default_factory=dict)
    sorts: Mapping[Panel, int] = field(default_factory=dict)
    tops: Mapping[Panel, int] = field(default_factory=dict)
    """The first row that is shown. Events without one follow the newest."""
    glyphs: Glyphs = UNICODE
    ended: bool = False

    def filter_of(self, panel: Panel) -> str:
        """Also while it is being typed."""
        if self.typing is not None and panel is self.focus:
            return self.typing
        return self.filters.get(panel, "")

    def sort_of(self, panel: Panel) -> str:
        """The name of its order; empty for panels that have only one."""
        orders = SORTS.get(panel)
        return orders[self.sorts.get(panel, 0) % len(orders)] if orders else ""

    @property
    def follows(self) -> bool:
        """The newest event stays in sight."""
        return Panel.EVENTS not in self.tops


def press(ui: Ui, key: str, extent: Extent) -> Ui:
    """The choices after this key. ``extent`` is that of the focused panel."""
    if ui.typing is not None:
        return _type(ui, ui.typing, key)
    if ui.help:
        return replace(ui, help=False, ended=key == "q")
    if key.isdecimal() and key.isascii():
        return _choose(ui, int(key))
    act = _KEYS.get(key)
    return act(ui) if act is not None else _scroll(ui, key, extent)


def _choose(ui: Ui, digit: int) -> Ui:
    """Its digit once more gives a panel the whole window, and again takes it back."""
    try:
        panel = Panel(digit)
    except ValueError:
        return ui
    whole = not ui.whole if panel is ui.focus else ui.whole
    return replace(ui, focus=panel, whole=whole)


def _back(ui: Ui) -> Ui:
    """Undo one thing: the filter, else the whole window, else the scrolling."""
    if ui.filters.get(ui.focus):
        return _with_filter(ui, "")
    if ui.whole:
        return replace(ui, whole=False)
    return replace(ui, tops=_without(ui.tops, ui.focus))


def _sort(ui: Ui) -> Ui:
    if ui.focus not in SORTS:
        return ui
    chosen = (ui.sorts.get(ui.focus, 0) + 1) % len(SORTS[ui.focus])
    return replace(ui, sorts={**ui.sorts, ui.focus: chosen}, tops=_without(ui.tops, ui.focus))


def _type(ui: Ui, text: str, key: str) -> Ui:
    match key:
        case "enter":
            return replace(_with_filter(ui, text), typing=None)
        case "escape":
            return replace(ui, typing=None)
        case "backspace":
            return replace(ui, typing=text[:-1])
        case "clear":
            return replace(ui, typing="")
        case _ if len(key) == 1 and len(text) < FILTER_LENGTH_MAX:
            return replace(ui, typing=text + key)
        case _:
            return ui


def _with_filter(ui: Ui, text: str) -> Ui:
    filters = {**_without(ui.filters, ui.focus), **({ui.focus: text} if text else {})}
    return replace(ui, filters=filters, tops=_without(ui.tops, ui.focus))


def _scroll(ui: Ui, key: str, extent: Extent) -> Ui:
    page = max(1, extent.visible - 1)
    steps = {
        "j": 1,
        "down": 1,
        "k": -1,
        "up": -1,
        "page down": page,
        "page up": -page,
        "g": -extent.rows,
        "home": -extent.rows,
        "G": extent.rows,
        "end": extent.rows,
    }
    step = steps.get(key)
    if step is None:
        return ui
    last = extent.first + max(0, extent.rows - extent.visible)
    is_events = ui.focus is Panel.EVENTS
    top = ui.tops.get(ui.focus, last if is_events else extent.first)
    top = min(max(top + step, extent.first), last)
    if is_events and top == last:
        return replace(ui, tops=_without(ui.tops, ui.focus))
    return replace(ui, tops={**ui.tops, ui.focus: top})


def _go(ui: Ui, step: int) -> Ui:
    """To a neighbour in the order of the digits."""
    return replace(ui, focus=Panel((ui.focus.value - 1 + step) % len(Panel) + 1))


def _look_less(ui: Ui) -> Ui:
    steps = [step for step in INTERVALS_S if step > ui.interval_s]
    return replace(ui, interval_s=min(steps, default=ui.interval_s))


def _look_more(ui: Ui) -> Ui:
    steps = [step for step in INTERVALS_S if step < ui.interval_s]
    return replace(ui, interval_s=max(steps, default=ui.interval_s))


def _without(choices: Mapping[Panel, ValueT], panel: Panel) -> dict[Panel, ValueT]:
    return {key: value for key, value in choices.items() if key is not panel}


_KEYS: Final[Mapping[str, Callable[[Ui], Ui]]] = {
    "q": lambda ui: replace(ui, ended=True),
    "?": lambda ui: replace(ui, help=True),
    "tab": lambda ui: _go(ui, 1),
    "backtab": lambda ui: _go(ui, -1),
    "enter": lambda ui: replace(ui, whole=not ui.whole),
    "escape": _back,
    " ": lambda ui: replace(ui, paused=not ui.paused),
    "m": lambda ui: replace(ui, masked=not ui.masked),
    "/": lambda ui: replace(ui, typing=""),
    "s": _sort,
    "+": _look_less,
    "=": _look_less,
    "-": _look_more,
    "_": _look_more,
}
"""Every other key scrolls, or does nothing."""
