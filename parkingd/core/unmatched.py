"""Unmatched exits: cars that left and that nobody had seen come in under that plate.

Nothing is kept for them alone. What an exit did is remembered like the effect of any request: for
24 hours, on the disk of every replica, in snapshots; so the list survives restarts and is the same
wherever the same events have arrived. One is *settled* by a removal whose request id is made from
the exit's own: whoever has both events knows it, and a second settling of one exit is a repetition.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from parkingd.core.events import MATCHED_NONE
from parkingd.core.hybrid import physical_ms
from parkingd.core.ids import REQUEST_ID_BYTES, Dot, HybridTime
from parkingd.core.records import RequestEffect, Stay
from parkingd.core.stays import VERB_EXIT, stay_since_ms


def may_have_been(stay: Stay, left: HybridTime) -> bool:
    """Whether this stay began before a car left at that time."""
    since_ms, left_ms = stay_since_ms(stay), physical_ms(left)
    return since_ms < left_ms or (since_ms == left_ms and stay[2] < left)


def settling_request(request: bytes) -> bytes:
    """The request id of the removal that settles the unmatched exit of this request."""
    return blake2b(request, digest_size=REQUEST_ID_BYTES, person=b"settles").digest()


def unmatched_exits(
    requests: Mapping[bytes, RequestEffect], after: HybridTime
) -> list[RequestEffect]:
    """Those later than ``after`` that nobody has settled, the latest first.

    Looks at all that is remembered: 5 ms for 100,000 requests of a day.
    """
    found = [
        effect
        for request, effect in requests.items()
        if effect[1] == VERB_EXIT
        and effect[6] == MATCHED_NONE
        and effect[0] > after
        and settling_request(request) not in requests
    ]
    return sorted(found, key=lambda effect: (-effect[0], effect[3], effect[4]))


def find_unmatched(
    requests: Mapping[bytes, RequestEffect], dot: Dot
) -> tuple[bytes, RequestEffect] | None:
    """Request id and effect of the unmatched exit with this dot, settled or not."""
    for request, effect in requests.items():
        if (effect[3], effect[4]) == dot and effect[1] == VERB_EXIT and effect[6] == MATCHED_NONE:
            return request, effect
    return None
