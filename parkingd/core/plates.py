"""Plates as keys: what people and cameras write in many ways becomes one text.

NFKC, upper case, separators dropped, until nothing changes; what is left must be 1-16 letters or
digits (DESIGN section 4, "Plates"). Normalising is idempotent and never raises. Characters that
cannot be seen (bidi and zero-width formats) are dropped like separators; control characters and
combining marks that no letter takes in are refused, so that no two keys look alike by accident.
"""

from __future__ import annotations

import unicodedata
from typing import Final

PLATE_LENGTH_MAX: Final = 16
TYPED_LENGTH_MAX: Final = 64
"""Longer input is no plate, whatever would be dropped from it: bounds the work per character."""

_ASCII_SEPARATORS: Final = str.maketrans("", "", " -._/")
_SEPARATORS: Final = frozenset("._/\N{MIDDLE DOT}")
_SEPARATOR_CATEGORIES: Final = frozenset({"Zs", "Pd", "Cf"})
_PASSES_MAX: Final = 8
"""Upper case can undo a composition and a dropped character can allow one; two passes settle all
known text."""


def normalise_plate(text: str) -> str | None:
    """The key of a plate as it was typed, or None if that is no plate."""
    if len(text) > TYPED_LENGTH_MAX:
        return None
    if text.isascii():
        plate = text.upper()
        if not plate.isalnum():
            plate = plate.translate(_ASCII_SEPARATORS)
        return plate if plate.isalnum() and len(plate) <= PLATE_LENGTH_MAX else None
    return _normalise_unicode(text)


def _normalise_unicode(text: str) -> str | None:
    for _ in range(_PASSES_MAX):
        folded = unicodedata.normalize("NFKC", text).upper()
        plate = "".join(letter for letter in folded if not _is_separator(letter))
        if plate == text:
            break
        text = plate
    else:
        return None
    if not 1 <= len(plate) <= PLATE_LENGTH_MAX:
        return None
    return plate if all(unicodedata.category(letter)[0] in "LN" for letter in plate) else None


def _is_separator(letter: str) -> bool:
    return letter in _SEPARATORS or unicodedata.category(letter) in _SEPARATOR_CATEGORIES


def is_key(plate: str) -> bool:
    """Whether a replica, perhaps with newer Unicode tables than ours, may have made this key.

    Of ASCII exactly the normal form. Elsewhere letters, digits and code points we do not know:
    refusing one would leave a hole in its origin's events for ever.
    """
    if not 1 <= len(plate) <= PLATE_LENGTH_MAX:
        return False
    if plate.isascii():
        return plate.isalnum() and plate == plate.upper()
    return all(
        (category := unicodedata.category(letter))[0] in "LN" or category == "Cn"
        for letter in plate
    )


def mask_plate(plate: str) -> str:
    """The plate for logs: its first character, its length hidden."""
    return plate[:1] + "***"
