"""Every kind of JSON object, as the program makes it: one example each, with a fixed content.

The answers are those of the stand-in node of the adapters' tests. So this page is also a golden
form of what scripts are written against: a field that changes its name shows as a difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from parkingd.adapters.document_values import Document, envelope
from parkingd.adapters.documents import to_document
from parkingd.protocol.outcomes import Failure, Outcome
from tests.adapters.control_fake import NOON_MS, FakeNode
from tests.unit.test_ctl_command_parsing import GOOD

_REFUSAL = Failure("unknown_gate", "the lot has 4 gates, not 9", "parkingd-ctl gates lists them")

_COMMANDS = {"import_rows": "import", "forget_member": "members forget"}
"""Verbs that have other names on the control socket."""

_NOT_SHOWN = ("EventList",)
"""It has a page of its own."""


def kinds() -> str:
    """One section for each kind."""
    found: dict[str, Document] = {}
    verbs: dict[str, list[str]] = {}
    for verb, outcome in _answers():
        kind, body = to_document(outcome)
        if kind not in _NOT_SHOWN:
            found.setdefault(kind, envelope(kind, "gary", NOON_MS, body))
            verbs.setdefault(kind, []).append(verb)
    lines: list[str] = []
    for kind in sorted(found):
        named = ", ".join(f"`{verb}`" for verb in dict.fromkeys(verbs[kind]))
        shown = json.dumps(found[kind], indent=2, sort_keys=True, ensure_ascii=False)
        shown = shown.replace("\\u001b[2J", "")  # A stranger's, to try what a terminal is shown.
        lines += ["", f"## {kind}", "", f"Of {named}.", "", "```json", shown, "```"]
    return "\n".join(lines).lstrip("\n")


def _answers() -> Iterator[tuple[str, Outcome]]:
    node = FakeNode()
    for verb, _, command in GOOD:
        if hasattr(command, "plate"):
            command = dataclasses.replace(command, plate=node.rows[0][0])  # type: ignore[type-var]
        for outcome in tuple(node(command) or ())[:1]:  # type: ignore[arg-type]
            if not isinstance(outcome, Failure):
                yield _COMMANDS.get(verb, verb.replace("_", " ")), outcome
    yield "track", _REFUSAL
