"""The types of the event stream, in the order in which `docs/reference-events.md` explains them."""

from __future__ import annotations

from typing import Final

EVENT_TYPES: Final = (
    "admitted",
    "entered",
    "denied",
    "exited",
    "unmatched_exit",
    "corrected",
    "removed",
    "conflict",
    "conflict_settled",
    "overbooked",
    "overbooking_ended",
    "lot_almost_full",
    "lot_almost_full_ended",
    "lot_full",
    "lot_full_ended",
    "gate_claimed",
    "gate_released",
    "gate_unowned",
    "gate_served",
    "gate_contested",
    "member_joined",
    "member_suspect",
    "member_alive",
    "member_dead",
    "member_left",
    "lot_founded",
    "setting",
    "replica_joined",
    "replica_fenced",
    "replica_forgotten",
    "snapshot_joined",
    "warning",
    "warning_ended",
    "capacity",
    "transfer",
)
"""The last two are minted by later versions only: admission by rights is to come."""
