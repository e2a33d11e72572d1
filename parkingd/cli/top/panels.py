"""The panels: from the model and the choices to a title and lines. Pure and deterministic.

Every panel gives all its lines; `layout` decides which of them there is room for. Columns that do
not fit are left out, the least important first. A state is a word; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from parkingd.cli.event_words import ago
from parkingd.cli.top.ink import Glyphs, Line, Part, fit, line
from parkingd.cli.top.model import NO_EVENTS, STALE_AFTER_S, Model, Moment
from parkingd.cli.top.reading import Event, Gate, Member
from parkingd.cli.top.ui import Panel, Ui
from parkingd.core.plates import mask_plate

WIDE_GAP_WIDTH: Final = 60
"""From this width on there are two blanks between columns."""

FRESH_S: Final = 1.0
"""Heard within this time, four heartbeats, is heard now."""

STATE_STYLES: Final = {
    "alive": "good",
    "suspect": "warn badge",
    "dead": "bad",
    "left": "dim",
    "served": "good",
    "moving": "warn",
    "unowned": "bad badge",
    "contested": "bad badge",
    "open": "good",
    "almost_full": "warn",
    "full": "bad",
    "closed": "bad",
}
_MODE_STYLES: Final = {"open": "warn", "closed": "bad"}
"""Of a gate that a person holds so."""
_MEMBER_RANK: Final = {"suspect": 0, "dead": 1, "alive": 2, "left": 3}
_GATE_RANK: Final = {"unowned": 0, "contested": 1, "moving": 2, "served": 3}

_EVENT_STYLES: Final = {
    "admitted": "in",
    "entered": "in",
    "exited": "out",
    "unmatched_exit": "warn",
    "denied": "warn",
    "conflict": "bad",
    "warning": "warn",
    "member_alive": "good",
    "member_suspect": "warn",
    "member_dead": "bad",
}


class Rows(NamedTuple):
    """Lines that are made when they are seen: of a thousand events most are not."""

    total: int
    lines: Callable[[int, int], list[Line]]
    """From one number up to, without, another."""


class Drawing(NamedTuple):
    """What a panel has to show."""

    summary: str
    head: Line | None
    rows: Rows
    first: int = 0
    """The number of the first row, when earlier ones are no longer kept."""


RowT = TypeVar("RowT")


class Column(NamedTuple, Generic[RowT]):
    """``width`` 0 takes what the others leave; ``from_width``: narrower panels leave it out."""

    title: str
    width: int
    value: Callable[[RowT], Part]
    from_width: int = 0
    right: bool = False


def fixed(lines: Sequence[Line]) -> Rows:
    """Lines that are made already."""
    return Rows(len(lines), lambda start, stop: list(lines[start:stop]))


def table(
    columns: Sequence[Column[RowT]], rows: Sequence[RowT], width: int, glyphs: Glyphs
) -> tuple[Line, Rows]:
    """A head and a line for each row."""
    shown = [column for column in columns if width >= column.from_width]
    gap = "  " if width >= WIDE_GAP_WIDTH else " "
    taken = sum(column.width for column in shown) + len(gap) * (len(shown) - 1)
    widths = [column.width or max(1, width - taken) for column in shown]

    def cell(part: Part, at: int) -> Part:
        text, style = (part, "plain") if isinstance(part, str) else part
        return fit(text, widths[at], glyphs, shown[at].right), style

    def joined(parts: Iterable[Part]) -> Line:
        spaced: list[Part] = []
        for at, part in enumerate(parts):
            spaced += [cell(part, at), gap]
        return line(*spaced[:-1])

    head = joined((column.title.upper(), "head") for column in shown)

    def lines(start: int, stop: int) -> list[Line]:
        return [joined(column.value(row) for column in shown) for row in rows[start:stop]]

    return head, Rows(len(rows), lines)


def clock(wall_ms: int) -> str:
    """``09:31:05``, in UTC like every time that parkingd shows."""
    seconds = wall_ms // 1_000
    return f"{seconds // 3_600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def plate_shown(plate: str, ui: Ui) -> str:
    """Masked if that was asked for."""
    return mask_plate(plate) if ui.masked else plate


def _matches(text: str, words: Iterable[object]) -> bool:
    wanted = text.casefold()
    return not wanted or any(wanted in str(word).casefold() for word in words if word is not None)


# --- members -------------------------------------------------------------------------------------


def members(model: Model, ui: Ui, width: int, now: Moment) -> Drawing:
    """Who is there; suspects on top."""
    chosen = [
        member
        for member in model.members
        if _matches(ui.filter_of(Panel.MEMBERS), (member.name, member.state, member.address))
    ]
    chosen.sort(key=_member_order(ui.sort_of(Panel.MEMBERS)))
    usual = model.groups[0].root if model.groups else None
    late_s = model.age_s(now) or 0.0

    def root(member: Member) -> Part:
        found = model.root_of(member.name)
        if found is None:
            return "-", "dim"
        return found[:8], "dim" if found == usual else "bad"

    def heard(member: Member) -> Part:
        if member.is_self or member.last_heard_s is None:
            return "-"
        # While the answers do not come, nobody knows better.
        silence_s = member.last_heard_s + (late_s if late_s > STALE_AFTER_S else 0.0)
        return "now" if silence_s < FRESH_S else f"{ago(silence_s)} ago"

    columns: tuple[Column[Member], ...] = (
        Column("", 1, lambda m: "*" if m.is_self else ""),
        Column("state", 7, lambda m: (m.state, STATE_STYLES.get(m.state, "plain"))),
        Column("name", 0, lambda m: (m.name, "strong")),
        Column("heard", 7, heard, right=True),
        Column("trip ms", 7, lambda m: "-" if m.rtt_ms is None else f"{m.rtt_ms:.1f}", right=True),
        Column("gates", 5, lambda m: str(m.gates), right=True),
        Column("root", 8, root),
        Column("version", 9, lambda m: (m.version, "dim"), from_width=76),
        Column("address", 21, lambda m: (m.address, "dim"), from_width=96),
        Column("incarnation", 13, lambda m: (str(m.incarnation), "dim"), from_width=112),
    )
    head, rows = table(columns, chosen, width, ui.glyphs)
    counts = [
        f"{count} {state}"
        for state in ("alive", "suspect", "dead", "left")
        if (count := sum(member.state == state for member in model.members))
    ]
    return Drawing(", ".join(counts), head, rows)


def _member_order(name: str) -> Callable[[Member], tuple[object, ...]]:
    match name:
        case "name":
            return lambda m: (m.name,)
        case "last heard":
            return lambda m: (-(m.last_heard_s or 0.0), m.name)
        case "round trip":
            return lambda m: (-(m.rtt_ms or 0.0), m.name)
        case "gates":
            return lambda m: (-m.gates, m.name)
        case _:
            return lambda m: (_MEMBER_RANK.get(m.state, 0), not m.is_self, m.name)


# --- gates ---------------------------------------------------------------------------------------


def gates(model: Model, ui: Ui, width: int, now: Moment) -> Drawing:
    """Who serves each gate."""
    chosen = [
        gate
        for gate in model.gates
        if _matches(ui.filter_of(Panel.GATES), _gate_words(gate, ui.glyphs))
    ]
    chosen.sort(key=_gate_order(ui.sort_of(Panel.GATES), model))

    def last_car(gate: Gate) -> Part:
        last = model.last_cars.get(gate.number)
        if last is None:
            return "-", "dim"
        plate = plate_shown(last.plate, ui)
        age = ago((now.wall_ms - last.at_ms) / 1_000)
        return f"{last.direction} {plate} {age}", last.direction

    mode: Column[Gate] = Column("mode", 6, _mode)
    columns: tuple[Column[Gate], ...] = (
        Column("gate", 4, lambda g: (str(g.number), "strong"), right=True),
        Column("state", 9, lambda g: (g.state, STATE_STYLES.get(g.state, "plain"))),
        *((mode,) if any(gate.mode != "auto" for gate in model.gates) else ()),
        Column("owner", 0, lambda g: _owner(g, ui.glyphs)),
        Column("epoch", 5, lambda g: str(g.epoch), right=True),
        Column("last car", 15 if width < 72 else 24, last_car, from_width=44),
    )
    head, rows = table(columns, chosen, width, ui.glyphs)
    counts = [
        f"{count} {state}"
        for state in ("served", "moving", "unowned", "contested")
        if (count := sum(gate.state == state for gate in model.gates))
    ]
    held = [
        f"{count} held {mode}"
        for mode in ("open", "closed")
        if (count := sum(gate.mode == mode for gate in model.gates))
    ]
    return Drawing(", ".join((*counts, *held)), head, rows)


def _mode(gate: Gate) -> Part:
    return ("-", "dim") if gate.mode == "auto" else (gate.mode, _MODE_STYLES.get(gate.mode, "warn"))


def _gate_words(gate: Gate, glyphs: Glyphs) -> tuple[object, ...]:
    mode = "" if gate.mode == "auto" else gate.mode
    return (gate.number, gate.state, mode, _owner(gate, glyphs))


def _owner(gate: Gate, glyphs: Glyphs) -> str:
    match gate.state:
        case "moving":
            return f"{gate.owner or '-'} {glyphs.to} {gate.target or '-'}"
        case "contested":
            return ", ".join(gate.claims) or gate.owner or "-"
        case "unowned":
            return "nobody"
        case _:
            return gate.owner or "nobody"


def _gate_order(name: str, model: Model) -> Callable[[Gate], tuple[object, ...]]:
    match name:
        case "trouble":
            return lambda g: (_GATE_RANK.get(g.state, 0), g.number)
        case "owner":
            return lambda g: (g.owner or "", g.number)
        case "epoch":
            return lambda g: (-g.epoch, g.number)
        case "last car":
            cars = model.last_cars
            return lambda g: (-cars[g.number].at_ms if g.number in cars else 0, g.number)
        case _:
            return lambda g: (g.number,)


# --- replicas ------------------------------------------------------------------------------------


def replicas(model: Model, ui: Ui, width: int, now: Moment) -> Drawing:
    """Groups of equal roots, and how fast events come."""
    facts = [line((fact, "dim")) for fact in _facts(model)]
    if model.groups is None:
        return Drawing("not compared yet", None, fixed(facts))
    kinds = [("equal" if at == 0 else "differs", group) for at, group in enumerate(model.groups)]
    rows: list[Line] = []
    for kind, group in kinds:
        names = ", ".join(group.nodes)
        if _matches(ui.filter_of(Panel.REPLICAS), (kind, names, group.root)):
            style = "good" if kind == "equal" else "bad"
            word = f"{len(group.nodes)} {kind}"
            rows.append(line((f"{word:<9}", style), " ", (group.root[:8], "dim"), " ", names))
    silent = ", ".join(model.silent)
    if silent and _matches(ui.filter_of(Panel.REPLICAS), ("silent", silent)):
        word = f"{len(model.silent)} silent"
        rows.append(line((f"{word:<9}", "warn"), " ", "-" * 8, " ", silent))
    if len(model.groups) > 1:
        summary = "not all equal"
    elif silent:
        summary = f"{len(model.silent)} silent"
    else:
        summary = f"all {sum(len(group.nodes) for group in model.groups)} equal"
    return Drawing(summary, None, fixed([*rows, *facts]))


def _facts(model: Model) -> list[str]:
    events, received, sent = (
        model.rate(name) for name in ("events_received", "bytes_in", "bytes_out")
    )
    synced = "in sync" if model.synced else "not in sync yet"
    behind = _behind(model)
    if events is None or received is None or sent is None:
        return [synced, *behind]
    return [
        f"{synced}, {events:.1f} events/s in",
        f"{received / 1_000:.1f} KB/s in, {sent / 1_000:.1f} out",
        *behind,
    ]


def _behind(model: Model) -> list[str]:
    """Who lacks events, and when this node last had all of another's."""
    facts = []
    ages = [member.synced_s for member in model.members if member.synced_s is not None]
    if ages:
        facts.append(f"last full sync {min(ages):.0f} s ago")
    facts += [
        f"{member.name}: {member.events_behind} events behind"
        for member in model.members
        if member.events_behind
    ]
    return facts


# --- events --------------------------------------------------------------------------------------


def events(model: Model, ui: Ui, width: int, now: Moment) -> Drawing:
    """The newest last."""
    if model.tells_events is False:
        why = model.no_events_reason
        return Drawing(NO_EVENTS, None, fixed([line((why, "dim"))]))
    if not model.events:
        waiting = "nothing has happened since this began" if model.tells_events else ""
        return Drawing("", None, fixed([line((waiting, "dim"))]))
    wanted = ui.filter_of(Panel.EVENTS)
    chosen = model.events
    if wanted:
        chosen = tuple(each for each in chosen if _matches(wanted, _event_words(each, ui)))
    columns: tuple[Column[Event], ...] = (
        Column("time", 8, lambda e: (clock(e.at_ms), "dim")),
        Column("type", 14, lambda e: (e.type, _EVENT_STYLES.get(e.type, "plain"))),
        Column("plate", 10, lambda e: plate_shown(e.plate, ui) if e.plate else "", from_width=36),
        Column("gate", 4, lambda e: "" if e.gate is None else str(e.gate), right=True),
        Column("what", 0, lambda e: (_what(e, ui), "dim")),
    )
    _, rows = table(columns, chosen, width, ui.glyphs)
    summary = f"{model.events_missed} missed" if model.events_missed else ""
    return Drawing(summary, None, rows, 0 if wanted else model.events_before)


def _what(event: Event, ui: Ui) -> str:
    # The details of a car may name its plate again.
    detail = "" if ui.masked and event.plate else event.detail
    return ": ".join(filter(None, (event.member, detail)))


def _event_words(event: Event, ui: Ui) -> tuple[object, ...]:
    """What is hidden is not found either."""
    plate = plate_shown(event.plate, ui) if event.plate else None
    return (event.type, plate, event.gate, _what(event, ui))
