"""What of a shell's line or script is a command of ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_BEYOND = re.compile(r"\s(?:\d?>>?|<|\|)(?:\s|&|/dev/null)")
"""From here on it is the shell's: a redirection or a pipe."""

_VARIABLE = re.compile(r"\$\{?\w+\}?|\$[*@?]")


def typed(line: str) -> list[str]:
    """The words that the program gets."""
    return shlex.split(_BEYOND.split(line, maxsplit=1)[0])


def calls(script: str, program: str) -> Iterator[list[str]]:
    """Every call of the program in a script for bash; 1 stands for each variable."""
    joined = re.sub(r"\\\n\s*", "", script)
    for line in joined.splitlines():
        if line.lstrip().startswith("#"):
            continue
        plain = re.sub(r"(?<=\s)(?:\d?>>?\s*(?:&\d|\S+)|<\s*/\S+)", "", _VARIABLE.sub("1", line))
        lexer = shlex.shlex(plain.replace("$(", "("), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        found: list[str] | None = None
        for word in lexer:
            if word == program:
                found = []
            elif found is not None and re.fullmatch(r"[();<>|&]+", word):
                yield found
                found = None
            elif found is not None:
                found.append(word)
        if found is not None:
            yield found
