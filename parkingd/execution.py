"""Effects become acts, in their order: to the disk, to the network, to clients, to the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, assert_never

from parkingd.adapters.control import ControlServer
from parkingd.adapters.current_store import CurrentStore
from parkingd.adapters.journal import JournalReader
from parkingd.adapters.sdnotify import ServiceManager, status_line
from parkingd.adapters.transport.transport import Transport
from parkingd.protocol.effects import (
    Disconnect,
    Effects,
    Persist,
    Probe,
    Publish,
    Reply,
    Send,
    Subscribe,
)
from parkingd.protocol.messages import Address, Message
from parkingd.protocol.outcomes import Status

if TYPE_CHECKING:
    from parkingd.adapters.ops.service import OpsService

OWN_HANDLE: Final = -1
"""Handle of the `Leave` that a signal submits: nobody waits for its reply."""
MANAGER_HANDLE: Final = -2
"""Handle of the status that the service manager is told."""

_log = logging.getLogger("parkingd")


class EffectExecutor:
    """The adapters that a node's effects concern."""

    def __init__(
        self,
        *,
        store: CurrentStore,
        transport: Transport,
        control: ControlServer,
        journal: JournalReader,
        manager: ServiceManager,
        ops: OpsService | None,
        encode: Callable[[Message], bytes],
    ) -> None:
        """``encode``: to a frame, in the name of the node of now."""
        self._store = store
        self._transport = transport
        self._control = control
        self._journal = journal
        self._manager = manager
        self._ops = ops
        self._encode = encode

    def execute(self, effects: Effects) -> None:
        """All of it but the end of the node."""
        if self._ops is not None:
            self._ops.tally.did(effects)
        for batch in effects.persist:
            self._persist(batch)
        transport = self._transport
        for outgoing in effects.outgoing:
            match outgoing:
                case Publish():
                    transport.publish(self._encode(outgoing.message))
                case Send():
                    frame = self._encode(outgoing.message)
                    if isinstance(outgoing.to, Address):
                        transport.send(outgoing.to, frame)
                    else:
                        transport.answer(outgoing.to, frame)
                case Subscribe():
                    transport.subscribe(outgoing.host, outgoing.pub_port)
                case Disconnect():
                    transport.disconnect(outgoing.address, outgoing.pub_port)
                case Probe():
                    transport.probe(outgoing.address)
                case _:
                    assert_never(outgoing)
        for reply in effects.replies:
            self._reply(reply)
        for notice in effects.notices:
            _log.log(notice.level.value, notice.event, extra={"values": dict(notice.values)})
        self._journal.told(effects.occurrences)

    def _persist(self, batch: Persist) -> None:
        self._store.submit(batch)
        if batch.journal_before is not None:
            self._journal.forget(batch.journal_before)

    def _reply(self, reply: Reply) -> None:
        if reply.handle == MANAGER_HANDLE:
            assert isinstance(reply.outcome, Status)
            self._manager.status(status_line(reply.outcome))
        elif self._ops is not None and self._ops.is_asked(reply.handle):
            self._ops.reply(reply)
        elif reply.handle != OWN_HANDLE:
            self._control.reply(reply.handle, reply.outcome, reply.last)
