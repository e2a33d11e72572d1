"""One lane computer: what survives its processes, and the process that runs on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from parkingd.protocol.messages import Address, Sender
from parkingd.protocol.node import Node
from parkingd.protocol.settings import NodeSettings
from tests.sim.clock import MachineClock
from tests.sim.disk import FakeDisk
from tests.sim.network import ROUTER_PORT, make_route


class Machine:
    """One lane computer: what survives its processes, and the process that runs."""

    def __init__(self, index: int, settings: NodeSettings, clock: MachineClock) -> None:
        self.index = index
        self.settings = settings
        self.clock = clock
        self.address = Address(f"10.0.0.{index + 1}", ROUTER_PORT)
        self.disk: FakeDisk
        self.disk_age = 0
        """Counts the disks: what an earlier one acknowledged may be gone."""
        self.commit_ms = 1
        self.disk_full = False
        self.storage_failing = False
        """What the process has been told of its disk."""
        self.node: Node | None = None
        self.process = 0
        self.started_ms = 0
        self.replica = 0
        self.incarnation = 0
        self.durable_seq = 0
        self.start_overs = 0
        self.retired: list[int] = []
        self.orphaned: list[int] = []
        """Ids that the present process has given up; a crash forgets them."""
        self.subscriptions: dict[str, int] = {}
        """By host: when what is published there is heard."""
        self.off = False
        """Without power: not even a refused connection comes back."""
        self.starting_over = False
        """Between two nodes of one process: its sockets listen, and nobody reads them."""
        self.traitor: Callable[[], None] | None = None
        """Called when the next own event is on the disk, and nobody has been told."""
        self.paused = False
        self.asleep_ms = 0
        """When the last pause began."""
        self.awake_ms = 0
        """When the process began, or ran on after a pause."""
        self.slow_ms = 0
        self.inbox: deque[Callable[[], None]] = deque()
        self.wake_ms = -1
        """When the alarm rings; less than 0: none is set."""
        self.due_ms: int | None = None
        """The deadline of the node that the alarm was last compared with."""
        self.committing = False
        self._speak()

    @property
    def name(self) -> str:
        """Of the node, for people and in claims."""
        return self.settings.name

    @property
    def is_up(self) -> bool:
        """A process runs and is not paused."""
        return self.node is not None and not self.paused

    def _speak(self) -> None:
        """Who its process is to others, by the way that a message of it comes: heard on SUB, a
        request at a ROUTER, an answer on a DEALER."""
        name, replica, incarnation = self.name, self.replica, self.incarnation
        route = make_route(self.index, self.process, self.address.host)
        self.publishing = Sender(name, replica, incarnation, None)
        self.asking = Sender(name, replica, incarnation, route)
        self.answering = Sender(name, replica, incarnation, self.address)

    def begin(self, node: Node, *, time_ms: int, replica: int, incarnation: int) -> None:
        """A new process with nothing in its sockets."""
        self.node = node
        self.off = self.starting_over = False
        self.traitor = None
        self.asleep_ms = time_ms
        self.started_ms = self.awake_ms = time_ms
        self.replica = replica
        self.incarnation = incarnation
        self.durable_seq = node.durable_seq
        self.storage_failing = False
        self._speak()
        self.subscriptions.clear()
        self.paused = False
        self.inbox.clear()
        self.wake_ms = -1
        self.due_ms = None
        self.committing = False
