"""The daemon: one loop that carries facts and messages to the node and executes its effects.

How it works. Whatever arrives (a frame, a request, a commit, a timer) becomes one verb of the
node; the effects of all that came in one turn of the loop are taken together and executed in
their order: to the disk, to the network, to clients, to the log. The daemon decides nothing
about parking; it owns sockets, the store, discovery and the way in and out.

What ends it stands in `ending`, how an effect becomes an act in `execution`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from parkingd.adapters.clock import read_now
from parkingd.adapters.control import ControlServer
from parkingd.adapters.current_store import CurrentStore
from parkingd.adapters.data_dir import DataDir
from parkingd.adapters.direct import DirectAnswers
from parkingd.adapters.discovery.addresses import advertised_addresses
from parkingd.adapters.discovery.search import Search
from parkingd.adapters.journal import JournalReader
from parkingd.adapters.keys import Cookie, derive_keys, load_cookie
from parkingd.adapters.ops.extra import require_extra
from parkingd.adapters.ops.sight import Inside
from parkingd.adapters.rundir import ControlLock
from parkingd.adapters.sdnotify import ServiceManager
from parkingd.adapters.transport.curve import KeyPair
from parkingd.adapters.transport.monitor import LinkState
from parkingd.adapters.transport.transport import Transport
from parkingd.assembly import (
    Endpoint,
    Started,
    chosen_founding_keys,
    describe_start,
    is_patient,
    logged_start,
    make_sources,
    node_settings,
)
from parkingd.config import Config
from parkingd.core.ids import ReplicaId
from parkingd.ending import Ending
from parkingd.errors import ConfigError, StorageError, WireError
from parkingd.execution import MANAGER_HANDLE, OWN_HANDLE, EffectExecutor
from parkingd.protocol.codec import decode_untrusted, encode
from parkingd.protocol.commands import Command, Leave, ReadStatus
from parkingd.protocol.effects import StartOver, StartOverReason, StoredState
from parkingd.protocol.facts import ConnectionFailed, Fact, LinkFailure, Persisted
from parkingd.protocol.members import MemberState
from parkingd.protocol.messages import Address, Message, Refused, Route, Sender
from parkingd.protocol.node import Node

if TYPE_CHECKING:
    from parkingd.adapters.ops.service import OpsService

START_OVERS_MAX: Final = 8
"""New replica ids in one run; more than that is a fault that a further one will not mend."""

COLLECTOR_THRESHOLDS: Final = (50_000, 20, 100)
"""The collector walks the two large dicts of the record at every full round: 0.2 s at 600,000 cars.
There are hardly any cycles to find, so it may look a hundred times less often."""

LOCK_REFRESH_S: Final = 3_600.0
FOUND_WAIT_S: Final = 0.4
"""After the first discovery round: time for hellos, before it is said who was found."""

_log = logging.getLogger("parkingd")


Announce = Callable[[Started], None]
AnnounceFound = Callable[[list[str]], None]


def run_daemon(
    config: Config,
    announce: Announce = lambda _: None,
    announce_found: AnnounceFound = lambda _: None,
) -> int:
    """Run until it has left; the exit status. Raises LocalError when it cannot start."""
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    return asyncio.run(Daemon(config, announce, announce_found).run())


class Daemon:
    """One daemon, from lock to unlock."""

    def __init__(self, config: Config, announce: Announce, announce_found: AnnounceFound) -> None:
        self._config = config
        self._announce = announce
        self._announce_found = announce_found
        self._search = Search(self._observe)
        self._pump_planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = 0
        self._start_overs = 0
        self._retired: list[ReplicaId] = []
        self._orphaned: list[ReplicaId] = []
        self._manager = ServiceManager.from_environment(os.environ)
        self._ops: OpsService | None = None
        self._ticked_ms = 0
        self._started_s = time.time()

    # --- start and stop ------------------------------------------------------------------

    async def run(self) -> int:
        """Start, serve, leave."""
        config = self._config
        self._loop = asyncio.get_running_loop()
        self._ending = Ending(self._loop, self._leave)
        if config.ops is not None:
            require_extra()
        with contextlib.ExitStack() as undo:
            undo.callback(self._manager.close)
            undo.enter_context(self._ending.watching_threads())
            lock = ControlLock.acquire(config.control_path)
            undo.callback(lock.release)
            self._lock = lock
            cookie = load_cookie(text=config.cookie, file=config.cookie_file, home=config.home)
            deriving = self._loop.run_in_executor(None, derive_keys, cookie.text, config.cluster)
            data_dir: DataDir | None = None
            if config.data_dir is not None:
                data_dir = DataDir.open(config.data_dir, cluster=config.cluster, name=config.name)
                undo.callback(data_dir.close)
            self._store = CurrentStore(self._loop, data_dir, self._observe)
            stored = self._store.open()
            undo.callback(self._store.close)
            keys = await deriving
            self._transport = Transport(
                self._loop,
                keys=keys,
                cluster=config.cluster,
                on_message=self._on_message,
                on_link=self._on_link,
                on_refused=self._count_refusal,
            )
            undo.callback(self._transport.close)
            self._port, self._pub_port = self._transport.bind(config.host, config.port)
            self._addresses = advertised_addresses(config.host)
            self._make_node(stored)
            self._control = ControlServer(
                self._loop,
                config.control_path,
                self._on_command,
                lambda handle, verb: self._direct.ask(handle, verb),
                node=config.name,
            )
            undo.callback(self._control.close)
            self._journal = JournalReader(
                self._loop,
                lambda: self._store.store,
                self._control,
                stored.journal,
                stored.journal_seq,
            )
            undo.callback(self._journal.close)
            self._direct = DirectAnswers(self._loop, self._control, self._journal, self._store)
            self._open_ops()
            self._executor = EffectExecutor(
                store=self._store,
                transport=self._transport,
                control=self._control,
                journal=self._journal,
                manager=self._manager,
                ops=self._ops,
                encode=self._encode,
            )
            self._ending.is_serving = True
            self._say_hello(cookie, keys)
            self._manager.ready(f"listening on TCP ports {self._port} and {self._pub_port}")
            discovering = self._loop.create_task(self._discover(keys), name="discover")
            discovering.add_done_callback(self._ending.task_ended)
            try:
                self._plan_pump()
                await self._ending.wait()
            finally:
                self._manager.stopping()
                discovering.cancel()
                await asyncio.wait({discovering}, timeout=1.0)
                await self._search.stop()
                if self._ops is not None:
                    await self._ops.stop()
                if self._timer is not None:
                    self._timer.cancel()
        return 0

    def _open_ops(self) -> None:
        """What it needs is imported only if it is used."""
        if self._config.ops is None:
            return
        from parkingd.adapters.ops.service import OpsService

        self._ticked_ms = read_now().mono_ms
        self._ops = OpsService(
            self._config.name,
            self._config.ops,
            submit=self._on_command,
            inside=self._inside,
            ended=self._ending.task_ended,
        )
        self._ops.start(self._loop)
        _log.info("ops_listening", extra={"values": {"address": str(self._ops.address)}})

    def _inside(self) -> Inside:
        return Inside(
            node=self._node,
            now=read_now(),
            ticked_ms=self._ticked_ms,
            is_discovered=self._search.is_ready,
            started_s=self._started_s,
            network=self._transport.counters,
            control=self._control.counters,
        )

    def _make_node(self, stored: StoredState) -> None:
        config = self._config
        self._incarnation = stored.incarnation
        settings = node_settings(config, self._port, self._pub_port)
        try:
            self._node = Node(
                settings,
                stored,
                now=read_now(),
                seed=secrets.randbits(63),
                advertised=str(Address(self._addresses[0], self._port)),
                configured=chosen_founding_keys(config),
                retired=tuple(self._retired),
                orphaned=tuple(self._orphaned),
            )
        except WireError as error:
            raise StorageError(
                f"what is stored in {self._store.place} is not what was written: {error}",
                "set the file aside and start again: the other nodes have its record",
            ) from error

    def _say_hello(self, cookie: Cookie, keys: KeyPair) -> None:
        own = self._endpoint(keys)
        self._announce(describe_start(self._config, own, cookie))
        _log.info("started", extra={"values": logged_start(self._config, own)})
        for warning in cookie.warnings:
            _log.warning("cookie", extra={"values": {"warning": warning}})

    def _endpoint(self, keys: KeyPair) -> Endpoint:
        return Endpoint(
            self._addresses,
            self._port,
            self._pub_port,
            self._node.replica_id,
            self._incarnation,
            keys,
        )

    async def _discover(self, keys: KeyPair) -> None:
        sources = make_sources(self._config, self._endpoint(keys), self._is_alone)
        await self._search.start(sources, patient=is_patient(self._config))
        await asyncio.sleep(FOUND_WAIT_S)
        self._announce_found([f"{m.name} at {m.address}" for m in self._node.members])
        while True:
            await asyncio.sleep(LOCK_REFRESH_S)
            self._lock.keep_fresh()

    def _is_alone(self) -> bool:
        return not any(member.state is MemberState.ALIVE for member in self._node.members)

    def _leave(self) -> None:
        self._submit(OWN_HANDLE, Leave(), 10_000)

    # --- what arrives --------------------------------------------------------------------

    def _on_message(self, link: Address | Route | None, frame: bytes) -> None:
        config = self._config
        try:
            decoded = decode_untrusted(frame, cluster=config.cluster)
        except WireError as error:
            self._refuse(link, error)
            return
        sender = Sender(decoded.name, decoded.replica, decoded.incarnation, link)
        self._node.receive(sender, decoded.message, read_now())
        if self._ops is not None:
            self._ops.tally.heard(decoded.message)
        self._plan_pump()

    def _refuse(self, link: Address | Route | None, error: WireError) -> None:
        self._count_refusal(error.reason, link.host if isinstance(link, Route) else link)
        failure = {
            "protocol_version": LinkFailure.PROTOCOL_VERSION,
            "other_cluster": LinkFailure.OTHER_CLUSTER,
        }.get(error.reason)
        if failure is None:
            return
        if isinstance(link, Route):
            # Our answer is as foreign to them as theirs to us: that is what tells them.
            self._transport.answer(link, self._encode(Refused(error.reason, error.detail)))
        elif link is not None:
            self._observe(ConnectionFailed(link, failure))

    def _on_link(self, address: Address, state: LinkState) -> None:
        if state.failure is not None:
            self._observe(ConnectionFailed(address, state.failure))

    def _count_refusal(self, reason: str, who: str | Address | None) -> None:
        counters = self._node.counters
        key = f"refused_{reason}"
        counters[key] = counters.get(key, 0) + 1
        values = {"reason": reason} if who is None else {"reason": reason, "from": str(who)}
        _log.info("refused", extra={"values": values, "limit_key": key})

    def _observe(self, fact: Fact) -> None:
        self._node.observe(fact, read_now())
        self._plan_pump()

    def _on_command(self, handle: int, command: Command, deadline_ms: int) -> None:
        if isinstance(command, ReadStatus):
            self._add_counters()
        self._submit(handle, command, deadline_ms)

    def _add_counters(self) -> None:
        """What the sockets have counted shows in the status beside what the node has."""
        counters = self._node.counters
        for key, count in self._transport.counters.snapshot().items():
            if not key.startswith("refused_"):  # Those were counted as they came.
                counters[key] = count
        for key, count in self._control.counters.items():
            counters[f"control_{key}"] = count

    def _submit(self, handle: int, command: Command, deadline_ms: int) -> None:
        now = read_now()
        if isinstance(command, Leave):
            self._manager.stopping()
        self._node.submit(handle, command, now.mono_ms + deadline_ms, now)
        self._plan_pump()

    # --- effects -------------------------------------------------------------------------

    def _plan_pump(self) -> None:
        if not self._pump_planned:
            self._pump_planned = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Execute what the turn asked for, in order, and set the timer."""
        self._pump_planned = False
        if self._ending.has_come:
            return
        effects = self._node.take_effects()
        self._executor.execute(effects)
        end = effects.end
        if end is None:
            self._set_timer()
        elif isinstance(end, StartOver):
            self._start_over(end)
        else:
            self._ending.finish(None if end.error is None else ConfigError(end.error, end.hint))

    def _encode(self, message: Message) -> bytes:
        return encode(
            message,
            cluster=self._config.cluster,
            name=self._config.name,
            replica=self._node.replica_id,
            incarnation=self._incarnation,
        )

    def _set_timer(self) -> None:
        due_ms = self._node.next_deadline()
        if self._timer is not None:
            if self._timer_due_ms <= due_ms:
                return  # Early is fine. Made anew at every turn it would never fire in a busy loop.
            self._timer.cancel()
        self._timer_due_ms = due_ms
        delay_s = max(0, due_ms - read_now().mono_ms) / 1000
        self._timer = self._loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = read_now()
        self._ticked_ms = now.mono_ms
        self._node.tick(now)
        if self._ops is not None:
            self._ops.tally.ticked(now.mono_ms - self._timer_due_ms, self._node.members)
        if self._manager.tick(now.mono_ms):
            self._node.submit(MANAGER_HANDLE, ReadStatus(), now.mono_ms, now)
        self._plan_pump()

    def _start_over(self, start_over: StartOver) -> None:
        """Another node with a new replica id takes this one's place."""
        self._start_overs += 1
        reason = start_over.reason.value
        _log.warning("start_over", extra={"values": {"reason": reason}})
        if self._start_overs > START_OVERS_MAX:
            what = f"too many new replica ids in one run; the last: {reason}"
            self._ending.finish(
                StorageError(what, "keep the data directory, and report it with the log")
            )
            return
        self._retired.append(self._node.replica_id)
        if start_over.reason is StartOverReason.ORPHANED:
            self._orphaned.append(self._node.replica_id)
        waiting = self._node.unanswered()
        if self._store.close():
            # Its last commits were not reported any more: answer those who waited for them.
            self._node.observe(Persisted(self._store.last_token, self._node.own_seq), read_now())
            self._executor.execute(self._node.take_effects())
        stored = self._store.begin_again(start_over, self._incarnation)
        # A database that was damaged has lost its journal: the numbers of this run go on.
        used_seq = self._node.journal_seq
        self._make_node(replace(stored, journal_seq=max(stored.journal_seq, used_seq)))
        self._journal.start_over()
        for fact in self._search.known():
            self._node.observe(fact, read_now())
        for handle, command, deadline_ms in waiting:
            self._node.submit(handle, command, deadline_ms, read_now())
        self._plan_pump()
