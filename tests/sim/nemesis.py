"""What goes wrong and when: the schedules that the options ask for, and the end of them all.

Here are machines, disks, clocks and careless operators; `links` breaks what is between them.

Each kind of fault has its own generator and its own chain of events, so that switching one off
leaves the times of the others alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from parkingd.protocol.commands import Command, ForgetMember, Leave, SetGates, Track
from parkingd.protocol.effects import Reply
from tests.sim.disk import Image
from tests.sim.links import Links
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
        self._links = Links(self)

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
            cut = self._links.cut((1 << half) - 1)
            cluster.at(options.apart_ms, self._links.mend, cut)
        if options.deviant_ms:
            deviant = cluster.machines[-1]
            deviant.clock.skew_ms -= options.deviant_ms
            cluster.at(DEVIANCE_BEGINS_MS, self._deviate, deviant, options.deviant_ms)
        for name, every_ms, act in (
            ("partition", options.partition_every_ms, self._links.partition),
            ("crash", options.crash_every_ms, self._crash),
            ("disk_full", options.disk_full_every_ms, self._fill),
            ("pause", options.pause_every_ms, self._pause),
            ("slow", options.slow_every_ms, self._slow),
            ("leave", options.leave_every_ms, self._leave),
            ("churn", options.churn_every_ms, self._churn),
            ("jump", options.jump_every_ms, self._jump),
            ("copy", 20_000 if options.disk_restored else 0, self._copy),
            ("doom", options.doom_every_ms, self._doom),
            ("deaf", options.deaf_every_ms, self._links.deafen),
            ("link", options.link_every_ms, self._links.link),
            ("flap", options.flap_every_ms, self._links.flap),
            ("restart", options.restart_every_ms, self._restart),
            ("betray", options.betray_every_ms, self._betray),
            ("set_gates", options.set_gates_every_ms, self._set_gates),
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

    # --- replicas that are lost ------------------------------------------------------------------

    def _doom(self, dice: random.Random) -> None:
        """What one node alone holds of a lost replica must survive its being let go."""
        cluster = self.cluster
        running = [machine for machine in cluster.machines if machine.is_up]
        if len(running) < 3:
            return
        doomed, witness, *others = dice.sample(running, len(running))
        cut = self._links.cut(1 << doomed.index | 1 << witness.index)
        begin_ms = cluster.time_ms
        dies_ms = begin_ms + dice.randrange(500, 3_000)
        for number in range(6):
            gate = 1 + number % self.options.gates
            command = Track(f"DOOM{number % 3}", gate, dice.randbytes(16))
            ask_ms = dice.randrange(begin_ms, dies_ms)
            cluster.at(ask_ms, self.submit, doomed, command)
        cluster.at(dies_ms, self._lose, doomed)
        forget_ms = dies_ms + dice.randrange(2_300, 4_000)
        cluster.at(forget_ms, self.submit, dice.choice(others), ForgetMember(doomed.name))
        cluster.at(forget_ms + dice.randrange(500, 6_000), self._links.mend, cut)
        cluster.at(forget_ms + dice.randrange(500, 20_000), self._start, doomed)

    def _lose(self, machine: Machine) -> None:
        self.cluster.kill(machine, keep=False, torn=False)

    def submit(self, machine: Machine, command: Command) -> None:
        """Ask, and do not wait for the answer."""
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
        off = dice.random() < options.power
        self.cluster.kill(machine, keep=not lost, torn=torn, off=off)
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
        if options.link_every_ms or options.flap_every_ms or options.restart_every_ms:
            return False
        if options.betray_every_ms or options.churn_every_ms:
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
            lasts_ms = dice.choice((100, 600, 1_400, 1_700, 3_000, 12_000, 40_000))
            lasts_ms += dice.randrange(0, 400)
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
        self._go_and_come_back(self._one(dice), dice.randrange(9_000, 25_000))

    def _churn(self, dice: random.Random) -> None:
        self._go_and_come_back(self._one(dice), dice.randrange(4_000, 9_000))

    def _go_and_come_back(self, machine: Machine, away_ms: int) -> None:
        if machine.is_up and len(self.cluster.running()) > 1:
            self.cluster.submit(machine, Leave(), COMMAND_WAIT_MS, _ignore)
            self.cluster.at(self.cluster.time_ms + away_ms, self._start, machine)

    def _restart(self, dice: random.Random) -> None:
        """What a supervisor does with a process that died: start it again, where there is room."""
        cluster = self.cluster
        machine, other = dice.sample(cluster.machines, 2)
        kind = dice.choices(("same", "swap", "rename"), (5, 3, 1))[0]
        down_ms = dice.choice((5, 30, 150, 1_200)) + dice.randrange(0, 100)
        if kind == "rename" and not self._is_renaming_safe(machine):
            kind = "same"
        self._count(f"restart_{kind}")
        kept = kind != "rename" and not machine.settings.ephemeral
        cluster.kill(machine, keep=kept, torn=False)
        if kind == "swap":
            cluster.kill(other, keep=not other.settings.ephemeral, torn=False)
            if machine.node is None and other.node is None:
                cluster.swap_addresses(machine, other)
            cluster.at(cluster.time_ms + down_ms + dice.randrange(0, 50), self._start, other)
        elif kind == "rename":
            self._copies.pop(machine.index, None)
            machine.settings = replace(machine.settings, name=f"{machine.name}x")
        cluster.at(cluster.time_ms + down_ms, self._start, machine)

    def _is_renaming_safe(self, machine: Machine) -> bool:
        """A disk goes with its name; who starts over meanwhile keeps both."""
        return machine.node is not None and len(machine.name) < 8

    def _betray(self, dice: random.Random) -> None:
        """The next own event is on the disk, and nobody is told: not the client, not the others."""
        machine = self._one(dice)
        if not machine.is_up:
            return
        down_ms = dice.choice((200, 3_000, 15_000)) + dice.randrange(0, 500)

        def die() -> None:
            self.cluster.kill(machine, keep=not machine.settings.ephemeral, torn=False)
            self.cluster.at(self.cluster.time_ms + down_ms, self._start, machine)

        machine.traitor = die

    # --- clocks ----------------------------------------------------------------------------------

    def _deviate(self, machine: Machine, by_ms: int) -> None:
        machine.clock.skew_ms += by_ms
        self.cluster.say(machine, "clock", f"jumps by {by_ms} ms")

    def _jump(self, dice: random.Random) -> None:
        self._deviate(self.cluster.machines[-1], dice.randrange(-600_000, 600_000))

    # --- operators -------------------------------------------------------------------------------

    def _set_gates(self, dice: random.Random) -> None:
        wanted = max(1, self.options.gates + dice.randrange(-2, 4))
        self.submit(self._one(dice), SetGates(wanted, dice.randbytes(16)))

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
        self._links.heal()
        cluster.say(None, "healed", "everything")
        for machine in cluster.machines:
            machine.slow_ms = 0
            machine.traitor = None
            machine.commit_ms = min(machine.commit_ms, 10)
            cluster.free_disk(machine)
            cluster.resume(machine)
            if machine.node is None:
                cluster.start(machine)


def _ignore(_: Machine, __: Reply) -> None:
    """Whatever it says."""
