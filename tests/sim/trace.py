"""What happened, in fixed columns, for people.

A run keeps no trace: it is repeated from its seed with one when it has failed. Lines carry the
virtual time in seconds, the node, one word for what it is, and the rest.
"""

from __future__ import annotations

from typing import NamedTuple

from parkingd.core.events import Correction, Enter, Event, Exit, Removal, Seal

LOUD = frozenset(
    {"cut", "healed", "crash", "start", "over", "stop", "pause", "disk", "clock", "fail"}
)
"""Words that matter whatever one is looking for."""


class Line(NamedTuple):
    """One thing that happened."""

    time_ms: int
    node: str
    word: str
    text: str

    def __str__(self) -> str:
        """Fixed columns."""
        return f"{self.time_ms / 1000:9.3f}  {self.node:<6} {self.word:<8} {self.text}"


class Trace:
    """All lines of one run, in order."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, time_ms: int, node: str, word: str, text: str) -> None:
        """Append one line."""
        self.lines.append(Line(time_ms, node, word, text))

    def about(self, subjects: tuple[str, ...], *, tail: int = 30) -> list[str]:
        """Lines that name one of the subjects, what is loud, and the last ``tail`` lines."""
        start = max(0, len(self.lines) - tail)
        return [
            str(line)
            for index, line in enumerate(self.lines)
            if index >= start
            or line.word in LOUD
            or any(subject in line.text for subject in subjects)
        ]


def short(replica: int) -> str:
    """Enough of a replica id to tell it from the others of a run."""
    return f"{replica:016x}"[-4:]


def dot_text(dot: tuple[int, int]) -> str:
    """Replica and seq, as they stand in every line that means this dot."""
    return f"{short(dot[0])}.{dot[1]}"


def event_text(event: Event) -> str:
    """One event on one line."""
    head = f"{dot_text((event.origin, event.seq))} t={event.time >> 16}+{event.time & 0xFFFF}"
    body = event.body
    match body:
        case Enter():
            cause = body.cause.hex()[:8] if body.cause else "own"
            rest = f"{body.plate} cause={cause} flags={body.flags}"
        case Exit():
            causes = ",".join(cause.hex()[:8] for cause in body.causes)
            rest = f"{body.plate} causes=[{causes}]"
        case Removal():
            rest = body.plate
        case Correction():
            rest = f"{body.old_plate}->{body.plate} cause={body.cause.hex()[:8]}"
        case Seal():
            rest = f"{short(body.replica)} upto={body.upto} {body.intervals}"
        case _:
            rest = str(body)
    covers = ",".join(dot_text(dot) for dot in getattr(body, "covers", ()))
    return f"{type(body).__name__.lower()} {head} {rest}" + (
        f" covers=[{covers}]" if covers else ""
    )
