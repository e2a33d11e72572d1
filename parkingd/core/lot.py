"""Everything of the replicated state that is small: the lot, its settings, names, claims, seals.

Each item is kept as the event that made it, one per key, joined by a rule that does not depend on
order: settings take the greatest (hybrid time, replica), claims the greatest fence, transfers the
greatest total, fences of replicas the earliest. So the small state is a set of events, and it
is stored, sent in snapshots and hashed as one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, TypeAlias

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
from parkingd.core.registers import (
    AUTO,
    CLOSED,
    DEFAULT_THRESHOLDS,
    GATES_MAX,
    HELD_KEYS,
    MODES,
    SPACES_MAX,
    THRESHOLD_KEYS,
    Band,
    Thresholds,
    clamped,
    gate_key,
    gate_of,
)

FOUNDING_KEYS: Final = ("spaces", "gates", "admission")
"""Registers that begin with what the founding said."""

KNOWN_KEYS: Final = frozenset((*FOUNDING_KEYS, *THRESHOLD_KEYS, *HELD_KEYS))
"""Beside the modes of gates. Others are kept for nodes that know them."""

SETTING_HASHED: Final = 3
"""Fields of a setting in the root."""

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
        self._registers: dict[str, int | str] = {}
        self._modes: dict[int, str] = {}
        """Of gates that have ever had another than `auto`."""
        self.spaces = 0
        """0 without a lot."""
        self.gates = 0
        """0 without a lot."""
        self.admission = ""
        """``local``, ``escrow`` or ``strong``; empty without a lot."""
        self.thresholds = DEFAULT_THRESHOLDS
        self.bands: tuple[Band, Band] = DEFAULT_THRESHOLDS.bands(0)
        """Of almost full and of full."""
        self.held: tuple[bool, bool] = (False, False)
        """Which of these states held when their register was last written."""
        self._limits = (0, 0)
        """With so many cars, as things are, it is almost full, and full: every mint asks."""
        self._claim_events: dict[int, Event] = {}
        self._claims: dict[int, Claim] = {}
        self.claims_changed = 0
        """How often a gate has got another greatest claim."""
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
            case Setting(key=name, value=value):
                self._set(name, value)
            case Claim(gate=gate) as claim:
                self._claim_events[gate], self._claims[gate] = event, claim
                self.claims_changed += 1
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

    def _set(self, key: str, value: int | str) -> None:
        gate = gate_of(key)
        if gate is not None:
            self._modes[gate] = value if isinstance(value, str) and value in MODES else AUTO
        elif key in KNOWN_KEYS:
            self._registers[key] = value
            self._settle()

    def _settle(self) -> None:
        """Lay the registers over what the founding said, as far as they can be believed."""
        found, registers = self._found, self._registers
        if found is not None:
            self.spaces = clamped(registers.get("spaces"), 0, SPACES_MAX, found.spaces)
            self.gates = clamped(registers.get("gates"), 0, GATES_MAX, found.gates)
            admission = registers.get("admission")
            self.admission = admission if isinstance(admission, str) else found.admission
        self.thresholds = Thresholds.of(registers)
        self.bands = self.thresholds.bands(self.spaces)
        almost_full, full = HELD_KEYS
        self.held = registers.get(almost_full) == 1, registers.get(full) == 1
        self._limits = self.bands[0].limit(self.held[0]), self.bands[1].limit(self.held[1])

    def setting_event(self, key: str) -> Event | None:
        """The event that wrote this register last; None: nobody has."""
        return self.events.get(("setting", key, 0))

    def founding_event(self) -> Event | None:
        """The event that created the lot."""
        return self.events.get(("found", 0, 0))

    def mode(self, gate: int) -> str:
        """``open``, ``closed`` or ``auto``."""
        return self._modes.get(gate, AUTO)

    def gates_in(self, mode: str) -> list[int]:
        """The gates that are in this mode, ascending; not for ``auto``, which most never left."""
        return sorted(gate for gate, it in self._modes.items() if it == mode and gate <= self.gates)

    def mode_reason(self, gate: int) -> str:
        """Why the gate has this mode; empty when nobody has said."""
        if gate not in self._modes:
            return ""
        event = self.setting_event(gate_key(gate))
        return event.body.reason if event is not None and isinstance(event.body, Setting) else ""

    def is_closed(self) -> bool:
        """Every gate is closed."""
        gates = range(1, self.gates + 1)
        return self.gates > 0 and all(self.mode(gate) == CLOSED for gate in gates)

    def fullness(self, inside: int) -> tuple[bool, bool]:
        """Whether a lot with so many cars is almost full, and whether it is full."""
        almost_full, full = self._limits
        return inside >= almost_full, inside >= full

    def state_word(self, inside: int) -> str:
        """``open``, ``almost_full``, ``full`` or ``closed`` with so many cars inside."""
        if self.is_closed():
            return "closed"
        almost_full, full = self.fullness(inside)
        return "full" if full else "almost_full" if almost_full else "open"

    def founding(self) -> Found | None:
        """The act that created the lot."""
        return self._found

    def founding_dot(self) -> Dot | None:
        """Who founded, and with which event."""
        event = self.founding_event()
        return None if event is None else (event.origin, event.seq)

    def claim_event(self, gate: int) -> Event | None:
        """The event that made the greatest claim to this gate."""
        return self._claim_events.get(gate)

    def claim(self, gate: int) -> Claim | None:
        """The greatest claim to this gate; None if nobody has ever served it."""
        return self._claims.get(gate)

    def name_of(self, replica: ReplicaId) -> str:
        """The node that minted under this id; its hex where the join is not known."""
        join = self.names.get(replica)
        return join.name if join is not None else f"{replica:016x}"

    def digest(self) -> bytes:
        """Hash of the founding, the settings and the greatest claims; equal on equal replicas.

        Of a setting, what the first version had: nodes that do not know its other fields drop them
        in snapshots, and time and origin tell two settings apart anyway.
        """
        if self._digest is None:
            hashed = blake2b(digest_size=16)
            for key in sorted(k for k in self.events if k[0] in ("found", "setting", "claim")):
                event = self.events[key]
                body = event.body[:SETTING_HASHED] if key[0] == "setting" else tuple(event.body)
                hashed.update(repr((key, event.time, event.origin, body)).encode())
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
