"""Who is alive: suspicion, confirmation, refutation, refused connections, and the own pauses.

How it works (DESIGN section 6; the ideas are those of SWIM, Das, Gupta and Motivala 2002, sections
4.2 and 4.3, and of Lifeguard, Dadgar et al. 2018, with a full mesh of heartbeats in place of
probes). Each node judges for itself; death is never copied from others:

    alive -> suspect    1 s of silence, or its machine refused a connection; told in the heartbeat
    suspect -> dead     2 s of silence, and as many others as there are, at most 3, none of another
                        lot, say within the last second that they suspect the same (incarnation,
                        refutation)
    suspect -> dead     at once, when all these others have seen a connection refused as well
    suspect -> alive    something of it arrives
    dead -> alive       something of the same incarnation arrives, or a hello

A suspect that others still hear stays one: the link is broken, not the node. A node that reads a
suspicion of itself raises its refutation number and answers at once, so that the old suspicion
confirms nothing any more. A node that stood still itself accuses nobody.

Of those who are no members here, or are over, `strangers` keeps what is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from parkingd.core.ids import Now
from parkingd.protocol.effects import Probe
from parkingd.protocol.limits import SUSPICIONS_MAX
from parkingd.protocol.members import ALIVE, DEAD, LEFT, SUSPECT, Member, MemberState
from parkingd.protocol.messages import Address, Heartbeat, Sender, Suspicion
from parkingd.protocol.shared import Shared
from parkingd.protocol.strangers import Strangers

REFUSAL_FRESH_MS: Final = 1_000
"""A refused connection is evidence for this long; after that silence alone counts."""
PROBE_PAUSE_MS: Final = 200
"""Between two connections tried because others say that they were refused."""


class Membership:
    """The judge of one node."""

    def __init__(self, shared: Shared, now: Now) -> None:
        self._shared = shared
        self._strangers = Strangers(shared)
        self._deaths: dict[str, list[int]] = {}
        self._quiet_until_ms = now.mono_ms
        self._is_due = False
        self._next_ms: int | None = None
        self.refutation = 0
        self.beat_wanted = False
        """Something is worth a heartbeat at once."""

    # --- the own pauses ------------------------------------------------------------------

    def stood_still(self, now: Now) -> None:
        """The loop runs again: others' silence may have been our own deafness."""
        settings = self._shared.settings
        self._quiet_until_ms = now.mono_ms + settings.pause_quiet_ms
        credit_ms = now.mono_ms - settings.heartbeat_ms
        for member in self._shared.members.all():
            if member.state in (ALIVE, SUSPECT):
                member.last_heard_ms = max(member.last_heard_ms, credit_ms)
                member.accuses.clear()
                member.accused_ms.clear()
        self._strangers.stood_still(now)
        self._shared.counters["pauses"] += 1

    # --- what arrives --------------------------------------------------------------------

    def heartbeat(self, member: Member, beat: Heartbeat, now: Now) -> bool:
        """A heartbeat newer than the last: what it says of others, and of us. True if that asks
        for anything to be done."""
        shared = self._shared
        if beat.refutation > member.refutation:
            member.refutation = beat.refutation
        passed_ms, member.beat_ms = now.mono_ms - member.beat_ms, now.mono_ms
        had = member.accuses
        if not (had or beat.suspicions):
            return False
        # The dead are named in every heartbeat: only what was not said, or was too old, is news.
        is_news = passed_ms > shared.settings.suspicion_fresh_ms
        if tuple(had.values()) != beat.suspicions:
            member.accuses = {(each.name, each.incarnation): each for each in beat.suspicions}
            since_ms = member.accused_ms
            member.accused_ms = {key: since_ms.get(key, now.mono_ms) for key in member.accuses}
            is_news |= had != member.accuses
        self._is_due |= is_news
        for key, suspicion in member.accuses.items():
            if suspicion.name == shared.settings.name:
                self._refute(suspicion)
                continue
            suspect = shared.members.get(suspicion.name)
            if suspect is not None and suspect.incarnation == suspicion.incarnation:
                suspect.refutation = max(suspect.refutation, suspicion.refutation)
                if suspicion.refused:
                    is_news |= self._probe(suspect, now)
            self._strangers.suspected(suspect, suspicion, member.accused_ms[key], now)
        return is_news or self.beat_wanted

    def _refute(self, suspicion: Suspicion) -> None:
        shared = self._shared
        is_us = suspicion.incarnation == shared.incarnation
        if is_us and suspicion.refutation >= self.refutation:
            self.refutation = suspicion.refutation + 1
            self.beat_wanted = True
            shared.counters["suspicions_refuted"] += 1

    def _probe(self, suspect: Member, now: Now) -> bool:
        """Somebody was refused there: see for ourselves. False if that is known already."""
        if suspect.state not in (ALIVE, SUSPECT):
            return False
        if suspect.refused_ms is not None:
            return False
        if suspect.probed_ms is not None and now.mono_ms - suspect.probed_ms < PROBE_PAUSE_MS:
            return False
        suspect.probed_ms = now.mono_ms
        self._shared.outbox.outgoing.append(Probe(suspect.address))
        return True

    def refused(self, address: Address, now: Now) -> None:
        """We tried to connect, and the machine says that nobody listens there."""
        member = self._shared.members.at(address)
        if member is None or member.state not in (ALIVE, SUSPECT):
            return
        if member.refused_ms is None:
            self.beat_wanted = True
        member.refused_ms = now.mono_ms
        self._is_due = True

    def admitted(self, member: Member, known: Member | None, now: Now) -> None:
        """A hello made this a member, in place of ``known``."""
        self._strangers.admitted(member)
        member.alive_since_ms = now.mono_ms
        if known is not None and known is not member:
            is_other = known.replica != member.replica
            member.replaced = known.replaced | ({known.incarnation} if is_other else set())
        self._is_due = True
        was_up = known is not None and known.state in (ALIVE, SUSPECT)
        if was_up and known is not member:
            self._note_death(member.name, now)  # It died without our noticing.

    # --- strangers -----------------------------------------------------------------------

    def heard_stranger(self, sender: Sender, now: Now) -> None:
        """Something has arrived of one who is no member here, or not in this incarnation."""
        self._strangers.heard(sender, now)

    def is_stranger_gone(self, name: str, incarnation: int, now: Now) -> bool:
        """Whether an owner that is no member here is dead: as any other would be judged.

        Asking makes it known here, and its silence count from the first time on; that of others,
        who say that they suspect it, counts too: theirs had lasted for a while by then.
        """
        stranger = self._strangers.owner(name, incarnation, now)
        is_silent = self._strangers.is_silent(stranger, now)
        return is_silent and self._is_confirmed(name, incarnation, stranger.refutation, now)

    # --- judging -------------------------------------------------------------------------

    def judge_soon(self) -> None:
        """Somebody was heard who may have been taken for dead."""
        self._is_due = True

    def judge(self, now: Now) -> Iterator[tuple[Member, MemberState]]:
        """Apply the clock to everybody; yields each member whose state changed, and the old one."""
        self._is_due = False
        members = self._shared.members.all()
        if not self._are_well(members, now):
            yield from self._judge_each(members, now)
        self._strangers.forget(now)
        self._next_ms = self._next_judgement_ms(now.mono_ms)

    def _judge_each(
        self, members: Sequence[Member], now: Now
    ) -> Iterator[tuple[Member, MemberState]]:
        # Who is heard again is a witness already when the others are judged.
        for member in sorted(members, key=lambda m: m.last_heard_ms, reverse=True):
            if member.state is LEFT:
                continue
            state = self._judged(member, now)
            if state is member.state:
                continue
            before, member.state = member.state, state
            if state is DEAD:
                self._note_death(member.name, now)
                member.lost_beat, member.lost_ms = member.beat, member.beat_ms
            elif state is ALIVE and before is DEAD:
                member.alive_since_ms = now.mono_ms
            if state is SUSPECT:
                self.beat_wanted = True
            yield member, before

    def _are_well(self, members: Sequence[Member], now: Now) -> bool:
        """All stay what they are, as they do nearly always."""
        heard_ms = now.mono_ms - self._shared.settings.suspect_after_ms
        for member in members:
            state = member.state
            if state is ALIVE:
                if member.last_heard_ms <= heard_ms or member.refused_ms is not None:
                    return False
            elif state is SUSPECT or (state is DEAD and member.last_heard_ms > heard_ms):
                return False
        return True

    def _judged(self, member: Member, now: Now) -> MemberState:
        settings = self._shared.settings
        silence_ms = now.mono_ms - member.last_heard_ms
        if member.refused_ms is not None:
            is_heard = member.last_heard_ms > member.refused_ms + settings.refusal_late_ms
            is_stale = now.mono_ms - member.refused_ms >= REFUSAL_FRESH_MS
            if is_heard or (is_stale and member.state is not DEAD):
                member.refused_ms = None
        is_quiet = now.mono_ms < self._quiet_until_ms
        if member.refused_ms is not None:
            if member.state is DEAD or self._is_refused_by_all(member, now):
                return DEAD
            # Refused again and again here, and the others may hear nothing: then silence counts.
        elif silence_ms < settings.suspect_after_ms:
            return ALIVE
        elif member.state is DEAD or is_quiet:
            return member.state
        is_over = silence_ms >= settings.dead_after_ms and not is_quiet
        if is_over and self._is_confirmed(member.name, member.incarnation, member.refutation, now):
            return DEAD
        return SUSPECT

    def _witnesses(self, name: str) -> list[Member]:
        """Members held alive besides us and the accused, but for those of another lot: these may
        never have met the accused and know no claim of it. Who has none yet may hear it."""
        lot = self._shared.lot
        witnesses = self._shared.members.alive()
        return [m for m in witnesses if m.name != name and (lot is None or m.lot in (None, lot))]

    def _is_confirmed(self, name: str, incarnation: int, refutation: int, now: Now) -> bool:
        settings = self._shared.settings
        witnesses = self._witnesses(name)
        needed = min(settings.confirmations_max, len(witnesses))
        return needed <= sum(
            self._accuses(witness, name, incarnation, refutation, now) is not None
            for witness in witnesses
        )

    def _is_refused_by_all(self, member: Member, now: Now) -> bool:
        said = (
            self._accuses(witness, member.name, member.incarnation, member.refutation, now)
            for witness in self._witnesses(member.name)
        )
        return all(suspicion is not None and suspicion.refused for suspicion in said)

    def _accuses(
        self, witness: Member, name: str, incarnation: int, refutation: int, now: Now
    ) -> Suspicion | None:
        """What this witness has said lately of this very (incarnation, refutation)."""
        suspicion = witness.accuses.get((name, incarnation))
        if suspicion is None:
            return None
        is_fresh = now.mono_ms - witness.beat_ms <= self._shared.settings.suspicion_fresh_ms
        return suspicion if is_fresh and suspicion.refutation >= refutation else None

    # --- what others hear ----------------------------------------------------------------

    def suspicions(self, now: Now) -> tuple[Suspicion, ...]:
        """For the own heartbeat: suspects and the dead, strangers that do not answer us, and who
        is over and still waited for."""
        said = [
            Suspicion(m.name, m.incarnation, m.refutation, m.refused_ms is not None)
            for m in self._shared.members.all()
            if m.state is not ALIVE and m.state is not LEFT
        ]
        if now.mono_ms >= self._quiet_until_ms:
            said += self._strangers.suspicions(now)
        return tuple(said[:SUSPICIONS_MAX])

    def unheard_here_only(self, now: Now) -> list[str]:
        """Suspects that others still hear: the link from them to us is broken."""
        limit_ms = now.mono_ms - self._shared.settings.dead_after_ms
        return [
            m.name
            for m in self._shared.members.all()
            if m.state is SUSPECT and m.last_heard_ms < limit_ms
        ]

    # --- flapping ------------------------------------------------------------------------

    def _note_death(self, name: str, now: Now) -> None:
        window_ms = self._shared.settings.flap_window_ms
        deaths = [at for at in self._deaths.get(name, ()) if now.mono_ms - at < window_ms]
        self._deaths[name] = [*deaths, now.mono_ms]

    def is_flapping(self, name: str, now: Now) -> bool:
        """It died so often lately that it gets no moved gates for a while."""
        deaths = self._deaths.get(name)
        if deaths is None:
            return False
        settings = self._shared.settings
        is_often = len(deaths) >= settings.flap_deaths
        return is_often and now.mono_ms - deaths[-1] < settings.flap_penalty_ms

    # --- time ----------------------------------------------------------------------------

    def next_deadline(self, now_ms: int) -> int | None:
        """When somebody falls silent, or is to be judged again, in monotonic milliseconds.

        As of the last judgement: what was heard since only makes it later.
        """
        return now_ms if self._is_due else self._next_ms

    def _next_judgement_ms(self, now_ms: int) -> int | None:
        settings = self._shared.settings
        suspect_after_ms = settings.suspect_after_ms
        earliest_ms: int | None = None
        for member in self._shared.members.all():
            state = member.state
            if state is ALIVE:
                due_ms = member.last_heard_ms + suspect_after_ms
            elif state is SUSPECT:
                due_ms = member.last_heard_ms + settings.dead_after_ms
                if due_ms <= now_ms:
                    continue
            else:
                continue
            if earliest_ms is None or due_ms < earliest_ms:
                earliest_ms = due_ms
        return None if earliest_ms is None else max(earliest_ms, self._quiet_until_ms)
