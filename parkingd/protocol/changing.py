"""Settings of the lot, as an operator changes and reads them while it runs.

A change is one event a register, with the reason and with what it was where it was changed; the two
registers of a threshold are always written together, so that two operators at two nodes cannot mix
their pairs. ``current`` is compared with what this node knows: nodes that cannot hear each other
may both find it unchanged, and then the later change stays.
"""

from __future__ import annotations

from parkingd.core.events import Event, Setting
from parkingd.core.ids import Dot, Now
from parkingd.core.lot import FOUNDING_KEYS, LotRecord
from parkingd.core.registers import (
    ALMOST_FULL,
    THRESHOLD_KEYS,
    Thresholds,
    gate_key,
)
from parkingd.core.stays import VERB_SET
from parkingd.protocol.commands import SetGates, SetLot, SetMode, SetSpaces, SetThreshold
from parkingd.protocol.desk import WARNING_REPEATED, reused
from parkingd.protocol.outcomes import (
    Change,
    ErrorCode,
    Failure,
    Outcome,
    SettingChange,
    SettingList,
    SettingRow,
)
from parkingd.protocol.shared import Shared


class Changing:
    """The settings of the lot at one node."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    # --- changes -------------------------------------------------------------------------

    def perform(self, command: SetLot, now: Now) -> Outcome:
        """Check, mint, and say what the answer will be once it is on disk."""
        match command:
            case SetSpaces(spaces=spaces, current=current):
                return self._set(command, (("spaces", spaces),), current, now)
            case SetGates(gates=gates, current=current):
                return self._set(command, (("gates", gates),), current, now)
            case SetThreshold(current=current):
                pair = self._pair(command)
                if isinstance(pair, Failure):
                    return pair
                return self._set(command, pair, current, now)
            case SetMode(gate=gate, mode=mode, current=held):
                gates = self._record.gates
                if gate > gates:
                    hint = f"the gates are 1 to {gates}"
                    return Failure(ErrorCode.UNKNOWN_GATE, f"there is no gate {gate}", hint)
                return self._set(command, ((gate_key(gate), mode),), held, now)

    def _set(
        self,
        command: SetLot,
        values: tuple[tuple[str, int | str], ...],
        current: int | str | None,
        now: Now,
    ) -> Outcome:
        """``current``: what the first of them must be."""
        shared = self._shared
        changes = [SettingChange(shown(key), self._value(key), new) for key, new in values]
        request = command.request
        stays = shared.replica.state.stays
        effect = None if request is None else stays.request_effect(request)
        if effect is not None:
            if effect[1] != VERB_SET or effect[2] != values[0][0].upper():
                return reused()
            what = f"{changes[0].key} is {changes[0].old}"
            return Change((), (), (WARNING_REPEATED,), what)
        first = changes[0]
        if current is not None and first.old != current:
            return Failure(
                ErrorCode.NOT_CURRENT,
                f"{first.key} is {first.old}, not {current}: nothing was changed",
                "look at it with `parkingd-ctl settings`, then decide again",
            )
        created: list[Dot] = []
        for (key, new), change in zip(values, changes, strict=True):
            # One request, one effect: whoever knows the first of its events knows it.
            body = Setting(key, new, None if created else request, command.reason, change.old)
            event = shared.replica.mint(body, shared.physical_ms(now))
            created.append((event.origin, event.seq))
        what = ", ".join(f"{change.key}: {change.old} -> {change.new}" for change in changes)
        return Change((), tuple(created), self._warnings(), what, tuple(changes))

    def _pair(self, command: SetThreshold) -> tuple[tuple[str, int], ...] | Failure:
        """Both registers of a threshold. Without another wish it clears as far below as now."""
        now = self._record.thresholds
        clear = command.clear
        if command.key == ALMOST_FULL:
            at, key = now.almost_full, "almostfullclear"
            clear = clear or max(1, command.percent - (at - now.almost_full_clear))
            wanted = now._replace(almost_full=command.percent, almost_full_clear=clear)
        else:
            at, key = now.full, "fullclear"
            clear = clear or max(1, command.percent - (at - now.full_clear))
            wanted = now._replace(full=command.percent, full_clear=clear)
        wrong = wanted.wrong_pair()
        if wrong:
            return Failure(ErrorCode.USAGE, wrong, "give a --clear that is not greater")
        return (command.key, command.percent), (key, clear)

    def _warnings(self) -> tuple[str, ...]:
        record, state = self._record, self._shared.replica.state
        overbooked = state.stays.visible_count - record.spaces
        found = (f"overbooked by {overbooked}",) if overbooked > 0 else ()
        return (*found, "the lot is closed: every gate is") if record.is_closed() else found

    # --- what they are -------------------------------------------------------------------

    def settings(self) -> SettingList:
        """All of them, gates that nobody has ever touched left out. There must be a lot."""
        gates = range(1, self._record.gates + 1)
        touched = [gate_key(gate) for gate in gates if self._record.setting_event(gate_key(gate))]
        return SettingList(
            tuple(self._row(key) for key in (*FOUNDING_KEYS, *THRESHOLD_KEYS, *touched))
        )

    def _row(self, key: str) -> SettingRow:
        record = self._record
        event = record.setting_event(key)
        if event is None and key in FOUNDING_KEYS:
            event = record.founding_event()
        if event is None:
            return SettingRow(shown(key), self._value(key), None, None, None, "")
        old, reason = _audit(event)
        by = record.name_of(event.origin)
        return SettingRow(shown(key), self._value(key), old, by, event.time >> 16, reason)

    def _value(self, key: str) -> int | str:
        return value_of(self._record, key)

    @property
    def _record(self) -> LotRecord:
        return self._shared.replica.state.record


def value_of(record: LotRecord, key: str) -> int | str:
    """What this register says, as far as it can be believed."""
    match key:
        case "spaces":
            return record.spaces
        case "gates":
            return record.gates
        case "admission":
            return record.admission
        case _ if key in THRESHOLD_KEYS:
            return record.thresholds[THRESHOLD_KEYS.index(key)]
        case _:
            return record.mode(int(key.removeprefix("gate")))


def shown(key: str) -> str:
    """A register's key as people type and read it."""
    if key in THRESHOLD_KEYS:
        return Thresholds._fields[THRESHOLD_KEYS.index(key)].replace("_", "-")
    return key if key in FOUNDING_KEYS else key.replace("gate", "gate-")


def _audit(event: Event) -> tuple[int | str | None, str]:
    body = event.body
    return (body.old, body.reason) if isinstance(body, Setting) else (None, "founded")
