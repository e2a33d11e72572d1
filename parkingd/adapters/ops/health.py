"""Whether the daemon lives, is ready, and is whole: three answers to three questions.

    live      its loop turns. Whoever asks may start the process anew if it does not.
    ready     it is in its lot, has what the others had, and stays: `Node.is_ready`. Never depends
              on others being there: a gate has to work while its cable is cut.
    degraded  it serves, but something is missing: other nodes, its disk, an owner of some gate.

A failing disk makes no node dead or unready: it goes on reading and hands its gates over, and
starting it anew would mend nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from parkingd.adapters.ops.sight import Inside
from parkingd.protocol.members import MemberState
from parkingd.protocol.outbox import STORAGE_WARNING
from parkingd.protocol.outcomes import Status

LOOP_STILL_MS_MAX: Final = 5_000
"""A node's timer fires at least four times a second."""

DEGRADATIONS: Final = {
    "alone": "no other node is alive",
    "members_lost": "a member is not heard",
    "storage": "the disk is failing",
    "gates": "a gate has no owner, or more than one",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One question. ``problem`` is empty if all is well."""

    name: str
    problem: str = ""


def live_checks(inside: Inside) -> list[Check]:
    """Asked in the loop itself: that there is an answer says most."""
    still_ms = inside.now.mono_ms - inside.ticked_ms
    stood_still = f"the node's timer did not fire for {still_ms / 1000:.1f} s"
    return [Check("loop", stood_still if still_ms > LOOP_STILL_MS_MAX else "")]


def ready_checks(inside: Inside, status: Status) -> list[Check]:
    """All are well if and only if ``status.ready``."""
    checks = [
        Check("discovery", "" if inside.is_discovered else "the first look around has not ended"),
        Check("lot", "" if status.lot is not None else "it has neither joined nor founded a lot"),
        Check("staying", "it is leaving" if inside.node.is_leaving else ""),
    ]
    is_well = not any(check.problem for check in checks)
    is_behind = not status.ready and (is_well or not status.synced)
    behind = "it has not yet got all that the others have"
    return [*checks, Check("synced", behind if is_behind else "")]


def degradations(status: Status) -> list[str]:
    """Which of `DEGRADATIONS` hold."""
    counts = dict(status.members)
    holds = {
        "alone": counts.get(MemberState.ALIVE.value, 0) <= 1,
        "members_lost": any(
            counts.get(state.value, 0) for state in (MemberState.SUSPECT, MemberState.DEAD)
        ),
        "storage": STORAGE_WARNING in status.warnings,
        "gates": bool(status.gates_unowned or status.gates_contested),
    }
    return [reason for reason in DEGRADATIONS if holds[reason]]


def report(checks: Sequence[Check], degraded: Sequence[str], *, of: str) -> str:
    """For people, one line each: ``[+]lot ok``, ``[-]lot failed: why``."""
    lines = [
        f"[-]{check.name} failed: {check.problem}" if check.problem else f"[+]{check.name} ok"
        for check in checks
    ]
    lines += [f"degraded: {reason}: {DEGRADATIONS[reason]}" for reason in degraded]
    is_well = not any(check.problem for check in checks)
    return "\n".join([*lines, f"{of} check {'passed' if is_well else 'failed'}", ""])
