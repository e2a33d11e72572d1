"""The hybrid clock never goes back, and an insane wall clock is outvoted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parkingd.core.hybrid import HybridClock, believed_wall_ms, compose, deviating, physical_ms

walls = st.integers(0, 2**47)
offsets = st.integers(-(2**40), 2**40)


@given(st.lists(st.tuples(st.booleans(), walls), max_size=40))
def test_a_minted_time_is_above_everything_minted_or_merged_before(
    steps: list[tuple[bool, int]],
) -> None:
    clock, highest = HybridClock(), 0
    for mints, wall_ms in steps:
        if mints:
            time = clock.mint(wall_ms)
            assert time > highest
            assert physical_ms(time) >= wall_ms
            highest = time
        else:
            clock.merge(compose(wall_ms, 7))
            highest = max(highest, compose(wall_ms, 7))
        assert clock.last == highest


@given(walls)
def test_a_full_counter_carries_into_the_milliseconds(ms: int) -> None:
    clock = HybridClock(compose(ms, 0xFFFF))
    assert clock.mint(ms) == compose(ms + 1, 0)


@given(walls, st.integers(0, 0xFFFF))
def test_a_time_composes_of_its_parts(ms: int, counter: int) -> None:
    time = compose(ms, counter)
    assert physical_ms(time) == ms
    assert time & 0xFFFF == counter


@given(offsets, st.integers(0, 2**40), st.lists(st.integers(-2_500, 2_500), max_size=9))
def test_a_wall_clock_near_the_others_is_believed(
    base: int, mono_ms: int, spreads: list[int]
) -> None:
    others = [base + spread for spread in spreads]
    assert believed_wall_ms(base + mono_ms, mono_ms, others, 5_000) == (base + mono_ms, True)


@given(
    offsets,
    st.integers(0, 2**40),
    st.lists(st.integers(-100, 100), min_size=2, max_size=9),
    st.sampled_from((-1, 1)),
    st.integers(5_201, 2**40),
)
def test_a_wall_clock_far_off_a_majority_is_not_believed(
    base: int, mono_ms: int, spreads: list[int], sign: int, off_ms: int
) -> None:
    others = [base + spread for spread in spreads]
    own_wall_ms = base + mono_ms + sign * off_ms
    wall_ms, own = believed_wall_ms(own_wall_ms, mono_ms, others, 5_000)
    assert not own
    assert abs(wall_ms - (base + mono_ms)) <= 100


def test_of_two_clocks_the_earlier_is_believed() -> None:
    assert believed_wall_ms(3_600_000, 0, [0], 5_000) == (0, False)
    assert believed_wall_ms(0, 0, [3_600_000], 5_000) == (0, True)


def test_alone_the_own_clock_is_believed() -> None:
    assert believed_wall_ms(123, 45, [], 5_000) == (123, True)


def test_the_believed_time_goes_on_with_own_monotonic_progress() -> None:
    early, _ = believed_wall_ms(9_000_000 + 10, 10, [500, 500], 5_000)
    later, _ = believed_wall_ms(9_000_000 + 710, 710, [500, 500], 5_000)
    assert later - early == 700


def test_members_whose_clocks_deviate_are_named_with_their_distance() -> None:
    assert deviating({"a": 0, "b": 10, "c": 3_600_000}, 5_000) == {"c": 3_599_990}
    assert deviating({"a": 0, "b": 3_600_000}, 5_000) == {"b": 3_600_000}
    assert deviating({"a": 0, "b": 5_000}, 5_000) == {}
    assert deviating({}, 5_000) == {}
