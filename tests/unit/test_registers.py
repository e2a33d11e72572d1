"""The settings of a lot: what is believed of them, and what an almost full lot remembers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.core import events as ev
from parkingd.core.lot import KNOWN_KEYS, LotRecord
from parkingd.core.registers import GATES_MAX, HELD_KEYS, SPACES_MAX, Band, Thresholds, gate_of
from tests.properties.strategies import setting_values

FOUND = ev.Event(1, 2, 10 << 16, ev.Found(bytes(16), 100, 4, "local"))


def record(*settings: tuple[str, int | str]) -> LotRecord:
    lot = LotRecord()
    lot.absorb(FOUND)
    for seq, (key, value) in enumerate(settings, start=3):
        lot.absorb(ev.Event(1, seq, (10 + seq) << 16, ev.Setting(key, value, None)))
    return lot


@given(st.lists(st.tuples(st.sampled_from([*KNOWN_KEYS, "gate1", "gate7", "x"]), setting_values)))
def test_whatever_a_peer_sets_is_believed_within_its_range_only(
    settings: list[tuple[str, int | str]],
) -> None:
    lot = record(*settings)
    assert 0 <= lot.spaces <= SPACES_MAX
    assert 0 <= lot.gates <= GATES_MAX
    assert isinstance(lot.admission, str)
    assert all(0 <= percent <= 100 for percent in lot.thresholds)
    assert all(0 <= band.clear <= band.at for band in lot.bands)
    assert {lot.mode(gate) for gate in (1, 7)} <= {"open", "closed", "auto"}
    assert lot.state_word(50) in ("open", "almost_full", "full", "closed")


def test_what_is_no_number_leaves_what_the_founding_said() -> None:
    lot = record(("spaces", "many"), ("gates", "few"), ("almostfull", "soon"))
    assert (lot.spaces, lot.gates, lot.thresholds) == (100, 4, Thresholds())
    assert record(("gates", 2**62)).gates == GATES_MAX
    assert record(("spaces", -5)).spaces == 0


@pytest.mark.parametrize(
    ("spaces", "almost", "full"),
    [
        (100, Band(90, 88), Band(100, 100)),
        (20, Band(18, 18), Band(20, 20)),
        (1, Band(1, 1), Band(1, 1)),
        (0, Band(0, 0), Band(0, 0)),
        (401, Band(361, 353), Band(401, 401)),
    ],
)
def test_a_part_of_a_space_counts_as_one(spaces: int, almost: Band, full: Band) -> None:
    assert Thresholds().bands(spaces) == (almost, full)


def test_a_state_holds_from_its_threshold_until_below_where_it_is_clear() -> None:
    band = Band(90, 88)
    assert [band.holds(inside, False) for inside in (87, 88, 89, 90)] == [False] * 3 + [True]
    assert [band.holds(inside, True) for inside in (87, 88, 89, 90)] == [False] + [True] * 3


def test_the_memory_is_part_of_the_state_and_so_of_the_root() -> None:
    lot, other = record(), record((HELD_KEYS[0], 1))
    assert (lot.state_word(89), other.state_word(89)) == ("open", "almost_full")
    assert lot.digest() != other.digest()
    assert (other.state_word(87), lot.state_word(90)) == ("open", "almost_full")


def test_full_can_begin_below_the_last_space() -> None:
    lot = record(("full", 95), ("fullclear", 92), (HELD_KEYS[1], 1))
    assert [lot.state_word(inside) for inside in (91, 92, 95)] == ["almost_full", "full", "full"]


def test_a_clear_above_its_threshold_counts_as_equal() -> None:
    """Two operators at two nodes, or a peer that says anything."""
    assert record(("almostfull", 50), ("almostfullclear", 80)).bands[0] == Band(50, 50)


def test_a_lot_is_closed_when_every_gate_is() -> None:
    three = [(f"gate{gate}", "closed") for gate in (1, 2, 3)]
    assert record(*three).state_word(0) == "open"
    assert record(*three, ("gate4", "closed")).state_word(100) == "closed"
    assert record(*three, ("gates", 3)).state_word(0) == "closed"
    assert record(*three, ("gate4", "closed"), ("gate2", "ajar")).state_word(0) == "open"


def test_a_setting_of_an_earlier_version_has_the_same_root_as_one_with_a_reason() -> None:
    """Nodes that do not know the reason drop it in snapshots."""
    plain, full = LotRecord(), LotRecord()
    for lot, more in ((plain, ()), (full, ("fair week", 100))):
        lot.absorb(FOUND)
        lot.absorb(ev.Event(1, 3, 11 << 16, ev.Setting("spaces", 120, None, *more)))
    assert plain.digest() == full.digest()


@pytest.mark.parametrize(
    ("key", "gate"),
    [
        ("gate1", 1),
        ("gate1000", 1000),
        *((key, None) for key in ("gate1001", "gate0", "gate01", "gates", "Gate1", "gate")),
    ],
)
def test_only_a_number_there_can_be_is_a_gate(key: str, gate: int | None) -> None:
    assert gate_of(key) == gate
