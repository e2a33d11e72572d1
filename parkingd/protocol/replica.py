"""One node's copy of the lot with its log and its disk: minting, applying, what is durable.

How it works (DESIGN section 3, "What waits for the disk"). An own event is applied when it is
minted, so that the next decision sees it, but it is *shown* to nobody before `Persisted` covers
it: `shown_context` and every reply, delta, snapshot and head are cut at `durable_seq`. A remote
event is applied at once and goes to the disk with the next batch; the vector that a committed
batch covers is the durable vector that collection may rely on.

Everything that changed since the last `take_batch` is one `Persist`; batches commit first in,
first out, each with the context that covers it and the highest hybrid time seen.
"""

from __future__ import annotations

from collections import deque

from parkingd.core.causal import CausalContext
from parkingd.core.events import Body, Event, Seal, Setting
from parkingd.core.hybrid import physical_ms
from parkingd.core.ids import Dot, ReplicaId, Vector
from parkingd.core.records import Record
from parkingd.core.state import (
    Applied,
    LotState,
    add_record,
    covers_of,
    sealed_head,
    void_spans,
)
from parkingd.errors import WireError
from parkingd.protocol.codec import (
    pack_event,
    pack_record,
    pack_request,
    unpack_effects_untrusted,
    unpack_event_untrusted,
    unpack_rows_untrusted,
)
from parkingd.protocol.effects import Occurrence, Persist, StoredState
from parkingd.protocol.limits import INTERVALS_MAX, REQUEST_MEMORY_MS, RUN_BYTES_MAX
from parkingd.protocol.log import EventLog
from parkingd.protocol.messages import Run
from parkingd.protocol.meta import (
    META_CONTEXT,
    META_EARLY,
    META_FLOORS,
    META_HYBRID,
    META_JOIN_KNOWN,
    META_LOT,
    META_SMALL,
    PackedLot,
    load_meta,
    pack_early,
    pack_floors,
    pack_held,
    pack_id,
)
from parkingd.protocol.settings import NodeSettings


class Replica:
    """State, log and the watermark of the disk."""

    def __init__(self, settings: NodeSettings, stored: StoredState) -> None:
        self.settings = settings
        self.id: ReplicaId = stored.replica
        self.state = LotState(settings.ambiguous_ms)
        self.log = EventLog()
        self.own_seq = 0
        self.durable_seq = 0
        self.durable_vector: Vector = {}
        self.durable_token = 0
        self.failing = False
        """The last commit failed and has not succeeded since."""
        self.pending: dict[int, Record] = {}
        """Stays of a younger lot, still to be recorded anew in this one."""
        self.lot = stored.meta.get(META_LOT)
        """The lot whose dots these are: founded here, or met and joined."""
        self._lot_saved = self.lot
        self._runs: list[tuple[ReplicaId, int, bytes]] = []
        self._floors: dict[ReplicaId, int] = {}
        self._minted: list[Event] = []
        self._pending_done: list[int] = []
        self._token = 0
        self._in_flight: deque[tuple[int, Vector]] = deque()
        self._open_ended = False
        self._wipe = False
        self._has_joined = False
        self._early_saved: dict[Dot, None] | None = None
        """Dots that came before what they close, as they were last saved; None: not yet."""
        self._packed_lot = PackedLot()
        self.is_join_known = self._join_known_saved = False
        """A member has our join on disk, and we hold all that it held when it said so."""
        self._load(stored)

    # --- loading -------------------------------------------------------------------------

    def _load(self, stored: StoredState) -> None:
        """Rebuild from disk. Raises WireError if what is there is not what was written."""
        state = self.state
        load_meta(stored.meta, state, self.log)
        for run in stored.runs:
            for offset, packed in enumerate(run.events):
                self.log.add(run.origin, run.first + offset, packed)
        for record in unpack_rows_untrusted([packed for _, _, packed in stored.records]):
            add_record(state.stays, record, save=False)
        effects = unpack_effects_untrusted([packed for _, packed in stored.requests])
        requests = (request for request, _ in stored.requests)
        state.stays.requests.update(zip(requests, effects, strict=True))
        rows = unpack_rows_untrusted([packed for _, packed in stored.pending])
        self.pending.update(zip((number for number, _ in stored.pending), rows, strict=True))
        self.own_seq = self.durable_seq = state.context.highest(self.id)
        self.durable_vector = dict(state.context.vector)
        self._hear_own_disk()
        known = stored.meta.get(META_JOIN_KNOWN) == pack_id(self.id)
        self._join_known_saved = self.is_join_known = known or self.own_seq > 1
        state.record.changed = False
        state.has_voided_events = any(map(self._has_kept_void, state.record.seals.values()))

    def _has_kept_void(self, seal: Seal) -> bool:
        """Void dots count as received: only those above all, or in the log, were events here."""
        return self.state.context.highest(seal.replica) > sealed_head(seal) or any(
            self.log.span(seal.replica, seq, seq, RUN_BYTES_MAX)[0] is not None
            for first, last in void_spans(seal)
            for seq in range(first, last + 1)
        )

    def belong_to(self, lot: bytes) -> None:
        """From here on this replica mints in that lot."""
        assert self.lot is None
        self.lot = lot

    # --- minting and applying ------------------------------------------------------------

    def mint(self, body: Body, physical: int) -> Event:
        """Make, apply and queue for the disk one own event. ``physical``: wall milliseconds.

        One that takes the lot across a limit is followed by another that remembers it: see
        `registers`.
        """
        before = self.state.fullness()
        event = self._mint(body, physical)
        if self.state.fullness() != before or isinstance(body, Setting):
            for key, holds in self.state.forgotten_fullness(before):
                self._mint(Setting(key, int(holds), None), physical)
        return event

    def _mint(self, body: Body, physical: int) -> Event:
        state = self.state
        event = Event(self.id, self.own_seq + 1, state.clock.mint(physical), body)
        packed = pack_event(event)
        applied = state.apply(event)
        assert applied is Applied.NEW, f"own event {event.seq} was {applied.value}"
        self.own_seq = event.seq
        self.log.add(self.id, event.seq, packed)
        self._runs.append((self.id, event.seq, packed))
        self._minted.append(event)
        return event

    def apply_run(self, run: Run) -> list[Event]:
        """Apply what is new of a peer's run; returns those events.

        Raises:
            WireError: an event is not one; everything before it has been applied.
        """
        fresh: list[Event] = []
        origin = run.origin
        contains, holes = self.state.context.contains, self.state.context.intervals
        for seq, packed in enumerate(run.events, start=run.first):
            if contains(origin, seq):
                continue
            if origin in holes and self._is_one_hole_too_many(origin, seq):
                continue
            if origin == self.id:
                raise WireError("foreign_dot", "an event of this replica that it never made")
            event = unpack_event_untrusted(origin, seq, packed)
            applied = self.state.apply(event)
            if applied is Applied.FENCED:
                break
            self.log.add(origin, seq, packed)
            self._runs.append((origin, seq, packed))
            fresh.append(event)
        return fresh

    def _is_one_hole_too_many(self, origin: ReplicaId, seq: int) -> bool:
        """A context with more holes fits no message and could not be read back from the disk.

        What is not taken now comes again when the holes below it have been filled.
        """
        context = self.state.context
        held = context.intervals.get(origin, ())
        return len(held) >= INTERVALS_MAX and not context.contains(origin, seq - 1)

    # --- what others may see -------------------------------------------------------------

    def shown_context(self) -> CausalContext:
        """The context without own events that are not on disk yet."""
        if self.durable_seq == self.own_seq:
            return self.state.context
        context = self.state.context.copy()
        context.vector[self.id] = self.durable_seq
        return context

    def shown_root(self) -> bytes | None:
        """The root that belongs to `shown_context`, if this state is that."""
        return self.state.root() if self.durable_seq == self.own_seq else None

    def own_runs(self, first: int, last: int) -> list[Run]:
        """Own durable events as runs that fit a frame each."""
        assert last <= self.durable_seq
        runs = []
        while first <= last:
            run, _ = self.log.span(self.id, first, last, RUN_BYTES_MAX)
            if run is None:
                break  # Trimmed already: every disk of the roster has it.
            runs.append(run)
            first = run.last + 1
        return runs

    # --- the disk ------------------------------------------------------------------------

    def persisted(self, token: int, own_seq: int) -> None:
        """The batch with this token and all before it are on disk."""
        self.durable_seq = max(self.durable_seq, own_seq)
        self.durable_token = max(self.durable_token, token)
        while self._in_flight and self._in_flight[0][0] <= token:
            self.durable_vector = self._in_flight.popleft()[1]
        self._hear_own_disk()

    def _hear_own_disk(self) -> None:
        self.state.roster.heard(self.id, self.durable_vector)

    def housekeep(self) -> int:
        """Collect marks, forget old requests, trim the log. Returns marks collected."""
        state = self.state
        collected = state.collect()
        horizon = physical_ms(state.clock.last) - REQUEST_MEMORY_MS
        state.stays.forget_requests(max(0, horizon) << 16)
        if state.record.founding() is None:
            return collected  # A joiner: its join may be here only, whatever its roster says.
        if not self.log.count:
            return collected
        covered = state.roster.covered_by_all(state.context.vector, state.record.seals)
        for origin, upto in covered.items():
            self._trim(origin, upto)
        excess = self.log.count - self.settings.log_events_max
        if excess > 0:
            largest = max(self.log.origins(), key=lambda origin: (self.log.size(origin), origin))
            oldest = self.log.oldest(largest)
            assert oldest is not None
            upto = min(oldest + excess - 1, self.durable_vector.get(largest, 0))
            self._trim(largest, upto)
        return collected

    def _trim(self, origin: ReplicaId, upto: int) -> None:
        if self.log.raise_floor(origin, upto):
            self._floors[origin] = upto

    @property
    def is_settled(self) -> bool:
        """Everything applied is on disk."""
        return self.durable_token >= self.covering_token

    @property
    def covering_token(self) -> int:
        """Token of the batch that covers everything applied so far, taken or not."""
        journal = self.state.stays.journal
        waiting = self._runs or journal.records or journal.dropped or self.state.record.changed
        return self._token + 1 if waiting else self._token

    @property
    def is_founding_durable(self) -> bool:
        """The founding of the lot came from another disk, or is on this one."""
        founded = self.state.record.founding_dot()
        return founded is not None and (founded[0] != self.id or founded[1] <= self.durable_seq)

    @property
    def is_empty(self) -> bool:
        """Nothing of the lot is here but own events: a snapshot may be streamed into this."""
        return self.own_seq <= 1 and self.state.context.replicas() in ([], [self.id])

    def hold_commits(self) -> None:
        """A snapshot is being joined: nothing commits before `release_commits`."""
        self._open_ended = True

    def release_commits(self) -> None:
        """The snapshot is whole: the next batch commits all of it in one transaction."""
        self._open_ended = False
        self._has_joined = True

    def wipe(self) -> None:
        """A streamed snapshot broke off: back to nothing but the own events."""
        clock = self.state.clock
        joined = [e for e in self.state.record.events.values() if e.origin == self.id]
        self.state = LotState(self.settings.ambiguous_ms)
        self.state.clock = clock
        self.state.context.add_span(self.id, 1, self.own_seq)
        for event in joined:
            self.state.record.absorb(event)
        self._runs = [entry for entry in self.log.entries() if entry[0] == self.id]
        self._wipe, self._open_ended = True, False
        self._lot_saved = None
        self._hear_own_disk()

    def pending_recorded(self, number: int) -> None:
        """This pending stay has been minted anew, in the batch that is being collected."""
        del self.pending[number]
        self._pending_done.append(number)

    def closed_outside(self, context: CausalContext) -> set[Dot]:
        """What events that ``context`` lacks have closed; those are all in this log still."""
        closed: set[Dot] = set()
        for origin in self.state.context.replicas():
            for first, last in context.missing(self.state.context, origin):
                for seq in range(first, last + 1):
                    run, _ = self.log.span(origin, seq, seq, RUN_BYTES_MAX)
                    if run is not None:
                        closed.update(covers_of(unpack_event_untrusted(origin, seq, run.events[0])))
        return closed

    def raise_floors(self, context: CausalContext) -> None:
        """After a snapshot: its events are not in this log."""
        for origin in context.replicas():
            self._trim(origin, context.upto(origin))

    @property
    def has_minted(self) -> bool:
        """Own events were made since `take_minted`."""
        return bool(self._minted)

    def take_minted(self) -> list[Event]:
        """Own events made since this was last asked."""
        minted, self._minted = self._minted, []
        return minted

    @property
    def has_changed(self) -> bool:
        """There is something for the disk since the last batch."""
        state = self.state
        journal = state.stays.journal
        return bool(
            self._runs
            or journal.records
            or journal.dropped
            or journal.requests
            or journal.expired
            or state.record.changed
            or self._floors
            or self._pending_done
            or self._wipe
            or self._has_joined
            or self.is_join_known != self._join_known_saved
        )

    def take_batch(
        self, lines: tuple[Occurrence, ...] = (), forget_before: int | None = None
    ) -> Persist:
        """Everything that changed since the last batch.

        ``lines``: what the journal has to say of it. ``forget_before``: see `Persist`.
        """
        journal = self.state.stays.journal
        self._token += 1
        batch = Persist(
            wipe=self._wipe,
            open_ended=self._open_ended,
            runs=_as_runs(self._runs),
            floors=tuple(self._floors.items()),
            records=tuple([(r[1], r[0], pack_record(r)) for r in journal.records]),
            dropped=tuple(journal.dropped),
            requests=tuple([(request, pack_request(e)) for request, e in journal.requests]),
            expired=tuple(journal.expired),
            journal=lines,
            journal_before=forget_before,
            pending_done=tuple(self._pending_done),
            meta=() if self._open_ended else self._meta(),
            own_seq=self.own_seq,
            token=self._token,
        )
        self._wipe = self._has_joined = False
        self._runs, self._floors, self._pending_done = [], {}, []
        journal.records, journal.dropped, journal.requests, journal.expired = [], {}, [], []
        if not self._open_ended:
            self._in_flight.append((self._token, dict(self.state.context.vector)))
            self.state.record.changed = False
        return batch

    def _meta(self) -> tuple[tuple[str, bytes], ...]:
        state = self.state
        meta = [
            (META_CONTEXT, pack_held(state.context)),
            (META_HYBRID, state.clock.last.to_bytes(8, "big")),
        ]
        if self._early_saved != state.stays.early:
            self._early_saved = dict(state.stays.early)
            meta.append((META_EARLY, pack_early(state.stays.early)))
        if self.lot is not None and self._lot_saved != self.lot:
            meta.append((META_LOT, self.lot))
            self._lot_saved = self.lot
        if self.is_join_known and not self._join_known_saved:
            self._join_known_saved = True
            meta.append((META_JOIN_KNOWN, pack_id(self.id)))
        if self._floors:
            meta.append((META_FLOORS, pack_floors(self.log.floors())))
        if state.record.changed:
            meta.append((META_SMALL, self._packed_lot.pack(state.record)))
        return tuple(meta)


def _as_runs(events: list[tuple[ReplicaId, int, bytes]]) -> tuple[Run, ...]:
    """Consecutive events of one origin become one run, in order of arrival."""
    if len(events) == 1:
        origin, first, alone = events[0]
        return (Run(origin, first, (alone,)),)
    runs: list[Run] = []
    origin, first, packed = 0, 0, list[bytes]()
    for event_origin, seq, event in events:
        if packed and event_origin == origin and seq == first + len(packed):
            packed.append(event)
            continue
        if packed:
            runs.append(Run(origin, first, tuple(packed)))
        origin, first, packed = event_origin, seq, [event]
    if packed:
        runs.append(Run(origin, first, tuple(packed)))
    return tuple(runs)
