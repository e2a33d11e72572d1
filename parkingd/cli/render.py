"""Documents as people and scripts read them: an aligned table, TSV, or JSON.

A table is for eyes: nothing is cut off, and colour only repeats what a state word says; a decision
is a sentence, and what is wrong with a gate is said in words. TSV is for pipes: one header line and
a line per item, or ``field<TAB>value`` for a single object. JSON has sorted keys, on one line;
``jsonl`` has a line per item.

Invariants: text that came from elsewhere cannot move the cursor or break a column, because what
is not printable is escaped.

Source: the command contract, section "JSON"; research on command conventions, 1.3.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from parkingd.adapters.document_values import Document

_ENVELOPE: Final = ("api", "kind", "node", "at")

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "VehicleList": ("plate", "since", "gate", "entered_at_node", "dot", "conflict"),
    "Vehicle": ("plate", "since", "gate", "entered_at_node", "dot", "conflict"),
    "ConflictList": ("plate", "since", "gate", "entered_at_node", "dot", "settle"),
    "UnmatchedList": ("time", "plate", "gate", "node", "dot", "alike", "since", "settle"),
    "GateList": ("gate", "owner", "epoch", "state", "claims", "target", "mode", "mode_reason"),
    "SettingList": ("key", "value", "old", "by", "time", "reason"),
    "MemberList": (
        "name",
        "state",
        "address",
        "gates",
        "last_heard_s",
        "rtt_ms",
        "replica",
        "incarnation",
        "version",
    ),
    "Digest": ("root", "nodes"),
    "CandidateList": ("source", "address", "name", "state", "detail"),
    "EventList": ("time", "type", "plate", "gate", "dot", "detail"),
    "Wait": ("condition", "met", "value"),
}
"""Kinds that are lists, and which fields of their items a line has."""

_TABLE_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "GateList": ("gate", "owner", "epoch", "state", "note"),
    "ConflictList": ("plate", "since", "gate", "entered_at_node", "settle"),
    "UnmatchedList": ("time", "plate", "gate", "node", "alike", "since", "settle"),
}
"""Where a table has other columns than TSV."""

_LINE_KINDS: Final[Mapping[str, str]] = {
    "VehicleList": "Stay",
    "ConflictList": "Conflict",
    "UnmatchedList": "UnmatchedExit",
    "GateList": "Gate",
    "SettingList": "Setting",
    "MemberList": "Member",
    "Digest": "Root",
    "CandidateList": "Candidate",
    "EventList": "Event",
}
"""What one line of ``-o jsonl`` is called, by the kind of the list."""

_EMPTY: Final[Mapping[str, str]] = {
    "ConflictList": "(none: no plate is inside more than once)",
    "UnmatchedList": "(none: every exit of the last 24 hours matched a car, or was settled)",
}
"""What a table says that has no lines; otherwise ``(none)``."""

_HIDDEN: Final = frozenset({"warnings", "counters", "settings"})
"""Not in tables: warnings go to standard error, counters are for programs, and a change says what
it set."""

_COLOURS: Final[Mapping[str, int]] = {
    "admitted": 32,
    "alive": 32,
    "open": 32,
    "connected": 32,
    "self": 32,
    "served": 32,
    "suspect": 33,
    "almost_full": 33,
    "trying": 33,
    "moving": 33,
    "dead": 31,
    "full": 31,
    "closed": 31,
    "refused": 31,
    "timeout": 31,
    "nxdomain": 31,
    "servfail": 31,
    "no_resolver": 31,
    "unowned": 31,
    "contested": 31,
    "denied": 31,
}

_DENIED: Final[Mapping[str, str]] = {
    "full": "the lot is full",
    "no_rights": "no rights are left where this gate is served",
    "already_inside": "this car is inside already",
    "gate_closed": "the gate is closed",
    "draining": "the node that decides about this gate is leaving",
    "invalid_plate": "this is no plate: one has 1 to 16 letters or digits",
    "unknown_gate": "the lot has no such gate",
    "no_owner": "nobody who serves this gate has answered",
    "not_ready": "this node is not ready yet",
}
"""Why not, for people; programs read the codes. ``ok`` is the reason of whoever is admitted."""


def as_json(document: Document) -> str:
    """One line."""
    return json.dumps(document, sort_keys=True, check_circular=False)


def as_jsonl(document: Document) -> Iterator[str]:
    """A line per item, each with the envelope; one line for what is not a list."""
    kind = _LINE_KINDS.get(document["kind"])
    if kind is None:
        yield as_json(document)
        return
    shared = {key: document[key] for key in _ENVELOPE} | {"kind": kind}
    for item in document["items"]:
        yield as_json(shared | item)


def as_tsv(document: Document) -> Iterator[str]:
    """A header and a line per item, or a line per field."""
    columns = _COLUMNS.get(document["kind"])
    if columns is None:
        for field, value in _flat(document):
            yield f"{field}\t{_text(value, empty='', words=('true', 'false'))}"
        return
    yield "\t".join(columns)
    for item in _items(document):
        yield "\t".join(
            _text(item.get(column), empty="", words=("true", "false")) for column in columns
        )


def as_table(document: Document, colour: bool) -> Iterator[str]:
    """Aligned lines."""
    kind = document["kind"]
    if kind == "Decision":
        yield _decision(document, colour)
        return
    columns = _TABLE_COLUMNS.get(kind) or _COLUMNS.get(kind)
    if columns is None:
        yield from _object_table(document, colour)
        return
    rows = [tuple(_text(item.get(column)) for column in columns) for item in _items(document)]
    if not rows:
        yield _EMPTY.get(kind, "(none)")
        return
    head = tuple(column.upper() for column in columns)
    widths = [max(map(width_of, cells)) for cells in zip(head, *rows, strict=True)]
    yield aligned(head, widths)
    state = columns.index("state") if "state" in columns else None
    for row in rows:
        yield aligned(row, widths, state if colour else None)


def _object_table(document: Document, colour: bool) -> Iterator[str]:
    fields = [
        (field, _WORDED.get(field, _text)(value))
        for field, value in _flat(document, whole=("thresholds",))
        if field.partition(".")[0] not in _HIDDEN
        and not field.endswith(".warnings")
        and not (field in ("closed", "created", "alike") and value in ([], ()))
    ]
    width = max((len(field) for field, _ in fields), default=0)
    for field, text in fields:
        shown = in_colour(text) if colour and field.endswith("state") else text
        yield f"{field:<{width}}  {shown}"


def _decision(decision: Document, colour: bool) -> str:
    """``admitted ABC123 at gate 1 (gary, epoch 7): 42 free``, or why not."""
    word, reason, free = decision["decision"], decision["reason"], decision["free"]
    shown = in_colour(printable(word)) if colour else printable(word)
    car = f"{shown} {printable(decision['plate']) or 'nothing'} at gate {decision['gate']}"
    if word != "admitted":
        return f"{car}: {_DENIED.get(reason) or printable(reason)}"
    if decision["owner"] is not None:
        car += f" ({printable(decision['owner'])}, epoch {decision['epoch']})"
    if free is None:
        return car
    return f"{car}: {free} free" if free >= 0 else f"{car}: overbooked by {-free}"


def _gate_note(gate: Document) -> str:
    """What is unusual about a gate; empty when it has one owner and keeps it, and is in use."""
    return "; ".join(filter(None, (_owner_note(gate), _mode_note(gate))))


def _mode_note(gate: Document) -> str:
    mode, reason = gate.get("mode", "auto"), gate.get("mode_reason")
    if mode == "auto":
        return ""
    return f"held {mode}: {reason}" if reason else f"held {mode}"


def _owner_note(gate: Document) -> str:
    match gate["state"]:
        case "contested":
            return f"claimed by {', '.join(gate['claims'])}"
        case "moving":
            return f"to {gate['target']}"
        case "unowned":
            return "nobody serves it" if gate["epoch"] else "nobody serves it yet"
        case _:
            return ""


def _gate_numbers(gates: Sequence[int]) -> str:
    """``1-3, 7``; ``none`` for none."""
    runs: list[list[int]] = []
    for gate in sorted(gates):
        if runs and gate == runs[-1][-1] + 1:
            runs[-1].append(gate)
        else:
            runs.append([gate])
    return ", ".join(_run(run) for run in runs) or "none"


def _run(gates: Sequence[int]) -> str:
    if len(gates) > 2:
        return f"{gates[0]}-{gates[-1]}"
    return ", ".join(map(str, gates))


def _unowned(gates: Sequence[int]) -> str:
    numbers = _gate_numbers(gates)
    return f"{numbers}: nobody serves {'it' if len(gates) == 1 else 'them'}" if gates else numbers


def _contested(gates: Sequence[int]) -> str:
    numbers = _gate_numbers(gates)
    return f"{numbers}: claimed by more than one node" if gates else numbers


def _thresholds(percent: Document) -> str:
    """``almost full at 90 % (clear at 88 %), full at 100 %``."""
    parts = []
    for field in ("almost_full", "full"):
        at, clear = percent[field], percent[f"{field}_clear"]
        end = "" if clear == at else f" (clear at {clear} %)"
        parts.append(f"{field.replace('_', ' ')} at {at} %{end}")
    return ", ".join(parts)


_WORDED: Final[Mapping[str, Callable[[Any], str]]] = {
    "gates.owned": _gate_numbers,
    "gates.unowned": _unowned,
    "gates.contested": _contested,
    "thresholds": _thresholds,
    "lot.thresholds": _thresholds,
}
"""Fields of a single object that people see in other words than programs."""


def aligned(cells: Sequence[str], widths: Sequence[int], coloured: int | None = None) -> str:
    """One line of a table; ``coloured`` is the place of its state word."""
    shown = list(cells)
    if coloured is not None:
        shown[coloured] = in_colour(cells[coloured])
    gaps = (width - width_of(cell) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(text + " " * gap for text, gap in zip(shown, gaps, strict=True)).rstrip()


def width_of(text: str) -> int:
    """In columns of a terminal: most letters of East Asia take two, marks on letters none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def in_colour(word: str) -> str:
    """The word in the colour of its state, if it has one."""
    number = _COLOURS.get(word)
    return word if number is None else f"\x1b[{number}m{word}\x1b[0m"


def _items(document: Document) -> Iterable[Document]:
    if document["kind"] == "Wait":
        return list(document["conditions"])
    if document["kind"] == "Digest":
        silent = [{"root": "unreachable", "nodes": [name]} for name in document["unreachable"]]
        return [*document["items"], *silent]
    if document["kind"] == "ConflictList":
        return [
            stay | {"plate": item["plate"]} for item in document["items"] for stay in item["stays"]
        ]
    if document["kind"] == "UnmatchedList":
        return [line for item in document["items"] for line in _unmatched(item)]
    if document["kind"] == "GateList":
        return [item | {"note": _gate_note(item)} for item in document["items"]]
    return list(document["items"])


def _unmatched(exit_: Document) -> list[Document]:
    """A line for each suggestion; one that has none if nothing like it is inside."""
    if not exit_["alike"]:
        return [exit_ | {"alike": None}]
    return [
        exit_ | {"alike": stay["plate"], "since": stay["since"], "settle": stay["settle"]}
        for stay in exit_["alike"]
    ]


def _flat(
    document: Mapping[str, Any], prefix: str = "", whole: Sequence[str] = ()
) -> Iterator[tuple[str, object]]:
    """Fields by their path; ``whole``: those that are not taken apart."""
    for field, value in document.items():
        if not prefix and field in _ENVELOPE:
            continue
        if isinstance(value, dict) and field not in whole:
            yield from _flat(value, f"{prefix}{field}.", whole)
        else:
            yield f"{prefix}{field}", value


def _text(value: object, empty: str = "-", words: tuple[str, str] = ("yes", "no")) -> str:
    # Half a million cells of a full lot pass here: the frequent types come first.
    if type(value) is str:
        return value if value.isprintable() else printable(value)
    if type(value) is int:
        return str(value)
    match value:
        case None:
            return empty
        case bool():
            return words[0] if value else words[1]
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".")
        case [str(replica), int(seq)]:
            return f"{printable(replica)}:{seq}"
        case [int(epoch), str(score), str(owner)]:
            return f"{epoch}:{printable(score)}:{printable(owner)}"
        case {"plate": str(plate)}:
            return printable(plate)
        case {"line": line, "reason": reason}:
            return f"line {line}: {printable(str(reason))}"
        case {"key": key, "old": old, "new": new}:
            return printable(f"{key}: {old} -> {new}")
        case list():
            return ",".join(_text(each) for each in value) or empty
        case _:
            return printable(str(value))


def text_of(value: object, empty: str) -> str:
    """One value as a cell: printable, on one line."""
    return _text(value, empty=empty)


def printable(text: str) -> str:
    """The text with everything that is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
