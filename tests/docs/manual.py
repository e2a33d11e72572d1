"""The manual pages, from the parsers' own help: man(7), as groff and mandoc read it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from parkingd import __version__
from parkingd.cli.ctl_flags import GLOBAL_FLAGS
from parkingd.cli.ctl_help import overview_page
from parkingd.cli.ctl_options import COMMANDS, REPEATING, parser_of
from parkingd.cli.flag_parser import Example, HelpPage, Section
from parkingd.cli.parkingd import help_page

ROOT = Path(__file__).parents[2]
EXIT_STATUS = "Exit status"
COMMANDS_TITLE = "Commands"

CTL_VARIABLES = (
    ("PARKINGD_NAME, PARKINGD_CLUSTER, PARKINGD_RUNTIME_DIR", "as the flags of these names"),
    ("PARKINGD_CONTROL, PARKINGD_TIMEOUT, PARKINGD_OUTPUT", "as --control, --timeout, --output"),
    ("NO_COLOR, FORCE_COLOR", "never or always colour what a terminal gets"),
)
FILES = (
    ("~/.parkingd.cookie", "the secret that all nodes of a cluster share"),
    ("$XDG_STATE_HOME/parkingd/CLUSTER/NAME/", "the database of a node"),
    ("$XDG_RUNTIME_DIR/parkingd/CLUSTER/NAME.ctl", "the control socket of a node"),
)


def parkingd_1() -> str:
    """docs/man/parkingd.1"""
    page = help_page()
    return _page(
        page,
        [
            *_section("Description", _paragraphs(page.notes)),
            *_flags(page),
            *_section("Files", _listed(FILES)),
            *_section("See also", [".BR parkingd\\-ctl (1)"]),
        ],
    )


def parkingd_ctl_1() -> str:
    """docs/man/parkingd-ctl.1"""
    page = overview_page()
    return _page(
        page,
        [
            *_section("Description", _paragraphs(_SUMMARY)),
            *_section(COMMANDS_TITLE, _commands()),
            *_section("Repeating a request", _paragraphs(REPEATING)),
            *_flags(page),
            *_section("Environment", _listed(CTL_VARIABLES)),
            *_section("See also", [".BR parkingd (1)"]),
        ],
    )


_SUMMARY = """\
Every command asks the daemon that runs on this machine; where several run, --name says which.
People get tables, programs JSON (--json) or tab-separated lines (-o tsv). Answers go to standard
output, everything else to standard error.
"""


def _commands() -> Iterator[str]:
    """Each command with what is its own; the flags of all have a section of their own."""
    for name in COMMANDS:
        page = parser_of(name).page()
        yield f".SS {_text(page.usage.removeprefix('parkingd-ctl ').replace(' [flags]', ''))}"
        yield from _lines(page.summary)
        yield ".PP"
        yield from _examples(page.examples)
        for section in page.sections:
            if section.title != GLOBAL_FLAGS:
                if section.text:
                    yield ".PP"
                    yield from _lines(f"{section.title}: {section.text}")
                yield from _listed(section.entries)


def _page(page: HelpPage, sections: Iterable[str]) -> str:
    title = page.program.upper()
    lines = [
        '.\\" Made by: python -m tests.docs',
        f'.TH {_text(title)} 1 "{_released()}" "parkingd {__version__}" "parkingd"',
        ".nh",
        ".ad l",
        ".SH NAME",
        *_lines(f"{page.program} - {page.summary[0].lower()}{page.summary[1:].rstrip('.')}"),
        *_section("Synopsis", [f".B {_text(page.program)}", _text(page.usage.split(" ", 1)[1])]),
        *_section("Examples", _examples(page.examples)),
        *sections,
    ]
    return "\n".join(lines) + "\n"


def _released() -> str:
    """The day of this version, from the changelog."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## \[{re.escape(__version__)}\] - ([\d-]+)$", changelog, re.MULTILINE)
    assert found is not None
    return found[1]


def _flags(page: HelpPage) -> Iterator[str]:
    """Every section but that of the commands; the exit status comes last in each page."""
    for section in page.sections:
        if section.title != COMMANDS_TITLE:
            yield from _section(section.title, _listed(section.entries))


def _section(title: str, body: Iterable[str]) -> Iterator[str]:
    yield f".SH {_text(title.upper())}"
    yield from body


def _paragraphs(text: str) -> Iterator[str]:
    yield from _lines(text)


def _listed(entries: Section | Iterable[tuple[str, str]]) -> Iterator[str]:
    for flags, text in entries:
        yield ".TP"
        yield f".B {_text(flags)}"
        yield from _lines(text)


def _examples(examples: Iterable[Example]) -> Iterator[str]:
    for place, example in enumerate(examples):
        if example.text:
            if place:
                yield ".PP"
            yield from _lines(example.text)
        yield ".nf"
        yield f"    {_text(example.command)}"
        yield ".fi"


def _lines(text: str) -> Iterator[str]:
    """Prose; none of its lines begins with what would be a request."""
    for line in textwrap.wrap(_text(text), 80, break_on_hyphens=False, break_long_words=False):
        yield f"\\&{line}" if line.startswith(".") else line


def _text(text: str) -> str:
    """Nothing in it is a request or an escape; a hyphen can be copied and pasted as one."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return escaped.replace("~", "\\(ti").replace("^", "\\(ha").replace("'", "\\(aq")
