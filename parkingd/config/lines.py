"""Where a key stands in a TOML file: tomllib tells that of bad syntax only, not of a wrong value.

One pass over the tokens of a file that tomllib has accepted. A statement begins at a line's start
outside of every bracket and text of several lines; its first word is a key of the root as long as
no table has begun, and a table's header names a key of the root by its first word. So a key of the
same name in another table, in a text or in a comment is not taken for it.

Source: TOML 1.0.0, sections "Keys", "String" and "Table".
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

_TOKEN: Final = re.compile(
    r'''
    (?P<long>  """(?:[^\\]|\\.)*?"""(?:"{0,2}) | \'\'\'.*?\'\'\'(?:\'{0,2}) )
  | (?P<text>  "(?:[^"\\\n]|\\.)*" | '[^'\n]*' )
  | (?P<word>  [A-Za-z0-9_-]+ )
  | (?P<comment> \#[^\n]* )
  | (?P<open>  [\[{] )
  | (?P<close> [\]}] )
  | (?P<end>   \n )
    ''',
    re.VERBOSE | re.DOTALL,
)
"""A text of several lines may end in two quotes of its own."""


def key_lines(text: str) -> dict[str, int]:
    """The line, counted from 1, in which each key of the root first stands."""
    lines: dict[str, int] = {}
    number, depth, counted = 1, 0, 0
    is_first, is_header, is_root = True, False, True
    for token in _TOKEN.finditer(text):
        number += text.count("\n", counted, token.start())
        counted = token.start()
        kind = token.lastgroup
        if kind in ("text", "word") and is_first:
            if is_root or is_header:
                lines.setdefault(_key(token[0]), number)
            is_first = is_header = False
        elif kind == "open":
            if is_first:
                is_header, is_root = True, False
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "end" and depth == 0:
            is_first = True
    return lines


def _key(token: str) -> str:
    """Of a key as it is written."""
    if token[0] == '"':
        written: str = tomllib.loads(f"key = {token}")["key"]
        return written
    return token.strip("'") if token[0] == "'" else token
