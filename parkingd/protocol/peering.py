"""Hellos: from candidate addresses to members, and who is refused.

A hello goes to every address that is proposed, until it is answered (`candidates`); the answer
makes a member, and so does a hello that arrives. Both are checked alike: own echo, the same replica
twice, a name that somebody living holds (`namesakes`), a replica that was let go, another lot.
"""

from __future__ import annotations

from collections.abc import Callable

from parkingd.core.ids import Now, replica_hex
from parkingd.protocol.candidates import STATE_SELF, Candidates
from parkingd.protocol.effects import (
    Disconnect,
    Level,
    StartOver,
    StartOverReason,
    Subscribe,
)
from parkingd.protocol.limits import HELLO_PEERS_MAX
from parkingd.protocol.members import ALIVE, LEFT, Member
from parkingd.protocol.messages import (
    REFUSED_FENCED,
    REFUSED_NAME_TAKEN,
    Address,
    ContextWire,
    Hello,
    Refused,
    Route,
    Sender,
)
from parkingd.protocol.namesakes import Namesakes
from parkingd.protocol.shared import Shared, from_wire


class Peering:
    """The handling of hellos, over the table of candidates."""

    def __init__(
        self,
        shared: Shared,
        *,
        meet: Callable[[Sender, Hello, Now], bool],
        admitted: Callable[[Member, Member | None, Now], None],
        joined: Callable[[Member, Now], None],
        let_go: Callable[[ContextWire], None],
    ) -> None:
        """``meet`` decides about lots and may refuse; ``admitted`` gets each new member and the one
        of that name that it replaces; ``joined`` hears of each (re)new member;
        ``let_go``: a member says that this replica is not wanted any more, and what it holds."""
        self._shared = shared
        self._meet = meet
        self._admitted = admitted
        self._joined = joined
        self._let_go = let_go
        self.table = Candidates(shared, self.greet)
        self.namesakes = Namesakes(shared, self.table.propose)
        self.own_seq_asked = False
        """A member has told how many of our events it holds."""

    def tick(self, now: Now) -> None:
        """Greet whoever is due."""
        self.table.greet_due(now)
        self.namesakes.tick(now)

    def greet(self, address: Address, now: Now) -> None:
        """Say hello there."""
        hello = self._hello(now, answer=False, to=address, name=self.table.name_at(address))
        self._shared.outbox.send(address, hello)

    def _hello(self, now: Now, *, answer: bool, to: Address, name: str | None) -> Hello:
        shared = self._shared
        others = (m for m in shared.members.alive() if m.address != to and m.name != name)
        peers = (m.address for m in others)
        return Hello(
            answer,
            shared.shown_lot,
            shared.settings.port,
            shared.settings.pub_port,
            now.wall_ms,
            shared.context_wire(),
            shared.settings.ephemeral,
            shared.settings.version,
            shared.has_lot and shared.replica.is_founding_durable,
            tuple(peers)[:HELLO_PEERS_MAX],
        )

    # --- hellos --------------------------------------------------------------------------

    def receive_hello(self, sender: Sender, hello: Hello, now: Now) -> None:
        """A hello, or the answer to one of ours."""
        shared = self._shared
        if sender.replica == shared.replica_id:
            self._own_replica(sender, hello, now)
            return
        if sender.link is None:
            shared.counters["refused_hello_on_pub"] += 1
            return
        if self._is_let_go(sender, hello):
            shared.outbox.send(sender.link, shared.refusal(sender.replica))
            return
        holder = shared.members.get(sender.name)
        address = _address_of(sender.link, hello)
        is_namesake = sender.name == shared.settings.name
        if is_namesake and self.namesakes.met(sender, now) and isinstance(sender.link, Route):
            self.greet(address, now)
        taken = is_namesake or (
            holder is not None
            and holder.replica != sender.replica
            and self.namesakes.is_held(holder, now)
            and holder.address != address  # Nobody else can listen there while it lives.
        )
        if taken:
            self.namesakes.refuse(sender, holder, now)
            return
        if holder is not None and _is_over(sender, holder):
            shared.counters["stale_incarnation"] += 1
            return
        if not self._meet(sender, hello, now):
            return
        if isinstance(sender.link, Route):
            self._answer(sender, sender.link, hello, now)
        self._admit(sender, hello, now)

    def _answer(self, sender: Sender, route: Route, hello: Hello, now: Now) -> None:
        to = _address_of(route, hello)
        answer = self._hello(now, answer=True, to=to, name=sender.name)
        self._shared.outbox.send(route, answer)

    def _is_let_go(self, sender: Sender, hello: Hello) -> bool:
        """Fenced, or cut off while another replica was: it must begin anew."""
        state = self._shared.replica.state
        if sender.replica in state.record.fences or sender.replica in state.record.seals:
            return True
        same_lot = hello.lot is not None and hello.lot == self._shared.lot
        return same_lot and state.is_voided(from_wire(hello.context))

    def _own_replica(self, sender: Sender, hello: Hello, now: Now) -> None:
        shared = self._shared
        if sender.incarnation == shared.incarnation and sender.name == shared.settings.name:
            if isinstance(sender.link, Address):
                self.table.mark(sender.link, STATE_SELF, "this node")
            elif isinstance(sender.link, Route):
                self._answer(sender, sender.link, hello, now)
            return
        own = (shared.incarnation, shared.settings.name)
        is_newer = own > (sender.incarnation, sender.name)
        if isinstance(sender.link, Route):
            self._answer(sender, sender.link, hello, now)
            if is_newer:  # Their answer will tell that they live, and not only have lived.
                self.greet(_address_of(sender.link, hello), now)
        elif sender.link is not None and is_newer:
            # Two machines live with one replica id: the newer gives it up.
            shared.outbox.end = StartOver(StartOverReason.REPLICA_TWICE, keep=True)

    def receive_refused(self, sender: Sender, refused: Refused, now: Now) -> None:
        """A hello of ours was not accepted."""
        shared = self._shared
        if refused.reason == REFUSED_FENCED:
            if refused.detail == replica_hex(shared.replica_id):
                self._let_go(refused.held)
            return
        if not isinstance(sender.link, Address):
            return
        self.table.mark(sender.link, refused.reason, refused.detail)
        if refused.reason == REFUSED_NAME_TAKEN:
            self.namesakes.refused(sender, refused.detail, now)

    def _admit(self, sender: Sender, hello: Hello, now: Now) -> None:
        shared = self._shared
        assert sender.link is not None
        known = shared.members.get(sender.name)
        same = known is not None and known.incarnation == sender.incarnation
        returned = known is not None and known.state is not ALIVE
        address = _address_of(sender.link, hello)
        self.namesakes.admitted(sender, is_answer=hello.answer)
        self.table.connected(address, sender.name)
        if known is not None and same and not returned and known.address != address:
            address = known.address  # Another way to the same node: one subscription is enough.
        elif (
            known is not None
            and known.address != address
            and shared.members.at(known.address) is known  # Else another member is heard there.
        ):
            shared.outbox.outgoing.append(Disconnect(known.address, known.pub_port))
        self._compare_own_head(sender, hello)
        news = not same or returned or (known is not None and known.lot != hello.lot)
        if known is not None and same:
            member = known
            member.lot = hello.lot
            member.address, member.pub_port = address, hello.pub_port
            member.last_heard_ms = now.mono_ms  # Whether that makes it alive again is judged next.
            member.hear_clock(hello.wall_ms, now)
        else:
            member = Member(
                sender.name,
                sender.replica,
                sender.incarnation,
                address,
                hello.pub_port,
                hello.version,
                hello.lot,
                hello.ephemeral,
                now.mono_ms,
                hello.wall_ms - now.mono_ms,
            )
            if known is not None:  # Its clock is that of the machine: see `Member.hear_clock`.
                member.clock_offset_ms = known.clock_offset_ms
                member.hear_clock(hello.wall_ms, now)
            self._admitted(member, known, now)
            shared.members.put(member)
            shared.journal.note_member("member_joined", member, now)
            shared.outbox.notice(
                Level.INFO, "member_found", member=sender.name, address=str(address)
            )
        shared.outbox.outgoing.append(Subscribe(address.host, hello.pub_port))
        for peer in hello.peers:
            self.table.told(peer, sender.name, now)
        if news:
            self._joined(member, now)

    def _compare_own_head(self, sender: Sender, hello: Hello) -> None:
        shared = self._shared
        if shared.lot is None or hello.lot != shared.lot:
            return
        self.own_seq_asked = True
        shared.compare_own_head(sender.name, from_wire(hello.context))


def _is_over(sender: Sender, holder: Member) -> bool:
    """A hello that comes late: of an earlier incarnation, or of one that has left."""
    if holder.replica != sender.replica:
        return False  # Those of another disk do not compare.
    if holder.state is LEFT:
        return sender.incarnation <= holder.incarnation
    return sender.incarnation < holder.incarnation


def _address_of(link: Address | Route, hello: Hello) -> Address:
    """Where the sender listens: the address that answered, else where it came from."""
    return link if isinstance(link, Address) else Address(link.host, hello.port)
