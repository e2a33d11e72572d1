"""A causal context against its dumb twin, a plain set of dots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.core.causal import CausalContext, Part, Span

ORIGINS = (1, 2, 3)
dots = st.tuples(st.sampled_from(ORIGINS), st.integers(1, 14))
dot_lists = st.lists(dots, max_size=30)
span_lists = st.lists(
    st.tuples(st.sampled_from(ORIGINS), st.integers(1, 25), st.integers(0, 8)), max_size=12
)


def context_of(held: list[tuple[int, int]]) -> CausalContext:
    context = CausalContext()
    for origin, seq in held:
        context.add(origin, seq)
    return context


def dots_of(context: CausalContext) -> set[tuple[int, int]]:
    return {
        (origin, seq)
        for origin, upto, intervals in context.parts()
        for first, last in ((1, upto), *intervals)
        for seq in range(first, last + 1)
    }


def seqs_of(spans: list[Span]) -> list[int]:
    return [seq for first, last in spans for seq in range(first, last + 1)]


def assert_normal(context: CausalContext) -> None:
    for origin, spans in context.intervals.items():
        end = context.vector[origin]
        assert spans
        for first, last in spans:
            assert end + 1 < first <= last
            end = last
    spans = context.intervals
    parts = [(o, upto, tuple(spans.get(o, ()))) for o, upto in sorted(context.vector.items())]
    assert context.parts() == tuple(parts)  # Also after an earlier look at it.


@given(dot_lists)
def test_adding_dots_holds_exactly_those_dots(held: list[tuple[int, int]]) -> None:
    context, twin = CausalContext(), set[tuple[int, int]]()
    for origin, seq in held:
        assert context.add(origin, seq) == ((origin, seq) not in twin)
        twin.add((origin, seq))
        assert_normal(context)
    assert dots_of(context) == twin
    for origin in ORIGINS:
        for seq in range(1, 17):
            assert context.contains(origin, seq) == ((origin, seq) in twin)


@given(span_lists)
def test_adding_spans_compacts_to_the_same_set(spans: list[tuple[int, int, int]]) -> None:
    context, twin = CausalContext(), set[tuple[int, int]]()
    for origin, first, more in spans:
        context.add_span(origin, first, first + more)
        twin |= {(origin, seq) for seq in range(first, first + more + 1)}
        assert_normal(context)
    assert dots_of(context) == twin
    assert context.has_intervals() == any(context.gaps(origin) for origin in ORIGINS)


@given(st.permutations(list(range(1, 15))))
def test_filled_holes_leave_no_interval(order: list[int]) -> None:
    context = context_of([(1, seq) for seq in order])
    assert context.intervals == {}
    assert context.vector == {1: 14}


@given(dot_lists, dot_lists, dot_lists)
def test_join_is_a_lattice(
    left: list[tuple[int, int]], right: list[tuple[int, int]], third: list[tuple[int, int]]
) -> None:
    def joined(*contexts: CausalContext) -> CausalContext:
        result = CausalContext()
        for context in contexts:
            result.join(context)
            assert_normal(result)
        return result

    a, b, c = context_of(left), context_of(right), context_of(third)
    assert dots_of(joined(a, b)) == set(left) | set(right)
    assert joined(a, b) == joined(b, a)
    assert joined(joined(a, b), c) == joined(a, joined(b, c))
    assert joined(a, a) == a
    assert joined(a, b).covers(a)
    assert a.covers(b) == (set(right) <= set(left))
    assert (a == b) == (set(left) == set(right))


@given(dot_lists, dot_lists)
def test_missing_is_what_the_other_holds_and_self_lacks(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> None:
    mine, other = context_of(left), context_of(right)
    for origin in ORIGINS:
        lacking = mine.missing(other, origin)
        assert seqs_of(lacking) == sorted(
            {seq for replica, seq in set(right) - set(left) if replica == origin}
        )
        for first, last in lacking:
            mine.add_span(origin, first, last)
    assert mine.covers(other)


@given(dot_lists)
def test_gaps_are_the_holes_below_the_highest_seq(held: list[tuple[int, int]]) -> None:
    context = context_of(held)
    for origin in ORIGINS:
        seqs = {seq for replica, seq in held if replica == origin}
        highest = max(seqs, default=0)
        assert context.highest(origin) == highest
        assert seqs_of(context.gaps(origin)) == sorted(set(range(1, highest + 1)) - seqs)
        assert context.upto(origin) == len([seq for seq in seqs if set(range(1, seq + 1)) <= seqs])


@given(dot_lists, dot_lists)
def test_a_copy_does_not_change_with_its_original(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> None:
    original = context_of(left)
    copy = original.copy()
    original.join(context_of(right))
    assert dots_of(copy) == set(left)


@given(dot_lists)
def test_parts_and_back_is_the_same_context(held: list[tuple[int, int]]) -> None:
    context = context_of(held)
    context.touch(99)
    back = CausalContext.from_parts(context.parts())
    assert back == context
    assert back.parts() == context.parts()
    assert back.replicas() == sorted({origin for origin, _ in held} | {99})


def test_a_touched_replica_is_known_and_adds_no_dot() -> None:
    context = context_of([(1, 1)])
    assert_normal(context)
    context.touch(7)
    context.touch(1)
    assert_normal(context)
    assert context.replicas() == [1, 7]
    assert context.upto(7) == 0
    assert context == context_of([(1, 1)])
    other = CausalContext()
    other.join(context)
    assert other.replicas() == [1, 7]


@pytest.mark.parametrize(
    "parts",
    [
        [(2, 1, ()), (1, 1, ())],
        [(1, 1, ()), (1, 1, ())],
        [(1, -1, ())],
        [(1, 3, ((4, 5),))],
        [(1, 3, ((3, 5),))],
        [(1, 0, ((3, 2),))],
        [(1, 0, ((3, 4), (5, 6)))],
        [(1, 0, ((8, 9), (3, 4)))],
    ],
)
def test_parts_that_break_the_form_are_refused(parts: list[Part]) -> None:
    with pytest.raises(ValueError, match=r"ascend|negative|touch"):
        CausalContext.from_parts(parts)
