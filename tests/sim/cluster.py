"""The cluster: machines with clocks and disks, the processes on them, and the loop of events.

Time is virtual: a heap of (millisecond, number, function, arguments), nothing ticks while nothing
is due. Each machine runs one production `Node` the way the daemon does: one verb, then its effects
in field order (persist, send and publish, reply, notify), then `tick` at its next deadline. A
start-over closes the node and makes another on the same disk; a crash does the same without
asking. After every verb the checkers look at what left the node and at its view.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, assert_never

from parkingd.protocol.commands import Command
from parkingd.protocol.effects import (
    Disconnect,
    Effects,
    Outgoing,
    Probe,
    Publish,
    Reply,
    Send,
    StartOver,
    StartOverReason,
    Stop,
    Subscribe,
)
from parkingd.protocol.facts import (
    Candidate,
    DiscoveryReady,
    Fact,
    Persisted,
    StorageFailed,
    StorageRecovered,
)
from parkingd.protocol.messages import Heartbeat, Message, Sender
from parkingd.protocol.node import Node
from parkingd.protocol.outbox import NOTHING
from parkingd.protocol.settings import NodeSettings
from tests.sim.checkers import Checkers
from tests.sim.clock import MachineClock
from tests.sim.disk import FakeDisk
from tests.sim.history import Violation
from tests.sim.machine import Machine
from tests.sim.network import INBOX_MAX, PUB_PORT, ROUTER_PORT, Network
from tests.sim.options import Options, Streams
from tests.sim.trace import Trace, short

RETRY_MS = 1_000
"""A failed commit is tried again after this long."""

START_OVERS_MAX = 25
"""More new replica ids than this on one machine in one run is a livelock."""


class Cluster:
    """Virtual time and everything that happens in it."""

    name = "sim"

    def __init__(self, options: Options, trace: Trace | None = None) -> None:
        self.options = options
        self.streams = Streams(options.seed)
        self.trace = trace
        self.time_ms = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        """Events that were ever put into the heap."""
        self._dice = self.streams.stream("cluster")
        self._handles = 0
        self._waiting: dict[int, tuple[Machine, Callable[[Machine, Reply], None]]] = {}
        self.network = Network(self, options, self.streams)
        self.machines: list[Machine] = []
        self._hosts: dict[str, Machine] = {}
        self.checkers = Checkers(self)
        self.lost_replicas: dict[int, str] = {}
        """Replica ids that no process will use again -> the name they had."""
        for index in range(options.nodes):
            machine = self._build(index)
            self.machines.append(machine)
            self._hosts[machine.address.host] = machine

    def _build(self, index: int) -> Machine:
        options, dice = self.options, self.streams.stream(f"machine/{index}")
        deviant = index == options.nodes - 1
        skew_ms = dice.randint(-options.skew_ms, options.skew_ms)
        clock = MachineClock(
            base_ms=dice.randrange(1_000, 10_000_000),
            drift_ppm=dice.randint(-options.drift_ppm, options.drift_ppm),
            skew_ms=skew_ms + (options.deviant_ms if deviant else 0),
        )
        settings = NodeSettings(
            name=f"n{index}",
            cluster=self.name,
            version="sim",
            ephemeral=options.ephemeral and index == 0,
            ephemeral_forget_ms=20_000,
            log_events_max=options.log_events_max,
            port=ROUTER_PORT,
            pub_port=PUB_PORT,
            spaces=options.spaces,
            gates=options.gates,
        )
        machine = Machine(index, settings, clock)
        machine.commit_ms = options.commit_ms
        if options.slow_disk_ms and index == options.nodes // 2:
            machine.commit_ms = options.slow_disk_ms
        machine.disk = FakeDisk(self.streams.stream(f"disk/{index}"))
        return machine

    # --- the loop ---------------------------------------------------------------------------

    def at(self, time_ms: int, act: Callable[..., None], *values: Any) -> None:
        """Call ``act(*values)`` at this virtual time; equal times in order of request."""
        self._count += 1
        heapq.heappush(self._heap, (time_ms, self._count, act, values))

    @property
    def steps(self) -> int:
        """How much has happened so far, in events."""
        return self._count - len(self._heap)

    def run(self, until_ms: int) -> None:
        """Let everything happen that is due up to and with this time."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_ms:
            self.time_ms, _, act, values = pop(heap)
            act(*values)
        self.time_ms = until_ms

    def say(self, machine: Machine | None, word: str, text: str) -> None:
        """A line of the trace, if there is one."""
        if self.trace is not None:
            self.trace.add(self.time_ms, machine.name if machine else "-", word, text)

    def at_host(self, host: str) -> Machine | None:
        """The machine with this address."""
        return self._hosts.get(host)

    def dice_state(self) -> float:
        """What the cluster's own generator would draw next, for the digest."""
        return self._dice.random()

    def running(self) -> list[Machine]:
        """Machines whose process runs."""
        return [machine for machine in self.machines if machine.node is not None]

    # --- processes ----------------------------------------------------------------------------

    def start(self, machine: Machine) -> None:
        """Boot: load the disk, make the node, tell it where the others are."""
        if machine.node is not None:
            return
        now = machine.clock.now(self.time_ms)
        stored = machine.disk.load(now.wall_ms)
        machine.process += 1
        self.checkers.loaded(machine, stored)
        seed = self._dice.getrandbits(48)
        retired, orphaned = tuple(machine.retired), tuple(machine.orphaned)
        node = Node(
            machine.settings, stored, now=now, seed=seed, retired=retired, orphaned=orphaned
        )
        machine.begin(
            node, time_ms=self.time_ms, replica=stored.replica, incarnation=stored.incarnation
        )
        self.say(machine, "start", f"replica {short(stored.replica)} own_seq {node.own_seq}")
        process = machine.process
        self._settle(machine)
        if machine.process == process:
            self.checkers.started(machine)
            self.at(self.time_ms + 20, self._discover, machine, process)

    def _discover(self, machine: Machine, process: int) -> None:
        for other in self.machines:
            if other is not machine:
                self.observe(machine, process, Candidate(other.address, "static", other.name))
        self.observe(machine, process, DiscoveryReady(patient=False))

    def kill(self, machine: Machine, *, keep: bool, torn: bool, off: bool = False) -> None:
        """The process dies; what was not committed is gone, and the disk too if not kept.

        ``off``: the machine has lost its power: nobody is told that connections are over.
        """
        if machine.node is None:
            return
        what = f"disk {'kept' if keep else 'lost'}{' torn' if torn else ''}{' off' if off else ''}"
        self.say(machine, "crash", what)
        self._close(machine)
        machine.off = off
        machine.retired.clear()
        machine.orphaned.clear()
        if not keep:
            self.lose(machine)
        machine.disk.crash(self._dice, keep=keep, torn=torn)
        if not off:
            self.network.hang_up(machine)

    def swap_addresses(self, one: Machine, other: Machine) -> None:
        """Two machines that are down come back at each other's address."""
        assert one.node is None
        assert other.node is None
        one.address, other.address = other.address, one.address
        self._hosts[one.address.host] = one
        self._hosts[other.address.host] = other
        self.say(None, "moved", f"{one.name} to {one.address}, {other.name} to {other.address}")

    def lose(self, machine: Machine) -> None:
        """Nobody will use this replica id again, and this disk vouches for nothing any more."""
        machine.disk_age += 1
        self.lost_replicas[machine.replica] = machine.name

    def _close(self, machine: Machine) -> None:
        machine.node = None
        machine.process += 1
        machine.inbox.clear()
        machine.paused = False
        self.checkers.died(machine)

    def _end(self, machine: Machine, end: StartOver | Stop) -> None:
        """The node asked to be ended: drain its disk, close it, and begin anew if it said so."""
        assert machine.node is not None
        if isinstance(end, Stop) and end.error is None:
            self.checkers.owners.left(machine)
        own_seq = machine.node.own_seq
        if machine.disk.close():
            machine.durable_seq = own_seq
        self._close(machine)
        if isinstance(end, Stop):
            self.say(machine, "stop", end.error or "left")
            self.network.hang_up(machine)
            if machine.settings.ephemeral:
                self.lose(machine)
                machine.disk.crash(self._dice, keep=False, torn=False)
            return
        self.say(machine, "over", f"{end.reason.name} keep={end.keep} pending={len(end.pending)}")
        machine.start_overs += 1
        machine.retired.append(machine.replica)
        if end.reason is StartOverReason.ORPHANED:
            machine.orphaned.append(machine.replica)
        if machine.start_overs > START_OVERS_MAX:
            raise Violation("livelock", f"{machine.name} started over {machine.start_overs} times")
        self.checkers.started_over(machine, end)
        self.lost_replicas[machine.replica] = machine.name
        if not end.keep:
            machine.disk_age += 1
        machine.disk.begin_again(end)
        machine.starting_over = True
        self.at(self.time_ms + self._dice.randrange(20, 300), self.start, machine)

    # --- what reaches a process -----------------------------------------------------------------

    def deliver(self, machine: Machine, sender: Sender, message: Message) -> None:
        """A message is in the socket."""
        if machine.paused:
            if len(machine.inbox) < INBOX_MAX:
                process = machine.process
                machine.inbox.append(lambda: self._receive(machine, process, sender, message))
        elif machine.slow_ms:
            at_ms = self.time_ms + machine.slow_ms
            self.at(at_ms, self._receive, machine, machine.process, sender, message)
        elif machine.node is not None:
            self._hand(machine, machine.node, sender, message)

    def _receive(self, machine: Machine, process: int, sender: Sender, message: Message) -> None:
        if machine.node is None or machine.process != process:
            return
        if machine.paused:
            self.deliver(machine, sender, message)
        else:
            self._hand(machine, machine.node, sender, message)

    def _hand(self, machine: Machine, node: Node, sender: Sender, message: Message) -> None:
        if self.trace is not None:
            self._trace_message(machine, sender, message)
        if type(message) is Heartbeat and message.suspicions:
            self.checkers.deaths.accused(machine, sender, message)
        node.receive(sender, message, machine.clock.now(self.time_ms))
        self._settle(machine)

    def observe(self, machine: Machine, process: int, fact: Fact) -> None:
        """An adapter tells the process something."""
        node = machine.node
        if node is None or machine.process != process:
            return
        if machine.paused:
            machine.inbox.append(lambda: self.observe(machine, process, fact))
            return
        if isinstance(fact, (StorageFailed, StorageRecovered)):
            machine.storage_failing = isinstance(fact, StorageFailed)
        node.observe(fact, machine.clock.now(self.time_ms))
        self._settle(machine)

    def submit(
        self,
        machine: Machine,
        command: Command,
        wait_ms: int,
        answer: Callable[[Machine, Reply], None],
    ) -> int:
        """A client asks; ``answer`` is called with each reply. The handle of the request."""
        self._handles += 1
        handle = self._handles
        self._waiting[handle] = (machine, answer)
        self._ask(machine, machine.process, handle, command, self.time_ms + wait_ms)
        return handle

    def _ask(
        self, machine: Machine, process: int, handle: int, command: Command, until_ms: int
    ) -> None:
        node = machine.node
        if node is None or machine.process != process or self.time_ms >= until_ms:
            return  # The control socket drops what nobody waits for any more.
        if machine.paused:
            machine.inbox.append(lambda: self._ask(machine, process, handle, command, until_ms))
            return
        now = machine.clock.now(self.time_ms)
        if self.trace is not None:
            self.say(machine, "submit", f"#{handle} {command}")
        node.submit(handle, command, machine.clock.mono_ms(until_ms), now)
        self._settle(machine)

    def pause(self, machine: Machine) -> None:
        """The process is stopped; its sockets fill."""
        if machine.is_up:
            machine.paused = True
            machine.asleep_ms = self.time_ms
            self.say(machine, "pause", "begins")

    def resume(self, machine: Machine) -> None:
        """The process runs on, with full sockets and overdue timers, and in what order is open:
        timers first, sockets first, or a bit of each."""
        if not machine.paused:
            return
        machine.paused = False
        machine.awake_ms = self.time_ms
        self.checkers.owners.woke(machine)
        order = self._dice.random()
        timers_every = self._dice.choice((1, 5, 30)) if order < 0.3 else 0
        self.say(machine, "pause", f"ends, {len(machine.inbox)} waiting")
        process = machine.process
        if order < 0.65:
            self._tick(machine, process)
        count = 0
        while machine.inbox and not machine.paused and machine.process == process:
            machine.inbox.popleft()()
            count += 1
            if timers_every and count % timers_every == 0:
                self._tick(machine, process)
        self._tick(machine, process)

    # --- what a process does ----------------------------------------------------------------------

    def _settle(self, machine: Machine) -> None:
        """Carry out what the last verb asked for, let the checkers look, and set the alarm."""
        node = machine.node
        assert node is not None
        effects = node.take_effects()
        if effects is not NOTHING:
            self.checkers.before_effects(machine, effects)
            self._execute(machine, effects)
            if machine.node is not node:
                return
        self.checkers.after_verb(machine, node)
        due_ms = node.next_deadline()
        if due_ms != machine.due_ms:
            self._set_alarm(machine, due_ms)

    def _set_alarm(self, machine: Machine, due_ms: int) -> None:
        """It shall not ring later than at this deadline, and not now."""
        machine.due_ms = due_ms
        wake_ms = max(machine.clock.virtual_ms(due_ms), self.time_ms + 1)
        if machine.wake_ms < 0 or wake_ms < machine.wake_ms:
            machine.wake_ms = wake_ms
            self.at(wake_ms, self._wake, machine, machine.process, wake_ms)

    def _wake(self, machine: Machine, process: int, wake_ms: int) -> None:
        node = machine.node
        if node is None or machine.process != process or machine.wake_ms != wake_ms:
            return
        if machine.paused:
            machine.wake_ms, machine.due_ms = -1, None
            return
        due_ms = machine.clock.virtual_ms(node.next_deadline())
        if due_ms > self.time_ms:
            machine.wake_ms = due_ms
            self.at(due_ms, self._wake, machine, process, due_ms)
            return
        if machine.slow_ms:
            machine.wake_ms, machine.due_ms = self.time_ms + machine.slow_ms, None
            self.at(machine.wake_ms, self._tick, machine, process)
            return
        self._tick(machine, process)

    def _tick(self, machine: Machine, process: int) -> None:
        node = machine.node
        if node is None or machine.process != process or machine.paused:
            return
        machine.wake_ms, machine.due_ms = -1, None
        node.tick(machine.clock.now(self.time_ms))
        self._settle(machine)

    def _execute(self, machine: Machine, effects: Effects) -> None:
        persist, outgoing, replies, _, _, end = effects
        for batch in persist:
            machine.disk.submit(batch)
            if not machine.committing:
                self._commit_soon(machine)
        for each in outgoing:
            self._send(machine, each)
        for reply in replies:
            if self.trace is not None:
                self.say(machine, "reply", f"#{reply.handle} {reply.outcome}")
            asked, answer = self._waiting[reply.handle]
            assert asked is machine, "a reply to somebody else's request"
            answer(machine, reply)
            if reply.last:
                del self._waiting[reply.handle]
        if self.trace is not None:
            self._trace_notices(machine, effects)
        if end is not None:
            self._end(machine, end)

    def _send(self, machine: Machine, outgoing: Outgoing) -> None:
        match outgoing:
            case Publish():
                self.network.publish(machine, outgoing.message)
            case Send():
                self.network.send(machine, outgoing.to, outgoing.message)
            case Subscribe():
                if outgoing.pub_port == PUB_PORT:
                    machine.subscriptions.setdefault(outgoing.host, self.time_ms + 5)
            case Disconnect():
                if outgoing.pub_port is not None:
                    machine.subscriptions.pop(outgoing.address.host, None)
            case Probe():
                self.network.probe(machine, outgoing.address)
            case _:
                assert_never(outgoing)

    # --- disks ------------------------------------------------------------------------------------

    def _commit_soon(self, machine: Machine, wait_ms: int = 0) -> None:
        machine.committing = True
        delay_ms = wait_ms + 1 + int(self._dice.expovariate(1 / machine.commit_ms))
        self.at(self.time_ms + delay_ms, self._commit, machine, machine.process)

    def _commit(self, machine: Machine, process: int) -> None:
        """One commit ends; a failing disk is tried again every second."""
        if machine.node is None or machine.process != process:
            return
        own_seq = machine.durable_seq
        facts = machine.disk.commit_next()
        delay_ms = self._dice.randrange(2)
        for fact in facts:
            if isinstance(fact, Persisted):
                machine.durable_seq = max(machine.durable_seq, fact.own_seq)
            self.at(self.time_ms + delay_ms, self.observe, machine, process, fact)
        machine.committing = False
        if machine.traitor is not None and machine.durable_seq > own_seq:
            betray, machine.traitor = machine.traitor, None
            betray()
        elif machine.disk.queued:
            done = any(isinstance(fact, Persisted) for fact in facts)
            self._commit_soon(machine, 0 if done else RETRY_MS)

    def fill_disk(self, machine: Machine) -> None:
        """Commits fail from now on."""
        machine.disk_full = True
        machine.disk.fail("disk full")
        self.say(machine, "disk", "full")

    def free_disk(self, machine: Machine) -> None:
        """Commits succeed again, at the next try."""
        if machine.disk_full:
            machine.disk_full = False
            machine.disk.recover()
            self.say(machine, "disk", "has room")

    # --- trace ------------------------------------------------------------------------------------

    def _trace_message(self, machine: Machine, sender: Sender, message: Message) -> None:
        kind = type(message).__name__
        if kind == "Heartbeat":
            return
        text = self.checkers.message_text(message)
        self.say(machine, "recv", f"{kind} from {sender.name} {text}")

    def _trace_notices(self, machine: Machine, effects: Effects) -> None:
        for notice in effects.notices:
            self.say(machine, "notice", f"{notice.event} {dict(notice.values)}")
