"""The command lines of both commands: argparse, with words for people.

argparse takes the flags apart. What it says of a mistake is said anew here: what was wrong, what
was perhaps meant, and an example that works. Its help is written anew too: the examples first,
then the usage, then every flag. The same `HelpPage` becomes the text on the terminal, the manual
and the reference, so that they cannot differ.

Invariants: every misuse is a UsageError with a hint; no flag can be shortened.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, NoReturn

from parkingd.errors import UsageError

WIDTH: Final = 80
"""Of a terminal that nobody has made wider."""

TEXT_COLUMN_MAX: Final = 28
"""Where the text beside a flag begins at most; a longer flag has a line of its own."""

PREFIX_LETTERS: Final = 3
"""So many letters may be the beginning of what was meant."""

LIKENESS: Final = 0.75
"""Of two spellings, from 0 to 1: two letters swapped in a word of four. At 0.6 --force is like
--port."""

_MISSING: Final = "the following arguments are required: "
_NUMBERS: Final = {int: "a whole number", float: "a number"}


class Example(NamedTuple):
    """One line that can be typed as it stands."""

    command: str
    text: str = ""
    """What it does; empty where that is plain."""


class Entry(NamedTuple):
    """One flag or argument."""

    flags: str
    text: str


class Section(NamedTuple):
    """Flags that belong together."""

    title: str
    entries: tuple[Entry, ...]
    text: str = ""
    """What holds for all of them; mostly empty."""


class HelpPage(NamedTuple):
    """What there is to know about one command."""

    program: str
    summary: str
    examples: tuple[Example, ...]
    usage: str
    notes: str
    """Paragraphs between the usage and the flags; mostly none."""
    sections: tuple[Section, ...]


class FlagParser(argparse.ArgumentParser):
    """An argparse parser that raises, suggests, and shows examples first."""

    def __init__(
        self, program: str, arguments: str, summary: str, examples: Iterable[Example], notes: str
    ) -> None:
        super().__init__(
            prog=program, usage=f"{program} {arguments}", allow_abbrev=False, add_help=False
        )
        self._summary = summary
        self._examples = tuple(examples)
        self._notes = notes

    def error(self, message: str) -> NoReturn:
        """What argparse found wrong, in other words where its own are for programmers."""
        if message.startswith(_MISSING):
            what = f"{message.removeprefix(_MISSING)} is missing"
        else:
            name, _, reason = message.removeprefix("argument ").partition(": ")
            name = name.replace("/", ", ")
            if reason.startswith("expected "):
                raise UsageError(f"{name} needs a value", f"see {self.prog} --help")
            if reason.startswith("ignored explicit argument"):
                raise UsageError(f"{name} takes no value", "leave the value out")
            what = f"{name}: {reason}" if reason else name
        raise UsageError(what, self._way_out())

    def misspelt(self, unknown: str) -> NoReturn:
        """A word that is left over."""
        if not unknown.startswith("-"):
            raise UsageError(f"{unknown!r} is not expected here", self._way_out())
        flag = unknown.partition("=")[0]
        known = [name for action in self._actions for name in action.option_strings]
        raise UsageError(
            f"unknown flag {flag}", did_you_mean(flag, known) or f"see {self.prog} --help"
        )

    def format_help(self) -> str:
        """The page as text."""
        return as_text(self.page())

    def page(self) -> HelpPage:
        """Everything that the help says."""
        sections = []
        for group in self._action_groups:
            entries = tuple(
                Entry(_invocation(action), action.help or "")
                for action in group._group_actions
                if action.help is not argparse.SUPPRESS
            )
            if entries:
                title = _TITLES.get(group.title or "", group.title or "")
                sections.append(Section(title, entries, group.description or ""))
        usage = self.usage or self.prog
        return HelpPage(
            self.prog, self._summary, self._examples, usage, self._notes, tuple(sections)
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        raise UsageError(
            f"{_name(action)} is {_listed(known)}, not {value!r}",
            did_you_mean(str(value), known) or self._way_out(),
        )

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            wanted = _NUMBERS.get(action.type) if isinstance(action.type, type) else None
            if wanted is None:
                raise
            raise UsageError(
                f"{_name(action)} is {wanted}, not {arg_string!r}", self._way_out()
            ) from error

    def _way_out(self) -> str:
        see = f"see {self.prog} --help"
        return f"such as: {self._examples[0].command}; {see}" if self._examples else see


_TITLES: Final = {"positional arguments": "Arguments", "options": "Flags"}
"""argparse's own titles, and ours for them."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint when something known has the same letters, goes on from here, or is spelt much like
    this; else empty. The dashes of flags make none alike."""
    import difflib  # only for mistakes: it takes longer to load than most answers take to come

    typed = word.lstrip("-")
    names = {name.lstrip("-"): name for name in known}
    close = [name for name in names if sorted(name) == sorted(typed)]
    if len(typed) >= PREFIX_LETTERS:
        close += sorted((name for name in names if name.startswith(typed)), key=len)
    close += difflib.get_close_matches(typed, names, n=1, cutoff=LIKENESS)
    return f"did you mean {names[close[0]]}?" if close else ""


def as_text(page: HelpPage) -> str:
    """For a terminal."""
    import textwrap  # only for people who read

    lines = [page.summary, "", "Examples:"]
    for example in page.examples:
        lines.append(f"  {example.command}")
        if example.text:
            lines.append(f"      {example.text}")
    lines += ["", *textwrap.wrap(f"Usage: {page.usage}", WIDTH, subsequent_indent="         ")]
    if page.notes:
        lines += ["", page.notes.rstrip("\n")]
    for section in page.sections:
        lines += ["", f"{section.title[0].upper()}{section.title[1:]}:"]
        lines += textwrap.wrap(section.text, WIDTH, initial_indent="  ", subsequent_indent="  ")
        widths = (len(entry.flags) + 4 for entry in section.entries)
        column = max((width for width in widths if width <= TEXT_COLUMN_MAX), default=6)
        for entry in section.entries:
            flags = f"  {entry.flags}"
            beside = len(flags) <= column - 2
            text = textwrap.wrap(
                entry.text, WIDTH - column, break_on_hyphens=False, break_long_words=False
            )
            lines.append(f"{flags:<{column}}{text.pop(0)}" if beside and text else flags)
            lines += [" " * column + line for line in text]
    return "\n".join(lines) + "\n"


def _invocation(action: argparse.Action) -> str:
    """``-o, --output FORMAT``, or the name of an argument."""
    if not action.option_strings:
        return _name(action)
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    return ", ".join(action.option_strings) + value


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else _metavar(action)


def _metavar(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]
