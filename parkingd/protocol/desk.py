"""The desk: what a control request does to the lot, and the answer to it.

Writes are decided on the state in memory, minted, and answered when the disk has them. A request
id that has had an effect gets the answer of that effect again, whichever node recorded it (P9);
an id that was used for another plate or verb is refused.
"""

from __future__ import annotations

from parkingd.core.events import (
    FLAG_IMPORTED,
    MATCHED_CONFLICT,
    MATCHED_EXACT,
    MATCHED_NONE,
    Correction,
    Enter,
    Removal,
)
from parkingd.core.events import Exit as ExitBody
from parkingd.core.ids import Dot, Now, replica_hex
from parkingd.core.plates import normalise_plate
from parkingd.core.records import RequestEffect, Stay
from parkingd.core.stays import (
    VERB_CORRECT,
    VERB_EXIT,
    VERB_IMPORT,
    VERB_REMOVE,
    VERB_TRACK,
    stay_cause,
    stay_since_ms,
)
from parkingd.core.unmatched import find_unmatched, may_have_been, settling_request
from parkingd.protocol.commands import (
    Correct,
    ImportRows,
    RecordExit,
    Remove,
    Track,
)
from parkingd.protocol.limits import CAUSES_MAX, COVERS_MAX, GATES_MAX
from parkingd.protocol.outcomes import (
    Change,
    Entry,
    ErrorCode,
    Exit,
    Failure,
    ImportResult,
    Outcome,
    RowFailure,
)
from parkingd.protocol.shared import Shared

WARNING_MISSED_EXIT = "missed_exit"
WARNING_UNMATCHED = "unmatched"
WARNING_UNKNOWN_GATE = "unknown_gate"
WARNING_REPEATED = "repeated"
"""This request id has done this before: nothing new was recorded."""

MATCHED_WORDS = {MATCHED_NONE: "none", MATCHED_EXACT: "exact", MATCHED_CONFLICT: "conflict"}

NOT_A_PLATE = "not a plate: 1 to 16 letters or digits, separators do not count"


class Desk:
    """The commands that change the lot."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def perform(
        self,
        command: Track | RecordExit | Correct | Remove | ImportRows,
        now: Now,
    ) -> Outcome:
        """Decide, mint, and say what the answer will be once it is on disk."""
        match command:
            case Track():
                return self._track(command, now)
            case RecordExit():
                return self._exit(command, now)
            case Correct():
                return self._correct(command, now)
            case Remove():
                return self._remove(command, now)
            case ImportRows():
                return self._import(command, now)

    # --- entries and exits ---------------------------------------------------------------

    def _track(self, command: Track, now: Now) -> Outcome:
        plate = normalise_plate(command.plate)
        if plate is None:
            return invalid_plate(command.plate)
        effect = self._effect(command.request)
        if effect is not None:
            time, verb, known, origin, seq, gate = effect[:6]
            if verb != VERB_TRACK or known != plate:
                return reused()
            return Entry(plate, gate, (origin, seq), time >> 16, (WARNING_REPEATED,))
        if not self._is_gate(command.gate):
            return self._unknown_gate(command.gate)
        state = self._shared.replica.state
        inside = state.stays.visible(plate)
        covers = open_dots(state.stays.stays_of(plate))
        raw = command.plate if command.plate != plate else None
        body = Enter(plate, command.gate, command.request, covers, raw)
        event = self._shared.replica.mint(body, self._shared.physical_ms(now))
        warnings = (WARNING_MISSED_EXIT,) if inside else ()
        return Entry(plate, command.gate, (event.origin, event.seq), event.time >> 16, warnings)

    def _exit(self, command: RecordExit, now: Now) -> Outcome:
        plate = normalise_plate(command.plate)
        if plate is None:
            return invalid_plate(command.plate)
        effect = self._effect(command.request)
        if effect is not None:
            time, verb, known, origin, seq, gate, matched, since = effect
            if verb != VERB_EXIT or known != plate:
                return reused()
            stay_s = _stay_s(time >> 16, since)
            words = MATCHED_WORDS[matched]
            return Exit(plate, gate, words, stay_s, (origin, seq), (WARNING_REPEATED,))
        stays = self._shared.replica.state.stays
        inside = stays.visible(plate)
        known_stays, marks = stays.stays_of(plate), stays.marks_of(plate)
        latest = max(inside, key=lambda stay: stay[2], default=None)
        since = stay_since_ms(latest) if latest is not None else None
        matched = min(len(inside), MATCHED_CONFLICT)
        causes = dict.fromkeys(stay_cause(stay) for stay in known_stays)
        for mark in sorted(marks, key=lambda mark: -mark[2]):
            causes.update(dict.fromkeys(mark[6]))
        body = ExitBody(
            plate,
            command.gate if command.gate <= GATES_MAX else 0,  # 0: no gate there can be
            command.request,
            (*open_dots(known_stays), *((mark[1], mark[0]) for mark in marks))[:COVERS_MAX],
            tuple(causes)[:CAUSES_MAX],
            matched,
            since,
            command.plate if command.plate != plate else None,
        )
        event = self._shared.replica.mint(body, self._shared.physical_ms(now))
        warnings = [] if self._is_gate(command.gate) else [WARNING_UNKNOWN_GATE]
        if not inside:
            warnings.append(WARNING_UNMATCHED)
            self._shared.counters["exits_unmatched"] += 1
        stay_s = _stay_s(event.time >> 16, since)
        dot = (event.origin, event.seq)
        return Exit(plate, command.gate, MATCHED_WORDS[matched], stay_s, dot, tuple(warnings))

    def _import(self, command: ImportRows, now: Now) -> Outcome:
        accepted = skipped = 0
        failed = []
        stays = self._shared.replica.state.stays
        physical = self._shared.physical_ms(now)
        for line, text, gate, since_ms, request in command.rows:
            plate = normalise_plate(text)
            if plate is None:
                failed.append(RowFailure(line, NOT_A_PLATE))
                continue
            if not self._is_gate(gate):
                failed.append(RowFailure(line, f"there is no gate {gate}"))
                continue
            effect = self._effect(request)
            known = stays.stays_of(plate)
            if effect is not None or (known and stays.visible(plate)):
                same = effect is None or (effect[1] == VERB_IMPORT and effect[2] == plate)
                if same:
                    skipped += 1
                else:
                    failed.append(RowFailure(line, "its request id was used for another"))
                continue
            covers = open_dots(known)
            raw = text if text != plate else None
            body = Enter(plate, gate, request, covers, raw, since_ms, FLAG_IMPORTED)
            self._shared.replica.mint(body, physical)
            accepted += 1
        return ImportResult(accepted, skipped, tuple(failed))

    # --- repairs ------------------------------------------------------------------------

    def _correct(self, command: Correct, now: Now) -> Outcome:
        old, new = normalise_plate(command.old_plate), normalise_plate(command.new_plate)
        if old is None or new is None:
            return invalid_plate(command.old_plate if old is None else command.new_plate)
        effect = self._effect(command.request)
        if effect is not None:
            if effect[1] != VERB_CORRECT or effect[2] != new:
                return reused()
            what = f"{old} is now {new}"
            return Change((), ((effect[3], effect[4]),), (WARNING_REPEATED,), what)
        if old == new:
            return Failure(ErrorCode.USAGE, f"{old} and {new} are the same plate")
        stays = self._shared.replica.state.stays
        inside = stays.visible(old)
        if not inside:
            return not_inside(old)
        if len(inside) > 1:
            hint = "settle it first: `exit`, or `remove` with the --dot of the wrong one"
            return Failure(ErrorCode.IN_CONFLICT, f"{old} is inside more than once", hint)
        if stays.visible(new):
            hint = f"if the car is the same, `remove {old}` drops the misread one"
            return Failure(ErrorCode.ALREADY_INSIDE, f"{new} is inside already", hint)
        stay = inside[0]
        closed = open_dots(stays.stays_of(old))
        raw = command.new_plate if command.new_plate != new else None
        body = Correction(
            old, closed, new, stay[4], stay_cause(stay), command.request, stay_since_ms(stay), raw
        )
        event = self._shared.replica.mint(body, self._shared.physical_ms(now))
        left_later = stays.latest_mark_time(new) >> 16 > stay_since_ms(stay)
        warnings = ("left_after_this_entry",) if left_later else ()
        return Change(closed, ((event.origin, event.seq),), warnings, f"{old} is now {new}")

    def _remove(self, command: Remove, now: Now) -> Outcome:
        plate = normalise_plate(command.plate)
        if plate is None:
            return invalid_plate(command.plate)
        effect = self._effect(command.request)
        if effect is not None:
            if effect[1] != VERB_REMOVE or effect[2] != plate:
                return reused()
            return Change((), (), (WARNING_REPEATED,), f"{plate} was removed")
        if command.exit is not None:
            return self._settle(plate, command.exit, now)
        stays = self._shared.replica.state.stays
        known = stays.stays_of(plate)
        if command.dot is not None:
            causes = [stay_cause(s) for s in known if (s[1], s[0]) == command.dot]
            known = tuple(stay for stay in known if stay_cause(stay) in causes)
        dots = open_dots(known)
        if not stays.visible(plate) or not dots:
            return not_inside(plate, command.dot if stays.visible(plate) else None)
        body = Removal(plate, command.request, dots)
        self._shared.replica.mint(body, self._shared.physical_ms(now))
        return Change(dots, (), (), f"{plate} was removed")

    def _settle(self, plate: str, dot: Dot, now: Now) -> Outcome:
        """The car of an unmatched exit was recorded under this plate: drop what it left behind.

        A car that came in under this plate after that exit is not touched.
        """
        stays = self._shared.replica.state.stays
        found = find_unmatched(stays.requests, dot)
        if found is None:
            shown = f"{replica_hex(dot[0])}:{dot[1]}"
            hint = "`parkingd-ctl unmatched` lists them"
            return Failure(ErrorCode.UNKNOWN_EXIT, f"no unmatched exit {shown} is known here", hint)
        request, (time, _, left_as, *_) = found
        settling = settling_request(request)
        effect = self._effect(settling)
        if effect is not None:
            if effect[2] != plate:
                reason = f"that exit is settled: its car was recorded as {effect[2]}"
                return Failure(ErrorCode.EXIT_SETTLED, reason)
            return Change((), (), (WARNING_REPEATED,), f"{plate} was removed: it left as {left_as}")
        inside = [s for s in stays.visible(plate) if may_have_been(s, time)]
        if not inside:
            return not_inside(plate)
        causes = [stay_cause(stay) for stay in inside]
        dots = open_dots(tuple(s for s in stays.stays_of(plate) if stay_cause(s) in causes))
        self._shared.replica.mint(Removal(plate, settling, dots), self._shared.physical_ms(now))
        return Change(dots, (), (), f"{plate} was removed: it left as {left_as}")

    # --- what they share -----------------------------------------------------------------

    def _effect(self, request: bytes | None) -> RequestEffect | None:
        if request is None:
            return None
        return self._shared.replica.state.stays.request_effect(request)

    def _is_gate(self, gate: int) -> bool:
        return 1 <= gate <= self._shared.replica.state.record.gates

    def _unknown_gate(self, gate: int) -> Failure:
        gates = self._shared.replica.state.record.gates
        return Failure(
            ErrorCode.UNKNOWN_GATE, f"there is no gate {gate}", f"the gates are 1 to {gates}"
        )


def invalid_plate(text: str) -> Failure:
    """The text cannot be normalised to a plate."""
    shown = repr(text) if text.isprintable() else ascii(text[:32])
    if len(text) > 32:
        shown = f"{text[:32]!a}..."
    hint = "give it as typed or read, such as 'KA 12 AB 3456'"
    return Failure(ErrorCode.INVALID_PLATE, f"{shown} is {NOT_A_PLATE}", hint)


def not_inside(plate: str, dot: Dot | None = None) -> Failure:
    """The plate has no stay here; with ``dot``: it has others, but not this one."""
    if dot is not None:
        reason = f"{plate} is inside, but has no stay {replica_hex(dot[0])}:{dot[1]}"
        hint = f"`parkingd-ctl where {plate}` lists its stays"
        return Failure(ErrorCode.NOT_INSIDE, reason, hint)
    hint = "`parkingd-ctl vehicles` lists who is"
    return Failure(ErrorCode.NOT_INSIDE, f"{plate} is not inside", hint)


def reused() -> Failure:
    """The request id has had another effect."""
    return Failure(
        ErrorCode.REQUEST_REUSED,
        "this request id was used for something else",
        "leave --request-id out, or give a new one",
    )


def open_dots(stays: tuple[Stay, ...]) -> tuple[Dot, ...]:
    """What an event that closes these stays names, within its limit."""
    return tuple([(stay[1], stay[0]) for stay in stays[:COVERS_MAX]])


def _stay_s(end_ms: int, since_ms: int | None) -> float | None:
    return None if since_ms is None else max(0, end_ms - since_ms) / 1000
