"""What must hold when everything has healed: one state everywhere, and it tells what happened.

`convergence` says what still differs, or nothing (P1); `garbage` what should be gone; `unshared`
which gates are not served as they should be (P5); `verdict`
holds the record against the acknowledgements (P2) and against what physically happened (P3, P4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parkingd.core.events import FLAG_MERGED, Correction, Enter
from parkingd.core.ids import Dot
from parkingd.protocol.outcomes import GateList
from tests.sim.admissions import Acknowledged
from tests.sim.checkers import Checkers, is_joining
from tests.sim.history import Violation
from tests.sim.trace import dot_text, short

if TYPE_CHECKING:
    from parkingd.protocol.node import Node
    from tests.sim.cluster import Cluster
    from tests.sim.workload import Car, GateEvent, Workload


def convergence(cluster: Cluster) -> str | None:
    """What is not yet the same everywhere, in a few words."""
    nodes: list[tuple[str, Node]] = []
    for machine in cluster.machines:
        if machine.node is None:
            return f"{machine.name} is not running"
        nodes.append((machine.name, machine.node))
    first = nodes[0]
    for one in nodes:
        reason = _unfinished(*one) or _difference(*one, *first)
        if reason is not None:
            return reason
    return None


def _unfinished(name: str, node: Node) -> str | None:
    if node.lot is None:
        return f"{name} has no lot"
    if node.state.context.has_intervals():
        return f"{name} has holes: {node.state.context.intervals}"
    if not node.is_synced():
        return f"{name} says that it is not in sync"
    if node.durable_seq != node.own_seq:
        return f"{name} has not committed {node.own_seq}"
    if node.state.stays.early:
        return f"{name} keeps early removals {list(node.state.stays.early)[:5]}"
    return None


def _difference(name: str, node: Node, first_name: str, first: Node) -> str | None:
    if node.lot != first.lot:
        return f"{name} has lot {_lot_text(node.lot)}, {first_name} {_lot_text(first.lot)}"
    if node.state.context != first.state.context:
        return f"{name} holds {held(node)}, {first_name} {held(first)}"
    if node.state.root() != first.state.root():
        return f"the roots of {name} and {first_name} differ"
    if node.state.stays.visible_count != first.state.stays.visible_count:
        return f"{name} counts {node.state.stays.visible_count}, not as {first_name}"
    if node.state.stays.conflicts.keys() != first.state.stays.conflicts.keys():
        return f"{name} lists other conflicts than {first_name}"
    return None


def garbage(cluster: Cluster) -> str | None:
    """Marks, and stays that only a mark hides, that are still kept somewhere.

    A stay may stay hidden behind another of its cause: a request that was recorded twice is one
    car, and both records leave when it does.
    """
    by_cause = cluster.checkers.history.by_cause
    for machine in cluster.machines:
        node = machine.node
        assert node is not None
        stays = node.state.stays
        if stays.marks_count():
            return f"{machine.name} keeps {stays.marks_count()} marks"
        if not stays.hidden_count():
            continue
        for plate in stays.plates():
            shown = stays.visible(plate)
            for stay in stays.stays_of(plate):
                siblings = by_cause.get(stay[5] or b"", ())
                plates = {sibling.plate for sibling in siblings}
                if stay not in shown and not any(stays.visible(other) for other in plates):
                    return f"{machine.name} keeps a hidden stay of {plate}"
    return None


def unshared(cluster: Cluster, lists: dict[str, GateList]) -> str | None:
    """Gates without exactly one owner, named alike by all, or unfairly shared out."""
    names = sorted(machine.name for machine in cluster.machines)
    missing = [name for name in names if name not in lists]
    if missing:
        return f"{missing} do not show their gates"
    first = lists[names[0]]
    for name in names:
        for row, same in zip(lists[name].items, first.items, strict=False):
            if row.state != "served" or row.claims != (row.owner,):
                return f"{name} shows gate {row.gate} as {row.state}: {row.claims}"
            if row != same:
                return f"{name} shows {row}, {names[0]} {same}"
        if len(lists[name].items) != len(first.items):
            return f"{name} shows {len(lists[name].items)} gates, {names[0]} {len(first.items)}"
    shares = {name: sum(row.owner == name for row in first.items) for name in names}
    if max(shares.values()) - min(shares.values()) > 1:
        return f"the gates are shared out unfairly: {shares}"
    return None


def held(node: Node) -> str:
    """The vector, short."""
    vector = node.state.context.vector
    return " ".join(f"{short(origin)}:{vector[origin]}" for origin in sorted(vector))


def audit_roots(cluster: Cluster) -> None:
    """Equal contexts without holes have equal roots, whatever was collected where."""
    seen: dict[tuple[tuple[int, int], ...], tuple[str, bytes]] = {}
    for machine in cluster.machines:
        node = machine.node
        if node is None or node.lot is None or node.state.context.has_intervals():
            continue
        if is_joining(node):
            continue
        vector = node.state.context.vector
        key = tuple(sorted((origin, upto) for origin, upto in vector.items() if upto))
        root = node.state.root()
        known = seen.setdefault(key, (machine.name, root))
        if known[1] != root:
            raise Violation(
                "root", f"{known[0]} and {machine.name} hold the same events and differ in roots"
            )


class Judge:
    """The healed cluster against acknowledgements and physics."""

    def __init__(self, cluster: Cluster, checkers: Checkers, workload: Workload) -> None:
        self.cluster = cluster
        self.checkers = checkers
        self.history = checkers.history
        self.workload = workload
        self.lot = next(machine.node.lot for machine in cluster.machines if machine.node)
        self.judged = 0
        self._merged: dict[str, int] = {}
        for event in self.history.events.values():
            body = event.body
            if isinstance(body, Enter) and body.flags & FLAG_MERGED:
                self._merged[body.plate] = max(self._merged.get(body.plate, 0), event.time)

    def verdict(self) -> None:
        """Raise the first promise that was broken."""
        for machine in self.cluster.machines:
            node = machine.node
            assert node is not None
            for plate in self._all_plates():
                self.checkers.check_plate(machine, node, plate)
            self._check_acknowledged(machine.name, node)
            self._check_carried(machine.name, node)
            self._check_imports(machine.name, node)
            for twin in self.workload.twins:
                self._check_twins(machine.name, node, twin)
            if self.cluster.options.physical:
                for car in self.workload.cars:
                    self._check_car(machine.name, node, car)

    def _all_plates(self) -> list[str]:
        return sorted({*self.history.stays, *self.history.exits})

    def survives(self, one: Acknowledged) -> bool:
        """Whether the disk that acknowledged it is still there, and its lot too."""
        machine = self.cluster.machines[one.machine]
        origin, seq = one.dot
        if machine.disk_age != one.disk_age or self.checkers.lot_of.get(origin) != self.lot:
            return False
        seals = self.history.seals.get(origin)
        node = self.cluster.machines[0].node
        assert node is not None
        return not seals or not self.history.is_void(node.state.context, origin, seq)

    # --- P2 -----------------------------------------------------------------------------------

    def _check_acknowledged(self, name: str, node: Node) -> None:
        context = node.state.context
        for one in self.checkers.acknowledged:
            if self.survives(one) and not context.contains(*one.dot):
                text = dot_text(one.dot)
                raise Violation("P2", f"{name} lacks {text}, acknowledged by n{one.machine}", text)

    def _check_carried(self, name: str, node: Node) -> None:
        context = node.state.context
        for carried in self.checkers.carried:
            if self.cluster.machines[carried.machine].disk_age != carried.disk_age:
                continue
            stays = self.history.by_cause.get(carried.cause, ())
            if any(self.history.holds(context, s.origin, s.seq) for s in stays):
                continue
            exits = self.history.exits.get(carried.plate, ())
            if any(self.history.holds(context, e.origin, e.seq) for e in exits):
                continue
            raise Violation(
                "P2", f"{name} lost {carried.plate}, inside in a younger lot", carried.plate
            )

    def _check_imports(self, name: str, node: Node) -> None:
        for row in self.workload.imported:
            if self.cluster.machines[row.machine].disk_age != row.disk_age:
                continue
            stays = self.history.by_cause.get(row.request, ())
            if any(
                self.history.is_void(node.state.context, stay.origin, stay.seq)
                or self.checkers.lot_of.get(stay.origin) != self.lot
                for stay in stays
            ):
                continue
            if len(node.state.stays.visible(row.plate)) != 1:
                raise Violation("P2", f"{name} lost the imported {row.plate}", row.plate)

    # --- P3, P9 -------------------------------------------------------------------------------

    def _surviving(self, event: GateEvent) -> list[Dot]:
        return [one.dot for one in event.acknowledged if self.survives(one)]

    def _check_car(self, name: str, node: Node, car: Car) -> None:
        """The last gate event decides, if it is on record for sure."""
        if not car.events:
            return
        last = car.events[-1]
        if not last.happened:
            return  # It asked, and no barrier opened for it: there may be a record or not.
        dots = self._surviving(last)
        if not dots:
            return
        event = self.history.events[dots[0]]
        if self._merged.get(car.plate, 0) > event.time:
            return  # Recorded anew after it left: the two lots knew nothing of each other.
        self.judged += 1
        causes = self._visible_causes(node, car.plate)
        if not last.entering:
            if causes:
                raise Violation("P3", f"{name} shows {car.plate}, which has left", car.plate)
            return
        if last.request not in causes:
            raise Violation("P3", f"{name} does not show {car.plate}, which is inside", car.plate)
        before = car.events[-2] if len(car.events) > 1 else None
        clean = before is None or (
            before.recorded and before.happened and bool(self._surviving(before))
        )
        if clean and car.plate not in self._merged and len(causes) != 1:
            raise Violation("P3", f"{name} shows {car.plate} {len(causes)} times", car.plate)

    def _visible_causes(self, node: Node, plate: str) -> list[bytes]:
        causes = []
        for stay in node.state.stays.visible(plate):
            body = self.history.events[(stay[1], stay[0])].body
            assert isinstance(body, Enter | Correction)
            causes.append(body.cause or b"")
        return causes

    # --- P4 -----------------------------------------------------------------------------------

    def _check_twins(self, name: str, node: Node, twin: Car) -> None:
        """Both are shown unless one saw the other; shown twice means listed as a conflict."""
        dots = [self._surviving(event) for event in twin.events]
        if len(dots) < 2 or not all(dots):
            return
        causes = self._visible_causes(node, twin.plate)
        # A request that was repeated elsewhere has two dots, and either of them may have seen.
        firsts, seconds = (self._recorded_as(event.request) for event in twin.events[:2])
        if any(self._saw(a, b) or self._saw(b, a) for a in firsts for b in seconds):
            return
        for event in twin.events:
            if event.request not in causes:
                raise Violation("P4", f"{name} hides one of the two {twin.plate}", twin.plate)
        if twin.plate not in node.state.stays.conflicts:
            raise Violation("P4", f"{name} does not list {twin.plate} as a conflict", twin.plate)

    def _recorded_as(self, request: bytes) -> list[Dot]:
        return [
            dot
            for dot, event in self.history.events.items()
            if isinstance(event.body, Enter) and event.body.cause == request
        ]

    def _saw(self, earlier: Dot, later: Dot) -> bool:
        body = self.history.events[later].body
        return isinstance(body, Enter) and earlier in body.covers


def _lot_text(lot: bytes | None) -> str:
    return lot.hex()[:16] if lot is not None else "none"
