"""From an untrusted map to a command: the only way there is.

A request names a verb and brings a map of arguments that anybody with access to the control
socket may have made up. Each verb reads its arguments through `_Arguments`, which checks type,
range and length, and refuses what the verb does not know: a misspelt argument that was silently
ignored would look like success.

Invariants: `parse_command` and `parse_direct` return or raise UsageError, nothing else; what they
return keeps every bound of `limits`. Plates are only bounded here: what a plate is, the node says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from parkingd.core.gates import SCORE_MAX, Fence
from parkingd.core.ids import REPLICA_MAX, REQUEST_ID_BYTES, SEQ_MAX
from parkingd.core.plates import normalise_plate
from parkingd.core.registers import ALMOST_FULL, FULL, MODES, PERCENT_MAX
from parkingd.errors import UsageError, WireError
from parkingd.protocol import checks
from parkingd.protocol.commands import (
    AskToEnter,
    Command,
    Condition,
    Correct,
    ForgetMember,
    ImportRow,
    ImportRows,
    Leave,
    ReadCandidates,
    ReadConflicts,
    ReadDigest,
    ReadGates,
    ReadLog,
    ReadLot,
    ReadMembers,
    ReadSettings,
    ReadStatus,
    ReadUnmatched,
    ReadVehicles,
    RecordExit,
    Remove,
    SetGates,
    SetMode,
    SetSpaces,
    SetThreshold,
    Track,
    WaitFor,
    Where,
)
from parkingd.protocol.event_types import EVENT_TYPES
from parkingd.protocol.limits import (
    EPOCH_SEEN_MAX,
    GATES_MAX,
    IMPORT_ROWS_MAX,
    NAME_LENGTH_MAX,
    RAW_LENGTH_MAX,
    SPACES_MAX,
    TEXT_LENGTH_MAX,
)

GATE_NUMBER_MAX: Final = 2**31 - 1
"""A car at a gate above the lot's count is answered ``unknown_gate``, however far above."""

CONDITIONS_MAX: Final = 16
CONDITION_VALUE_MAX: Final = 2**31 - 1
CONDITION_KEYS: Final = ("members", "gates", "inside", "synced", "ready")

LONG_PLATE_SHOWN: Final = 32
"""Characters that an answer repeats of a text that is too long for a plate."""

LINE_MAX: Final = 2**32 - 1
SINCE_MS_MAX: Final = 2**48 - 1
"""What the millisecond part of a hybrid time can hold."""

PATH_LENGTH_MAX: Final = 4_096

LINES_MAX: Final = 1_000
"""Lines of the journal in one answer: some 300 KiB."""
LINE_SEQ_MAX: Final = 2**62
JOURNAL_WAIT_S_MAX: Final = 30
"""Longer than that nobody waits for an event in one request: a client that is gone is noticed by
nothing else."""


class Backup(NamedTuple):
    """Copy the database to this absolute path."""

    path: str


class Version(NamedTuple):
    """Which software answers."""


class LineFilter(NamedTuple):
    """Which lines of the journal: those for which everything given holds."""

    since_ms: int | None = None
    """Wall milliseconds, included."""
    until_ms: int | None = None
    """Wall milliseconds, not included."""
    types: tuple[str, ...] = ()
    """Any of these; empty: all."""
    plate: str | None = None
    """Normalised; also one that was corrected."""


class ReadJournal(NamedTuple):
    """Lines of the journal above ``after``; waits for the first, so many seconds at most."""

    after: int | None
    """None: above the newest."""
    limit: int
    wait_s: int
    filter: LineFilter


Direct = Backup | ReadJournal | Version
"""Verbs that the daemon carries out itself: they concern its disk and software, not the node."""

DIRECT_VERBS: Final = ("backup", "journal", "version")


def parse_direct(verb: str, args: Mapping[object, object]) -> Direct:
    """The direct verb of this name. Raises UsageError."""
    given = _Arguments(verb, args)
    direct: Direct
    if verb == "backup":
        path = given.text("path", PATH_LENGTH_MAX)
        if not path.startswith("/") or "\0" in path:
            raise UsageError(f"{verb}: path is not an absolute path")
        direct = Backup(path)
    elif verb == "journal":
        direct = _journal(given)
    elif verb == "version":
        direct = Version()
    else:
        raise _unknown_verb(verb)
    given.end()
    return direct


def parse_command(verb: str, args: Mapping[object, object]) -> Command:
    """The command of this verb. Raises UsageError."""
    parser = _PARSERS.get(verb)
    if parser is None:
        raise _unknown_verb(verb)
    given = _Arguments(verb, args)
    command = parser(given)
    given.end()
    return command


def _unknown_verb(verb: str) -> UsageError:
    known = ", ".join(sorted((*_PARSERS, *DIRECT_VERBS)))
    return UsageError(f"no verb {verb!r}", f"this daemon knows: {known}")


class _Arguments:
    """The arguments of one request, each taken once and checked."""

    def __init__(self, verb: str, args: Mapping[object, object]) -> None:
        self._verb = verb
        self._left = dict(args)

    def end(self) -> None:
        """Nothing may be left."""
        if self._left:
            raise self._wrong(f"unknown argument {str(next(iter(self._left)))[:32]!r}")

    def take(self, key: str) -> object:
        """Whatever was given, None if nothing was."""
        return self._left.pop(key, None)

    def text(self, key: str, length_max: int) -> str:
        """1 to ``length_max`` characters."""
        value = self.take(key)
        if not isinstance(value, str) or not 1 <= len(value) <= length_max:
            raise self._wrong(f"{key} is not a text of 1 to {length_max} characters")
        return value

    def plate(self, key: str = "plate") -> str:
        """0 to 64 characters; the empty one is refused by the node like any that is no plate.

        So is a longer one, for which stands here what cannot be a plate either.
        """
        text = self.take(key)
        if isinstance(text, str) and len(text) > RAW_LENGTH_MAX:
            # No bracket is dropped from a plate, so that nothing can be made of this.
            return f"{text[:LONG_PLATE_SHOWN]}... ({len(text)} characters)"
        return _plate(text, f"{self._verb}: {key}")

    def number(self, key: str, low: int, high: int) -> int:
        """An int of this range, bounds included."""
        return _number(self.take(key), low, high, f"{self._verb}: {key}")

    def optional_number(self, key: str, low: int, high: int) -> int | None:
        """The same, or None where nothing was given."""
        value = self.take(key)
        return None if value is None else _number(value, low, high, f"{self._verb}: {key}")

    def current(self) -> int | None:
        """What a setting must be now; None: whatever it is."""
        return self.optional_number("current", 0, SPACES_MAX)

    def word(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of these."""
        value = self.take(key)
        if not isinstance(value, str) or value not in allowed:
            raise self._wrong(f"{key} is none of {', '.join(allowed)}")
        return value

    def optional_word(self, key: str, allowed: tuple[str, ...]) -> str | None:
        """The same, or None where nothing was given."""
        if self._left.get(key) is not None:
            return self.word(key, allowed)
        self.take(key)
        return None

    def reason(self) -> str:
        """Why, in the words of a person; empty when nobody has said."""
        value = self.take("reason")
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX:
            raise self._wrong(f"reason is not a text of at most {TEXT_LENGTH_MAX} characters")
        return value.strip()

    def dot(self, key: str) -> tuple[int, int] | None:
        """(replica, seq), None if nothing was given."""
        match self.take(key):
            case None:
                return None
            case [replica, seq]:
                where = f"{self._verb}: {key}: "
                return (
                    _number(replica, 0, REPLICA_MAX, f"{where}replica"),
                    _number(seq, 1, SEQ_MAX, f"{where}seq"),
                )
            case _:
                raise self._wrong(f"{key} is not [replica, seq]")

    def request(self) -> bytes | None:
        """The request id; None when the caller does not care for retries."""
        value = self.take("request")
        return None if value is None else _request_id(value, f"{self._verb}: request")

    def fence(self, key: str) -> Fence | None:
        """[epoch, score, owner]; None when nothing was given."""
        value = self.take(key)
        if value is None:
            return None
        where = f"{self._verb}: {key}"
        parts = _list(value, 3, where)
        if len(parts) != 3:
            raise self._wrong(f"{key} is not [epoch, score, owner]")
        epoch = _number(parts[0], 0, EPOCH_SEEN_MAX, f"{where} epoch")
        score = _number(parts[1], 0, SCORE_MAX, f"{where} score")
        try:
            return Fence(epoch, score, checks.name(parts[2]))
        except WireError:
            raise self._wrong(f"{key} owner is not the name of a node") from None

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"{self._verb}: {what}")


def _number(value: object, low: int, high: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{where} is not an integer of {low} to {high}")
    return value


def _plate(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > RAW_LENGTH_MAX:
        raise UsageError(f"{where} is not a text of at most {RAW_LENGTH_MAX} characters")
    return value


def _request_id(value: object, where: str) -> bytes:
    if not isinstance(value, bytes) or len(value) != REQUEST_ID_BYTES:
        raise UsageError(f"{where} is not {REQUEST_ID_BYTES} bytes")
    return value


def _list(value: object, length_max: int, where: str) -> list[object]:
    if not isinstance(value, list) or len(value) > length_max:
        raise UsageError(f"{where} is not a list of at most {length_max}")
    return value


def _journal(given: _Arguments) -> ReadJournal:
    after = given.optional_number("after", 0, LINE_SEQ_MAX)
    limit = given.optional_number("limit", 1, LINES_MAX)
    wait_s = given.optional_number("wait", 0, JOURNAL_WAIT_S_MAX)
    since_ms = given.optional_number("since_ms", 0, SINCE_MS_MAX)
    until_ms = given.optional_number("until_ms", 0, SINCE_MS_MAX)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UsageError("journal: until_ms is not after since_ms")
    types = given.take("types")
    words = [] if types is None else _list(types, len(EVENT_TYPES), "journal: types")
    for word in words:
        if word not in EVENT_TYPES:
            raise UsageError(
                f"journal: no event is of type {str(word)[:32]!r}",
                f"the types are {', '.join(EVENT_TYPES)}",
            )
    typed = given.take("plate")
    plate = None if typed is None else normalise_plate(_plate(typed, "journal: plate"))
    if typed is not None and plate is None:
        raise UsageError("journal: plate is not a plate: 1 to 16 letters or digits")
    return ReadJournal(
        after,
        LINES_MAX if limit is None else limit,
        wait_s or 0,
        LineFilter(since_ms, until_ms, tuple(map(str, words)), plate),
    )


def _track(given: _Arguments) -> Command:
    return Track(given.plate(), given.number("gate", 1, GATE_NUMBER_MAX), given.request())


def _enter(given: _Arguments) -> Command:
    gate = given.number("gate", 1, GATE_NUMBER_MAX)
    return AskToEnter(given.plate(), gate, given.request(), given.fence("seen"))


def _exit(given: _Arguments) -> Command:
    return RecordExit(given.plate(), given.number("gate", 1, GATE_NUMBER_MAX), given.request())


def _where(given: _Arguments) -> Command:
    return Where(given.plate())


def _set_spaces(given: _Arguments) -> Command:
    spaces = given.number("spaces", 1, SPACES_MAX)
    return SetSpaces(spaces, given.request(), given.current(), given.reason())


def _set_gates(given: _Arguments) -> Command:
    gates = given.number("gates", 1, GATES_MAX)
    return SetGates(gates, given.request(), given.current(), given.reason())


def _set_threshold(key: str) -> Callable[[_Arguments], Command]:
    def parse(given: _Arguments) -> Command:
        percent = given.number("percent", 1, PERCENT_MAX)
        clear = given.optional_number("clear", 1, PERCENT_MAX)
        return SetThreshold(key, percent, clear, given.request(), given.current(), given.reason())

    return parse


def _set_mode(given: _Arguments) -> Command:
    gate = given.number("gate", 1, GATE_NUMBER_MAX)
    mode, current = given.word("mode", MODES), given.optional_word("current", MODES)
    return SetMode(gate, mode, given.request(), given.reason(), current)


def _correct(given: _Arguments) -> Command:
    return Correct(given.plate("old"), given.plate("new"), given.request())


def _remove(given: _Arguments) -> Command:
    plate, dot, exit_dot = given.plate(), given.dot("dot"), given.dot("exit")
    if dot is not None and exit_dot is not None:
        raise UsageError("remove: dot and exit exclude each other")
    return Remove(plate, dot, given.request(), exit_dot)


def _forget_member(given: _Arguments) -> Command:
    return ForgetMember(given.text("name", NAME_LENGTH_MAX))


def _wait(given: _Arguments) -> Command:
    conditions = _list(given.take("conditions"), CONDITIONS_MAX, "wait: conditions")
    if not conditions:
        raise UsageError("wait: there is no condition to wait for")
    return WaitFor(tuple(_condition(each) for each in conditions))


def _condition(value: object) -> Condition:
    match value:
        case [str(key), wanted, bool(at_least)] if key in CONDITION_KEYS:
            number = _number(wanted, 0, CONDITION_VALUE_MAX, f"wait: {key}")
            return Condition(key, number, at_least)
        case _:
            raise UsageError(
                "wait: a condition is not [key, value, at_least]",
                f"the keys are {', '.join(CONDITION_KEYS)}",
            )


def _import_rows(given: _Arguments) -> Command:
    rows = _list(given.take("rows"), IMPORT_ROWS_MAX, "import_rows: rows")
    return ImportRows(tuple(_import_row(row) for row in rows))


def _import_row(row: object) -> ImportRow:
    match row:
        case [line, plate, gate, since_ms, request]:
            return ImportRow(
                _number(line, 1, LINE_MAX, "import_rows: line"),
                _plate(plate, "import_rows: plate"),
                _number(gate, 1, GATE_NUMBER_MAX, "import_rows: gate"),
                None
                if since_ms is None
                else _number(since_ms, 0, SINCE_MS_MAX, "import_rows: since_ms"),
                _request_id(request, "import_rows: request"),
            )
        case _:
            raise UsageError("import_rows: a row is not [line, plate, gate, since_ms, request]")


_PARSERS: Final[Mapping[str, Callable[[_Arguments], Command]]] = {
    "track": _track,
    "enter": _enter,
    "exit": _exit,
    "lot": lambda given: ReadLot(),
    "vehicles": lambda given: ReadVehicles(),
    "where": _where,
    "conflicts": lambda given: ReadConflicts(),
    "unmatched": lambda given: ReadUnmatched(given.dot("dot")),
    "gates": lambda given: ReadGates(),
    "members": lambda given: ReadMembers(),
    "status": lambda given: ReadStatus(),
    "digest": lambda given: ReadDigest(),
    "discover": lambda given: ReadCandidates(),
    "set_spaces": _set_spaces,
    "set_gates": _set_gates,
    "set_almost_full": _set_threshold(ALMOST_FULL),
    "set_full": _set_threshold(FULL),
    "set_mode": _set_mode,
    "settings": lambda given: ReadSettings(),
    "correct": _correct,
    "remove": _remove,
    "forget_member": _forget_member,
    "wait": _wait,
    "import_rows": _import_rows,
    "log": lambda given: ReadLog(),
    "leave": lambda given: Leave(),
}
