"""Which daemon a command is meant for.

In this order: ``--control``, ``--name``, ``PARKINGD_CONTROL``, ``PARKINGD_NAME``, the only daemon
that runs. Who runs is read from the locks beside the control sockets, in the directory that was
named or in all places where daemons of this user and the system's put theirs.

Source: the command contract, section "parkingd-ctl".
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from parkingd.adapters.client import CODE_NO_DAEMON, CODE_NOT_PERMITTED, Trouble
from parkingd.adapters.rundir import (
    Daemon,
    check_name,
    find_daemons,
    hidden_directory,
    hidden_lock,
    search_dirs,
)
from parkingd.errors import UsageError


def find_socket(args: Namespace, environ: Mapping[str, str]) -> Path | Trouble:
    """The control socket to speak to, or why there is none. Raises UsageError and ConfigError."""
    if args.control:
        return _control_path(args.control)
    if not args.name and environ.get("PARKINGD_CONTROL"):
        return _control_path(environ["PARKINGD_CONTROL"])
    name = args.name or environ.get("PARKINGD_NAME") or None
    cluster = args.cluster or environ.get("PARKINGD_CLUSTER") or None
    directories = places(args, environ)
    for what, text in (("node", name), ("cluster", cluster)):
        if text is not None:
            check_name(what, text)
    running = find_daemons(directories, cluster)
    meant = [daemon for daemon in running if name is None or daemon.name == name]
    if len(meant) == 1:
        return meant[0].socket
    if meant:
        listed = "\n".join(f"  {daemon.name}  in cluster {daemon.cluster}" for daemon in meant)
        what = "daemons run here" if name is None else f"daemons named {name} run here"
        raise UsageError(f"{len(meant)} {what}:\n{listed}", _way_to_choose(meant))
    hidden = hidden_lock(directories, cluster, name)
    if hidden is None and not running:
        hidden = hidden_directory(directories)
    who = f"no daemon named {name}" if name else "no daemon"
    if hidden is not None:
        return Trouble(
            CODE_NOT_PERMITTED,
            f"{who} of this user runs here, and {hidden} may not be looked into",
            "run this as the daemon's user",
        )
    return _nobody(who, name, cluster, running, directories)


def places(args: Namespace, environ: Mapping[str, str]) -> list[Path]:
    """Where to look for daemons."""
    given = args.runtime_dir or environ.get("PARKINGD_RUNTIME_DIR")
    return [Path(given).absolute()] if given else search_dirs(environ)


def _control_path(endpoint: str) -> Path:
    if not endpoint.startswith("ipc://") or len(endpoint) == len("ipc://"):
        raise UsageError(
            f"{endpoint!r} is not the address of a control socket", "it looks like ipc:///run/..."
        )
    return Path(endpoint.removeprefix("ipc://")).absolute()


def _way_to_choose(meant: list[Daemon]) -> str:
    if len({daemon.name for daemon in meant}) == len(meant):
        return "choose one with --name"
    if len({daemon.cluster for daemon in meant}) == len(meant):
        return "choose one with --cluster"
    return "choose one with --name, --cluster and --runtime-dir"


def _nobody(
    who: str,
    name: str | None,
    cluster: str | None,
    running: list[Daemon],
    directories: list[Path],
) -> Trouble:
    who += f" of cluster {cluster}" if cluster else ""
    if running:
        hint = "running here: " + ", ".join(daemon.name for daemon in running)
    else:
        start = (
            "start one: parkingd"
            + (f" --name {name}" if name else "")
            + (f" --cluster {cluster}" if cluster else "")
        )
        hint = f"{start} (looked in {', '.join(map(str, directories))})"
    return Trouble(CODE_NO_DAEMON, f"{who} is running here", hint)
