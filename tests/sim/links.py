"""What goes wrong between the machines: partitions, single links that break or flap, and a path
that lets only small frames through.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from parkingd.protocol.commands import RecordExit, Track

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.nemesis import Nemesis

FLAPS_MAX = 12
"""How often a flapping link goes and comes."""


class Links:
    """The misfortune of one network."""

    def __init__(self, nemesis: Nemesis) -> None:
        self._nemesis = nemesis
        self.cluster: Cluster = nemesis.cluster
        self._cuts = 0
        self._is_over = False

    def heal(self) -> None:
        """Nothing of what was begun goes on."""
        self._cuts += 1
        self._is_over = True
        self.cluster.network.heal()

    # --- partitions --------------------------------------------------------------------------

    def partition(self, dice: random.Random) -> None:
        """Some are cut off from the others for a while."""
        options = self.cluster.options
        nodes = options.nodes
        kind = dice.choice(("isolate", "halves", "random"))
        if kind == "isolate":
            group = 1 << dice.randrange(nodes)
        elif kind == "halves":
            chosen = dice.sample(range(nodes), nodes // 2)
            group = sum(1 << index for index in chosen)
        else:
            group = dice.randrange(1, (1 << nodes) - 1)
        one_way = options.one_way and dice.random() < 0.4
        cut = self.cut(group, one_way=one_way)
        lasts_ms = 500 + int(dice.expovariate(1 / 12_000))
        self.cluster.at(self.cluster.time_ms + lasts_ms, self.mend, cut)

    def cut(self, group: int, *, one_way: bool = False) -> int:
        """Nothing from this group reaches the others, nor back unless ``one_way``. A later cut
        replaces it. Returns what `mend` wants to know."""
        nodes = self.cluster.options.nodes
        everybody = (1 << nodes) - 1
        cuts = []
        for index in range(nodes):
            inside = group >> index & 1
            cuts.append(everybody & ~group if inside else 0 if one_way else group)
        self.cluster.network.part(cuts)
        self._cuts += 1
        members = [f"n{index}" for index in range(nodes) if group >> index & 1]
        self.cluster.say(None, "cut", f"{' '.join(members)} {'to' if one_way else 'from'} the rest")
        return self._cuts

    def mend(self, cut: int) -> None:
        """The end of this partition, if it is still on."""
        if cut == self._cuts:
            self.cluster.network.part([0] * self.cluster.options.nodes)
            self.cluster.say(None, "healed", "the partition")

    # --- single links ------------------------------------------------------------------------

    def link(self, dice: random.Random) -> None:
        """One link breaks, mostly in one direction only."""
        one, other = dice.sample(range(self.cluster.options.nodes), 2)
        pairs = [(one, other)]
        if dice.random() < 0.3:
            pairs.append((other, one))
        self._break(pairs)
        lasts_ms = dice.choice((400, 1_500, 4_000, 15_000)) + dice.randrange(0, 1_000)
        self.cluster.at(self.cluster.time_ms + lasts_ms, self._mend_links, pairs)

    def flap(self, dice: random.Random) -> None:
        """One link, or all links of a node, is there and gone and there again."""
        nodes = self.cluster.options.nodes
        one, other = dice.sample(range(nodes), 2)
        others = [other] if dice.random() < 0.5 else [each for each in range(nodes) if each != one]
        pairs = [(one, each) for each in others]
        if dice.random() < 0.7:
            pairs += [(each, one) for each in others]
        at_ms = self.cluster.time_ms
        for _ in range(dice.randrange(2, FLAPS_MAX)):
            self.cluster.at(at_ms, self._break, pairs)
            at_ms += dice.choice((50, 500, 1_200, 2_500)) + dice.randrange(0, 300)
            self.cluster.at(at_ms, self._mend_links, pairs)
            at_ms += dice.choice((50, 500, 2_000)) + dice.randrange(0, 300)

    def _break(self, pairs: list[tuple[int, int]]) -> None:
        if self._is_over:
            return
        for source, target in pairs:
            self.cluster.network.break_link(source, target)
        self.cluster.say(None, "cut", _pairs_text(pairs))

    def _mend_links(self, pairs: list[tuple[int, int]]) -> None:
        for source, target in pairs:
            self.cluster.network.mend_link(source, target)
        self.cluster.say(None, "healed", _pairs_text(pairs))

    # --- small frames only -------------------------------------------------------------------

    def deafen(self, dice: random.Random) -> None:
        """A path that lets only small frames through, and cars that come in where the node at its
        end does not learn of it, and leave there: all that it holds is their exits."""
        cluster = self.cluster
        network, submit = cluster.network, self._nemesis.submit
        if network.deaf:
            return
        deaf, *others = dice.sample(cluster.machines, len(cluster.machines))
        network.deaf = 1 << deaf.index
        cluster.say(deaf, "cut", "gets no events")
        for number in range(4):
            plate, gate = f"DEAF{number}", 1 + number % cluster.options.gates
            enters_ms = cluster.time_ms + dice.randrange(1, 1_000)
            track = Track(plate, gate, dice.randbytes(16))
            cluster.at(enters_ms, submit, dice.choice(others), track)
            leaves_ms = enters_ms + dice.randrange(100, 3_000)
            leave = RecordExit(plate, gate, dice.randbytes(16))
            cluster.at(leaves_ms, submit, deaf, leave)
        cluster.at(cluster.time_ms + dice.randrange(10_000, 25_000), self._undeafen)

    def _undeafen(self) -> None:
        self.cluster.network.deaf = 0
        self.cluster.say(None, "healed", "large frames")


def _pairs_text(pairs: list[tuple[int, int]]) -> str:
    return " ".join(f"n{source}>n{target}" for source, target in pairs)
