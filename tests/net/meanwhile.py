"""What goes on while something happens to a lab: daemons are watched, and cars drive up.

Both ask over the control sockets in threads of their own, because parkingd-ctl within the test's
process is one at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, Self

from parkingd.adapters.client import ControlClient, Trouble
from tests.daemon.harness import Daemon, plate_numbers, until
from tests.net.lab import PATIENCE_S, Document

LOOK_S: Final = 0.05
"""Between two looks of a watch."""
CAR_S: Final = 0.02
"""Between two cars of a lane: some thirty a second."""
ASK_S: Final = 5.0
TRIES_MAX: Final = 20


class Worker:
    """A thread that takes one step after the other until it is told to end.

    What a step raises is raised where the worker is ended.
    """

    def __init__(self, steps: Generator[None, None, None]) -> None:
        self._steps = steps
        self._is_over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """It has ended by itself."""
        return self._error is not None

    def end(self) -> None:
        """Let it finish the step that it is at."""
        self._is_over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with closing(self._steps):
                for _ in self._steps:
                    if self._is_over.is_set():
                        break
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self._error = error


class Workers:
    """Several, until the block is left."""

    def __init__(self, steps: Iterable[Generator[None, None, None]]) -> None:
        self._workers = [Worker(each) for each in steps]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as ends:
            for worker in self._workers:
                ends.callback(worker.end)

    @property
    def have_failed(self) -> bool:
        """Any of them; leaving the block tells why."""
        return any(worker.has_failed for worker in self._workers)


class Watch(Workers):
    """Reads a document of each daemon over and over: for what must never be seen, or once."""

    def __init__(self, daemons: Iterable[Daemon], verb: str) -> None:
        self.seen: list[Document] = []
        super().__init__(self._read(daemon, verb) for daemon in daemons)

    def items(self, key: str) -> set[Any]:
        """Every value of this field, of any item that anybody showed."""
        return {item[key] for document in self.seen for item in document["items"]}

    def _read(self, daemon: Daemon, verb: str) -> Generator[None, None, None]:
        with closing(daemon.client(PATIENCE_S)) as client:
            while True:
                answer = client.call(verb, {})
                assert not isinstance(answer, Trouble), (daemon.name, answer)
                self.seen.append(answer)
                yield
                time.sleep(LOOK_S)


class Load(Workers):
    """Cars that drive up at every gate in turn and ask to enter.

    Each daemon has a lane, where it is asked; while it does not answer the next one is, with the
    same request id.
    """

    def __init__(self, daemons: Sequence[Daemon], gate_count: int, prefix: str) -> None:
        self.decisions: list[Document] = []
        self.troubles: list[Trouble] = []
        self._controls = [daemon.control for daemon in daemons]
        self._gate_count = gate_count
        super().__init__(self._lane(number, prefix) for number in range(len(daemons)))

    def passed(self, more: int) -> None:
        """Wait until so many more cars were answered."""
        wanted = len(self.decisions) + more

        def is_enough() -> bool:
            return self.have_failed or len(self.decisions) >= wanted

        until(is_enough, f"{more} more cars", PATIENCE_S)

    def plates(self) -> list[str]:
        """Of all cars that were admitted, sorted."""
        return sorted(doc["plate"] for doc in self.decisions if doc["decision"] == "admitted")

    def refusals(self) -> list[tuple[str, int, str]]:
        """Who said no at which gate, and why."""
        return [
            (doc["node"], doc["gate"], doc["reason"])
            for doc in self.decisions
            if doc["decision"] != "admitted"
        ]

    def _lane(self, lane: int, prefix: str) -> Generator[None, None, None]:
        with ExitStack() as connections:
            clients: dict[Path, ControlClient] = {}
            for car, plate in enumerate(plate_numbers(f"{prefix}{lane}X")):
                args = {
                    "plate": plate,
                    "gate": 1 + car % self._gate_count,
                    "request": os.urandom(16),
                }
                for attempt in range(lane, lane + TRIES_MAX):
                    control = self._controls[attempt % len(self._controls)]
                    answer = _ask(clients, connections, control, args)
                    if not isinstance(answer, Trouble):
                        break
                    self.troubles.append(answer)
                    time.sleep(LOOK_S)
                else:
                    raise AssertionError(f"nobody answers {plate}: {self.troubles[-3:]}")
                self.decisions.append(answer)
                yield
                time.sleep(CAR_S)


def _ask(
    clients: dict[Path, ControlClient],
    connections: ExitStack,
    control: Path,
    args: dict[str, Any],
) -> Document | Trouble:
    """Over the connection that there is, else over a new one."""
    client = clients.get(control)
    if client is None:
        made = ControlClient.connect(control, ASK_S)
        if isinstance(made, Trouble):
            return made
        connections.callback(made.close)
        client = clients[control] = made
    answer = client.call("enter", args)
    if isinstance(answer, Trouble):
        del clients[control]
    return answer
