"""Who is taken for dead, and by whom: no live, connected and unpaused node may be.

Connected means one of two things, both for longer than it takes to be declared dead, and over a
network that does not lose much: whoever declares it hears it; or most of the others do, have not
accused it, and can be heard themselves by whoever declares it. So a broken link alone kills nobody.

Also: who reads an accusation of itself answers with a greater refutation number, and who has just
woken accuses nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from parkingd.protocol.effects import Notice
from parkingd.protocol.members import MemberState
from parkingd.protocol.messages import Heartbeat, Sender
from tests.sim.history import Violation

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

LOSS_MAX: Final = 0.05
"""With more, eight heartbeats in a row may well get lost."""

MARGIN_MS: Final = 1_000
DRIFT: Final = 1.002
NEVER_MS: Final = -1_000_000


class Deaths:
    """What the nodes of one cluster believe of each other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._accused_ms: dict[tuple[int, str, int], int] = {}
        """(machine, name, incarnation) -> when it was last accused by it."""
        self._to_refute: dict[int, int] = {}
        """Refutation numbers that processes have read of themselves."""
        self.declared = 0

    def noticed(self, machine: Machine, notices: tuple[Notice, ...]) -> None:
        """What a node says for its log: whom it declares dead is looked at."""
        for notice in notices:
            if notice.event == "member_dead":
                self.declared += 1
                self._declared(machine, str(dict(notice.values)["member"]))

    def _declared(self, by: Machine, name: str) -> None:
        cluster = self._cluster
        assert by.node is not None
        if cluster.options.loss > LOSS_MAX:
            return
        member = by.node._shared.members.get(name)
        assert member is not None
        accused = next(
            (
                m
                for m in cluster.machines
                if m.name == name and m.incarnation == member.incarnation and m.node is not None
            ),
            None,
        )
        over_ms = by.settings.dead_after_ms + MARGIN_MS
        if accused is None or not self._is_awake(accused, over_ms):
            return
        heard_ms = cluster.network.up_ms(accused.index, by.index)
        witnesses = [m for m in cluster.machines if m is not by and m is not accused]
        hearing = [m.name for m in witnesses if self._hears(m, accused, by, over_ms)]
        if heard_ms >= over_ms or (witnesses and 2 * len(hearing) > len(witnesses)):
            raise Violation(
                "liveness",
                f"{by.name} declares {name} dead, which runs; the link has been up for"
                f" {heard_ms} ms, and {hearing} hear it",
                name,
            )

    def _is_awake(self, machine: Machine, for_ms: int) -> bool:
        return machine.is_up and self._cluster.time_ms - machine.awake_ms >= for_ms

    def _hears(self, witness: Machine, accused: Machine, by: Machine, for_ms: int) -> bool:
        """Whether this one could have told ``by`` that it hears the accused."""
        cluster = self._cluster
        if not self._is_awake(witness, for_ms) or witness.node is None or by.node is None:
            return False
        if cluster.network.up_ms(witness.index, by.index) < for_ms:
            return False
        known = by.node._shared.members.get(witness.name)
        silence_ms = by.clock.mono_ms(cluster.time_ms) - (known.last_heard_ms if known else 0)
        if silence_ms >= by.settings.suspect_after_ms:
            return False  # A few lost messages: it cannot ask this one.
        member = witness.node._shared.members.get(accused.name)
        if member is None or member.incarnation != accused.incarnation:
            return False
        key = (witness.index, accused.name, accused.incarnation)
        accused_ms = self._accused_ms.get(key, NEVER_MS)
        return member.state is MemberState.ALIVE and cluster.time_ms - accused_ms >= for_ms

    # --- accusations ---------------------------------------------------------------------------

    def accused(self, machine: Machine, sender: Sender, beat: Heartbeat) -> None:
        """A heartbeat with accusations is about to be read."""
        name, incarnation = machine.name, machine.incarnation
        for suspicion in beat.suspicions:
            if suspicion.name != name or suspicion.incarnation != incarnation:
                continue
            if _is_read(machine, sender, beat):
                known = self._to_refute.get(machine.index, -1)
                self._to_refute[machine.index] = max(known, suspicion.refutation)

    def beat(self, machine: Machine, beat: Heartbeat) -> None:
        """A node publishes a heartbeat."""
        read = self._to_refute.get(machine.index)
        if read is not None and beat.refutation <= read:
            raise Violation(
                "liveness",
                f"{machine.name} has read that it is suspected at {read},"
                f" and answers with {beat.refutation}",
                machine.name,
            )
        if beat.suspicions:
            self._check_quiet(machine, beat)
            for suspicion in beat.suspicions:
                key = (machine.index, suspicion.name, suspicion.incarnation)
                self._accused_ms[key] = self._cluster.time_ms

    def _check_quiet(self, machine: Machine, beat: Heartbeat) -> None:
        """It may repeat what it said before it was paused; a refused connection is evidence."""
        settings = machine.settings
        slept_ms = machine.awake_ms - machine.asleep_ms
        awake_ms = self._cluster.time_ms - machine.awake_ms
        if slept_ms < settings.pause_guard_ms * DRIFT or awake_ms * DRIFT > settings.pause_quiet_ms:
            return
        for suspicion in beat.suspicions:
            key = (machine.index, suspicion.name, suspicion.incarnation)
            if key not in self._accused_ms and not suspicion.refused:
                raise Violation(
                    "liveness",
                    f"{machine.name} woke {awake_ms} ms ago and accuses {suspicion.name}",
                    machine.name,
                )

    def closed(self, machine: Machine) -> None:
        """Its process has ended."""
        self._to_refute.pop(machine.index, None)
        for key in [key for key in self._accused_ms if key[0] == machine.index]:
            del self._accused_ms[key]


def _is_read(machine: Machine, sender: Sender, beat: Heartbeat) -> bool:
    """Whether this node will not drop the heartbeat: it is of a member and new."""
    node = machine.node
    assert node is not None
    member = node._shared.members.get(sender.name)
    return (
        member is not None
        and (member.replica, member.incarnation) == (sender.replica, sender.incarnation)
        and member.state is not MemberState.LEFT
        and member.beat < beat.beat
        and sender.replica not in node.state.record.fences
    )
