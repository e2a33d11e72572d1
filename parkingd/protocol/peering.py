"""Hellos: from candidate addresses to members, and who is refused.

Discovery only proposes addresses. A hello goes to each, again and again with growing pauses,
until it is answered; the answer makes a member, and so does a hello that arrives. Both are
checked alike: own echo, the same replica twice, a name that somebody living holds (`namesakes`), a
replica that was let go, another lot. A member that falls silent is greeted again at its address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from parkingd.core.ids import Now, replica_hex
from parkingd.protocol.effects import (
    Disconnect,
    Level,
    StartOver,
    StartOverReason,
    Subscribe,
)
from parkingd.protocol.facts import Candidate, ConnectionFailed, LinkFailure, LookUp
from parkingd.protocol.limits import (
    CANDIDATES_MAX,
    CANDIDATES_WAITING_MAX,
    HELLO_PEERS_MAX,
    LOOK_UPS_MAX,
)
from parkingd.protocol.members import Member, MemberState
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
from parkingd.protocol.outcomes import CandidateList, CandidateRow
from parkingd.protocol.shared import Shared, from_wire

STATE_TRYING = "trying"
STATE_CONNECTED = "connected"
STATE_SELF = "self"

_SILENT = (MemberState.SUSPECT, MemberState.DEAD)

TURN_HELLOS: Final = 5
"""While others wait for a place, a candidate is tried so often: for 8 s. Half: 2 s, and a node that
starts slowly is missed until its next turn. Double: as the pauses grow, a turn takes 30 s."""


@dataclass(slots=True)
class Greeting:
    """One candidate address and what became of it."""

    address: Address
    source: str
    name: str | None
    state: str
    detail: str
    next_ms: int
    """When to greet it next, in monotonic milliseconds."""
    pause_ms: int
    asked: int = 0
    greeted_ms: int = 0
    """When it was greeted last, in monotonic milliseconds."""
    dialled: bool = True
    """False: its source already says that it belongs elsewhere."""
    origin: str = ""
    """What its source was told, by whom."""


class Peering:
    """The table of candidates and the handling of hellos."""

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
        self._greetings: dict[Address, Greeting] = {}
        self._waiting: dict[Address, Candidate] = {}
        """Who has found the table full, in the order of their turns."""
        self._look_ups: dict[tuple[str, str], tuple[LookUp, int]] = {}
        """(source, question) -> the failure, and when it was last seen, in monotonic ms."""
        self._due_ms: int | None = None
        self.namesakes = Namesakes(shared, self.propose)
        self.own_seq_asked = False
        """A member has told how many of our events it holds."""

    # --- candidates ----------------------------------------------------------------------

    def propose(self, candidate: Candidate, now: Now) -> None:
        """A source has seen this address, or sees it no longer."""
        known = self._greetings.get(candidate.address)
        if candidate.gone:
            self._waiting.pop(candidate.address, None)
            if known is not None and known.state != STATE_CONNECTED:
                del self._greetings[candidate.address]
            return
        if known is None:
            is_full = len(self._greetings) >= CANDIDATES_MAX
            if is_full and (self._waiting or not self._make_room()):
                self._wait(candidate)
                return
            known = Greeting(
                candidate.address,
                candidate.source,
                candidate.name,
                STATE_TRYING,
                "",
                now.mono_ms,
                self._shared.settings.hello_retry_ms,
            )
            self._greetings[candidate.address] = known
            self._due_ms = now.mono_ms
        known.name = candidate.name or known.name
        known.origin = candidate.detail or known.origin
        known.dialled = candidate.mismatch is None
        if candidate.mismatch is not None:
            known.state = candidate.mismatch.value
            known.detail = "its announcement says so"

    def _told(self, address: Address, name: str, now: Now) -> None:
        """A member says that somebody lives there. Whom we knew there may live elsewhere by now,
        and who has not answered us may answer: not after the long pause of a dead address."""
        self.propose(Candidate(address, f"from {name}"), now)
        known = self._greetings.get(address)
        if known is None or not known.dialled or known.state == STATE_SELF:
            return
        member = self._shared.members.get(known.name or "")
        is_elsewhere = member is not None and member.address != address
        if known.state == STATE_CONNECTED and not is_elsewhere:
            return
        if now.mono_ms - known.greeted_ms >= self._shared.settings.hello_retry_ms:
            if known.state == STATE_CONNECTED:
                known.state, known.name = STATE_TRYING, None
            known.next_ms = self._due_ms = now.mono_ms

    def _wait(self, candidate: Candidate) -> None:
        """Until it is its turn; who is not to be dialled needs none."""
        is_known = candidate.address in self._waiting
        has_room = len(self._waiting) < CANDIDATES_WAITING_MAX and candidate.mismatch is None
        if is_known or has_room:
            self._waiting[candidate.address] = candidate
        else:
            self._shared.counters["candidates_refused"] += 1

    def _make_room(self) -> bool:
        """Take a place from who is not tried any more, else from who has had its turn."""
        for greeting in self._greetings.values():
            if self._is_over(greeting):
                del self._greetings[greeting.address]
                return True
        for address, tried in self._greetings.items():
            if tried.asked >= TURN_HELLOS and tried.state not in (STATE_CONNECTED, STATE_SELF):
                del self._greetings[address]
                self._wait(Candidate(address, tried.source, tried.name, detail=tried.origin))
                return True
        return False

    def _is_over(self, greeting: Greeting) -> bool:
        """It belongs elsewhere, or whoever answered there has left or moved."""
        if not greeting.dialled or greeting.state != STATE_CONNECTED:
            return not greeting.dialled
        member = self._shared.members.get(greeting.name or "")
        if member is None or member.state is MemberState.LEFT:
            return True
        return member.address != greeting.address

    def _take_turns(self, now: Now) -> None:
        for address in list(self._waiting):
            if len(self._greetings) >= CANDIDATES_MAX and not self._make_room():
                return
            self.propose(self._waiting.pop(address), now)

    def failed(self, fact: ConnectionFailed) -> None:
        """A link broke or never came up."""
        known = self._greetings.get(fact.address)
        if known is not None and known.state != STATE_SELF and known.dialled:
            known.state = fact.failure.value
            known.detail = {
                LinkFailure.REFUSED: "nobody listens there",
                LinkFailure.TIMEOUT: "no answer",
                LinkFailure.OTHER_COOKIE: "the handshake failed: another cookie or cluster",
                LinkFailure.PROTOCOL_VERSION: "it speaks another protocol version",
                LinkFailure.OTHER_CLUSTER: "it belongs to another cluster",
            }[fact.failure]

    def in_handshake(self, now: Now) -> bool:
        """Whether a candidate was greeted for the first time and may still answer."""
        timeout = self._shared.settings.request_timeout_ms
        return any(
            g.state == STATE_TRYING
            and g.dialled
            and g.asked <= 2
            and now.mono_ms < g.next_ms + timeout
            for g in self._greetings.values()
        )

    def looked_up(self, fact: LookUp, now: Now) -> None:
        """A source got no addresses, or has got them after all."""
        key = (fact.source, fact.question)
        if fact.gone:
            self._look_ups.pop(key, None)
        elif key in self._look_ups or len(self._look_ups) < LOOK_UPS_MAX:
            self._look_ups[key] = (fact, now.mono_ms)
        else:
            self._shared.counters["look_ups_refused"] += 1

    def candidates(self, now: Now) -> CandidateList:
        """For `discover`: addresses and what became of them, then look-ups that failed."""
        greetings = sorted(self._greetings.values(), key=lambda g: (str(g.address), g.source))
        rows = [
            CandidateRow(
                g.source,
                str(g.address),
                g.name,
                g.state,
                "; ".join(said for said in (g.origin, g.detail) if said),
            )
            for g in greetings
        ]
        for _, (look_up, at_ms) in sorted(self._look_ups.items()):
            ago = f"last asked {(now.mono_ms - at_ms) / 1000:.0f} s ago"
            detail = f"{look_up.detail}; {ago}"
            rows.append(CandidateRow(look_up.source, look_up.question, None, look_up.state, detail))
        return CandidateList(tuple(rows))

    # --- time ----------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Greet whoever is due."""
        if self._waiting:
            self._take_turns(now)
        settings = self._shared.settings
        due_ms: int | None = None
        lot, get = self._shared.lot, self._shared.members.get
        for greeting in self._greetings.values():
            if greeting.state == STATE_CONNECTED:
                member = get(greeting.name or "")
                if member is not None and member.state is MemberState.ALIVE and member.lot == lot:
                    continue  # As nearly always: nothing more to ask.
            if not self._is_open(greeting):
                continue
            if now.mono_ms >= greeting.next_ms:
                greeting.asked += 1
                greeting.greeted_ms = now.mono_ms
                greeting.next_ms = now.mono_ms + greeting.pause_ms
                greeting.pause_ms = min(2 * greeting.pause_ms, settings.hello_retry_ms_max)
                self._note_silence(greeting)
                self.greet(greeting.address, now)
            due_ms = greeting.next_ms if due_ms is None else min(due_ms, greeting.next_ms)
        self._due_ms = due_ms
        self.namesakes.tick(now)

    def _note_silence(self, greeting: Greeting) -> None:
        member = self._shared.members.get(greeting.name or "")
        is_silent = member is not None and member.state in _SILENT
        if greeting.state == STATE_CONNECTED and is_silent:
            greeting.state, greeting.detail = STATE_TRYING, "it fell silent"

    def _is_open(self, greeting: Greeting) -> bool:
        if not greeting.dialled or greeting.state == STATE_SELF:
            return False
        if greeting.state != STATE_CONNECTED:
            return True
        member = self._shared.members.get(greeting.name or "")
        if member is None or member.state is MemberState.LEFT:
            return False
        if member.address != greeting.address:
            return False  # Another way to the same node.
        # Also until it knows our lot, or we know its: a hello that said so may have been lost.
        return member.state in _SILENT or member.lot != self._shared.lot

    def next_deadline(self, now_ms: int) -> int | None:
        """When somebody is due, in monotonic milliseconds; as of the last tick."""
        return self._due_ms

    def greet(self, address: Address, now: Now) -> None:
        """Say hello there."""
        greeting = self._greetings.get(address)
        name = greeting.name if greeting is not None else None
        hello = self._hello(now, answer=False, to=address, name=name)
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
                self._mark(sender.link, STATE_SELF, "this node")
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
        self._mark(sender.link, refused.reason, refused.detail)
        if refused.reason == REFUSED_NAME_TAKEN:
            self.namesakes.refused(sender, refused.detail, now)

    def _mark(self, address: Address, state: str, detail: str) -> None:
        greeting = self._greetings.get(address)
        if greeting is not None:
            greeting.state, greeting.detail = state, detail

    def _admit(self, sender: Sender, hello: Hello, now: Now) -> None:
        shared = self._shared
        assert sender.link is not None
        known = shared.members.get(sender.name)
        same = known is not None and known.incarnation == sender.incarnation
        returned = known is not None and known.state is not MemberState.ALIVE
        address = _address_of(sender.link, hello)
        self.namesakes.admitted(sender, is_answer=hello.answer)
        self._connected(address, sender.name)
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
            self._told(peer, sender.name, now)
        if news:
            self._joined(member, now)

    def _connected(self, address: Address, name: str) -> None:
        settings = self._shared.settings
        greeting = self._greetings.get(address)
        if greeting is None:
            if len(self._greetings) >= CANDIDATES_MAX and not self._make_room():
                return
            greeting = Greeting(address, "hello", name, STATE_CONNECTED, "", 0, 0)
            self._greetings[address] = greeting
        greeting.state, greeting.detail, greeting.name = STATE_CONNECTED, "", name
        greeting.asked, greeting.pause_ms = 0, settings.hello_retry_ms

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
    if holder.state is MemberState.LEFT:
        return sender.incarnation <= holder.incarnation
    return sender.incarnation < holder.incarnation


def _address_of(link: Address | Route, hello: Hello) -> Address:
    """Where the sender listens: the address that answered, else where it came from."""
    return link if isinstance(link, Address) else Address(link.host, hello.port)
