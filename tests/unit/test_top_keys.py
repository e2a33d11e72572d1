"""From the bytes of a terminal to keys, and from keys to choices."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parkingd.cli.top.keys import SEQUENCE_BYTES_MAX, Decoder, RawTerminal
from parkingd.cli.top.ui import INTERVALS_S, Extent, Panel, Ui, press

GATES = Extent(first=0, rows=40, visible=10)


def keys_of(data: bytes) -> list[str]:
    decoder = Decoder()
    return [*decoder.feed(data), *decoder.flush()]


def pressed(*keys: str, ui: Ui | None = None, extent: Extent = GATES) -> Ui:
    ui = ui or Ui()
    for key in keys:
        ui = press(ui, key, extent)
    return ui


# --- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"jk?/", ["j", "k", "?", "/"]),
        (b"\t\r\x7f\x0c", ["tab", "enter", "backspace", "redraw"]),
        (b"\x1b[A\x1bOB", ["up", "down"]),
        (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
        (b"\x1b[1~\x1b[4~\x1bOH\x1b[F", ["home", "end", "home", "end"]),
        (b"\x1b[Z", ["backtab"]),
        (b"\x1b[1;5A\x1b[5;2~", ["up", "page up"]),
        (b"\x1b", ["escape"]),
        (b"\x1b\x1b", ["escape", "escape"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1bq", ["escape", "q"]),
        ("ä車".encode(), ["ä", "車"]),
        (b"\xff\xfeq", ["q"]),
        (b"\x00\x01", []),
        (b"\x1b[200~x\x1b[201~", ["x"]),
        (b"\x1b[?1;2c\x1b[<0;3;4M", []),
        (b"\x1b[[A", []),
        (b"\x1b[", []),
    ],
    ids=repr,
)
def test_bytes_are_keys(data: bytes, keys: list[str]) -> None:
    assert keys_of(data) == keys


@pytest.mark.parametrize("data", [b"\x1b[A", b"\x1b[1;5Dq", "ä".encode(), b"\x1bOH"])
def test_a_key_that_comes_in_pieces_is_one_key(data: bytes) -> None:
    decoder = Decoder()
    keys = [key for byte in data for key in decoder.feed(bytes([byte]))]
    assert keys == keys_of(data)
    assert not decoder.is_waiting


def test_an_escape_waits_for_what_may_follow() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.is_waiting
    assert decoder.flush() == ["escape"]
    assert not decoder.is_waiting


@given(st.lists(st.binary(max_size=40)))
def test_whatever_a_terminal_sends_little_is_held_and_letters_still_come(
    pieces: list[bytes],
) -> None:
    decoder = Decoder()
    for piece in pieces:
        for key in decoder.feed(piece):
            assert key
            assert key.isprintable()
        assert len(decoder._held) <= SEQUENCE_BYTES_MAX
    decoder.flush()
    assert decoder.feed(b"qq")[-1] == "q"


# --- the terminal --------------------------------------------------------------------------------


@contextmanager
def terminal() -> Iterator[int]:
    leader, follower = pty.openpty()
    try:
        yield follower
    finally:
        os.close(leader)
        os.close(follower)


def test_a_raw_terminal_gives_single_keys_and_is_put_back_as_it_was() -> None:
    with terminal() as fd:
        before = termios.tcgetattr(fd)
        raw = RawTerminal(fd)
        raw.enter()
        local = termios.tcgetattr(fd)[3]
        assert not local & (termios.ECHO | termios.ICANON)
        assert local & termios.ISIG
        raw.leave()
        assert termios.tcgetattr(fd) == before
        raw.leave()
        assert termios.tcgetattr(fd) == before


# --- choices -------------------------------------------------------------------------------------


def test_q_ends_it_also_from_the_help() -> None:
    assert pressed("q").ended
    assert pressed("?", "q").ended


def test_any_key_closes_the_help() -> None:
    assert pressed("?").help
    assert not pressed("?", "x").help


def test_tab_goes_round_and_back() -> None:
    ui = Ui(focus=Panel.LOT)
    there = [press(ui, "tab", GATES).focus]
    assert there == [Panel.MEMBERS]
    assert pressed(*["tab"] * len(Panel), ui=ui).focus is Panel.LOT
    assert pressed("backtab", ui=ui).focus is Panel.EVENTS


@pytest.mark.parametrize("panel", Panel)
def test_a_digit_chooses_a_panel_and_again_gives_it_the_window(panel: Panel) -> None:
    start = Ui(focus=Panel.LOT if panel is not Panel.LOT else Panel.EVENTS)
    digit = str(panel.value)
    once = press(start, digit, GATES)
    assert (once.focus, once.whole) == (panel, False)
    assert press(once, digit, GATES).whole
    assert not pressed(digit, digit, ui=once).whole


@pytest.mark.parametrize("key", ["0", "9", "x", "é", "left", "²"])
def test_other_keys_change_nothing(key: str) -> None:
    assert pressed(key) == Ui()


@pytest.mark.parametrize(
    ("keys", "top"),
    [
        (["j"], 1),
        (["down", "down", "k"], 1),
        (["page down"], 9),
        (["page down"] * 9, 30),
        (["end"], 30),
        (["G", "j", "k"], 29),
        (["end", "home"], 0),
        (["k"], 0),
    ],
    ids=str,
)
def test_scrolling_stays_within_the_panel(keys: list[str], top: int) -> None:
    assert pressed(*keys, ui=Ui(focus=Panel.GATES)).tops[Panel.GATES] == top


def test_events_follow_until_one_scrolls_up_and_again_at_their_end() -> None:
    extent = Extent(first=100, rows=50, visible=10)
    up = pressed("k", extent=extent)
    assert not up.follows
    assert up.tops[Panel.EVENTS] == 139
    assert pressed("j", ui=up, extent=extent).follows
    assert pressed("end", ui=up, extent=extent).follows
    assert pressed("escape", ui=up, extent=extent).follows
    assert pressed("home", ui=up, extent=extent).tops[Panel.EVENTS] == 100


def test_a_filter_is_typed_kept_and_dropped() -> None:
    typed = pressed("/", "q", "s", "x", "backspace")
    assert typed.typing == "qs"
    assert not typed.ended
    assert typed.filter_of(Panel.EVENTS) == "qs"
    kept = pressed("enter", ui=typed)
    assert kept.filter_of(Panel.EVENTS) == "qs"
    assert kept.filter_of(Panel.GATES) == ""
    assert pressed("/", "z", "escape", ui=kept).filter_of(Panel.EVENTS) == "qs"
    assert pressed("/", "z", "clear", "enter", ui=kept).filter_of(Panel.EVENTS) == ""
    assert pressed("escape", ui=kept).filter_of(Panel.EVENTS) == ""


def test_a_filter_has_a_bound() -> None:
    typed = pressed("/", *["x"] * 500)
    assert typed.typing is not None
    assert len(typed.typing) < 100


def test_sorting_goes_round_and_only_where_there_is_a_choice() -> None:
    assert pressed("s", ui=Ui(focus=Panel.MEMBERS)).sort_of(Panel.MEMBERS) == "name"
    assert pressed(*["s"] * 5, ui=Ui(focus=Panel.MEMBERS)).sort_of(Panel.MEMBERS) == "trouble"
    assert pressed("s", ui=Ui(focus=Panel.REPLICAS)) == Ui(focus=Panel.REPLICAS)


def test_the_interval_goes_in_steps_and_ends_at_both_ends() -> None:
    assert pressed("+").interval_s > Ui().interval_s > pressed("-").interval_s
    assert pressed(*["+"] * 50).interval_s == max(INTERVALS_S)
    assert pressed(*["-"] * 50).interval_s == min(INTERVALS_S)
    assert pressed("+", ui=Ui(interval_s=700.0)).interval_s == 700.0


def test_pausing_and_masking_are_switches() -> None:
    assert pressed(" ", "m") == Ui(paused=True, masked=True)
    assert pressed(" ", "m", " ", "m") == Ui()
