"""`log`: what a daemon's journal has, as a table, CSV or JSON lines, page by page.

Nothing is collected: a page is written when it comes. Only the newest few of `--limit` are held,
and no others.
"""

from __future__ import annotations

from parkingd.adapters.client import Trouble
from parkingd.adapters.clock import wall_ms
from parkingd.cli.ctl_session import EXIT_DONE, EXIT_INTERRUPTED, Session
from parkingd.cli.event_lines import EventLines
from parkingd.cli.journal import Journal, Selection, chosen_types
from parkingd.cli.times import parse_time
from parkingd.cli.watching import follow_lines, gap_words
from parkingd.errors import UsageError


def run_log(session: Session) -> int:
    """The exit status. Raises UsageError."""
    args = session.args
    now_ms = wall_ms()
    since_ms, until_ms = (
        None if text is None else parse_time(flag, text, now_ms)
        for flag, text in (("--since", args.since), ("--until", args.until))
    )
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UsageError("--until is not later than --since", "which of them is wrong?")
    chosen = Selection(chosen_types(args.types), args.plate, since_ms, until_ms)
    client = session.connect()
    if isinstance(client, Trouble):
        return session.fail(client)
    journal = Journal(session, chosen)
    form = args.format or ("jsonl" if session.wants_json else session.output)
    lines = EventLines(form, session.wants_colour)
    try:
        last = journal.end()
        if isinstance(last, Trouble):
            return session.fail(last)
        trouble = _list(session, journal, lines, last)
        if trouble is not None:
            return session.fail(trouble)
        return follow_lines(session, journal, last, lines) if args.follow else EXIT_DONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _list(session: Session, journal: Journal, lines: EventLines, last: int) -> Trouble | None:
    """Everything up to the number ``last``."""
    limit: int | None = session.args.limit
    pages = journal.pages(0, last) if limit is None else journal.newest(limit, last)
    is_table = lines.form == "table"
    has_header = False
    for page in pages:
        if isinstance(page, Trouble):
            return page
        if page.missed and page.after:  # Before the first page it is what is kept no more.
            session.note("missed", *gap_words(page))
        if not has_header and (page.events or not is_table):
            has_header = True
            lines.make_room(page.events)
            session.write(lines.header())
        session.write(lines.lines(page.events))
    if not has_header:
        session.write(lines.header() if session.args.follow else ["(none)"])
    return None
