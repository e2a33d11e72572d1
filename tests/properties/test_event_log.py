"""The event log beside a model: a plain dict of everything above the floors."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from parkingd.core.causal import CausalContext
from parkingd.protocol.log import BLOCK_EVENTS, EVENT_OVERHEAD_BYTES, EventLog
from parkingd.protocol.messages import Run

ORIGINS = (3, 5)
SEQ_TOP = 4 * BLOCK_EVENTS


def packed(origin: int, seq: int) -> bytes:
    return f"{origin}/{seq}".encode() * (1 + seq % 3)


stretches = st.tuples(
    st.sampled_from(ORIGINS), st.integers(1, SEQ_TOP), st.integers(1, 2 * BLOCK_EVENTS)
)
floors = st.tuples(st.sampled_from(ORIGINS), st.integers(0, SEQ_TOP), st.none())


class Model:
    def __init__(self) -> None:
        self.events: dict[tuple[int, int], bytes] = {}
        self.floors: dict[int, int] = {}

    def add(self, origin: int, seq: int) -> None:
        if seq > self.floors.get(origin, 0):
            self.events[origin, seq] = packed(origin, seq)

    def raise_floor(self, origin: int, upto: int) -> None:
        self.floors[origin] = max(upto, self.floors.get(origin, 0))
        self.events = {
            (o, seq): event
            for (o, seq), event in self.events.items()
            if o != origin or seq > self.floors[origin]
        }


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(stretches, floors), max_size=12), st.randoms(use_true_random=False))
def test_it_holds_what_was_added_above_the_floor_in_whatever_order_it_came(
    changes: list[tuple[int, int, int | None]], dice: object
) -> None:
    log, model = EventLog(), Model()
    for origin, seq, length in changes:
        if length is None:
            log.raise_floor(origin, seq)
            model.raise_floor(origin, seq)
            continue
        seqs = list(range(seq, seq + length))
        dice.shuffle(seqs)  # type: ignore[attr-defined]
        for each in seqs:
            log.add(origin, each, packed(origin, each))
            model.add(origin, each)
    assert list(log.entries()) == [(o, seq, e) for (o, seq), e in sorted(model.events.items())]
    assert log.count == len(model.events)
    for origin in ORIGINS:
        held = [seq for o, seq in sorted(model.events) if o == origin]
        assert log.size(origin) == len(held)
        assert log.oldest(origin) == (held[0] if held else None)
        assert (origin in log.origins()) == bool(held)
        assert log.floor(origin) == model.floors.get(origin, 0)


@given(st.integers(1, SEQ_TOP), st.integers(1, SEQ_TOP), st.integers(0, 5_000))
def test_a_span_is_the_longest_prefix_that_fits(first: int, length: int, bytes_max: int) -> None:
    log = EventLog()
    hole = 2 * BLOCK_EVENTS + 7
    for seq in range(1, SEQ_TOP + 1):
        if seq != hole:
            log.add(3, seq, packed(3, seq))
    last = first + length - 1
    expected: list[bytes] = []
    size = 0
    for seq in range(first, last + 1):
        cost = len(packed(3, seq)) + EVENT_OVERHEAD_BYTES
        if seq == hole or seq > SEQ_TOP or size + cost > bytes_max:
            break
        expected.append(packed(3, seq))
        size += cost
    run, taken = log.span(3, first, last, bytes_max)
    assert taken == size
    assert run == (Run(3, first, tuple(expected)) if expected else None)


def test_who_lacks_what_has_left_the_log_is_behind() -> None:
    log = EventLog()
    holder, peer = CausalContext(), CausalContext()
    for seq in range(1, SEQ_TOP + 1):
        log.add(3, seq, packed(3, seq))
        holder.add(3, seq)
    peer.add_span(3, 1, BLOCK_EVENTS + 10)
    log.raise_floor(3, BLOCK_EVENTS + 10)
    runs, more, behind = log.missing_runs(holder, peer, 1 << 20)
    assert (runs[0].first, runs[0].last, more, behind) == (BLOCK_EVENTS + 11, SEQ_TOP, False, False)
    log.raise_floor(3, BLOCK_EVENTS + 11)
    assert log.missing_runs(holder, peer, 1 << 20) == ((), False, True)
