"""Snapshots: the whole state with a frozen context, for a peer behind the log's floor.

How it works (DESIGN section 5.4; the rules are model-checked). A snapshot comes as a header, chunks
and a trailer; how they are made stands in `snapshot_serving`.

A member stages everything and then joins it in one transaction, in slices, between which it
applies nothing else. Only an empty joiner streams: chunks are applied as they come, events wait,
nothing commits before the trailer, and an abort wipes it. Chunks applied as they come into a
replica that is not empty make ghosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from parkingd.core.causal import CausalContext
from parkingd.core.ids import Dot, Now
from parkingd.core.records import Record
from parkingd.errors import WireError
from parkingd.protocol.codec import (
    unpack_records_untrusted,
    unpack_requests_untrusted,
    unpack_small_untrusted,
)
from parkingd.protocol.effects import Level
from parkingd.protocol.limits import CHUNK_RECORDS_MAX
from parkingd.protocol.members import GONE, Member
from parkingd.protocol.messages import (
    Delta,
    Sender,
    SnapshotAbort,
    SnapshotAck,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
)
from parkingd.protocol.shared import Shared, from_wire
from parkingd.protocol.snapshot_serving import SnapshotServer


@dataclass(slots=True)
class Receiving:
    """A snapshot on its way in."""

    member: str
    nonce: int
    deadline_ms: int
    repair: bool
    streams: bool = False
    header: SnapshotHeader | None = None
    chunks: list[bytes] = field(default_factory=list)
    taken: int = 0
    records: int = 0
    trailer: SnapshotTrailer | None = None
    slices: Iterator[None] | None = None
    """The join in progress; each step is one slice."""


class Snapshots:
    """The receiver of one snapshot at a time; the way in to both ends."""

    def __init__(
        self,
        shared: Shared,
        *,
        pause: Callable[[bool], None],
        joined: Callable[[Member | None, Now], None],
    ) -> None:
        """``pause``: hold (or go on with) everything else that changes the state."""
        self._shared = shared
        self._pause = pause
        self._joined = joined
        self.receiving: Receiving | None = None
        """What was asked for; read only."""
        self.server = SnapshotServer(shared, is_joining=lambda: self.is_joining)

    @property
    def is_joining(self) -> bool:
        """The state is in between: nothing may be minted or applied."""
        receiving = self.receiving
        return receiving is not None and (receiving.streams or receiving.slices is not None)

    @property
    def is_receiving(self) -> bool:
        """A snapshot was asked for."""
        return self.receiving is not None

    # --- receiving -----------------------------------------------------------------------

    def request(self, member: Member, now: Now, *, repair: bool = False) -> None:
        """Ask this member for everything; one at a time."""
        shared = self._shared
        replica = shared.replica
        if self.receiving is not None or shared.lot is None:
            return
        if replica.own_seq and replica.durable_seq == 0:
            return  # The join has to be on disk before anybody may see it.
        nonce = shared.next_nonce()
        deadline_ms = now.mono_ms + shared.settings.snapshot_header_ms
        self.receiving = Receiving(member.name, nonce, deadline_ms, repair)
        first = replica.log.floor(replica.id) + 1
        for run in replica.own_runs(first, replica.durable_seq)[:1]:
            shared.outbox.send(member.address, Delta((run,)))
        join_seq = min(1, replica.durable_seq)
        shared.outbox.send(member.address, SnapshotRequest(nonce, shared.lot, join_seq))
        shared.outbox.notice(Level.INFO, "snapshot_asked", member=member.name, repair=repair)

    def receive_header(self, sender: Sender, header: SnapshotHeader, now: Now) -> None:
        """The snapshot begins."""
        receiving = self._current(sender, header.nonce, now)
        if receiving is None or receiving.header == header:
            return
        if receiving.header is not None:
            self._give_up("a second header", now)
            return
        if header.lot != self._shared.lot:
            self._give_up("another lot", now)
            return
        if self._shared.replica.state.is_voided(from_wire(header.context)):
            self._give_up("it holds events that are void", now)
            return
        receiving.header = header
        receiving.deadline_ms = now.mono_ms + self._shared.settings.snapshot_timeout_ms
        if self._shared.replica.is_empty and not receiving.repair:
            receiving.streams = True
            self._pause(True)
            self._shared.replica.hold_commits()

    def receive_chunk(self, sender: Sender, chunk: SnapshotChunk, now: Now) -> None:
        """Records: applied by an empty joiner, staged by everybody else."""
        receiving = self._current(sender, chunk.nonce, now)
        if receiving is None or receiving.header is None or receiving.slices is not None:
            return
        if chunk.index != receiving.taken:
            self._give_up("a chunk is missing", now)
            return
        receiving.taken += 1
        if receiving.streams:
            try:
                self._join_chunk(receiving, chunk.records, None)
            except WireError as error:
                self._give_up(str(error), now)
                return
        else:
            receiving.chunks.append(chunk.records)
        assert sender.link is not None
        member = self._shared.members.get(receiving.member)
        if member is not None:
            self._shared.outbox.send(member.address, SnapshotAck(chunk.nonce, chunk.index))

    def receive_trailer(self, sender: Sender, trailer: SnapshotTrailer, now: Now) -> None:
        """Everything has been sent: join it."""
        receiving = self._current(sender, trailer.nonce, now)
        if receiving is None or receiving.header is None or receiving.slices is not None:
            return
        if trailer.chunks != receiving.taken:
            self._give_up("a chunk is missing", now)
            return
        receiving.trailer = trailer
        if not receiving.streams:
            self._pause(True)
            self._shared.replica.hold_commits()
        receiving.slices = self._join_slices(receiving)

    def receive_abort(self, sender: Sender, abort: SnapshotAbort, now: Now) -> None:
        """The sender gives up."""
        if self._current(sender, abort.nonce, now) is not None:
            self._give_up(abort.reason, now)

    def _current(self, sender: Sender, nonce: int, now: Now) -> Receiving | None:
        receiving = self.receiving
        if receiving is None or receiving.nonce != nonce or receiving.member != sender.name:
            return None
        if receiving.header is not None:
            receiving.deadline_ms = now.mono_ms + self._shared.settings.snapshot_timeout_ms
        return receiving

    def _join_chunk(self, receiving: Receiving, payload: bytes, sent: set[Dot] | None) -> None:
        """Chunks carry records until all have come, then remembered requests."""
        header = receiving.header
        assert header is not None
        state = self._shared.replica.state
        if receiving.records < header.records:
            records = unpack_records_untrusted(payload)
            receiving.records += len(records)
            if sent is not None:
                sent.update((record[1], record[0]) for record in records)
            state.join_records(records)
            return
        for request, effect in unpack_requests_untrusted(payload):
            state.stays.remember(request, effect)

    def _join_slices(self, receiving: Receiving) -> Iterator[None]:
        """The causal join, one slice a step.

        Raises WireError when the snapshot is not what it says: before anything was changed, or,
        streamed, with everything to be wiped.
        """
        header, trailer = receiving.header, receiving.trailer
        assert header is not None
        assert trailer is not None
        state = self._shared.replica.state
        context = from_wire(header.context)
        small = list(unpack_small_untrusted(header.small))
        if not receiving.streams:
            yield from self._checked(receiving, header.records)
            joining = self._repaired if receiving.repair else self._merged
            yield from joining(receiving, header, context)
        elif receiving.records != trailer.records:
            raise WireError("malformed", "a snapshot with another count than it says")
        state.join_context(context, header.early, header.hybrid_high, small)
        if receiving.streams and state.root() != trailer.root:
            raise WireError("malformed", "a snapshot with another root than it says")
        self._shared.replica.raise_floors(context)

    def _merged(
        self, receiving: Receiving, header: SnapshotHeader, context: CausalContext
    ) -> Iterator[None]:
        state = self._shared.replica.state
        own = state.stays.records()
        sent: set[Dot] = set()
        for payload in receiving.chunks:
            self._join_chunk(receiving, payload, sent)
            yield
        early = dict.fromkeys(header.early)
        for start in range(0, len(own), CHUNK_RECORDS_MAX):
            state.drop_closed(own[start : start + CHUNK_RECORDS_MAX], context, early, sent)
            yield

    def _repaired(
        self, receiving: Receiving, header: SnapshotHeader, context: CausalContext
    ) -> Iterator[None]:
        """The state is damaged, the context is not: what the sender's context vouches for goes."""
        replica = self._shared.replica
        sent: dict[Dot, Record] = {}
        for payload in receiving.chunks:
            if receiving.records < header.records:
                records = unpack_records_untrusted(payload)
                receiving.records += len(records)
                sent.update(((record[1], record[0]), record) for record in records)
            yield
        own = replica.state.stays.records()
        for start in range(0, len(own), CHUNK_RECORDS_MAX):
            part = own[start : start + CHUNK_RECORDS_MAX]
            replica.state.drop_damaged(part, context, sent)
            yield
        closed = replica.closed_outside(context)
        sound = list(sent.values())
        for start in range(0, len(sound), CHUNK_RECORDS_MAX):
            replica.state.restore(sound[start : start + CHUNK_RECORDS_MAX], closed)
            yield

    @staticmethod
    def _checked(receiving: Receiving, announced: int) -> Iterator[None]:
        """Decode every staged chunk once, so that the join itself cannot fail half-way."""
        counted = 0
        for payload in receiving.chunks:
            if counted < announced:
                counted += len(unpack_records_untrusted(payload))
            else:
                unpack_requests_untrusted(payload)
            yield
        if counted != announced:
            raise WireError("malformed", "a snapshot with another count than it says")

    def _finish(self, receiving: Receiving, now: Now) -> None:
        shared = self._shared
        self.receiving = None
        shared.replica.release_commits()
        self._pause(False)
        shared.counters["snapshots_joined"] += 1
        shared.warnings.pop("diverged", None)
        shared.outbox.notice(
            Level.INFO, "snapshot_joined", member=receiving.member, records=receiving.records
        )
        self._joined(shared.members.get(receiving.member), now)

    def _give_up(self, reason: str, now: Now) -> None:
        receiving, self.receiving = self.receiving, None
        assert receiving is not None
        shared = self._shared
        shared.counters["snapshots_dropped"] += 1
        shared.outbox.notice(Level.INFO, "snapshot_dropped", member=receiving.member, reason=reason)
        if receiving.streams:
            shared.replica.wipe()
        if receiving.streams or receiving.slices is not None:
            shared.replica.release_commits()
            self._pause(False)
        self._joined(None, now)

    # --- time ----------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """One slice of a join; and drop what nobody goes on with."""
        self.server.tick(now)
        receiving = self.receiving
        if receiving is None:
            return
        if receiving.slices is not None:
            try:
                next(receiving.slices)
            except StopIteration:
                self._finish(receiving, now)
            except WireError as error:
                self._shared.counters[f"refused_{error.reason}"] += 1
                self._give_up(str(error), now)
            return
        member = self._shared.members.get(receiving.member)
        gone = member is None or member.state in GONE
        if gone or now.mono_ms >= receiving.deadline_ms:
            began = gone or receiving.header is not None
            self._give_up("the sender fell silent" if began else "it did not begin", now)

    def next_deadline(self, now_ms: int) -> int | None:
        """When `tick` has something to do."""
        receiving, due_ms = self.receiving, self.server.next_deadline()
        if receiving is None:
            return due_ms
        own_ms = now_ms if receiving.slices is not None else receiving.deadline_ms
        return own_ms if due_ms is None else min(own_ms, due_ms)
