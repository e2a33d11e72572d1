"""parkingd-ctl: ask a running daemon, and tell it what happens in the car park.

`main` parses, runs one command and turns whatever happened into an exit status and words: ours
are in the error tree, the daemon's come as values, and anything else is a bug, reported in one
line with exit status 70 instead of a traceback.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from types import TracebackType

from parkingd import __version__
from parkingd.adapters.client import Trouble
from parkingd.cli.ctl_checks import PROGRAM
from parkingd.cli.ctl_commands import run
from parkingd.cli.ctl_parsing import parse
from parkingd.cli.ctl_session import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_NO,
    EXIT_USAGE,
    Session,
    report,
)
from parkingd.cli.journal_options import cut_program
from parkingd.cli.streams import replace_closed_streams
from parkingd.errors import LocalError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (default: this process's) and return the exit status."""
    if argv is None:
        argv = sys.argv[1:]
        _prepare_process()
    try:
        status = _run(argv)
        sys.stdout.flush()
    except LocalError as error:
        report(sys.stderr, _wants_json(argv), Trouble("usage", str(error), error.hint))
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read our output had enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        where = error.filename or "standard output"
        trouble = Trouble(
            "output", f"{where}: {error.strerror}", "make room there, or choose another"
        )
        report(sys.stderr, _wants_json(argv), trouble)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO
    return status


def _run(argv: Sequence[str]) -> int:
    command, args = parse(argv)
    if command == "--help":
        sys.stdout.write(args.text)
        return EXIT_DONE
    if command == "--version":
        print(f"{PROGRAM} {__version__}")
        return EXIT_DONE
    session = Session(command, args, os.environ)
    try:
        return run(command, session)
    except KeyboardInterrupt:
        session.fail(_interrupted(session))
        return EXIT_INTERRUPTED
    finally:
        session.close()


def _interrupted(session: Session) -> Trouble:
    if session.request_id is None:
        return Trouble("interrupted", "interrupted")
    return Trouble(
        "interrupted",
        f"interrupted; {session.may_have}",
        f"repeat it with --request-id {session.request_id.hex()}",
    )


def _wants_json(argv: Sequence[str]) -> bool:
    """Also for a command line that could not be parsed."""
    argv, _ = cut_program(argv)
    return any(
        word in ("--json", "-ojson", "-ojsonl", "--output=json", "--output=jsonl")
        or (word in ("json", "jsonl") and argv[place - 1] in ("-o", "--output"))
        for place, word in enumerate(argv)
    ) or os.environ.get("PARKINGD_OUTPUT") in ("json", "jsonl")


def _prepare_process() -> None:
    sys.excepthook = _report_bug
    replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report_bug(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        os._exit(EXIT_INTERRUPTED)
    place = "?"
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    trouble = Trouble(
        "bug",
        f"this is a bug: {kind.__name__} at {place}: {error}",
        f"please report it, with the command line and {PROGRAM} {__version__}",
    )
    report(sys.stderr, _wants_json(sys.argv[1:]), trouble)
    sys.stderr.flush()
    os._exit(EXIT_BUG)
