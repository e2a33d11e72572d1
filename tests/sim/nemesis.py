"""What goes wrong and when: the schedules that the options ask for, and the end of them all.

Each kind of fault has its own generator and its own chain of events, so that switching one off
leaves the times of the others alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from parkingd.protocol.commands import Command, ForgetMember, Leave, Track
from parkingd.protocol.effects import Reply
from tests.sim.disk import Image
from tests.sim.options import FAULTS_MS

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

DEVIANCE_BEGINS_MS = 10_000
"""The deviant clock is right until the members know each other: a wrong clock among strangers is
believed by nobody else's fault."""

COMMAND_WAIT_MS = 5_000


class Nemesis:
    """Breaks things until `FAULTS_MS`, then mends them all."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.options = cluster.options
        self.counts: dict[str, int] = {}
        self._copies: dict[int, tuple[Image, int, int]] = {}
        self._cut_generation = 0

    def begin(self) -> None:
        """Start the machines and every schedule."""
        options, cluster = self.options, self.cluster
        dice = self._dice("start")
        late = cluster.machines[-1] if options.late_ms else None
        for machine in cluster.machines:
            at_ms = options.late_ms if machine is late else dice.randrange(0, 1_000)
            cluster.at(at_ms, self._start, machine)
        if options.apart_ms:
            half = max(1, options.nodes // 2)
            self._cut_groups((1 << half) - 1, one_way=False)
            cluster.at(options.apart_ms, self._mend, self._cut_generation)
        if options.deviant_ms:
            deviant = cluster.machines[-1]
            deviant.clock.skew_ms -= options.deviant_ms
            cluster.at(DEVIANCE_BEGINS_MS, self._deviate, deviant, options.deviant_ms)
        for name, every_ms, act in (
            ("partition", options.partition_every_ms, self._partition),
            ("crash", options.crash_every_ms, self._crash),
            ("disk_full", options.disk_full_every_ms, self._fill),
            ("pause", options.pause_every_ms, self._pause),
            ("slow", options.slow_every_ms, self._slow),
            ("leave", options.leave_every_ms, self._leave),
            ("jump", options.jump_every_ms, self._jump),
            ("copy", 20_000 if options.disk_restored else 0, self._copy),
            ("doom", options.doom_every_ms, self._doom),
            ("forget", 25_000 if options.forget else 0, self._forget_somebody),
        ):
            if every_ms:
                self._chain(name, every_ms, act, self._dice(name))

    def _dice(self, name: str) -> random.Random:
        return self.cluster.streams.stream(f"nemesis/{name}")

    def _chain(
        self, name: str, every_ms: int, act: Callable[[random.Random], None], dice: random.Random
    ) -> None:
        cluster = self.cluster

        def again() -> None:
            if cluster.time_ms >= FAULTS_MS:
                return
            self._count(name)
            act(dice)
            cluster.at(cluster.time_ms + 1 + int(dice.expovariate(1 / every_ms)), again)

        first_ms = max(3_000, self.options.apart_ms) + int(dice.expovariate(1 / every_ms))
        cluster.at(first_ms, again)

    def _one(self, dice: random.Random) -> Machine:
        return dice.choice(self.cluster.machines)

    # --- the network -----------------------------------------------------------------------------

    def _partition(self, dice: random.Random) -> None:
        nodes = self.options.nodes
        kind = dice.choice(("isolate", "halves", "random"))
        if kind == "isolate":
            group = 1 << dice.randrange(nodes)
        elif kind == "halves":
            chosen = dice.sample(range(nodes), nodes // 2)
            group = sum(1 << index for index in chosen)
        else:
            group = dice.randrange(1, (1 << nodes) - 1)
        one_way = self.options.one_way and dice.random() < 0.4
        self._cut_groups(group, one_way=one_way)
        lasts_ms = 500 + int(dice.expovariate(1 / 12_000))
        self.cluster.at(self.cluster.time_ms + lasts_ms, self._mend, self._cut_generation)

    def _cut_groups(self, group: int, *, one_way: bool) -> None:
        """Nothing from this group reaches the others, nor back unless ``one_way``."""
        network, nodes = self.cluster.network, self.options.nodes
        everybody = (1 << nodes) - 1
        for index in range(nodes):
            inside = group >> index & 1
            if inside:
                network.cuts[index] = everybody & ~group
            else:
                network.cuts[index] = 0 if one_way else group
        self._cut_generation += 1
        members = [f"n{index}" for index in range(nodes) if group >> index & 1]
        self.cluster.say(None, "cut", f"{' '.join(members)} {'to' if one_way else 'from'} the rest")

    def _mend(self, generation: int) -> None:
        if generation == self._cut_generation:
            self.cluster.network.cuts = [0] * self.options.nodes
            self.cluster.say(None, "healed", "all links")

    def _doom(self, dice: random.Random) -> None:
        """What one node alone holds of a lost replica must survive its being let go."""
        cluster = self.cluster
        running = [machine for machine in cluster.machines if machine.is_up]
        if len(running) < 3:
            return
        doomed, witness, *others = dice.sample(running, len(running))
        self._cut_groups(1 << doomed.index | 1 << witness.index, one_way=False)
        begin_ms = cluster.time_ms
        dies_ms = begin_ms + dice.randrange(500, 3_000)
        for number in range(6):
            command = Track(f"DOOM{number % 3}", 1 + number % 4, dice.randbytes(16))
            ask_ms = dice.randrange(begin_ms, dies_ms)
            cluster.at(ask_ms, self._submit, doomed, command)
        cluster.at(dies_ms, self._lose, doomed)
        forget_ms = dies_ms + dice.randrange(2_300, 4_000)
        cluster.at(forget_ms, self._submit, dice.choice(others), ForgetMember(doomed.name))
        cluster.at(forget_ms + dice.randrange(500, 6_000), self._mend, self._cut_generation)
        cluster.at(forget_ms + dice.randrange(500, 20_000), self._start, doomed)

    def _lose(self, machine: Machine) -> None:
        self.cluster.kill(machine, keep=False, torn=False)

    def _submit(self, machine: Machine, command: Command) -> None:
        if machine.is_up:
            self.cluster.submit(machine, command, COMMAND_WAIT_MS, _ignore)

    # --- machines --------------------------------------------------------------------------------

    def _start(self, machine: Machine) -> None:
        self.cluster.start(machine)

    def _crash(self, dice: random.Random) -> None:
        machine = self._one(dice)
        fate = dice.random()
        torn = self.options.torn and dice.random() < 0.8
        down_ms = dice.choice((100, 1_000, 5_000, 30_000)) + dice.randrange(0, 500)
        options = self.options
        if machine.node is None:
            return
        lost = fate < options.disk_lost or machine.settings.ephemeral
        self.cluster.kill(machine, keep=not lost, torn=torn)
        copy = self._copies.pop(machine.index, None)
        if lost:
            self._count("disk_lost")
            if options.forget and dice.random() < 0.5:
                soon_ms = self.cluster.time_ms + dice.randrange(2_000, 8_000)
                self.cluster.at(soon_ms, self._forget_somebody, dice)
        elif copy is not None and fate < options.disk_lost + options.disk_restored:
            image, disk_age, own_seq = copy
            if disk_age == machine.disk_age:
                noticed = not (own_seq < machine.durable_seq and self._is_remembered(machine))
                self._count("disk_restored" if noticed else "disk_set_back")
                kind = "" if noticed else ", unnoticed"
                self.cluster.say(machine, "disk", f"an older copy is put back{kind}")
                self.cluster.lose(machine)
                machine.disk.restore(image, noticed=noticed)
                down_ms = down_ms if noticed else 100
        self.cluster.at(self.cluster.time_ms + down_ms, self._start, machine)

    def _is_remembered(self, machine: Machine) -> bool:
        """Whether all the others surely tell the machine how far it had come.

        A disk that is set back unnoticed is only found out by asking; a node that can ask nobody
        for two seconds goes on, and that is as far as the promise goes.
        """
        options = self.options
        if options.partition_every_ms or options.pause_every_ms or options.leave_every_ms:
            return False
        others = [other for other in self.cluster.machines if other is not machine]
        dot = (machine.replica, machine.durable_seq)
        return (
            options.loss <= 0.05
            and not options.slow_every_ms
            and len(others) > 1
            and all(
                other.node is not None and other.node.state.context.contains(*dot)
                for other in others
            )
        )

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _copy(self, dice: random.Random) -> None:
        machine = self._one(dice)
        if machine.node is not None:
            copy = (machine.disk.snapshot(), machine.disk_age, machine.durable_seq)
            self._copies[machine.index] = copy

    def _fill(self, dice: random.Random) -> None:
        machine = self._one(dice)
        if not machine.disk_full and machine.node is not None:
            self.cluster.fill_disk(machine)
            lasts_ms = dice.randrange(500, 15_000)
            self.cluster.at(self.cluster.time_ms + lasts_ms, self.cluster.free_disk, machine)

    def _pause(self, dice: random.Random) -> None:
        machine = self._one(dice)
        if machine.is_up:
            self.cluster.pause(machine)
            lasts_ms = dice.choice((100, 600, 3_000, 12_000, 40_000))
            self.cluster.at(self.cluster.time_ms + lasts_ms, self.cluster.resume, machine)

    def _slow(self, dice: random.Random) -> None:
        machine = self._one(dice)
        if machine.slow_ms:
            return
        machine.slow_ms = dice.choice((5, 40, 200))
        self.cluster.at(self.cluster.time_ms + dice.randrange(1_000, 20_000), self._quick, machine)

    def _quick(self, machine: Machine) -> None:
        machine.slow_ms = 0

    def _leave(self, dice: random.Random) -> None:
        machine = self._one(dice)
        if machine.is_up and len(self.cluster.running()) > 1:
            self.cluster.submit(machine, Leave(), COMMAND_WAIT_MS, _ignore)
            self.cluster.at(
                self.cluster.time_ms + dice.randrange(9_000, 25_000), self._start, machine
            )

    # --- clocks ----------------------------------------------------------------------------------

    def _deviate(self, machine: Machine, by_ms: int) -> None:
        machine.clock.skew_ms += by_ms
        self.cluster.say(machine, "clock", f"jumps by {by_ms} ms")

    def _jump(self, dice: random.Random) -> None:
        self._deviate(self.cluster.machines[-1], dice.randrange(-600_000, 600_000))

    # --- operators -------------------------------------------------------------------------------

    def _forget_somebody(self, dice: random.Random) -> None:
        lost = sorted(set(self.cluster.lost_replicas.values()))
        machine = self._one(dice)
        if lost and machine.is_up:
            command = ForgetMember(dice.choice(lost))
            self.cluster.submit(machine, command, COMMAND_WAIT_MS, _ignore)

    # --- the end ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works from here on; clocks keep their constant error."""
        cluster = self.cluster
        self._cut_generation += 1
        cluster.network.heal()
        cluster.say(None, "healed", "everything")
        for machine in cluster.machines:
            machine.slow_ms = 0
            machine.commit_ms = min(machine.commit_ms, 10)
            cluster.free_disk(machine)
            cluster.resume(machine)
            if machine.node is None:
                cluster.start(machine)


def _ignore(_: Machine, __: Reply) -> None:
    """Whatever it says."""
