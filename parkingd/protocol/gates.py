"""Serving gates: claims, releases and take-overs of one node.

How it works (DESIGN section 6; the rules are those of research/membership.md 2.3). Who serves a
gate is whoever made its greatest claim, a replicated event. Every node computes the same plan from
the same claims and the same living nodes, and does its own part of it:

    orphan         its owner is dead, has left or has begun another incarnation, or gave the gate
                   up: whom the plan names claims it at once, one epoch higher
    move           only the owner moves a gate that lives: it stops serving, then releases it to the
                   target, one epoch higher; the target accepts at once; unanswered for 2 s the
                   owner takes it back, two epochs above the release
    step down      by itself, the moment a greater claim is here, for the greatest claim says who
                   serves; or a living member's heartbeat names one that is still on its way

Moves wait until the view is stable, the joiner has lived for a while and the gate has stood still;
orphans never wait. Nothing is claimed before one exchange with a member, and a node that stood
still for so long that others may serve its gates stops first and exchanges before it goes on.

A claim is shown to nobody, and nothing done under it is answered, before it is on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from parkingd.core.events import Claim
from parkingd.core.gates import (
    PHASE_OWNED,
    PHASE_RELEASED,
    Fence,
    assign_orphans,
    balance,
    fence_of,
    is_balanced,
)
from parkingd.core.ids import Now
from parkingd.protocol.claims import Claims, Heard, claimant
from parkingd.protocol.effects import Level
from parkingd.protocol.members import ALIVE
from parkingd.protocol.membership import Membership
from parkingd.protocol.shared import Shared

GIVEN_UP_MS: Final = 2_000
"""A living owner whose heartbeats do not name its gate for this long has given it up: its disk
fails, or another node has its name. Half: an owner that only resynchronises loses gates."""
UNSERVED_MS: Final = 600
"""After this long without being named, more than two heartbeats, the gate is shown as unowned; and
nothing moves to who was not heard for as long."""
RETRY_MS: Final = 100
LOOK_MS: Final = 400
"""How often the plan is looked at when nothing has happened: for what only the time brings."""
CALM_LOOK_MS: Final = 1_000
"""The same while every gate has a living owner and nobody has two more than another."""


class Gates:
    """The gates of a lot as one node sees them, and those it serves."""

    def __init__(
        self,
        shared: Shared,
        membership: Membership,
        claims: Claims,
        may_claim: Callable[[Now], bool],
    ) -> None:
        """``may_claim``: this node has exchanged with a member, or is alone for sure."""
        self._shared = shared
        self._membership = membership
        self._claims = claims
        self._hearsay = claims.hearsay
        self._may_claim = may_claim
        self._view: frozenset[tuple[str, int]] = frozenset()
        self._view_ms = 0
        self._released_ms: dict[int, int] = {}
        """When we released it, until somebody has it."""
        self._recovered_ms = -UNSERVED_MS
        """When the disk last did: others had taken the gates for given up until they heard so."""
        self._is_due = False
        self._is_calm = False
        """The plan left every gate with a living owner, and nothing was heard or claimed since."""
        self._next_ms = 0
        self._seen_count = 0
        self.is_stopped = False
        """After a long pause: nothing is served before an exchange with a member."""
        self.is_leaving = False
        self.has_changed = False
        """A gate has another claim than when somebody last set this back."""

    # --- what is served ------------------------------------------------------------------

    def can_serve(self, now: Now) -> bool:
        """Whether this node may have gates at all."""
        shared = self._shared
        return (
            shared.has_lot
            and not self.is_stopped
            and not self.is_leaving
            and not shared.replica.failing
            and not shared.is_namesake
            and self._may_claim(now)
        )

    def served_under(self, gate: int) -> Fence | None:
        """The fence under which this node serves the gate now; None if it does not."""
        claim = self._claims.greatest(gate)
        if claim is None or self._is_barred() or not self._is_served(claim):
            return None
        return fence_of(claim) if 1 <= gate <= self._claims.count else None

    def _is_barred(self) -> bool:
        shared = self._shared
        return self.is_stopped or shared.is_namesake or shared.replica.failing

    def _is_served(self, claim: Claim) -> bool:
        is_held = claim.phase == PHASE_OWNED and self._claims.is_own(claim)
        return is_held and claim.gate not in self._hearsay

    def claimants(self) -> set[str]:
        """Who has a gate by the claims, or has been given one."""
        claims = (self._claims.greatest(gate) for gate in self._claims.gates())
        return {
            name
            for claim in claims
            if claim is not None
            for name in (claim.owner, claim.target)
            if name is not None
        }

    def is_own(self, gate: int) -> bool:
        """Whether the greatest claim to this gate is ours, served or not."""
        claim = self._claims.greatest(gate)
        return claim is not None and self._claims.is_own(claim)

    def owner_of(self, gate: int, now: Now) -> str | None:
        """The other node that serves this gate as far as the claims tell; None: nobody."""
        if gate in self._hearsay:
            return self._hearsay.owner(gate)
        claim = self._claims.greatest(gate)
        if claim is None or claim.phase != PHASE_OWNED or self._claims.is_own(claim):
            return None
        gone = self._claims.is_gone(claim.owner, claim.incarnation, now)
        return claim.owner if gone is False else None

    def served(self) -> list[int]:
        """The gates this node serves, ascending."""
        if self._is_barred():
            return []
        return [claim.gate for _, claim in self._claims.held()]

    def named(self, now: Now) -> tuple[tuple[int, int], ...] | None:
        """For the heartbeat: (gate, epoch) of what is served; None when nothing can be.

        Who began to serve alone goes on when a member is met, before the first exchange with it.
        """
        held = self._claims.held()
        if not held or self._is_barred():
            return () if self.is_leaving or self.can_serve(now) else None
        durable_seq = self._shared.replica.durable_seq
        return tuple([(claim.gate, claim.epoch) for seq, claim in held if seq <= durable_seq])

    # --- what arrives --------------------------------------------------------------------

    def applied(self, claim: Claim) -> None:
        """A claim of another node has been joined."""
        self._claims.applied(claim)
        self._is_due = True

    def _sync(self, now: Now) -> None:
        """Notice which gates have another greatest claim: a gate of ours may be another's."""
        changes = self._claims.sync(now)
        if not changes:
            return
        self.has_changed, self._is_calm = True, False
        for before, claim in changes:
            if before is None or claimant(before) == claimant(claim):
                continue
            if before.phase == PHASE_OWNED and self._claims.is_own(before):
                self._note_lost(claim, now)

    def _note_lost(self, claim: Claim, now: Now) -> None:
        """A gate that was ours has been claimed by another."""
        if self.is_stopped:
            return
        own, gate = self._shared.settings.name, claim.gate
        has_recovered = now.mono_ms - self._recovered_ms < UNSERVED_MS
        if not (self._is_barred() or has_recovered):
            self._claims.disputes.notice(gate, {own, claim.owner}, now)
        self._membership.beat_wanted = True
        self._shared.outbox.notice(
            Level.WARNING, "gate_lost", gate=gate, owner=claim.owner, epoch=claim.epoch
        )

    def heard(self, heard: Heard) -> None:
        """A heartbeat says something new of gates."""
        self._is_due |= heard.is_news
        self._membership.beat_wanted |= any(self.is_own(gate) for gate in heard.greater)

    def unsettle(self, now: Now) -> None:
        """A member is judged anew, or this node stood still and judges by what is old: the view
        has to prove stable again before a gate moves."""
        self._view_ms = now.mono_ms
        self._is_due = True

    def stop(self) -> None:
        """This node stood still: its gates may be served by others."""
        if not self.is_stopped:
            self._shared.outbox.notice(Level.WARNING, "gates_stopped", gates=self.served())
            self.is_stopped = True

    def is_accompanied(self) -> bool:
        """Whether any other member of the lot is not known to be dead."""
        return any(True for _ in self._claims.up())

    def resume(self, now: Now) -> None:
        """An exchange has told who serves what."""
        if self.is_stopped:
            self._sync(now)  # What others claimed meanwhile was not served twice.
            self.is_stopped = False
            self._is_due = True

    def disk_recovers(self, now: Now) -> None:
        """It is about to serve again what nobody else has claimed."""
        self._sync(now)  # What others claimed meanwhile was not served twice.
        self._recovered_ms = now.mono_ms
        self._is_due = self._membership.beat_wanted = True

    def leave(self, now: Now) -> None:
        """Serve no more: hand every gate over, and take none."""
        self.is_leaving = self._is_due = True
        self._membership.beat_wanted = True
        self.tick(now)

    # --- owners --------------------------------------------------------------------------

    def live(self, now: Now) -> dict[str, int]:
        """Names that may have gates, with their incarnations."""
        shared = self._shared
        live = {
            m.name: m.incarnation
            for m in self._claims.up()
            if m.gates is not None and not m.leaving
        }
        if self.can_serve(now):
            live[shared.settings.name] = shared.incarnation
        return live

    def _owner(self, gate: int, live: dict[str, int], now: Now) -> tuple[str | None, bool]:
        """(who has or gets it by the claims, whether anybody else may claim it)."""
        if gate in self._hearsay:
            return self._hearsay.owner(gate), False
        claim = self._claims.greatest(gate)
        if claim is None:
            return None, True
        is_served = claim.phase == PHASE_OWNED and live.get(claim.owner) == claim.incarnation
        if is_served and self._claims.is_named(gate):
            return claim.owner, False  # As nearly always.
        gone = self._claims.is_gone(claim.owner, claim.incarnation, now)
        if claim.phase == PHASE_OWNED:
            if gone is None:
                return None, False
            if gone or self._claims.is_unnamed(gate, claim, GIVEN_UP_MS, now):
                return None, True
            return claim.owner, False
        if claim.target in live:
            return claim.target, False  # It accepts, or the owner takes it back.
        if gone is None or not gone:
            return claim.owner, False
        return None, True

    # --- barriers that have seen more ----------------------------------------------------

    def rise_above(self, gate: int, seen: Fence, now: Now) -> bool:
        """The barrier has seen this fence: whether we serve the gate under as great a one now.

        It counts like any greater claim: if its owner lives, the claim is on its way, or this
        owner's heartbeat will name the gate. If not, the claim is lost, and we claim anew above it.
        """
        own = self.served_under(gate)
        if own is None or not self.can_serve(now):
            return False
        if own < seen:
            if self._hearsay.may_come(gate, seen, now):
                return False
            self._claims.note_moved(gate, now)  # From whoever made that claim.
            self._mint(gate, seen.epoch + 1, now)
            self._shared.counters["claims_above_barrier"] += 1
        return True

    # --- time ----------------------------------------------------------------------------

    def look_soon(self) -> None:
        """Members, or what this node may do, have changed."""
        self._is_due = True

    def tick(self, now: Now) -> None:
        """Accept, take back, claim and move what is this node's to do."""
        has_news = self._is_due or self._claims.count != self._seen_count
        if not has_news and now.mono_ms < self._next_ms:
            return
        self._seen_count = self._claims.count
        self._is_due, self._next_ms = False, now.mono_ms + LOOK_MS
        if not self._shared.has_lot:
            return
        live = self.live(now)
        self._sync(now)
        self.has_changed |= self._claims.settle(now)
        view = frozenset(live.items())
        if view != self._view:
            self._view, self._view_ms = view, now.mono_ms
            self._is_calm = False
        if has_news:
            self._is_calm = False
            self._watch(now)
        if self.is_leaving:
            self._hand_over(live, now)
        elif self._shared.settings.name in live:
            self._accept(now)
            self._take_back(live, now)
            if not (self._claims.are_all_named() and self._is_calm):
                self._share(live, now)
            elif not self._released_ms:
                self._next_ms = now.mono_ms + CALM_LOOK_MS

    def _accept(self, now: Now) -> None:
        own = self._shared.settings.name
        greatest = self._shared.replica.state.record.claim
        for gate in self._claims.gates():
            claim = greatest(gate)
            if claim is None or claim.phase != PHASE_RELEASED or claim.target != own:
                continue
            if gate not in self._hearsay:
                self._mint(gate, claim.epoch + 1, now)

    def _take_back(self, live: dict[str, int], now: Now) -> None:
        timeout_ms = self._shared.settings.release_timeout_ms
        for gate, released_ms in list(self._released_ms.items()):
            claim = self._claims.greatest(gate)
            if claim is None or claim.phase != PHASE_RELEASED or not self._claims.is_own(claim):
                del self._released_ms[gate]
            elif gate in self._hearsay:
                continue  # It was accepted: the claim is on its way, unless its owner dies.
            elif claim.target not in live or now.mono_ms - released_ms >= timeout_ms:
                del self._released_ms[gate]
                self._claims.note_moved(gate, now)  # Not offered again at once.
                self._shared.counters["releases_unanswered"] += 1
                self._mint(gate, claim.epoch + 2, now)

    def _share(self, live: dict[str, int], now: Now) -> None:
        """Claim the orphans that the plan gives us, and move what it takes from us."""
        own = self._shared.settings.name
        owners: dict[int, str | None] = {}
        orphans: set[int] = set()
        for gate in self._claims.gates():
            owner, is_orphan = self._owner(gate, live, now)
            if is_orphan:
                orphans.add(gate)
                owners[gate] = None
            elif owner in live:
                owners[gate] = owner
        assigned = assign_orphans(owners, live)
        if orphans and self._is_anybody_unheard(now):
            return
        for gate in sorted(orphans):
            if assigned[gate] == own:
                claim = self._claims.greatest(gate)
                self._mint(gate, 1 if claim is None else claim.epoch + 1, now)
        if orphans:
            return
        if is_balanced(assigned, live):
            self._is_calm = len(assigned) == self._claims.count
            return
        if now.mono_ms - self._view_ms < self._shared.settings.stable_view_ms:
            return
        receivers = [name for name in live if self._may_receive(name, now)]
        for gate, target in balance(assigned, live, receivers).items():
            if assigned[gate] == own and target != own and self._may_move(gate, now):
                self._release(gate, target, now)

    def _is_anybody_unheard(self, now: Now) -> bool:
        """A member was just met and has not said what it serves: what nobody seems to serve may be
        served by it, under a claim that who was asked has not got either."""
        return any(
            member.beat == 0 and now.mono_ms - member.alive_since_ms < UNSERVED_MS
            for member in self._claims.up()
        )

    def _may_receive(self, name: str, now: Now) -> bool:
        shared = self._shared
        if name == shared.settings.name:
            return True
        member = shared.members.get(name)
        return (
            member is not None
            and member.state is ALIVE
            and now.mono_ms - member.beat_ms < UNSERVED_MS
            and now.mono_ms - member.alive_since_ms >= shared.settings.young_ms
            and not self._membership.is_flapping(name, now)
        )

    def _may_move(self, gate: int, now: Now) -> bool:
        has_rested = self._claims.has_rested(gate, self._shared.settings.move_pause_ms, now)
        return has_rested and self.served_under(gate) is not None

    def _hand_over(self, live: dict[str, int], now: Now) -> None:
        """Leaving: every gate goes to whom the plan names without us, of those who are heard."""
        if self._shared.replica_id in self._shared.replica.state.record.seals:
            return  # Nothing of this replica may follow its seal.
        heard = {m.name for m in self._claims.up() if m.state is ALIVE}
        live = {name: it for name, it in live.items() if name in heard} or live
        own_gates = [gate for gate in self._claims.gates() if self._must_hand_over(gate, live)]
        if not own_gates or not live:
            return
        owners: dict[int, str | None] = {}
        for gate in self._claims.gates():
            owner, _ = self._owner(gate, live, now)
            if gate in own_gates or owner in live:
                owners[gate] = None if gate in own_gates else owner
        heirs = assign_orphans(owners, live)
        for gate in own_gates:
            self._release(gate, heirs[gate], now)

    def _must_hand_over(self, gate: int, live: dict[str, int]) -> bool:
        claim = self._claims.greatest(gate)
        if claim is None or gate in self._hearsay or not self._claims.is_own(claim):
            return False
        return claim.phase == PHASE_OWNED or claim.target not in live

    def is_drained(self, now: Now) -> bool:
        """Leaving: nobody waits for a gate of ours any more, or nobody is there to take one."""
        is_sealed = self._shared.replica_id in self._shared.replica.state.record.seals
        if is_sealed or not self.live(now):
            return True
        gates = (gate for gate in self._claims.gates() if gate not in self._hearsay)
        return not any(self.is_own(gate) for gate in gates)

    def _release(self, gate: int, target: str, now: Now) -> None:
        claim = self._claims.greatest(gate)
        assert claim is not None
        epoch = claim.epoch + (1 if claim.phase == PHASE_OWNED else 2)
        self._released_ms[gate] = now.mono_ms
        self._mint(gate, epoch, now, target)

    def _mint(self, gate: int, epoch: int, now: Now, target: str | None = None) -> None:
        shared = self._shared
        phase = PHASE_OWNED if target is None else PHASE_RELEASED
        claim = Claim(gate, epoch, shared.settings.name, shared.incarnation, phase, target)
        shared.replica.mint(claim, shared.physical_ms(now))
        self._sync(now)
        self._is_due = True
        event = "gate_claimed" if target is None else "gate_released"
        shared.counters["gates_claimed" if target is None else "gates_released"] += 1
        shared.outbox.notice(Level.INFO, event, gate=gate, epoch=epoch, target=target)

    def next_deadline(self, now_ms: int) -> int | None:
        """When to look again, monotonic milliseconds."""
        if self._is_due or self._claims.count != self._seen_count:
            return now_ms
        return now_ms + RETRY_MS if self._released_ms or self.is_leaving else None

    # --- who is seen to serve ------------------------------------------------------------

    def _named_by(self) -> dict[int, list[str]]:
        """For each gate the living members whose last heartbeat names it."""
        named: dict[int, list[str]] = {}
        for member in self._claims.up():
            for gate, epoch in member.gates or ():
                if not self._claims.is_past(member, gate, epoch):
                    named.setdefault(gate, []).append(member.name)
        return named

    def contenders(self, now: Now) -> list[tuple[str, ...]]:
        """For each gate the living nodes that take themselves for its owner, by name, as far as
        this node can tell."""
        named = self._named_by()
        return [self._contenders(gate, named, now) for gate in self._claims.gates()]

    def _contenders(self, gate: int, named: dict[int, list[str]], now: Now) -> tuple[str, ...]:
        names = named.get(gate, [])
        claim = self._claims.greatest(gate)
        if claim is not None and claim.owner not in names and self._is_claimant(gate, claim, now):
            names = sorted([*names, claim.owner])
        return tuple(names)

    def _is_claimant(self, gate: int, claim: Claim, now: Now) -> bool:
        if self._claims.is_own(claim):
            return self.served_under(gate) is not None
        if claim.phase != PHASE_OWNED:
            return False
        gone = self._claims.is_gone(claim.owner, claim.incarnation, now)
        return gone is False and not self._claims.is_unnamed(gate, claim, UNSERVED_MS, now)

    def _watch(self, now: Now) -> None:
        """Remember gates with two owners, for those who look later."""
        disputes = self._claims.disputes
        for gate, names in enumerate(self.contenders(now), 1):
            if len(names) > 1:
                disputes.notice(gate, names, now)
        disputes.forget(now)
