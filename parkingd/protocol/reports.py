"""Reports: what the node shows of the lot, of itself and of its cluster. They change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from parkingd.core.events import (
    Claim,
    Correction,
    Enter,
    Event,
    Exit,
    Fence,
    Found,
    Join,
    Removal,
    Seal,
    Setting,
)
from parkingd.core.ids import Now, ReplicaId, replica_hex
from parkingd.core.plates import normalise_plate
from parkingd.core.registers import HELD_KEYS, OPEN, Thresholds
from parkingd.core.stays import stay_since_ms
from parkingd.protocol.codec import unpack_event_untrusted
from parkingd.protocol.desk import invalid_plate
from parkingd.protocol.gate_rows import CONTESTED, UNOWNED, GateRows
from parkingd.protocol.members import ALIVE, GONE, Member, MemberState
from parkingd.protocol.membership import Membership
from parkingd.protocol.outbox import STORAGE_WARNING
from parkingd.protocol.outcomes import (
    Failure,
    GateRow,
    LogPage,
    LogRow,
    Lot,
    MemberList,
    MemberRow,
    Status,
    Vehicle,
    VehicleList,
    VehicleRow,
)
from parkingd.protocol.settings import DAY_MS
from parkingd.protocol.shared import Shared

PAGE_ROWS: Final = 2_000
"""Rows made in one turn of the loop: a few milliseconds."""

BLOCKED_MARKS: Final = 1_000
"""So many exit marks that cannot be collected are worth a warning."""


class Reports:
    """Reads of one node."""

    def __init__(self, shared: Shared, membership: Membership, gates: GateRows, now: Now) -> None:
        self._shared = shared
        self._membership = membership
        self._gates = gates
        self._started_ms = now.mono_ms

    def status(self, now: Now, *, synced: bool, ready: bool) -> Status:
        """How this node sees itself and its cluster. See `Node.is_synced` and `Node.is_ready`."""
        shared, state = self._shared, self._shared.replica.state
        settings = shared.settings
        rows = self.gates(now)
        return Status(
            shared.replica_id,
            shared.incarnation,
            settings.cluster,
            (now.mono_ms - self._started_ms) / 1000,
            synced,
            ready,
            state.root().hex(),
            self.lot() if shared.has_lot else None,
            tuple(self.member_counts().items()),
            state.record.gates,
            tuple(row.gate for row in rows if row.owner == settings.name),
            tuple(row.gate for row in rows if row.state == UNOWNED),
            tuple(row.gate for row in rows if row.state == CONTESTED),
            self.warnings(rows, now),
            tuple(sorted(shared.counters.items())),
            shared.journal.told_seq,
            settings.journal_ms // DAY_MS,
        )

    def lot(self) -> Lot:
        """Spaces, cars and state. There must be a lot."""
        shared = self._shared
        record, stays = shared.replica.state.record, shared.replica.state.stays
        assert shared.lot is not None
        spaces, inside = record.spaces, stays.visible_count
        conflicts = tuple(sorted(stays.conflicts))
        return Lot(
            shared.lot.hex(),
            spaces,
            inside,
            spaces - inside,
            max(0, inside - spaces),
            record.state_word(inside),
            record.admission,
            conflicts,
            self._storage_warnings(),
            record.thresholds,
        )

    def vehicle_pages(self) -> Iterator[VehicleList]:
        """Every stay, in pages. A car that is inside throughout is there exactly once."""
        plates = self._shared.replica.state.stays.entry_plates()
        warnings = self._storage_warnings()
        for start in range(0, max(1, len(plates)), PAGE_ROWS):
            yield VehicleList(self.rows(plates[start : start + PAGE_ROWS]), warnings)

    def vehicle(self, text: str) -> Vehicle | Failure:
        """One plate."""
        plate = normalise_plate(text)
        if plate is None:
            return invalid_plate(text)
        rows = self.rows((plate,))
        return Vehicle(plate, bool(rows), rows, self._storage_warnings())

    def rows(self, plates: Sequence[str]) -> tuple[VehicleRow, ...]:
        """The stays of these plates that are inside.

        Written for a hundred thousand plates: the name of a replica is looked up once.
        """
        state = self._shared.replica.state
        visible = state.stays.visible
        names: dict[ReplicaId, str] = {}
        rows: list[VehicleRow] = []
        for plate in plates:
            shown = visible(plate)
            conflict = len(shown) > 1
            for stay in shown:
                origin = stay[1]
                if origin not in names:
                    names[origin] = state.record.name_of(origin)
                since_ms = stay_since_ms(stay)
                rows.append((plate, since_ms, stay[4], names[origin], origin, stay[0], conflict))
        return tuple(rows)

    def log_pages(self) -> Iterator[LogPage]:
        """The events still in the log, by time, in pages."""
        entries = list(self._shared.replica.log.entries())
        for start in range(0, max(1, len(entries)), PAGE_ROWS):
            page = entries[start : start + PAGE_ROWS]
            yield LogPage(tuple(_log_row(unpack_event_untrusted(*entry)) for entry in page))

    def members(self, now: Now) -> MemberList:
        """Itself first, then by name."""
        shared, settings = self._shared, self._shared.settings
        served = Counter(row.owner for row in self.gates(now)) if shared.has_lot else Counter()
        own = MemberRow(
            settings.name,
            ALIVE.value,
            shared.replica_id,
            shared.incarnation,
            shared.advertised,
            0.0,
            None,
            served[settings.name],
            settings.version,
        )
        others = (
            MemberRow(
                m.name,
                m.state.value,
                m.replica,
                m.incarnation,
                str(m.address),
                max(0, now.mono_ms - m.last_heard_ms) / 1000,
                None if m.state in GONE else m.rtt_ms,
                served[m.name],
                m.version,
                self._events_behind(m),
                None if m.synced_ms is None else max(0, now.mono_ms - m.synced_ms) / 1000,
            )
            for m in shared.members.all()
        )
        return MemberList((own, *others))

    def _events_behind(self, member: Member) -> int | None:
        state = self._shared.replica.state
        durable = state.roster.durable.get(member.replica)
        if durable is None:
            return None
        return sum(
            max(0, upto - durable.get(origin, 0)) for origin, upto in state.context.vector.items()
        )

    def gates(self, now: Now) -> tuple[GateRow, ...]:
        """Every gate, by number; none without a lot."""
        return self._gates.rows(now)

    def member_counts(self) -> dict[str, int]:
        """Members by state, itself among the living."""
        counts = Counter(m.state.value for m in self._shared.members.all())
        counts[ALIVE.value] += 1
        return {state.value: counts[state.value] for state in MemberState}

    def warnings(self, rows: tuple[GateRow, ...], now: Now) -> tuple[str, ...]:
        """What an operator should know, one line each. ``rows``: what `gates` says now."""
        shared = self._shared
        state = shared.replica.state
        lines = [*shared.warnings.values(), *shared.clock_warnings(now), *self._storage_warnings()]
        lines.extend(
            f"only this node does not hear {name}: the link from it is broken"
            for name in self._membership.unheard_here_only(now)
        )
        lines.extend(self._flapping(now))
        if shared.has_lot:
            lines.extend(self._gates.warnings(rows))
            excess = state.stays.visible_count - state.record.spaces
            if excess > 0:
                lines.append(f"overbooked by {excess}")
            if state.stays.conflicts:
                count = len(state.stays.conflicts)
                who = "1 plate is" if count == 1 else f"{count} plates are"
                lines.append(f"{who} inside more than once: see `conflicts`")
            lines.extend(self._raised())
            lines.extend(self._configured_otherwise())
        if state.stays.anomalies:
            lines.append(
                "entries and exits that did not see each other and lie within 2 s, so that their "
                f"order is a guess: {len(state.stays.anomalies)}"
            )
        if state.stays.mark_count >= BLOCKED_MARKS:
            lines.append(self._blocked())
        lines.extend(
            f"{state.record.name_of(fenced)} ({replica_hex(fenced)}) is fenced, not yet let go"
            for fenced in state.fenced_replicas()
        )
        return tuple(lines)

    def _flapping(self, now: Now) -> Iterator[str]:
        """Members that live and serve nothing, and why."""
        settings = self._shared.settings
        for member in self._shared.members.alive():
            if self._membership.is_flapping(member.name, now):
                yield (
                    f"{member.name} died {settings.flap_deaths} times within "
                    f"{settings.flap_window_ms // 1000} s: no gate is moved to it until "
                    f"{settings.flap_penalty_ms // 1000} s after the last time"
                )

    def _raised(self) -> Iterator[str]:
        """Gates that let every car in are easily forgotten."""
        record = self._shared.replica.state.record
        for gate in record.gates_in(OPEN):
            reason = record.mode_reason(gate)
            yield f"gate {gate} is held open{': ' if reason else ''}{reason}"

    def _configured_otherwise(self) -> Iterator[str]:
        """What the configuration says of the lot counts only when that is founded."""
        shared = self._shared
        if not shared.configured:
            return
        record, settings = shared.replica.state.record, shared.settings
        pairs: list[tuple[str, object, object]] = [
            ("spaces", record.spaces, settings.spaces),
            ("gates", record.gates, settings.gates),
            ("admission", record.admission, settings.admission),
            *zip(Thresholds._fields, record.thresholds, settings.thresholds, strict=True),
        ]
        for key, value, own in pairs:
            if key in shared.configured and value != own:
                yield f"{key} is {value} in the lot and {own} in this configuration"

    def _blocked(self) -> str:
        state = self._shared.replica.state
        roster = state.roster.members(state.context.vector, state.record.seals)
        live = {self._shared.replica_id, *(m.replica for m in self._shared.members.alive())}
        names = sorted({state.record.name_of(r) for r in roster if r not in live})
        waited = ", ".join(names) or "a member that is behind"
        return (
            f"{state.stays.mark_count} exits are kept until {waited} has seen them; "
            "`members forget` lets a lost one go"
        )

    def _storage_warnings(self) -> tuple[str, ...]:
        return (STORAGE_WARNING,) if self._shared.replica.failing else ()


def _log_row(event: Event) -> LogRow:
    kind = type(event.body).__name__.lower()
    plate: str | None = None
    gate: int | None = None
    detail: str | None = None
    match event.body:
        case Enter(plate=plate, gate=gate) | Exit(plate=plate, gate=gate):
            pass
        case Removal(plate=plate):
            pass
        case Correction(plate=plate, gate=gate, old_plate=old):
            detail = f"was {old}"
        case Join(name=name):
            detail = name
        case Found(spaces=spaces, gates=gates):
            detail = f"{spaces} spaces, {gates} gates"
        case Setting(key=key) if key in HELD_KEYS:
            what = "almost full" if key == HELD_KEYS[0] else "full"
            detail = f"the lot is {what}" if event.body.value else f"the lot is no longer {what}"
        case Setting(key=key, value=value, reason=reason, old=old):
            detail = f"{key} = {value}" if old is None else f"{key}: {old} -> {value}"
            detail += f" ({reason})" if reason else ""
        case Claim(gate=gate, owner=owner, epoch=epoch, target=target):
            to = "" if target is None else f", released to {target}"
            detail = f"{owner}, epoch {epoch}{to}"
        case Fence(replica=replica) | Seal(replica=replica):
            detail = replica_hex(replica)
        case _:
            pass
    return (event.origin, event.seq, event.time >> 16, kind, plate, gate, detail)
