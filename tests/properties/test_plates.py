"""Plates: one key for the many ways to write one, and no surprise for any text."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.core.plates import is_key, mask_plate, normalise_plate

tricky = st.text(
    st.sampled_from(
        "aZ9 -._/·\u00a0\u2010\u2014\u200b\u200d\u202e\ufeff\u0308äßŉΐﬁ①½Å京\x00\n\ud800"
    )
    | st.characters(),
    max_size=24,
)


@given(tricky)
def test_normalising_never_raises_and_is_idempotent(text: str) -> None:
    plate = normalise_plate(text)
    if plate is not None:
        assert 1 <= len(plate) <= 16
        assert all(unicodedata.category(letter)[0] in "LN" for letter in plate)
        assert normalise_plate(plate) == plate
        assert is_key(plate)


@given(st.text("ABCZ019", min_size=1, max_size=16), st.data())
def test_case_and_separators_make_no_difference(plate: str, data: st.DataObject) -> None:
    separators = st.text(" -._/·\u00a0\u2013\u200b\u202e", max_size=2)
    written = "".join(
        data.draw(separators) + data.draw(st.sampled_from((letter, letter.lower())))
        for letter in plate
    )
    assert normalise_plate(written) == plate


@pytest.mark.parametrize(
    ("written", "plate"),
    [
        ("m-ab 123", "MAB123"),
        ("mü·kr 1", "MÜKR1"),
        ("MU\u0308KR1", "MÜKR1"),
        ("\uff21\uff22\uff11\uff12", "AB12"),
        ("straße", "STRASSE"),
        ("A\u200d\u0308B", "ÄB"),
        ("京1", "京1"),
        ("A" * 16, "A" * 16),
    ],
)
def test_what_people_write_becomes_the_key(written: str, plate: str) -> None:
    assert normalise_plate(written) == plate


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "-.-",
        "A" * 17,
        "A" + " " * 64,
        "A\nB",
        "A\x00",
        "A\u0301\u0301x\u0327",
        "A+B",
        "½",
        "\ud800A",
        "😀",
    ],
)
def test_what_is_no_plate_is_refused(written: str) -> None:
    assert normalise_plate(written) is None


def test_every_single_character_is_a_letter_or_digit_or_refused() -> None:
    for code in range(sys.maxunicode + 1):
        plate = normalise_plate(chr(code))
        assert plate is None or (is_key(plate) and normalise_plate(plate) == plate), hex(code)


def test_a_key_of_ascii_is_its_own_normal_form() -> None:
    for text in ("AB12", "ab12", "A B", "", "A" * 17, "A-1"):
        assert is_key(text) == (normalise_plate(text) == text)


def test_a_key_with_letters_we_do_not_know_passes_and_invisible_ones_do_not() -> None:
    assert is_key("A\U00032345")
    for text in ("A\u202e", "Ä\n", "Ä ", "\ud800", "Ä\u0301\u0327"):
        assert not is_key(text)


def test_a_masked_plate_shows_its_first_character_and_not_its_length() -> None:
    assert mask_plate("ABC123") == "A***"
    assert mask_plate("A") == "A***"
    assert mask_plate("") == "***"
