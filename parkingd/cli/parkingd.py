"""The command `parkingd`: reads its flags, checks the configuration, runs the daemon.

How it works. argparse only takes the flags apart, all from `config.options`; what they mean is
decided in one place with the file and the environment. Whatever the operator can put right ends
in one line on standard error, what is wrong and what to do, and exit status 2. Anything else is a
bug: exit status 70, one line, and the traceback in a file that can be sent with the report.

Source: DESIGN section 11 and the contract of the command.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import logging
import os
import platform
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from parkingd import __version__
from parkingd.adapters.ops.extra import require_extra
from parkingd.cli.flag_parser import Entry, Example, FlagParser, HelpPage, Section, as_text
from parkingd.cli.logs import configure_logging
from parkingd.cli.streams import replace_closed_streams
from parkingd.config import Config, load_config
from parkingd.config.options import (
    DEFAULT,
    FILE_FLAG,
    FILE_VARIABLE,
    OPTIONS,
)
from parkingd.errors import ConfigError, LocalError, UsageError
from parkingd.protocol.messages import WIRE_VERSION, Address

EXIT_DONE: Final = 0
EXIT_USAGE: Final = 2
EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130

CRASH_FILE: Final = "crash-report.txt"

SUMMARY: Final = "Run one node of a car park that no single machine can take down."
EXAMPLES: Final = (
    Example(
        "parkingd --name gary",
        "Start a node. Others on this machine and network are found by themselves.",
    ),
    Example(
        "parkingd --name north --cluster airport --spaces 400 --gates 6",
        "Found a car park, or join it if it is there.",
    ),
    Example(
        "parkingd --name south --no-mdns --peer 10.0.0.2:7744 --peer 10.0.0.3:7744",
        "Join by address, where multicast does not reach.",
    ),
)
NOTES: Final = """\
It stays in the foreground; Ctrl-C hands over and stops it. Ask it with
parkingd-ctl. What a flag says can also be said by an environment variable or in
a TOML file (try --print-config). A flag wins over a variable, a variable over
the file.
"""
EXIT_STATUS: Final = (
    ("0", "The node has handed over and left."),
    ("2", "It cannot start like this; one line says why and what to do."),
    ("70", "A bug."),
    ("130", "Interrupted before it had started."),
)

_REST: Final = (
    ("--check-config", "Check the configuration, start nothing and leave."),
    (
        "--print-config",
        "Print the configuration as TOML, with the origin of each value, and leave.",
    ),
    ("--version", "Print the versions of parkingd and of what it runs on, and leave."),
    ("--help", "Print this help and leave."),
)

_BY_DEBUG: Final = ", with what PARKINGD_LOG_LEVEL=debug shows"

_log = logging.getLogger("parkingd")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. ``arguments``: without the program's name."""
    config: Config | None = None
    replace_closed_streams()
    try:
        given = _parse(sys.argv[1:] if arguments is None else arguments)
        if given.help:
            return _print(as_text(help_page()))
        if given.version:
            return _print(_version_text())
        config = load_config(_flags(given), os.environ, config_file=given.config)
        if given.print_config:
            return _print(config_as_toml(config))
        if given.check_config:
            return _check(config)
        return _run(config)
    except LocalError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost frame: a bug ends here, in one line
        return _report_bug(error, config)


def _run(config: Config) -> int:
    configure_logging(config.log_level, config.log_format, sys.stderr)
    for warning in config.warnings:
        _log.warning("configuration_warning", extra={"values": {"warning": warning}})
    from parkingd.cli.banner import print_banner, print_found
    from parkingd.daemon import run_daemon  # after the checks: it loads sockets and database

    return run_daemon(config, print_banner, print_found)


def _check(config: Config) -> int:
    if config.ops is not None:
        require_extra()
    for warning in (*config.warnings, *_cookie_warnings(config)):
        print(f"parkingd: warning: {warning}", file=sys.stderr)
    return _print("configuration is valid\n")


def _cookie_warnings(config: Config) -> tuple[str, ...]:
    """Read the cookie as the daemon will, but make none. ConfigError if that will not do."""
    from parkingd.adapters.keys import DEFAULT_FILE, NAME_A_COOKIE, load_cookie

    if config.cookie is None and config.cookie_file is None and config.home is not None:
        path = config.home / DEFAULT_FILE
        if not path.exists():
            if not os.access(config.home, os.W_OK | os.X_OK):
                raise ConfigError(f"cannot make the cookie {path}", NAME_A_COOKIE)
            return ()
    return load_cookie(text=config.cookie, file=config.cookie_file, home=config.home).warnings


def daemon_parser() -> FlagParser:
    """What `parkingd` understands; what the values mean is decided in `config`."""
    parser = FlagParser("parkingd", "[flags]", SUMMARY, EXAMPLES, NOTES)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in OPTIONS:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        said = f"{option.help} Default: {option.default}. Variable: {option.environment}."
        given: dict[str, Any] = {"metavar": option.metavar}
        if option.key == "peers":
            given["action"] = "append"
        elif not option.metavar:
            meant = not option.flag.startswith("--no-")
            given = {"action": "store_const", "const": meant}
        groups[option.group].add_argument(option.flag, dest=option.key, help=said, **given)
    other = parser.add_argument_group("Other")
    other.add_argument(
        FILE_FLAG,
        metavar="FILE",
        help=f"TOML file to read. Default: none. Variable: {FILE_VARIABLE}.",
    )
    for flag, text in _REST:
        names = ("-h", flag) if flag == "--help" else (flag,)
        other.add_argument(*names, action="store_true", help=text)
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = daemon_parser()
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.misspelt(unknown[0])
    return given


def _flags(given: argparse.Namespace) -> dict[str, str | bool | list[str]]:
    """What was given, without what was not."""
    values: Mapping[str, str | bool | list[str] | None] = vars(given)
    flags: dict[str, str | bool | list[str]] = {}
    for option in OPTIONS:
        value = values[option.key]
        if value is not None:
            flags[option.key] = value
    return flags


def help_page() -> HelpPage:
    """What `parkingd --help` says."""
    page = daemon_parser().page()
    statuses = tuple(Entry(status, meaning) for status, meaning in EXIT_STATUS)
    return page._replace(sections=(*page.sections, Section("Exit status", statuses)))


def _version_text() -> str:
    """One line per part, name first, so that scripts can read it."""
    from importlib import metadata  # Only here: it takes 15 ms to load.

    libzmq = importlib.import_module("zmq").zmq_version()
    rows = [
        ("parkingd", __version__),
        ("wire", str(WIRE_VERSION)),
        ("Python", platform.python_version()),
        ("pyzmq", metadata.version("pyzmq")),
        ("libzmq", libzmq),
        ("msgpack", metadata.version("msgpack")),
        ("zeroconf", metadata.version("zeroconf")),
        ("dnspython", metadata.version("dnspython")),
    ]
    return "".join(f"{name} {version}\n" for name, version in rows)


def config_as_toml(config: Config) -> str:
    """A file that `load_config` would read to the same values, each with its origin.

    What nobody set and has no value of its own stands there as a comment, and so does the
    cookie, masked.
    """
    lines: list[str] = []
    for option in OPTIONS:
        origin = config.origins[option.key]
        value: object = getattr(config, option.key)
        if value is None:
            said = option.default if origin == DEFAULT else f"overruled; from {origin}"
            lines.append(f"# {option.key} is not set  # {said}")
        elif option.key == "cookie":
            lines.append(f'# cookie = "********"  # masked; from {origin}')
        else:
            lines.append(f"{option.key} = {_toml(value)}  # {_comment(origin)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case str() | Path() | Address():
            return _toml_text(str(value))
        case _:
            raise AssertionError(f"no setting is a {type(value).__name__}")


def _toml_text(text: str) -> str:
    """A basic string: quote, backslash and control characters escaped."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}"
        for char in text
    )
    return f'"{escaped}"'


def _comment(origin: str) -> str:
    return "default" if origin == DEFAULT else "from " + _toml_text(origin)[1:-1]


def _print(text: str) -> int:
    """Write to standard output, whoever reads it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered would be tried again, and complained about, at exit.
        with open(os.devnull, "wb") as nowhere, contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            raise UsageError(
                f"cannot write to standard output: {error.strerror}", "send it elsewhere"
            ) from error
    return EXIT_DONE


def _complain(error: LocalError) -> int:
    what = " ".join(str(error).split())
    hint = " ".join(error.hint.split())
    print(f"parkingd: {what}; {hint}" if hint else f"parkingd: {what}", file=sys.stderr)
    return EXIT_USAGE


def _report_bug(error: Exception, config: Config | None) -> int:
    """One line; the traceback goes to a file, because what it shows may be private."""
    trace = "".join(traceback.format_exception(error))
    level = config.log_level if config is not None else os.environ.get("PARKINGD_LOG_LEVEL")
    if level == "debug":
        sys.stderr.write(trace)
    where = _keep(trace, config)
    advice = f"please report it with {where}" if where else f"please report it{_BY_DEBUG}"
    print(f"parkingd: this is a bug ({type(error).__name__}); {advice}", file=sys.stderr)
    return EXIT_BUG


def _keep(trace: str, config: Config | None) -> Path | None:
    """Write the report into the data directory; None if there is none or it cannot be written."""
    if config is None or config.data_dir is None:
        return None
    versions = f"parkingd {__version__}, wire {WIRE_VERSION}, Python {platform.python_version()}"
    path = config.data_dir / CRASH_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{versions}\n{trace}")
    except OSError:
        return None
    return path
