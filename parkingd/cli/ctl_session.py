"""One run of parkingd-ctl: its flags, its connection and its two output streams.

Invariants: answers go to standard output, everything else to standard error; with JSON asked for,
an error is one object there. Every code of a failure has one exit status.

Source: the command contract, sections "parkingd-ctl" and "JSON".
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from parkingd.adapters.client import (
    CODE_DAEMON_STOPPED,
    CODE_NO_DAEMON,
    CODE_NOT_PERMITTED,
    CODE_PROTOCOL_VERSION,
    CODE_TIMED_OUT,
    ControlClient,
    Trouble,
)
from parkingd.adapters.document_values import Document, envelope
from parkingd.cli.ctl_checks import PROGRAM
from parkingd.cli.ctl_target import find_socket
from parkingd.cli.flag_parser import did_you_mean
from parkingd.cli.render import as_json, as_jsonl, as_table, as_tsv, printable
from parkingd.errors import UsageError

EXIT_DONE: Final = 0
EXIT_NO: Final = 1
EXIT_USAGE: Final = 2
EXIT_NO_DAEMON: Final = 3
EXIT_TIMED_OUT: Final = 4
EXIT_NOT_FOUND: Final = 5
EXIT_REFUSED: Final = 6
EXIT_NOT_PERMITTED: Final = 7
EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130

_EXIT_OF_CODE: Final[Mapping[str, int]] = {
    "usage": EXIT_USAGE,
    "invalid_plate": EXIT_USAGE,
    CODE_NO_DAEMON: EXIT_NO_DAEMON,
    CODE_DAEMON_STOPPED: EXIT_NO_DAEMON,
    CODE_PROTOCOL_VERSION: EXIT_NO_DAEMON,
    CODE_TIMED_OUT: EXIT_TIMED_OUT,
    "unknown_gate": EXIT_NOT_FOUND,
    "not_inside": EXIT_NOT_FOUND,
    "unknown_exit": EXIT_NOT_FOUND,
    "unknown_member": EXIT_NOT_FOUND,
    CODE_NOT_PERMITTED: EXIT_NOT_PERMITTED,
}
"""Every other code is a refusal."""

STORAGE_FAILED: Final = "storage_failed"
_UNCERTAIN: Final = frozenset({CODE_TIMED_OUT, CODE_DAEMON_STOPPED, STORAGE_FAILED})
"""After these nobody here knows whether the request was recorded."""

_MAY_HAVE: Final[Mapping[str, str]] = {"enter": "the car may have been admitted"}
_MAY_HAVE_OTHERWISE: Final = "the request may have been recorded"
"""What an uncertain end leaves open, by command."""

_NEXT_STEPS: Final[Mapping[str, str]] = {
    CODE_TIMED_OUT: "give it longer with --timeout, or ask another node",
    CODE_DAEMON_STOPPED: "start it again, or ask another node",
    CODE_NO_DAEMON: "start it, or try again in a moment",
}
"""Where whoever found the trouble knew none."""

_WARNING_WORDS: Final[Mapping[str, str]] = {
    "missed_exit": "this car was inside already: its exit was missed (missed_exit)",
    "unmatched": "this car was not inside (unmatched)",
    "unknown_gate": "the lot has no such gate (unknown_gate)",
    "repeated": "this request had been recorded before: nothing new was recorded (repeated)",
    "left_after_this_entry": "a car of the new plate has left since (left_after_this_entry)",
}
"""For people; programs read the codes."""

TIMEOUT_S: Final = 5.0
TIMEOUT_S_MAX: Final = 86_400.0
_LONGER_TIMEOUTS_S: Final[Mapping[str, float]] = {"wait": 30.0, "leave": 15.0, "backup": 60.0}
"""A leaving node waits up to 8 s for others; a copy takes what the disk takes."""

_VERB: Final = re.compile(r"^[a-z_]+: ")
"""What the daemon calls the request it could not read; people know the command they typed."""

REQUEST_ID_DIGITS: Final = 32
_REQUEST_ID: Final = re.compile(rf"[0-9a-fA-F]{{{REQUEST_ID_DIGITS}}}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

OUTPUTS: Final = ("table", "json", "jsonl", "tsv")


class Session:
    """What the commands share. ``out`` and ``err`` are the standard streams."""

    def __init__(self, command: str, args: Namespace, environ: Mapping[str, str]) -> None:
        """Raises UsageError for values that make no sense."""
        self._command = command
        self.args = args
        self.out: TextIO = sys.stdout
        self.err: TextIO = sys.stderr
        self._environ = environ
        self._client: ControlClient | None = None
        self.timeout_s = _timeout_s(command, args, environ)
        self.output = _output(args, environ, self.out.isatty())
        self.socket: Path | None = None
        """Of the daemon that was connected to."""
        self.request_id: bytes | None = None
        """Of the change that is being asked for."""
        self.may_have = _MAY_HAVE.get(command, _MAY_HAVE_OTHERWISE)
        """What has perhaps happened when the answer to a change does not come."""

    def connect(self) -> ControlClient | Trouble:
        """The connection, made at the first call."""
        if self._client is None:
            socket = self.socket or find_socket(self.args, self._environ)
            if isinstance(socket, Trouble):
                return socket
            self.socket = socket
            client = ControlClient.connect(socket, self.timeout_s)
            if isinstance(client, Trouble):
                return client
            self._client = client
        return self._client

    def close(self) -> None:
        """End the connection, if there is one; the next `connect` makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, verb: str, args: dict[str, Any]) -> Document | Trouble:
        """The daemon's answer."""
        client = self.connect()
        return client if isinstance(client, Trouble) else client.call(verb, args)

    def change(self, verb: str, args: dict[str, Any]) -> Document | Trouble:
        """The same for what takes a request id: the given one, else a new one."""
        self.request_id = _request_id(self.args.request_id)
        return self.ask(verb, args | {"request": self.request_id})

    def show(self, document: Document) -> None:
        """The answer, in the form that was asked for; its warnings too."""
        match self.output:
            case "json":
                self.write([as_json(document)])
            case "jsonl":
                self.write(as_jsonl(document))
            case "tsv":
                self.write(as_tsv(document))
            case _:
                self.write(as_table(document, self.wants_colour))
        if self.output in ("table", "tsv"):
            self.warn(document.get("warnings", ()))

    def write(self, lines: Iterable[str]) -> None:
        """To standard output."""
        self.out.writelines(f"{line}\n" for line in lines)

    def is_read(self) -> bool:
        """False when whoever read standard output has gone: a pipe that is closed, a terminal."""
        try:
            number = self.out.fileno()
        except OSError:
            return True  # It is no file.
        poll = select.poll()
        poll.register(number, 0)
        return not any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))

    @property
    def wants_colour(self) -> bool:
        """As asked for; else on a terminal that has colours."""
        if self.args.color != "auto":
            return bool(self.args.color == "always")
        if self._environ.get("NO_COLOR"):
            return False
        if self._environ.get("FORCE_COLOR"):
            return True
        return self.out.isatty() and self._environ.get("TERM") != "dumb"

    def warn(self, warnings: Iterable[str]) -> None:
        """To standard error."""
        for warning in warnings:
            text = _WARNING_WORDS.get(warning, warning)
            print(f"{PROGRAM}: warning: {printable(text)}", file=self.err)

    def note(self, code: str, text: str, hint: str = "") -> None:
        """To standard error what is worth knowing and no failure; one object with JSON."""
        if self.wants_json:
            body = {"code": code, "reason": text, "hint": hint}
            print(as_json(local_document("Note", body)), file=self.err, flush=True)
            return
        more = f"; {hint}" if hint else ""
        print(f"{PROGRAM}: {printable(text + more)}", file=self.err, flush=True)

    @property
    def wants_json(self) -> bool:
        """One object, or one a line."""
        return self.output in ("json", "jsonl")

    def advise(self, hint: str, repeat: bool) -> None:
        """To standard error what to do about this answer; programs read it in the answer.

        ``repeat``: the same request may have another answer soon. Then this command says how, as
        only it knows what is typed for that, and the daemon's own hint is left out.
        """
        if repeat:
            hint = f"{self.may_have}; {self._how_to_repeat()}"
        if hint and self.output in ("table", "tsv"):
            print(f"  {printable(hint)}", file=self.err)

    def fail(self, trouble: Trouble) -> int:
        """Say what happened and what to do; the exit status."""
        reason, hint = trouble.reason, trouble.hint
        if trouble.code in _UNCERTAIN and self.request_id is not None:
            if trouble.code != STORAGE_FAILED:  # Then the daemon has said how it stands.
                reason += f"; {self.may_have}"
            hint = self._how_to_repeat()
        if trouble.code == "usage":
            reason = _VERB.sub("", reason)
            hint = hint or f"see {PROGRAM} {self._command} --help"
        shown = trouble._replace(reason=reason, hint=hint or _NEXT_STEPS.get(trouble.code, ""))
        report(self.err, self.wants_json, shown)
        return exit_status(trouble.code)

    def _how_to_repeat(self) -> str:
        assert self.request_id is not None
        return (
            f"repeat it with --request-id {self.request_id.hex()}, here or on another node:"
            " it has one effect, however often it is asked for"
        )


def local_document(kind: str, body: Document, node: str | None = None) -> Document:
    """A document that this command made itself."""
    return envelope(kind, node, int(time.time() * 1_000), body)


def exit_status(code: str) -> int:
    """What a script gets to see for this code."""
    return _EXIT_OF_CODE.get(code, EXIT_REFUSED)


def report(err: TextIO, as_object: bool, trouble: Trouble) -> None:
    """An error for people, or one JSON object, on standard error."""
    if as_object:
        body = {"code": trouble.code, "reason": trouble.reason, "hint": trouble.hint}
        print(as_json(local_document("Error", body, trouble.node)), file=err)
        return
    lines = [printable(line) for line in trouble.reason.splitlines()]
    print(f"{PROGRAM}: " + "\n".join(lines), file=err)
    if trouble.hint:
        print(f"  {printable(trouble.hint)}", file=err)


def _request_id(given: str | None) -> bytes:
    if given is None:
        return os.urandom(REQUEST_ID_DIGITS // 2)
    digits = given.replace("-", "") if _UUID.fullmatch(given) else given
    if not _REQUEST_ID.fullmatch(digits):
        raise UsageError(
            f"{given!r} is not a request id",
            f"it has {REQUEST_ID_DIGITS} hexadecimal digits, or is a UUID, as uuidgen makes them",
        )
    return bytes.fromhex(digits)


def _timeout_s(command: str, args: Namespace, environ: Mapping[str, str]) -> float:
    timeout_s: float | None = args.timeout
    if timeout_s is None and environ.get("PARKINGD_TIMEOUT"):
        try:
            timeout_s = float(environ["PARKINGD_TIMEOUT"])
        except ValueError as error:
            raise UsageError(
                "PARKINGD_TIMEOUT is not a number of seconds", "make it one, such as 5, or unset it"
            ) from error
    if timeout_s is None:
        return _LONGER_TIMEOUTS_S.get(command, TIMEOUT_S)
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise UsageError(
            f"{timeout_s:.15g} is not a time-out",
            f"more than 0 and at most {TIMEOUT_S_MAX:g} seconds",
        )
    return timeout_s


def _output(args: Namespace, environ: Mapping[str, str], terminal: bool) -> str:
    chosen: str | None = args.output or environ.get("PARKINGD_OUTPUT") or None
    if chosen is None:
        return "table" if terminal else "tsv"
    if chosen not in OUTPUTS:
        raise UsageError(
            f"PARKINGD_OUTPUT is not one of {', '.join(OUTPUTS)}",
            did_you_mean(chosen, OUTPUTS) or "make it one of them, or unset it",
        )
    return chosen
