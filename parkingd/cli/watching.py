"""`watch`: the events of a daemon as they come, as lines or as runs of a program.

It begins with now, or with a number that an earlier run has told. Whoever reads slowly slows
nobody down: what waits, waits in the daemon's journal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, NoReturn

from parkingd.adapters.client import Trouble
from parkingd.adapters.document_values import Document
from parkingd.cli.ctl_session import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NO, Session
from parkingd.cli.event_lines import EventLines
from parkingd.cli.hooks import Hook
from parkingd.cli.journal import Journal, Page, Selection, chosen_types, missed_event

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


def run_watch(session: Session) -> int:
    """The exit status."""
    args = session.args
    chosen = Selection(chosen_types(args.types), args.plate)
    hook = None
    if args.program is not None:
        hook = Hook(args.program, args.kill_after, os.environ, session.note)
    client = session.connect()
    if isinstance(client, Trouble):
        return session.fail(client)
    journal = Journal(session, chosen, args.reconnect)
    try:
        after = journal.end() if args.first is None else max(0, args.first - 1)
        if isinstance(after, Trouble):
            return session.fail(after)
        if hook is not None:
            return _run_hook(session, journal, after, hook)
        lines = EventLines("jsonl" if session.wants_json else session.output, session.wants_colour)
        session.write(lines.header())
        return follow_lines(session, journal, after, lines, args.count)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED  # How one leaves; there is nothing to say about it.


def follow_lines(
    session: Session, journal: Journal, after: int, lines: EventLines, count: int | None = None
) -> int:
    """Write what comes, at once; the exit status."""

    def tell(events: Sequence[Document]) -> bool:
        session.write(lines.lines(events))
        session.out.flush()
        return True

    session.out.flush()
    return _follow(session, journal, after, count, tell, lines.form == "jsonl")


def _run_hook(session: Session, journal: Journal, after: int, hook: Hook) -> int:
    stops: bool = session.args.stop_on_error

    def run(events: Sequence[Document]) -> bool:
        for event in events:
            if not hook.run(event) and stops:
                session.note("stopped", f"to go on with this event: --from {event['seq']}")
                return False
        return True

    hook.tell_socket(session.socket)
    journal.watches_output = False
    for number in _SIGNALS:
        signal.signal(number, _leave)
    try:
        status = _follow(session, journal, after, session.args.count, run, tells_gaps=False)
    finally:
        if hook.failures:
            session.note("hook_failures", f"{hook.failures} of {hook.runs} runs failed")
    return EXIT_NO if hook.failures and status == EXIT_DONE else status


def _follow(
    session: Session,
    journal: Journal,
    after: int,
    count: int | None,
    take: Callable[[Sequence[Document]], bool],
    tells_gaps: bool,
) -> int:
    """Hand on what comes until ``take`` has enough or ``count`` events came.

    ``tells_gaps``: what was missed is an event too; else it is said on standard error.
    """
    for page in journal.follow(after):
        if isinstance(page, Trouble):
            return session.fail(page)
        if page.missed and tells_gaps:
            take([missed_event(page)])
        elif page.missed:
            session.note("missed", *gap_words(page))
        events = page.events if count is None else page.events[:count]
        if not take(events):
            return EXIT_NO
        if count is not None:
            count -= len(events)
            if count == 0:
                return EXIT_DONE
    raise AssertionError("a journal is followed until something is wrong")


def gap_words(page: Page) -> tuple[str, str]:
    """What was missed, and why."""
    first, last = page.after + 1, page.after + page.missed
    return f"missed {page.missed} events, {first} to {last}", "the journal no longer has them"


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
