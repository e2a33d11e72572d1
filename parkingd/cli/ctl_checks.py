"""What the parsers of parkingd-ctl cannot say by themselves: which arguments go together.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Final

from parkingd.cli.flag_parser import did_you_mean
from parkingd.cli.journal_options import check_log, check_watch
from parkingd.errors import UsageError

PROGRAM: Final = "parkingd-ctl"

INTERVAL_S_MIN: Final = 0.1
INTERVAL_S_MAX: Final = 3_600.0
"""Of the looks of `top`; each costs the daemon some 2 ms."""

SETTINGS: Final = ("spaces", "gates", "almost-full", "full")
"""What `set` can change."""
THRESHOLDS: Final = ("almost-full", "full")
"""Of these, what has a --clear."""
MODES: Final = ("open", "close", "auto")
"""What `gate` can do."""


def checked(command: str, namespace: argparse.Namespace) -> argparse.Namespace:
    """The same arguments, the gate in its place. Raises UsageError."""
    check = _CHECKS.get(command)
    if check is not None:
        check(command, namespace)
    return namespace


def _check_gate_once(command: str, namespace: argparse.Namespace) -> None:
    if (namespace.gate is None) == (namespace.gate_flag is None):
        raise UsageError(
            "name the gate once, as GATE or with --gate N", f"{PROGRAM} {command} ABC123 1"
        )
    namespace.gate = namespace.gate_flag if namespace.gate is None else namespace.gate


def _check_interval(_: str, namespace: argparse.Namespace) -> None:
    if not INTERVAL_S_MIN <= namespace.interval <= INTERVAL_S_MAX:
        raise UsageError(
            f"{namespace.interval:g} is no interval to look at",
            f"from {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g} seconds",
        )


def _check_removal(_: str, namespace: argparse.Namespace) -> None:
    if namespace.dot is not None and namespace.exit is not None:
        raise UsageError("--dot and --exit exclude each other", f"see {PROGRAM} remove --help")


def _check_setting(_: str, namespace: argparse.Namespace) -> None:
    if namespace.what not in SETTINGS:
        raise UsageError(
            f"set knows {', '.join(SETTINGS)}, not {namespace.what!r}",
            did_you_mean(namespace.what, SETTINGS) or f"{PROGRAM} set spaces 120",
        )
    if namespace.clear is None:
        return
    if namespace.what not in THRESHOLDS:
        raise UsageError(
            f"{namespace.what} has no --clear", f"{PROGRAM} set almost-full 90 --clear 85"
        )
    if namespace.clear > namespace.number:
        raise UsageError(
            f"{namespace.what} cannot be clear at {namespace.clear} % when it begins at"
            f" {namespace.number} %",
            "give a --clear that is not greater",
        )


def _check_mode(_: str, namespace: argparse.Namespace) -> None:
    if namespace.mode not in MODES:
        raise UsageError(
            f"gate knows {', '.join(MODES)}, not {namespace.mode!r}",
            did_you_mean(namespace.mode, MODES) or f"{PROGRAM} gate close 2",
        )


def _check_member(_: str, namespace: argparse.Namespace) -> None:
    if namespace.action is None:
        return
    if namespace.action != "forget":
        raise UsageError(
            f"members knows forget, not {namespace.action!r}",
            did_you_mean(namespace.action, ["forget"]) or f"{PROGRAM} members forget NAME",
        )
    if namespace.member is None:
        raise UsageError("which member?", f"{PROGRAM} members forget NAME")


_CHECKS: Final[Mapping[str, Callable[[str, argparse.Namespace], None]]] = {
    "track": _check_gate_once,
    "enter": _check_gate_once,
    "exit": _check_gate_once,
    "top": _check_interval,
    "watch": lambda _, namespace: check_watch(namespace),
    "log": lambda _, namespace: check_log(namespace),
    "remove": _check_removal,
    "set": _check_setting,
    "gate": _check_mode,
    "members": _check_member,
}
"""What a parser cannot say, by command."""
