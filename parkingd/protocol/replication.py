"""Replication: push with gap repair, and anti-entropy.

How it works (DESIGN section 5). The origin publishes its own events in order as soon as they are
durable. Heartbeats carry its head. A gap below, or a head above, what is held is asked for after
20-50 ms, of the origin if it lives, else of anybody. Every two seconds one random member is
asked for everything missing with one `Pull` that names what is held; its `PullReply` brings the
events and what *it* holds, and what it misses goes straight back: one round trip.

A receiver adds to its context only the dots it was given, never the vector that came along. The
vectors serve three other purposes: what to send back, what the peer's disk covers (collection),
and, when they are equal, whether the roots are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from parkingd.core.causal import CausalContext
from parkingd.core.events import Event
from parkingd.core.ids import Now, ReplicaId
from parkingd.errors import WireError
from parkingd.protocol.effects import Level
from parkingd.protocol.limits import RUN_BYTES_MAX
from parkingd.protocol.members import Member
from parkingd.protocol.messages import (
    ContextWire,
    Delta,
    Pull,
    PullReply,
    Route,
    Run,
    Sender,
    Want,
)
from parkingd.protocol.shared import Shared, from_wire, to_wire

BACK_FRAMES_MAX: Final = 4
"""Deltas sent back after one pull reply; the rest comes with the peer's own pull."""

GAP_TRIES_MAX: Final = 4
"""Gap requests for one origin in a row; after that anti-entropy has to find it."""

JOIN_SYNC_MS: Final = 100
"""Between exchanges of a joiner until one was full, and as long as its join is on no other disk:
until then it mints nothing."""

OTHERS_MAX: Final = 3
"""Members asked for what the log of one does not have; each may send as much as a frame holds."""

SPANS_MAX: Final = 32
"""Holes named in one gap request."""


class Gap:
    """What is known to be missing of one origin, and when to ask for it."""

    __slots__ = ("due_ms", "head", "tries")

    def __init__(self, due_ms: int, head: int) -> None:
        self.due_ms = due_ms
        self.head = head
        self.tries = 0


@dataclass(slots=True)
class ShortLog:
    """The log of a member does not reach us, and others are asked whether theirs does."""

    member: str
    since_ms: int
    asked: set[str]
    """Who has not answered yet."""


class Replication:
    """Push, gap requests and anti-entropy of one node."""

    def __init__(
        self,
        shared: Shared,
        *,
        applied: Callable[[list[Event], Now], None],
        behind: Callable[[Member, Now], None],
        agreed: Callable[[CausalContext, Now], None],
        diverged: Callable[[Member, Now], None],
    ) -> None:
        """``behind``: this member's log no longer reaches us. ``agreed``: a full exchange ended,
        and this is what the member's disk held. ``diverged``: equal contexts, unequal roots."""
        self._shared = shared
        self._applied = applied
        self._behind = behind
        self._agreed = agreed
        self._diverged = diverged
        self.is_paused = False
        """While a snapshot is being joined nothing else is."""
        self.full_exchanges = 0
        self._published = shared.replica.durable_seq
        self._gaps: dict[ReplicaId, Gap] = {}
        self._pulls: dict[int, tuple[str, int]] = {}
        self._short_log: ShortLog | None = None
        self._joined_nonce = 0
        """Who answers a pull up to this one tells how far behind we were before a snapshot."""
        self._next_sync_ms: int | None = None
        self._soon: dict[str, None] = {}
        self._differing: set[str] = set()
        """Members whose root differed at an equal context, and has not been found equal since."""

    # --- push ----------------------------------------------------------------------------

    def publish_durable(self) -> None:
        """Publish own events that have reached the disk since the last time."""
        replica = self._shared.replica
        if replica.durable_seq > self._published:
            for run in replica.own_runs(self._published + 1, replica.durable_seq):
                self._shared.outbox.publish(Delta((run,)))
            self._published = replica.durable_seq

    def receive_delta(self, delta: Delta, now: Now) -> None:
        """Events, pushed or sent as a repair."""
        if self.is_paused:
            return
        if self._shared.replica.is_empty and not self.full_exchanges:
            return  # The first exchange will tell whether a snapshot can be streamed instead.
        self.take(delta.runs, now)

    def take(self, runs: Iterable[Run], now: Now) -> int:
        """Apply what is new; returns how many events that were."""
        shared = self._shared
        count = 0
        for run in runs:
            try:
                fresh = shared.replica.apply_run(run)
            except WireError as error:
                shared.counters[f"refused_{error.reason}"] += 1
                continue
            count += len(fresh)
            if fresh:
                self._applied(fresh, now)
            self._look_for_gap(run.origin, run.last, now)
        shared.counters["events_received"] += count
        return count

    # --- gaps ----------------------------------------------------------------------------

    def heard_head(self, origin: ReplicaId, head: int, now: Now) -> bool:
        """A heartbeat says how far this origin has come; True if that is news."""
        if head <= self._shared.replica.state.context.vector.get(origin, 0) or self.is_paused:
            return False
        self._look_for_gap(origin, head, now)
        return True

    def _look_for_gap(self, origin: ReplicaId, head: int, now: Now) -> None:
        context = self._shared.replica.state.context
        if context.upto(origin) >= head and origin not in context.intervals:
            self._gaps.pop(origin, None)
            return
        if origin == self._shared.replica_id or self._shared.replica.state.is_barred(origin, head):
            return
        gap = self._gaps.get(origin)
        if gap is None:
            settings = self._shared.settings
            wait = self._shared.rng.randint(settings.gap_wait_ms_min, settings.gap_wait_ms_max)
            self._gaps[origin] = Gap(now.mono_ms + wait, head)
        else:
            gap.head = max(gap.head, head)

    def _ask_for_gaps(self, now: Now) -> None:
        shared = self._shared
        context = shared.replica.state.context
        for origin, gap in list(self._gaps.items()):
            if now.mono_ms < gap.due_ms:
                continue
            spans = context.gaps(origin)
            highest = context.highest(origin)
            if gap.head > highest:
                spans.append((highest + 1, gap.head))
            if not spans or gap.tries >= GAP_TRIES_MAX:
                del self._gaps[origin]
                continue
            member = shared.members.of_replica(origin)
            peers = shared.peers_in_lot()
            if (member is None or member not in peers or gap.tries >= 2) and peers:
                member = shared.rng.choice(peers)
            gap.tries += 1
            gap.due_ms = now.mono_ms + shared.settings.request_timeout_ms // 2
            if member is not None:
                shared.counters["gap_requests"] += 1
                want = Want(tuple((origin, *span) for span in spans[:SPANS_MAX]))
                shared.outbox.send(member.address, want)

    def receive_want(self, sender: Sender, want: Want) -> None:
        """A peer names holes: fill what fits into one frame."""
        replica = self._shared.replica
        runs: list[Run] = []
        left = RUN_BYTES_MAX
        for origin, first, last in want.spans:
            if origin == replica.id:
                last = min(last, replica.durable_seq)
            run, size = replica.log.span(origin, first, last, left)
            left -= size
            if run is not None:
                runs.append(run)
        if runs and sender.link is not None:
            self._shared.outbox.send(sender.link, Delta(tuple(runs)))

    # --- anti-entropy --------------------------------------------------------------------

    def pull_soon(self, member: Member) -> None:
        """Exchange with this member at the next tick."""
        self._soon[member.name] = None

    def pull(self, member: Member, now: Now) -> None:
        """Start one exchange."""
        shared = self._shared
        if shared.lot is None or self.is_paused:
            return
        nonce = shared.next_nonce()
        self._pulls[nonce] = (member.name, now.mono_ms)
        shared.outbox.send(
            member.address,
            Pull(nonce, shared.lot, shared.context_wire(), self._durable_wire(), self._root()),
        )

    def _durable_wire(self) -> ContextWire | None:
        replica = self._shared.replica
        if replica.durable_vector == replica.shown_context().vector:
            return None
        return to_wire(CausalContext(dict(replica.durable_vector)))

    def _root(self) -> bytes | None:
        replica = self._shared.replica
        return None if replica.state.context.has_intervals() else replica.shown_root()

    def receive_pull(self, sender: Sender, pull: Pull, now: Now) -> None:
        """A peer wants what it lacks."""
        shared = self._shared
        if shared.lot is None or pull.lot != shared.lot or not isinstance(sender.link, Route):
            return
        theirs = from_wire(pull.context)
        if shared.replica.state.is_voided(theirs):
            shared.outbox.send(sender.link, shared.refusal(sender.replica))
            return
        self._heard_context(sender, theirs, pull.durable)
        self._heard_held(sender, theirs, pull.root)
        shown = shared.replica.shown_context()
        runs: tuple[Run, ...] = ()
        more = behind = False
        if not self.is_paused:
            runs, more, behind = shared.replica.log.missing_runs(shown, theirs, RUN_BYTES_MAX)
        shared.counters["pulls_answered"] += 1
        shared.outbox.send(
            sender.link,
            PullReply(
                pull.nonce,
                shared.lot,
                runs,
                more or behind,
                behind,
                to_wire(shown),
                self._durable_wire(),
                self._root(),
            ),
        )

    def receive_reply(self, sender: Sender, reply: PullReply, now: Now) -> None:
        """The answer to a pull: take it, send back what the peer lacks."""
        shared = self._shared
        asked = self._pulls.pop(reply.nonce, None)
        member = shared.members.get(sender.name)
        if asked is None or member is None or reply.lot != shared.lot:
            shared.counters["answers_unasked"] += 1
            return
        member.rtt_ms = float(now.mono_ms - asked[1])
        theirs = from_wire(reply.context)
        self._heard_context(sender, theirs, reply.durable)
        self._heard_held(sender, theirs, reply.root)
        if self.is_paused:
            return
        if reply.behind and shared.replica.is_empty:
            self._behind(member, now)
            return
        fresh = self.take(reply.runs, now)
        context = shared.replica.state.context
        is_behind = reply.behind and not context.covers(theirs)
        if is_behind and reply.nonce > self._joined_nonce:
            self._fell_short(member, theirs, now)
        elif is_behind or (reply.more and fresh):
            self.pull_soon(member)
        else:
            self._looked(member)
        # Our join is on some disk: whoever lacks it has not got the record itself yet.
        is_joiner = shared.replica.is_join_known and not theirs.contains(shared.replica_id, 1)
        if context.covers(theirs) and not is_joiner:
            self.full_exchanges += 1
            member.synced_ms = now.mono_ms
            # What a member holds in memory only, a crash would let it forget.
            self._agreed(theirs if reply.durable is None else from_wire(reply.durable), now)
            if not shared.replica.is_join_known and self._next_sync_ms is not None:
                self._next_sync_ms = min(self._next_sync_ms, now.mono_ms + JOIN_SYNC_MS)
        self._send_back(member, theirs, now)
        self._compare_roots(member, theirs, reply, now)

    def _fell_short(self, member: Member, theirs: CausalContext, now: Now) -> None:
        """Its log does not reach us, as that of one who has just joined. That of another may, and
        that of the origin first: a snapshot is taken when none of those who were asked could help,
        or one has not said so in time."""
        if self._short_log is None:
            context = self._shared.replica.state.context
            others = [m for m in self._shared.peers_in_lot() if m is not member]
            others.sort(key=lambda m: not context.missing(theirs, m.replica))
            del others[OTHERS_MAX:]
            self._short_log = ShortLog(member.name, now.mono_ms, {m.name for m in others})
            for other in others:
                self.pull_soon(other)
        short = self._short_log
        short.asked.discard(member.name)
        is_late = now.mono_ms - short.since_ms >= self._shared.settings.request_timeout_ms
        if is_late or not short.asked:
            self._short_log = None
            self._behind(member, now)

    def _looked(self, member: Member) -> None:
        """It had what we lacked of it: if it was the last to be asked, the first is asked again."""
        short = self._short_log
        if short is None:
            return
        if member.name == short.member:
            self._short_log = None
        elif member.name in short.asked:
            short.asked.discard(member.name)
            first = self._shared.members.get(short.member)
            if first is not None and not short.asked:
                self.pull_soon(first)

    def _send_back(self, member: Member, theirs: CausalContext, now: Now) -> None:
        replica = self._shared.replica
        held = theirs
        for _ in range(BACK_FRAMES_MAX):
            runs, more, _ = replica.log.missing_runs(replica.shown_context(), held, RUN_BYTES_MAX)
            if runs:
                self._shared.outbox.send(member.address, Delta(runs))
            if not (runs and more):
                return
            held = held.copy()
            for run in runs:
                held.add_span(run.origin, run.first, run.last)
        self.pull_soon(member)

    def _compare_roots(
        self, member: Member, theirs: CausalContext, reply: PullReply, now: Now
    ) -> None:
        own = self._root()
        if own is None or reply.root is None or theirs.has_intervals():
            return
        if theirs != self._shared.replica.state.context:
            return
        if reply.root != own:
            self._diverged(member, now)
        elif member.name in self._differing:
            self._differing.discard(member.name)
            if not self._differing:
                self._shared.warnings.pop("diverged", None)

    def _heard_held(self, sender: Sender, theirs: CausalContext, root: bytes | None) -> None:
        """What it holds of ours: said with a root, as then ``theirs`` names all that it made."""
        member = self._shared.members.get(sender.name)
        if member is not None and root is not None:
            held, head = theirs.upto(self._shared.replica_id), theirs.upto(sender.replica)
            member.says_held = (held, head)

    def _heard_context(
        self, sender: Sender, theirs: CausalContext, durable: ContextWire | None
    ) -> None:
        self._shared.compare_own_head(sender.name, theirs)
        roster = self._shared.replica.state.roster
        vector = theirs.vector if durable is None else {origin: upto for origin, upto, _ in durable}
        roster.heard(sender.replica, vector)
        # An id that has minted nothing yet, not even its join, may never do so.
        unnamed = theirs.vector.keys() - roster.named.keys()
        if unnamed:
            roster.name(origin for origin in unnamed if theirs.highest(origin))

    # --- time ----------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Ask for gaps; exchange with whoever is due."""
        shared, settings = self._shared, self._shared.settings
        if self._pulls:
            timeout = now.mono_ms - settings.request_timeout_ms
            for nonce in [n for n, (_, asked_ms) in self._pulls.items() if asked_ms < timeout]:
                del self._pulls[nonce]
                shared.counters["pulls_unanswered"] += 1
        if self.is_paused or shared.lot is None:
            return
        if self._gaps:
            self._ask_for_gaps(now)
        if self._soon:
            self._pull_asked(now)
        if self._next_sync_ms is None or now.mono_ms >= self._next_sync_ms:
            jitter = shared.rng.uniform(0.8, 1.2)
            peers = shared.peers_in_lot()
            wait_ms = settings.sync_ms
            if self.full_exchanges and shared.replica.is_join_known:
                # It is begun with a heartbeat: on average half the pause between two later.
                wait_ms -= settings.heartbeat_ms // 2
            elif peers and not self.full_exchanges:
                wait_ms = min(wait_ms, JOIN_SYNC_MS)
            self._next_sync_ms = now.mono_ms + round(wait_ms * jitter)
            if peers:
                self.pull(shared.rng.choice(peers), now)

    def _pull_asked(self, now: Now) -> None:
        if not self.full_exchanges:
            # This one may be refused: a member hears of our lot a moment after we do.
            self._next_sync_ms = now.mono_ms + JOIN_SYNC_MS
        soon, self._soon = self._soon, {}
        for name in soon:
            member = self._shared.members.get(name)
            if member is not None and member.lot == self._shared.lot:
                self.pull(member, now)

    def next_deadline(self, now_ms: int) -> int | None:
        """When `tick` has something to do that cannot wait for the next heartbeat."""
        if self.is_paused or self._shared.lot is None:
            return None
        if self._soon or self._next_sync_ms is None:
            return now_ms
        is_joined = self.full_exchanges and self._shared.replica.is_join_known
        due_ms = None if is_joined else self._next_sync_ms
        if self._gaps:
            first_ms = min(gap.due_ms for gap in self._gaps.values())
            due_ms = first_ms if due_ms is None else min(due_ms, first_ms)
        return due_ms

    def snapshot_joined(self) -> None:
        """What was asked before was asked by one who lacked more."""
        self._joined_nonce = self._shared.next_nonce()

    def forget_pulls(self) -> None:
        """Answers on their way are old: none of them counts."""
        self._pulls.clear()

    @property
    def is_complete(self) -> bool:
        """Nothing is known to be missing."""
        context = self._shared.replica.state.context
        if self._gaps or context.has_intervals():
            return False
        return all(
            m.head <= context.upto(m.replica)
            or m.replica in self._shared.replica.state.record.fences
            for m in self._shared.peers_in_lot()
        )

    def note_divergence(self, member: Member) -> None:
        """Equal contexts and unequal roots: somebody's state is damaged."""
        self._shared.counters["divergences"] += 1
        self._differing.add(member.name)
        self._shared.warnings.setdefault(
            "diverged",
            f"this node and {member.name} have seen the same events and differ: "
            "a copy is damaged and is being repaired from the majority",
        )
        self._shared.outbox.notice(Level.ERROR, "replicas_differ", member=member.name)
