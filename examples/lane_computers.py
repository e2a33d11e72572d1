"""Three lane computers: the daemons, a connection to each, and a neighbour when one is down.

`replay_day.py` and `demo.py` drive their cars through this.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from car_park_day import GATES, Movement
from local_cluster import LocalCluster, Unexpected

from parkingd.adapters.client import CODE_DAEMON_STOPPED, ControlClient, Trouble

NAMES: Final = ("larry", "gary", "harry")

REQUEST_S_MAX: Final = 15.0
AGREE_S_MAX: Final = 15.0
"""Connected nodes become identical within a second; 5 s after one was away."""
AGREE_WITHOUT_ONE_S_MAX: Final = 1.5
"""Each hour, for each living node: the figure may not come before the dead one is back."""
MEET_S_MAX: Final = 15.0


def flags_of(spaces: int) -> tuple[str, ...]:
    """What the daemons are started with: one car park, on this machine only."""
    lot = ("--spaces", str(spaces), "--gates", str(GATES))
    return (*lot, "--host", "127.0.0.1", "--no-mdns")


class LaneComputers:
    """The three daemons, and a connection to each that lives."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._clients: dict[str, ControlClient] = {}
        self.repeated = 0
        """Requests that a neighbour was asked again, because the node they were sent to died."""

    def start(self, *names: str) -> None:
        """Start, and wait until all three see each other and have the same record."""
        self.start_alone(*names)
        wanted = [["members", len(NAMES), False], ["synced", 1, True]]
        for name in names:
            met = self.ask(name, "wait", {"conditions": wanted}, MEET_S_MAX)["met"]
            if not met:
                raise Unexpected(f"{name} has not met the others within {MEET_S_MAX:g} s")

    def start_alone(self, *names: str) -> None:
        """Start, and wait for nothing but an answer."""
        self._cluster.start(names)
        for name in names:
            client = ControlClient.connect(self._cluster.socket(name), REQUEST_S_MAX)
            if isinstance(client, Trouble):
                raise Unexpected(f"{name}: {client.reason}")
            self._clients[name] = client

    def kill(self, name: str) -> None:
        """As if somebody pulled its plug."""
        self._cluster.kill(name)
        self._clients.pop(name).close()

    def close(self) -> None:
        """End the connections; the daemons live on."""
        for client in self._clients.values():
            client.close()

    @property
    def living(self) -> list[str]:
        """Names, in their usual order."""
        return [name for name in NAMES if name in self._clients]

    def ask(
        self, name: str, verb: str, args: dict[str, Any], timeout_s: float = REQUEST_S_MAX
    ) -> dict[str, Any]:
        """One request to one node. Raises Unexpected when the answer is none."""
        answer = self._clients[name].call(verb, args, timeout_s)
        if isinstance(answer, Trouble):
            raise Unexpected(f"{name}: {verb}: {answer.code}: {answer.reason}")
        return answer

    def import_cars(self, movements: Sequence[Movement]) -> None:
        """Who is inside already when all this begins. Raises Unexpected if one is refused."""
        rows = [
            [line, movement.plate, movement.gate, None, movement.request]
            for line, movement in enumerate(movements, 1)
        ]
        accepted = self.ask(NAMES[0], "import_rows", {"rows": rows})["accepted"]
        if accepted != len(rows):
            raise Unexpected(f"{accepted} of {len(rows)} cars were imported")

    def record(self, movements: Sequence[Movement], victim: str | None = None) -> None:
        """Record all of them, each at its lane, and wait for every acknowledgement.

        ``victim`` is killed when everything has been sent and nothing has been answered.
        """
        under_way: dict[str, dict[int, Movement]] = {name: {} for name in self.living}
        for movement in movements:
            name = self._responsible(movement)
            under_way[name][self._send(name, movement)] = movement
        if victim is not None:
            self._cluster.kill(victim)
        unanswered: list[Movement] = []
        for name, sent in under_way.items():
            unanswered += self._receive(name, sent, may_die=name == victim)
        if victim is not None:
            self._clients.pop(victim).close()
        if unanswered:
            self.repeated += len(unanswered)
            self.record(unanswered)

    def move(self, movement: Movement) -> dict[str, Any]:
        """Ask for one car at its lane, as its barrier would; the Decision or the Exit."""
        args = {"plate": movement.plate, "gate": movement.gate, "request": movement.request}
        verb = "enter" if movement.enters else "exit"
        return self.ask(self._responsible(movement), verb, args)

    def _responsible(self, movement: Movement) -> str:
        """The node of that lane, else the next one that lives."""
        lanes = (*NAMES[movement.lane :], *NAMES[: movement.lane])
        return next(name for name in lanes if name in self._clients)

    def _send(self, name: str, movement: Movement) -> int:
        args = {"plate": movement.plate, "gate": movement.gate, "request": movement.request}
        verb = "track" if movement.enters else "exit"
        return self._clients[name].send(verb, args, REQUEST_S_MAX)

    def _receive(self, name: str, sent: dict[int, Movement], *, may_die: bool) -> list[Movement]:
        """Take every answer; returns what was not answered because the node died."""
        until_s = time.monotonic() + REQUEST_S_MAX
        while sent:
            reply = self._clients[name].receive(until_s)
            if not isinstance(reply, Trouble):
                del sent[reply.id]
            elif may_die and reply.code == CODE_DAEMON_STOPPED:
                break
            else:
                raise Unexpected(f"{name}: {reply.code}: {reply.reason}")
        return list(sent.values())

    def lot(self, expected: int) -> dict[str, Any]:
        """What all living nodes say of the lot, once they say the same. While one is dead that need
        not be what is expected: its disk may have what it could not tell any more."""
        condition = {"conditions": [["inside", expected, False]]}
        until_s = time.monotonic() + AGREE_S_MAX
        wait_s = AGREE_S_MAX if len(self.living) == len(NAMES) else AGREE_WITHOUT_ONE_S_MAX
        while True:
            for name in self.living:
                self.ask(name, "wait", condition, wait_s)
            lots = {name: self.ask(name, "lot", {}) for name in self.living}
            counts = {name: lot["inside"] for name, lot in lots.items()}
            # A node may pass the expected count on its way: an exit of one lane has arrived, an
            # entry of another has not.
            if len(set(counts.values())) == 1:
                break
            if time.monotonic() >= until_s:
                said = ", ".join(f"{name} {count}" for name, count in counts.items())
                raise Unexpected(f"the nodes do not agree how many cars are inside: {said}")
        return lots[self.living[0]]

    def check_cars(self, plates: set[str]) -> None:
        """Every node must list exactly these cars, each once."""
        for name in NAMES:
            listed = [item["plate"] for item in self.ask(name, "vehicles", {})["items"]]
            lost, strange = plates.difference(listed), set(listed).difference(plates)
            twice = len(listed) - len(set(listed))
            if lost or strange or twice:
                raise Unexpected(
                    f"{name} has lost {len(lost)} cars, lists {len(strange)} that are not inside"
                    f" and {twice} twice"
                )

    def root(self) -> str:
        """The one root of all three replicas. Raises Unexpected if they stay different."""
        until_s = time.monotonic() + AGREE_S_MAX
        while True:
            digest = self.ask(NAMES[0], "digest", {})
            groups = digest["items"]
            if len(groups) == 1 and sorted(groups[0]["nodes"]) == sorted(NAMES):
                return str(groups[0]["root"])
            if time.monotonic() >= until_s:
                said = ", ".join(f"{each['root'][:8]} on {each['nodes']}" for each in groups)
                raise Unexpected(f"the replicas are not identical: {said}")
