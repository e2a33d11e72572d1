"""`parkingd-ctl top`: one frame and out, a picture, or the dashboard until somebody leaves.

The loop waits for a key, a signal, something new or the next second; it folds what has come into
the model, and draws a frame when the last one is through.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from parkingd.adapters.client import CODE_TIMED_OUT, Trouble
from parkingd.cli.ctl_session import EXIT_DONE, Session
from parkingd.cli.top.demo import NOW as DEMO_NOW
from parkingd.cli.top.demo import demo_model
from parkingd.cli.top.feed import Feed, read_moment
from parkingd.cli.top.ink import ASCII, UNICODE, Glyphs, Ink, Row, cells, plain_text
from parkingd.cli.top.layout import WIDTH_MIN, Frame, Size, compose, natural_height
from parkingd.cli.top.model import Model, Moment, after
from parkingd.cli.top.paint import Painter
from parkingd.cli.top.screen import Screen, die_of
from parkingd.cli.top.svg import svg
from parkingd.cli.top.ui import Extent, Ui, press
from parkingd.errors import UsageError

TICK_S: Final = 1.0
"""Ages and clocks show seconds."""

FRAME_S_MIN: Final = 0.1
"""So long at least between two frames that nobody asked for by a key: a storm of events is
drawn ten times a second."""

EVENTS_WAIT_S: Final = 0.5
"""How long a single frame waits for the first events and the roots, after everything else."""

ONCE_EVENTS: Final = 10
"""Events of a single frame."""

SVG_WIDTH: Final = 120
"""The same everywhere, whatever window the picture is made in."""

SVG_TITLE: Final = "parkingd-ctl top"
SVG_DESCRIPTION: Final = (
    "The dashboard in a terminal: occupancy of the lot, members, gates, replicas and events."
)


def run_top(session: Session, environ: Mapping[str, str]) -> int:
    """The command; its exit status. Raises UsageError."""
    args = session.args
    if args.output not in (None, "table"):
        raise UsageError("top draws for people", "for programs: parkingd-ctl status --json")
    single = args.once or args.svg is not None
    if args.demo and not single:
        raise UsageError("--demo draws one frame", "add --once or --svg FILE")
    if not single:
        _insist_on_terminal(session, environ)
    glyphs = glyphs_of(environ, session.out.encoding)
    ui = Ui(interval_s=args.interval, glyphs=glyphs)
    if args.demo:
        return _show(session, demo_model(), ui, DEMO_NOW)
    client = session.connect()
    if isinstance(client, Trouble):
        return session.fail(client)
    assert session.socket is not None
    if single:
        found = _look_once(session.socket, session.timeout_s)
        if isinstance(found, Trouble):
            return session.fail(found)
        return _show(session, found, ui, read_moment())
    ended_by = _live(session, session.socket, ui)
    if ended_by is signal.SIGINT:
        raise KeyboardInterrupt
    if ended_by is not None:
        die_of(ended_by)
    return EXIT_DONE


def _insist_on_terminal(session: Session, environ: Mapping[str, str]) -> None:
    if not (os.isatty(0) and session.out.isatty()):
        raise UsageError("top needs a terminal", "parkingd-ctl top --once prints one frame")
    if environ.get("TERM", "dumb") in ("", "dumb"):
        raise UsageError(
            "this terminal (TERM) cannot move its cursor",
            "parkingd-ctl top --once prints one frame",
        )


def glyphs_of(environ: Mapping[str, str], encoding: str | None) -> Glyphs:
    """ASCII where the locale names another character set than UTF-8.

    Python itself sets LC_CTYPE=C.UTF-8 when it finds ``LANG=C``, and takes the C locale for UTF-8.
    """
    language = environ.get("LANG", "")
    character_set = environ.get("LC_CTYPE", "")
    if character_set == "C.UTF-8" and language in ("C", "POSIX"):
        character_set = language
    locale = environ.get("LC_ALL") or character_set or language
    names_utf8 = not locale or "utf8" in locale.lower().replace("-", "")
    is_utf8 = (encoding or "utf-8").lower().replace("-", "") == "utf8"
    return UNICODE if names_utf8 and is_utf8 else ASCII


# --- one frame -----------------------------------------------------------------------------------


def _look_once(path: Path, timeout_s: float) -> Model | Trouble:
    """What can be known at once; without events if none come soon."""
    came = threading.Event()
    feed = Feed(path, timeout_s, timeout_s, came.set)
    feed.start()
    model = Model()
    looked = False
    until_s = time.monotonic() + timeout_s
    try:
        while time.monotonic() < until_s:
            came.wait(max(0.0, until_s - time.monotonic()))
            came.clear()
            for message in feed.take():
                model = after(model, message)
            if model.lost is not None:
                return Trouble(model.lost.code, model.lost.reason, model.lost.hint)
            if model.polled is not None and not looked:
                looked, until_s = True, min(until_s, time.monotonic() + EVENTS_WAIT_S)
            if looked and model.groups is not None and model.tells_events is not None:
                break
    finally:
        feed.stop()
    if model.polled is None:
        return Trouble(CODE_TIMED_OUT, "the daemon did not answer in time")
    return model


def _show(session: Session, model: Model, ui: Ui, now: Moment) -> int:
    """Draw one frame: as a picture, or on standard output."""
    if session.args.svg is not None:
        text = draw_svg(model, ui, now)
        Path(session.args.svg).write_text(text, encoding="utf-8")
        return EXIT_DONE
    width = max(WIDTH_MIN, shutil.get_terminal_size().columns)
    rows = _whole_frame(model, ui, width, now)[:-1]  # Nobody can press a key.
    ink = Ink(session.wants_colour)
    session.write(ink.text_of(row) if session.wants_colour else plain_text(row) for row in rows)
    return EXIT_DONE


def draw_svg(model: Model, ui: Ui, now: Moment) -> str:
    """The picture of one frame."""
    ui = Ui(glyphs=UNICODE, interval_s=ui.interval_s)
    return svg(_whole_frame(model, ui, SVG_WIDTH, now), SVG_TITLE, SVG_DESCRIPTION)


def _whole_frame(model: Model, ui: Ui, width: int, now: Moment) -> list[Row]:
    """As high as it needs to be."""
    model = replace(model, events=model.events[-ONCE_EVENTS:])
    size = Size(width, natural_height(model, ui, width, now))
    return frame_rows(compose(model, ui, size, now), size, ui)


def frame_rows(frame: Frame, size: Size, ui: Ui) -> list[Row]:
    """The frame's lines as cells."""
    return [cells(each, size.width, ui.glyphs is ASCII) for each in frame.lines]


# --- the dashboard -------------------------------------------------------------------------------


def _live(session: Session, path: Path, ui: Ui) -> signal.Signals | None:
    """Until somebody leaves; by which signal, if it was one."""
    ink = Ink(session.wants_colour, "ascii" if ui.glyphs is ASCII else "utf-8")
    with Screen(0, session.out.fileno()) as screen:
        feed = Feed(path, ui.interval_s, session.timeout_s, screen.wake)
        feed.start()
        try:
            return _Dashboard(screen, feed, Painter(ink), ui).run()
        finally:
            feed.stop()


class _Dashboard:
    """The loop and what it goes on from."""

    def __init__(self, screen: Screen, feed: Feed, painter: Painter, ui: Ui) -> None:
        self._screen = screen
        self._feed = feed
        self._painter = painter
        self._ui = ui
        self._model = Model()
        self._standing: tuple[Model, Moment] | None = None
        """What is shown while the picture stands still."""
        self._extent = Extent()

    def run(self) -> signal.Signals | None:
        is_due, not_before_s, tick_s = True, 0.0, 0.0
        while not self._ui.ended:
            now = read_moment()
            is_due = is_due or now.mono_s >= tick_s
            if is_due and self._screen.is_idle and now.mono_s >= not_before_s:
                self._draw(now)
                is_due = False
                not_before_s, tick_s = now.mono_s + FRAME_S_MIN, now.mono_s + TICK_S
            happened = self._screen.wait((not_before_s if is_due else tick_s) - now.mono_s)
            if happened.ended_by is not None:
                return happened.ended_by
            for message in self._feed.take():
                self._model = after(self._model, message)
                is_due = True
            for key in happened.keys:
                self._press(key)
            if happened.redraw:
                self._painter.forget()
            if happened.keys or happened.redraw:
                is_due, not_before_s = True, 0.0
        return None

    def _press(self, key: str) -> None:
        self._ui = press(self._ui, key, self._extent)
        self._feed.set_interval(self._ui.interval_s)
        if not self._ui.paused:
            self._standing = None
        elif self._standing is None:
            self._standing = self._model, read_moment()

    def _draw(self, now: Moment) -> None:
        size = self._screen.size()
        model, then = self._standing or (self._model, now)
        frame = compose(model, self._ui, size, then, (self._model, now))
        self._extent = frame.extents.get(self._ui.focus, Extent())
        self._screen.draw(self._painter.paint(frame_rows(frame, size, self._ui)))
