"""What has passed through the daemon, counted for the metrics from effects and messages.

How it works. The daemon shows every message and every batch of effects; everything is counted
from those, once, where it happens, so that sums over nodes are right: a car is counted by the node
that answered its client, whoever owns the gate.

Invariant: what is counted by is of a bounded set. A gate above the greatest possible one, which a
client may well name, counts as 0; no plate is ever kept, and of names those of members only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from parkingd.protocol.desk import WARNING_REPEATED
from parkingd.protocol.effects import Effects, Publish, Reply, Send
from parkingd.protocol.limits import GATES_MAX
from parkingd.protocol.members import Member, MemberState
from parkingd.protocol.messages import Message
from parkingd.protocol.outcomes import Decision, Entry, Exit, Failure, ImportResult

LAG_BOUNDS_S: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1.5)
"""How late the loop's timer may be. Over 0.5 s a node accuses nobody, over 1.5 s it stops its
gates."""

STAY_BOUNDS_S: Final = (900, 3_600, 7_200, 14_400, 28_800, 86_400)
"""A quarter of an hour to a day."""


class Histogram:
    """How many values were at most each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """(bound, how many were no greater), the last one ``+Inf``."""
        rows, total = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, total))
        return rows


class Tally:
    """Counts since the daemon started, over every node it has been."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        """Messages by kind."""
        self.sent: Counter[str] = Counter()
        """Messages by kind; one that is published counts once."""
        self.transitions: Counter[str] = Counter()
        """Changes of members, by what they became."""
        self.flaps = 0
        self.entries: Counter[int] = Counter()
        """By gate."""
        self.exits: Counter[tuple[int, str]] = Counter()
        """By gate and how it matched."""
        self.admissions: Counter[tuple[int, str, str]] = Counter()
        """By gate, decision and reason."""
        self.imported = 0
        self.failures: Counter[str] = Counter()
        """Requests that were not carried out, by code."""
        self.storage_failures = 0
        self.stays = Histogram(STAY_BOUNDS_S)
        self.lag = Histogram(LAG_BOUNDS_S)
        self._members: dict[str, tuple[int, MemberState]] = {}
        """Incarnation and state of each when they were last looked at."""

    def heard(self, message: Message) -> None:
        """A valid message of another node."""
        self.received[type(message).__name__] += 1

    def ticked(self, late_ms: int, members: Iterable[Member]) -> None:
        """The loop's timer fired, so much later than it should have; these are the members now.

        They are compared with what they were: some changes of state make no notice.
        """
        self.lag.add(max(0, late_ms) / 1000)
        before = self._members
        self._members = {each.name: (each.incarnation, each.state) for each in members}
        for name, shown in self._members.items():
            known = before.get(name)
            if shown == known:
                continue
            self.transitions[shown[1].value] += 1
            was_dead = known is not None and known[1] is MemberState.DEAD
            self.flaps += was_dead and shown[1] is MemberState.ALIVE

    def did(self, effects: Effects) -> None:
        """The node asked for this."""
        for outgoing in effects.outgoing:
            if isinstance(outgoing, Publish | Send):
                self.sent[type(outgoing.message).__name__] += 1
        self._count_replies(effects.replies)
        self.storage_failures += sum(each.event == "storage_failed" for each in effects.notices)

    def _count_replies(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            if reply.handle < 0:
                continue  # Asked by the daemon itself.
            match reply.outcome:
                case Entry(gate=gate, warnings=warnings) if WARNING_REPEATED not in warnings:
                    self.entries[_bounded(gate)] += 1
                case Exit(gate=gate, warnings=warnings) as left if WARNING_REPEATED not in warnings:
                    self.exits[_bounded(gate), left.matched] += 1
                    if left.stay_s is not None:
                        self.stays.add(left.stay_s)
                case Decision(warnings=warnings) as made if WARNING_REPEATED not in warnings:
                    self.admissions[_bounded(made.gate), made.decision, made.reason] += 1
                case ImportResult(accepted=accepted):
                    self.imported += accepted
                case Failure(code=code):
                    self.failures[code] += 1
                case _:
                    pass


def _bounded(gate: int) -> int:
    return gate if 1 <= gate <= GATES_MAX else 0
