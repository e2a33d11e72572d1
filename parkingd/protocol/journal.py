"""The journal: what happened, with who, where, when and why, as this node saw it.

How it works. Every event that is applied here, own or not, every change of a member, every car
that is denied and every warning that begins or ends becomes one occurrence with a number that only
grows. The occurrences of a turn travel in the same `Persist` as the events they tell of, so that
the disk has both or neither, and they are told to whoever watches when that is on disk: nobody
hears of something that a crash could undo, and after a restart the numbers go on where they were.

An occurrence that tells of a replicated event carries its dot: whoever follows several nodes knows
by it that two lines are one event. A snapshot brings no events, only what became of them: it is
one occurrence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from parkingd.core.events import (
    FLAG_ADMITTED,
    FLAG_IMPORTED,
    FLAG_MERGED,
    MATCHED_CONFLICT,
    MATCHED_NONE,
    Body,
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
from parkingd.core.ids import HybridTime, Now, ReplicaId, replica_hex
from parkingd.core.registers import HELD_KEYS
from parkingd.protocol.effects import Detail, Occurrence
from parkingd.protocol.members import Member
from parkingd.protocol.replica import Replica

AHEAD_MS_MAX: Final = 60_000
"""An event that says to be made later than this from now was made by a wrong clock: its line has
the time at which it came. Else it would outlive the time for which lines are kept."""

_FOUNDED_KEYS: Final = ("spaces", "gates", "admission")
"""Settings that a lot has from its founding on."""

_ENTERED_FLAGS: Final = FLAG_MERGED | FLAG_IMPORTED | FLAG_ADMITTED


def _entered(flags: int) -> tuple[str, Detail]:
    """Type of a stay with these flags, and how it came."""
    if flags & FLAG_MERGED:
        return "entered", (("by", "merge"),)
    if flags & FLAG_IMPORTED:
        return "entered", (("by", "import"),)
    if flags & FLAG_ADMITTED:
        return "admitted", ()
    return "entered", (("by", "track"),)


_ENTERED: Final = tuple(_entered(flags) for flags in range(_ENTERED_FLAGS + 1))


class Journal:
    """The occurrences of one node on their way to the disk and to those who watch."""

    def __init__(
        self, replica: Replica, own: str, last_seq: int, wall_ms: Callable[[Now], int]
    ) -> None:
        """``own``: this node. ``last_seq``: the greatest number on its disk, 0 if there is none.
        ``wall_ms``: the time that is believed."""
        self._replica = replica
        self._own = own
        self.used_seq = last_seq
        """The greatest number, on disk or not."""
        self._wall_ms = wall_ms
        self._new: list[Occurrence] = []
        self._forget_before: int | None = None
        self._in_flight: deque[tuple[int, tuple[Occurrence, ...]]] = deque()
        self._conflicts = set(replica.state.stays.conflicts)
        self._is_overbooked = self._excess() > 0
        self._settings: dict[str, tuple[HybridTime, ReplicaId, int | str]] = {}
        self._look_at_settings()
        self.told_seq = last_seq
        """The greatest number that is on disk."""

    # --- what happens --------------------------------------------------------------------

    def note(
        self,
        type_: str,
        now: Now,
        *,
        plate: str | None = None,
        gate: int | None = None,
        reason: str | None = None,
        request: bytes | None = None,
        detail: Detail = (),
    ) -> None:
        """This node noticed something that is no event."""
        at_ms, own = self._wall_ms(now), self._replica.id
        self.used_seq += 1
        self._new.append(
            Occurrence(
                self.used_seq,
                at_ms,
                type_,
                plate,
                gate,
                self._own,
                own,
                None,
                reason,
                request,
                detail,
            )
        )

    def note_denied(
        self, plate: str | None, gate: int, reason: str, request: bytes, now: Now
    ) -> None:
        """A car may not enter; None: what was read is no plate."""
        self.note("denied", now, plate=plate, gate=gate, reason=reason, request=request)

    def note_member(
        self, type_: str, member: Member, now: Now, reason: str | None = None, detail: Detail = ()
    ) -> None:
        """Something is new about a member."""
        at_ms, name, replica = self._wall_ms(now), member.name, member.replica
        self.used_seq = seq = self.used_seq + 1
        self._new.append(
            Occurrence(seq, at_ms, type_, None, None, name, replica, None, reason, None, detail)
        )

    def events(self, events: Sequence[Event], now: Now) -> None:
        """These events have been applied here."""
        if not events:
            return
        wall_ms = self._wall_ms(now)
        latest_ms = wall_ms + AHEAD_MS_MAX
        name_of = self._replica.state.record.name_of
        before, name = None, ""
        add, make, number = self._new.append, Occurrence._make, self.used_seq
        for origin, seq, time, body in events:
            if origin != before:
                before, name = origin, name_of(origin)
            type_, plate, gate, request, detail = _told(body, time)
            if type_ == "lot_founded":
                self._look_at_settings(is_early=True)
            elif type_ == "setting":
                detail = self._change(origin, time, body)
            at_ms = time >> 16
            if at_ms > latest_ms:
                at_ms = wall_ms
            number += 1
            reason = body.reason or None if isinstance(body, Setting) else None
            what = (number, at_ms, type_, plate, gate, name, origin, seq, reason, request, detail)
            add(make(what))
        self.used_seq = number
        self._look_at_cars(now)

    def joined(self, member: Member, now: Now) -> None:
        """A snapshot of this member has become part of the state."""
        inside = self._replica.state.stays.visible_count
        self.note_member("snapshot_joined", member, now, detail=(("inside", inside),))
        self._look_at_settings()
        self._look_at_cars(now)

    def _change(self, origin: ReplicaId, time: HybridTime, body: Body) -> Detail:
        """What a setting was and is. One that comes late changes nothing: a later one holds."""
        assert isinstance(body, Setting)
        held = self._settings.get(body.key)
        here = None if held is None else held[2]
        if held is not None and (time, origin) < held[:2]:
            return (("key", body.key), ("new", body.value), ("superseded_by", here))
        self._settings[body.key] = (time, origin, body.value)
        old = here if body.old is None else body.old
        return (("key", body.key), ("old", old), ("new", body.value))

    def _look_at_settings(self, *, is_early: bool = False) -> None:
        """``is_early``: only at the founding; what was changed since is told on its own."""
        record = self._replica.state.record
        found = record.founding()
        if found is not None:
            values: tuple[int | str, ...] = (found.spaces, found.gates, found.admission)
            for key, value in zip(_FOUNDED_KEYS, values, strict=True):
                self._settings.setdefault(key, (0, 0, value))
        for event in record.events.values():
            if isinstance(event.body, Setting) and not is_early:
                self._settings[event.body.key] = (event.time, event.origin, event.body.value)

    def _excess(self) -> int:
        """So many cars more than spaces."""
        state = self._replica.state
        if state.record.founding() is None:
            return 0
        return state.stays.visible_count - state.record.spaces

    def _look_at_cars(self, now: Now) -> None:
        """Conflicts and overbooking that have begun or ended."""
        stays = self._replica.state.stays
        conflicts = stays.conflicts.keys()
        if conflicts != self._conflicts:
            for plate in sorted(conflicts - self._conflicts):
                count = len(stays.visible(plate))
                self.note("conflict", now, plate=plate, detail=(("stays", count),))
            for plate in sorted(self._conflicts - conflicts):
                self.note("conflict_settled", now, plate=plate)
            self._conflicts = set(conflicts)
        excess = self._excess()
        if self._is_overbooked != (excess > 0):
            self._is_overbooked = excess > 0
            spaces = self._replica.state.record.spaces
            detail = (("inside", stays.visible_count), ("spaces", spaces))
            self.note("overbooked" if excess > 0 else "overbooking_ended", now, detail=detail)

    # --- to the disk and out -------------------------------------------------------------

    def forget(self, before_ms: int) -> None:
        """Lines from before this wall time go with the next batch."""
        self._forget_before = before_ms

    @property
    def has_news(self) -> bool:
        """There is something for the disk."""
        return bool(self._new) or self._forget_before is not None

    def take(self) -> tuple[tuple[Occurrence, ...], int | None]:
        """What goes to the disk with the batch that is being made, and what may go from it."""
        lines, before_ms = tuple(self._new), self._forget_before
        self._new, self._forget_before = [], None
        return lines, before_ms

    def submitted(self, token: int, lines: tuple[Occurrence, ...]) -> None:
        """They travel in the batch with this token."""
        if lines:
            self._in_flight.append((token, lines))

    def persisted(self, token: int) -> list[Occurrence]:
        """What may be told now that this batch, and all before it, are on the disk."""
        told: list[Occurrence] = []
        while self._in_flight and self._in_flight[0][0] <= token:
            told += self._in_flight.popleft()[1]
        if told:
            self.told_seq = told[-1].seq
        return told


_Told: TypeAlias = tuple[str, str | None, int | None, bytes | None, Detail]


def _told(body: Body, time: HybridTime) -> _Told:  # noqa: C901 - one arm per kind
    """Type, plate, gate, request and the rest of what an event says."""
    detail: Detail
    if isinstance(body, Enter):  # nine of ten events
        plate, gate, cause, _, _, _, flags = body
        word, detail = _ENTERED[flags & _ENTERED_FLAGS]
        return word, plate, gate, cause, detail
    match body:
        case Exit(plate=plate, gate=gate, request=request, matched=matched, since=since):
            if matched == MATCHED_NONE:
                return "unmatched_exit", plate, gate, request, ()
            stay_s = None if since is None else max(0, (time >> 16) - since) // 1000
            word = "conflict" if matched == MATCHED_CONFLICT else "exact"
            return "exited", plate, gate, request, (("matched", word), ("stay_s", stay_s))
        case Removal(plate=plate, request=request, covers=covers):
            return "removed", plate, None, request, (("closed", len(covers)),)
        case Correction(plate=plate, gate=gate, request=request, old_plate=old):
            return "corrected", plate, gate, request, (("was", old),)
        case Claim(gate=gate, epoch=epoch, owner=owner, target=None):
            return "gate_claimed", None, gate, None, (("owner", owner), ("epoch", epoch))
        case Claim(gate=gate, epoch=epoch, owner=owner, target=target):
            detail = (("owner", owner), ("epoch", epoch), ("target", target))
            return "gate_released", None, gate, None, detail
        case Setting(key=key, value=value) if key in HELD_KEYS:
            word = "almost_full" if key == HELD_KEYS[0] else "full"
            return (f"lot_{word}" if value else f"lot_{word}_ended"), None, None, None, ()
        case Setting(request=request):
            return "setting", None, None, request, ()
        case Found(spaces=spaces, gates=gates, admission=admission):
            detail = (("spaces", spaces), ("gates", gates), ("admission", admission))
            return "lot_founded", None, None, None, detail
        case Join(ephemeral=ephemeral):
            return "replica_joined", None, None, None, (("ephemeral", ephemeral),)
        case Fence(replica=replica):
            return "replica_fenced", None, None, None, (("fenced", replica_hex(replica)),)
        case Seal(replica=replica):
            return "replica_forgotten", None, None, None, (("forgotten", replica_hex(replica)),)
        case other:
            return type(other).__name__.lower(), None, None, None, ()
