"""Everything of the replicated state that is small: the lot, its settings, names, claims, seals.

Each item is kept as the event that made it, one per key, joined by a rule that does not depend on
order: settings take the greatest (hybrid time, replica), claims the greatest fence, transfers the
greatest total, fences of replicas the earliest. So the small state is a set of events, and it
is stored, sent in snapshots and hashed as one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, TypeAlias, cast

from parkingd.core.events import (
    Capacity,
    Claim,
    Event,
    Fence,
    Found,
    Join,
    Seal,
    Setting,
    Transfer,
)
from parkingd.core.gates import fence_of
from parkingd.core.ids import Dot, HybridTime, ReplicaId

SETTING_KEYS: Final = ("spaces", "gates", "admission")

Key: TypeAlias = tuple[str, int | str, int | str]
"""(kind, what, whose): one event is kept per key."""


def lot_id(time: HybridTime, founder: ReplicaId) -> bytes:
    """16 bytes that sort by founding: the lot with the smaller id was founded earlier."""
    return time.to_bytes(8, "big") + founder.to_bytes(8, "big")


class LotRecord:
    """The small state. ``lot`` is None until it is founded or met."""

    def __init__(self) -> None:
        self.lot: bytes | None = None
        self.events: dict[Key, Event] = {}
        self.names: dict[ReplicaId, Join] = {}
        self.fences: dict[ReplicaId, Event] = {}
        self.seals: dict[ReplicaId, Seal] = {}
        self.changed = False
        """Set by every change; whoever saves the small state clears it."""
        self._found: Found | None = None
        self._settings: dict[str, int | str] = {}
        self._claims: dict[int, Event] = {}
        self._digest: bytes | None = None

    def absorb(self, event: Event) -> bool:
        """Join one event; True if it changed anything. Order and repetition do not matter."""
        key = _key(event)
        if key is None:
            return False
        held = self.events.get(key)
        if held is not None and not _wins(event, held):
            return False
        self.events[key] = event
        self.changed = True
        self._digest = None
        match event.body:
            case Found(lot=lot) as found:
                self.lot = lot
                self._found = found
                self._settle()
            case Setting():
                self._settle()
            case Claim(gate=gate):
                self._claims[gate] = event
            case Join() as join:
                self.names[event.origin] = join
            case Fence(replica=replica):
                self.fences[replica] = event
            case Seal(replica=replica) as seal:
                self.seals[replica] = seal
            case _:
                pass
        return True

    def seal_events(self) -> list[Event]:
        """The events that sealed a replica."""
        return [event for key, event in self.events.items() if key[0] == "seal"]

    def setting(self, key: str) -> int | str | None:
        """The register's value, else what the founding said; None without a lot."""
        return self._settings.get(key)

    def _settle(self) -> None:
        """Lay the registers over what the founding said."""
        found = self._found
        if found is not None:
            self._settings = dict(zip(SETTING_KEYS, found[1:], strict=True))
        for key in SETTING_KEYS:
            event = self.events.get(("setting", key, 0))
            if event is not None and isinstance(event.body, Setting):
                self._settings[key] = event.body.value

    def founding(self) -> Found | None:
        """The act that created the lot."""
        return self._found

    def founding_dot(self) -> Dot | None:
        """Who founded, and with which event."""
        event = self.events.get(("found", 0, 0))
        return None if event is None else (event.origin, event.seq)

    @property
    def spaces(self) -> int:
        """0 without a lot."""
        value = self.setting("spaces")
        return value if isinstance(value, int) else 0

    @property
    def gates(self) -> int:
        """0 without a lot."""
        value = self.setting("gates")
        return value if isinstance(value, int) else 0

    def claim_event(self, gate: int) -> Event | None:
        """The event that made the greatest claim to this gate."""
        return self._claims.get(gate)

    def claim(self, gate: int) -> Claim | None:
        """The greatest claim to this gate; None if nobody has ever served it."""
        event = self._claims.get(gate)
        return None if event is None else cast(Claim, event.body)

    @property
    def admission(self) -> str:
        """``local``, ``escrow`` or ``strong``; empty without a lot."""
        value = self.setting("admission")
        return value if isinstance(value, str) else ""

    def name_of(self, replica: ReplicaId) -> str:
        """The node that minted under this id; its hex where the join is not known."""
        join = self.names.get(replica)
        return join.name if join is not None else f"{replica:016x}"

    def digest(self) -> bytes:
        """Hash of the founding, the settings and the greatest claims; equal on equal replicas."""
        if self._digest is None:
            hashed = blake2b(digest_size=16)
            for key in sorted(k for k in self.events if k[0] in ("found", "setting", "claim")):
                event = self.events[key]
                hashed.update(repr((key, event.time, event.origin, tuple(event.body))).encode())
            self._digest = hashed.digest()
        return self._digest


def _key(event: Event) -> Key | None:
    match event.body:
        case Join():
            return ("join", event.origin, 0)
        case Found():
            return ("found", 0, 0)
        case Setting(key=key):
            return ("setting", key, 0)
        case Claim(gate=gate):
            return ("claim", gate, 0)
        case Capacity():
            return ("capacity", event.origin, event.seq)
        case Transfer(to=to):
            return ("transfer", event.origin, to)
        case Fence(replica=replica):
            return ("fence", replica, 0)
        case Seal(replica=replica):
            return ("seal", replica, 0)
        case _:
            return None


def _wins(event: Event, held: Event) -> bool:
    match event.body, held.body:
        case (Claim() as new, Claim() as old):
            stamp = (fence_of(new), event.time, event.origin)
            return stamp > (fence_of(old), held.time, held.origin)
        case (Transfer(total=new_total), Transfer(total=old_total)):
            return new_total > old_total
        case (Fence(), Fence()) | (Found(), Found()):
            return (event.time, event.origin) < (held.time, held.origin)
        case _:
            return (event.time, event.origin) > (held.time, held.origin)
