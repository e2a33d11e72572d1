"""The replicated state against its dumb twin: a function of the set of events, and nothing else.

A drawn script lets two to four sites act on one to three plates and hear of single events, of
snapshots and of vectors in between, so that what they mint lists exactly what they saw. Whatever
the order in which somebody else then applies those events, the view must be that of the naive
reference below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from parkingd.core.causal import CausalContext
from parkingd.core.events import Correction, Enter, Event, Exit, Removal
from parkingd.core.ids import Dot, ReplicaId, dot_cause
from parkingd.core.state import LotState
from parkingd.core.stays import SUM_MODULUS, stay_hash
from parkingd.protocol.log import EVENT_OVERHEAD_BYTES, EventLog
from tests.unit.sites import Site, dot, sites

PLATES = ("P", "Q", "R")
CAUSES = (b"1" * 16, b"2" * 16, None, None, None)

# --- the reference -----------------------------------------------------------------------------


class Made(NamedTuple):
    """A stay that an event created."""

    rank: tuple[int, ReplicaId, int]
    dot: Dot
    plate: str
    cause: bytes


def made(event: Event) -> Made | None:
    if not isinstance(event.body, Enter | Correction):
        return None
    cause = event.body.cause if event.body.cause is not None else dot_cause(dot(event))
    return Made((event.time, *dot(event)), dot(event), event.body.plate, cause)


def covers(event: Event) -> tuple[Dot, ...]:
    body = event.body
    return body.covers if isinstance(body, Enter | Exit | Removal | Correction) else ()


def reference(events: list[Event]) -> dict[str, set[Dot]]:
    """Who is inside, from the definition: no order, no early set, no marks dropped."""
    covered = {each for event in events for each in covers(event)}
    exits = [event for event in events if isinstance(event.body, Exit)]
    closed = {
        cause for event in exits if isinstance(event.body, Exit) for cause in event.body.causes
    }
    candidates = []
    for event in events:
        stay = made(event)
        if stay is None or stay.dot in covered or stay.cause in closed:
            continue
        left = any(
            isinstance(leave.body, Exit)
            and leave.body.plate == stay.plate
            and leave.time >= event.time
            for leave in exits
        )
        if not left:
            candidates.append(stay)
    best: dict[bytes, Made] = {}
    for stay in candidates:
        if stay.cause not in best or stay.rank > best[stay.cause].rank:
            best[stay.cause] = stay
    shown: dict[str, set[Dot]] = {}
    for stay in best.values():
        shown.setdefault(stay.plate, set()).add(stay.dot)
    return shown


def view(state: LotState) -> dict[str, set[Dot]]:
    shown: dict[str, set[Dot]] = {}
    for stay in state.stays.all_visible():
        shown.setdefault(stay[3], set()).add((stay[1], stay[0]))
    return shown


def assert_shows(state: LotState, events: list[Event]) -> None:
    """The view is the reference's, and every counter is what a full scan would give."""
    expected = reference(events)
    stays = state.stays
    assert view(state) == expected
    for plate in PLATES:
        shown = stays.visible(plate)
        assert {(stay[1], stay[0]) for stay in shown} == expected.get(plate, set())
    assert set(stays.conflicts) == {plate for plate, shown in expected.items() if len(shown) > 1}
    visible = list(stays.all_visible())
    assert stays.visible_count == len(visible)
    assert stays.stay_count == sum(len(stays.stays_of(plate)) for plate in stays.plates())
    assert stays.mark_count == sum(len(stays.marks_of(plate)) for plate in stays.plates())
    assert stays.hidden_count() == stays.stay_count - len(visible)
    assert stays.stays_sum == sum(map(stay_hash, visible)) % SUM_MODULUS


# --- scripts -----------------------------------------------------------------------------------


class World(NamedTuple):
    """What a script has made."""

    sites: list[Site]
    events: list[Event]


Act = tuple[str, int, str, int]
"""(what, who, plate, a number whose meaning depends on what)."""

acts = st.lists(
    st.tuples(
        st.sampled_from(
            ("enter", "enter", "enter", "exit", "exit", "correct", "remove", "give", "give", "sync")
        ),
        st.integers(0, 3),
        st.sampled_from(PLATES),
        st.integers(0, 2**16),
    ),
    max_size=24,
)
skews = st.lists(st.integers(-3, 3), min_size=4, max_size=4)


def play(
    script: list[Act],
    skew: list[int],
    *,
    count: int = 3,
    between: Callable[[list[Site]], None] = lambda _: None,
) -> World:
    """Carry the script out; ``between`` is called after each act."""
    members = sites(count, skew)
    events = list(members[0].log.values())
    for what, who, plate, number in script:
        site = members[who % count]
        event: Event | None = None
        if what == "enter":
            event = site.enter(plate, CAUSES[number % len(CAUSES)])
        elif what == "exit":
            event = site.exit(plate)
        elif what == "remove" and site.state.stays.stays_of(plate):
            event = site.remove(plate)
        elif what == "correct" and len(site.state.stays.visible(plate)) == 1:
            event = site.correct(plate, PLATES[number % 3])
        elif what == "give":
            site.take(events[number % len(events)])
        elif what == "sync":
            site.take(*members[number % count].log.values())
        if event is not None:
            events.append(event)
        between(members)
    return World(members, events)


@given(acts, skews, st.integers(2, 4), st.randoms(use_true_random=False))
def test_the_view_is_a_function_of_the_set_of_events(
    script: list[Act], skew: list[int], count: int, dice: object
) -> None:
    world = play(script, skew, count=count)
    for site in world.sites:
        assert_shows(site.state, list(site.log.values()))
    everything = [*world.events, *world.events[::3]]
    roots = set()
    for _ in range(3):
        dice.shuffle(everything)  # type: ignore[attr-defined]
        state = LotState()
        for event in everything:
            state.apply(event)
        assert_shows(state, world.events)
        assert not state.stays.early
        assert not state.context.has_intervals()
        roots.add(state.root())
    assert len(roots) == 1


@given(acts, skews)
def test_a_part_of_the_events_shows_what_that_part_says(script: list[Act], skew: list[int]) -> None:
    world = play(script, skew)
    for part in (world.events[::2], world.events[1::2], world.events[3:], world.events[:-2]):
        state = LotState()
        for event in reversed(part):
            state.apply(event)
        assert_shows(state, part)
        state.stays.early.clear()  # What is early is a matter of the missing, not of the view.
        assert_shows(state, part)


@given(acts, skews)
def test_collection_at_any_point_changes_no_view(script: list[Act], skew: list[int]) -> None:
    def hear_and_collect(members: list[Site]) -> None:
        for site in members:
            site.hear(*members)
            site.collect()
            assert_shows(site.state, list(site.log.values()))

    world = play(script, skew, between=hear_and_collect)
    for site in world.sites:
        site.take(*world.events)
        assert_shows(site.state, world.events)
    for _ in range(2):
        for site in world.sites:
            site.hear(*world.sites)
            site.collect()
    for site in world.sites:
        assert site.state.stays.mark_count == 0, "all have seen all: nothing is waited for"
        assert site.state.stays.stay_count <= sum(
            1 for event in world.events if made(event) is not None
        )
        assert_shows(site.state, world.events)


@given(acts, skews, st.booleans())
def test_a_snapshot_joined_into_any_state_is_the_union_of_their_events(
    script: list[Act], skew: list[int], collects: bool
) -> None:
    def maybe_collect(members: list[Site]) -> None:
        for site in members if collects else ():
            site.hear(*members)
            site.collect()

    world = play(script, skew, between=maybe_collect)
    for source in world.sites:
        frozen = source.freeze()
        for target in world.sites:
            if target is source:
                continue
            union = {**target.log, **source.log}
            twin = replayed(target)
            twin.thaw(frozen)
            assert_shows(twin.state, list(union.values()))
            assert twin.state.context == context_of(union)
            assert not set(twin.state.stays.early) & set(union)
            once = (twin.state.root(), dict(twin.state.stays.early), twin.state.context.parts())
            twin.thaw(frozen)
            again = (twin.state.root(), dict(twin.state.stays.early), twin.state.context.parts())
            assert once == again
            back = replayed(source)
            back.thaw(target.freeze())
            assert back.state.root() == twin.state.root()
            assert set(back.state.stays.early) == set(twin.state.stays.early)
            for event in world.events:
                twin.state.apply(event)
            assert_shows(twin.state, world.events)


@given(acts, skews, st.data())
def test_snapshots_amid_everything_leave_every_view_true(
    script: list[Act], skew: list[int], data: st.DataObject
) -> None:
    """Frozen at one time, joined at another, with events and collection in between."""
    in_flight: list[tuple[int, Site, object]] = []
    moves = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=10))

    def transfer(members: list[Site]) -> None:
        for site in members:
            site.hear(*members)
            site.collect()
        if moves:
            source, target = (members[place] for place in moves.pop())
            in_flight.append((len(moves) % 3, target, (source.freeze(), dict(source.log))))
        for waiting in list(in_flight):
            steps, target, (frozen, log) = waiting  # type: ignore[misc]
            in_flight.remove(waiting)
            if steps:
                in_flight.append((steps - 1, target, (frozen, log)))
                continue
            target.thaw(frozen)
            target.log.update(log)
            assert_shows(target.state, list(target.log.values()))

    world = play(script, skew, between=transfer)
    for site in world.sites:
        site.take(*world.events)
        assert_shows(site.state, world.events)


def replayed(site: Site) -> Site:
    """A site of the same id that holds the same events, by way of a snapshot of it."""
    twin = Site(site.id, site.clock)
    twin.thaw(site.freeze())
    twin.log = dict(site.log)
    assert view(twin.state) == view(site.state)
    return twin


def context_of(events: dict[Dot, Event]) -> CausalContext:
    context = CausalContext()
    for origin, seq in events:
        context.add(origin, seq)
    return context


# --- the log -----------------------------------------------------------------------------------

held_dots = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), max_size=30)


def packed(origin: int, seq: int) -> bytes:
    return b"%d.%d" % (origin, seq) + b"x" * (seq * 7 % 11)


EVENT_BYTES_MAX = max(len(packed(origin, 12)) for origin in range(1, 5)) + 10 + EVENT_OVERHEAD_BYTES


@given(held_dots, held_dots, st.integers(EVENT_BYTES_MAX, 40 * EVENT_BYTES_MAX))
def test_with_any_budget_repeated_replies_bring_a_peer_to_the_holders_context(
    holder_dots: list[Dot], peer_dots: list[Dot], budget: int
) -> None:
    log, holder, peer = EventLog(), CausalContext(), CausalContext()
    for each in (*holder_dots, *peer_dots[::2]):
        holder.add(*each)
        log.add(*each, packed(*each))
    for each in peer_dots:
        peer.add(*each)
    wanted = holder.copy()
    wanted.join(peer)
    for _ in range(len(holder_dots) + len(peer_dots) + 1):
        runs, more, behind = log.missing_runs(holder, peer, budget)
        assert not behind
        size = 0
        for run in runs:
            for place, event in enumerate(run.events):
                assert event == packed(run.origin, run.first + place)
                assert peer.add(run.origin, run.first + place), "sent though the peer has it"
                size += len(event) + EVENT_OVERHEAD_BYTES
        assert size <= budget
        assert more == (peer != wanted), "`more` says whether anything is left"
        if not more:
            break
        assert runs, "no progress"
    assert peer == wanted


def test_a_peer_that_lacks_what_has_left_the_log_is_behind_and_gets_the_rest() -> None:
    log, holder = EventLog(), CausalContext({1: 5, 2: 5})
    for origin in (1, 2):
        for seq in range(1, 6):
            log.add(origin, seq, packed(origin, seq))
    log.raise_floor(1, 3)
    runs, more, behind = log.missing_runs(holder, CausalContext({1: 2, 2: 3}), 10_000)
    assert behind
    assert not more
    assert [(run.origin, run.first, run.last) for run in runs] == [(2, 4, 5)]
    _, _, behind = log.missing_runs(holder, CausalContext({1: 3, 2: 3}), 10_000)
    assert not behind


def test_a_busy_origin_does_not_starve_the_others() -> None:
    log, holder = EventLog(), CausalContext({1: 500, 2: 2})
    for seq in range(1, 501):
        log.add(1, seq, b"x" * 20)
    for seq in (1, 2):
        log.add(2, seq, b"y" * 20)
    runs, more, _ = log.missing_runs(holder, CausalContext(), 400)
    assert more
    assert {run.origin for run in runs} == {1, 2}


def test_a_holder_without_the_event_in_its_log_says_that_the_peer_is_behind() -> None:
    """It knows the event from a snapshot with holes: nothing that it can send will bring it."""
    log, holder = EventLog(), CausalContext({1: 3})
    log.raise_floor(1, 3)
    holder.add(1, 5)
    runs, _, behind = log.missing_runs(holder, CausalContext({1: 3}), 10_000)
    assert not runs
    assert behind
