"""The replicated state of one lot: context, stays and small record, joined event by event.

`apply` is the delta join: it adds to the context exactly the dot of the event it was given,
never a vector (merging a full context with a part of the entries is how the Elixir library loses
data). `join_snapshot_*` is the causal join with a frozen state: the only place where a whole
context is merged, after all of its entries (DESIGN section 5.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from enum import Enum
from hashlib import blake2b

from parkingd.core.causal import CausalContext
from parkingd.core.events import (
    MATCHED_NONE,
    Correction,
    Enter,
    Event,
    Exit,
    Fence,
    Removal,
    Seal,
    Setting,
)
from parkingd.core.hybrid import HybridClock
from parkingd.core.ids import Dot, HybridTime, ReplicaId, dot_cause
from parkingd.core.lot import LotRecord
from parkingd.core.records import Record, Stay
from parkingd.core.registers import HELD_KEYS
from parkingd.core.roster import Roster
from parkingd.core.stays import (
    FLAGS_ALONE,
    VERB_CORRECT,
    VERB_EXIT,
    VERB_REMOVE,
    VERB_SET,
    Stays,
)


class Applied(Enum):
    """What became of an event."""

    NEW = "new"
    KNOWN = "known"
    FENCED = "fenced"
    """Its replica is being forgotten: nothing new is taken from it, whoever brings it."""


def stay_of(event: Event) -> Stay | None:
    """The stay that an enter or a correction creates."""
    origin, seq, time, body = event
    if isinstance(body, Enter):  # nine of ten events
        plate, gate, cause, _, raw, since, flags = body
        extra = (raw, since, flags) if flags or since is not None or raw is not None else None
        return (seq, origin, time, plate, gate, cause, FLAGS_ALONE.get(extra, extra))
    if isinstance(body, Correction):
        extra = (body.raw, body.since, body.flags)
        return (seq, origin, time, body.plate, body.gate, body.cause, extra)
    return None


class LotState:
    """One replica's copy of the lot."""

    def __init__(self, ambiguous_ms: int = 2_000) -> None:
        self.context = CausalContext()
        self.clock = HybridClock()
        self.stays = Stays(ambiguous_ms)
        self.record = LotRecord()
        self.roster = Roster()
        self.expected: dict[ReplicaId, Seal] = {}
        """Seals about to be minted here: what they will name is let through the fence."""
        self.has_voided_events = False
        """A seal has declared events void that are part of this state: it cannot be mended."""
        self._root = b""
        self._root_of: tuple[int, bytes] | None = None
        """What `_root` is the hash of: the sum of the stays, and the digest of the rest."""

    # --- events --------------------------------------------------------------------------

    def apply(self, event: Event) -> Applied:
        """Join one event. Applying it again changes nothing."""
        origin, seq, time, body = event
        if self.context.contains(origin, seq):
            return Applied.KNOWN
        if (self.record.fences or self.record.seals) and self.is_barred(origin, seq):
            return Applied.FENCED
        self.clock.merge(time)
        self.context.add(origin, seq)
        stays = self.stays
        covered = stays.early.pop((origin, seq), 0) is None if stays.early else False
        match body:
            case Enter(plate=plate, covers=covers):
                if covers:
                    self._cover(plate, covers)
                self._enter(event, covered)
            case Exit():
                self._exit(event, body, covered)
            case Removal(plate=plate, covers=covers, request=request):
                self._cover(plate, covers)
                self._remember(event, request, VERB_REMOVE, plate)
            case Correction(old_plate=old_plate, covers=covers, request=request, plate=plate):
                self._cover(old_plate, covers)
                self._enter(event, covered)
                self._remember(event, request, VERB_CORRECT, plate)
            case Setting(request=request, key=key):
                self.record.absorb(event)
                self._remember(event, request, VERB_SET, key.upper())
            case Seal() as seal:
                self._seal(event, seal)
            case _:
                self.record.absorb(event)
        return Applied.NEW

    def _cover(self, plate: str, covers: Iterable[Dot]) -> None:
        if self.record.seals:  # A void dot will never arrive: it must not be waited for.
            covers = [dot for dot in covers if self.exists(*dot)]
        self.stays.cover(plate, covers, self.context)

    def _enter(self, event: Event, covered: bool) -> None:
        stay = stay_of(event)
        assert stay is not None
        if not covered:
            self.stays.add_stay(stay)
        else:
            self.stays.remember_record(stay)

    def _exit(self, event: Event, body: Exit, covered: bool) -> None:
        origin, seq, time, _ = event
        plate, gate, request, covers, causes, matched, since, _ = body
        self._cover(plate, covers)
        stays = self.stays
        if not covered:
            stays.add_mark((seq, origin, time, plate, gate, request, causes, matched, since))
        if request is None and matched == MATCHED_NONE:
            request = dot_cause((origin, seq))  # Else it would leave with its mark.
        if request is not None:
            stays.remember(request, (time, VERB_EXIT, plate, origin, seq, gate, matched, since))

    def _remember(self, event: Event, request: bytes | None, verb: int, plate: str) -> None:
        if request is not None:
            self.stays.remember(
                request, (event.time, verb, plate, event.origin, event.seq, 0, 0, None)
            )

    def _seal(self, event: Event, seal: Seal) -> None:
        if seal.replica not in self.record.seals:
            self.has_voided_events |= holds_void(self.context, seal)
        elif self.context.highest(seal.replica) > sealed_head(seal):
            self.has_voided_events = True  # A second seal took back what we did receive.
        self.record.absorb(event)
        self._void(self.record.seals[seal.replica])

    # --- fences and seals ----------------------------------------------------------------

    def is_barred(self, origin: ReplicaId, seq: int) -> bool:
        """Whether a new event of this dot must be refused: fenced and not (yet) let through."""
        if origin not in self.record.fences and origin not in self.record.seals:
            return False
        seal = self.record.seals.get(origin) or self.expected.get(origin)
        return seal is None or not sealed_in(seal, seq)

    def sealed_heads(self) -> dict[ReplicaId, int]:
        """The highest seq that exists of each sealed replica."""
        return {replica: sealed_head(seal) for replica, seal in self.record.seals.items()}

    def _void(self, seal: Seal) -> None:
        """What nobody holds of a sealed replica counts as received and leaves `early`."""
        for first, last in void_spans(seal):
            self.context.add_span(seal.replica, first, last)
        head = sealed_head(seal)
        for dot in [d for d in self.stays.early if d[0] == seal.replica]:
            if dot[1] > head or not sealed_in(seal, dot[1]):
                del self.stays.early[dot]

    def exists(self, origin: ReplicaId, seq: int) -> bool:
        """Whether no seal known here says otherwise."""
        seal = self.record.seals.get(origin)
        return seal is None or sealed_in(seal, seq)

    def is_voided(self, context: CausalContext) -> bool:
        """Whether a peer with this context holds events that a seal known here declared void.

        It cannot know that seal: who does counts the void dots as received.
        """
        for event in self.record.seal_events() if self.record.seals else ():
            assert isinstance(event.body, Seal)
            known = context.contains(event.origin, event.seq)
            if not known and holds_void(context, event.body):
                return True
        return False

    def fenced_replicas(self) -> list[ReplicaId]:
        """Fenced and not yet sealed, ascending."""
        if not self.record.fences:
            return []
        return sorted(r for r in self.record.fences if r not in self.record.seals)

    def incomplete_seals(self) -> list[ReplicaId]:
        """Sealed replicas of which something that the seal names has not arrived, ascending."""
        upto = self.context.upto
        return sorted([r for r, seal in self.record.seals.items() if upto(r) < sealed_head(seal)])

    def fence_event(self, replica: ReplicaId) -> Event | None:
        """The fence of this replica, if there is one."""
        event = self.record.fences.get(replica)
        return event if event is not None and isinstance(event.body, Fence) else None

    # --- how full ------------------------------------------------------------------------

    def fullness(self) -> tuple[bool, bool]:
        """Whether the lot is almost full, and whether it is full."""
        return self.record.fullness(self.stays.visible_count)

    def forgotten_fullness(self, before: tuple[bool, bool]) -> list[tuple[str, bool]]:
        """Registers that must be written so that this state remembers what was ``before``.

        A state that ends where it begins needs no memory.
        """
        inside = self.stays.visible_count
        registers = zip(HELD_KEYS, self.record.bands, self.record.held, before, strict=True)
        return [
            (key, band.holds(inside, was))
            for key, band, held, was in registers
            if band.clear < band.at and band.holds(inside, was) != held
        ]

    # --- collection and root -------------------------------------------------------------

    def collect(self) -> int:
        """Drop the marks that every disk of the roster holds; returns how many."""
        if not self.stays.mark_count:
            return 0
        stable = self.roster.collectable(self.context.vector, self.sealed_heads())
        return self.stays.collect(stable) if stable else 0

    def root(self) -> bytes:
        """16 bytes: hash of live stays, founding, settings and greatest claims."""
        of = self.stays.stays_sum, self.record.digest()
        if self._root_of != of:
            self._root_of = of
            self._root = blake2b(of[0].to_bytes(16, "big") + of[1], digest_size=16).digest()
        return self._root

    # --- snapshots -----------------------------------------------------------------------

    def join_records(self, records: Iterable[Record]) -> None:
        """First step of the causal join: take the records that are news here.

        A record is news when its dot is neither in the own context (a dot known and not kept was
        closed here) nor early. Of one that is early its request is.
        """
        stays = self.stays
        context, early = self.context, stays.early
        for record in records:
            dot = (record[1], record[0])
            if dot in early:
                stays.remember_record(record)
            elif not context.contains(dot[0], dot[1]):
                add_record(stays, record)

    def drop_closed(
        self,
        records: Iterable[Record],
        context: CausalContext,
        early: Mapping[Dot, None],
        sent: Set[Dot],
    ) -> None:
        """Second step: of these own records, drop what the sender has seen closed.

        live = (L1 & L2 | L1 - C | L2 - ctx) - early1 - early2
        """
        for record in records:
            dot = (record[1], record[0])
            if dot in early or (dot not in sent and context.contains(dot[0], dot[1])):
                self.stays.drop(record[3], dot)

    def drop_damaged(
        self, records: Iterable[Record], context: CausalContext, sent: Mapping[Dot, Record]
    ) -> None:
        """A repair takes the sender's word for what lies in ``context``, instead of the first two
        steps: of these own records, forget what it holds otherwise, and what nobody ever minted.
        """
        for record in records:
            dot = (record[1], record[0])
            if context.contains(*dot):
                is_sound = sent.get(dot) == record
            else:
                is_sound = self.context.contains(*dot)
            if not is_sound:
                self.stays.discard(record)

    def restore(self, records: Iterable[Record], closed: Set[Dot]) -> None:
        """And take what is not kept, but for what was ``closed`` by events outside its context."""
        stays = self.stays
        for record in records:
            dot = (record[1], record[0])
            if dot in closed or dot in stays.early:
                stays.remember_record(record)
            elif not stays.has(record[3], dot):
                stays.restore(record)

    def join_context(
        self,
        context: CausalContext,
        early: Iterable[Dot],
        hybrid_high: HybridTime,
        small: Iterable[Event],
    ) -> None:
        """Last step: ctx |= C; early = (early1 | early2) - ctx; and all that is small."""
        stays = self.stays
        small = list(small)
        news = [e.body for e in small if isinstance(e.body, Seal)]
        news = [seal for seal in news if seal.replica not in self.record.seals]
        self.has_voided_events |= any(holds_void(self.context, seal) for seal in news)
        self.context.join(context)
        for dot in (*stays.early, *early):
            if self.context.contains(dot[0], dot[1]):
                stays.early.pop(dot, None)
            else:
                stays.early[dot] = None
        self.clock.merge(hybrid_high)
        for event in small:
            self.record.absorb(event)
        for seal in self.record.seals.values():
            self._void(seal)
        self.roster.name(origin for origin in context.replicas() if context.highest(origin))


def add_record(stays: Stays, record: Record, *, save: bool = True) -> None:
    """Insert a stay or a mark as it is."""
    if len(record) == 7:  # A mark has more fields: that is how the two are told apart.
        stays.add_stay(record, save=save)
    else:
        stays.add_mark(record, save=save)


def covers_of(event: Event) -> tuple[Dot, ...]:
    """The dots that this event closes."""
    match event.body:
        case Enter(covers=covers) | Exit(covers=covers) | Removal(covers=covers):
            return covers
        case Correction(covers=covers):
            return covers
        case _:
            return ()


def sealed_head(seal: Seal) -> int:
    """The highest seq that exists."""
    return seal.intervals[-1][1] if seal.intervals else seal.upto


def sealed_in(seal: Seal, seq: int) -> bool:
    """Whether the dot exists."""
    return seq <= seal.upto or any(first <= seq <= last for first, last in seal.intervals)


def void_spans(seal: Seal) -> list[tuple[int, int]]:
    """The holes below the sealed head: nobody holds these."""
    spans = []
    first = seal.upto + 1
    for start, last in seal.intervals:
        spans.append((first, start - 1))
        first = last + 1
    return spans


def holds_void(context: CausalContext, seal: Seal) -> bool:
    """Whether a context that does not know the seal holds what it declares void."""
    if context.highest(seal.replica) > sealed_head(seal):
        return True
    return any(
        context.contains(seal.replica, seq)
        for first, last in void_spans(seal)
        for seq in range(first, last + 1)
    )
