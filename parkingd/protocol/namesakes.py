"""Two nodes of one name: who may have it, who serves no gates meanwhile, and what people see.

A name belongs to whoever lives under it. How it works (DESIGN section 6):

    newcomer     told that its name is taken it founds no lot and serves nothing; it insists for a
                 while, because the holder may be dead, and then it stops
    both run     they met late, across a partition. The newer serves no gates. Neither does one whom
                 a member of its own lot refuses: that one holds the other for this name, and hears
                 nothing of what this one claims

Whoever is refused greets the holder that it is told of: so the two meet even when no discovery ever
shows them to each other. All that know of both warn, for as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from parkingd.core.ids import Now, ReplicaId, replica_hex
from parkingd.protocol.effects import Level, Stop
from parkingd.protocol.facts import Candidate
from parkingd.protocol.members import ALIVE, GONE, SUSPECT, Member
from parkingd.protocol.messages import REFUSED_NAME_TAKEN, Address, Refused, Route, Sender
from parkingd.protocol.shared import Shared

NAMESAKE_MS: Final = 15_000
"""A namesake, or a refusal, that was not heard of for this long is over: they greet every 5 s."""
PORT_MAX: Final = 65_535


class Namesakes:
    """What one node knows of names that two have."""

    def __init__(self, shared: Shared, propose: Callable[[Candidate, Now], None]) -> None:
        """``propose``: an address to greet."""
        self._shared = shared
        self._propose = propose
        self._refused_ms: int | None = None
        """When the newcomer was first refused."""
        self._seen_ms: dict[tuple[str, ReplicaId], int] = {}
        """Second nodes of a name that were refused here, and when last."""
        self.is_welcomed = False
        """A member has answered our hello: this is no newcomer."""

    # --- others' names -------------------------------------------------------------------

    def is_held(self, holder: Member, now: Now) -> bool:
        """Silent for as long as makes others dead, or refusing connections: it is replaced."""
        if holder.state is SUSPECT:
            silence_ms = now.mono_ms - holder.last_heard_ms
            is_silent = silence_ms >= self._shared.settings.dead_after_ms
            return not is_silent and holder.refused_ms is None
        return holder.state is ALIVE

    def refuse(self, sender: Sender, holder: Member | None, now: Now) -> None:
        """Its name is taken, by this member or (None) by ourselves."""
        shared = self._shared
        here = shared.advertised or shared.settings.name
        where = str(holder.address) if holder is not None else here
        self._seen_ms[sender.name, sender.replica] = now.mono_ms
        self._warn()
        shared.counters["refused_name_taken"] += 1
        if isinstance(sender.link, Route):
            shared.outbox.send(sender.link, Refused(REFUSED_NAME_TAKEN, where))

    def admitted(self, sender: Sender, *, is_answer: bool) -> None:
        """It has its name, and whoever answers us leaves us ours; who only greets us may not."""
        if is_answer:
            self.is_welcomed = True
            self._shared.name_refusals.pop(sender.name, None)
        if self._seen_ms.pop((sender.name, sender.replica), None) is not None:
            self._warn()

    # --- the own name --------------------------------------------------------------------

    def met(self, sender: Sender, now: Now) -> bool:
        """Another that runs has our name: whether that was there before, so that we step down."""
        shared = self._shared
        is_older = (sender.incarnation, sender.replica) < (shared.incarnation, shared.replica_id)
        if is_older and self.is_welcomed:
            self._step_down(sender, now)
        return is_older and self.is_welcomed

    def refused(self, sender: Sender, where: str, now: Now) -> None:
        """Somebody says that our name is taken, by the node that listens there."""
        shared = self._shared
        is_namesake = sender.name == shared.settings.name
        own = (shared.incarnation, shared.replica_id)
        if is_namesake and (sender.incarnation, sender.replica) > own:
            return  # It came later, and will see that itself.
        if not self.is_welcomed:
            self._insist(sender, where, now)
            return
        member = shared.members.get(sender.name)
        is_of_us = member is not None and member.replica == sender.replica
        is_of_us = is_of_us and member is not None and member.lot == shared.lot
        if is_namesake or is_of_us:
            self._step_down(sender, now)
        holder = _address(where)
        if holder is not None and not is_namesake:
            self._propose(Candidate(holder, f"from {sender.name}"), now)

    def _insist(self, sender: Sender, where: str, now: Now) -> None:
        shared = self._shared
        shared.name_refusals[sender.name] = now.mono_ms
        if self._refused_ms is None:
            self._refused_ms = now.mono_ms
        elif now.mono_ms - self._refused_ms >= shared.settings.name_taken_ms:
            shared.outbox.end = Stop(
                f"the name {shared.settings.name} is taken by the node at {where}",
                "start this node with another --name, or stop that one first",
            )

    def _step_down(self, sender: Sender, now: Now) -> None:
        shared = self._shared
        if not shared.name_refusals:
            shared.outbox.notice(
                Level.WARNING, "namesake", name=sender.name, replica=replica_hex(sender.replica)
            )
        shared.name_refusals[sender.name] = now.mono_ms
        self._warn()

    # --- time ----------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Forget what was not heard of for long, and who refused us and is gone."""
        shared = self._shared
        if not (shared.name_refusals or self._seen_ms):
            return
        for name, at_ms in list(shared.name_refusals.items()):
            member = shared.members.get(name)
            is_gone = member is not None and member.state in GONE
            if is_gone or now.mono_ms - at_ms >= NAMESAKE_MS:
                del shared.name_refusals[name]
        for key, at_ms in list(self._seen_ms.items()):
            if now.mono_ms - at_ms >= NAMESAKE_MS:
                del self._seen_ms[key]
        self._warn()

    def _warn(self) -> None:
        warnings, own = self._shared.warnings, self._shared.settings.name
        for topic in [topic for topic in warnings if topic.startswith("duplicate_name")]:
            del warnings[topic]
        for name, replica in sorted(self._seen_ms):
            text = f"a second node calls itself {name} (replica {replica_hex(replica)})"
            warnings[f"duplicate_name {name} {replica}"] = text
        if self._shared.is_namesake:
            text = f"another node is known by the name {own}: this one serves no gates"
            warnings["duplicate_name"] = text


def _address(text: str) -> Address | None:
    """From ``host:port`` as an `Address` shows it; None for anything else."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= PORT_MAX:
        return None
    return Address(host, int(port))
