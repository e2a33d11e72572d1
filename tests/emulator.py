"""A terminal of a few sequences: those that the dashboard writes, and no others.

What it does not know is an error, so that a test also says which sequences a terminal must have.
Wide characters take two columns, as in a real one.
"""

from __future__ import annotations

import codecs
import re

from rich.cells import cell_len

SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Emulator:
    """Feed it bytes, then look at `lines` and `modes`."""

    def __init__(self, width: int, height: int) -> None:
        self.modes: set[int] = {7, 25}
        """DEC private modes that are on; a terminal begins with wrapping and a cursor."""
        self.reversed_text: list[str] = []
        """Every letter that was written reversed."""
        self.coloured_text: list[str] = []
        """Every letter that was written in a colour."""
        self.clears = 0
        self.columns_beyond = 0
        """How often something was written outside the window."""
        self._attributes = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""
        self._left_at = 0, 0
        """Where the cursor goes when the alternate screen is left."""
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._clear()

    @property
    def lines(self) -> list[str]:
        """Without what is blank at their ends."""
        return ["".join(row).rstrip() for row in self._rows]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        while text:
            if text[0] != "\x1b":
                self._put(text[0])
                text = text[1:]
                continue
            found = SEQUENCE.match(text)
            if found is None and "\x1b" in text[1:]:
                text = text[text.index("\x1b", 1) :]  # It was cut off.
                continue
            if found is None:
                assert len(text) < 20, f"an unknown sequence: {text[:20]!r}"
                self._rest = text
                return
            self._act(found[1], found[2], found[3])
            text = text[found.end() :]

    def _act(self, private: str, numbers: str, what: str) -> None:
        match private, what:
            case "?", "h":
                self.modes.add(int(numbers))
                if numbers == "1049":
                    self._left_at = self._row, self._column
            case "?", "l":
                self.modes.discard(int(numbers))
                if numbers == "1049":
                    self._row, self._column = self._left_at
            case "", "H":
                row, column = (int(number) for number in numbers.split(";"))
                self._row, self._column = row - 1, column - 1
            case "", "J":
                assert numbers == "2"
                self._clear()
            case "", "m":
                self._attributes = "" if numbers == "0" else numbers
            case _:
                raise AssertionError(f"an unknown sequence: {private}{numbers}{what}")

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
            return
        if letter == "\n":
            self._row = min(self._row + 1, self.height - 1)
            return
        columns = cell_len(letter)
        if not columns:
            self._rows[self._row][self._column - 1] += letter
            return
        if self._row >= self.height or self._column + columns > self.width:
            self.columns_beyond += 1
            return
        self._rows[self._row][self._column] = letter
        if columns == 2:
            self._rows[self._row][self._column + 1] = ""
        self._column += columns
        attributes = self._attributes.split(";")
        if "7" in attributes:
            self.reversed_text.append(letter)
        if any(len(number) > 1 for number in attributes):
            self.coloured_text.append(letter)

    def _clear(self) -> None:
        self.clears += 1
        self._rows = [[" "] * self.width for _ in range(self.height)]
        self._row = self._column = 0
