"""What the parts of one node share: identity, replica, members, dice, counters and outbox."""

from __future__ import annotations

from collections import Counter
from random import Random

from parkingd.core.causal import CausalContext, Part
from parkingd.core.hybrid import believed_wall_ms, deviating
from parkingd.core.ids import Now, ReplicaId
from parkingd.protocol.effects import Level, StartOver, StartOverReason
from parkingd.protocol.journal import Journal
from parkingd.protocol.members import Member, Members
from parkingd.protocol.messages import ContextWire, Refused, let_go
from parkingd.protocol.outbox import Outbox, Replies
from parkingd.protocol.replica import Replica
from parkingd.protocol.settings import NodeSettings


class Shared:
    """One per node."""

    def __init__(
        self,
        settings: NodeSettings,
        replica: Replica,
        incarnation: int,
        rng: Random,
        journal_seq: int = 0,
    ) -> None:
        """``journal_seq``: the greatest number in the journal on disk."""
        self.settings = settings
        self.replica = replica
        self.incarnation = incarnation
        self.rng = rng
        self.members = Members()
        self.outbox = Outbox()
        self.journal = Journal(replica, settings.name, journal_seq, self.physical_ms)
        self.replies = Replies(replica, self.outbox)
        self.counters: Counter[str] = Counter()
        self.warnings: dict[str, str] = {}
        """What an operator should know, by topic; the latest text of each."""
        self.clock_is_own = True
        self.advertised: str | None = None
        self.configured: frozenset[str] = frozenset()
        self.name_refusals: dict[str, int] = {}
        """Who holds another node for the one of our name, or is that node itself; and when it last
        said so, in monotonic milliseconds."""
        self._nonce = 0

    @property
    def replica_id(self) -> ReplicaId:
        """Who mints here."""
        return self.replica.id

    @property
    def lot(self) -> bytes | None:
        """The lot this node belongs to; None until it has founded or met one."""
        return self.replica.lot

    @property
    def shown_lot(self) -> bytes | None:
        """The lot to tell others: not one whose founding could still be lost with a crash."""
        replica = self.replica
        if replica.lot is None or replica.durable_seq == 0:
            return None
        return replica.lot

    @property
    def has_lot(self) -> bool:
        """The lot is not only named: its founding has arrived."""
        replica = self.replica
        return replica.lot is not None and replica.state.record.founding() is not None

    @property
    def is_namesake(self) -> bool:
        """Another node has this name, and others hold to that one: this one may not serve gates."""
        return bool(self.name_refusals)

    def next_nonce(self) -> int:
        """Tells answers apart; only this node reads it."""
        self._nonce += 1
        return self._nonce

    def physical_ms(self, now: Now) -> int:
        """Wall milliseconds for a new hybrid time: the own clock unless it deviates."""
        offsets = [m.clock_offset_ms for m in self.members.alive()]
        believed, self.clock_is_own = believed_wall_ms(
            now.wall_ms, now.mono_ms, offsets, self.settings.clock_spread_ms_max
        )
        return max(0, believed)

    def clock_warnings(self, now: Now) -> list[str]:
        """One line per node whose wall clock is too far off the others'."""
        own_ms, spread_ms_max = now.wall_ms - now.mono_ms, self.settings.clock_spread_ms_max
        alive = self.members.alive()
        if all(2 * abs(m.clock_offset_ms - own_ms) <= spread_ms_max for m in alive):
            return []  # As nearly always: no two are further apart than that.
        offsets = {m.name: m.clock_offset_ms for m in alive}
        offsets[self.settings.name] = own_ms
        found = deviating(offsets, spread_ms_max)
        return [f"clock {name} {round(ms / 1000):+d} s" for name, ms in sorted(found.items())]

    def peers_in_lot(self) -> list[Member]:
        """Live members of the own lot, by name: those with whom state is exchanged."""
        lot = self.replica.lot
        return [m for m in self.members.alive() if lot is not None and m.lot == lot]

    def compare_own_head(self, name: str, theirs: CausalContext) -> None:
        """A peer that holds later events of ours than our disk: the disk is an old copy."""
        held, own = theirs.highest(self.replica_id), self.replica.own_seq
        if held > own:
            self.outbox.notice(Level.WARNING, "own_events_unknown", member=name, held=held, own=own)
            self.outbox.end = StartOver(StartOverReason.DOTS_SEEN_ELSEWHERE, keep=True)

    def context_wire(self) -> ContextWire:
        """What this node shows to hold."""
        return to_wire(self.replica.shown_context())

    def refusal(self, replica: ReplicaId) -> Refused:
        """For a replica that was let go, or is to begin anew as another was: with what is recorded
        here, so that it offers for review only what it alone has."""
        seals = self.replica.state.record.seals
        parts: dict[ReplicaId, Part] = {
            **{origin: (origin, upto, ()) for origin, upto in self.replica.durable_vector.items()},
            **{origin: (origin, it.upto, it.intervals) for origin, it in seals.items()},
        }
        return let_go(replica, tuple(parts[origin] for origin in sorted(parts)))


def to_wire(context: CausalContext) -> ContextWire:
    """A context as messages carry it."""
    return tuple(context.parts())


def from_wire(wire: ContextWire) -> CausalContext:
    """A context from a decoded, hence valid, message."""
    return CausalContext.from_parts(wire)
