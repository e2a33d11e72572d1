"""What a node is told when it is made. Every interval with its unit, reason and trade-off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parkingd.core.registers import DEFAULT_THRESHOLDS, Thresholds

DAY_MS: Final = 24 * 3_600_000


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
    thresholds: Thresholds = DEFAULT_THRESHOLDS
    """Of almost full and full, in percent; likewise."""
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
    suspect_after_ms: int = 1_000
    """A member not heard for this long is suspected, and the others are told. Four heartbeats: with
    32 times too much work on the machine they came at most 0.48 s apart (research/membership.md
    1.3). Half: pauses of half a second, as of a busy disk, are suspected and refuted. Double: the
    gates of a frozen node wait a second longer."""
    dead_after_ms: int = 2_000
    """A suspect not heard for this long is dead once enough others suspect it too. Half: a pause of
    1.5 s costs a node its gates. Double: a frozen node's gates stand still for 4 s."""
    confirmations_max: int = 3
    """So many others must suspect it too, fewer where fewer live. Half (1): two nodes behind one
    bad cable can declare the rest dead. Double: in a large cluster two more must notice first."""
    suspicion_fresh_ms: int = 1_000
    """A suspicion that was heard this long ago counts no more: four heartbeats would have repeated
    it. Half: one lost heartbeat delays a death. Double: a suspicion outlives its refutation."""
    pause_guard_ms: int = 500
    """A node whose own loop stood still for this long does not trust its silence: it takes every
    member for heard just now, and accuses nobody for `pause_quiet_ms`. Half: the guard is up at
    every slow commit. Double: a node that slept for 0.9 s accuses all the others."""
    pause_quiet_ms: int = 1_000
    """How long it accuses nobody after that: what is in its sockets must be read first. Half: with
    a minute of messages to read it may accuse. Double: a real death is noticed a second later."""
    pause_stop_ms: int = 1_500
    """After a pause this long the gates may be somebody else's: it stops them until it has
    exchanged with a member. It must stay below ``dead_after_ms``. Half: gates stop needlessly.
    Double: a woken node opens a barrier that others serve already."""
    refusal_late_ms: int = 100
    """What arrives this soon after a refused connection was under way before it. Half: a busy loop
    takes old messages for life. Double: a restart at the same address is believed later."""
    stable_view_ms: int = 300
    """Gates move only after the set of living nodes was the same for this long: who starts together
    is seen together. Half: gates move twice when ten nodes start. Double: a fair share comes later.
    Orphans never wait for it."""
    young_ms: int = 3_000
    """A node gets moved gates once it has lived this long. Half: one that dies at start takes gates
    with it. Double: a joiner idles for 6 s."""
    move_pause_ms: int = 5_000
    """The same gate moves at most this often. Half: a flapping link moves gates every 2.5 s.
    Double: shares stay uneven for 10 s after two changes in a row."""
    release_timeout_ms: int = 2_000
    """A gate released to a node that does not accept it for this long is taken back. Half: a target
    that was paused for a second loses it. Double: the gate stands still for 4 s."""
    flap_deaths: int = 3
    """A node that died so often within `flap_window_ms` gets no moved gates for
    `flap_penalty_ms`. Half: one crash and a restart are punished. Double: it may disturb twice as
    long."""
    flap_window_ms: int = 60_000
    flap_penalty_ms: int = 30_000
    forward_retry_ms: int = 1_000
    """An `enter` passed on to a gate's owner and not answered for this long is passed on again,
    with the same request id. Half: a slow disk is asked twice. Double: a lost one waits 2 s."""
    owner_ack_ms: int = 250
    """Near a full lot an owner waits for the others' counts before it admits one more; who has not
    answered for this long is left out. Half: a busy owner is left out, and one car too many may
    come in. Double: a frozen owner delays the others' arrivals by half a second."""
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
    snapshot_header_ms: int = 2_000
    """A snapshot that was asked for and has not begun within this is given up; the next exchange
    asks for another, perhaps of another member. It begins when the sender's disk has what it had
    when it was asked. Half: a disk that takes a second for a commit is asked twice. Double: a lost
    header holds a joiner up for 4 s."""
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
    journal_ms: int = 30 * DAY_MS
    """Lines of the journal are kept this long. Plates are personal data: who needs less says so."""
    leave_wait_ms: int = 3_000
    """Leaving: how long to wait until a member's disk covers the own head."""
