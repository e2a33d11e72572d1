"""A network of fakes: every message is really encoded and decoded, and anything may happen to it.

Three ways lead from node to node, as in the product: a request to an address arrives at a ROUTER
and carries a route back; an answer along a route arrives at the process that asked, or nowhere;
what is published arrives at whoever subscribed to its address. Cuts stop all three, at the moment
of arrival, so that an old frame cannot slip through one. A frame that is heard again is heard by
the process that it was sent to: its key belongs to one connection. A published frame is encoded
and decoded once and the message object is shared by its receivers: messages are immutable.

A machine that runs refuses connections where no process listens, a paused process does not, and a
machine without power says nothing at all.
"""

from __future__ import annotations

import struct
from math import log
from typing import TYPE_CHECKING, Final

from parkingd.protocol import codec
from parkingd.protocol.facts import ConnectionFailed, LinkFailure
from parkingd.protocol.messages import Address, Delta, Message, PullReply, Route, Sender

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine
    from tests.sim.options import Options, Streams

ROUTER_PORT: Final = 7744
PUB_PORT: Final = 7745

RECONNECT_MS: Final = 150
"""A subscription hears a restarted publisher again after this long."""

INBOX_MAX: Final = 2_000
"""Messages that wait in the sockets of a paused process; the rest is lost."""

ANY_PROCESS: Final = -1

HANG_UP_MS_MAX: Final = 10
"""A process has died: its peers' sockets are told, and have tried again, this much later."""

ALWAYS_MS: Final = -1_000_000
"""A link has been up since before the beginning."""

_route_id: Final = struct.Struct(">II")


class Network:
    """Delay, loss, duplication, replay, cuts. ``cuts[i]`` is a bit set of who cannot hear i: made
    of the partition that is on and of the single links that are broken."""

    def __init__(self, cluster: Cluster, options: Options, streams: Streams) -> None:
        self._cluster = cluster
        self._dice = streams.stream("network")
        self._random = self._dice.random
        self._base_ms = options.delay_ms
        self._rate = 1 / options.delay_mean_ms if options.delay_mean_ms else 0.0
        self._loss = options.loss
        self._duplication = options.duplication
        self._replay = options.replay
        self._replay_ms_max = options.replay_ms_max
        self._reorder = options.reorder
        machines = range(options.nodes)
        self._latest = [[[0, 0] for _ in machines] for _ in machines]
        """By source and target, of requests and of what is published: when the last frame arrives.
        TCP keeps their order."""
        self.cuts = [0] * options.nodes
        self._parted = [0] * options.nodes
        self._broken = [0] * options.nodes
        self._mended_ms = [[ALWAYS_MS] * options.nodes for _ in range(options.nodes)]
        """When each link that is up came up."""
        self._linked: dict[frozenset[int], int | None] = {}
        """What `linked_since_ms` said since a link came or went last."""
        self.deaf = 0
        """Bit set of who gets no frame with events in it."""
        self.sent = 0
        self.lost = 0

    def heal(self) -> None:
        """No faults from here on."""
        self._loss = self._duplication = self._replay = 0.0
        self._rate = 0.5 if self._rate else 0.0
        self._reorder = 0.0
        self._broken = [0] * len(self.cuts)
        self.part([0] * len(self.cuts))
        self.deaf = 0

    # --- links ------------------------------------------------------------------------------

    def part(self, groups: list[int]) -> None:
        """The partition from now on: ``groups[i]`` is a bit set of who cannot hear i."""
        self._parted = groups
        self._link()

    def break_link(self, source: int, target: int) -> None:
        """Nothing gets from the one to the other, whatever partition there is."""
        self._broken[source] |= 1 << target
        self._link()

    def mend_link(self, source: int, target: int) -> None:
        """The end of `break_link`."""
        self._broken[source] &= ~(1 << target)
        self._link()

    def _link(self) -> None:
        self._linked.clear()
        for source, before in enumerate(self.cuts):
            cut = self._parted[source] | self._broken[source]
            for target in range(len(self.cuts)):
                if before >> target & 1 and not cut >> target & 1:
                    self._mended_ms[source][target] = self._cluster.time_ms
            self.cuts[source] = cut

    def is_cut(self, source: int, target: int) -> bool:
        """Whether nothing gets from the one to the other."""
        return bool(self.cuts[source] >> target & 1)

    def up_ms(self, source: int, target: int) -> int:
        """For how long the link from the one to the other has been up; 0 while it is cut."""
        if self.is_cut(source, target):
            return 0
        return self._cluster.time_ms - self._mended_ms[source][target]

    def linked_since_ms(self, machines: frozenset[int]) -> int | None:
        """When the last of the links among these came up; None while one is cut."""
        if machines not in self._linked:
            self._linked[machines] = self._last_link_ms(machines)
        return self._linked[machines]

    def _last_link_ms(self, machines: frozenset[int]) -> int | None:
        last_ms = ALWAYS_MS
        for source in machines:
            for target in machines - {source}:
                if self.is_cut(source, target):
                    return None
                last_ms = max(last_ms, self._mended_ms[source][target])
        return last_ms

    # --- sending ----------------------------------------------------------------------------

    def publish(self, source: Machine, message: Message) -> None:
        """To every process that subscribed to this node."""
        cluster = self._cluster
        time_ms, host = cluster.time_ms, source.address.host
        decoded: Message | None = None
        for target in cluster.machines:
            ready_ms = target.subscriptions.get(host)
            if ready_ms is None or ready_ms > time_ms:
                continue
            if ready_ms < source.started_ms and time_ms < source.started_ms + RECONNECT_MS:
                continue  # The subscription outlived the old process and is still reconnecting.
            if decoded is None:
                decoded = self._over_the_wire(source, message)
            self._carry(source, target, ANY_PROCESS, source.publishing, decoded)

    def send(self, source: Machine, to: Address | Route, message: Message) -> None:
        """A request to an address, or an answer along a route."""
        cluster = self._cluster
        if isinstance(to, Address):
            target = cluster.at_host(to.host)
            if target is None or to.port != ROUTER_PORT:
                return
            process, sender = ANY_PROCESS, source.asking
        else:
            index, process = route_of(to)
            target, sender = cluster.machines[index], source.answering
        self._carry(source, target, process, sender, self._over_the_wire(source, message))

    def _over_the_wire(self, source: Machine, message: Message) -> Message:
        cluster = self._cluster.name
        frame = codec.encode(
            message,
            cluster=cluster,
            name=source.name,
            replica=source.replica,
            incarnation=source.incarnation,
        )
        return codec.decode_untrusted(frame, cluster=cluster).message

    def _carry(
        self, source: Machine, target: Machine, process: int, sender: Sender, message: Message
    ) -> None:
        dice = self._random
        self.sent += 1
        if self._loss and dice() < self._loss:
            self.lost += 1
            return
        cluster, arrive = self._cluster, self._arrive
        at_ms = cluster.time_ms + self._delay_ms()
        if not self._reorder or dice() >= self._reorder:
            latest = self._latest[source.index][target.index]
            kind = sender.link is None
            if latest[kind] > at_ms:
                at_ms = latest[kind]
            else:
                latest[kind] = at_ms
        cluster.at(at_ms, arrive, source, target, process, sender, message)
        if self._duplication and dice() < self._duplication:
            again_ms = at_ms + int(dice() * 50)
            cluster.at(again_ms, arrive, source, target, process, sender, message)
        if self._replay and dice() < self._replay:
            late_ms = int(dice() * self._replay_ms_max)
            heard = target.process if process == ANY_PROCESS else process
            cluster.at(at_ms + late_ms, arrive, source, target, heard, sender, message)

    def _delay_ms(self) -> int:
        """At least the base, and then as waiting times are distributed: exponentially."""
        if not self._rate:
            return self._base_ms
        return self._base_ms + int(-log(1.0 - self._random()) / self._rate)

    # --- arriving -----------------------------------------------------------------------------

    def _arrive(
        self, source: Machine, target: Machine, process: int, sender: Sender, message: Message
    ) -> None:
        if self.cuts[source.index] >> target.index & 1:
            if isinstance(sender.link, Route) and self._dice.random() < 0.02:
                self._fail(source, target, LinkFailure.TIMEOUT, 1_000)
            return
        if self.deaf and self.deaf >> target.index & 1 and _has_events(message):
            self.lost += 1
            return
        if target.node is None:
            if isinstance(sender.link, Route) and self._dice.random() < 0.5:
                self._refuse(source, target, 2)
            return
        if process != ANY_PROCESS and process != target.process:
            return
        self._cluster.deliver(target, sender, message)

    # --- connections ------------------------------------------------------------------------

    def _fail(self, source: Machine, target: Machine, failure: LinkFailure, after_ms: int) -> None:
        """The connection of ``source`` to ``target`` could not be made."""
        fact = ConnectionFailed(target.address, failure)
        cluster = self._cluster
        cluster.at(cluster.time_ms + after_ms, cluster.observe, source, source.process, fact)

    def _refuse(self, source: Machine, target: Machine, after_ms: int) -> None:
        """Nobody listens there, and the machine says so: the refusal must find its way back."""
        if target.off or target.starting_over or self.is_cut(target.index, source.index):
            return
        self._fail(source, target, LinkFailure.REFUSED, after_ms)

    def probe(self, source: Machine, address: Address) -> None:
        """One TCP connect: a refusal comes back, and nothing otherwise."""
        target = self._cluster.at_host(address.host)
        if target is None or (self._loss and self._dice.random() < self._loss):
            return
        there_ms = self._delay_ms()
        cluster = self._cluster
        process = source.process
        cluster.at(cluster.time_ms + there_ms, self._knock, source, process, address, there_ms)

    def _knock(self, source: Machine, process: int, address: Address, back_ms: int) -> None:
        target = self._cluster.at_host(address.host)
        if target is None or target.node is not None or source.process != process:
            return
        if not self.is_cut(source.index, target.index):
            self._refuse(source, target, back_ms)

    def hang_up(self, target: Machine) -> None:
        """A process died: whoever was connected tries once and is refused, mostly.

        Not where the link is cut or the power is: then nobody says that the connection is over.
        """
        host = target.address.host
        for source in self._cluster.machines:
            if source is target or source.node is None or host not in source.subscriptions:
                continue
            if not self.is_cut(target.index, source.index) and self._dice.random() < 0.8:
                after_ms = self._dice.randrange(1, HANG_UP_MS_MAX)
                self._cluster.at(
                    self._cluster.time_ms + after_ms,
                    self._knock,
                    source,
                    source.process,
                    target.address,
                    self._base_ms,
                )


def _has_events(message: Message) -> bool:
    return isinstance(message, Delta | PullReply) and bool(message.runs)


def make_route(index: int, process: int, host: str) -> Route:
    """The way back to one process."""
    return Route(_route_id.pack(index, process), host)


def route_of(route: Route) -> tuple[int, int]:
    """(machine, process) that a route leads back to."""
    index, process = _route_id.unpack(route.id)
    return index, process
