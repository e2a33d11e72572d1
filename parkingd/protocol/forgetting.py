"""Letting a replica go: fence, flush, seal.

A silent replica costs some fifty bytes an exit for ever, as nothing is collected before it has
seen it. `members forget NAME` ends that in two phases (DESIGN section 4; model-checked: one phase
makes ghosts). `fence(id)`: whoever applies it takes no more events of that id and reports what it
holds of it. When every other replica of the roster has reported, and the issuer has fetched all
that they hold, `seal(id, F)` with the union: exactly those dots exist, what nobody holds is void,
and the id leaves the roster. A fenced node that returns takes a new id.

A report counts only if its sender holds every fence and seal by which the issuer excludes others.
What a replica takes of the fenced one after such a report it takes of somebody who is asked as
well, as nothing is taken of who is fenced: so whoever of those asked had it first has reported it.
And so two that seal one replica at once, and have not fenced each other, seal the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from parkingd.core.causal import CausalContext, Part
from parkingd.core.events import Event, Fence, Seal
from parkingd.core.ids import Dot, Now, ReplicaId, replica_hex
from parkingd.core.state import sealed_in
from parkingd.protocol.codec import pack_record
from parkingd.protocol.effects import Level, StartOver, StartOverReason
from parkingd.protocol.members import ALIVE
from parkingd.protocol.messages import ContextWire, FenceReport, Sender
from parkingd.protocol.outcomes import Change, ErrorCode, Failure, Outcome
from parkingd.protocol.shared import Shared, from_wire

REPORT_WAIT_MS = 3_000
"""How long a member may take to report before the request is refused."""

MEND_AFTER_MS = 10_000
"""A seal whose events have not come for this long may name some that are lost."""

REPORT_AGAIN_MS = 500
"""A report may be lost, so it is repeated until the seal is known: first after this long."""

REPORT_AGAIN_MS_MAX = 2_000
"""The pause doubles up to this. Half: twice the messages for as long as a member is away that has
to report. Double: a request that meets one lost report ends in vain."""

FLUSH_AGAIN_MS = 250
"""What others hold is asked for this often. Half: twice the exchanges while a peer is deaf. Double:
a lost exchange costs a sixth of the time that a request may take."""


@dataclass(slots=True)
class Forgetting:
    """One request in progress."""

    handle: int | None
    name: str
    deadline_ms: int
    replicas: tuple[ReplicaId, ...]
    fences: tuple[Dot, ...]
    sealed: list[Dot] = field(default_factory=list)
    next_flush_ms: int = 0


class Fences:
    """Reports of fenced replicas, and the requests that wait for them."""

    def __init__(self, shared: Shared, *, flush: Callable[[], None]) -> None:
        """``flush``: exchange with every member soon."""
        self._shared = shared
        self._flush = flush
        self._reports: dict[ReplicaId, dict[ReplicaId, FenceReport]] = {}
        """By the replica that is let go, and by who has reported on it."""
        self._fenced_anew: set[ReplicaId] = set()
        self._requests: list[Forgetting] = []
        self._incomplete_since: dict[ReplicaId, int] = {}
        self._said: tuple[object, ...] = ()
        """Of whom was last reported, and to whom."""
        self._report_pause_ms = REPORT_AGAIN_MS
        self._next_report_ms: int | None = None
        """None: there is nobody to report of."""
        self._has_news = True
        """A fence, a seal or a member has come since the last look at what to report."""

    def look_soon(self) -> None:
        """There may be another to report of, or another to report to."""
        self._has_news = True

    # --- what members say ----------------------------------------------------------------

    def applied(self, event: Event) -> None:
        """A fence or a seal has become part of the state."""
        shared = self._shared
        is_of_us = False
        if isinstance(event.body, (Fence, Seal)):
            self._has_news = True
            is_of_us = event.body.replica == shared.replica_id
        if is_of_us:
            if event.origin != shared.replica_id:
                self.start_over()
        elif shared.replica.state.has_voided_events:
            self.start_over()

    def loaded(self) -> None:
        """This node has been made: was the last one ended before it could start over?"""
        state, own = self._shared.replica.state, self._shared.replica_id
        if state.has_voided_events or own in state.record.fences or own in state.record.seals:
            self.start_over()

    def start_over(self, held: ContextWire = ()) -> None:
        """This replica was let go, or holds what a seal has declared void: it was cut off while
        others decided. What no other disk has is offered for review, never merged: late marks
        would hide re-entries, and late entries would show cars that have left unseen.

        ``held``: by the member that says so; empty: this node has found out by itself."""
        shared = self._shared
        state = shared.replica.state
        elsewhere = from_wire(held) if held else self._held_elsewhere()
        review = []
        for stay in state.stays.all_visible():
            seq, origin = stay[:2]
            seal = state.record.seals.get(origin)
            is_known = elsewhere.contains(origin, seq) if seal is None else sealed_in(seal, seq)
            if not is_known:
                review.append(pack_record(stay))
        shared.outbox.end = StartOver(StartOverReason.FENCED, keep=False, review=tuple(review))

    def _held_elsewhere(self) -> CausalContext:
        """What other disks have, as far as they have told; else what they had before this start."""
        shared = self._shared
        durable = shared.replica.state.roster.durable
        rows = [durable.get(member.replica, {}) for member in shared.members.all()]
        held: dict[ReplicaId, int] = {}
        for row in rows or [shared.replica.log.floors()]:
            for origin, upto in row.items():
                held[origin] = max(upto, held.get(origin, 0))
        return CausalContext(held)

    def _must_look(self, now: Now) -> bool:
        is_due = self._next_report_ms is not None and now.mono_ms >= self._next_report_ms
        # What is reported must survive a crash: it becomes part of the seal.
        return (self._has_news or is_due) and self._shared.replica.is_settled

    def _report(self, now: Now) -> None:
        """Tell every live member what is held here of each fenced replica."""
        shared = self._shared
        replica = shared.replica
        self._has_news = False
        fenced = (*replica.state.fenced_replicas(), *replica.state.incomplete_seals())
        if not fenced:
            self._next_report_ms = None
            return
        peers = shared.peers_in_lot()
        said = (fenced, [(member.name, member.incarnation) for member in peers])
        if said != self._said:
            self._said, self._report_pause_ms = said, REPORT_AGAIN_MS
        elif self._next_report_ms is not None and now.mono_ms < self._next_report_ms:
            return
        else:
            self._report_pause_ms = min(2 * self._report_pause_ms, REPORT_AGAIN_MS_MAX)
        self._next_report_ms = now.mono_ms + self._report_pause_ms
        for replica_id in fenced:
            report = FenceReport(self._held(replica_id), self._waited(), self._gone())
            for member in peers:
                shared.outbox.send(member.address, report)

    def _held(self, fenced: ReplicaId) -> Part:
        context = self._shared.replica.state.context
        return fenced, context.upto(fenced), tuple(context.intervals.get(fenced, ()))

    def _waited(self) -> tuple[ReplicaId, ...]:
        state = self._shared.replica.state
        return tuple(state.roster.members(state.context.vector, dict.fromkeys(self._gone())))

    def _gone(self) -> tuple[ReplicaId, ...]:
        record = self._shared.replica.state.record
        return tuple(sorted({*record.fences, *record.seals}))

    def receive_report(self, sender: Sender, report: FenceReport) -> None:
        """A member has frozen what it holds."""
        self._shared.replica.state.roster.name((*report.waited, *report.gone))
        self._reports.setdefault(report.held[0], {})[sender.replica] = report
        self._answer_report(sender, report)

    def _answer_report(self, sender: Sender, report: FenceReport) -> None:
        """An ephemeral node that left has sealed itself. Who has fenced it takes nothing more that
        it made, not its seal either, and waits for the report of those who have that."""
        shared = self._shared
        replica, member = report.held[0], shared.members.get(sender.name)
        seal = shared.replica.state.record.events.get(("seal", replica, 0))
        if seal is None or seal.origin != replica or member is None:
            return
        if shared.replica.is_settled and not _as_context(report.held).contains(replica, seal.seq):
            answer = FenceReport(self._held(replica), self._waited(), self._gone())
            shared.outbox.send(member.address, answer)

    # --- requests ------------------------------------------------------------------------

    def forget(self, handle: int | None, name: str, now: Now) -> Outcome | None:
        """Begin; the outcome if it is decided at once, else None and a reply later."""
        shared = self._shared
        state = shared.replica.state
        member = shared.members.get(name)
        alive = member is not None and member.state is ALIVE
        current = {shared.replica_id, *(m.replica for m in shared.members.alive())}
        roster = state.roster.members(state.context.vector, state.record.seals)
        own_name = name == shared.settings.name
        gone = tuple(
            r
            for r in roster
            if name in (state.record.name_of(r), replica_hex(r)) and r not in current
        )
        if not gone:
            if alive or own_name:
                return Failure(
                    ErrorCode.MEMBER_ALIVE,
                    f"{name} is alive",
                    "only a dead member can be forgotten; stop it with `leave` if it should go",
                )
            known = any(join.name == name for join in state.record.names.values())
            hint = "it has been forgotten already" if known else "see `parkingd-ctl members`"
            return Failure(ErrorCode.UNKNOWN_MEMBER, f"no member called {name} is waited for", hint)
        self._begin(handle, name, gone, now)
        return None

    def retire(
        self, replicas: tuple[ReplicaId, ...], now: Now, unheard: tuple[ReplicaId, ...] = ()
    ) -> None:
        """Let go of these ids, as soon as anybody has heard of them: ids that this very node has
        given up, and fenced ones whose request ended without a seal. ``unheard``: of these, whom
        others may wait for though nothing of theirs is known here."""
        state = self._shared.replica.state
        roster = state.roster.members(state.context.vector, state.record.seals)
        under_way = {r for request in self._requests for r in request.replicas}
        known = {*roster, *(r for r in unheard if r not in state.record.seals)}
        gone = tuple(r for r in replicas if r in known and r not in under_way)
        if gone:
            self._begin(None, ", ".join(map(self._label, gone)), gone, now)

    def mend_seals(self, now: Now) -> None:
        """Seal anew what a seal names and nobody has: its issuer's disk was lost with it.

        Only after `MEND_AFTER_MS` without progress, and only if every replica of the roster says
        afresh that it lacks it too: who holds everything does not report, and then it will come.
        """
        state = self._shared.replica.state
        incomplete = state.incomplete_seals()
        self._incomplete_since = {
            replica: self._incomplete_since.get(replica, now.mono_ms) for replica in incomplete
        }
        under_way = {r for request in self._requests for r in request.replicas}
        for replica, since_ms in self._incomplete_since.items():
            if now.mono_ms - since_ms >= MEND_AFTER_MS and replica not in under_way:
                self._reports.pop(replica, None)
                self._begin(None, self._label(replica), (replica,), now)

    def _begin(self, handle: int | None, name: str, gone: tuple[ReplicaId, ...], now: Now) -> None:
        shared = self._shared
        state = shared.replica.state
        fences = []
        for replica in gone:
            if replica not in state.record.fences:
                event = shared.replica.mint(Fence(replica), shared.physical_ms(now))
                fences.append((event.origin, event.seq))
        self._has_news = True
        self._requests.append(
            Forgetting(handle, name, now.mono_ms + REPORT_WAIT_MS, gone, tuple(fences))
        )

    def tick(self, now: Now) -> None:
        """Report; seal what everybody has reported; give up what somebody has not."""
        shared = self._shared
        if shared.replica.state.record.fences and self._must_look(now):
            self._report(now)
        for request in list(self._requests):
            # An ephemeral node that leaves has sealed itself: it can mint no more.
            is_over = shared.replica_id in shared.replica.state.record.seals
            missing = [shared.settings.name] if is_over else self._seal_reported(request, now)
            if missing and not is_over and now.mono_ms < request.deadline_ms:
                continue
            self._requests.remove(request)
            for replica in request.replicas:
                shared.replica.state.expected.pop(replica, None)
            outcome: Outcome
            if missing:
                names = ", ".join(missing)
                outcome = Failure(
                    ErrorCode.NOT_ANSWERED,
                    f"{request.name} is fenced but cannot be let go: no answer from {names}",
                    "it is let go by itself when they are back; or forget them as well",
                )
            else:
                created = (*request.fences, *request.sealed)
                outcome = Change((), created, (), f"{request.name} is no longer waited for")
            level = Level.INFO
            if missing:
                level = Level.DEBUG if request.handle is None else Level.WARNING
            event = "member_fenced" if missing else "member_forgotten"
            shared.outbox.notice(level, event, member=request.name)
            if request.handle is not None:
                shared.replies.answer(request.handle, outcome)

    def _seal_reported(self, request: Forgetting, now: Now) -> list[str]:
        """Seal each replica that all others have reported on; names of who has not."""
        shared = self._shared
        state = shared.replica.state
        others = [r for r in self._waited() if r != shared.replica_id]
        missing: dict[str, None] = {}
        waiting = False
        for replica in request.replicas:
            if replica in state.record.seals and replica not in state.incomplete_seals():
                continue
            reports = self._reports.get(replica, {})
            silent = [r for r in others if r not in reports or self._unheard(reports[r])]
            self._fence_anew(silent, reports, now)
            for other in silent:
                missing[self._label(other)] = None
            if silent or not shared.replica.is_settled:
                waiting = waiting or not silent
                continue
            held = _as_context(self._held(replica))
            union = held.copy()
            for other in others:
                union.join(_as_context(reports[other].held))
            seal = Seal(replica, union.upto(replica), tuple(union.intervals.get(replica, ())))
            if not held.covers(union):
                # The flush: a seal may name only what its issuer holds, else it could name what
                # a reporter's disk has taken with it.
                state.expected[replica] = seal
                if now.mono_ms >= request.next_flush_ms:
                    request.next_flush_ms = now.mono_ms + FLUSH_AGAIN_MS
                    self._flush()
                waiting = True
                continue
            event = shared.replica.mint(seal, shared.physical_ms(now))
            self._has_news = True
            request.sealed.append((event.origin, event.seq))
        return [shared.settings.name] if waiting and not missing else list(missing)

    def _unheard(self, report: FenceReport) -> set[ReplicaId]:
        """Who is let go here, which the sender did not know yet: it could still take of them."""
        return set(self._gone()).difference(report.gone)

    def _fence_anew(
        self, silent: list[ReplicaId], reports: dict[ReplicaId, FenceReport], now: Now
    ) -> None:
        """Who has fenced a replica may have been fenced itself: then nobody takes its fence any
        more, and who lacks it would have to wait for a seal that waits for him."""
        shared = self._shared
        events = shared.replica.state.record.events
        gone = self._gone()
        lacking = {r for other in silent if other in reports for r in self._unheard(reports[other])}
        for replica in sorted(lacking - self._fenced_anew):
            event = events.get(("fence", replica, 0)) or events["seal", replica, 0]
            if event.origin in gone and event.origin != replica:
                self._fenced_anew.add(replica)
                self._has_news = True
                shared.replica.mint(Fence(replica), shared.physical_ms(now))

    def _label(self, replica: ReplicaId) -> str:
        """A name that tells an earlier id of a living node from that node."""
        name = self._shared.replica.state.record.name_of(replica)
        member = self._shared.members.get(name)
        current = self._shared.replica_id if member is None else member.replica
        is_earlier = current != replica and name != replica_hex(replica)
        return f"{name} (earlier id {replica_hex(replica)})" if is_earlier else name

    def next_deadline(self, now_ms: int) -> int | None:
        """While a request waits, look often."""
        if self._requests:
            return now_ms + 50
        if not self._shared.replica.state.record.fences or not self._shared.replica.is_settled:
            return None
        return now_ms if self._has_news else self._next_report_ms


def _as_context(part: Part) -> CausalContext:
    return CausalContext.from_parts([part])
