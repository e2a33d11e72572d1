"""Snapshots on their way out: frozen when they are asked for, sent against acknowledgements.

How it works (DESIGN section 5.4). The sender freezes when it is asked and holds the receiver's
join: records are immutable tuples, so a consistent cut is a list. As soon as its disk has what it
had minted by then, however much it has minted since, it sends a header (frozen context with
intervals, early removals, highest hybrid time, the small state), chunks against acknowledgements,
and a trailer. What the receiver makes of them stands in `snapshots`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final

from parkingd.core.ids import Now, ReplicaId
from parkingd.core.records import ORIGIN, SEQ, Record, RequestEffect
from parkingd.protocol.codec import pack_records, pack_requests, pack_small
from parkingd.protocol.limits import CHUNK_CREDIT, CHUNK_RECORDS_MAX, EARLY_MAX
from parkingd.protocol.messages import (
    Route,
    Sender,
    SnapshotAbort,
    SnapshotAck,
    SnapshotChunk,
    SnapshotHeader,
    SnapshotRequest,
    SnapshotTrailer,
)
from parkingd.protocol.shared import Shared, to_wire

SERVED_MAX: Final = 4
"""Snapshots sent at the same time; a further peer is told to come again."""


@dataclass(slots=True)
class Serving:
    """A snapshot on its way out."""

    route: Route
    nonce: int
    deadline_ms: int
    own_seq: int
    """Of the sender, at the freeze: its disk has to have that before anything is sent."""
    header: SnapshotHeader
    payloads: Iterator[bytes]
    root: bytes
    has_begun: bool = False
    """The header was sent."""
    sent: int = 0
    is_done: bool = False


class SnapshotServer:
    """The transfers to peers that have asked, `SERVED_MAX` at a time."""

    def __init__(self, shared: Shared, *, is_joining: Callable[[], bool]) -> None:
        """``is_joining``: the own state is in between, and cannot be frozen."""
        self._shared = shared
        self._is_joining = is_joining
        self.serving: dict[bytes, Serving] = {}
        """By route; read only."""
        self._last_nonces: dict[tuple[ReplicaId, int], int] = {}
        """The newest request of each process that has asked."""

    def receive_request(self, sender: Sender, request: SnapshotRequest, now: Now) -> None:
        """A peer asks for everything."""
        shared = self._shared
        if not isinstance(sender.link, Route) or request.lot != shared.lot:
            return
        asker = (sender.replica, sender.incarnation)
        if request.nonce <= self._last_nonces.get(asker, 0):
            return  # A late copy: its answer would mix two freezes in one transfer.
        self._last_nonces[asker] = request.nonce
        refusal = ""
        if self._is_joining():
            refusal = "joining a snapshot itself"
        elif len(self.serving) >= SERVED_MAX and sender.link.id not in self.serving:
            refusal = "busy"
        elif shared.replica.state.context.upto(sender.replica) < request.join_seq:
            refusal = "the join of the receiver is not here yet"
        elif len(shared.replica.state.stays.early) > EARLY_MAX:
            refusal = "too far behind itself"
        if refusal:
            shared.outbox.send(sender.link, SnapshotAbort(request.nonce, refusal))
            return
        serving = self.serving.get(sender.link.id)
        if serving is None or serving.has_begun:
            serving = self.serving[sender.link.id] = self._frozen(sender.link, request.nonce)
        serving.nonce = request.nonce  # The disk that it waits for may be slower than it is asked.
        serving.deadline_ms = now.mono_ms + shared.settings.snapshot_timeout_ms
        self.serve_waiting()

    def serve_waiting(self) -> None:
        """Begin for those whose freeze has reached the disk."""
        for serving in self.serving.values():
            if not serving.has_begun and self._shared.replica.durable_seq >= serving.own_seq:
                self._begin(serving)

    def _frozen(self, route: Route, nonce: int) -> Serving:
        shared = self._shared
        state = shared.replica.state
        assert shared.lot is not None
        records = state.stays.records()
        requests = list(state.stays.requests.items())
        header = SnapshotHeader(
            nonce,
            shared.lot,
            to_wire(state.context.copy()),
            tuple(state.stays.early),
            state.clock.last,
            pack_small(state.record.events.values()),
            len(records),
        )
        payloads = _payloads(records, requests)
        return Serving(route, nonce, 0, shared.replica.own_seq, header, payloads, state.root())

    def _begin(self, serving: Serving) -> None:
        serving.has_begun = True
        self._shared.counters["snapshots_sent"] += 1
        self._shared.outbox.send(serving.route, replace(serving.header, nonce=serving.nonce))
        for _ in range(CHUNK_CREDIT):
            self._send_chunk(serving)

    def _send_chunk(self, serving: Serving) -> None:
        if serving.is_done:
            return
        payload = next(serving.payloads, None)
        if payload is not None:
            chunk = SnapshotChunk(serving.nonce, serving.sent, payload)
            self._shared.outbox.send(serving.route, chunk)
            serving.sent += 1
            return
        serving.is_done = True
        records = serving.header.records
        trailer = SnapshotTrailer(serving.nonce, serving.sent, records, serving.root)
        self._shared.outbox.send(serving.route, trailer)

    def receive_ack(self, sender: Sender, ack: SnapshotAck, now: Now) -> None:
        """The peer has taken a chunk: send the next."""
        link = sender.link
        serving = self.serving.get(link.id) if isinstance(link, Route) else None
        if serving is None or serving.nonce != ack.nonce:
            return
        serving.deadline_ms = now.mono_ms + self._shared.settings.snapshot_timeout_ms
        self._send_chunk(serving)
        if serving.is_done and ack.index + 1 >= serving.sent:
            del self.serving[serving.route.id]

    # --- time ----------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Drop what nobody goes on with."""
        if not self.serving:
            return
        for serving in list(self.serving.values()):
            if now.mono_ms >= serving.deadline_ms:
                del self.serving[serving.route.id]
        self.serve_waiting()

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in monotonic milliseconds."""
        if not self.serving:
            return None
        return min(serving.deadline_ms for serving in self.serving.values())


_by_age: Final = itemgetter(ORIGIN, SEQ)


def _payloads(
    records: list[Record], requests: list[tuple[bytes, RequestEffect]]
) -> Iterator[bytes]:
    for start in range(0, len(records), CHUNK_RECORDS_MAX):
        # Neighbours in age differ least: some 10 % less to send than in order of arrival.
        yield pack_records(sorted(records[start : start + CHUNK_RECORDS_MAX], key=_by_age))
    for start in range(0, len(requests), CHUNK_RECORDS_MAX):
        yield pack_requests(requests[start : start + CHUNK_RECORDS_MAX])
