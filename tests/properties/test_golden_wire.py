"""Wire version 1 as it was released: what these bytes meant they mean for ever.

``tests/golden/wire-1.txt`` holds one line per kind, its label and its bytes in hex. Lines are only
ever added; one that no longer decodes to the value below breaks every cluster while it is upgraded
and every database of an earlier release.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import get_args

import msgpack
import pytest

from parkingd.core import events as ev
from parkingd.core.gates import Fence
from parkingd.protocol import codec
from parkingd.protocol import messages as msg

GOLDEN = Path(__file__).parent.parent / "golden" / "wire-1.txt"

REPLICA = 0x1122334455667788
OTHER = 0x99AABBCCDDEEFF00
LOT = bytes(range(16))
CAUSE = bytes(range(16, 32))
ROOT = bytes(range(32, 48))
WALL_MS = 1_790_000_000_000
TIME = WALL_MS << 16 | 5
CONTEXT = ((REPLICA, 300, ((303, 303), (310, 320))), (OTHER, 0, ()))
RUNS = (msg.Run(REPLICA, 7, (b"one", b"two")), msg.Run(OTHER, 1, (b"three",)))

MESSAGES: tuple[msg.Message, ...] = (
    msg.Hello(
        True,
        LOT,
        7744,
        7745,
        WALL_MS,
        CONTEXT,
        False,
        "0.1.0",
        True,
        (msg.Address("fd00::2", 7746),),
    ),
    msg.Refused(msg.REFUSED_NAME_TAKEN, "held since yesterday"),
    msg.Heartbeat(
        4_000, 300, WALL_MS, 2, False, (msg.Suspicion("hoek", WALL_MS, 1, True),), ((1, 4), (3, 9))
    ),
    msg.Goodbye(300),
    msg.Delta(RUNS),
    msg.Pull(12, LOT, CONTEXT, None, ROOT),
    msg.PullReply(12, LOT, RUNS, True, False, CONTEXT, CONTEXT[:1], None),
    msg.Want(((REPLICA, 301, 302), (OTHER, 1, 9))),
    msg.SnapshotRequest(13, LOT, 1),
    msg.SnapshotHeader(13, LOT, CONTEXT, ((OTHER, 4),), TIME, (b"small",), 1_000),
    msg.SnapshotChunk(13, 2, b"records"),
    msg.SnapshotAck(13, 2),
    msg.SnapshotTrailer(13, 3, 1_000, ROOT),
    msg.SnapshotAbort(13, "gone"),
    msg.RootQuery(14),
    msg.RootAnswer(14, ROOT, CONTEXT),
    msg.FenceReport(CONTEXT[0], (REPLICA, OTHER), (REPLICA + 1,)),
    msg.EnterAsk(15, "mü-kr 1", 3, CAUSE, 4, "hoek", 4_900, Fence(6, OTHER, "gary")),
    msg.EnterAnswer(15, "denied", "full", 4, "hoek", WALL_MS, -1, "", "", ("repeated",)),
)

BODIES: tuple[ev.Body, ...] = (
    ev.Join("gary", False),
    ev.Found(LOT, 100, 4, "local"),
    ev.Enter("MÜKR1", 3, CAUSE, ((REPLICA, 4), (OTHER, 5)), "mü-kr 1", WALL_MS, ev.FLAG_IMPORTED),
    ev.Exit("MÜKR1", 2, CAUSE, ((REPLICA, 4),), (CAUSE,), ev.MATCHED_EXACT, WALL_MS, "mü-kr 1"),
    ev.Removal("AB12", CAUSE, ((OTHER, 5),)),
    ev.Correction("AB12", ((OTHER, 5),), "AB13", 1, CAUSE, None, WALL_MS),
    ev.Claim(2, 9, "gary", WALL_MS, 1, "hoek"),
    ev.Setting("spaces", 120, CAUSE),
    ev.Capacity(-5),
    ev.Transfer(OTHER, 40),
    ev.Fence(OTHER),
    ev.Seal(OTHER, 300, ((303, 303), (310, 320))),
)

LATER: dict[str, msg.Message] = {
    "message/Heartbeat/contested": msg.Heartbeat(
        4_001, 300, WALL_MS, 2, False, (), ((1, 4),), contested=((2, "hoek"), (3, "larry"))
    ),
    "message/Refused/held": msg.let_go(REPLICA, CONTEXT),
}
"""With a field that came later; the lines of `MESSAGES` are without."""

REASONED = ev.Setting("almostfull", 85, CAUSE, "fair week", 90)
"""With the two fields that came later; the lines of `BODIES` are without."""

STAY = (4, REPLICA, TIME, "MÜKR1", 3, CAUSE, ("mü-kr 1", WALL_MS, ev.FLAG_ADMITTED))
PLAIN_STAY = (5, OTHER, TIME + 9, "AB12", 1, None, None)
MARK = (6, REPLICA, TIME + 5, "MÜKR1", 2, CAUSE, (CAUSE,), ev.MATCHED_EXACT, WALL_MS)
EFFECT = (TIME, 1, "MÜKR1", REPLICA, 4, 3, ev.MATCHED_NONE, None)


def golden_lines() -> dict[str, bytes]:
    lines = [line.split() for line in GOLDEN.read_text("utf-8").splitlines()]
    golden = {label: bytes.fromhex(text) for label, text in lines}
    assert len(golden) == len(lines), "a label stands twice"
    return golden


def frame_of(message: msg.Message) -> bytes:
    return codec.encode(
        message, cluster="default", name="gary", replica=REPLICA, incarnation=WALL_MS
    )


def current_lines() -> dict[str, bytes]:
    lines = {f"message/{type(each).__name__}": frame_of(each) for each in MESSAGES}
    lines |= {label: frame_of(each) for label, each in LATER.items()}
    for body in BODIES:
        event = ev.Event(REPLICA, 8, TIME, body)
        lines[f"event/{type(body).__name__}"] = codec.pack_event(event)
    lines["event/Setting/reason"] = codec.pack_event(ev.Event(REPLICA, 8, TIME, REASONED))
    lines["small"] = codec.pack_small([ev.Event(REPLICA, 8, TIME, BODIES[0])])[0]
    lines["record/stay"] = codec.pack_record(STAY)
    lines["record/mark"] = codec.pack_record(MARK)
    lines["records"] = codec.pack_records([STAY, PLAIN_STAY, MARK])
    lines["request"] = codec.pack_request(EFFECT)
    lines["requests"] = codec.pack_requests([(CAUSE, EFFECT)])
    lines["context"] = codec.pack_context(
        [(REPLICA, 300, ((303, 303), (310, 320))), (OTHER, 0, ())]
    )
    return lines


def test_every_kind_has_a_golden_line() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(msg.Message))
    assert {type(body) for body in BODIES} == set(get_args(ev.Body))
    assert set(current_lines()) <= set(golden_lines())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_golden_frame_still_means_the_same(message: msg.Message) -> None:
    decoded = codec.decode_untrusted(
        golden_lines()[f"message/{type(message).__name__}"], cluster="default"
    )
    assert decoded == codec.Decoded("gary", REPLICA, WALL_MS, message)


@pytest.mark.parametrize("label", LATER)
def test_a_golden_frame_with_a_field_that_came_later_still_means_the_same(label: str) -> None:
    frame = golden_lines()[label]
    assert codec.decode_untrusted(frame, cluster="default").message == LATER[label]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_golden_event_still_means_the_same(body: ev.Body) -> None:
    packed = golden_lines()[f"event/{type(body).__name__}"]
    assert codec.unpack_event_untrusted(REPLICA, 8, packed) == ev.Event(REPLICA, 8, TIME, body)


def test_a_golden_setting_with_its_reason_still_means_the_same() -> None:
    packed = golden_lines()["event/Setting/reason"]
    assert codec.unpack_event_untrusted(REPLICA, 8, packed) == ev.Event(REPLICA, 8, TIME, REASONED)


def test_golden_records_still_mean_the_same() -> None:
    golden = golden_lines()
    assert codec.unpack_record_untrusted(golden["record/stay"]) == STAY
    assert codec.unpack_record_untrusted(golden["record/mark"]) == MARK
    assert codec.unpack_records_untrusted(golden["records"]) == [STAY, PLAIN_STAY, MARK]
    assert codec.unpack_effects_untrusted([golden["request"]]) == [EFFECT]
    assert codec.unpack_requests_untrusted(golden["requests"]) == [(CAUSE, EFFECT)]
    assert codec.unpack_small_untrusted([golden["small"]]) == [
        ev.Event(REPLICA, 8, TIME, BODIES[0])
    ]
    assert codec.unpack_context_untrusted(golden["context"]) == [
        (REPLICA, 300, ((303, 303), (310, 320))),
        (OTHER, 0, ()),
    ]


def test_what_is_written_today_is_what_was_written_then() -> None:
    golden = golden_lines()
    assert {label: golden[label] for label in current_lines()} == current_lines()


def test_a_golden_deflated_delta_still_inflates() -> None:
    frame = golden_lines()["message/Delta/deflated"]
    message = codec.decode_untrusted(frame, cluster="default").message
    assert message == msg.Delta((msg.Run(REPLICA, 7, (b"the same event",) * 60),))
    deflated = msgpack.unpackb(frame)[6][0]
    assert msgpack.unpackb(zlib.decompress(deflated))[0][:2] == [REPLICA, 7]
