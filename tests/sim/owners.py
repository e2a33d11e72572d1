"""Who serves which gate in truth, and whether the claims to it are right.

Every claim is looked at when it is minted, and the gates of a node are looked at again only when
it has learned of a claim or may serve no more. Checked:

  P5  in a view that all its members share, and that has been calm for the detection time, every
      gate has one owner; only a gate that moves has none, for as long as a message and two commits
      take. A node that leaves such a view leaves no gate behind.
  P5  nobody claims a gate from an owner that lives, serves it, and can be heard by everybody.
  P6  no fence stands for two incarnations, and a node shows the greatest claim of its own context,
      so that what it shows never falls.
  P5  a gate moves at most every 5 s, and not to a node that has just started.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from parkingd.core.events import Claim, Event
from parkingd.core.gates import PHASE_RELEASED, Fence, fence_of
from parkingd.core.ids import HybridTime, ReplicaId
from parkingd.protocol.members import MemberState
from parkingd.protocol.strangers import has_asked
from tests.sim.history import Violation
from tests.sim.views import Shared, Views

if TYPE_CHECKING:
    from parkingd.protocol.node import Node
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

LOOK_MS: Final = 250
"""How often views are compared."""

NONE: Final = frozenset[int]()

DRIFT: Final = 0.998
"""Clocks differ by up to 500 ppm each: what a node waits may be a little less in truth."""


class Claimant(NamedTuple):
    """Who a fence stands for."""

    name: str
    incarnation: int


class Greatest(NamedTuple):
    """A claim as claims are compared."""

    fence: Fence
    time: HybridTime
    origin: ReplicaId


class Made(NamedTuple):
    """A claim and when it was made."""

    time_ms: int
    event: Event
    claim: Claim


@dataclass(slots=True)
class Served:
    """What one process serves, and what decides about it."""

    learned: int
    is_barred: bool
    ahead: frozenset[int]
    """Gates that others serve under claims which it has only heard of."""
    gates: frozenset[int]


class Owners:
    """The gates of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._claimants: dict[tuple[int, Fence], Claimant] = {}
        self._made: dict[int, list[Made]] = {}
        """By gate, in the order in which they were made."""
        self._greatest: list[dict[int, Greatest]] = [{} for _ in range(cluster.options.nodes)]
        self._learned = [0] * cluster.options.nodes
        self._served: dict[int, Served] = {}
        self._woken: dict[int, int] = {}
        """Machines that slept for long -> the exchanges they had had when they woke."""
        self._since_ms: dict[tuple[int, int], int] = {}
        """(machine, gate) -> since when it serves it."""
        self._views = Views(cluster)
        self._calm: dict[Shared, int] = {}
        """Since when each view has been shared and calm."""
        self._odd: dict[tuple[Shared, int], tuple[int, int]] = {}
        """(view, gate) -> owners it has that are not one, and since when."""
        options = cluster.options
        self._slack_ms = 400 + 4 * (options.delay_ms + 3 * options.delay_mean_ms)
        self._slack_ms += 8 * max(options.commit_ms, options.slow_disk_ms)
        if options.loss or options.reorder or options.duplication:
            self._slack_ms += 3_000
        self._calm_ms = 3_000 + self._slack_ms
        self.claims = 0
        self.moves = 0
        self.looked = 0
        cluster.at(LOOK_MS, self._look)

    def claimant(self, gate: int, fence: Fence) -> Claimant | None:
        """Who claimed this gate with this fence."""
        return self._claimants.get((gate, fence))

    # --- claims --------------------------------------------------------------------------------

    def minted(self, machine: Machine, event: Event, claim: Claim) -> None:
        """A node has made a claim: may it?"""
        node = machine.node
        assert node is not None
        self.claims += 1
        who = Claimant(claim.owner, claim.incarnation)
        if who != (machine.name, machine.incarnation):
            raise Violation("P6", f"{machine.name} claims in the name of {who}", _gate_text(claim))
        fence = fence_of(claim)
        known = self._claimants.setdefault((claim.gate, fence), who)
        if known != who:
            raise Violation(
                "P6",
                f"{fence} of gate {claim.gate} stands for {known} and {who}",
                _gate_text(claim),
            )
        known = self._known(machine, claim.gate)
        before = max(known, key=_rank).claim if known else None
        made = Made(self._cluster.time_ms, event, claim)
        self._made.setdefault(claim.gate, []).append(made)
        if claim.phase == PHASE_RELEASED:
            if not node._leaving.is_leaving:
                self._check_move(machine, claim, known)
            return
        is_handed_over = before is not None and before.phase == PHASE_RELEASED
        is_handed_over = is_handed_over and machine.name in (before.target, before.owner)
        if not is_handed_over:
            self._check_taken(machine, claim, before)

    def _known(self, machine: Machine, gate: int) -> list[Made]:
        """The claims to this gate that the machine has learned of, or made."""
        assert machine.node is not None
        context = machine.node.state.context
        history = self._cluster.checkers.history
        return [
            made
            for made in self._made.get(gate, ())
            if history.events.get(made.event[:2]) is made.event
            and history.holds(context, *made.event[:2])
        ]

    def _check_move(self, machine: Machine, claim: Claim, known: list[Made]) -> None:
        """Damping: moves are rare, and not to who has just come."""
        self.moves += 1
        cluster, settings = self._cluster, machine.settings
        changed_ms = None
        for earlier, later in pairwise(sorted(known, key=_rank)):
            if _who(earlier.claim) != _who(later.claim):
                changed_ms = later.time_ms
        passed_ms = None if changed_ms is None else cluster.time_ms - changed_ms
        if passed_ms is not None and passed_ms < settings.move_pause_ms * DRIFT:
            raise Violation(
                "P5",
                f"{machine.name} moves gate {claim.gate} {passed_ms} ms after it had moved",
                _gate_text(claim),
            )
        target = next((m for m in cluster.running() if m.name == claim.target), None)
        if target is not None and not target.starting_over:
            lived_ms = cluster.time_ms - target.started_ms
            is_young = lived_ms < settings.young_ms * DRIFT
            if is_young and not self._takes_for_old(machine, target, lived_ms):
                raise Violation(
                    "P5",
                    f"{machine.name} moves gate {claim.gate} to {target.name},"
                    f" which began {lived_ms} ms ago",
                    _gate_text(claim),
                )

    def _takes_for_old(self, machine: Machine, target: Machine, lived_ms: int) -> bool:
        """It has not heard that this one began anew, and could not: it was cut off or slept, or
        even the silence of the one before is shorter than what makes a node suspect."""
        assert machine.node is not None
        known = machine.node._shared.members.get(target.name)
        if known is not None and known.incarnation == target.incarnation:
            return False
        up_ms = self._cluster.network.up_ms
        linked_ms = min(up_ms(target.index, machine.index), up_ms(machine.index, target.index))
        awake_ms = self._cluster.time_ms - machine.awake_ms
        is_cut_off = min(linked_ms, awake_ms) < lived_ms
        return is_cut_off or lived_ms < machine.settings.suspect_after_ms

    def _check_taken(self, machine: Machine, claim: Claim, before: Claim | None) -> None:
        """Nobody may be serving this gate whom everybody can hear; but for one who does not know
        yet that a greater claim has come back from a disk."""
        if self._cluster.options.loss > 0.05:
            return
        for index in self._owners(claim.gate):
            owner = self._cluster.machines[index]
            serves_ms = self._cluster.time_ms - self._since_ms[index, claim.gate]
            if owner is machine or serves_ms < self._calm_ms:
                continue
            if owner.node is None or machine.node is None or owner.node.lot != machine.node.lot:
                continue
            serving = owner.node.state.record.claim(claim.gate)
            assert serving is not None
            if before is not None and fence_of(before) > fence_of(serving):
                continue
            if self._is_quiet(machine):
                raise Violation(
                    "P5",
                    f"{machine.name} takes gate {claim.gate} from {owner.name}, which has served it"
                    f" for {serves_ms} ms and can be heard",
                    _gate_text(claim),
                )

    def _is_quiet(self, newcomer: Machine) -> bool:
        """Everybody but the newcomer has been awake for long, and all links are good."""
        running = self._cluster.running()
        are_calm = all(machine is newcomer or self._is_calm(machine) for machine in running)
        return are_calm and self._have_links(frozenset(machine.index for machine in running))

    def _have_links(self, members: frozenset[int]) -> bool:
        """All links among these have been up for long."""
        since_ms = self._cluster.network.linked_since_ms(members)
        return since_ms is not None and self._cluster.time_ms - since_ms >= self._calm_ms

    def _is_calm(self, machine: Machine) -> bool:
        cluster = self._cluster
        return (
            machine.is_up
            and not machine.slow_ms
            and not machine.storage_failing
            and not machine.disk_full
            and not cluster.network.deaf
            and cluster.time_ms - machine.awake_ms >= self._calm_ms
        )

    # --- what nodes know -----------------------------------------------------------------------

    def learned(self, machine: Machine, event: Event) -> None:
        """A claim, or a setting, is in the context of this node now."""
        self._learned[machine.index] += 1
        claim = event.body
        if not isinstance(claim, Claim):
            return
        greatest = self._greatest[machine.index]
        found = Greatest(fence_of(claim), event.time, event.origin)
        if claim.gate not in greatest or greatest[claim.gate] < found:
            greatest[claim.gate] = found

    def forgotten(self, machine: Machine) -> None:
        """The node begins anew: what it knows is learned again."""
        self._greatest[machine.index] = {}
        self._learned[machine.index] += 1

    def after_verb(self, machine: Machine, node: Node) -> None:
        """Has it learned of a claim, or may it serve no more?"""
        gates, shared, index = node._gates, node._shared, machine.index
        if self._woken and index in self._woken:
            self._check_woken(machine, node)
        is_barred = gates.is_stopped or shared.replica.failing or bool(shared.name_refusals)
        named = gates._hearsay._named
        ahead = frozenset(named) if named else NONE
        learned = self._learned[index]
        served = self._served.get(index)
        if (
            served is not None
            and served.learned == learned
            and served.is_barred is is_barred
            and served.ahead == ahead
        ):
            return
        if served is None or served.learned != learned:
            self._check_greatest(machine, node)
        now = frozenset(gates.served())
        before = served.gates if served is not None else frozenset()
        for gate in now - before:
            self._since_ms[machine.index, gate] = self._cluster.time_ms
        self._served[machine.index] = Served(learned, is_barred, ahead, now)

    def woke(self, machine: Machine) -> None:
        """It runs on. After a long pause it may serve nothing until it has exchanged."""
        slept_ms = self._cluster.time_ms - machine.asleep_ms
        if machine.node is not None and slept_ms > machine.settings.pause_stop_ms / DRIFT:
            self._woken[machine.index] = machine.node._replication.full_exchanges

    def _check_woken(self, machine: Machine, node: Node) -> None:
        has_exchanged = node._replication.full_exchanges > self._woken[machine.index]
        up = (MemberState.ALIVE, MemberState.SUSPECT)
        others = [m for m in node.members if m.lot == node.lot and m.state in up]
        if has_exchanged or not others:
            del self._woken[machine.index]
        elif node._gates.served():
            raise Violation(
                "P6", f"{machine.name} has just woken and serves {node._gates.served()}"
            )

    def _check_greatest(self, machine: Machine, node: Node) -> None:
        for gate, expected in self._greatest[machine.index].items():
            event = node.state.record.claim_event(gate)
            claim = node.state.record.claim(gate)
            if event is None or claim is None:
                shown = None
            else:
                shown = Greatest(fence_of(claim), event.time, event.origin)
            if shown != expected:
                raise Violation(
                    "P6",
                    f"{machine.name} shows {shown} at gate {gate}, its context has {expected}",
                    f"gate={gate}",
                )

    def closed(self, machine: Machine) -> None:
        """Its process has ended."""
        self._woken.pop(machine.index, None)
        self._served.pop(machine.index, None)
        self.forgotten(machine)

    def count(self) -> int:
        """How many nodes serve a gate just now."""
        return sum(1 for served in self._served.values() if served.gates)

    def _owners(self, gate: int) -> list[int]:
        return [index for index, served in self._served.items() if gate in served.gates]

    # --- views ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Compare the views, and count the owners in those that are shared."""
        cluster = self._cluster
        views, calm = self._views, self._calm
        self._calm = {
            view: max(calm.get(view, cluster.time_ms), views.calm_since_ms(view))
            for view in views.shared()
        }
        odd: dict[tuple[Shared, int], tuple[int, int]] = {}
        for view, since_ms in self._calm.items():
            if cluster.time_ms - since_ms < self._calm_ms:
                continue
            self.looked += 1
            is_mute = self._is_mute(view)
            for gate in range(1, view.gates + 1):
                owners = [index for index in self._owners(gate) if index in view.members]
                if len(owners) == 1 or (is_mute and not owners):
                    continue
                if owners or not self._is_owner_heard(view, gate):
                    odd[view, gate] = self._still_odd(view, gate, owners)
        self._odd = odd
        cluster.at(cluster.time_ms + LOOK_MS, self._look)

    def _still_odd(self, view: Shared, gate: int, owners: list[int]) -> tuple[int, int]:
        time_ms = self._cluster.time_ms
        count, since_ms = self._odd.get((view, gate), (len(owners), time_ms))
        if count != len(owners):
            since_ms = time_ms
        if time_ms - since_ms > self._slack_ms:
            names = [self._cluster.machines[index].name for index in owners]
            raise Violation(
                "P5",
                f"gate {gate} is served by {names or 'nobody'} for {time_ms - since_ms} ms in a"
                f" view that {sorted(name for name, _ in view.incarnations)} share",
                f"gate={gate}",
            )
        return len(owners), since_ms

    def _is_owner_heard(self, view: Shared, gate: int) -> bool:
        """Who serves it is not in this view, for its answers to hellos are lost, but has just asked
        one of these something: so it lives, and nobody here may claim its gate. Nor if it has
        released the gate since, and that is lost as well."""
        machines = self._cluster.machines
        there = (machines[index] for index in self._owners(gate))
        owners = {(machine.name, machine.incarnation) for machine in there}
        made = max(self._made.get(gate, ()), key=_rank, default=None)
        if made is not None and made.claim.phase == PHASE_RELEASED:
            owners.add((made.claim.owner, made.claim.incarnation))
        for name, incarnation in owners:
            for machine in (machines[index] for index in view.members):
                assert machine.node is not None
                known = machine.node._membership._strangers.get(name, incarnation)
                now = machine.clock.now(self._cluster.time_ms)
                if known is not None and has_asked(known, now):
                    return True
        return False

    def _is_mute(self, view: Shared) -> bool:
        """Nobody in it may mint: each has come to a lot of others, none of whom has told it that
        its join is on a disk (DESIGN section 4), and who could tell is not there."""
        machines = [self._cluster.machines[index] for index in view.members]
        return all(self._is_unknown(machine, machines) for machine in machines)

    def _is_unknown(self, machine: Machine, there: list[Machine]) -> bool:
        node = machine.node
        if node is None or node._shared.replica.is_join_known or node._founding.founded_here:
            return False
        record, vector = node.state.record, node.state.context.vector
        roster = node.state.roster.members(vector, record.seals)
        if all(record.name_of(replica) == machine.name for replica in roster):
            return False
        others = (m.node for m in there if m is not machine)
        return not any(
            other is not None and other.state.context.contains(machine.replica, 1)
            for other in others
        )

    def left(self, machine: Machine) -> None:
        """It has left in good order: in a calm view nothing is left without an owner.

        The view has to be shared still. Views are compared four times a second, and a partition
        that has just healed may have ended it since: then whoever was cut off serves gates under
        greater claims, of which the others have heard and for which they have stepped down.
        """
        node = machine.node
        options = self._cluster.options
        if node is None or options.loss:
            return
        shared = self._views.shared()
        for view, since_ms in self._calm.items():
            others = view.members - {machine.index}
            if machine.index not in view.members or not others or view not in shared:
                continue
            calm_since_ms = max(since_ms, self._views.calm_since_ms(view))
            if self._cluster.time_ms - calm_since_ms < self._calm_ms:
                continue
            if any(self._is_going(index) for index in others):
                continue
            for gate in range(1, view.gates + 1):
                if self._is_handed_to(machine, gate):
                    continue
                if not any(index in others for index in self._owners(gate)):
                    raise Violation(
                        "P5",
                        f"{machine.name} leaves gate {gate} to nobody",
                        f"gate={gate}",
                    )

    def _is_handed_to(self, machine: Machine, gate: int) -> bool:
        """Another has just released this gate to it, before its word that it leaves was heard. It
        need not be the greatest claim: whoever made that may be in no view with these."""
        return any(
            made.claim.phase == PHASE_RELEASED
            and made.claim.target == machine.name != made.claim.owner
            and self._cluster.time_ms - made.time_ms <= self._slack_ms
            for made in self._made.get(gate, ())
        )

    def _is_going(self, index: int) -> bool:
        node = self._cluster.machines[index].node
        return node is None or node._leaving.is_leaving


def _who(claim: Claim) -> Claimant:
    return Claimant(claim.owner, claim.incarnation)


def _rank(made: Made) -> Fence:
    return fence_of(made.claim)


def _gate_text(claim: Claim) -> str:
    return f"gate={claim.gate}"
