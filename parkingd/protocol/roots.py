"""Roots asked of every member: for `digest`, and to find the majority when replicas differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from parkingd.core.causal import CausalContext
from parkingd.core.ids import Now
from parkingd.protocol.members import ALIVE, LEFT, Member
from parkingd.protocol.messages import RootAnswer, RootQuery, Sender
from parkingd.protocol.outcomes import Digest, DigestGroup
from parkingd.protocol.shared import Shared, from_wire


@dataclass(slots=True)
class Round:
    """One question to all."""

    deadline_ms: int
    waiting: set[str]
    unreachable: list[str]
    finish: Callable[[Round], None]
    answers: dict[str, tuple[bytes, CausalContext]] = field(default_factory=dict)


class Roots:
    """Rounds of root queries."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.rounds: dict[int, Round] = {}
        """Under way, by nonce; read only."""

    def ask(self, handle: int, now: Now) -> None:
        """For `digest`: reply with the groups when all have answered, or after the time-out."""
        self._start(lambda done: self._reply(handle, done), now)

    def repair(self, take: Callable[[Member, Now], None], now: Now) -> None:
        """Ask who differs; if a majority with our context holds another root, ``take`` one."""
        if not self.rounds:
            self._start(lambda done: self._judge(done, take, now), now)

    def _start(self, finish: Callable[[Round], None], now: Now) -> None:
        shared = self._shared
        nonce = shared.next_nonce()
        members = [m for m in shared.members.all() if m.state is not LEFT]
        asked = [m for m in members if m.state is ALIVE and m.lot == shared.lot]
        unreachable = [m.name for m in members if m not in asked]
        deadline_ms = now.mono_ms + shared.settings.request_timeout_ms
        self.rounds[nonce] = Round(deadline_ms, {m.name for m in asked}, unreachable, finish)
        for member in asked:
            shared.outbox.send(member.address, RootQuery(nonce))

    def receive_query(self, sender: Sender, query: RootQuery) -> None:
        """Somebody asks for our root: the one that belongs to what is on disk."""
        root = self._shared.replica.shown_root()
        if sender.link is not None and root is not None:
            answer = RootAnswer(query.nonce, root, self._shared.context_wire())
            self._shared.outbox.send(sender.link, answer)

    def receive_answer(self, sender: Sender, answer: RootAnswer) -> None:
        """A member's root."""
        asked = self.rounds.get(answer.nonce)
        if asked is not None and sender.name in asked.waiting:
            asked.waiting.discard(sender.name)
            asked.answers[sender.name] = (answer.root, from_wire(answer.context))

    def tick(self, now: Now) -> None:
        """End the rounds that are complete or over time."""
        for nonce, asked in list(self.rounds.items()):
            if not asked.waiting or now.mono_ms >= asked.deadline_ms:
                del self.rounds[nonce]
                asked.finish(asked)

    def next_deadline(self, now_ms: int) -> int | None:
        """When a round ends."""
        if not self.rounds:
            return None
        return min(r.deadline_ms if r.waiting else now_ms for r in self.rounds.values())

    def _reply(self, handle: int, done: Round) -> None:
        shared = self._shared
        groups = {shared.replica.state.root().hex(): [shared.settings.name]}
        for name, (root, _) in sorted(done.answers.items()):
            groups.setdefault(root.hex(), []).append(name)
        unreachable = tuple(sorted([*done.unreachable, *done.waiting]))
        items = tuple(DigestGroup(root, tuple(sorted(names))) for root, names in groups.items())
        shared.replies.answer(handle, Digest(items, unreachable), is_read=True)

    def _judge(self, done: Round, take: Callable[[Member, Now], None], now: Now) -> None:
        shared = self._shared
        state = shared.replica.state
        votes: dict[bytes, list[str]] = {state.root(): [shared.settings.name]}
        for name, (root, context) in sorted(done.answers.items()):
            if context == state.context:
                votes.setdefault(root, []).append(name)
        majority = max(votes.items(), key=lambda vote: (len(vote[1]), vote[0]))
        rivals = [names for root, names in votes.items() if root != majority[0]]
        if any(len(names) == len(majority[1]) for names in rivals):
            shared.warnings["diverged"] = (
                "replicas that have seen the same events differ and no majority tells which is "
                "damaged: restore one of them from a backup"
            )
            return
        member = shared.members.get(majority[1][0])
        if member is not None and majority[0] != state.root():
            take(member, now)
