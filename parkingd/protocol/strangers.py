"""Those who are named in claims and suspicions and are no members here, or no more.

A claim may name a node that was never met here: such a stranger is suspected and confirmed by the
rules of `membership`, else the gates of a machine that is gone for good would wait for ever. And
who missed a goodbye, or a restart, suspects one that is over: whoever knows better confirms that.
Which of two incarnations is the later one nobody can tell from their numbers alone: the disk of one
may be lost, and the clock put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from parkingd.core.ids import Now
from parkingd.protocol.limits import SUSPICIONS_MAX
from parkingd.protocol.members import LEFT, Member
from parkingd.protocol.messages import Sender, Suspicion
from parkingd.protocol.shared import Shared

ECHO_MS: Final = 5_000
"""For this long a node repeats the suspicion of one whom it has never met or who is over, and after
a pause as long again: else two who repeat it would do so for ever."""
ASKED_MS: Final = 5_000
"""A stranger of whom anything arrived lives for this long. Its heartbeats do not come here, only
what it asks for: of two nodes once in 2.4 s at most. Half: one lost question, and it is dead."""
STRANGER_MS: Final = 15_000
"""A stranger of whom nobody speaks for this long is forgotten."""

_by_key: Final = itemgetter(0)


@dataclass(slots=True)
class Stranger:
    """Somebody named in a claim or a suspicion who is no member here."""

    refutation: int
    since_ms: int
    """When it was first named."""
    named_ms: int
    """When it was last named."""
    said_ms: int | None = None
    """When somebody last said that it suspects it."""
    said_since_ms: int = 0
    """Since when somebody says so, without a break."""
    heard_ms: int | None = None
    """When something of it last arrived: our hellos, or its answers, are lost."""
    accused_ms: int = 0
    """When one more of them began to say so."""
    owner_ms: int | None = None
    """When a claim last named it, not only others' suspicions."""
    refused: bool = False


class Strangers:
    """All that one node has heard of."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._strangers: dict[tuple[str, int], Stranger] = {}
        """By name and incarnation."""
        self._doubted: dict[tuple[str, int], tuple[int, int]] = {}
        """Who is over and suspected by somebody all the same: its refutation, and when that was
        last said."""

    def get(self, name: str, incarnation: int) -> Stranger | None:
        """This incarnation of this name, if it is one."""
        return self._strangers.get((name, incarnation))

    # --- what arrives --------------------------------------------------------------------

    def suspected(
        self, known: Member | None, suspicion: Suspicion, accused_ms: int, now: Now
    ) -> None:
        """A member suspects this one, and has said so since ``accused_ms``. ``known``: who has
        the name here."""
        if known is not None and _is_over(known, suspicion.incarnation):
            if _is_repeated(now.mono_ms - accused_ms):
                key = suspicion.name, suspicion.incarnation
                self._doubted[key] = suspicion.refutation, now.mono_ms
        elif known is None or known.incarnation < suspicion.incarnation:
            self._note(suspicion, accused_ms, now)

    def _note(self, suspicion: Suspicion, accused_ms: int, now: Now) -> None:
        key = suspicion.name, suspicion.incarnation
        stranger = self._strangers.get(key)
        if stranger is None:
            if len(self._strangers) >= SUSPICIONS_MAX:
                return
            stranger = self._strangers[key] = Stranger(0, now.mono_ms, now.mono_ms)
        stranger.named_ms = now.mono_ms
        if not self._is_said(stranger, now):
            stranger.said_since_ms = now.mono_ms
        stranger.said_ms = now.mono_ms
        stranger.accused_ms = max(stranger.accused_ms, accused_ms)
        stranger.refutation = max(stranger.refutation, suspicion.refutation)
        stranger.refused |= suspicion.refused

    def owner(self, name: str, incarnation: int, now: Now) -> Stranger:
        """A claim names this one: it is known from now on, if it was not."""
        stranger = self._strangers.get((name, incarnation))
        if stranger is None:
            stranger = Stranger(0, now.mono_ms, now.mono_ms)
            self._strangers[name, incarnation] = stranger
        stranger.owner_ms = stranger.named_ms = now.mono_ms
        return stranger

    def heard(self, sender: Sender, now: Now) -> None:
        """Something of this one has arrived."""
        stranger = self._strangers.get((sender.name, sender.incarnation))
        if stranger is not None:
            stranger.heard_ms = now.mono_ms

    def admitted(self, member: Member) -> None:
        """It is a member now."""
        self._strangers.pop((member.name, member.incarnation), None)

    def stood_still(self, now: Now) -> None:
        """This node has: their silence counts from now on."""
        for stranger in self._strangers.values():
            stranger.since_ms = now.mono_ms

    # --- what is thought of them ---------------------------------------------------------

    def is_silent(self, stranger: Stranger, now: Now) -> bool:
        """For so long that it may be dead. That of others, who say that they suspect it, counts
        too: theirs had lasted for a while by then."""
        settings = self._shared.settings
        is_silent = now.mono_ms - stranger.since_ms >= settings.dead_after_ms
        if self._is_said(stranger, now):
            more_ms = settings.dead_after_ms - settings.suspect_after_ms
            is_silent |= now.mono_ms - stranger.said_since_ms >= more_ms
        return is_silent and not has_asked(stranger, now)

    def suspicions(self, now: Now) -> list[Suspicion]:
        """For the own heartbeat: those that do not answer us, and who is over and still waited
        for."""
        if not (self._strangers or self._doubted):
            return []
        said = [
            Suspicion(name, incarnation, each.refutation, each.refused)
            for (name, incarnation), each in sorted(self._strangers.items(), key=_by_key)
            if self._is_echoed(each, now)
        ]
        said += [
            Suspicion(name, incarnation, refutation, False)
            for (name, incarnation), refutation in self._still_doubted(now)
        ]
        return said

    def _still_doubted(self, now: Now) -> list[tuple[tuple[str, int], int]]:
        """Who is over, and somebody has missed that and waits for others to suspect it too."""
        fresh_ms = self._shared.settings.suspicion_fresh_ms
        for key, (_, said_ms) in list(self._doubted.items()):
            member = self._shared.members.get(key[0])
            is_over = member is not None and _is_over(member, key[1])
            if now.mono_ms - said_ms > fresh_ms or not is_over:
                del self._doubted[key]
        return [(key, refutation) for key, (refutation, _) in sorted(self._doubted.items())]

    def _is_said(self, stranger: Stranger, now: Now) -> bool:
        fresh_ms = self._shared.settings.suspicion_fresh_ms
        return stranger.said_ms is not None and now.mono_ms - stranger.said_ms <= fresh_ms

    def _is_echoed(self, stranger: Stranger, now: Now) -> bool:
        """Whoever waits for everybody alive to suspect it waits for us too, who never met it."""
        if has_asked(stranger, now):
            return False
        is_owner = stranger.owner_ms is not None and now.mono_ms - stranger.owner_ms < ECHO_MS
        if self._is_said(stranger, now):
            return is_owner or _is_repeated(now.mono_ms - stranger.accused_ms)
        known_ms = now.mono_ms - stranger.since_ms
        return is_owner and known_ms >= self._shared.settings.suspect_after_ms

    def forget(self, now: Now) -> None:
        """Those of whom nobody has spoken for long."""
        if not self._strangers:
            return
        for key, stranger in list(self._strangers.items()):
            if now.mono_ms - stranger.named_ms >= STRANGER_MS:
                del self._strangers[key]


def has_asked(stranger: Stranger, now: Now) -> bool:
    """Something of it has arrived lately: it lives."""
    return stranger.heard_ms is not None and now.mono_ms - stranger.heard_ms < ASKED_MS


def _is_over(member: Member, incarnation: int) -> bool:
    """That incarnation of it has left, or another was admitted here in its place, or a later."""
    if member.incarnation == incarnation:
        return member.state is LEFT
    return incarnation < member.incarnation or incarnation in member.replaced


def _is_repeated(said_for_ms: int) -> bool:
    return said_for_ms % (2 * ECHO_MS) < ECHO_MS
