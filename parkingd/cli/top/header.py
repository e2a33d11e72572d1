"""What stands above and below the panels: header, lot, key hints, help. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from parkingd.cli.event_words import ago
from parkingd.cli.top.ink import Glyphs, Line, Part, fit, line, sided, width_of
from parkingd.cli.top.model import BUCKET_S, BUCKETS, MINUTE_BUCKETS, Model, Moment
from parkingd.cli.top.panels import STATE_STYLES, clock, plate_shown
from parkingd.cli.top.reading import Lot
from parkingd.cli.top.ui import Panel, Ui

BAR_WIDTH_MAX: Final = 100
"""A space each in a lot of a hundred; longer bars tell nothing more."""

BARS_MIN: Final = MINUTE_BUCKETS
"""Of a sparkline: the minute whose sum stands beside it."""

_FLOW_CAPTION_WIDTH: Final = 100
"""Narrower windows have better use for that place."""

HELP: Final = (
    ("q, Ctrl-C", "leave"),
    ("?", "this page; any key closes it"),
    ("tab, 1-5", "choose a panel; its digit again or enter gives it the whole window"),
    ("j k, arrows", "one line down or up; page up and down, home and end"),
    ("s", "sort the panel by its next column"),
    ("/", "show only lines with some text; enter keeps it, escape drops it"),
    ("escape", "back: no filter, all panels, follow the newest event"),
    ("space", "stop the picture; the header goes on"),
    ("+ -", "look less or more often"),
    ("m", "mask plates"),
    ("Ctrl-L", "draw everything again"),
    ("Ctrl-Z", "suspend; fg comes back"),
)


def badges(model: Model, ui: Ui, now: Moment) -> list[Part]:
    """What everybody has to see at once; words, not colours."""
    found: list[Part] = []
    if model.lost is not None:
        found.append((" DISCONNECTED ", "bad badge"))
    elif model.is_stale(now, ui.interval_s):
        found.append((f" STALE {ago(model.age_s(now) or 0)} ", "warn badge"))
    if model.polled is not None and model.troubles():
        found.append((" DEGRADED ", "warn badge"))
    if ui.paused:
        found.append((" PAUSED ", "badge"))
    if not found and model.polled is not None:
        found.append(("OK", "good"))
    return [part for each in found for part in (" ", each)][1:]


def header(model: Model, ui: Ui, width: int, now: Moment) -> list[Line]:
    """Who and when; and the gravest thing there is to say."""
    dot = f" {ui.glyphs.dot} "
    parts: list[Part] = [("parkingd", "title"), " ", (model.cluster or "-", "plain"), dot]
    parts.append((model.node or "-", "strong"))
    if model.version:
        parts += [dot, model.version]
    if model.polled is not None:
        since_s = 0.0 if model.lost is not None else model.age_s(now) or 0.0
        parts += [dot, f"up {_uptime(model.uptime_s + since_s)}"]
    right = line(*badges(model, ui, now), "  ", (f"{clock(now.wall_ms)}Z", "dim"))
    return [sided(line(*parts), right, width, ui.glyphs), _message(model, ui, width, now)]


def _message(model: Model, ui: Ui, width: int, now: Moment) -> Line:
    glyphs = ui.glyphs
    if model.lost is not None:
        since = clock(model.lost.at.wall_ms)
        text = f"no daemon since {since}Z, {ago(now.mono_s - model.lost.at.mono_s)} ago"
        text += f": {model.lost.reason}; trying again"
        return line((fit(text, width, glyphs), "bad"))
    if model.polled is None:
        return line((fit("asking the daemon", width, glyphs), "dim"))
    if model.is_stale(now, ui.interval_s):
        since = clock(model.polled.wall_ms)
        text = f"{model.node} lives, but has not answered since {since}Z"
        return line((fit(text, width, glyphs), "warn"))
    troubles = model.troubles()
    if not troubles:
        return line((fit("nothing to warn of", width, glyphs), "dim"))
    shown = len(troubles)
    while True:
        rest = f" (+{len(troubles) - shown} more)" if shown < len(troubles) else ""
        text = "; ".join(troubles[:shown]) + rest
        if shown == 1 or width_of(text) <= width:
            break
        shown -= 1
    if rest and width_of(text) > width:
        text = fit(troubles[0], width - len(rest), glyphs) + rest
    return line((fit(text, width, glyphs), "warn"))


def _uptime(seconds: float) -> str:
    """Coarser the longer it is: it should not be the only thing that changes."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3_600), int(seconds // 86_400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


# --- the lot -------------------------------------------------------------------------------------


def lot_summary(model: Model) -> str:
    """For the title."""
    if model.lot is None:
        return ""
    source = "" if model.tells_events else ", in and out are net of the count"
    return f"admission {model.lot.admission}{source}"


def lot_lines(model: Model, ui: Ui, width: int, now: Moment) -> list[Line]:
    """The bar and the flow."""
    lot = model.lot
    if lot is None:
        return [line(("this node has no lot yet", "warn")), line("")]
    return [_occupancy(lot, width, ui), _flow(model, lot, width, ui, now)]


def _occupancy(lot: Lot, width: int, ui: Ui) -> Line:
    style = STATE_STYLES.get(lot.state, "plain")
    count: list[Part] = [(f"{lot.inside}/{lot.spaces}", "strong"), " inside "]
    if lot.overbooked:
        after: list[Part] = [" ", (f" OVERBOOKED by {lot.overbooked} ", "bad badge"), " "]
    else:
        after = [f" {lot.free} free  "]
    after.append((lot.state.replace("_", " "), style))
    taken = line(*count, *after).cell_len
    room = min(BAR_WIDTH_MAX, width - taken)
    return line(*count, *bar(lot, room, style, ui.glyphs), *after)


def bar(lot: Lot, width: int, style: str, glyphs: Glyphs) -> list[Part]:
    """Taken and free spaces; a mark where the lot begins to be almost full."""
    if width < 1 or lot.spaces < 1:
        return []
    full = min(width, max(0, round(width * lot.inside / lot.spaces)))
    if lot.inside > 0:
        full = max(1, full)
    if lot.inside < lot.spaces:
        full = min(width - 1, full)
    mark = max(0, min(width - 2, width * lot.almost_full // 100))
    text = glyphs.full * full + glyphs.empty * (width - full)
    return [
        (text[: min(mark, full)], style),
        (text[min(mark, full) : mark], "dim"),
        (glyphs.mark, "strong"),
        (text[mark + 1 : max(mark + 1, full)], style),
        (text[max(mark + 1, full) :], "dim"),
    ]


def _flow(model: Model, lot: Lot, width: int, ui: Ui, now: Moment) -> Line:
    entered, left = model.per_minute(now)
    history = model.history(now)
    minutes = BUCKETS * BUCKET_S // 60
    start: list[Part] = [f"in {entered}/min "]
    middle: list[Part] = [f"  out {left}/min "]
    end: list[Part] = [(f"  last {minutes} min", "dim")]
    if lot.conflicts:
        plates = ", ".join(plate_shown(plate, ui) for plate in lot.conflicts)
        end.append((f"  {len(lot.conflicts)} in conflict: {plates}", "bad"))
    if width < _FLOW_CAPTION_WIDTH:
        del end[0]
    taken = line(*start, *middle, *end).cell_len
    bars = max(BARS_MIN, min(BUCKETS, (width - taken) // 2))
    most = max(max(pair) for pair in history)
    return line(
        *start,
        (spark([came for came, _ in history][-bars:], most, ui.glyphs), "in"),
        *middle,
        (spark([went for _, went in history][-bars:], most, ui.glyphs), "out"),
        *end,
    )


def spark(counts: Sequence[int], most: int, glyphs: Glyphs) -> str:
    """A character for each count: the lowest for none, and never for one car."""
    levels = glyphs.sparks
    top = len(levels) - 1
    return "".join(levels[-(-count * top // most) if count else 0] for count in counts)


# --- below ---------------------------------------------------------------------------------------


def footer(ui: Ui, width: int) -> Line:
    """What can be typed."""
    if ui.typing is not None:
        name = ui.focus.name.lower()
        text = f"only {name} with: {ui.typing}_   enter keeps it, escape drops it"
        return line((fit(text, width, ui.glyphs), "strong"))
    sort = ui.sort_of(ui.focus)
    hints = [("q", "quit"), ("?", "help"), ("1-5", "panel"), ("/", "filter")]
    if sort:
        hints.append(("s", f"sort: {sort}"))
    if ui.focus is Panel.EVENTS and not ui.follows:
        hints.append(("end", "follow"))
    hints += [("space", "go on" if ui.paused else "pause")]
    hints += [("m", "unmask" if ui.masked else "mask"), ("+-", f"every {ui.interval_s:g} s")]
    parts: list[Part] = []
    for key, does in hints:
        parts += [(key, "strong"), (f" {does}  ", "dim")]
    return sided(line(*parts), line(""), width, ui.glyphs)


def help_lines(width: int, glyphs: Glyphs) -> list[Line]:
    """The page behind the question mark."""
    keys = max(len(key) for key, _ in HELP)
    rows = [line((f"{key:<{keys}}", "strong"), "  ", does) for key, does in HELP]
    words = line(
        ("DISCONNECTED", "strong"),
        " no daemon   ",
        ("STALE", "strong"),
        " it does not answer   ",
        ("DEGRADED", "strong"),
        " see line 2",
    )
    return [line(("Keys", "title")), line(""), *rows, line(""), words]
