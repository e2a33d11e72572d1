"""A day's figures become movements that add up to them, and the same ones whenever asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import pytest
from car_park_day import (
    AWAY_MIN,
    GATES,
    LANE_COMPUTERS,
    STAY_MIN,
    Reading,
    hours_of,
    plates,
    read_day,
    steps_of,
)
from replay_day import DATA, DAYS, TABLE_HEAD, hour_row, table_line

from parkingd.core.plates import normalise_plate

MIDNIGHT = datetime(2025, 12, 20, tzinfo=UTC)
every_day = pytest.mark.parametrize("day", DAYS)


def readings_of(day: str) -> list[Reading]:
    return read_day(DATA / DAYS[day].file, DAYS[day].spaces)


def reading(hour: int, minute: int, second: int, occupied: int) -> Reading:
    return Reading(MIDNIGHT.replace(hour=hour, minute=minute, second=second), occupied)


def lot(inside: int, spaces: int, state: str) -> dict[str, object]:
    return {"inside": inside, "overbooked": max(0, inside - spaces), "state": state}


# --- the figures -----------------------------------------------------------------------------


def test_every_file_is_a_day_and_its_page_names_the_spaces_assumed() -> None:
    assert {park.file for park in DAYS.values()} == {path.name for path in DATA.glob("*.csv")}
    page = (DATA / "README.md").read_text()
    for park in DAYS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{park.file}`"))
        assert f"| {park.spaces} |" in row


@every_day
def test_readings_are_of_one_day_and_in_order(day: str) -> None:
    times = [each.at for each in readings_of(day)]
    assert all(earlier < later for earlier, later in pairwise(times))
    assert len({at.date() for at in times}) == 1


def test_a_negative_figure_is_more_cars_than_spaces(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text("timestamp,free_spaces\n2025-12-20T07:45:01+00:00,-30\n")
    (only,) = read_day(file, 401)
    assert only.occupied == 431


def test_more_free_spaces_than_there_are_mean_that_nobody_is_inside(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text("timestamp,free_spaces\n2025-12-20T03:00:01+00:00,405\n")
    (only,) = read_day(file, 401)
    assert only.occupied == 0


# --- the movements ---------------------------------------------------------------------------


@every_day
def test_movements_add_up_to_every_reading(day: str) -> None:
    inside = 0
    for step in steps_of(readings_of(day), seed=1):
        inside += sum(1 if each.enters else -1 for each in step.movements)
        assert inside == step.reading.occupied


@every_day
def test_only_a_car_inside_leaves_and_only_a_car_outside_enters(day: str) -> None:
    inside: set[str] = set()
    for step in steps_of(readings_of(day), seed=1):
        for each in step.movements:
            assert (each.plate in inside) is not each.enters
            (inside.add if each.enters else inside.remove)(each.plate)


@every_day
def test_movements_of_one_step_are_of_different_cars_in_one_direction(day: str) -> None:
    for step in steps_of(readings_of(day), seed=1):
        assert len({each.plate for each in step.movements}) == len(step.movements)
        assert len({each.enters for each in step.movements}) <= 1


@every_day
def test_nobody_leaves_at_once_while_somebody_else_can(day: str) -> None:
    since: dict[str, datetime] = {}
    for step in steps_of(readings_of(day), seed=1):
        at = step.reading.at
        for each in step.movements:
            if each.enters:
                since[each.plate] = at
                continue
            somebody_can = any(at - entered >= STAY_MIN for entered in since.values())
            assert at - since.pop(each.plate) >= STAY_MIN or not somebody_can


def test_some_cars_come_back_and_none_at_once() -> None:
    left: dict[str, datetime] = {}
    away: list[timedelta] = []
    for step in steps_of(readings_of("trier"), seed=1):
        for each in step.movements:
            if not each.enters:
                left[each.plate] = step.reading.at
            elif each.plate in left:
                away.append(step.reading.at - left[each.plate])
    assert away
    assert min(away) >= AWAY_MIN


def test_gates_and_lanes_take_turns() -> None:
    movements = [each for step in steps_of(readings_of("ulm"), seed=1) for each in step.movements]
    for number, each in enumerate(movements):
        assert (each.gate, each.lane) == (number % GATES + 1, number % LANE_COMPUTERS)


def test_no_request_id_is_used_twice() -> None:
    movements = [each for step in steps_of(readings_of("ulm"), seed=1) for each in step.movements]
    assert len({each.request for each in movements}) == len(movements)
    assert {len(each.request) for each in movements} == {16}


def test_a_seed_gives_the_same_day_again_and_another_seed_another_day() -> None:
    readings = readings_of("ulm")
    once, again, other = (list(steps_of(readings, seed)) for seed in (1, 1, 2))
    assert once == again
    assert once != other


# --- plates ----------------------------------------------------------------------------------


def test_plates_have_seven_or_eight_letters_or_digits_and_are_all_different() -> None:
    keys = [normalise_plate(plate) for plate in islice(plates(Random(1)), 5_000)]
    assert {len(key) for key in keys if key is not None} == {7, 8}
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_plates_are_the_same_for_the_same_seed_only() -> None:
    once, again, other = (list(islice(plates(Random(seed)), 50)) for seed in (1, 1, 2))
    assert once == again
    assert once != other


# --- hours -----------------------------------------------------------------------------------


def test_a_reading_a_second_past_the_hour_ends_that_hour() -> None:
    steps = list(
        steps_of([reading(0, 0, 2, 3), reading(12, 0, 2, 5), reading(12, 5, 1, 9)], seed=1)
    )
    hours = hours_of(steps)
    assert [hour.end for hour in hours] == list(range(25))
    assert (hours[0].steps, hours[12].steps, hours[13].steps) == tuple((each,) for each in steps)


def test_an_hour_without_readings_keeps_the_last_figure() -> None:
    hours = hours_of(list(steps_of([reading(0, 0, 1, 3), reading(4, 30, 1, 7)], seed=1)))
    assert [hour.operator for hour in hours[:7]] == [3, 3, 3, 3, 3, 7, 7]


@every_day
def test_every_movement_of_the_day_is_in_one_of_its_hours(day: str) -> None:
    steps = list(steps_of(readings_of(day), seed=1))
    assert [step for hour in hours_of(steps) for step in hour.steps] == steps


# --- the table -------------------------------------------------------------------------------


def test_a_row_has_the_operators_figure_ours_and_the_difference_under_its_heading() -> None:
    hour = hours_of(list(steps_of([reading(0, 0, 1, 3), reading(6, 30, 1, 381)], seed=1)))[7]
    row = hour_row(hour, lot(379, 401, "almost_full"))
    assert row == ("07:00", 381, 379, -2, "almost_full")
    assert table_line(row).split() == ["07:00", "381", "379", "-2", "almost_full"]
    for heading in ("UTC", "operator", "ours", "difference"):
        end = TABLE_HEAD.index(heading) + len(heading)
        assert table_line(row)[end - 1] != " "
        assert table_line(row)[end] == " "


def test_a_row_says_by_how_much_the_lot_is_overbooked() -> None:
    hour = hours_of(list(steps_of([reading(0, 0, 1, 431)], seed=1)))[0]
    row = hour_row(hour, lot(431, 401, "full"))
    assert (row.difference, row.lot) == (0, "overbooked by 30")
