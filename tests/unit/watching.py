"""What a box shows of its members and gates, in few words."""

from __future__ import annotations

from collections.abc import Callable

from parkingd.core.events import Claim
from parkingd.core.gates import PHASE_OWNED
from parkingd.protocol.commands import AskToEnter, ReadGates, ReadStatus
from parkingd.protocol.members import Member
from parkingd.protocol.messages import Heartbeat, Suspicion
from parkingd.protocol.outcomes import Decision, GateList, GateRow, Status
from tests.unit.scripted import Box, Stage

REQUEST = bytes(range(16))


def member(box: Box, name: str) -> Member:
    """What it knows of this member."""
    return next(each for each in box.node.members if each.name == name)


def state(box: Box, name: str) -> str:
    """Of a member, as this box judges it."""
    return member(box, name).state.value


def states(box: Box) -> dict[str, str]:
    """Of every member, by name."""
    return {each.name: each.state.value for each in box.node.members}


def status(box: Box) -> Status:
    """As `parkingd-ctl status` shows it."""
    return box.ask(ReadStatus(), Status)


def warnings(box: Box) -> str:
    """Its warnings, one a line."""
    return "\n".join(status(box).warnings)


def beats(box: Box) -> list[Heartbeat]:
    """Every heartbeat so far."""
    return box.has_sent(Heartbeat)


def accused(beat: Heartbeat) -> set[str]:
    """Whom this heartbeat suspects."""
    return {suspicion.name for suspicion in beat.suspicions}


def say(source: Box, target: Box, beat: int, *suspicions: Suspicion) -> None:
    """The target hears this heartbeat as the source's, whatever that says itself."""
    head, wall_ms = source.node.durable_seq, source.now.wall_ms
    target.receive(source.sender(None), Heartbeat(beat, head, wall_ms, 0, False, suspicions, ()))


def rows(box: Box) -> dict[int, GateRow]:
    """Every gate as it shows it."""
    return {row.gate: row for row in box.ask(ReadGates(), GateList).items}


def owners(box: Box) -> dict[int, str | None]:
    """Who serves each gate, as it shows it."""
    return {gate: row.owner for gate, row in rows(box).items()}


def gate_states(box: Box) -> set[str]:
    """The states that its gates are in."""
    return {row.state for row in rows(box).values()}


def serves(box: Box) -> set[int]:
    """The gates it takes itself to serve."""
    return {gate for gate, row in rows(box).items() if box.settings.name in row.claims}


def claim(box: Box, gate: int) -> Claim:
    """The greatest claim that it knows."""
    greatest = box.node.state.record.claim(gate)
    assert greatest is not None
    return greatest


def claims(box: Box) -> dict[int, tuple[int, str]]:
    """(epoch, owner) of each gate."""
    gates = range(1, box.node.state.record.gates + 1)
    return {gate: (claim(box, gate).epoch, claim(box, gate).owner) for gate in gates}


def is_whole(boxes: list[Box]) -> bool:
    """They agree, and each gate is served by exactly the one of them that they name."""
    first = owners(boxes[0])
    return (
        all(owners(box) == first and gate_states(box) == {"served"} for box in boxes)
        and all(claim(boxes[0], gate).phase == PHASE_OWNED for gate in first)
        and sum(len(serves(box)) for box in boxes) == len(first)
    )


def ask_in(
    box: Box, plate: str, gate: int = 1, request: bytes | None = None, wait_ms: int = 5_000
) -> int:
    """The handle of a car that asks to be let in."""
    return box.submit(AskToEnter(plate, gate, request), wait_ms)


def decision(box: Box, handle: int) -> Decision:
    """The one answer that it got."""
    outcome = box.answer(handle)
    assert isinstance(outcome, Decision), outcome
    return outcome


def enter(box: Box, plate: str, gate: int = 1, request: bytes | None = None) -> Decision:
    """The answer to a car that is answered within this call."""
    return decision(box, ask_in(box, plate, gate, request))


def wait_until(stage: Stage, holds: Callable[[], bool], limit_ms: int = 30_000) -> int:
    """Let time pass until this holds; returns how many milliseconds that took."""
    start_ms = stage.mono_ms
    while not holds():
        assert stage.mono_ms - start_ms < limit_ms, "it never came to that"
        stage.pass_ms(5)
    return stage.mono_ms - start_ms
