"""What one node knows of who serves which gate: by the claims, by heartbeats, and for how long.

The greatest claim to a gate says who serves it (`core.gates`). Beside it a node knows since when it
has it, whether its owner's heartbeats name the gate, which greater claims it has only heard of
(`hearsay`), and which gates two have had at once (`disputes`). `gates` acts on all that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from parkingd.core.events import Claim
from parkingd.core.gates import PHASE_OWNED, Fence, fence_of
from parkingd.core.ids import Now
from parkingd.core.lot import LotRecord
from parkingd.protocol.disputes import Disputes
from parkingd.protocol.hearsay import Hearsay
from parkingd.protocol.members import ALIVE, GONE, SUSPECT, Member
from parkingd.protocol.membership import Membership
from parkingd.protocol.shared import Shared

RAN_SHARE: Final = 0.5
"""Of the heartbeats it should have sent while unheard: with more, it ran and was cut off."""
LOOK_BACK_MS: Final = 2_000
"""A member that was taken for dead is heard again: its old heartbeats come within this time."""


class Heard(NamedTuple):
    """What a heartbeat says of gates."""

    is_news: bool
    greater: set[int]
    """Gates that it names under a greater claim than is here."""


class Claims:
    """One per node."""

    def __init__(self, shared: Shared, membership: Membership) -> None:
        self._shared = shared
        self._membership = membership
        self.hearsay = Hearsay(self.greatest, self.up)
        self.disputes = Disputes(shared)
        self._known: dict[int, Claim] = {}
        """The greatest claims when they were last looked at."""
        self._known_ms: dict[int, int] = {}
        """Since when each of them is known here."""
        self._moved_ms: dict[int, int] = {}
        """When the claimant of a gate last changed."""
        self._last_epochs: dict[tuple[int, str], int] = {}
        """The greatest epoch of each claimant, for heartbeats that are older than its events."""
        self._unnamed: dict[int, tuple[Fence, int]] = {}
        """Gates that their living owner's heartbeats do not name, and since when."""
        self._ousted: dict[int, tuple[str, int, str, int]] = {}
        """(owner, incarnation) of whom a gate was claimed that its last heartbeat named, for it
        was taken for dead; by whom, and when that was seen. Who has it since does not matter."""
        self._heard: dict[str, tuple[tuple[tuple[int, int], ...] | None, bool]] = {}
        """What each member's last heartbeat said of its gates, and whether it is leaving."""
        self._owned: tuple[object, list[tuple[int, Claim]]] = (None, [])
        """(seq, claim) of the gates that are ours, and of which record that was found in which
        state of its."""
        self._changes = 0
        """How often a greatest claim has changed, or what is known of it by hearsay."""
        self._weighed: dict[str, int] = {}
        """At which of these changes a member's heartbeat was last compared with the claims."""

    # --- what is known -------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Gates of the lot, numbered from 1; 0 without a lot."""
        return self._shared.replica.state.record.gates

    def gates(self) -> range:
        """Their numbers."""
        return range(1, self.count + 1)

    def greatest(self, gate: int) -> Claim | None:
        """The greatest claim to this gate; None if nobody has ever served it."""
        return self._shared.replica.state.record.claim(gate)

    def is_own(self, claim: Claim) -> bool:
        """Whether this node has made it, in this life."""
        shared = self._shared
        return claim.owner == shared.settings.name and claim.incarnation == shared.incarnation

    def held(self) -> list[tuple[int, Claim]]:
        """(seq, claim) of the gates that are ours and that nobody is heard to have claimed since,
        ascending."""
        record = self._shared.replica.state.record
        key = (record, record.gates, record.claims_changed)
        if self._owned[0] != key:
            self._owned = (key, self._owned_of(record))
        if not self.hearsay:
            return self._owned[1]
        return [(seq, claim) for seq, claim in self._owned[1] if claim.gate not in self.hearsay]

    def _owned_of(self, record: LotRecord) -> list[tuple[int, Claim]]:
        owned = []
        for gate in self.gates():
            event = record.claim_event(gate)
            if event is None:
                continue
            assert isinstance(event.body, Claim)
            if event.body.phase == PHASE_OWNED and self.is_own(event.body):
                owned.append((event.seq, event.body))
        return owned

    def up(self) -> Iterator[Member]:
        """Members of the lot that are not known to be dead."""
        lot = self._shared.lot
        if lot is None:
            return
        for member in self._shared.members.all():
            state = member.state
            if (state is ALIVE or state is SUSPECT) and member.lot == lot:
                yield member

    def is_gone(self, name: str, incarnation: int, now: Now) -> bool | None:
        """Whether this owner serves no more; None: nobody can say yet."""
        shared = self._shared
        if name == shared.settings.name and not shared.is_namesake:
            return incarnation != shared.incarnation
        member = shared.members.get(name)
        is_over = member is not None and member.state in GONE
        if member is not None and member.incarnation == incarnation:
            return is_over
        if member is not None and member.incarnation > incarnation and not is_over:
            return True  # Of one that is over this may be the successor, with an earlier clock.
        return True if self._membership.is_stranger_gone(name, incarnation, now) else None

    def are_all_named(self) -> bool:
        """Every gate of a living owner is named by its heartbeats, and no other than by claims."""
        return not (self._unnamed or self.hearsay)

    def is_named(self, gate: int) -> bool:
        """The heartbeats of its owner name this gate, as far as they are looked at."""
        return gate not in self._unnamed

    def is_unnamed(self, gate: int, claim: Claim, after_ms: int, now: Now) -> bool:
        """Its living owner's heartbeats have not named it for this long."""
        unnamed = self._unnamed.get(gate)
        if unnamed is None or unnamed[0] != fence_of(claim):
            return False
        return now.mono_ms - unnamed[1] >= after_ms

    def has_rested(self, gate: int, pause_ms: int, now: Now) -> bool:
        """Nobody else has got this gate for so long."""
        moved_ms = self._moved_ms.get(gate)
        return moved_ms is None or now.mono_ms - moved_ms >= pause_ms

    def note_moved(self, gate: int, now: Now) -> None:
        """It counts as moved now, though no claim of another is here."""
        self._moved_ms[gate] = now.mono_ms

    def is_past(self, member: Member, gate: int, epoch: int) -> bool:
        """That this member's heartbeat names the gate under this epoch says nothing any more: it is
        older than what is known of the gate's owner. Of one that died the last heartbeat still
        names what others serve by now."""
        if epoch < self._last_epochs.get((gate, member.name), 0):
            return True
        claim = self.greatest(gate)
        if claim is None or claim.owner == member.name:
            return False
        return claim is not self._known.get(gate) or member.beat_ms <= self._known_ms[gate]

    # --- what arrives --------------------------------------------------------------------

    def applied(self, claim: Claim) -> None:
        """A claim of another node has been joined."""
        self._note(claim)
        gate, greatest = claim.gate, self.greatest(claim.gate)
        if greatest is None or gate not in self._known_ms:
            return
        if claim.epoch == greatest.epoch and claimant(claim) != claimant(greatest):
            # Two had claimed it at once: it has moved from one to the other.
            self._moved_ms[gate] = max(self._known_ms[gate], self._moved_ms.get(gate, 0))

    def joined(self) -> None:
        """A snapshot has been joined. Of claims to one gate it brings the greatest only: any that
        is known here may have moved from who lost it."""
        for gate, known_ms in self._known_ms.items():
            self._moved_ms[gate] = max(known_ms, self._moved_ms.get(gate, 0))

    def sync(self, now: Now) -> list[tuple[Claim | None, Claim]]:
        """Notice which gates have another greatest claim than when this was last called: the one
        before, and the one now."""
        changes: list[tuple[Claim | None, Claim]] = []
        known, greatest = self._known.get, self._shared.replica.state.record.claim
        for gate in self.gates():
            before, claim = known(gate), greatest(gate)
            if claim is None or claim is before:
                continue
            self._known[gate], self._known_ms[gate] = claim, now.mono_ms
            self._changes += 1
            self._note(claim)
            changes.append((before, claim))
            if before is not None and claimant(before) != claimant(claim):
                self._note_passed(before, claim, now)
            if gate in self._unnamed and self._unnamed[gate][0] != fence_of(claim):
                del self._unnamed[gate]
        return changes

    def _note_passed(self, before: Claim, claim: Claim, now: Now) -> None:
        """From one claimant to another."""
        gate = claim.gate
        self._moved_ms[gate] = now.mono_ms
        is_next = before.phase == PHASE_OWNED and claim.epoch == before.epoch + 1
        if is_next and not self.is_unnamed(gate, before, 0, now):
            self._ousted[gate] = (*claimant(before), claim.owner, now.mono_ms)

    def settle(self, now: Now) -> bool:
        """Forget what was heard of and has come, or counts no more. Whether there was any."""
        has_settled = self.hearsay.settle(now)
        self._changes += has_settled  # What heartbeats say has to be compared anew.
        return has_settled

    def _note(self, claim: Claim) -> None:
        key = (claim.gate, claim.owner)
        self._last_epochs[key] = max(claim.epoch, self._last_epochs.get(key, 0))

    def heard(self, member: Member, now: Now) -> Heard | None:
        """Its heartbeat names the gates that it serves; None if it said the same of the same
        claims."""
        if member.lost_beat is not None:
            self._look_back(member, now)
        said = (member.gates, member.leaving)
        is_news = self._heard.get(member.name) != said
        if is_news:
            self._heard[member.name] = said
        elif self._weighed.get(member.name) == self._changes:
            return None
        self._weighed[member.name] = self._changes
        named = dict(member.gates or ())
        greater = self.hearsay.heard(member, named, now)
        for gate in self.gates():
            claim = self.greatest(gate)
            if claim is None or claim.phase != PHASE_OWNED or claim.owner != member.name:
                continue
            if gate in named or claim.incarnation != member.incarnation:
                self._unnamed.pop(gate, None)
                continue
            fence = fence_of(claim)
            if self._unnamed.get(gate, (None, 0))[0] != fence:
                self._unnamed[gate] = (fence, now.mono_ms)
        return Heard(is_news or bool(greater), greater)

    def _look_back(self, member: Member, now: Now) -> None:
        """It was taken for dead and is heard again. Heartbeats are counted: did it go on?"""
        settings = self._shared.settings
        assert member.lost_beat is not None
        ran_ms = (member.beat - member.lost_beat) * settings.heartbeat_ms
        did_run = ran_ms >= (now.mono_ms - member.lost_ms) * RAN_SHARE
        if not did_run and now.mono_ms - member.alive_since_ms < LOOK_BACK_MS:
            return  # Old heartbeats may come first.
        member.lost_beat = None
        for gate, (name, incarnation, by, ousted_ms) in list(self._ousted.items()):
            if name != member.name:
                continue
            del self._ousted[gate]
            is_meanwhile = incarnation == member.incarnation and ousted_ms >= member.lost_ms
            if did_run and is_meanwhile:
                self.disputes.notice(gate, {name, by}, now)


def claimant(claim: Claim) -> tuple[str, int]:
    """(name, incarnation) of who made it."""
    return claim.owner, claim.incarnation
