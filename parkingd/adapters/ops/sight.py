"""What one look into the daemon shows: everything that health and metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from parkingd.adapters.ops.tally import Tally
from parkingd.adapters.transport.counters import Counters
from parkingd.core.ids import Now
from parkingd.protocol.members import MemberState
from parkingd.protocol.node import Node
from parkingd.protocol.outcomes import CandidateRow, GateRow, MemberRow, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What the daemon itself knows, at this moment."""

    node: Node
    now: Now
    ticked_ms: int
    """When the node's timer last fired, own monotonic milliseconds."""
    is_discovered: bool
    """Every source of discovery has ended its first round."""
    started_s: float
    """Wall time, seconds since 1970."""
    network: Counters
    control: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A look at the node, for the metrics: values only."""

    status: Status
    members: tuple[MemberRow, ...]
    """The node itself first."""
    gates: tuple[GateRow, ...]
    """Empty while there is no lot to read."""
    candidates: tuple[CandidateRow, ...]
    clock_offsets_s: tuple[tuple[str, float], ...]
    """How far ahead the wall clock of each living member is."""
    exit_marks: int
    log_unsaved: int
    """Own events that are not on the disk yet."""
    inside: Inside
    tally: Tally

    @property
    def name(self) -> str:
        """Of this node."""
        return self.members[0].name


def clock_offsets_s(inside: Inside) -> tuple[tuple[str, float], ...]:
    """As the node judges the clocks of those that are alive."""
    own_ms = inside.now.wall_ms - inside.now.mono_ms
    return tuple(
        (member.name, (member.clock_offset_ms - own_ms) / 1000)
        for member in inside.node.members
        if member.state is MemberState.ALIVE
    )
