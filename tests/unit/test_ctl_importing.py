from __future__ import annotations

import io

import pytest

from parkingd.cli.importing import BadRow, Row, read_rows


def rows(data: bytes | str) -> list[Row | BadRow]:
    source = io.BytesIO(data if isinstance(data, bytes) else data.encode())
    return list(read_rows(source, lambda count: None))


NOON_MS = 1_785_585_600_000


def test_rows_without_a_header_are_plate_gate_and_perhaps_a_time() -> None:
    assert rows("A,1\nB,2,2026-08-01T12:00:00Z\n C , 3 ,\n") == [
        Row(1, "A", 1, None),
        Row(2, "B", 2, NOON_MS),
        Row(3, "C", 3, None),
    ]


def test_a_header_names_the_columns_and_others_are_passed_over() -> None:
    text = "gate,colour,Plate,time\r\n1,red,A,2026-08-01T14:00:00.5+02:00\r\n2,blue,B,\r\n"
    assert rows(text) == [Row(2, "A", 1, NOON_MS + 500), Row(3, "B", 2, None)]


def test_quotes_are_taken_off() -> None:
    assert rows('"A ""1""",1\n"B",2') == [Row(1, 'A "1"', 1, None), Row(2, "B", 2, None)]


def test_json_lines_are_read_and_what_else_they_hold_is_passed_over() -> None:
    first = '{"plate": "A", "gate": 1, "time": "2026-08-01T12:00:00Z", "x": []}'
    second = '{"gate": 2, "plate": "B", "time": null}'
    assert rows(f"{first}\n\n{second}") == [Row(1, "A", 1, NOON_MS), Row(3, "B", 2, None)]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    assert rows(b"\xef\xbb\xbfplate,gate\r\nA,1\r\n") == [Row(2, "A", 1, None)]


def test_an_empty_file_has_no_rows() -> None:
    assert rows("") == []
    assert rows("\n \n") == []
    assert rows("plate,gate\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "A,1,2026-08-01T12:00:00Z,more",
        ",1",
        "A,0",
        "A,-1",
        "A,x",
        "A,1.0",
        "A,99999999999999999999",
        "A,²",
        "A,1,yesterday",
        "A,1,2026-08-01T12:00:00",
        "A,1,1969-12-31T23:59:59Z",
        '"A,1',
        "A" * 65 + ",1",
    ],
)
def test_a_csv_line_that_is_no_row_is_reported_alone(text: str) -> None:
    bad, good = rows(f"{text}\nB,1\n")
    assert isinstance(bad, BadRow)
    assert bad.line == 1
    assert good == Row(2, "B", 1, None)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"plate": "A"}',
        '{"plate": 1, "gate": 1}',
        '{"plate": "A", "gate": "1"}',
        '{"plate": "A", "gate": true}',
        '{"plate": "A", "gate": 1.0}',
        '{"plate": "A", "gate": 1, "time": 5}',
        '{"plate": "\\ud800", "gate": 1}',
        "[" * 3_000,
    ],
)
def test_a_json_line_that_is_no_row_is_reported_alone(text: str) -> None:
    good = '{"plate": "B", "gate": 1}'
    first, bad, last = rows(f"{good}\n{text}\n{good}\n")
    assert isinstance(bad, BadRow)
    assert bad.line == 2
    assert (first.line, last.line) == (1, 3)


def test_bytes_that_are_no_text_and_endless_lines_are_reported_with_their_line() -> None:
    data = b"A,1\n\xff\xfe,1\n" + b"x" * 20_000 + b"\nB,1\n" + b"y" * 4_097
    result = rows(data)
    assert [row.line for row in result] == [1, 2, 3, 4, 5]
    assert [type(row) for row in result] == [Row, BadRow, BadRow, Row, BadRow]


def test_progress_adds_up_to_the_whole_file() -> None:
    seen: list[int] = []
    data = b"A,1\n" + b"x" * 10_000 + b"\n\nB,1"
    list(read_rows(io.BytesIO(data), seen.append))
    assert sum(seen) == len(data)
