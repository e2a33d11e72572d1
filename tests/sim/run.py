"""One seed from beginning to end: two minutes of faults, then all is mended and must become one.

The digest of a run covers what every generator would draw next, every event that was minted, in
order, and the final roots: two runs of a seed agree in it or the simulator is not deterministic.
"""

from __future__ import annotations

import gc
import traceback
from dataclasses import dataclass
from hashlib import blake2b

from parkingd.core.ids import replica_hex
from parkingd.protocol import outcomes
from parkingd.protocol.commands import ForgetMember, ReadGates
from parkingd.protocol.effects import Reply
from tests.sim.arrivals import LastArrivals
from tests.sim.cluster import Cluster
from tests.sim.final import Judge, audit_roots, convergence, garbage, unshared
from tests.sim.history import Violation
from tests.sim.machine import Machine
from tests.sim.nemesis import COMMAND_WAIT_MS, Nemesis
from tests.sim.options import FAULTS_MS, HEAL_MS_MAX, Options, draw
from tests.sim.trace import Trace
from tests.sim.workload import Workload

PASSED = 0
CRASHED = 127
NOT_CONVERGED = 128
UNSAFE = 129

AUDIT_MS = 2_000

LAST_ARRIVALS_MS = 6_000

YOUNG = 0
"""The generation of what was made since the collector last ran."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a seed ended."""

    seed: int
    code: int
    text: str
    subjects: tuple[str, ...]
    digest: str
    virtual_ms: int
    nodes: int
    steps: int
    healed_after_ms: int
    figures: tuple[tuple[str, int], ...]


class Run:
    """One simulation."""

    def __init__(self, options: Options, trace: Trace | None = None) -> None:
        self.options = options
        self.cluster = Cluster(options, trace)
        self.workload = Workload(self.cluster)
        self.nemesis = Nemesis(self.cluster)
        self.forgotten: dict[str, str] = {}
        self.judged = 0
        self.gate_lists: dict[str, outcomes.GateList] = {}
        """What each node showed last of the gates."""

    def play(self) -> int:
        """Everything; returns how long the healed cluster took, in milliseconds.

        Raises:
            Violation: a promise was broken; ``promise`` P1 means that it did not converge.
        """
        cluster = self.cluster
        self.nemesis.begin()
        self.workload.begin()
        cluster.at(AUDIT_MS, self._audit)
        cluster.run(FAULTS_MS)
        self.nemesis.heal()
        end_ms = FAULTS_MS + HEAL_MS_MAX
        reason: str | None = "nothing has run"
        next_forget_ms = FAULTS_MS + 8_000
        while cluster.time_ms < end_ms:
            self._read_gates()
            cluster.run(cluster.time_ms + 1_000)
            self._restart_stopped()
            if cluster.time_ms >= next_forget_ms:
                self._forget_lost()
                next_forget_ms += 6_000
            reason = convergence(cluster) or garbage(cluster) or unshared(cluster, self.gate_lists)
            if reason is None:
                break
        else:
            refused = {name: text for name, text in self.forgotten.items() if text != "forgotten"}
            note = f"; could not be forgotten: {refused}" if refused else ""
            raise Violation("P1", f"after {HEAL_MS_MAX // 1000} s of health: {reason}{note}")
        healed_ms = cluster.time_ms - FAULTS_MS
        judge = Judge(cluster, cluster.checkers, self.workload)
        judge.verdict()
        self.judged = judge.judged
        self._let_cars_in()
        return healed_ms

    def _let_cars_in(self) -> None:
        """Every gate works: who asks there is let in, unless the lot is full."""
        cluster = self.cluster
        arrivals = LastArrivals(self.workload)
        node = cluster.machines[0].node
        assert node is not None
        arrivals.begin(node.state.record.gates)
        cluster.run(cluster.time_ms + LAST_ARRIVALS_MS)
        if arrivals.open:
            gate, answer = min(arrivals.open.items())
            raise Violation("P5", f"nobody is let in at gate {gate}: {answer}", f"LAST{gate}")

    def _read_gates(self) -> None:
        def answered(machine: Machine, reply: Reply) -> None:
            if isinstance(reply.outcome, outcomes.GateList):
                self.gate_lists[machine.name] = reply.outcome

        self.gate_lists.clear()
        for machine in self.cluster.running():
            self.cluster.submit(machine, ReadGates(), COMMAND_WAIT_MS, answered)

    def _audit(self) -> None:
        audit_roots(self.cluster)
        self.cluster.at(self.cluster.time_ms + AUDIT_MS, self._audit)

    def _restart_stopped(self) -> None:
        for machine in self.cluster.machines:
            if machine.node is None and self.cluster.time_ms > FAULTS_MS + 1_000:
                self.cluster.start(machine)

    def _forget_lost(self) -> None:
        """An operator lets go of the replicas whose disks are gone, each at a node that waits for
        it: of one whose join was lost with its disk a single node may have heard (DESIGN section
        4: the roster is who is named in the own context, or in a vector that was heard)."""
        lost = dict(self.cluster.lost_replicas)
        for asked in self.cluster.machines:
            if asked.node is None:
                continue
            state = asked.node.state
            waited = state.roster.members(state.context.vector, state.record.seals)
            # An id whose join is lost has no name there: it is given as its hex digits.
            names = {
                lost[replica] if replica in state.record.names else replica_hex(replica)
                for replica in waited
                if replica in lost
            }
            lost = {replica: name for replica, name in lost.items() if replica not in waited}
            for name in sorted(names):
                self._forget_at(asked, name)

    def _forget_at(self, asked: Machine, name: str) -> None:
        def answered(machine: Machine, reply: Reply) -> None:
            outcome = reply.outcome
            refused = isinstance(outcome, outcomes.Failure)
            self.forgotten[name] = f"{outcome}" if refused else "forgotten"

        self.cluster.submit(asked, ForgetMember(name), COMMAND_WAIT_MS, answered)

    def digest(self) -> str:
        """See the module."""
        cluster = self.cluster
        hashed = blake2b(digest_size=16)
        for dot, packed in cluster.checkers.history.packed.items():
            hashed.update(repr(dot).encode() + packed)
        for machine in cluster.machines:
            if machine.node is not None:
                hashed.update(machine.node.state.root())
        numbers = (cluster.steps, cluster.network.sent, cluster.network.lost, cluster.time_ms)
        hashed.update(repr((numbers, cluster.dice_state(), self.workload.dice.random())).encode())
        return hashed.hexdigest()

    def figures(self) -> tuple[tuple[str, int], ...]:
        """What happened, in numbers."""
        checkers, barriers = self.cluster.checkers, self.workload.barriers
        return (
            ("minted", checkers.history.minted),
            ("acknowledged", len(checkers.acknowledged)),
            ("asked", self.workload.asked),
            ("late", self.workload.late),
            ("sent", self.cluster.network.sent),
            ("lost", self.cluster.network.lost),
            ("plates_checked", checkers.looked),
            ("judged", self.judged),
            ("told", checkers.tellings.count),
            ("claims", checkers.owners.claims),
            ("moves", checkers.owners.moves),
            ("views_judged", checkers.owners.looked),
            ("declared_dead", checkers.deaths.declared),
            ("opened", barriers.opened),
            ("stayed_shut", barriers.refused),
            ("start_overs", sum(machine.start_overs for machine in self.cluster.machines)),
            *sorted(self.nemesis.counts.items()),
            *sorted((f"denied_{why}", count) for why, count in self.workload.denials.items()),
            *sorted((f"failed_{code}", count) for code, count in self.workload.failures.items()),
        )


def run(seed: int, *, trace: Trace | None = None, options: Options | None = None) -> Result:
    """Play this seed; a failure is a result, not an exception.

    The collector rests meanwhile: nearly all that a run makes lives as long as the run, and is
    looked through again and again for the little that does not. What it leaves is young, and
    collected at its end without a look at anything older.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _play(seed, trace, options)
    finally:
        gc.collect(YOUNG)
        if was_enabled:
            gc.enable()


def _play(seed: int, trace: Trace | None, options: Options | None) -> Result:
    played = Run(options or draw(seed), trace)
    code, text, healed_ms = PASSED, "passed", 0
    subjects: tuple[str, ...] = ()
    try:
        healed_ms = played.play()
    except Violation as violation:
        code = NOT_CONVERGED if violation.promise == "P1" else UNSAFE
        text, subjects = str(violation), violation.subjects
    except Exception as error:  # noqa: BLE001 - whatever escapes from the product is a finding
        code = CRASHED
        text = "".join(traceback.format_exception(error))
    cluster = played.cluster
    if code and trace is not None:
        trace.add(cluster.time_ms, "-", "fail", text.splitlines()[-1])
    return Result(
        seed=seed,
        code=code,
        text=text,
        subjects=subjects,
        digest=played.digest(),
        virtual_ms=cluster.time_ms,
        nodes=played.options.nodes,
        steps=cluster.steps,
        healed_after_ms=healed_ms,
        figures=played.figures(),
    )
