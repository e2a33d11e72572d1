"""Keys: the terminal without lines and echo, and names for the bytes that it sends.

`Decoder` is a pure state machine: bytes in, names of keys out. A letter is its own name; others
are in `_SEQUENCES` and `_CONTROLS`. An escape that nothing follows is the key itself, and whoever
reads says when to wait no longer (`flush`). Sequences that are not known are swallowed whole.

Ctrl-C, Ctrl-Z and Ctrl-\\ stay with the terminal driver, which makes signals of them.
"""

from __future__ import annotations

import codecs
import re
import termios
from collections.abc import Mapping
from typing import Final

ESCAPE_WAIT_S: Final = 0.1
"""What follows an escape within this time belongs to it. Slow lines deliver a sequence in one
piece, as it was sent in one."""

SEQUENCE_BYTES_MAX: Final = 32
"""No key sends more; what is longer is no sequence."""

_SEQUENCE: Final = re.compile(
    rb"\x1b(?:\[\[[A-E]|\[(?P<csi>[0-?]*[ -/]*[@-~])|O(?P<ss3>[0-9;]*[@-~]))"
)
_UNFINISHED: Final = re.compile(rb"\x1b(?:\[\[?[0-?]*[ -/]*|O[0-9;]*)?")

_SEQUENCES: Final[Mapping[bytes, str]] = {
    b"A": "up",
    b"B": "down",
    b"C": "right",
    b"D": "left",
    b"H": "home",
    b"F": "end",
    b"Z": "backtab",
    b"1~": "home",
    b"4~": "end",
    b"5~": "page up",
    b"6~": "page down",
    b"7~": "home",
    b"8~": "end",
    b"M": "enter",
}

_CONTROLS: Final[Mapping[str, str]] = {
    "\t": "tab",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x02": "page up",
    "\x06": "page down",
    "\x0c": "redraw",
    "\x15": "clear",
}

ESCAPE: Final = "escape"


class Decoder:
    """Bytes of a terminal as names of keys."""

    def __init__(self) -> None:
        self._held = b""
        self._text = codecs.getincrementaldecoder("utf-8")("ignore")

    @property
    def is_waiting(self) -> bool:
        """An escape has come, and perhaps not all that belongs to it."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete now."""
        keys: list[str] = []
        data, self._held = self._held + data, b""
        while data:
            place = data.find(b"\x1b")
            if place != 0:
                end = len(data) if place < 0 else place
                keys += self._letters(data[:end])
                data = data[end:]
            elif (found := _SEQUENCE.match(data)) is not None:
                name = self._sequence(found)
                keys += [name] if name is not None else []
                data = data[found.end() :]
            elif len(data) <= SEQUENCE_BYTES_MAX and _UNFINISHED.fullmatch(data):
                self._held = data
                break
            else:
                keys.append(ESCAPE)
                data = data[1:]
        return keys

    def flush(self) -> list[str]:
        """Nothing more has come: an escape was the key, and half a sequence is none."""
        held, self._held = self._held, b""
        return [ESCAPE] if held == b"\x1b" else []

    def _sequence(self, found: re.Match[bytes]) -> str | None:
        code = found["csi"] or found["ss3"]
        if code is None:
            return None
        # Shift and control come as a second number: ESC [ 1 ; 5 A.
        plain = re.sub(rb"^1;\d+(?=[A-Z])|;\d+(?=~)", b"", code)
        return _SEQUENCES.get(plain)

    def _letters(self, data: bytes) -> list[str]:
        text = self._text.decode(data)
        return [
            _CONTROLS.get(letter, letter)
            for letter in text
            if letter in _CONTROLS or letter.isprintable()
        ]


class RawTerminal:
    """A terminal that gives every key at once and shows none, until `leave`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[int | list[bytes | int]] | None = None

    def enter(self) -> None:
        """Remember how it was, and change it."""
        before = termios.tcgetattr(self._fd)
        if self._before is None:
            self._before = before
        changed = list(before)
        local, characters = changed[3], list(changed[6])
        assert isinstance(local, int)
        changed[3] = local & ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        changed[6] = characters
        termios.tcsetattr(self._fd, termios.TCSANOW, changed)

    def leave(self) -> bool:
        """As it was; False when there is no terminal any more.

        Keys that nobody has read are dropped: they were meant for us.
        """
        if self._before is None:
            return True
        before, self._before = self._before, None
        try:
            termios.tcflush(self._fd, termios.TCIFLUSH)
            # Not TCSAFLUSH: it would wait for a terminal that takes nothing.
            termios.tcsetattr(self._fd, termios.TCSANOW, before)
        except termios.error:
            return False
        return True
