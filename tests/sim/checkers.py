"""What must hold, looked at after every verb of every node, and once more when all has healed.

Incremental: the context of a node is compared with what it was (a handful of numbers); only new
dots, and only the plates they touch, are looked at again. Checked at every step:

  dot uniqueness   one dot has one payload, ever
  context          holds only dots that somebody minted (or a seal voided), and never shrinks
  view             equals the reference function of the own context, for each touched plate, and a
                   plate shown more than once is listed as a conflict (P3, P4, P9)
  commit first     no message and no reply names an own event that is not on the own disk
  seal             a seal leaves out nothing that a replica which must be asked holds
  survival         a disk that comes back still holds what it acknowledged (P2)

and from time to time: equal contexts without holes have equal roots. What is said of gates, of
members and of cars that ask is judged in `owners`, `deaths` and `admissions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from parkingd.core.causal import CausalContext, Span
from parkingd.core.events import Claim, Enter, Event, Exit, Seal, Setting
from parkingd.core.ids import Dot, ReplicaId
from parkingd.core.records import STAY_FIELDS
from parkingd.core.stays import stay_cause
from parkingd.protocol import codec, messages, outcomes
from parkingd.protocol.effects import (
    Effects,
    Publish,
    Reply,
    Send,
    StartOver,
    StoredState,
)
from tests.sim.admissions import Acknowledged, Admissions
from tests.sim.deaths import Deaths
from tests.sim.history import History, Violation, sealed_in
from tests.sim.owners import Owners
from tests.sim.tellings import Tellings
from tests.sim.trace import dot_text, event_text, short

if TYPE_CHECKING:
    from parkingd.protocol.node import Node
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine


LEARNED: Final = (Claim, Setting)
"""Kinds of events that decide about gates."""


class Carried(NamedTuple):
    """A stay that a younger lot's node takes along."""

    cause: bytes
    plate: str
    machine: int
    disk_age: int


@dataclass(slots=True)
class View:
    """What a node's context was when it was last looked at."""

    vector: dict[ReplicaId, int]
    intervals: dict[ReplicaId, list[Span]]


class Checkers:
    """All of them, for one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.history = History(codec.unpack_event_untrusted)
        self.acknowledged: list[Acknowledged] = []
        self.carried: list[Carried] = []
        self.lot_of: dict[ReplicaId, bytes] = {}
        self._committed: dict[ReplicaId, int] = {}
        self._views: dict[int, View] = {}
        self.looked = 0
        self.owners = Owners(cluster)
        self.deaths = Deaths(cluster)
        self.admissions = Admissions(cluster)
        self.tellings = Tellings()

    @property
    def vouched(self) -> dict[bytes, list[Acknowledged]]:
        """By request: the records of entries that disks vouch for."""
        return self.admissions.vouched

    # --- around a verb ---------------------------------------------------------------------------

    def before_effects(self, machine: Machine, effects: Effects) -> None:
        """What the verb minted becomes known; what it lets out is checked."""
        persist, outgoing, replies, notices, occurrences, _ = effects
        for batch in persist:
            if batch.wipe:
                self._forget(machine)
            for run in batch.runs:
                self._see_run(machine, run, to_disk=True)
        for each in outgoing:
            if isinstance(each, Publish):
                self._check_message(machine, each.message)
            elif isinstance(each, Send):
                self._check_message(machine, each.message)
                self.admissions.sent(machine, each)
        for reply in replies:
            self._check_reply(machine, reply)
        if occurrences:
            self.tellings.told(machine, occurrences)
        if notices:
            self.deaths.noticed(machine, notices)

    def after_verb(self, machine: Machine, node: Node) -> None:
        """The view must follow from the context."""
        context = node._shared.replica.state.context
        view = self._views.get(machine.index)
        if view is None:
            view = self._views[machine.index] = View({}, {})
        elif context.vector == view.vector and context.intervals == view.intervals:
            self.owners.after_verb(machine, node)
            return
        if is_joining(node):
            return
        plates = self._new_dots(machine, context, view)
        view.vector = dict(context.vector)
        view.intervals = {origin: list(spans) for origin, spans in context.intervals.items()}
        for plate in plates:
            self.check_plate(machine, node, plate)
        self.owners.after_verb(machine, node)

    def _new_dots(self, machine: Machine, context: CausalContext, view: View) -> dict[str, None]:
        plates: dict[str, None] = {}
        for origin, upto in context.vector.items():
            before = view.vector.get(origin, 0)
            if upto < before:
                raise Violation(
                    "context", f"{machine.name} forgot {short(origin)} above {upto}, had {before}"
                )
            if upto > before:
                for seq in range(before + 1, upto + 1):
                    self._new_dot(machine, context, origin, seq, plates)
        if context.intervals != view.intervals:
            for origin, spans in context.intervals.items():
                known = {
                    n
                    for first, last in view.intervals.get(origin, ())
                    for n in range(first, last + 1)
                }
                for first, last in spans:
                    for seq in range(first, last + 1):
                        if seq not in known:
                            self._new_dot(machine, context, origin, seq, plates)
        self._check_lot(machine, context)
        return plates

    def _new_dot(
        self,
        machine: Machine,
        context: CausalContext,
        origin: ReplicaId,
        seq: int,
        plates: dict[str, None],
    ) -> None:
        event = self.history.events.get((origin, seq))
        if event is None:
            if self.history.is_void(context, origin, seq):
                return
            raise Violation(
                "context",
                f"{machine.name} holds {dot_text((origin, seq))}, which nobody minted",
                dot_text((origin, seq)),
            )
        if isinstance(event.body, LEARNED) and self.history.holds(context, origin, seq):
            self.owners.learned(machine, event)
        plates.update(self.history.plates_of(event))

    def _check_lot(self, machine: Machine, context: CausalContext) -> None:
        node = machine.node
        lot = node.lot if node is not None else None
        if lot is None:
            return
        for origin in context.vector:
            if self.lot_of.setdefault(origin, lot) != lot:
                raise Violation("lot", f"{machine.name} mixes in {short(origin)} of another lot")

    def check_plate(self, machine: Machine, node: Node, plate: str) -> None:
        """One plate of one node against the reference function."""
        self.looked += 1
        stays = node.state.stays
        shown = {(stay[1], stay[0]) for stay in stays.visible(plate)}
        expected = self.history.visible(node.state.context, plate)
        if shown != expected:
            raise Violation(
                "view",
                f"{machine.name} shows {_dots_text(shown)} for {plate},"
                f" its context says {_dots_text(expected)}",
                plate,
            )
        if (plate in stays.conflicts) != (len(shown) > 1):
            raise Violation(
                "conflict",
                f"{machine.name} shows {plate} {len(shown)} times, and lists it wrongly",
                plate,
            )

    # --- what leaves a node ----------------------------------------------------------------------

    def _see_run(self, machine: Machine, run: messages.Run, *, to_disk: bool) -> None:
        own = run.origin == machine.replica
        packed_of = self.history.packed
        for offset, packed in enumerate(run.events):
            seq = run.first + offset
            if own and to_disk:
                event = self.history.see(machine.name, run.origin, seq, packed)
                if event is not None:
                    self._check_minted(machine, event)
                continue
            known = packed_of.get((run.origin, seq))
            if known != packed:
                what = "which nobody minted" if known is None else "with another payload"
                text = dot_text((run.origin, seq))
                raise Violation("dot uniqueness", f"{machine.name} has {text}, {what}", text)
        if own and not to_disk:
            self._must_be_durable(machine, run.last, "a delta")

    def _check_minted(self, machine: Machine, event: Event) -> None:
        if self._cluster.trace is not None:
            self._cluster.say(machine, "mint", event_text(event))
        match event.body:
            case Seal() as seal:
                self._check_seal(machine, seal)
            case Claim() as claim:
                self.owners.minted(machine, event, claim)
            case Enter() | Exit():
                self.admissions.minted(machine, event)
            case _:
                pass

    def _check_seal(self, machine: Machine, seal: Seal) -> None:
        """All that the rest of the roster holds of a replica must outlive its being let go."""
        node = machine.node
        assert node is not None
        state = node.state
        asked = set(state.roster.members(state.context.vector, state.record.seals))
        asked.difference_update(state.record.fences)
        for other in self._cluster.running():
            assert other.node is not None
            if other.replica not in asked:
                continue
            context = other.node.state.context
            for seq in range(1, context.highest(seal.replica) + 1):
                dot = (seal.replica, seq)
                if sealed_in(seal, seq) or dot not in self.history.events:
                    continue
                if self.history.holds(context, *dot):
                    raise Violation(
                        "seal",
                        f"{machine.name} seals {short(seal.replica)} without {dot_text(dot)},"
                        f" which {other.name} holds",
                        dot_text(dot),
                        short(seal.replica),
                    )

    def _must_be_durable(self, machine: Machine, seq: int, what: str) -> None:
        if seq > machine.durable_seq:
            raise Violation(
                "commit first",
                f"{machine.name} names its own {seq} in {what}, its disk is at"
                f" {machine.durable_seq}",
                dot_text((machine.replica, seq)),
            )

    def _check_context(self, machine: Machine, context: messages.ContextWire, what: str) -> None:
        for origin, upto, intervals in context:
            if origin == machine.replica:
                last = intervals[-1][1] if intervals else upto
                self._must_be_durable(machine, last, what)
                return

    def _check_message(self, machine: Machine, message: messages.Message) -> None:
        if isinstance(message, messages.Heartbeat):
            self._must_be_durable(machine, message.head, "a heartbeat")
            self.deaths.beat(machine, message)
            return
        what = f"a {type(message).__name__}"
        for run in getattr(message, "runs", ()):
            self._see_run(machine, run, to_disk=False)
        for context in (getattr(message, "context", None), getattr(message, "durable", None)):
            if context is not None:
                self._check_context(machine, context, what)
        match message:
            case messages.SnapshotRequest():
                self._must_be_durable(machine, message.join_seq, what)
            case messages.Goodbye():
                self._must_be_durable(machine, message.final_seq, what)
            case messages.FenceReport():
                self._check_context(machine, (message.held,), what)
            case _:
                pass

    def _check_reply(self, machine: Machine, reply: Reply) -> None:
        outcome = reply.outcome
        dots: tuple[Dot, ...] = ()
        match outcome:
            case outcomes.Entry() | outcomes.Exit():
                dots = (outcome.dot,)
                self._acknowledge(machine, outcome.dot)
            case outcomes.Change():
                dots = outcome.created
                for dot in dots:
                    self._acknowledge(machine, dot)
            case outcomes.Decision():
                self.admissions.replied(machine, outcome)
            case outcomes.Vehicle() | outcomes.VehicleList():
                dots = tuple((row[4], row[5]) for row in outcome.rows)
                if machine.storage_failing:
                    dots = ()  # Reads go on, with a warning.
            case outcomes.LogPage():
                dots = tuple((row[0], row[1]) for row in outcome.rows)
            case _:
                return
        for origin, seq in dots:
            if origin == machine.replica:
                self._must_be_durable(machine, seq, f"a {type(outcome).__name__}")
            if (origin, seq) not in self.history.events:
                raise Violation(
                    "context", f"{machine.name} answers with {dot_text((origin, seq))}, unknown"
                )

    def _acknowledge(self, machine: Machine, dot: Dot) -> None:
        self.acknowledged.append(
            Acknowledged(dot, machine.index, machine.disk_age, self._cluster.time_ms)
        )

    # --- around a process ------------------------------------------------------------------------

    def loaded(self, machine: Machine, stored: StoredState) -> None:
        """A disk hands out what it kept: a torn commit may have been whole."""
        for run in stored.runs:
            for offset, packed in enumerate(run.events):
                dot = (run.origin, run.first + offset)
                if dot not in self.history.packed and run.origin == stored.replica:
                    self.history.see(machine.name, *dot, packed)
                elif self.history.packed.get(dot) != packed:
                    raise Violation(
                        "dot uniqueness",
                        f"the disk of {machine.name} has a strange {dot_text(dot)}",
                        dot_text(dot),
                    )

    def started(self, machine: Machine) -> None:
        """A new process knows everything that this disk acknowledged, and shows it rightly."""
        node = machine.node
        assert node is not None
        self._forget(machine)
        self.after_verb(machine, node)
        for one in self.acknowledged:
            if one.machine == machine.index and one.disk_age == machine.disk_age:
                self._must_hold(machine, node, one)

    def died(self, machine: Machine) -> None:
        """What was minted and never committed has not happened."""
        self._views.pop(machine.index, None)
        self.owners.closed(machine)
        self.deaths.closed(machine)
        # A disk may have been set back since: what it once committed has happened all the same.
        committed = max(machine.durable_seq, self._committed.get(machine.replica, 0))
        self._committed[machine.replica] = committed
        self.history.take_back(machine.replica, committed)
        if not committed:
            self.lot_of.pop(machine.replica, None)

    def _forget(self, machine: Machine) -> None:
        """All that the node holds is looked at again."""
        self._views.pop(machine.index, None)
        self.owners.forgotten(machine)

    def started_over(self, machine: Machine, end: StartOver) -> None:
        """What a node takes along from the lot it leaves must be found in the other."""
        for packed in end.pending:
            stay = codec.unpack_record_untrusted(packed)
            if len(stay) == STAY_FIELDS:
                cause = stay_cause(stay)
                age = machine.disk_age + 1
                self.carried.append(Carried(cause, stay[3], machine.index, age))

    def _must_hold(self, machine: Machine, node: Node, one: Acknowledged) -> None:
        context = node.state.context
        if context.contains(*one.dot):
            return
        if self.lot_of.get(one.dot[0]) != node.lot or one.dot[0] in self.history.seals:
            return  # Judged by `final`: it came along under its cause, or was let go by hand.
        raise Violation(
            "P2",
            f"{machine.name} lacks {dot_text(one.dot)}, acknowledged by"
            f" n{one.machine} at {one.time_ms / 1000:.3f}",
            dot_text(one.dot),
        )

    def message_text(self, message: messages.Message) -> str:
        """The events and contexts in a message, for the trace."""
        runs = getattr(message, "runs", ())
        parts = [f"{short(run.origin)}.{run.first}-{run.last}" for run in runs]
        context = getattr(message, "context", None)
        if context is not None:
            held = " ".join(f"{short(o)}:{upto}{spans or ''}" for o, upto, spans in context)
            parts.append(f"[{held}]")
        return " ".join(parts) or repr(message)[:160]


def is_joining(node: Node) -> bool:
    """A snapshot is being joined, slice by slice: the view means nothing until it is done."""
    return node._snapshots.is_joining


def _dots_text(dots: set[Dot]) -> str:
    return "{" + ", ".join(dot_text(dot) for dot in sorted(dots)) + "}"
