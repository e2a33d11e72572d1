"""The misfortune of one run, drawn from one seed.

Swarm testing: every kind of fault is off in about a third of the seeds, because a fault that is
always there hides what the others would have found alone. Everything else of a run follows from
these options and from generators that `Streams` derives from the same seed, one per concern, so
that one more draw in one place does not reshuffle the rest.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

FAULTS_MS = 120_000
"""How long things go wrong."""

HEAL_MS_MAX = 60_000
"""How long a healed cluster may take to become identical."""

GAP_MS = 10_000
"""A car needs at least this long between two of its gate events."""


class Streams:
    """One generator per concern, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, concern: str) -> random.Random:
        """The generator of this concern. Text seeds do not depend on the hash seed."""
        return random.Random(f"{self.seed}/{concern}")


@dataclass(frozen=True, slots=True)
class Options:
    """What one seed does. Probabilities are per message, means are of exponential draws."""

    seed: int
    nodes: int
    # network
    delay_ms: int
    """Least one-way delay."""
    delay_mean_ms: int
    """Mean of what comes on top."""
    reorder: float
    """A frame may overtake those before it, as over a connection that is made anew."""
    loss: float
    duplication: float
    replay: float
    """The same process hears an old frame again, up to `replay_ms_max` later."""
    replay_ms_max: int
    # schedules; 0 = never
    partition_every_ms: int
    one_way: bool
    """Some of the partitions cut one direction only."""
    crash_every_ms: int
    torn: bool
    """A crash may tear the transaction that is being written."""
    disk_lost: float
    """Share of the crashes that destroy the disk."""
    disk_restored: float
    """Share of the crashes after which an older copy of the disk is put back."""
    disk_full_every_ms: int
    slow_disk_ms: int
    """Mean commit time of one disk; the others take `commit_ms`."""
    commit_ms: int
    pause_every_ms: int
    slow_every_ms: int
    leave_every_ms: int
    # clocks
    skew_ms: int
    """Wall clocks differ by up to this much, either way."""
    deviant_ms: int
    """One node's wall clock is off by this much more."""
    jump_every_ms: int
    """The deviant's clock jumps."""
    drift_ppm: int
    # membership
    apart_ms: int
    """The cluster starts in two halves that meet this late: two lots."""
    late_ms: int
    """The last node starts this late."""
    forget: bool
    """Somebody says `members forget` while things still go wrong."""
    doom_every_ms: int
    """Somebody is cut off with one other node, loses its disk, and is forgotten by the rest."""
    deaf_every_ms: int
    """One node hears what others hold and gets none of it: large frames do not reach it."""
    ephemeral: bool
    """One node keeps nothing on disk."""
    # the node's own numbers
    log_events_max: int
    # workload
    cars: int
    stay_mean_ms: int
    missed_exit: float
    """Share of exits that nobody records."""
    twins: int
    """Cloned plates: two cars, one plate."""
    messy: int
    """Plates on which anybody does anything, physics or not."""
    messy_every_ms: int
    imports: int
    client_wait_ms: int
    # gates, members and those who ask to be let in
    gates: int
    spaces: int
    asking: float
    """Share of the arrivals that ask the gate's owner; the others are only recorded."""
    power: float
    """Share of the crashes that cut the power: no connection is closed, none is refused."""
    link_every_ms: int
    """A single link breaks, one way or both."""
    flap_every_ms: int
    """A link, or all of one node, comes and goes many times in a few seconds."""
    restart_every_ms: int
    """A process is restarted at once: as it was, at another's address, or under another name."""
    betray_every_ms: int
    """Somebody dies at the very moment when an event of its own is on its disk."""
    churn_every_ms: int
    """Somebody leaves in good order and is back soon."""
    set_gates_every_ms: int
    """Somebody changes the number of gates."""
    calm: bool
    """Nothing goes wrong but for joins and leaves: what is strict only then is checked then."""

    @property
    def physical(self) -> bool:
        """Whether the clocks are good enough to hold the record against what happened (P3).

        A single deviating clock is outvoted by the others, but only while they are heard.
        """
        lonely = self.partition_every_ms or self.crash_every_ms or self.pause_every_ms
        lonely = lonely or self.leave_every_ms or self.apart_ms or self.late_ms
        lonely = lonely or self.doom_every_ms or self.link_every_ms or self.flap_every_ms
        lonely = lonely or self.restart_every_ms or self.betray_every_ms or self.churn_every_ms
        return self.deviant_ms == 0 or (self.nodes >= 3 and not lonely and self.loss <= 0.1)

    def describe(self) -> str:
        """One line that says everything that is switched on."""
        shown = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value or entry.name == "seed":
                shown.append(
                    f"{entry.name}={value:.3g}"
                    if isinstance(value, float)
                    else f"{entry.name}={value}"
                )
        return " ".join(shown)


def draw(seed: int) -> Options:
    """The options of this seed."""
    dice = Streams(seed).stream("options")

    def on(share: float = 2 / 3) -> bool:
        return dice.random() < share

    nodes = dice.choices((2, 3, 4, 5), (1, 5, 2, 2))[0]
    crash_every_ms = dice.randrange(8_000, 60_000) if on() else 0
    big_clock = on(1 / 6)
    options = Options(
        seed=seed,
        nodes=nodes,
        delay_ms=dice.choice((0, 1, 1, 5, 30)),
        delay_mean_ms=dice.choice((1, 2, 10, 60)) if on() else 0,
        reorder=dice.choice((0.02, 0.1, 0.5)) if on() else 0.0,
        loss=dice.choice((0.01, 0.05, 0.15, 0.3)) if on() else 0.0,
        duplication=dice.choice((0.02, 0.1, 0.4)) if on() else 0.0,
        replay=dice.choice((0.002, 0.01)) if on() else 0.0,
        replay_ms_max=dice.choice((2_000, 20_000, 90_000)),
        partition_every_ms=dice.randrange(5_000, 40_000) if on() else 0,
        one_way=on(),
        crash_every_ms=crash_every_ms,
        torn=on(),
        disk_lost=dice.choice((0.1, 0.25)) if on() else 0.0,
        disk_restored=dice.choice((0.1, 0.2)) if on(1 / 3) else 0.0,
        disk_full_every_ms=dice.randrange(10_000, 60_000) if on() else 0,
        slow_disk_ms=dice.choice((20, 100, 400)) if on() else 0,
        commit_ms=dice.choice((1, 4, 10)),
        pause_every_ms=dice.randrange(10_000, 60_000) if on() else 0,
        slow_every_ms=dice.randrange(20_000, 60_000) if on() else 0,
        leave_every_ms=dice.randrange(30_000, 90_000) if on(1 / 4) else 0,
        skew_ms=dice.choice((50, 300, 1_000)) if on() else 0,
        deviant_ms=dice.choice((-3_600_000, -60_000, 60_000, 3_600_000)) if big_clock else 0,
        jump_every_ms=dice.randrange(15_000, 60_000) if big_clock and on() else 0,
        drift_ppm=500 if on() else 0,
        apart_ms=dice.randrange(5_000, 45_000) if on(1 / 6) else 0,
        late_ms=dice.randrange(5_000, 80_000) if on(1 / 3) else 0,
        forget=on(1 / 2),
        doom_every_ms=dice.randrange(25_000, 60_000) if nodes > 2 and on(1 / 4) else 0,
        ephemeral=on(1 / 6),
        log_events_max=dice.choice((8, 20, 60)) if on(1 / 2) else 1_000_000,
        cars=dice.choice((4, 10, 25, 40)),
        stay_mean_ms=dice.choice((2_000, 10_000, 25_000)),
        missed_exit=dice.choice((0.05, 0.2)) if on() else 0.0,
        twins=dice.choice((1, 4)) if on() else 0,
        messy=dice.choice((1, 3, 8)) if on() else 0,
        messy_every_ms=dice.choice((300, 1_000, 3_000)),
        imports=dice.choice((1, 3)) if on(1 / 3) else 0,
        client_wait_ms=dice.choice((500, 2_000, 4_000)),
        deaf_every_ms=dice.randrange(20_000, 60_000) if on(1 / 3) else 0,
        gates=dice.choice((1, 3, 4, 4, 6, 12)),
        spaces=dice.choice((5, 15, 100, 100)),
        asking=dice.choice((0.0, 0.3, 0.8, 1.0)),
        power=dice.choice((0.0, 0.3, 0.7)),
        link_every_ms=dice.randrange(6_000, 30_000) if on(1 / 2) else 0,
        flap_every_ms=dice.randrange(15_000, 50_000) if on(1 / 3) else 0,
        restart_every_ms=dice.randrange(10_000, 50_000) if on(1 / 3) else 0,
        betray_every_ms=dice.randrange(8_000, 30_000) if on(1 / 4) else 0,
        churn_every_ms=dice.randrange(6_000, 20_000) if on(1 / 5) else 0,
        set_gates_every_ms=dice.randrange(15_000, 50_000) if on(1 / 6) else 0,
        calm=on(1 / 12),
    )
    return _calmed(options) if options.calm else options


def _calmed(options: Options) -> Options:
    """The same cluster with a good network and good machines: only joins and leaves are left."""
    return replace(
        options,
        delay_ms=min(options.delay_ms, 5),
        delay_mean_ms=min(options.delay_mean_ms, 10),
        reorder=0.0,
        loss=0.0,
        duplication=0.0,
        replay=0.0,
        partition_every_ms=0,
        crash_every_ms=0,
        disk_full_every_ms=0,
        slow_disk_ms=0,
        pause_every_ms=0,
        slow_every_ms=0,
        deviant_ms=0,
        jump_every_ms=0,
        apart_ms=0,
        doom_every_ms=0,
        deaf_every_ms=0,
        missed_exit=0.0,
        twins=0,
        messy=0,
        imports=0,
        asking=1.0,
        link_every_ms=0,
        flap_every_ms=0,
        restart_every_ms=0,
        betray_every_ms=0,
    )
