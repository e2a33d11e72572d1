"""The node: a deterministic machine with six verbs, the only thing that adapters know.

    receive(sender, message, now)              a decoded, validated message from a peer
    submit(handle, command, deadline_ms, now)  a request from the control socket
    observe(fact, now)                         the disk, discovery and links report
    tick(now)                                  time passed
    next_deadline()                            when `tick` wants to be called, monotonic ms
    take_effects()                             what has to happen (see `effects`)

No verb blocks, reads a clock or throws for anything a peer can do. Work per call is bounded: long
answers and snapshot joins go slice by slice, one `tick` each. The same object runs in the daemon
and in the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, assert_never

from parkingd.core.causal import CausalContext
from parkingd.core.events import FLAG_MERGED, Claim, Enter, Event
from parkingd.core.ids import Now, ReplicaId
from parkingd.core.state import LotState
from parkingd.protocol.admission import Admission
from parkingd.protocol.claims import Claims
from parkingd.protocol.commands import (
    AskToEnter,
    Command,
    Leave,
    ReadCandidates,
    ReadMembers,
    ReadStatus,
    WaitFor,
)
from parkingd.protocol.effects import Effects, Level, Persist, StartOver, StoredState
from parkingd.protocol.entering import Entering
from parkingd.protocol.facts import (
    Candidate,
    ConnectionFailed,
    DiscoveryReady,
    Fact,
    LinkFailure,
    LookUp,
    Persisted,
    StorageFailed,
    StorageRecovered,
)
from parkingd.protocol.forgetting import Fences
from parkingd.protocol.founding import Founding
from parkingd.protocol.gate_rows import GateRows
from parkingd.protocol.gates import Gates
from parkingd.protocol.intake import Intake
from parkingd.protocol.leaving import Leaving
from parkingd.protocol.lookout import Lookout
from parkingd.protocol.members import ALIVE, DEAD, LEFT, Member, MemberState
from parkingd.protocol.membership import Membership
from parkingd.protocol.messages import (
    Delta,
    EnterAnswer,
    EnterAsk,
    FenceReport,
    Goodbye,
    Heartbeat,
    Hello,
    Message,
    Pull,
    PullReply,
    Refused,
    RootAnswer,
    RootQuery,
    Route,
    Sender,
    SnapshotAbort,
    SnapshotAck,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
    Want,
)
from parkingd.protocol.outbox import NOTHING
from parkingd.protocol.pausing import Pausing
from parkingd.protocol.peering import Peering
from parkingd.protocol.pulse import Pulse
from parkingd.protocol.replica import Replica
from parkingd.protocol.replication import Replication
from parkingd.protocol.reports import Reports
from parkingd.protocol.retiring import Retiring
from parkingd.protocol.roots import Roots
from parkingd.protocol.settings import NodeSettings
from parkingd.protocol.shared import Shared
from parkingd.protocol.snapshots import Snapshots
from parkingd.protocol.waits import Waits

HOUSEKEEPING_MS: Final = 1_000
"""Collection, trimming and forgetting: each is cheap when there is nothing to do."""

LOTS_MERGED: Final = (
    "lots_merged: two lots have met, and the cars of the younger one were recorded anew in this one"
)
"""On the nodes of both: whoever looks at either should know."""


class Node:
    """One node of a cluster."""

    def __init__(
        self,
        settings: NodeSettings,
        stored: StoredState,
        *,
        now: Now,
        seed: int,
        advertised: str | None = None,
        configured: frozenset[str] = frozenset(),
        retired: tuple[ReplicaId, ...] = (),
        orphaned: tuple[ReplicaId, ...] = (),
    ) -> None:
        """``advertised``: own address for people. ``configured``: the founding values that were
        given rather than defaulted; a lot that differs from those is worth a warning.
        ``retired``: ids that this process minted under and gave up; nobody need wait for them.
        ``orphaned``: of these, who joined a lot and was never answered: members may have heard of
        them though no event of theirs is known here."""
        self.settings = settings
        replica = Replica(settings, stored)
        self._shared = shared = Shared(
            settings, replica, stored.incarnation, Random(seed), stored.journal_seq
        )
        shared.advertised, shared.configured = advertised, configured
        self._now = now
        for number, warning in enumerate(stored.warnings):
            shared.warnings[f"store_{number}"] = warning
        self._founding = Founding(shared)
        self._membership = Membership(shared, now)
        self._claims = Claims(shared, self._membership)
        self._gates = Gates(shared, self._membership, self._claims, self._may_claim)
        gate_rows = GateRows(shared, self._claims, self._gates)
        self._fences = Fences(shared, flush=self._pull_all)
        self._peering = Peering(
            shared,
            meet=self._founding.meet,
            admitted=self._membership.admitted,
            joined=self._member_joined,
            let_go=self._fences.start_over,
        )
        self._replication = Replication(
            shared,
            applied=self._events_applied,
            behind=self._fell_behind,
            agreed=self._exchange_agreed,
            diverged=self._replicas_differ,
        )
        self._snapshots = Snapshots(shared, pause=self._pause, joined=self._snapshot_ended)
        self._pausing = Pausing(
            shared, self._membership, self._gates, self._replication, flush=self._pull_all
        )
        self._leaving = Leaving(shared, self._replication, self._gates)
        self._pulse = Pulse(shared, self._membership, self._claims, self._gates, self._leaving, now)
        self._retiring = Retiring(
            shared, self._fences, self._may_let_go, retired=retired, orphaned=orphaned, now=now
        )
        self._admission = Admission(shared, self._replication.pull, self._gates.claimants)
        self._entering = Entering(shared, self._gates, self._admission, self._may_mint)
        self._reports = Reports(shared, self._membership, gate_rows, now)
        self._lookout = Lookout(shared, self._reports, now)
        self._roots = Roots(shared)
        self._intake = Intake(
            shared,
            fences=self._fences,
            leaving=self._leaving,
            reports=self._reports,
            roots=self._roots,
            snapshots=self._snapshots,
            may_mint=self._may_mint,
        )
        self._waits = Waits(shared, gate_rows, self.is_synced, self.is_ready)
        peers: tuple[Callable[[int], int | None], ...] = (
            self._peering.table.next_deadline,
            self._membership.next_deadline,
            self._replication.next_deadline,
        )
        self._calm_deadlines = (*peers, self._gates.next_deadline, self._fences.next_deadline)
        """All there are while `_is_occupied` says no."""
        self._joining_deadlines = (
            *peers,
            self._entering.next_deadline,
            self._snapshots.next_deadline,
            self._leaving.next_deadline,
            self._roots.next_deadline,
            self._waits.next_deadline,
            self._founding.next_deadline,
            self._intake.next_deadline,
            self._mint_deadline,
        )
        """Gates and fences rest while a snapshot is joined."""
        self._deadlines = (
            *self._joining_deadlines,
            self._gates.next_deadline,
            self._fences.next_deadline,
        )
        self._behind_of: str | None = None
        self._next_housekeeping_ms = now.mono_ms + HOUSEKEEPING_MS
        self._discovered = False
        self._has_said_goodbye = False
        self._due_ms = now.mono_ms
        self._is_due_known = False
        self._is_eventful = True
        """Since the effects were last taken, more has come than heartbeats with nothing new."""
        self._lot_told = self._lot_shown()
        self._fences.loaded()

    # --- inspection ----------------------------------------------------------------------

    @property
    def state(self) -> LotState:
        """The replicated state; read only."""
        return self._shared.replica.state

    @property
    def lot(self) -> bytes | None:
        """The lot this node belongs to."""
        return self._shared.lot

    @property
    def replica_id(self) -> ReplicaId:
        """Who mints here."""
        return self._shared.replica_id

    @property
    def own_seq(self) -> int:
        """Own head, on disk or not."""
        return self._shared.replica.own_seq

    @property
    def durable_seq(self) -> int:
        """Own head on disk."""
        return self._shared.replica.durable_seq

    @property
    def journal_seq(self) -> int:
        """The greatest number used in the journal, on disk or not."""
        return self._shared.journal.used_seq

    @property
    def counters(self) -> dict[str, int]:
        """What has happened how often."""
        return self._shared.counters

    @property
    def members(self) -> tuple[Member, ...]:
        """The table; read only."""
        return self._shared.members.all()

    def is_synced(self) -> bool:
        """One full exchange since start (or alone after discovery) and nothing known missing.

        Full: each had what the other had, our join on the member's disk included.
        """
        return self._has_caught_up() and self._replication.is_complete

    def _has_caught_up(self) -> bool:
        """What the others had when they first answered is here."""
        shared = self._shared
        if not shared.has_lot or self._snapshots.is_receiving or shared.replica.pending:
            return False
        exchanged = self._replication.full_exchanges and shared.replica.is_join_known
        if shared.peers_in_lot() and not exchanged:
            return False
        return self._discovered

    def is_ready(self) -> bool:
        """Discovery has ended a round, and the node has caught up or nobody answered; not leaving.

        What it misses later makes it unready no more: the only one that has it may have died.
        """
        alone = self._discovered and not self._shared.members.alive()
        ready = self._has_caught_up() or (alone and self._shared.lot is not None)
        return ready and not self._leaving.is_leaving and not self._snapshots.is_joining

    @property
    def is_leaving(self) -> bool:
        """No more writes are taken; the way out has begun."""
        return self._leaving.is_leaving

    # --- receive -------------------------------------------------------------------------

    def receive(self, sender: Sender, message: Message, now: Now) -> None:  # noqa: C901 - one arm per kind
        """A decoded, validated message. Never throws for what it says."""
        self._begin(now)
        if not isinstance(message, Heartbeat):
            self._is_due_known = False
            self._is_eventful = True
            if isinstance(message, Hello):
                self._peering.receive_hello(sender, message, now)
                return
            if isinstance(message, Refused):
                self._peering.receive_refused(sender, message, now)
                return
        shared = self._shared
        if sender.replica in shared.replica.state.record.fences:
            if isinstance(sender.link, Route):
                self._is_eventful = True
                shared.outbox.send(sender.link, shared.refusal(sender.replica))
            return
        member = shared.members.hear(sender, now)
        if member is None:
            self._is_eventful = True
            self._from_stranger(sender, message, now)
            return
        match message:
            case Heartbeat():
                self._heartbeat(member, message, now)
            case Goodbye():
                if member.state is not LEFT:
                    self._shared.journal.note_member("member_left", member, now)
                member.state, member.final_seq = LEFT, message.final_seq
                member.gates = None
                self._gates.look_soon()
                self._peering.table.look_soon()
                self._shared.outbox.notice(Level.INFO, "member_left", member=member.name)
            case _ if member.lot is None or member.lot != self.lot:
                self._shared.counters["refused_other_lot"] += 1
            case Delta():
                self._replication.receive_delta(message, now)
            case Pull():
                self._replication.receive_pull(sender, message, now)
                self._entering.has_news = True
            case PullReply():
                self._replication.receive_reply(sender, message, now)
                self._entering.has_news = True
            case Want():
                self._replication.receive_want(sender, message)
            case SnapshotRequest():
                self._snapshots.server.receive_request(sender, message, now)
            case SnapshotHeader():
                self._snapshots.receive_header(sender, message, now)
            case SnapshotChunk():
                self._snapshots.receive_chunk(sender, message, now)
            case SnapshotAck():
                self._snapshots.server.receive_ack(sender, message, now)
            case SnapshotTrailer():
                self._snapshots.receive_trailer(sender, message, now)
            case SnapshotAbort():
                self._snapshots.receive_abort(sender, message, now)
            case RootQuery():
                self._roots.receive_query(sender, message)
            case RootAnswer():
                self._roots.receive_answer(sender, message)
            case FenceReport():
                self._fences.receive_report(sender, message)
            case EnterAsk():
                self._entering.receive_ask(sender, message, now)
            case EnterAnswer():
                self._entering.receive_answer(message, now)
            case _:
                assert_never(message)

    def _heartbeat(self, member: Member, beat: Heartbeat, now: Now) -> None:
        if beat.beat <= member.beat:
            return  # Late or repeated: it says nothing new.
        member.beat, member.head, member.leaving = beat.beat, beat.head, beat.leaving
        member.gates = beat.gates
        member.hear_clock(beat.wall_ms, now)
        if self._membership.heartbeat(member, beat, now):
            self._is_due_known = False
            self._is_eventful = True
        if member.lot is not None and member.lot == self._shared.replica.lot:
            heard = self._claims.heard(member, now)
            if heard is not None:
                self._gates.heard(heard)
            if beat.contested:
                self._claims.disputes.hear(member.name, beat.contested, now)
                self._is_eventful = True
            is_news = self._replication.heard_head(member.replica, beat.head, now)
            self._is_due_known &= not is_news

    def _from_stranger(self, sender: Sender, message: Message, now: Now) -> None:
        """Not a member: a new incarnation of one is greeted, another node of a member's name hears
        that the name is taken when it asks for something, everything else is dropped."""
        known = self._shared.members.get(sender.name)
        self._shared.counters["from_strangers"] += 1
        self._membership.heard_stranger(sender, now)
        if known is not None:
            is_earlier = sender.incarnation <= known.incarnation
            if sender.replica == known.replica and is_earlier:
                return
        if isinstance(sender.link, Route):
            self._peering.table.asked_from(sender.link.host, sender.name, now)
        if known is None:
            return
        namesakes = self._peering.namesakes
        if isinstance(message, Pull) and sender.replica != known.replica:
            if namesakes.is_held(known, now):
                namesakes.refuse(sender, known, now)
            return
        if isinstance(message, Heartbeat) and message.beat % 4 == 1:
            self._peering.greet(known.address, now)

    # --- submit --------------------------------------------------------------------------

    def submit(self, handle: int, command: Command, deadline_ms: int, now: Now) -> None:
        """A request. Exactly one last `Reply` with this handle follows, by the deadline.

        ``deadline_ms`` is a monotonic time.
        """
        self._begin(now)
        self._is_due_known = False
        self._is_eventful = True
        match command:
            case AskToEnter():
                self._entering.take(handle, command, deadline_ms, now)
            case ReadStatus():
                status = self._reports.status(now, synced=self.is_synced(), ready=self.is_ready())
                self._shared.outbox.reply(handle, status)
            case ReadMembers():
                self._shared.outbox.reply(handle, self._reports.members(now))
            case ReadCandidates():
                self._shared.outbox.reply(handle, self._peering.table.listed(now))
            case WaitFor():
                self._waits.add(handle, command, deadline_ms)
            case Leave():
                self._leaving.begin(handle, now, may_mint=self._may_mint(now))
            case _:
                self._intake.take(handle, command, deadline_ms, now)

    def _may_mint(self, now: Now) -> bool:
        if self._snapshots.is_joining or self.replica_id in self.state.record.seals:
            return False
        return self._founding.may_mint(now, own_seq_asked=self._peering.own_seq_asked)

    def _may_let_go(self, now: Now) -> bool:
        return not self._leaving.is_leaving and self._may_mint(now)

    def _may_claim(self, now: Now) -> bool:
        """After one exchange with a member; the founder has nobody to ask. Nor has who is alone:
        but the first that it met may just have left, and the others not have answered yet."""
        if not self._may_mint(now):
            return False
        has_asked = self._replication.full_exchanges > 0 or self._founding.founded_here
        return has_asked or (self._founding.has_waited(now) and not self._shared.peers_in_lot())

    def unanswered(self) -> list[tuple[int, Command, int]]:
        """Requests not begun yet, with their deadlines: the node that follows takes them."""
        return [
            *self._intake.unanswered(),
            *self._waits.unanswered(),
            *self._entering.unanswered(),
        ]

    # --- observe -------------------------------------------------------------------------

    def observe(self, fact: Fact, now: Now) -> None:
        """The disk, discovery or a link reports."""
        self._begin(now)
        self._is_due_known = False
        self._is_eventful = True
        shared = self._shared
        match fact:
            case Persisted(token=token, own_seq=own_seq):
                shared.replica.persisted(token, own_seq)
                shared.outbox.occurrences += shared.journal.persisted(token)
                self._replication.publish_durable()
                shared.replies.release()
                self._entering.has_news = True
                self._snapshots.server.serve_waiting()
                self._ask_for_snapshot(now)
                if own_seq and not shared.replica.is_join_known:
                    self._pull_all()
            case StorageFailed(reason=reason):
                shared.replica.failing = True
                shared.warnings["storage"] = f"storage_failed: {reason}"
                shared.outbox.notice(Level.ERROR, "storage_failed", reason=reason)
                shared.replies.fail()
            case StorageRecovered():
                self._gates.disk_recovers(now)
                shared.replica.failing = False
                shared.warnings.pop("storage", None)
                shared.outbox.notice(Level.WARNING, "storage_recovered")
            case ConnectionFailed():
                self._peering.table.failed(fact)
                if fact.failure is LinkFailure.REFUSED:
                    self._membership.refused(fact.address, now)
            case Candidate():
                self._peering.table.propose(fact, now)
            case LookUp():
                self._peering.table.looked_up(fact, now)
            case DiscoveryReady():
                self._discovered = True
                self._founding.discovery_ready(fact, now)
            case _:
                assert_never(fact)

    # --- what the parts tell each other --------------------------------------------------

    def _pull_all(self) -> None:
        for member in self._shared.peers_in_lot():
            self._replication.pull_soon(member)

    def _member_joined(self, member: Member, now: Now) -> None:
        self._membership.judge_soon()
        self._fences.look_soon()
        if self.lot is None:
            return
        if member.lot is None:
            self._peering.greet(member.address, now)  # It may join our lot now.
        elif member.lot == self.lot:
            self._replication.pull_soon(member)

    def _events_applied(self, events: list[Event], now: Now) -> None:
        self._shared.journal.events(events, now)
        for event in events:
            self._fences.applied(event)
            if isinstance(event.body, Claim):
                self._gates.applied(event.body)
                self._entering.has_news = True
            elif isinstance(event.body, Enter) and event.body.flags & FLAG_MERGED:
                self._shared.warnings["lots_merged"] = LOTS_MERGED

    def _exchange_agreed(self, theirs: CausalContext, now: Now) -> None:
        replica = self._shared.replica
        is_first = self._replication.full_exchanges == 1
        if not replica.is_join_known and theirs.contains(replica.id, 1):
            replica.is_join_known = is_first = True
        if is_first or self._gates.is_stopped or self._gates.is_leaving:
            self._gates.look_soon()

    def _fell_behind(self, member: Member, now: Now) -> None:
        self._behind_of = member.name
        self._ask_for_snapshot(now)

    def _ask_for_snapshot(self, now: Now) -> None:
        if self._behind_of is not None:
            member = self._shared.members.get(self._behind_of)
            if member is not None and member.state is ALIVE:
                self._snapshots.request(member, now)

    def _replicas_differ(self, member: Member, now: Now) -> None:
        if not self._snapshots.is_receiving:
            self._replication.note_divergence(member)
            self._roots.repair(
                lambda good, then: self._snapshots.request(good, then, repair=True), now
            )

    def _pause(self, is_paused: bool) -> None:
        self._replication.is_paused = is_paused

    def _snapshot_ended(self, member: Member | None, now: Now) -> None:
        self._behind_of = None
        self._fences.look_soon()
        if self.state.has_voided_events:
            self._fences.start_over()
        if member is not None:
            self._shared.journal.joined(member, now)
            self._claims.joined()
            self._replication.snapshot_joined()
            self._replication.pull_soon(member)

    def _lot_shown(self) -> tuple[bytes | None, bool]:
        shown_lot, replica = self._shared.shown_lot, self._shared.replica
        return shown_lot, replica.lot is not None and replica.is_founding_durable

    def _is_lot_told(self) -> bool:
        told_lot, is_founding_told = self._lot_told
        replica = self._shared.replica
        if is_founding_told and told_lot is not None and told_lot is replica.lot:
            # It is on disk and stays there, unless a snapshot that broke off took it away.
            return replica.state.record.founding() is not None
        return self._lot_told == self._lot_shown()

    def _tell_lot(self) -> None:
        """We have a lot now: greet those who met us without."""
        self._lot_told = self._lot_shown()
        self._gates.look_soon()
        for member in self._shared.members.alive():
            self._peering.greet(member.address, self._now)

    # --- tick ----------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Time passed. Calling it early or late is fine."""
        self._begin(now)
        self._is_due_known = False
        self._is_eventful = True
        shared = self._shared
        for member, before in self._membership.judge(now):
            self._judged(member, before, now)
        self._peering.tick(now)
        if shared.replica.lot is None and self._peering.table.in_handshake(now):
            self._founding.wait_for_handshake(now)
        if not self._snapshots.is_joining:
            self._founding.tick(now, is_receiving=self._snapshots.is_receiving)
        if self._snapshots.receiving is not None or self._snapshots.server.serving:
            self._snapshots.tick(now)
        self._replication.tick(now)
        if shared.replica.pending:
            self._record_pending(now)
        if not self._snapshots.is_joining:
            self._tick_gates(now)
        if self._entering.waiting:
            self._entering.look_again(now)
        if self._leaving.is_leaving:
            self._leaving.tick(now)
        self._pulse.tick(now)
        if now.mono_ms >= self._next_housekeeping_ms:
            self._next_housekeeping_ms = now.mono_ms + HOUSEKEEPING_MS
            self._keep_house(now)
        if self._intake.pages:
            self._intake.send_pages()
        if self._roots.rounds:
            self._roots.tick(now)

    def _record_pending(self, now: Now) -> None:
        """Stays of a lot that was left are recorded anew as soon as that may be."""
        may_record = self._may_mint(now) and self.is_joined()
        if may_record and self._founding.record_pending(now):
            self._shared.warnings["lots_merged"] = LOTS_MERGED

    def _tick_gates(self, now: Now) -> None:
        """What rests while a snapshot is joined."""
        self._fences.tick(now)
        self._retiring.tick(now)
        if self._gates.is_stopped:
            self._pausing.resume(now)
        self._gates.tick(now)
        self._entering.has_news |= self._gates.has_changed
        self._gates.has_changed = False
        self._admission.tick(now)

    def _keep_house(self, now: Now) -> None:
        if not self._snapshots.is_joining:
            self._shared.replica.housekeep()
            self._lookout.look(now)
            self._retiring.forget_ephemeral(now)

    # --- pauses --------------------------------------------------------------------------

    def _begin(self, now: Now) -> None:
        """Every verb begins here: the first after a pause notices it."""
        gap_ms = now.mono_ms - self._now.mono_ms
        self._now = now
        if gap_ms > self.settings.pause_guard_ms and self._pausing.stood_still(gap_ms, now):
            self._is_due_known = False
            self._is_eventful = True

    def is_joined(self) -> bool:
        """Everything a member had when it first answered is here."""
        return self._replication.full_exchanges > 0

    def _judged(self, member: Member, before: MemberState, now: Now) -> None:
        shared = self._shared
        self._gates.unsettle(now)
        self._peering.table.look_soon()
        self._fences.look_soon()
        self._note_judged(member, now)
        shared.outbox.notice(
            Level.WARNING if member.state is DEAD else Level.INFO,
            f"member_{member.state.value}",
            member=member.name,
        )
        if member.state is ALIVE:
            self._peering.greet(member.address, now)
            if member.lot == self.lot:
                self._replication.pull_soon(member)
        else:
            # Its last messages may be known to one node only: ask two others.
            peers = shared.peers_in_lot()
            for peer in shared.rng.sample(peers, min(2, len(peers))):
                self._replication.pull_soon(peer)

    def _note_judged(self, member: Member, now: Now) -> None:
        reason = None
        if member.state is not ALIVE:
            reason = "silent" if member.refused_ms is None else "refused"
        self._shared.journal.note_member(f"member_{member.state.value}", member, now, reason)

    def next_deadline(self) -> int:
        """When `tick` wants to be called, monotonic milliseconds; in the past means at once."""
        if not self._is_due_known:
            self._due_ms = self._earliest_deadline()
            self._is_due_known = True
        return self._due_ms

    def _earliest_deadline(self) -> int:
        now_ms = self._now.mono_ms
        # Housekeeping is done with the heartbeat that follows.
        due_ms = self._pulse.next_deadline(now_ms)
        deadlines = self._calm_deadlines
        if self._is_occupied():
            is_joining = self._snapshots.is_joining
            deadlines = self._joining_deadlines if is_joining else self._deadlines
        for next_deadline in deadlines:
            at_ms = next_deadline(now_ms)
            if at_ms is not None and at_ms < due_ms:
                due_ms = at_ms
        return due_ms

    def _is_occupied(self) -> bool:
        """Somebody waits for an answer, or something is under way that mostly is not."""
        replica, snapshots = self._shared.replica, self._snapshots
        return bool(
            self._entering.waiting
            or self._intake.waiting
            or self._intake.pages
            or self._waits.waiting
            or self._roots.rounds
            or snapshots.receiving is not None
            or snapshots.server.serving
            or self._leaving.is_leaving
            or replica.lot is None
            or replica.pending
        )

    def _mint_deadline(self, now_ms: int) -> int | None:
        return self._founding.mint_deadline(now_ms) if self._shared.replica.pending else None

    def take_effects(self) -> Effects:
        """Everything that has to happen since the last call, in order."""
        if not (self._is_eventful or self._intake.waiting or self._waits.waiting):
            return NOTHING
        self._is_eventful = False
        if isinstance(self._shared.outbox.end, StartOver) and not self._has_said_goodbye:
            self._has_said_goodbye = True
            self._leaving.say_goodbye()
        if not self._is_lot_told():
            self._tell_lot()
        if self._intake.waiting:
            self._intake.retry(self._now)
        if self._entering.has_news:
            self._entering.look_again(self._now)
        if self._waits.waiting:
            self._waits.check(self._now)
        return self._shared.outbox.take(self._take_batch())

    def _take_batch(self) -> Persist | None:
        """What goes to the disk, and with it what the journal says of it."""
        replica, journal = self._shared.replica, self._shared.journal
        if replica.has_minted:
            journal.events(replica.take_minted(), self._now)
        if not (journal.has_news or replica.has_changed):
            return None
        lines, before_ms = journal.take()
        batch = replica.take_batch(lines, before_ms)
        journal.submitted(batch.token, lines)
        return batch
