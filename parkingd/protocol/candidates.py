"""The table of candidate addresses: who is greeted when, and what became of each.

How it works. Discovery only proposes addresses, and so do members of theirs. Each gets a hello,
again and again with growing pauses, until it is answered. The table is bounded; who finds it full
waits, and takes the place of one that belongs elsewhere, or of one that has had its turn. A member
that falls silent is greeted again at its address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from parkingd.core.ids import Now
from parkingd.protocol.facts import Candidate, ConnectionFailed, LinkFailure, LookUp
from parkingd.protocol.limits import CANDIDATES_MAX, CANDIDATES_WAITING_MAX, LOOK_UPS_MAX
from parkingd.protocol.members import ALIVE, DEAD, LEFT, SUSPECT
from parkingd.protocol.messages import Address
from parkingd.protocol.outcomes import CandidateList, CandidateRow
from parkingd.protocol.shared import Shared

STATE_TRYING = "trying"
STATE_CONNECTED = "connected"
STATE_SELF = "self"

_SILENT = (SUSPECT, DEAD)

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


class Candidates:
    """The addresses, and the look-ups that gave none."""

    def __init__(self, shared: Shared, greet: Callable[[Address, Now], None]) -> None:
        """``greet``: say hello there."""
        self._shared = shared
        self._greet = greet
        self._greetings: dict[Address, Greeting] = {}
        self._waiting: dict[Address, Candidate] = {}
        """Who has found the table full, in the order of their turns."""
        self._look_ups: dict[tuple[str, str], tuple[LookUp, int]] = {}
        """(source, question) -> the failure, and when it was last seen, in monotonic ms."""
        self._due_ms: int | None = None
        self._is_news = False
        """Something here, or a member, is not what it was when `greet_due` last looked."""
        self._lot = shared.lot
        """The own lot at that time."""

    # --- what is told of addresses -------------------------------------------------------

    def propose(self, candidate: Candidate, now: Now) -> None:
        """A source has seen this address, or sees it no longer."""
        self._is_news = True
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

    def told(self, address: Address, name: str, now: Now) -> None:
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

    def asked_from(self, host: str, name: str, now: Now) -> None:
        """Somebody there has met us, and we have not met it, for its answer was lost. Whom we knew
        at that host may live elsewhere by now."""
        for address in [address for address in self._greetings if address.host == host]:
            self.told(address, name, now)

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
        if member is None or member.state is LEFT:
            return True
        return member.address != greeting.address

    def _take_turns(self, now: Now) -> None:
        for address in list(self._waiting):
            if len(self._greetings) >= CANDIDATES_MAX and not self._make_room():
                return
            self.propose(self._waiting.pop(address), now)

    def failed(self, fact: ConnectionFailed) -> None:
        """A link broke or never came up."""
        self._is_news = True
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

    def listed(self, now: Now) -> CandidateList:
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

    # --- what became of them -------------------------------------------------------------

    def name_at(self, address: Address) -> str | None:
        """Who is there, as far as anybody has said."""
        greeting = self._greetings.get(address)
        return greeting.name if greeting is not None else None

    def mark(self, address: Address, state: str, detail: str) -> None:
        """Show this of it, if it is here."""
        self._is_news = True
        greeting = self._greetings.get(address)
        if greeting is not None:
            greeting.state, greeting.detail = state, detail

    def connected(self, address: Address, name: str) -> None:
        """This member has answered from there, or greeted us."""
        self._is_news = True
        settings = self._shared.settings
        greeting = self._greetings.get(address)
        if greeting is None:
            if len(self._greetings) >= CANDIDATES_MAX and not self._make_room():
                return
            greeting = Greeting(address, "hello", name, STATE_CONNECTED, "", 0, 0)
            self._greetings[address] = greeting
        greeting.state, greeting.detail, greeting.name = STATE_CONNECTED, "", name
        greeting.asked, greeting.pause_ms = 0, settings.hello_retry_ms

    def look_soon(self) -> None:
        """A member fell silent, came back or left."""
        self._is_news = True

    # --- time ----------------------------------------------------------------------------

    def greet_due(self, now: Now) -> None:
        """Greet whoever is due."""
        if self._waiting:
            self._take_turns(now)
        lot, get, due_ms = self._shared.lot, self._shared.members.get, self._due_ms
        is_due = due_ms is not None and now.mono_ms >= due_ms
        if not is_due and not self._is_news and lot == self._lot:
            return
        self._is_news, self._lot, due_ms = False, lot, None
        for greeting in self._greetings.values():
            if greeting.state == STATE_CONNECTED:
                member = get(greeting.name or "")
                if member is not None and member.state is ALIVE and member.lot == lot:
                    continue  # As nearly always: nothing more to ask.
            if not self._is_open(greeting):
                continue
            if now.mono_ms >= greeting.next_ms:
                self._greet_again(greeting, now)
            due_ms = greeting.next_ms if due_ms is None else min(due_ms, greeting.next_ms)
        self._due_ms = due_ms

    def _greet_again(self, greeting: Greeting, now: Now) -> None:
        greeting.asked += 1
        greeting.greeted_ms = now.mono_ms
        greeting.next_ms = now.mono_ms + greeting.pause_ms
        pause_ms_max = self._shared.settings.hello_retry_ms_max
        greeting.pause_ms = min(2 * greeting.pause_ms, pause_ms_max)
        self._note_silence(greeting)
        self._greet(greeting.address, now)

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
        if member is None or member.state is LEFT:
            return False
        if member.address != greeting.address:
            return False  # Another way to the same node.
        # Also until it knows our lot, or we know its: a hello that said so may have been lost.
        return member.state in _SILENT or member.lot != self._shared.lot

    def next_deadline(self, now_ms: int) -> int | None:
        """When somebody is due, in monotonic milliseconds; as of the last `greet_due`."""
        return self._due_ms
