"""What the journal tells: every line once, in order, and nothing that a crash could take back."""

from __future__ import annotations

from parkingd.protocol.effects import Occurrence
from tests.sim.history import Violation
from tests.sim.machine import Machine


class Tellings:
    """The greatest number told of each journal: one per machine, age of its disk, and replica."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, int, int], int] = {}
        self.count = 0

    def told(self, machine: Machine, lines: tuple[Occurrence, ...]) -> None:
        """These go to whoever watches this machine."""
        key = (machine.index, machine.disk_age, machine.replica)
        last = self._told.get(key, 0)
        for line in lines:
            if line.seq <= last:
                raise Violation("journal", f"{machine.name} tells line {line.seq} after {last}")
            last = line.seq
        if last > machine.disk.journal_seq:
            held = machine.disk.journal_seq
            raise Violation("journal", f"{machine.name} tells line {last}, its disk has {held}")
        self._told[key] = last
        self.count += len(lines)
