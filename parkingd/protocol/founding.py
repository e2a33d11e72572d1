"""Lots: founding one, joining one, and the meeting of two.

A lot is one dot space. A node without one waits until its sockets are bound and every discovery
source has ended its first round, then a little longer; if it meets a lot it joins that, else,
among the lotless nodes that see each other, the lowest replica id founds. When two lots meet the
one founded earlier stays (lot ids sort by founding): a node of the other sets its database aside,
takes a new replica id and records its live stays anew with their causes, so that many nodes may
do so and no car counts twice.

A replica mints nothing but its join before a member's disk has that: else others could collect a
mark that this replica has never seen.
"""

from __future__ import annotations

from typing import cast

from parkingd.core.events import FLAG_MERGED, Enter, Found, Join, Setting
from parkingd.core.ids import Now
from parkingd.core.lot import lot_id
from parkingd.core.records import Stay
from parkingd.core.registers import DEFAULT_THRESHOLDS, THRESHOLD_KEYS
from parkingd.core.stays import stay_cause, stay_since_ms
from parkingd.protocol.codec import pack_record
from parkingd.protocol.effects import Level, StartOver, StartOverReason
from parkingd.protocol.facts import DiscoveryReady
from parkingd.protocol.limits import IMPORT_ROWS_MAX
from parkingd.protocol.messages import Hello, Sender
from parkingd.protocol.shared import Shared

HANDSHAKE_WAIT_FACTOR = 2
"""A candidate in handshake delays the founding by at most this many windows in all."""


class Founding:
    """Whether this node has a lot, and whether it may mint in it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._ready_ms: int | None = None
        self._window_ms = 0
        self.founded_here = False
        """The founder has nobody to exchange with before it may serve."""
        self._orphan_ms: int | None = None

    def discovery_ready(self, fact: DiscoveryReady, now: Now) -> None:
        """The clock of the founding window starts."""
        settings = self._shared.settings
        if self._ready_ms is None:
            self._ready_ms = now.mono_ms
            self._window_ms = settings.founding_patient_ms if fact.patient else settings.founding_ms

    # --- meeting -------------------------------------------------------------------------

    def meet(self, sender: Sender, hello: Hello, now: Now) -> bool:
        """Compare lots with a node that says hello; False: it will come again as another."""
        shared = self._shared
        own, theirs = shared.lot, hello.lot
        if theirs is None or own == theirs or not hello.founded:
            return True
        if own is None:
            self._join(theirs, now)
            return True
        if not shared.has_lot:
            if theirs < own:
                self._leave_lot(StartOverReason.ORPHANED)
            return own < theirs  # Its record may still come; `orphan_ms` is the limit.
        if own < theirs:
            shared.outbox.notice(Level.INFO, "younger_lot_met", member=sender.name)
            return True
        if shared.outbox.end is not None:
            return False  # It goes already, and may go for good.
        shared.outbox.notice(
            Level.WARNING,
            "older_lot_met",
            member=sender.name,
            lot=theirs.hex(),
            cars=shared.replica.state.stays.visible_count,
        )
        self._leave_lot(StartOverReason.OLDER_LOT)
        return False

    def _leave_lot(self, reason: StartOverReason) -> None:
        """Begin anew without a lot; the live stays come along."""
        replica = self._shared.replica
        live = (*replica.state.stays.all_visible(), *replica.pending.values())
        pending = tuple(pack_record(stay) for stay in live)
        self._shared.outbox.end = StartOver(reason, keep=False, pending=pending)

    def _join(self, lot: bytes, now: Now) -> None:
        shared = self._shared
        shared.replica.belong_to(lot)
        shared.outbox.notice(Level.INFO, "lot_joined", lot=lot.hex())
        self._mint_join(now)

    def _mint_join(self, now: Now) -> None:
        shared, settings = self._shared, self._shared.settings
        if shared.replica.own_seq == 0:
            join = Join(settings.name, settings.ephemeral)
            shared.replica.mint(join, shared.physical_ms(now))

    # --- time ----------------------------------------------------------------------------

    def tick(self, now: Now, *, is_receiving: bool) -> None:
        """Found a lot when the window has passed; mint the join of a new id; give up a lot of
        which nobody brings the record."""
        shared = self._shared
        if shared.lot is not None:
            self._mint_join(now)
            if shared.has_lot or is_receiving or self._ready_ms is None:
                self._orphan_ms = None
            elif self._orphan_ms is None:
                self._orphan_ms = now.mono_ms
            elif now.mono_ms - self._orphan_ms >= shared.settings.orphan_ms:
                self._leave_lot(StartOverReason.ORPHANED)
            return
        if self._ready_ms is None or now.mono_ms < self._ready_ms + self._window_ms:
            return
        if shared.is_namesake:
            return  # It may not stay at all.
        lotless = [m.replica for m in shared.members.alive() if m.lot is None]
        if any(replica < shared.replica_id for replica in lotless):
            return
        self._found(now)

    def wait_for_handshake(self, now: Now) -> None:
        """A candidate may be about to answer: give it until the end of another window."""
        if self._ready_ms is not None and self._shared.lot is None:
            latest = self._ready_ms + HANDSHAKE_WAIT_FACTOR * self._window_ms
            if self._ready_ms + self._window_ms <= now.mono_ms < latest:
                self._window_ms = now.mono_ms - self._ready_ms + 100

    def next_deadline(self, now_ms: int) -> int | None:
        """When the window ends, or the next look at who should found."""
        if self._shared.lot is not None or self._ready_ms is None:
            return None
        return max(self._ready_ms + self._window_ms, now_ms + 100)

    def _found(self, now: Now) -> None:
        shared, settings = self._shared, self._shared.settings
        physical = shared.physical_ms(now)
        lot = lot_id(physical << 16, shared.replica_id)
        shared.replica.belong_to(lot)
        self._mint_join(now)
        found = Found(lot, settings.spaces, settings.gates, settings.admission)
        shared.replica.mint(found, physical)
        pairs = zip(THRESHOLD_KEYS, settings.thresholds, DEFAULT_THRESHOLDS, strict=True)
        for key, percent, default in pairs:
            if percent != default:
                shared.replica.mint(Setting(key, percent, None, "founded"), physical)
        self.founded_here = True
        shared.outbox.notice(
            Level.INFO, "lot_founded", lot=lot.hex(), spaces=settings.spaces, gates=settings.gates
        )

    # --- may this replica mint? ----------------------------------------------------------

    def may_mint(self, now: Now, *, own_seq_asked: bool) -> bool:
        """Whether own events may be made: see the module text.

        ``own_seq_asked``: a member has said how many of our events it holds, and it was no more
        than ours. Without one a restarted node waits `amnesia_check_ms` for it.
        """
        shared = self._shared
        if not shared.has_lot:
            return False
        if self.founded_here:
            return True
        waited = self.has_waited(now)
        if not own_seq_asked and not waited:
            return False
        return shared.replica.is_join_known or (waited and self._is_alone_for_ever())

    def has_waited(self, now: Now) -> bool:
        """Whoever is there has had the time to answer."""
        wait_ms = self._shared.settings.amnesia_check_ms
        return self._ready_ms is not None and now.mono_ms >= self._ready_ms + wait_ms

    def mint_deadline(self, now_ms: int) -> int | None:
        """When `may_mint` may change by itself."""
        if self._ready_ms is None:
            return None
        at = self._ready_ms + self._shared.settings.amnesia_check_ms
        return at if at > now_ms else now_ms + 250

    def _is_alone_for_ever(self) -> bool:
        """Every replica of the roster was this very node: there is nobody else to tell."""
        record = self._shared.replica.state.record
        vector = self._shared.replica.state.context.vector
        name = self._shared.settings.name
        named = self._shared.replica.state.roster.members(vector, record.seals)
        return all(record.name_of(replica) == name for replica in named)

    # --- stays of a younger lot ----------------------------------------------------------

    def record_pending(self, now: Now) -> int:
        """Record stays of a lot that was left, at most one import's worth; returns how many."""
        shared = self._shared
        replica, state = shared.replica, shared.replica.state
        recorded = 0
        for number, record in list(replica.pending.items())[:IMPORT_ROWS_MAX]:
            stay = cast(Stay, record)
            cause = stay_cause(stay)
            has_left = state.stays.latest_mark_time(stay[3]) >> 16 > stay_since_ms(stay)
            is_known = state.context.contains(stay[1], stay[0])  # It came from this very lot.
            if state.stays.request_effect(cause) is None and not has_left and not is_known:
                extra = stay[6]
                raw = extra[0] if extra is not None else None
                body = Enter(stay[3], stay[4], cause, (), raw, stay_since_ms(stay), FLAG_MERGED)
                replica.mint(body, shared.physical_ms(now))
                recorded += 1
            replica.pending_recorded(number)
        return recorded
