"""What a request may say, and what it is answered: on three real daemons that nobody stops."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.daemon.harness import Cluster, Daemon, agree, ctl_plain, until

Trio = tuple[Daemon, ...]

BAD_PLATES = ["", "   ", "---", "ABCDEFGHIJ1234567", "AB😀12", "ABC\x00123", "AB=12", "x" * 4_000]


def test_an_exit_that_matched_no_car_is_listed_and_settled_everywhere(
    trio: tuple[Daemon, ...],
) -> None:
    gary, diane, joe = trio
    gary.read("track", "SETTLE10", 1)
    until(lambda: "SETTLE10" in diane.plates(), "diane has the entry")
    left = diane.read("exit", "SETTLEIO", 2)
    (stay,) = left["alike"]
    assert (left["matched"], stay["plate"]) == ("none", "SETTLE10")

    def listed(daemon: Daemon) -> list[list[str | int]]:
        items = daemon.read("unmatched")["items"]
        return [item["dot"] for item in items if item["plate"] == "SETTLEIO"]

    until(lambda: listed(joe) == [left["dot"]], "joe lists it too")
    program, *words = stay["settle"].split()
    assert program == "parkingd-ctl"
    assert joe.read(*words)["what"] == "SETTLE10 was removed: it left as SETTLEIO"
    for daemon in trio:
        until(lambda daemon=daemon: not listed(daemon), f"{daemon} has it settled")
        assert "SETTLE10" not in daemon.plates()


@pytest.mark.parametrize("verb", ["track", "exit"])
@pytest.mark.parametrize("plate", BAD_PLATES, ids=lambda plate: ascii(plate[:12]))
def test_an_invalid_plate_is_refused_in_one_line_and_nothing_is_recorded(
    trio: Trio, verb: str, plate: str
) -> None:
    gary = trio[0]
    before = gary.plates()
    answer = gary.ctl(verb, plate, 1)
    assert answer.status == 2
    assert answer.error["code"] in ("invalid_plate", "usage")
    assert answer.error["reason"]
    assert gary.plates() == before


def test_where_is_an_invalid_plate_is_a_usage_error(trio: Trio) -> None:
    answer = trio[0].ctl("where", "!!!")
    assert answer.status == 2
    assert answer.error["code"] == "invalid_plate"


def test_one_plate_is_one_car_however_it_is_written(trio: Trio) -> None:
    gary = trio[0]
    assert gary.read("track", "ka 12-ab", 1)["plate"] == "KA12AB"
    assert gary.read("where", "KA.12.AB")["inside"]
    assert gary.read("exit", "ka12ab", 1)["matched"] == "exact"


@pytest.mark.parametrize("gate", [5, 1000, 5000])
def test_an_entry_at_an_unknown_gate_is_not_recorded(trio: Trio, gate: int) -> None:
    gary = trio[0]
    answer = gary.ctl("track", "NOGATE1", gate)
    assert answer.status == 5
    assert answer.error["code"] == "unknown_gate"
    assert "1 to 4" in answer.error["hint"]
    assert gary.ctl("where", "NOGATE1").status == 5


@pytest.mark.parametrize("gate", ["0", "-1", "one"])
def test_an_entry_at_what_is_no_gate_number_is_a_usage_error(trio: Trio, gate: str) -> None:
    answer = trio[0].ctl("track", "NOGATE1", f"--gate={gate}")
    assert answer.status == 2
    assert answer.error["code"] == "usage"


@pytest.mark.parametrize("gate", [5, 1000, 5000])
def test_an_exit_at_an_unknown_gate_is_recorded_with_a_warning(trio: Trio, gate: int) -> None:
    gary = trio[0]
    plate = f"OUT{gate}"
    gary.read("track", plate, 1)
    left = gary.read("exit", plate, gate)
    assert left["matched"] == "exact"
    assert left["warnings"] == ["unknown_gate"]
    assert gary.ctl("where", plate).status == 5


def test_the_exit_of_an_unknown_car_is_recorded_and_reported_as_unmatched(trio: Trio) -> None:
    left = trio[0].read("exit", "NEVERSEEN", 1)
    assert (left["matched"], left["warnings"]) == ("none", ["unmatched"])


def test_a_car_tracked_again_supersedes_with_a_warning(trio: Trio) -> None:
    gary = trio[0]
    gary.read("track", "TWICE1", 1)
    assert gary.read("track", "TWICE1", 2)["warnings"] == ["missed_exit"]
    assert [item["gate"] for item in gary.read("where", "TWICE1")["items"]] == [2]


@pytest.mark.parametrize(
    "words",
    [
        ("lots",),
        ("track", "A1", "1", "--forse"),
        ("track", "A1"),
        ("track", "A1", "one"),
        ("members", "remember", "joe"),
        ("set", "spaces", "0"),
        ("set", "spaces", "-5"),
        ("wait", "--for", "sunshine"),
        ("wait", "--for", "members=many"),
        ("track", "A1", "1", "--request-id", "123"),
        ("lot", "--timeout", "-1"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_error(trio: Trio, words: tuple[str, ...]) -> None:
    where = ("--control", f"ipc://{trio[0].control}", "--json")
    answer = ctl_plain(*words, *where)
    assert answer.status == 2
    assert answer.error["reason"]


def test_the_command_line_of_people_shows_no_json(trio: Trio, shared_cluster: Cluster) -> None:
    environment = {"PARKINGD_CONTROL": f"ipc://{trio[0].control}"}
    answer = shared_cluster.ctl_process("track", "!!!", "1", **environment)
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.startswith("parkingd-ctl: '!!!' is not a plate")
    assert "Traceback" not in answer.err


def test_a_request_repeated_on_another_node_has_one_effect(trio: Trio) -> None:
    gary, diane, _ = trio
    request = ("--request-id", "0a" * 16)
    first = gary.read("track", "ONCE1", 2, *request)
    until(lambda: diane.ctl("where", "ONCE1").status == 0, "diane has it")
    again = diane.read("track", "ONCE1", 2, *request)
    assert again["dot"] == first["dot"]
    assert again["warnings"] == ["repeated"]
    assert len(diane.read("where", "ONCE1")["items"]) == 1

    request = ("--request-id", "0b" * 16)
    first = diane.read("exit", "ONCE1", 2, *request)
    until(lambda: gary.ctl("where", "ONCE1").status == 5, "gary knows that it left")
    again = gary.read("exit", "ONCE1", 2, *request)
    assert (again["dot"], again["matched"]) == (first["dot"], "exact")


def test_a_request_recorded_on_two_nodes_at_once_is_one_stay(trio: Trio) -> None:
    """Neither knew of the other when it answered: the cause makes them one."""
    gary, diane, _ = trio
    clients = [gary.client(), diane.client()]
    try:
        args = {"plate": "ATONCE1", "gate": 1, "request": b"\x0c" * 16}
        for client in clients:
            client.send("track", dict(args))
        for client in clients:
            reply = client.page(1, time.monotonic() + 10)
            assert getattr(reply, "kind", None) == "Entry", reply
    finally:
        for client in clients:
            client.close()
    agree(trio)
    for daemon in trio:
        assert len(daemon.read("where", "ATONCE1")["items"]) == 1
        assert "ATONCE1" not in daemon.read("lot")["conflict_plates"]


@pytest.mark.parametrize("other", [("track", "OTHER2", 1), ("exit", "REUSED1", 1)])
def test_a_request_id_used_for_something_else_is_refused(
    trio: Trio, other: tuple[str, str, int]
) -> None:
    gary = trio[0]
    request = ("--request-id", "0d" * 16)
    gary.read("track", "REUSED1", 1, *request)
    answer = gary.ctl(*other, *request)
    assert answer.status == 6
    assert answer.error["code"] == "request_reused"
    assert gary.ctl("where", "OTHER2").status == 5
    assert gary.ctl("where", "REUSED1").status == 0


def test_the_lot_is_changed_while_it_runs_and_every_node_says_who_did_it(trio: Trio) -> None:
    gary, diane, _ = trio
    spaces = gary.read("lot")["spaces"]
    try:
        change = gary.read(
            "set", "spaces", spaces + 7, "--reason", "level 2", "--if-current", spaces
        )
        assert change["settings"] == [{"key": "spaces", "old": spaces, "new": spaces + 7}]
        answer = gary.ctl("set", "spaces", 9, "--if-current", spaces)
        assert (answer.status, answer.error["code"]) == (6, "not_current")
        gary.read("set", "almost-full", 80, "--clear", 70)
        gary.read("gate", "close", 2, "--reason", "ice")
        agree(trio)
        said = {item["key"]: item for item in diane.read("settings")["items"]}
        assert (said["spaces"]["old"], said["spaces"]["value"]) == (spaces, spaces + 7)
        assert (said["spaces"]["by"], said["spaces"]["reason"]) == ("gary", "level 2")
        assert said["spaces"]["time"] is not None
        assert diane.read("lot")["thresholds"]["almost_full_clear"] == 70
        gate = diane.read("gates")["items"][1]
        assert (gate["gate"], gate["mode"], gate["mode_reason"]) == (2, "closed", "ice")
        denied = diane.ctl("enter", "CLOSED2", 2)
        assert (denied.status, denied.document["reason"]) == (1, "gate_closed")
        diane.read("gate", "open", 2)
        assert diane.ctl("enter", "CLOSED2", 2).status == 0
    finally:
        diane.read("gate", "auto", 2)
        diane.read("set", "almost-full", 90, "--clear", 88)
        diane.read("set", "spaces", spaces)


def test_wait_ends_with_status_4_when_its_time_is_up(trio: Trio) -> None:
    answer = trio[0].ctl("wait", "--for", "members=9", "--for", "ready", timeout_s=0.3)
    assert answer.status == 4
    assert not answer.document["met"]
    met = {item["condition"]: item["met"] for item in answer.document["conditions"]}
    assert met == {"members=9": False, "ready": True}


def test_an_import_reports_bad_lines_and_goes_on(trio: Trio, tmp_path: Path) -> None:
    file = tmp_path / "cars.csv"
    file.write_text(
        "plate,gate,time\n"
        "IMP001,1,2026-08-01T12:00:00Z\n"
        "!!!,1,\n"
        "IMP002,99,\n"
        "IMP003,two,\n"
        "IMP004,1,yesterday\n"
        "IMP005,2,\n"
    )
    gary = trio[0]
    answer = gary.ctl("import", str(file))
    assert answer.status == 1
    result = answer.document
    assert (result["accepted"], result["failed_count"]) == (2, 4)
    assert [row["line"] for row in result["failed"]] == [3, 4, 5, 6]
    assert gary.read("where", "IMP001")["items"][0]["since"].startswith("2026-08-01T12:00:00")

    again = trio[1].ctl("import", str(file)).document
    assert (again["accepted"], again["skipped"]) == (0, 2)


def test_what_is_exported_can_be_imported_elsewhere(
    trio: Trio, tmp_path: Path, cluster: Cluster
) -> None:
    gary = trio[0]
    gary.read("track", "EXP001", 3)
    exported = gary.ctl("export", "--format", "jsonl")
    rows = [json.loads(line) for line in exported.out.splitlines()]
    assert {"plate": "EXP001", "gate": 3} in [
        {key: row[key] for key in ("plate", "gate")} for row in rows
    ]
    file = tmp_path / "cars.jsonl"
    file.write_text(exported.out)
    other = cluster.start("other", "--ephemeral")
    result = other.read("import", str(file))
    assert (result["accepted"], result["failed_count"]) == (len(rows), 0)
    assert sorted(other.ctl("export", "--format", "csv").out.splitlines()) == sorted(
        gary.ctl("export", "--format", "csv").out.splitlines()
    )


def test_ctl_says_at_once_that_nobody_is_there(cluster: Cluster) -> None:
    answer = cluster.ctl_process("status", "--name", "nobody", "--json")
    assert answer.status == 3
    assert answer.error["code"] == "no_daemon"
    assert "parkingd --name nobody" in answer.error["hint"]
