"""Frames: every message survives the wire, and no bytes at all can do harm."""

from __future__ import annotations

import tracemalloc
import zlib
from typing import get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parkingd.errors import WireError
from parkingd.protocol import messages as msg
from parkingd.protocol.codec import Decoded, decode_untrusted, encode, peek_untrusted
from parkingd.protocol.limits import CHUNK_BYTES_MAX, CHUNK_FRAME_BYTES_MAX, FRAME_BYTES_MAX
from parkingd.protocol.wire_messages import KIND_OF
from tests.properties.strategies import (
    any_message,
    incarnations,
    messages,
    mutated,
    names,
    replicas,
)

REASONS = {"oversize", "malformed", "protocol_version", "other_cluster", "unknown_kind"}


def framed(message: msg.Message, cluster: str = "default") -> bytes:
    return encode(message, cluster=cluster, name="gary", replica=7, incarnation=1_790_000_000_000)


def refusal(frame: bytes, cluster: str = "default") -> str:
    with pytest.raises(WireError) as caught:
        decode_untrusted(frame, cluster=cluster)
    assert caught.value.reason in REASONS
    return caught.value.reason


def accepted_or_refused(frame: bytes) -> None:
    refused, decoded = None, None
    try:
        decoded = decode_untrusted(frame, cluster="default")
    except WireError as error:
        refused = error.reason
    if decoded is None:
        assert refused in REASONS
        return
    again = encode(
        decoded.message,
        cluster="default",
        name=decoded.name,
        replica=decoded.replica,
        incarnation=decoded.incarnation,
    )
    assert decode_untrusted(again, cluster="default") == decoded


def test_every_message_class_has_a_kind_of_its_own_and_a_strategy() -> None:
    assert set(KIND_OF) == set(get_args(msg.Message)) == set(messages)
    assert len(set(KIND_OF.values())) == len(KIND_OF)


@pytest.mark.parametrize("kind", messages, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(st.data())
def test_a_message_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    message = data.draw(messages[kind])
    cluster, name = data.draw(names), data.draw(names)
    replica, incarnation = data.draw(replicas), data.draw(incarnations)
    frame = encode(message, cluster=cluster, name=name, replica=replica, incarnation=incarnation)
    decoded = decode_untrusted(frame, cluster=cluster)
    assert decoded == Decoded(name, replica, incarnation, message)
    assert type(decoded.message) is kind
    assert (
        encode(
            decoded.message, cluster=cluster, name=name, replica=replica, incarnation=incarnation
        )
        == frame
    )
    assert peek_untrusted(frame) == (1, cluster, name)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_reason(frame: bytes) -> None:
    accepted_or_refused(frame)
    peek_untrusted(frame)


@settings(max_examples=600)
@given(st.data())
def test_a_damaged_frame_is_refused_or_is_another_message(data: st.DataObject) -> None:
    frame = data.draw(mutated(framed(data.draw(any_message))))
    accepted_or_refused(frame)
    peek_untrusted(frame)


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20)
anything = st.recursive(
    plain | st.text(max_size=20) | st.floats(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@settings(max_examples=250)
@given(st.integers(1, 17), st.lists(anything, max_size=9))
def test_a_body_of_anything_is_refused_or_is_a_message(kind: int, body: list[object]) -> None:
    accepted_or_refused(msgpack.packb([1, kind, "default", "gary", 7, 8, body]))


@given(any_message)
def test_every_cut_of_a_frame_is_refused(message: msg.Message) -> None:
    frame = framed(message)
    for length in {*range(min(len(frame), 40)), len(frame) // 2, len(frame) - 1}:
        assert refusal(frame[:length]) in {"malformed"}
    assert refusal(frame + b"\x00") == "malformed"


def left_out(message: msg.Message) -> object:
    """The last field, where it may be left out: it came later."""
    match message:
        case msg.Heartbeat(contested=last) | msg.Refused(held=last):
            return last
    return None


@given(any_message)
def test_fields_that_a_newer_node_appended_are_ignored(message: msg.Message) -> None:
    envelope = msgpack.unpackb(framed(message))
    if left_out(message) == ():
        envelope[6].append([])
    envelope[6].append([1.5, None, "later"])
    envelope.append("later")
    assert decode_untrusted(msgpack.packb(envelope), cluster="default").message == message


@given(any_message)
def test_a_body_that_is_too_short_is_refused(message: msg.Message) -> None:
    envelope = msgpack.unpackb(framed(message))
    if left_out(message):
        envelope[6].pop()
    envelope[6].pop()
    assert refusal(msgpack.packb(envelope)) == "malformed"


@given(any_message, st.integers(2, 2**64 - 1) | st.just(0))
def test_another_wire_version_is_named_before_anything_else_is_read(
    message: msg.Message, wire: int
) -> None:
    envelope = msgpack.unpackb(framed(message, "elsewhere"))
    envelope[0] = wire
    envelope[6] = {"a": [1.5]}
    frame = msgpack.packb(envelope)
    assert refusal(frame) == "protocol_version"
    assert peek_untrusted(frame) == (wire, "elsewhere", "gary")
    assert refusal(msgpack.packb([wire])) == "protocol_version"


@given(any_message, names.filter(lambda cluster: cluster != "default"))
def test_another_cluster_is_refused_whatever_its_body_is(
    message: msg.Message, cluster: str
) -> None:
    frame = framed(message, cluster)
    assert refusal(frame) == "other_cluster"
    assert peek_untrusted(frame) == (1, cluster, "gary")
    envelope = msgpack.unpackb(frame)
    envelope[6] = {"a": 1}
    assert refusal(msgpack.packb(envelope)) == "other_cluster"


@pytest.mark.parametrize("kind", [0, 20, 127, 2**32])
def test_an_unknown_kind_is_refused_whatever_its_body_is(kind: int) -> None:
    for body in ([], [1, 2], {"a": 1}, 1.5):
        frame = msgpack.packb([1, kind, "default", "gary", 7, 8, body])
        assert refusal(frame) == "unknown_kind"


@pytest.mark.parametrize(
    "envelope",
    [
        [],
        [True, 3, "default", "gary", 7, 8, []],
        [1.0, 3, "default", "gary", 7, 8, []],
        ["1", 3, "default", "gary", 7, 8, []],
        [1],
        [1, 3],
        [1, 3, "default"],
        [1, True, "default", "gary", 7, 8, [1]],
        [1, 3.0, "default", "gary", 7, 8, [1]],
        [1, 3, b"default", "gary", 7, 8, [1]],
        [1, 4, "default", "gary\n", 7, 8, [1]],
        [1, 4, "default", "", 7, 8, [1]],
        [1, 4, "default", "x" * 64, 7, 8, [1]],
        [1, 4, "default", "gary", 0, 8, [1]],
        [1, 4, "default", "gary", -1, 8, [1]],
        [1, 4, "default", "gary", 7, -1, [1]],
        [1, 4, "default", "gary", 7, 8, [True]],
        [1, 4, "default", "gary", 7, 8, [float("nan")]],
        [1, 4, "default", "gary", 7, 8, [msgpack.ExtType(5, b"abcd")]],
        [1, 4, "default", "gary", 7, 8, [msgpack.Timestamp(1)]],
        [1, 4, "default", "gary", 7, 8, [1], {"a": 1}],
        {"wire": 1},
        1,
    ],
)
def test_an_envelope_out_of_form_is_malformed(envelope: object) -> None:
    assert refusal(msgpack.packb(envelope)) == "malformed"


@pytest.mark.parametrize(
    "context",
    [
        [[2, 1], [1, 1]],
        [[1, 1], [1, 1]],
        [[0, 1]],
        [[1, -1]],
        [[1]],
        [[1, 2**48]],
        [[1, 3, 4, 5]],
        [[1, 3, 6]],
        [[1, 3, 7, 6]],
        [[1, 0, 3, 4, 5, 6]],
        [[1, 0, 8, 9, 3, 4]],
        [[index, 1] for index in range(1, 4_098)],
    ],
)
def test_a_context_out_of_form_is_malformed(context: object) -> None:
    assert refusal(msgpack.packb([1, 16, "default", "gary", 7, 8, [1, b"root", context]])) == (
        "malformed"
    )


def test_a_frame_over_its_limit_is_refused_unread() -> None:
    heartbeat = framed(msg.Heartbeat(1, 1, 1))
    assert refusal(heartbeat + bytes(FRAME_BYTES_MAX)) == "oversize"
    chunk = framed(msg.SnapshotChunk(1, 0, b"x"))
    assert refusal(chunk + bytes(FRAME_BYTES_MAX)) == "malformed"
    assert refusal(chunk + bytes(CHUNK_FRAME_BYTES_MAX)) == "oversize"


def test_what_does_not_fit_in_a_frame_cannot_be_encoded() -> None:
    noise = b"".join(index.to_bytes(32, "big") for index in range(40_000))
    with pytest.raises(ValueError, match="limit"):
        framed(msg.SnapshotChunk(1, 0, noise))
    with pytest.raises(ValueError, match="limit"):
        framed(msg.RootAnswer(1, b"r", tuple((2**63 + i, 2**40, ()) for i in range(4_096))))


def test_a_mebibyte_of_records_passes_when_it_deflates_and_not_a_byte_more() -> None:
    full = msg.SnapshotChunk(1, 0, b"stay" * (CHUNK_BYTES_MAX // 4))
    frame = framed(full)
    assert len(frame) <= CHUNK_FRAME_BYTES_MAX
    assert decode_untrusted(frame, cluster="default").message == full
    envelope = msgpack.unpackb(frame)
    envelope[6][2] = zlib.compress(msgpack.packb([b"x" * (CHUNK_BYTES_MAX + 1)]))
    assert refusal(msgpack.packb(envelope)) == "malformed"


def peak_bytes_while_refusing(frame: bytes) -> int:
    refusal(frame)  # whatever is built once is built now
    tracemalloc.start()
    try:
        refusal(frame)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("kind", "before"), [(5, []), (7, [1, bytes(16)]), (11, [1, 0])])
def test_a_deflated_bomb_is_refused_without_inflating_it(kind: int, before: list[object]) -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    frame = msgpack.packb([1, kind, "default", "gary", 7, 8, [*before, bomb, *([None] * 5)]])
    assert len(frame) < FRAME_BYTES_MAX
    assert peak_bytes_while_refusing(frame) < 8_000_000
    assert refusal(frame) == "oversize"


@pytest.mark.parametrize(
    "damaged", [b"", b"\x78\x9c", zlib.compress(b"\x90")[:-1], zlib.compress(b"\x90") + b"\x00"]
)
def test_a_deflated_field_that_is_damaged_is_malformed(damaged: bytes) -> None:
    assert refusal(msgpack.packb([1, 5, "default", "gary", 7, 8, [damaged]])) == "malformed"


@pytest.mark.parametrize(
    "claim",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdd\x00\x01\x00\x00" * 10_000,
        b"\xdc\x10\x00" * 20_000,
        b"\x91" * 60_000,
        b"\x81\x01" * 30_000,
    ],
    ids=lambda claim: claim[:5].hex(),
)
def test_a_claimed_size_or_depth_costs_bounded_memory(claim: bytes) -> None:
    envelope = framed(msg.Goodbye(1))[:-2]
    for frame in (claim, envelope + claim, envelope + b"\x91" + claim):
        assert peak_bytes_while_refusing(frame) < 64_000_000
        assert refusal(frame) == "malformed"


def test_a_heartbeat_is_small() -> None:
    beat = msg.Heartbeat(beat=2**20, head=10**6, wall_ms=1_790_000_000_000)
    frame = encode(
        beat, cluster="default", name="north", replica=2**64 - 1, incarnation=1_790_000_000_000
    )
    assert len(frame) < 75
