"""Events, records, remembered requests and contexts: packed, unpacked, and damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkingd.core import events as ev
from parkingd.core.causal import CausalContext
from parkingd.core.records import MARK_FIELDS, STAY_FIELDS, Record, RequestEffect
from parkingd.errors import WireError
from parkingd.protocol import codec
from parkingd.protocol.limits import CHUNK_RECORDS_MAX
from tests.properties.strategies import (
    bodies,
    contexts,
    effects,
    events,
    ids16,
    marks,
    mutated,
    records,
    replicas,
    seqs,
    stays,
    times,
)

record_lists = st.lists(records, max_size=6)
request_lists = st.lists(st.tuples(ids16, effects), max_size=6)
context_parts = contexts.map(list)


def test_every_body_has_a_strategy() -> None:
    assert set(bodies) == set(get_args(ev.Body))


@pytest.mark.parametrize("kind", bodies, ids=lambda kind: kind.__name__)
@settings(max_examples=40)
@given(st.data())
def test_an_event_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    event = ev.Event(
        data.draw(replicas), data.draw(seqs), data.draw(times), data.draw(bodies[kind])
    )
    packed = codec.pack_event(event)
    unpacked = codec.unpack_event_untrusted(event.origin, event.seq, packed)
    assert unpacked == event
    assert type(unpacked.body) is kind
    assert codec.pack_event(unpacked) == packed


@pytest.mark.parametrize("kind", bodies, ids=lambda kind: kind.__name__)
def test_an_event_ignores_what_a_newer_node_appended(kind: type) -> None:
    @settings(max_examples=15)
    @given(bodies[kind])
    def claim(body: ev.Body) -> None:
        event = ev.Event(5, 6, 7, body)
        fields = msgpack.unpackb(codec.pack_event(event))
        full = {ev.Enter: 9, ev.Exit: 10, ev.Setting: 7}.get(type(body), 0)
        defaults = {ev.Enter: {5: [], 8: 0}, ev.Setting: {5: ""}}.get(type(body), {})
        fields += [defaults.get(place) for place in range(len(fields), full)]
        packed = msgpack.packb([*fields, [1.5, "later"]])
        assert codec.unpack_event_untrusted(5, 6, packed) == event

    claim()


def test_the_own_origin_in_covers_takes_one_byte() -> None:
    body = ev.Enter("AB12", 1, None, covers=((2**64 - 1, 3),))
    own = codec.pack_event(ev.Event(2**64 - 1, 4, 0, body))
    other = codec.pack_event(ev.Event(1, 4, 0, body))
    assert len(other) - len(own) == 8


def test_a_plain_enter_takes_at_most_42_bytes() -> None:
    body = ev.Enter("ABCD1234", 4, bytes(range(16)))
    assert len(codec.pack_event(ev.Event(2**64 - 1, 2**40, 1_790_000_000_000 << 16, body))) <= 42


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [3],
        [3, 1, "AB", 1],
        [3, -1, "AB", 1, None],
        [3, 2**63, "AB", 1, None],
        [3, 1, "", 1, None],
        [3, 1, "ab", 1, None],
        [3, 1, "A B", 1, None],
        [3, 1, "A" * 17, 1, None],
        [3, 1, "Ä\u202e", 1, None],
        [3, 1, b"AB", 1, None],
        [8, 1, "", 1, None],
        [8, 1, "a-b", 1, None],
        [8, 1, "a" * 17, 1, None],
        [8, 1, "ä", 1, None],
        [8, 1, "full", 1.5, None],
        [8, 1, "full", 1, None, None],
        [8, 1, "full", 1, None, "r" * 201],
        [8, 1, "full", 1, None, "", 1.5],
        [3, 1, "AB", 1_001, None],
        [3, 1, "AB", True, None],
        [3, 1, "AB", 1, b"short"],
        [3, 1, "AB", 1, None, [1]],
        [3, 1, "AB", 1, None, [1, 0]],
        [3, 1, "AB", 1, None, [1, 1] * 65],
        [3, 1, "AB", 1, None, None],
        [3, 1, "AB", 1, None, [], "x" * 65],
        [3, 1, "AB", 1, None, [], None, -1],
        [3, 1, "AB", 1, None, [], None, None, 256],
        [3, 1.0, "AB", 1, None],
        [3.0, 1, "AB", 1, None],
        [True, 1, "name", True],
        [0, 1],
        [13, 1],
        [4, 1, "AB", 1, None, [], [bytes(16)] * 17, 0],
        [4, 1, "AB", 1, None, [], [bytes(15)], 0],
        [4, 1, "AB", 1, None, [], [], 3],
        [2, 1, bytes(16), 10_000_001, 1, "local"],
        [2, 1, bytes(16), 1, 0, "local"],
        [2, 1, bytes(16), 1, 1_001, "local"],
        [11, 1, 0],
        [12, 1, 5, 3, [4, 5]],
        [12, 1, 5, 3, [6, 5]],
        [12, 1, 5, 3, [number for index in range(1_025) for number in (5 + 3 * index,) * 2]],
    ],
)
def test_an_event_out_of_range_is_malformed(fields: list[object]) -> None:
    with pytest.raises(WireError) as caught:
        codec.unpack_event_untrusted(5, 6, msgpack.packb(fields))
    assert caught.value.reason == "malformed"


def test_an_event_that_is_too_long_is_refused() -> None:
    with pytest.raises(WireError, match="oversize"):
        codec.unpack_event_untrusted(5, 6, bytes(30_000))


@given(records)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert codec.unpack_record_untrusted(codec.pack_record(record)) == record


@given(st.lists(records, max_size=6))
def test_records_come_back_as_they_were_with_the_stays_first(held: list[Record]) -> None:
    stays_first = sorted(held, key=len)
    assert codec.unpack_records_untrusted(codec.pack_records(held)) == stays_first
    rows = [codec.pack_record(record) for record in held]
    assert codec.unpack_rows_untrusted(rows) == stays_first


@given(st.lists(stays, min_size=1, max_size=6))
def test_unpacked_records_are_exact_tuples_that_share_their_origins(held: list[Record]) -> None:
    again = codec.unpack_records_untrusted(codec.pack_records([*held, *held]))
    assert all(type(record) is tuple and len(record) == STAY_FIELDS for record in again)
    assert len({id(record[1]) for record in again}) == len({record[1] for record in held})


def test_more_rows_than_a_chunk_may_hold_are_read_from_the_disk() -> None:
    held: list[Record] = [
        (seq, 5, seq << 16, f"A{seq}", 1, None, None) for seq in range(1, CHUNK_RECORDS_MAX + 8)
    ]
    assert codec.unpack_rows_untrusted([codec.pack_record(stay) for stay in held]) == held
    with pytest.raises(WireError):
        codec.unpack_records_untrusted(codec.pack_records(held))


@given(st.lists(effects, max_size=6))
def test_effects_packed_one_by_one_come_back_as_they_were(held: list[RequestEffect]) -> None:
    assert codec.unpack_effects_untrusted([codec.pack_request(effect) for effect in held]) == held


@given(request_lists)
def test_remembered_requests_come_back_as_they_were(
    held: list[tuple[bytes, RequestEffect]],
) -> None:
    assert codec.unpack_requests_untrusted(codec.pack_requests(held)) == held


@given(st.lists(events, max_size=5))
def test_small_events_come_back_with_their_dots(held: list[ev.Event]) -> None:
    assert codec.unpack_small_untrusted(codec.pack_small(held)) == held


@given(context_parts)
def test_a_context_comes_back_as_it_was(
    held: list[tuple[int, int, tuple[tuple[int, int], ...]]],
) -> None:
    assert codec.unpack_context_untrusted(codec.pack_context(held)) == held
    assert CausalContext.from_parts(held).parts() == tuple(held)


UNPACKERS: dict[str, Callable[[bytes], object]] = {
    "event": lambda packed: codec.pack_event(codec.unpack_event_untrusted(5, 6, packed)),
    "small": lambda packed: codec.pack_small(codec.unpack_small_untrusted([packed])),
    "record": lambda packed: codec.pack_record(codec.unpack_record_untrusted(packed)),
    "rows": lambda packed: codec.unpack_rows_untrusted([packed]),
    "records": lambda packed: codec.pack_records(codec.unpack_records_untrusted(packed)),
    "request": lambda packed: codec.unpack_effects_untrusted([packed]),
    "requests": lambda packed: codec.pack_requests(codec.unpack_requests_untrusted(packed)),
    "context": lambda packed: codec.pack_context(codec.unpack_context_untrusted(packed)),
}

SOURCES: dict[str, st.SearchStrategy[bytes]] = {
    "event": events.map(codec.pack_event),
    "small": events.map(lambda event: codec.pack_small([event])[0]),
    "record": records.map(codec.pack_record),
    "rows": records.map(codec.pack_record),
    "records": record_lists.map(codec.pack_records),
    "request": effects.map(codec.pack_request),
    "requests": request_lists.map(codec.pack_requests),
    "context": context_parts.map(codec.pack_context),
}


def unpacked_or_refused(form: str, packed: bytes) -> None:
    """What is let in can be packed again; what is not is refused with one exception type."""
    refused = "malformed"
    try:
        UNPACKERS[form](packed)
    except WireError as error:
        refused = error.reason
    assert refused in {"malformed", "oversize"}


@pytest.mark.parametrize("form", UNPACKERS)
@settings(max_examples=80)
@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(form: str, packed: bytes) -> None:
    unpacked_or_refused(form, packed)


@pytest.mark.parametrize("form", UNPACKERS)
@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_are_refused_or_mean_something_else(form: str, data: st.DataObject) -> None:
    unpacked_or_refused(form, data.draw(mutated(data.draw(SOURCES[form]))))


WRONG = (None, True, 1.5, -1, 2**64 - 1, "ab\n", b"x", (1, 2), {"a": 1})
STILL_RIGHT = {
    *((count, 1, 2**64 - 1) for count in (STAY_FIELDS, MARK_FIELDS)),
    *((STAY_FIELDS, place, None) for place in (5, 6)),
    *((MARK_FIELDS, place, None) for place in (5, 8)),
}


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@settings(max_examples=20)
@given(stays, marks)
def test_a_record_with_a_wrong_field_is_refused(wrong: object, stay: Record, mark: Record) -> None:
    for tag, record in enumerate((stay, mark)):
        for place in range(len(record)):
            row = msgpack.packb((tag, *record[:place], wrong, *record[place + 1 :]))
            if isinstance(wrong, int | None) and (len(record), place, wrong) in STILL_RIGHT:
                codec.unpack_record_untrusted(row)
                continue
            with pytest.raises(WireError):
                codec.unpack_record_untrusted(row)


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [[]],
        [[], 1],
        [[[5], [1]], []],
        [[[5], [1], [0], [1], ["A"], [1], [None], []], []],
        [[[], [1], [0], [1], ["A"], [1], [None], [None]], []],
        [[[5], [1], [1], [1], ["A"], [1], [None], [None]], []],
        [[[5], [1], [-1], [1], ["A"], [1], [None], [None]], []],
        [[[5], [0], [0], [1], ["A"], [1], [None], [None]], []],
        [[[5], [1, -1], [0, 0], [1, 0], ["A", "B"], [1, 1], [None] * 2, [None] * 2], []],
        [[["5"], [1], [0], [1], ["A"], [1], [None], [None]], []],
        [[[5], [True], [0], [1], ["A"], [1], [None], [None]], []],
        [[[5], [1], [0], [1], ["A"], [1], [None], [[None, None]]], []],
        [[[5], [2**64 - 1], [0], [1], ["A"], [1], [None], [None]], []],
    ],
)
def test_columns_out_of_form_are_malformed(groups: list[object]) -> None:
    with pytest.raises(WireError) as caught:
        codec.unpack_records_untrusted(msgpack.packb(groups))
    assert caught.value.reason == "malformed"
