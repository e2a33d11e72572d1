"""The two pages of the reference that follow the parsers and the options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from parkingd.cli.ctl_flags import GLOBAL_FLAGS
from parkingd.cli.ctl_help import overview_page
from parkingd.cli.ctl_options import COMMANDS, parser_of
from parkingd.cli.flag_parser import Entry, HelpPage
from parkingd.cli.parkingd import help_page
from parkingd.config.options import FILE_FLAG, FILE_VARIABLE, OPTIONS

WIDTH = 100

_OWN = ("Arguments", "Flags")


def commands() -> str:
    """Every command of parkingd-ctl, and what all share."""
    page = overview_page()
    lines: list[str] = []
    for name in COMMANDS:
        lines += _command(parser_of(name).page())
    for section in page.sections[1:]:
        lines += ["", f"## {section.title}", "", *_table(section.entries)]
    return "\n".join(lines).lstrip("\n")


def _command(page: HelpPage) -> Iterator[str]:
    yield ""
    yield f"## `{page.usage.removeprefix('parkingd-ctl ').replace(' [flags]', '')}`"
    yield ""
    yield page.summary
    yield ""
    yield "```sh"
    yield from (example.command for example in page.examples)
    yield "```"
    for section in page.sections:
        if section.title == GLOBAL_FLAGS:
            continue
        if section.title not in _OWN:
            yield ""
            yield f"{section.title[0].upper()}{section.title[1:]}: {section.text}".rstrip()
        yield ""
        yield from _table(section.entries)
    if page.notes:
        yield ""
        yield "It takes a [request id](howto-scripts.md#repeating-a-request)."


def _table(entries: Iterable[Entry]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for entry in entries:
        yield f"| `{_cell(entry.flags)}` | {_cell(entry.text)} |"


def configuration() -> str:
    """Every setting of `parkingd`: where it can be said, and what holds when nobody says it."""
    shown = {
        entry.flags.split()[0] for section in help_page().sections for entry in section.entries
    }
    lines: list[str] = []
    group = ""
    for option in OPTIONS:
        if option.flag not in shown:
            continue
        if option.group != group:
            group = option.group
            lines += ["", f"### {group}"]
        flag = f"{option.flag} {option.metavar}".strip()
        lines += ["", f"**`{option.key}`** · `{flag}` · `{option.environment}`"]
        said = f"{option.help} Default: {option.default}."
        lines += ["", *textwrap.wrap(_markdown(said), WIDTH, break_on_hyphens=False)]
    lines += ["", "### The file itself", "", f"`{FILE_FLAG} FILE` · `{FILE_VARIABLE}`"]
    return "\n".join(lines).lstrip("\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown(text: str) -> str:
    """Names of folders and records as code, so that Markdown reads nothing into them."""
    return re.sub(r"(\S*[$_<>~]\S*?)([,.]?)(?= |$)", r"`\1`\2", text)
