"""Faults planted in the product, each of which the simulator must catch.

A checker that never fails checks nothing. Each plant replaces one function of the product by a
known mistake of the field (the names of those that were found the hard way elsewhere stand beside
them) while its context lasts; the product itself has no switch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from parkingd.core import gates, lot
from parkingd.core.causal import CausalContext
from parkingd.core.events import Event, Seal
from parkingd.core.gates import Barrier, Fence
from parkingd.core.records import MATCHED
from parkingd.core.roster import Roster
from parkingd.core.state import LotState
from parkingd.core.stays import Stays
from parkingd.protocol import entering, replication
from parkingd.protocol import gates as gate_keeping
from parkingd.protocol.admission import Admission
from parkingd.protocol.entering import Entering
from parkingd.protocol.forgetting import Fences
from parkingd.protocol.gates import Gates
from parkingd.protocol.journal import Journal
from parkingd.protocol.membership import Membership
from parkingd.protocol.node import Node
from parkingd.protocol.outbox import Replies
from parkingd.protocol.peering import Peering
from parkingd.protocol.replica import Replica
from parkingd.protocol.replication import Replication
from parkingd.protocol.snapshots import Snapshots
from tests.sim import owners
from tests.sim.disk import FakeDisk

PLANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}
"""Name -> the fault, by what is done wrong."""


def plant(act: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
    """Register a fault under the name of its function."""
    PLANTS[act.__name__.replace("_", "-")] = contextmanager(act)
    return act


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is ``value`` meanwhile."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@plant
def marks_only_on_blind_exits() -> Iterator[None]:
    """An exit that saw a stay leaves no mark: but there may be another that it did not see."""
    original = Stays.add_mark

    def add_mark(self: Stays, mark: Any, **rest: Any) -> None:
        if not mark[MATCHED]:
            original(self, mark, **rest)

    with replaced(Stays, "add_mark", add_mark):
        yield


@plant
def collection_against_the_live_view() -> Iterator[None]:
    """Whoever is not alive just now does not count."""
    live: dict[int, set[int]] = {}
    tick, members = Node.tick, Roster.members

    def watching(self: Node, now: Any) -> None:
        alive = {member.replica for member in self._shared.members.alive()}
        live[id(self.state.roster)] = {self.replica_id, *alive}
        tick(self, now)

    def living(self: Roster, *rest: Any) -> list[int]:
        return [r for r in members(self, *rest) if r in live.get(id(self), {r})]

    with replaced(Node, "tick", watching), replaced(Roster, "members", living):
        yield


@plant
def collection_after_silence() -> Iterator[None]:
    """Whoever has not been heard for ten seconds does not count (Phoenix.Tracker, chitchat)."""
    clocks: dict[int, int] = {}
    heard_at: dict[tuple[int, int], int] = {}
    tick, heard, members = Node.tick, Roster.heard, Roster.members

    def watching(self: Node, now: Any) -> None:
        clocks[id(self.state.roster)] = now.mono_ms
        tick(self, now)

    def hearing(self: Roster, replica: int, durable: Any) -> None:
        heard_at[id(self), replica] = clocks.get(id(self), 0)
        heard(self, replica, durable)

    def recent(self: Roster, *rest: Any) -> list[int]:
        limit = clocks.get(id(self), 0) - 10_000
        return [r for r in members(self, *rest) if heard_at.get((id(self), r), limit) > limit]

    with (
        replaced(Node, "tick", watching),
        replaced(Roster, "heard", hearing),
        replaced(Roster, "members", recent),
    ):
        yield


@plant
def collection_without_the_second_clause() -> Iterator[None]:
    """A mark goes when all have it, though what they minted before it may still be missing."""
    with replaced(Roster, "collectable", Roster.covered_by_all):
        yield


@plant
def chunks_applied_as_they_come() -> Iterator[None]:
    """A replica that is not empty joins a snapshot piece by piece, and goes on meanwhile."""
    receive_header = Snapshots.receive_header

    def streaming(self: Snapshots, sender: Any, header: Any, now: Any) -> None:
        receive_header(self, sender, header, now)
        receiving = self.receiving
        if receiving is not None and receiving.header is header:
            receiving.streams = True
            self._pause(False)

    def keeping(self: Replica) -> None:
        """What was joined of a broken-off snapshot stays."""

    with replaced(Snapshots, "receive_header", streaming), replaced(Replica, "wipe", keeping):
        yield


@plant
def seal_in_one_phase() -> Iterator[None]:
    """Whoever lets a replica go decides alone what existed of it."""
    forget = Fences.forget

    def at_once(self: Fences, handle: Any, name: str, now: Any) -> Any:
        outcome = forget(self, handle, name, now)
        if outcome is None:
            shared = self._shared
            for replica in self._requests[-1].replicas:
                if replica not in shared.replica.state.record.seals:
                    seal = Seal(*self._held(replica))
                    shared.replica.mint(seal, shared.physical_ms(now))
        return outcome

    with replaced(Fences, "forget", at_once):
        yield


@plant
def truncated_reply_with_full_context() -> Iterator[None]:
    """The context of a cut reply is merged as if all of its events had come (DeltaCrdt #65)."""
    receive_reply = Replication.receive_reply

    def merging(self: Replication, sender: Any, reply: Any, now: Any) -> None:
        receive_reply(self, sender, reply, now)
        if reply.more and reply.runs and not reply.behind and not self.is_paused:
            state = self._shared.replica.state
            for origin, upto, _ in reply.context:
                if origin != self._shared.replica_id and upto:
                    state.context.add_span(origin, 1, upto)

    with (
        replaced(Replication, "receive_reply", merging),
        replaced(replication, "RUN_BYTES_MAX", 400),
    ):
        yield


@plant
def dots_reused_after_disk_loss() -> Iterator[None]:
    """A new disk goes on under the old id, and does not ask how far it had come (riak_kv #679)."""
    crash = FakeDisk.crash

    def remembering(self: FakeDisk, rng: Any, *, keep: bool, torn: bool) -> None:
        replica = self._image.replica
        crash(self, rng, keep=keep, torn=torn)
        self._image.replica = replica

    def believing(self: Peering, sender: Any, hello: Any) -> None:
        self.own_seq_asked = True

    with (
        replaced(FakeDisk, "crash", remembering),
        replaced(Peering, "_compare_own_head", believing),
    ):
        yield


@plant
def reply_before_the_commit() -> Iterator[None]:
    """The client hears that it is done, and the disk has not."""

    def at_once(self: Replies, handle: int, outcome: Any, *, is_read: bool = False) -> None:
        self._outbox.reply(handle, outcome)

    with replaced(Replies, "answer", at_once):
        yield


@plant
def published_before_the_commit() -> Iterator[None]:
    """Others hear of an event that the next crash takes back."""

    def everything(self: Replica) -> CausalContext:
        return self.state.context

    with replaced(Replica, "shown_context", everything):
        yield


@plant
def removals_of_a_covered_event_skipped() -> Iterator[None]:
    """An event that was covered before it came is dropped with all that it covers."""
    apply = LotState.apply

    def forgetful(self: LotState, event: Event) -> Any:
        body: Any = event.body
        if event[:2] in self.stays.early and hasattr(body, "covers"):
            event = event._replace(body=body._replace(covers=()))
        return apply(self, event)

    with replaced(LotState, "apply", forgetful):
        yield


@plant
def early_removals_forgotten() -> Iterator[None]:
    """A removal that arrives before what it removes is lost."""
    cover = Stays.cover

    def only_known(self: Stays, plate: str, covers: Any, context: CausalContext) -> None:
        cover(self, plate, [dot for dot in covers if context.contains(*dot)], context)

    with replaced(Stays, "cover", only_known):
        yield


@plant
def no_confirmation() -> Iterator[None]:
    """Who hears nothing of a node for two seconds declares it dead, whatever others hear."""

    def alone(self: Membership, *rest: Any) -> bool:
        return True

    with replaced(Membership, "_is_confirmed", alone):
        yield


@plant
def refutation_without_raising_the_number() -> Iterator[None]:
    """A suspected node answers at once, and its answer looks like what was said before."""

    def answering(self: Membership, suspicion: Any) -> None:
        if suspicion.incarnation == self._shared.incarnation:
            self.beat_wanted = True

    with replaced(Membership, "_refute", answering):
        yield


@plant
def a_claim_before_the_first_exchange() -> Iterator[None]:
    """A node that knows nothing yet of who serves what claims what looks free to it."""
    with replaced(Node, "_may_claim", Node._may_mint):
        yield


@plant
def the_paused_node_that_accuses_everyone() -> Iterator[None]:
    """Who wakes takes its own silence for that of the others."""

    def unaware(self: Membership, now: Any) -> None:
        pass

    with replaced(Membership, "stood_still", unaware):
        yield


@plant
def epoch_not_checked_at_the_gate() -> Iterator[None]:
    """The barrier opens for whoever was once told to open it."""

    def open_to_all(self: Barrier, gate: int, fence: Any) -> bool:
        return True

    with replaced(Barrier, "admits", open_to_all):
        yield


@plant
def moves_without_damping() -> Iterator[None]:
    """Gates are shared out anew at every change of the view, and given to whoever is there."""
    share = Gates._share

    def always(self: Gates, *rest: Any) -> bool:
        return True

    def at_once(self: Gates, live: Any, now: Any) -> None:
        self._view_ms = now.mono_ms - self._shared.settings.stable_view_ms
        share(self, live, now)

    def served(self: Gates, gate: int, now: Any) -> bool:
        return self.served_under(gate) is not None

    with (
        replaced(Gates, "_may_receive", always),
        replaced(Gates, "_may_move", served),
        replaced(Gates, "_share", at_once),
    ):
        yield


@plant
def fence_without_the_incarnation() -> Iterator[None]:
    """A node that lost its disk claims under the very fence that it used before."""

    def forgetful(claim: Any) -> Fence:
        return Fence(claim.epoch, gates._weight(str(claim.gate), claim.owner), claim.owner)

    with (
        replaced(lot, "fence_of", forgetful),
        replaced(gate_keeping, "fence_of", forgetful),
        replaced(entering, "fence_of", forgetful),
        replaced(owners, "fence_of", forgetful),
    ):
        yield


@plant
def gates_go_on_after_a_pause() -> Iterator[None]:
    """Who stood still for a minute takes itself for the owner still, and asks nobody."""

    def nothing(self: Gates) -> None:
        """Goes on."""

    with replaced(Gates, "stop", nothing):
        yield


@plant
def leaving_without_a_hand_over() -> Iterator[None]:
    """A node that leaves in good order lets its gates stand there."""

    def nothing(self: Gates, now: Any) -> None:
        self.is_leaving = True

    def drained(self: Gates, now: Any) -> bool:
        return True

    def idle(self: Gates, live: Any, now: Any) -> None:
        """Nobody is given anything."""

    with (
        replaced(Gates, "leave", nothing),
        replaced(Gates, "is_drained", drained),
        replaced(Gates, "_hand_over", idle),
    ):
        yield


@plant
def an_enter_is_not_remembered() -> Iterator[None]:
    """A repeated question is a new question: one car, two records."""

    def never(self: Entering, car: Any) -> bool:
        return False

    with replaced(Entering, "_is_repeated", never):
        yield


@plant
def admission_without_counting() -> Iterator[None]:
    """Every owner gives away all the spaces that it sees."""

    def always(self: Admission, now: Any) -> bool:
        return True

    with replaced(Admission, "may_admit", always):
        yield


@plant
def lines_told_before_the_commit() -> Iterator[None]:
    """Whoever watches hears of what a crash may still undo."""
    original = Journal.persisted

    def persisted(self: Journal, token: int) -> Any:
        return original(self, token + 1_000)

    with replaced(Journal, "persisted", persisted):
        yield


__all__ = ["PLANTS", "plant", "replaced"]
