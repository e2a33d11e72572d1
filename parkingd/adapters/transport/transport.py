"""Everything a node says and hears on the network, for one asyncio loop.

    ROUTER  takes requests, answers along their route        bound on the port
    PUB     tells all subscribers                            bound on the next port
    SUB     hears all peers                                  `subscriptions`
    DEALER  asks one peer, one socket for each               `dealers`

Nothing here blocks, queues for an absent peer, retries without an end or looks into a message:
frames go in and out. Messages may be lost at any step, and everything above is built for that.
A message is one frame; both ends of every connection have proved the cluster's cookie.

Exceptions of the callbacks are bugs: they reach the loop's exception handler, which must end the
program, because the socket they came from may fall silent. DESIGN section 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

from parkingd.adapters.transport.counters import Counters
from parkingd.adapters.transport.curve import KeyPair
from parkingd.adapters.transport.dealers import Dealers
from parkingd.adapters.transport.drain import Drain
from parkingd.adapters.transport.monitor import (
    LISTENER_EVENTS,
    LinkEvent,
    LinkState,
    Monitor,
    refusal_reason,
)
from parkingd.adapters.transport.ports import bind_pair
from parkingd.adapters.transport.probe import Answer, ask
from parkingd.adapters.transport.sockets import (
    CLOSE_LINGER_MS,
    canonical_address,
    canonical_host,
    new_context,
    new_pub,
    new_router,
    raise_file_limit,
)
from parkingd.adapters.transport.subscriptions import Subscriptions
from parkingd.adapters.transport.zap import Doorkeeper
from parkingd.protocol.limits import CHUNK_FRAME_BYTES_MAX
from parkingd.protocol.messages import Address, Route

LISTENER_LINGERS_S: Final = (0.02, 0.05, 0.1)
"""Pauses between attempts to be refused by a machine whose connection has just ended."""

PROBES_MAX: Final = 256
"""At once, one per address."""

AUTOMATIC_ROUTE: Final = 0
"""First byte of a routing id that ROUTER made; peers that choose their own are refused."""


class Transport:
    """Open from construction until `close`; listens after `bind`.

    ``on_message``: Address: an answer on our DEALER; Route: a request at our ROUTER; None: heard
    on SUB. ``on_link``: about addresses given to `send` and `probe`, and the peers of
    subscriptions, always in canonical spelling (`sockets.canonical_address`). ``on_refused``: one
    word for each refusal, and of whom it came or None: libzmq does not say whose handshake has
    failed. As often as strangers come: whoever logs it limits the rate.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        keys: KeyPair,
        cluster: str,
        on_message: Callable[[Address | Route | None, bytes], None],
        on_link: Callable[[Address, LinkState], None],
        on_refused: Callable[[str, str | None], None],
    ) -> None:
        self.counters = Counters()
        self._loop = loop
        self._on_message = on_message
        self._on_link = on_link
        self._on_refused = on_refused
        self._closed = False
        self._bound = False
        self._probes: dict[Address, LinkEvent] = {}
        self._probing: set[asyncio.Task[None]] = set()
        raise_file_limit()
        context = self._context = new_context()
        self._doorkeeper = Doorkeeper(loop, context, keys, cluster)
        self._dealers = Dealers(
            loop, context, keys, self.counters, self._refuse, on_message, self._dealer_event
        )
        self._subscriptions = Subscriptions(
            loop, context, keys, self.counters, self._refuse, self._heard, self._subscription_lost
        )
        router, pub = new_router(context, keys, cluster), new_pub(context, keys, cluster)
        self._monitors = [
            Monitor(loop, context, socket, LISTENER_EVENTS, self._refused)
            for socket in (router, pub)
        ]
        self._router = Drain(loop, router, 2, self._requested)
        self._pub = pub

    def bind(self, host: str | None, port: int | None) -> tuple[int, int]:
        """Listen; the ROUTER's port and the PUB's. Once. See `ports.bind_pair`."""
        assert not self._bound
        ports = bind_pair(self._router.socket, self._pub, host, port)
        self._bound = True
        self._router.sent()
        return ports

    def send(self, address: Address, frame: bytes) -> bool:
        """To the ROUTER at this IP address. False: certainly lost. True: at most once."""
        assert len(frame) <= CHUNK_FRAME_BYTES_MAX
        canonical = canonical_address(address)
        if self._closed or canonical is None:
            self.counters.dropped["address" if canonical is None else "gone"] += 1
            return False
        return self._dealers.send(canonical, frame)

    def answer(self, route: Route, frame: bytes) -> bool:
        """Back along the route of a request. False: certainly lost. True: at most once."""
        assert len(frame) <= CHUNK_FRAME_BYTES_MAX
        if self._closed:
            self.counters.dropped["gone"] += 1
            return False
        failure = self._try_answer(route.id, frame)
        self._router.sent()
        if failure is not None:
            self.counters.dropped["full" if failure == zmq.EAGAIN else "gone"] += 1
            return False
        self.counters.told(len(frame))
        return True

    def publish(self, frame: bytes) -> bool:
        """To every subscriber whose queue has room. False: not listening."""
        assert len(frame) <= CHUNK_FRAME_BYTES_MAX
        if self._closed or not self._bound:
            self.counters.dropped["gone"] += 1
            return False
        self._pub.send(frame, zmq.NOBLOCK)
        self.counters.told(len(frame))
        return True

    def subscribe(self, host: str, pub_port: int) -> bool:
        """Hear the PUB at this IP address until `disconnect`. Repeating it does nothing; False:
        that is no address."""
        canonical = canonical_address(Address(host, pub_port))
        if self._closed or canonical is None:
            return False
        self._subscriptions.add(canonical)
        return True

    def disconnect(self, address: Address, pub_port: int | None) -> None:
        """Close the link to this ROUTER and, with ``pub_port``, the subscription to that PUB."""
        canonical = canonical_address(address)
        if self._closed or canonical is None:
            return
        self._dealers.disconnect(canonical)
        pub = None if pub_port is None else canonical_address(Address(address.host, pub_port))
        if pub is not None:
            self._subscriptions.discard(pub)

    def probe(self, address: Address) -> None:
        """Try one TCP connection: ``on_link`` hears REFUSED within a second if nobody listens
        there, and nothing otherwise. One at a time for each address."""
        canonical = canonical_address(address)
        if canonical is not None:
            self._probe(canonical, LinkEvent.DOWN)

    def close(self) -> None:
        """Close all sockets; blocks for at most `CLOSE_LINGER_MS` while the last frames leave.
        Nothing is reported after this. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        for task in self._probing:
            task.cancel()
        for monitor in self._monitors:
            monitor.close()
        self._subscriptions.close()
        self._dealers.close(CLOSE_LINGER_MS)
        self._router.close(CLOSE_LINGER_MS)
        self._pub.close(CLOSE_LINGER_MS)
        self._doorkeeper.close()
        self._context.term()

    def _try_answer(self, route: bytes, frame: bytes) -> int | None:
        """The errno of a failure; the first frame decides for both."""
        router = self._router.socket
        try:
            router.send(route, zmq.NOBLOCK | zmq.SNDMORE)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return error.errno
            raise
        router.send(frame, zmq.NOBLOCK)
        return None

    def _requested(self, frames: list[zmq.Frame]) -> None:
        host = canonical_host(str(frames[-1].get("Peer-Address")))
        if len(frames) != 2:
            self._refuse("multipart", host)
            return
        route = frames[0].bytes
        if route[0] != AUTOMATIC_ROUTE:
            self._refuse("routing_id", host)
            return
        frame = frames[1].bytes
        self.counters.heard(len(frame))
        assert host is not None, "libzmq names every peer"
        self._on_message(Route(route, host), frame)

    def _heard(self, frame: bytes) -> None:
        self._on_message(None, frame)

    def _refused(self, code: int, value: int, _: Address | None) -> None:
        self._refuse(refusal_reason(code, value))

    def _refuse(self, reason: str, who: str | None = None) -> None:
        self.counters.refused[reason] += 1
        self._on_refused(reason, who)

    def _subscription_lost(self, pub: Address) -> None:
        self._dealer_event(Address(pub.host, pub.port - 1), LinkEvent.DOWN)

    def _dealer_event(self, address: Address, event: LinkEvent) -> None:
        match event:
            case LinkEvent.UP:
                self._on_link(address, LinkState.CONNECTED)
            case LinkEvent.DOWN:
                self._probe(address, event)
                self._on_link(address, LinkState.DISCONNECTED)
            case LinkEvent.UNREACHED | LinkEvent.HUNG_UP:
                self._probe(address, event)
            case LinkEvent.SILENT:
                self._on_link(address, LinkState.TIMEOUT)
            case LinkEvent.STRANGE:
                self._on_link(address, LinkState.PROTOCOL_VERSION)
            case LinkEvent.UNAUTHORISED:
                self._on_link(address, LinkState.OTHER_COOKIE)

    def _probe(self, address: Address, why: LinkEvent) -> None:
        if self._closed:
            return
        if address in self._probes:
            if why is not LinkEvent.DOWN:
                self._probes[address] = why
            return
        if len(self._probes) >= PROBES_MAX:
            self.counters.dropped["probe"] += 1
            return
        self._probes[address] = why
        task = self._loop.create_task(self._ask(address))
        self._probing.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._probing.discard(task)
        if not task.cancelled():
            task.result()

    async def _ask(self, address: Address) -> None:
        answer = await ask(self._loop, address)
        for pause_s in LISTENER_LINGERS_S:
            # A killed process closes its sockets one by one: its listener may be the last.
            if answer is Answer.NOBODY or self._probes[address] is not LinkEvent.DOWN:
                break
            await asyncio.sleep(pause_s)
            answer = await ask(self._loop, address)
        state = _diagnose(self._probes.pop(address), answer)
        if state is not None and not self._closed:
            self._on_link(address, state)


def _diagnose(why: LinkEvent, answer: Answer) -> LinkState | None:
    """What a failed link means, given what there is at its address."""
    if answer is Answer.NOBODY:
        return LinkState.REFUSED
    if why is LinkEvent.DOWN:
        return None
    if answer is Answer.UNREACHABLE:
        return LinkState.TIMEOUT
    if why is LinkEvent.UNREACHED:
        return LinkState.DISCONNECTED  # nobody was there, and now somebody is: try again
    return LinkState.OTHER_COOKIE if answer is Answer.CURVE else LinkState.PROTOCOL_VERSION
