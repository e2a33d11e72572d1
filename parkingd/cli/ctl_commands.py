"""What each command of parkingd-ctl asks, and which exit status the answer gets.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from parkingd import __version__
from parkingd.adapters.client import Trouble
from parkingd.adapters.control_wire import CONTROL_VERSION
from parkingd.adapters.document_values import Document
from parkingd.adapters.rundir import lock_holder
from parkingd.cli.ctl_checks import THRESHOLDS
from parkingd.cli.ctl_session import (
    EXIT_DONE,
    EXIT_NO,
    EXIT_NOT_FOUND,
    EXIT_TIMED_OUT,
    Session,
    local_document,
)
from parkingd.cli.flag_parser import did_you_mean
from parkingd.errors import UsageError

ENDED_WAIT_S: Final = 5.0
ENDED_LOOK_S: Final = 0.02

_CONDITION: Final = re.compile(r"(?P<key>[a-z]+)(?:(?P<relation>>=|=)(?P<value>[0-9]{1,9}))?")
_COUNTED: Final = ("members", "gates", "inside")
_FLAGS: Final = ("synced", "ready")

_UNDECIDED: Final = ("no_owner", "not_ready")
"""Reasons of a decision that nobody took: the same request may have another answer soon."""

_DOT: Final = re.compile(r'\[?"?(?P<replica>[0-9a-fA-F]{16})"?[:,] *(?P<seq>[0-9]{1,15})\]?')
_FENCE: Final = re.compile(
    r'\[?(?P<epoch>[0-9]{1,15})[:,] *"?(?P<score>[0-9a-fA-F]{16})"?[:,] *'
    r'"?(?P<owner>[A-Za-z0-9][A-Za-z0-9._-]{0,62})"?\]?'
)


def run(command: str, session: Session) -> int:
    """Carry out a command; the exit status."""
    return _RUNNERS[command](session)


def _shown(session: Session, answer: Document | Trouble) -> int:
    if isinstance(answer, Trouble):
        return session.fail(answer)
    session.show(answer)
    return EXIT_DONE


def _reader(verb: str) -> Callable[[Session], int]:
    return lambda session: _shown(session, session.ask(verb, {}))


def _recorder(verb: str) -> Callable[[Session], int]:
    def run_recorder(session: Session) -> int:
        args = {"plate": session.args.plate, "gate": session.args.gate}
        return _shown(session, session.change(verb, args))

    return run_recorder


def _enter(session: Session) -> int:
    args = {"plate": session.args.plate, "gate": session.args.gate}
    if session.args.seen is not None:
        args["seen"] = parse_fence(session.args.seen)
    answer = session.change("enter", args)
    status = _shown(session, answer)
    if isinstance(answer, Trouble):
        return status
    session.advise(answer["hint"], repeat=answer["reason"] in _UNDECIDED)
    return EXIT_DONE if answer["decision"] == "admitted" else EXIT_NO


def _exit(session: Session) -> int:
    """The record first; what it may have been is asked afterwards, and changes no exit status."""
    answer = session.change("exit", {"plate": session.args.plate, "gate": session.args.gate})
    if isinstance(answer, Trouble) or answer["matched"] != "none":
        return _shown(session, answer)
    replica, seq = answer["dot"]
    unmatched = session.ask("unmatched", {"dot": [int(replica, 16), seq]})
    if isinstance(unmatched, Trouble):
        session.show(answer)
        session.warn([f"nobody said which plates inside are like it: {unmatched.reason}"])
        return EXIT_DONE
    alike = [stay for item in unmatched["items"] for stay in item["alike"]]
    session.show(answer | {"alike": alike})
    for stay in alike:
        settle = f"{stay['plate']} is inside. If it was that car: {stay['settle']}"
        session.advise(settle, repeat=False)
    return EXIT_DONE


def _where(session: Session) -> int:
    answer = session.ask("where", {"plate": session.args.plate})
    status = _shown(session, answer)
    if not isinstance(answer, Trouble) and not answer["inside"]:
        return EXIT_NOT_FOUND
    return status


def _conflicts(session: Session) -> int:
    answer = session.ask("conflicts", {})
    status = _shown(session, answer)
    if not isinstance(answer, Trouble) and answer["items"]:
        session.advise(
            "remove the stay that is wrong; if the car has left, `parkingd-ctl exit PLATE GATE`"
            " closes all of a plate",
            repeat=False,
        )
    return status


def _members(session: Session) -> int:
    if session.args.action is None:
        return _shown(session, session.ask("members", {}))
    return _shown(session, session.ask("forget_member", {"name": session.args.member}))


def _leave(session: Session) -> int:
    """The daemon answers when it has left; its files are free only when the process has ended."""
    answer = session.ask("leave", {})
    status = _shown(session, answer)
    socket = session.socket
    until_s = time.monotonic() + ENDED_WAIT_S
    while socket is not None and not isinstance(answer, Trouble):
        if lock_holder(socket) is None:
            break
        if time.monotonic() >= until_s:
            session.warn([f"it has left, and its process still runs after {ENDED_WAIT_S:.0f} s"])
            break
        time.sleep(ENDED_LOOK_S)
    return status


def _set(session: Session) -> int:
    given = session.args
    name = given.what.replace("-", "_")
    args = {"percent" if given.what in THRESHOLDS else name: given.number}
    if given.what in THRESHOLDS:
        args["clear"] = given.clear
    return _shown(
        session,
        session.change(f"set_{name}", args | {"current": given.if_current, "reason": given.reason}),
    )


def _gate(session: Session) -> int:
    given = session.args
    mode = "closed" if given.mode == "close" else given.mode
    args = {"gate": given.gate, "mode": mode, "current": given.if_current, "reason": given.reason}
    return _shown(session, session.change("set_mode", args))


def _correct(session: Session) -> int:
    args = {"old": session.args.old, "new": session.args.new}
    return _shown(session, session.change("correct", args))


def _remove(session: Session) -> int:
    args: dict[str, Any] = {"plate": session.args.plate}
    for flag, dot in (("dot", session.args.dot), ("exit", session.args.exit)):
        if dot is not None:
            args[flag] = parse_dot(dot)
    return _shown(session, session.change("remove", args))


def _wait(session: Session) -> int:
    conditions = [parse_condition(text) for text in session.args.conditions or ()]
    if not conditions:
        raise UsageError("what to wait for?", "parkingd-ctl wait --for ready")
    answer = session.ask("wait", {"conditions": conditions})
    status = _shown(session, answer)
    if not isinstance(answer, Trouble) and not answer["met"]:
        return EXIT_TIMED_OUT
    return status


def _backup(session: Session) -> int:
    return _shown(session, session.ask("backup", {"path": str(Path(session.args.file).absolute())}))


def _import(session: Session) -> int:
    from parkingd.cli.importing import run_import  # hashing and dates load only where needed

    return run_import(session)


def _export(session: Session) -> int:
    from parkingd.cli.exporting import run_export

    return run_export(session)


def _top(session: Session) -> int:
    from parkingd.cli.top.app import run_top  # rich loads only where people look

    return run_top(session, os.environ)


def _watch(session: Session) -> int:
    from parkingd.cli.watching import run_watch

    return run_watch(session)


def _log(session: Session) -> int:
    from parkingd.cli.listing import run_log

    return run_log(session)


def _completion(session: Session) -> int:
    from parkingd.cli.completion import run_completion

    return run_completion(session, os.environ)


def _version(session: Session) -> int:
    """Ours is shown even when there is no daemon to ask for its own."""
    answer = session.ask("version", {})
    here: Document = {"version": __version__, "control": CONTROL_VERSION}
    if isinstance(answer, Trouble):
        session.show(local_document("Version", here | {"daemon": None}))
        return session.fail(answer)
    session.show(answer | here | {"daemon": answer.get("version")})
    return EXIT_DONE


def parse_condition(text: str) -> list[str | int | bool]:
    """``[key, value, at_least]`` of ``members=3``, ``inside>=1``, ``synced``. Raises UsageError."""
    found = _CONDITION.fullmatch(text.replace(" ", ""))
    key = found["key"] if found is not None else ""
    if found is not None and key in _COUNTED and found["relation"] is not None:
        return [key, int(found["value"]), found["relation"] == ">="]
    if found is not None and key in _FLAGS and found["relation"] is None:
        return [key, 1, True]
    key = re.split("[<>=]", text, maxsplit=1)[0].strip()
    if key in _COUNTED:
        meant = f"{key} takes a whole number, as in {key}=3 or {key}>=3."
    elif key in _FLAGS:
        meant = f"{key} takes no value."
    else:
        meant = did_you_mean(key, (*_COUNTED, *_FLAGS))
    raise UsageError(
        f"{text!r} is no condition to wait for",
        f"{meant} There are members=N, gates=N, inside=N, members>=N, synced and ready".lstrip(),
    )


def parse_dot(text: str) -> list[int]:
    """``[replica, seq]`` as the wire wants it, from ``REPLICA:SEQ`` or JSON. Raises UsageError."""
    found = _DOT.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{text!r} is not a dot", "16 hexadecimal digits, a colon and a number; see vehicles"
        )
    return [int(found["replica"], 16), int(found["seq"])]


def parse_fence(text: str) -> list[int | str]:
    """``[epoch, score, owner]`` as the wire wants it, from the JSON of a decision's ``fence`` or
    ``EPOCH:SCORE:OWNER``. Raises UsageError."""
    found = _FENCE.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{text!r} is not a fence", "as `enter --json` shows it: [epoch, score, owner]"
        )
    return [int(found["epoch"]), int(found["score"], 16), found["owner"]]


_RUNNERS: Final[Mapping[str, Callable[[Session], int]]] = {
    "track": _recorder("track"),
    "enter": _enter,
    "exit": _exit,
    "lot": _reader("lot"),
    "vehicles": _reader("vehicles"),
    "where": _where,
    "conflicts": _conflicts,
    "unmatched": _reader("unmatched"),
    "gates": _reader("gates"),
    "members": _members,
    "status": _reader("status"),
    "digest": _reader("digest"),
    "discover": _reader("discover"),
    "set": _set,
    "settings": _reader("settings"),
    "gate": _gate,
    "correct": _correct,
    "remove": _remove,
    "wait": _wait,
    "import": _import,
    "export": _export,
    "backup": _backup,
    "top": _top,
    "watch": _watch,
    "log": _log,
    "leave": _leave,
    "completion": _completion,
    "version": _version,
}
