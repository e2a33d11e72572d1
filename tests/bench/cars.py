"""Cars for measurements: plates that look like plates, request ids that do not compress."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random
from string import ascii_uppercase
from typing import Any, Final

from parkingd.adapters.client import ControlClient, Trouble
from tests.bench.figures import BenchError

BATCH_ROWS: Final = 500
REQUESTS_UNDER_WAY: Final = 4
"""As `parkingd-ctl import` does."""

GATES: Final = 4
REQUEST_TIMEOUT_S: Final = 60.0

Row = tuple[int, str, int, None, bytes]
"""A row of ``import_rows``: line, plate, gate, since, request id."""


def cars(seed: int) -> Iterator[Row]:
    """Distinct cars without end: 8 characters a plate, a random request id each."""
    dice = Random(seed)
    seen: set[str] = set()
    line = 0
    while True:
        letters = "".join(dice.choices(ascii_uppercase, k=4))
        plate = f"{letters}{dice.randrange(10_000):04d}"
        if plate not in seen:
            seen.add(plate)
            line += 1
            yield (line, plate, dice.randint(1, GATES), None, dice.randbytes(16))


def batches(rows: Iterator[Row], count: int) -> list[list[Row]]:
    """The next ``count`` cars in requests of `BATCH_ROWS`."""
    wanted = list(islice(rows, count))
    return [wanted[start : start + BATCH_ROWS] for start in range(0, count, BATCH_ROWS)]


def ask(
    client: ControlClient, verb: str, args: dict[str, Any] | None = None, timeout_s: float = 30.0
) -> dict[str, Any]:
    """The whole answer. Raises BenchError when there is none."""
    answer = client.call(verb, args or {}, timeout_s)
    if isinstance(answer, Trouble):
        raise BenchError(f"{verb}: {answer.code}: {answer.reason}")
    return answer


def record(clients: Sequence[ControlClient], requests: Sequence[list[Row]]) -> None:
    """Import them, in turn over the nodes; returns when all are acknowledged.

    Some requests are ahead of their answers.
    """
    waiting = [iter(requests[start :: len(clients)]) for start in range(len(clients))]
    under_way: list[set[int]] = [set() for _ in clients]
    accepted = 0
    while True:
        for client, rest, ids in zip(clients, waiting, under_way, strict=True):
            for rows in islice(rest, REQUESTS_UNDER_WAY - len(ids)):
                ids.add(client.send("import_rows", {"rows": rows}, REQUEST_TIMEOUT_S))
        if not any(under_way):
            break
        for client, ids in zip(clients, under_way, strict=True):
            if ids:
                reply = client.receive(time.monotonic() + REQUEST_TIMEOUT_S)
                if isinstance(reply, Trouble):
                    raise BenchError(f"import_rows: {reply.code}: {reply.reason}")
                ids.discard(reply.id)
                accepted += reply.body["accepted"]
    if accepted != sum(map(len, requests)):
        raise BenchError(f"{accepted} cars were accepted, not {sum(map(len, requests))}")


def begin_wait(client: ControlClient, cars_inside: int, timeout_s: float) -> int:
    """Ask to be told when so many cars are inside; the id for `end_wait`."""
    return client.send("wait", {"conditions": [["inside", cars_inside, True]]}, timeout_s)


def end_wait(client: ControlClient, id_: int, timeout_s: float) -> int:
    """When the answer arrived, in `time.monotonic_ns`. Raises BenchError if it was no."""
    page = client.page(id_, time.monotonic() + timeout_s)
    arrived_ns = time.monotonic_ns()
    if isinstance(page, Trouble):
        raise BenchError(f"wait: {page.code}: {page.reason}")
    if not page.body["met"]:
        raise BenchError(f"wait: not met: {page.body['conditions']}")
    return arrived_ns
