"""The tables of the wire protocol, from the classes that travel."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator

from parkingd.core import events
from parkingd.protocol import limits
from parkingd.protocol.wire_events import _PACK, KIND_ENTER
from parkingd.protocol.wire_messages import KIND_OF


def tables() -> str:
    """Messages, events and bounds."""
    messages = ((kind, cls, _fields(cls)) for cls, kind in KIND_OF.items())
    kinds = {cls: kind for cls, (kind, _) in _PACK.items()} | {events.Enter: KIND_ENTER}
    bodies = ((kind, cls, cls._fields) for cls, kind in kinds.items())
    return "\n".join(
        [
            "## Messages",
            "",
            *_table(messages),
            "",
            "## Events",
            "",
            *_table(bodies),
            "",
            "## Bounds",
            "",
            "| bound | value | why |",
            "|---|---|---|",
            *_bounds(),
        ]
    )


def _fields(cls: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    names: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]
    return names


def _table(rows: Iterable[tuple[int, type, tuple[str, ...]]]) -> Iterator[str]:
    yield "| kind | name | says | fields |"
    yield "|---|---|---|---|"
    for kind, cls, fields in sorted(rows, key=lambda row: row[0]):
        named = ", ".join(f"`{field}`" for field in fields)
        yield f"| {kind} | `{cls.__name__}` | {_said(inspect.getdoc(cls) or '')} | {named} |"


def _said(text: str) -> str:
    """The first paragraph, on one line, as Markdown."""
    first = " ".join(text.split("\n\n")[0].split())
    first = re.sub(r" \(DESIGN[^)]*\)", "", first)
    return first.replace("``", "`").replace("|", "\\|")


def _bounds() -> Iterator[str]:
    """Every constant of `limits`, with what its file says under it."""
    source = inspect.getsource(limits)
    for name, said in re.findall(r'^(\w+): Final = .*\n(?:"""((?:.|\n)*?)""")?', source, re.M):
        yield f"| `{name}` | {getattr(limits, name):,} | {_said(said)} |"
