"""``export``: the vehicles or the event log, page by page, as CSV or JSON lines.

Vehicles come as ``plate,gate,time``, which is what ``import`` reads. An event leaves the log when
every member has it on its disk: of a cluster without trouble there is nothing to export some
seconds later, and that is said, with the way to what is kept for longer. Nothing is collected: a
page is written when it comes, so that a million rows take no more memory than one page.

Source: the command contract, ``export``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from parkingd.adapters.client import GRACE_S, Trouble, items_of
from parkingd.adapters.control_wire import Reply
from parkingd.adapters.document_values import API, Document, rfc3339
from parkingd.cli.ctl_session import EXIT_DONE, Session
from parkingd.cli.event_lines import csv_line

VEHICLE_COLUMNS: Final = ("plate", "gate", "time")
EVENT_COLUMNS: Final = ("time", "type", "plate", "gate", "replica", "seq", "detail")

_EMPTY_LOG: Final = (
    "empty_log",
    "the event log is empty: every member has all of it on its disk",
    "`parkingd-ctl log --format csv` lists what has happened",
)


def run_export(session: Session) -> int:
    """The exit status."""
    client = session.connect()
    if isinstance(client, Trouble):
        return session.fail(client)
    chosen = session.args.format or ("jsonl" if session.output in ("json", "jsonl") else "csv")
    columns = EVENT_COLUMNS if session.args.log else VEHICLE_COLUMNS
    is_csv = chosen == "csv"
    header = [csv_line(columns)] if is_csv else []
    id_ = client.send("log" if session.args.log else "vehicles", {})
    count = 0
    while True:
        page = client.page(id_, time.monotonic() + session.timeout_s + GRACE_S)
        if isinstance(page, Trouble):
            return session.fail(page)
        session.write(header)
        header = []
        session.write(_csv_lines(page, columns) if is_csv else _json_lines(page))
        count += len(page.body.get("rows", ()))
        if page.last:
            if session.args.log and not count:
                session.note(*_EMPTY_LOG)
            session.warn(page.body.get("warnings", ()))
            return EXIT_DONE


def _items(page: Reply) -> list[Document]:
    if page.kind == "EventList":
        return items_of(page)
    return [
        {"plate": item["plate"], "gate": item["gate"], "time": item["since"]}
        for item in items_of(page)
    ]


def _json_lines(page: Reply) -> Iterator[str]:
    """Events carry the envelope, as they do when they are watched; vehicles are bare rows."""
    shared: dict[str, Any] = {}
    if page.kind == "EventList":
        shared = {"api": API, "kind": "Event", "node": page.node, "at": rfc3339(page.at_ms)}
    return (json.dumps(shared | item, sort_keys=True) for item in _items(page))


def _csv_lines(page: Reply, columns: Sequence[str]) -> Iterator[str]:
    for item in _items(page):
        if "dot" in item:
            item["replica"] = item["dot"][0]
        yield csv_line([str(item.get(column, "")) for column in columns])
