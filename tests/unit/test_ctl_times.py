from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from parkingd.cli.times import parse_time
from parkingd.errors import UsageError

NOON_MS = 1_785_585_600_000
"""2026-08-01T12:00:00Z, a Saturday in summer."""
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "hours_ago"),
    [
        ("2h", 2),
        ("90 M", 1.5),
        ("3d", 72),
        ("5400s", 1.5),
        ("today", 14),
        ("Yesterday", 38),
        ("2026-08-01", 14),
        ("2026-08-01T13:00", 1),
        ("2026-08-01 13:00:00", 1),
        ("2026-08-01T10:00:00.000Z", 2),
        ("2026-08-01t10:00z", 2),
        ("2026-08-01T10:00-02:00", 0),
        ("2026-01-31", 24 * 182 + 13),
    ],
)
def test_a_time_is_local_unless_it_says_otherwise(text: str, hours_ago: float) -> None:
    assert parse_time("--since", text, NOON_MS) == NOON_MS - hours_ago * HOUR_MS


@pytest.mark.parametrize(
    "text", ["", "2", "2w", "-2h", "tomorrow", "12:00", "2026-13-01", "1969-01-01", "9" * 40, "1e3"]
)
def test_another_form_is_answered_with_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="--until: ") as refusal:
        parse_time("--until", text, NOON_MS)
    assert "2h, 3d, today" in refusal.value.hint


def test_long_ago_is_the_beginning_of_time() -> None:
    assert parse_time("--since", "999999999d", NOON_MS) == 0
