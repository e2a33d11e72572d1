"""What a node is told when it is made. Every interval with its unit, reason and trade-off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Values of one node; the defaults are those of a LAN."""

    name: str
    cluster: str = "default"
    version: str = "0"
    """Software version, told to peers for display."""
    spaces: int = 100
    """Used only by the node that founds the lot, as are gates and admission."""
    gates: int = 4
    admission: str = "local"
    ephemeral: bool = False
    """Nothing of this node outlives it: it seals its replica when it leaves."""
    port: int = 0
    """Bound ROUTER port, told to peers in the hello."""
    pub_port: int = 0

    heartbeat_ms: int = 250
    """Half: twice the idle traffic. Double: silence is noticed half a second later."""
    heartbeat_jitter: float = 0.1
    """Share of the interval by which each beat is moved at random, so that nodes that started
    together do not speak together for ever."""
    silent_after_ms: int = 2_000
    """A member not heard for this long is no longer asked for anything."""
    sync_ms: int = 2_000
    """Anti-entropy with one random member. Half: repair of a lost tail after 1 s instead of 2 s,
    at 130 B/s more per pair. Double: the reverse."""
    gap_wait_ms_min: int = 20
    gap_wait_ms_max: int = 50
    """Jitter before a gap is asked for: reordered messages close most gaps by themselves."""
    request_timeout_ms: int = 1_000
    """A pull, a gap request or a root query that has no answer by then is forgotten."""
    hello_retry_ms: int = 500
    """Between hellos to a candidate that has not answered; doubles up to ``hello_retry_ms_max``."""
    hello_retry_ms_max: int = 5_000
    founding_ms: int = 1_500
    """A node that finds no lot for this long founds one."""
    founding_patient_ms: int = 5_000
    """The same when peers were named by address or SRV: they are there, only slow."""
    orphan_ms: int = 10_000
    """A node that joined a lot and gets no record of it for this long starts without one: the
    only disk that had it may be lost. Half: a short cut makes two lots, which merge later."""
    amnesia_check_ms: int = 2_000
    """After a restart peers are asked for our highest seq for at most this long before minting."""
    name_taken_ms: int = 3_000
    """A newcomer told that its name is taken insists for this long: the holder may be dead."""
    snapshot_timeout_ms: int = 10_000
    """A snapshot without a chunk (or an acknowledgement) for this long is dropped."""
    log_events_max: int = 1_000_000
    """Events kept for repair; beyond it the oldest go and a peer that lacks them takes a
    snapshot. About 60 MB."""
    clock_spread_ms_max: int = 5_000
    """A wall clock further than this from the members' median is not believed."""
    ambiguous_ms: int = 2_000
    """An entry and an exit that did not see each other and lie this close are reported."""
    ephemeral_forget_ms: int = 3_600_000
    """An ephemeral member that died this long ago is let go without an operator."""
    leave_wait_ms: int = 3_000
    """Leaving: how long to wait until a member's disk covers the own head."""
