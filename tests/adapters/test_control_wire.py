from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.adapters.control_wire import (
    DEADLINE_MS_MAX,
    REQUEST_BYTES_MAX,
    BadRequest,
    Reply,
    Request,
    decode_reply,
    decode_request_untrusted,
    encode_reply,
    encode_request,
)
from parkingd.errors import WireError

REQUEST = Request(7, "track", {"plate": "A", "request": b"0" * 16}, 5_000)
REPLY = Reply(7, False, "VehicleList", "gary", 10**12, {"rows": [["A", 1, 2**64 - 1]]})


def fields(**changes: object) -> bytes:
    request = {"v": 1, "id": 7, "verb": "lot", "args": {}, "deadline_ms": 5} | changes
    return bytes(msgpack.packb(request))


def test_text_that_is_not_unicode_does_not_keep_an_answer_from_its_reader() -> None:
    reply = REPLY._replace(body={"detail": "no such file: \udcff"})
    assert decode_reply(encode_reply(reply)).body == {"detail": "no such file: ?"}


def test_requests_and_replies_survive_the_wire() -> None:
    assert decode_request_untrusted(encode_request(REQUEST)) == REQUEST
    assert decode_reply(encode_reply(REPLY)) == REPLY


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"hello",
        b"\x93\x01\x02",
        msgpack.packb({"v": 1}),
        msgpack.packb({"v": 1, "id": -1}),
        msgpack.packb({"v": 1, "id": True}),
        msgpack.packb({"v": 1, "id": 2**63}),
        msgpack.packb({1: 2}),
        b"\x81\x91\x00\x00",
        b"\x81\xa2id\xd9\x02\xff\xff",
        b"\x91" * 2_000,
        b"\x81\xa2id\xc7\x01\x05x",
        b"\xdf\xff\xff\xff\xff",
        fields() + b"\x00",
        bytes(REQUEST_BYTES_MAX + 1),
    ],
)
def test_a_frame_without_an_id_to_answer_is_a_wire_error(frame: bytes) -> None:
    with pytest.raises(WireError):
        decode_request_untrusted(frame)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"verb": ""},
        {"verb": "x" * 33},
        {"verb": 1},
        {"args": []},
        {"deadline_ms": 0},
        {"deadline_ms": 1.5},
        {"deadline_ms": DEADLINE_MS_MAX + 1},
    ],
)
def test_a_bad_request_with_an_id_can_be_answered(changes: dict[str, object]) -> None:
    bad = decode_request_untrusted(fields(**changes))
    assert isinstance(bad, BadRequest)
    assert bad.id == 7


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_wire_error(frame: bytes) -> None:
    for decode in (decode_request_untrusted, decode_reply):
        with suppress(WireError):
            assert decode(frame) is not None


@given(st.integers(0, 60), st.integers(0, 255))
def test_any_damage_to_a_reply_gives_a_value_or_a_wire_error(place: int, byte: int) -> None:
    frame = bytearray(encode_reply(REPLY))
    frame[place % len(frame)] = byte
    with suppress(WireError):
        assert isinstance(decode_reply(bytes(frame)).body, dict)
