"""Likeness: against the plain definition, for plates as cameras misread them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.core.likeness import CLASSES, EDIT_COST, fold, index_of, search, unlikeness

CLASS_OF = {letter: each[0] for each in CLASSES for letter in each}
LETTERS = "0ODQ1I2Z5S8B6GAXÄ京"

plates = st.text(LETTERS, min_size=1, max_size=16)


@st.composite
def misread(draw: st.DrawFn) -> tuple[str, str]:
    """A plate, and the same after a few slips of a camera; often alike, and often just not."""
    plate = draw(plates)
    read = list(plate)
    for place, letter in enumerate(read):
        if letter in CLASS_OF and draw(st.booleans()):
            read[place] = draw(
                st.sampled_from([k for k, v in CLASS_OF.items() if v == letter] or [letter])
            )
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(read) - 1))
        match draw(st.sampled_from(["changed", "missing", "extra"])):
            case "changed":
                read[place] = draw(st.sampled_from(LETTERS))
            case "missing" if len(read) > 1:
                del read[place]
            case _ if len(read) < 16:
                read.insert(place, draw(st.sampled_from(LETTERS)))
    return plate, "".join(read)


def folded(plate: str) -> str:
    return "".join(CLASS_OF.get(letter, letter) for letter in plate)


def edits(one: str, other: str) -> int:
    """The distance of Levenshtein, row by row."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            above, row[j] = row[j], min(above + (left != right), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@given(misread())
def test_two_plates_are_alike_when_their_folded_forms_are_one_edit_apart(
    pair: tuple[str, str],
) -> None:
    one, other = pair
    cost = unlikeness(one, other)
    apart = edits(folded(one), folded(other))
    assert (cost is not None) == (apart <= 1)
    assert cost == unlikeness(other, one)
    assert (cost == 0) == (one == other)
    if cost is not None:
        assert (cost >= EDIT_COST) == (apart == 1), "an edit is worse than any look-alikes"


@given(st.lists(misread(), min_size=1, max_size=12))
def test_a_search_finds_exactly_the_pairs_that_are_alike(pairs: list[tuple[str, str]]) -> None:
    wanted = list(dict.fromkeys(one for one, _ in pairs))
    inside = list(dict.fromkeys([other for _, other in pairs] + wanted[:3]))
    found = search(index_of(wanted), inside)
    assert len(found) == len(set(found))
    assert set(found) == {
        (one, cost, other)
        for one in wanted
        for other in inside
        if (cost := unlikeness(one, other)) is not None
    }


@given(st.lists(plates, max_size=5))
def test_folding_many_is_folding_each(some: list[str]) -> None:
    assert fold(some) == [folded(plate) for plate in some]


@pytest.mark.parametrize(
    ("one", "other", "cost"),
    [
        ("ABC123", "ABC123", 0),
        ("ABC1230", "ABC123O", 1),
        ("DB52", "Q85Z", 3),
        ("ABC123", "ABC12", EDIT_COST),
        ("ABC123", "XABC123", EDIT_COST),
        ("ABC123", "ABX123", EDIT_COST),
        ("OBC123", "08C12", EDIT_COST + 2),
        ("ABC123", "ABC132", None),
        ("ABC123", "ABC1", None),
        ("A", "X1", None),
    ],
)
def test_look_alikes_come_before_a_character_that_differs(
    one: str, other: str, cost: int | None
) -> None:
    assert unlikeness(one, other) == cost
