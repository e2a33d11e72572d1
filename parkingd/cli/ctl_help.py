"""The help of parkingd-ctl as a whole: its commands, its flags, its exit statuses."""

from __future__ import annotations

from typing import Final

from parkingd.cli.ctl_checks import PROGRAM
from parkingd.cli.ctl_flags import add_global_flags
from parkingd.cli.ctl_options import COMMANDS
from parkingd.cli.flag_parser import Entry, Example, FlagParser, HelpPage, Section, as_text

EXIT_STATUS: Final = (
    ("0", "done, admitted, true"),
    ("1", "denied, the answer is no, or the output could not be written"),
    ("2", "the command line makes no sense"),
    ("3", "no daemon is there"),
    ("4", "no answer in time"),
    ("5", "not found"),
    ("6", "refused by the daemon"),
    ("7", "not permitted"),
    ("70", "a bug in this command"),
    ("130", "interrupted"),
)

EXAMPLES: Final = (
    Example(f"{PROGRAM} track ABC123 1", "A car has come in at gate 1."),
    Example(f"{PROGRAM} enter ABC123 1", "May it come in?"),
    Example(f"{PROGRAM} --name gary lot --json", "How full is it? One JSON object, for a program."),
    Example(f"{PROGRAM} wait --for members=3 --for synced", "Until three nodes agree."),
)


def overview_page() -> HelpPage:
    """What `parkingd-ctl --help` says."""
    parser = FlagParser(
        PROGRAM,
        "COMMAND [flags]",
        "Ask a running parkingd daemon, and tell it what happens in the car park.",
        EXAMPLES,
        f"{PROGRAM} COMMAND --help says more about one command.",
    )
    add_global_flags(parser)
    page = parser.page()
    commands = tuple(
        Entry(f"{name} {described.arguments}".strip(), described.summary)
        for name, described in COMMANDS.items()
    )
    (flags,) = page.sections
    version = Entry("--version", "print the version of this command and leave")
    statuses = tuple(Entry(status, meaning) for status, meaning in EXIT_STATUS)
    return page._replace(
        sections=(
            Section("Commands", commands),
            Section(flags.title, (*flags.entries, version)),
            Section("Exit status", statuses),
        )
    )


def overview() -> str:
    """The same as text."""
    return as_text(overview_page())
