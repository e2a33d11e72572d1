"""parkingd-ctl against a real control server: the JSON, the exit status, the words."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
import zmq

from parkingd.adapters.rundir import ControlLock, control_socket_path
from parkingd.cli import ctl_target
from parkingd.cli.ctl import main
from parkingd.protocol.commands import (
    AskToEnter,
    Correct,
    ReadUnmatched,
    Remove,
    SetGates,
    SetMode,
    SetSpaces,
    SetThreshold,
    Track,
    WaitFor,
)
from parkingd.protocol.outcomes import Decision, ErrorCode, Failure
from tests.adapters.control_fake import NOON, REPLICA, RunningServer, running, vehicle_rows


class Run(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.err))


Ctl = Callable[..., Run]


@pytest.fixture
def ctl(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    """Runs a command line that finds only the daemons of this test."""
    for variable in [name for name in os.environ if name.startswith("PARKINGD_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(ctl_target, "search_dirs", lambda environ: [tmp_path])

    def ctl(*words: str) -> Run:
        capsys.readouterr()
        status = main(words)
        captured = capsys.readouterr()
        return Run(status, captured.out, captured.err)

    return ctl


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    ("line", "kind", "status"),
    [
        ("track ABC123 1", "Entry", 0),
        ("track ABC123 --gate 1", "Entry", 0),
        ("enter ABC123 1", "Decision", 0),
        ("enter ABC123 --gate 1", "Decision", 0),
        ("enter ABC123 99", "Decision", 1),
        ("exit ABC123 1", "Exit", 0),
        ("lot", "Lot", 0),
        ("vehicles", "VehicleList", 0),
        ("where CAR000000", "Vehicle", 0),
        ("where NOBODY", "Vehicle", 5),
        ("conflicts", "ConflictList", 0),
        ("unmatched", "UnmatchedList", 0),
        ("exit GHOST1 2", "Exit", 0),
        ("gates", "GateList", 0),
        ("members", "MemberList", 0),
        ("status", "Status", 0),
        ("digest", "Digest", 0),
        ("discover", "CandidateList", 0),
        ("set spaces 120", "Change", 0),
        ("set gates 6", "Change", 0),
        ("correct ABC123 ABC128", "Change", 0),
        ("remove ABC123", "Change", 0),
        ("wait --for members=1 --for ready", "Wait", 0),
        ("wait --for members=3", "Wait", 4),
        ("wait --for gates=4", "Wait", 0),
        ("backup copy.db", "Backup", 0),
        ("leave", "Left", 0),
        ("version", "Version", 0),
    ],
)
def test_a_command_prints_its_kind_and_exits_as_the_contract_says(
    ctl: Ctl, server: RunningServer, line: str, kind: str, status: int
) -> None:
    run = ctl(*line.split(), "--json")
    assert (run.status, run.err) == (status, "")
    assert run.out.count("\n") == 1
    assert run.json["kind"] == kind
    assert run.json["api"] == "parkingd/v1"
    assert run.json["node"] == "gary"
    assert run.json["at"].endswith("Z")


@pytest.mark.parametrize("output", ["table", "tsv", "jsonl"])
@pytest.mark.parametrize(
    "line",
    [
        "vehicles",
        "lot",
        "status",
        "conflicts",
        "unmatched",
        "exit GHOST1 2",
        "gates",
        "members",
        "digest",
        "where X",
        "enter A 1",
        "enter A 9",
    ],
)
def test_every_answer_can_be_printed_in_every_form(
    ctl: Ctl, server: RunningServer, line: str, output: str
) -> None:
    assert ctl(*line.split(), "-o", output).out


@pytest.mark.parametrize(
    ("line", "code", "status"),
    [
        ("track ABC123 99", "unknown_gate", 5),
        ("members forget nobody", "unknown_member", 5),
        ("members forget joe", "member_alive", 6),
        ("set spaces -5", "usage", 2),
        ("track ABC123 0", "usage", 2),
        ("enter ABC123 0", "usage", 2),
        ("enter ABC123 1 --request-id 00", "usage", 2),
        ("completion", "usage", 2),
        ("set gates 0", "usage", 2),
        ("set gates 1001", "usage", 2),
        ("set doors 4", "usage", 2),
        ("wait --for gates", "usage", 2),
        ("wait", "usage", 2),
        ("stauts", "usage", 2),
        ("lot --timeout 0", "usage", 2),
        ("lot --timeout nan", "usage", 2),
        ("track A 1 --request-id 00", "usage", 2),
        ("track A 1 --request-id " + "zz" * 16, "usage", 2),
        ("remove A --dot 1", "usage", 2),
        ("remove A --exit 1", "usage", 2),
        (f"remove A --dot {'a' * 16}:1 --exit {'a' * 16}:2", "usage", 2),
        ("lot --name joe", "no_daemon", 3),
        ("lot --name gary --cluster other", "no_daemon", 3),
        ("lot --name ../gary", "usage", 2),
        ("lot --control tcp://127.0.0.1:1", "usage", 2),
        ("lot --control ipc:///nowhere/x.ctl", "no_daemon", 3),
        ("import /nowhere", "usage", 2),
    ],
)
def test_what_goes_wrong_has_a_code_a_reason_and_a_status(
    ctl: Ctl, server: RunningServer, line: str, code: str, status: int
) -> None:
    run = ctl(*line.split(), "--json")
    assert (run.status, run.out) == (status, "")
    assert (run.error["kind"], run.error["code"]) == ("Error", code)
    assert run.error["reason"]
    assert "hint" in run.error

    plain = ctl(*line.split())
    assert plain.status == status
    assert plain.err.startswith("parkingd-ctl: ")
    assert "Traceback" not in plain.err


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.INVALID_PLATE, 2),
        (ErrorCode.USAGE, 2),
        (ErrorCode.TIMED_OUT, 4),
        (ErrorCode.UNKNOWN_GATE, 5),
        (ErrorCode.NOT_INSIDE, 5),
        (ErrorCode.UNKNOWN_MEMBER, 5),
        (ErrorCode.REQUEST_REUSED, 6),
        (ErrorCode.ALREADY_INSIDE, 6),
        (ErrorCode.IN_CONFLICT, 6),
        (ErrorCode.MEMBER_ALIVE, 6),
        (ErrorCode.NOT_ANSWERED, 6),
        (ErrorCode.NOT_READY, 6),
        (ErrorCode.DRAINING, 6),
        (ErrorCode.STORAGE_FAILED, 6),
        (ErrorCode.OVERLOADED, 6),
    ],
)
def test_a_failure_of_the_node_has_its_exit_status(
    ctl: Ctl, server: RunningServer, code: str, status: int
) -> None:
    server.node.instead = Failure(code, "because", "do this")
    run = ctl("track", "A", "1", "--json")
    assert (run.status, run.error["code"], run.error["node"]) == (status, code, "gary")


def test_a_time_out_says_with_which_request_id_to_repeat(ctl: Ctl, server: RunningServer) -> None:
    server.node.silent = True
    run = ctl("track", "ABC123", "1", "--timeout", "0.05", "--json")
    assert (run.status, run.error["code"]) == (4, "timed_out")
    assert "may have been recorded" in run.error["reason"]
    (sent,) = server.node.seen
    assert isinstance(sent, Track)
    assert sent.request is not None
    assert f"--request-id {sent.request.hex()}" in run.error["hint"]

    late = ctl("lot", "--timeout", "0.05").err
    assert "may have" not in late
    assert "--timeout" in late


@pytest.mark.parametrize("reason", ["full", "already_inside", "invalid_plate", "no_owner"])
def test_a_denial_exits_1_and_is_an_answer_and_no_error(
    ctl: Ctl, server: RunningServer, reason: str
) -> None:
    server.node.instead = Decision("denied", reason, "ABC123", 1, None, None, None)
    run = ctl("enter", "ABC123", "1", "--json")
    assert (run.status, run.err) == (1, "")
    assert (run.json["decision"], run.json["reason"]) == ("denied", reason)


def test_a_decision_is_one_line_for_people(ctl: Ctl, server: RunningServer) -> None:
    run = ctl("enter", "ABC123", "1", "-o", "table")
    assert (run.status, run.err) == (0, "")
    assert run.out == "admitted ABC123 at gate 1 (gary, epoch 7): 98 free\n"
    run = ctl("enter", "ABC123", "9", "-o", "table")
    assert (run.status, run.err) == (1, "")
    assert run.out == "denied ABC123 at gate 9: the lot has no such gate\n"


@pytest.mark.parametrize("output", ["table", "tsv"])
@pytest.mark.parametrize("reason", ["no_owner", "not_ready"])
def test_who_got_no_decision_is_told_to_repeat_the_request(
    ctl: Ctl, server: RunningServer, reason: str, output: str
) -> None:
    server.node.instead = Decision("denied", reason, "A", 1, None, None, None, hint="again")
    run = ctl("enter", "A", "1", "-o", output)
    assert run.status == 1
    (sent,) = server.node.seen
    assert isinstance(sent, AskToEnter)
    assert sent.request is not None
    (advice,) = run.err.splitlines()
    assert "may have been admitted" in advice
    assert f"--request-id {sent.request.hex()}" in advice
    assert ctl("enter", "A", "1", "--json").json["hint"] == "again"


def test_who_was_denied_by_a_decision_is_not_told_to_repeat_it(
    ctl: Ctl, server: RunningServer
) -> None:
    server.node.instead = Decision("denied", "full", "A", 1, 7, "gary", 0)
    assert ctl("enter", "A", "1").err == ""
    server.node.instead = Decision("denied", "draining", "A", 1, None, None, 0, hint="ask \x1b")
    assert ctl("enter", "A", "1").err == "  ask \\x1b\n"


def test_a_time_out_of_enter_says_that_the_car_may_have_been_admitted(
    ctl: Ctl, server: RunningServer
) -> None:
    server.node.silent = True
    run = ctl("enter", "ABC123", "1", "--timeout", "0.05", "--json")
    assert (run.status, run.error["code"]) == (4, "timed_out")
    assert "may have been admitted" in run.error["reason"]
    (sent,) = server.node.seen
    assert isinstance(sent, AskToEnter)
    assert sent.request is not None
    assert f"--request-id {sent.request.hex()}" in run.error["hint"]


def test_the_id_of_an_enter_is_new_each_time_or_the_given_one(
    ctl: Ctl, server: RunningServer
) -> None:
    given = "0123456789abcdef" * 2
    assert ctl("enter", "A", "1", "--request-id", given, "--json").json["request"] == given
    ids = {ctl("enter", "A", "1", "--json").json["request"] for _ in range(2)}
    assert len(ids | {given}) == 3


def test_the_gates_are_shown_with_what_is_wrong_in_words(ctl: Ctl, server: RunningServer) -> None:
    table = ctl("gates", "-o", "table").out
    assert "contested  claimed by gary, joe" in table
    assert "unowned    nobody serves it" in table
    assert "moving     to gary" in table
    status = dict(line.split(maxsplit=1) for line in ctl("status", "-o", "table").out.splitlines())
    assert status["gates.owned"] == "1, 2"
    assert status["gates.unowned"] == "3: nobody serves it"
    assert status["gates.contested"] == "none"


@pytest.mark.parametrize(
    "given", ["0123456789abcdef" * 2, "01234567-89AB-CDEF-0123-456789abcdef"], ids=["hex", "uuid"]
)
def test_the_request_id_that_is_given_is_sent(ctl: Ctl, server: RunningServer, given: str) -> None:
    ctl("track", "ABC123", "1", "--request-id", given)
    ctl("track", "ABC123", "1")
    ctl("track", "ABC123", "1")
    ids = [command.request for command in server.node.seen if isinstance(command, Track)]
    assert ids[0] == bytes.fromhex("0123456789abcdef" * 2)
    assert len(set(ids)) == 3


def test_arguments_reach_the_node_as_they_were_given(ctl: Ctl, server: RunningServer) -> None:
    ctl("correct", "abc 123", "ÄB-9")
    ctl("remove", "X", "--dot", f"{REPLICA:016x}:7")
    ctl("wait", "--for", "inside>=1", "--for", "gates=4", "--for", "synced")
    ctl("set", "gates", "6")
    ctl("enter", "abc 123", "3")
    ctl("remove", "X", "--exit", f"{REPLICA:016x}:8")
    correct, remove, wait, gates, enter, settle = server.node.seen
    assert isinstance(settle, Remove)
    assert (settle.dot, settle.exit) == (None, (REPLICA, 8))
    assert isinstance(correct, Correct)
    assert (correct.old_plate, correct.new_plate) == ("abc 123", "ÄB-9")
    assert isinstance(remove, Remove)
    assert remove.dot == (REPLICA, 7)
    assert isinstance(wait, WaitFor)
    assert [(each.key, each.value, each.at_least) for each in wait.conditions] == [
        ("inside", 1, True),
        ("gates", 4, False),
        ("synced", 1, True),
    ]
    assert isinstance(gates, SetGates)
    assert gates.gates == 6
    assert isinstance(enter, AskToEnter)
    assert (enter.plate, enter.gate) == ("abc 123", 3)


def test_settings_and_gates_reach_the_node_as_they_were_given(
    ctl: Ctl, server: RunningServer
) -> None:
    ctl("set", "spaces", "120", "--if-current", "100", "--reason", " fair week ")
    ctl("set", "almost-full", "85", "--clear", "80")
    ctl("set", "full", "97", "--if-current", "100")
    ctl("gate", "close", "3", "--reason", "ice")
    ctl("gate", "auto", "3", "--if-current", "closed")
    seen = [replace(command, request=None) for command in server.node.seen]  # type: ignore[type-var, call-arg]
    assert seen == [
        SetSpaces(120, None, 100, "fair week"),
        SetThreshold("almostfull", 85, 80, None),
        SetThreshold("full", 97, None, None, 100),
        SetMode(3, "closed", None, "ice"),
        SetMode(3, "auto", None, "", "closed"),
    ]
    table = ctl("settings", "-o", "table").out.splitlines()
    assert table[1].split() == ["spaces", "120", "100", "gary", NOON, "fair", "week"]
    assert table[2].split() == ["full", "100", "-", "-", "-"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "spaces", "9", "--clear", "8"), "spaces has no --clear"),
        (("set", "full", "90", "--clear", "91"), "cannot be clear at 91 % when it begins at 90 %"),
        (("set", "almostfull", "9"), "did you mean almost-full?"),
        (("gate", "closed", "2"), "did you mean close?"),
        (("gate", "open", "two"), "is a whole number"),
        (("gate", "open", "2", "--if-current", "close"), "did you mean closed?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_setting_that_makes_no_sense_is_one_error_before_anybody_is_asked(
    ctl: Ctl, server: RunningServer, words: tuple[str, ...], said: str
) -> None:
    run = ctl(*words)
    assert (run.status, server.node.seen) == (2, [])
    assert said in run.err


def test_who_left_unseen_is_shown_what_it_may_have_been_and_how_to_say_so(
    ctl: Ctl, server: RunningServer
) -> None:
    run = ctl("exit", "GHOST1", "2", "-o", "table")
    assert run.status == 0
    assert "alike    CAR000000,CAR000001\n" in run.out
    assert "parkingd-ctl remove CAR000000 --exit 00000000000000ab:31\n" in run.err
    assert server.node.seen[-1] == ReadUnmatched((REPLICA, 31))
    stays = ctl("exit", "GHOST1", "2", "--json").json["alike"]
    assert [stay["plate"] for stay in stays] == ["CAR000000", "CAR000001"]
    matched = ctl("exit", "ABC123", "2", "-o", "table")
    assert "alike" not in matched.out
    assert matched.err == ""


def test_an_exit_is_shown_though_nobody_says_what_it_may_have_been(
    ctl: Ctl, server: RunningServer
) -> None:
    server.node.is_busy = True
    run = ctl("exit", "GHOST1", "2", "-o", "table")
    assert (run.status, "alike" in run.out) == (0, False)
    assert "matched  none" in run.out
    assert "too much to do" in run.err


def test_what_has_to_be_settled_is_a_line_for_each_choice_and_its_command(
    ctl: Ctl, server: RunningServer
) -> None:
    head, first, second = ctl("conflicts", "-o", "table").out.splitlines()
    assert head.split()[:2] == ["PLATE", "SINCE"]
    assert first.endswith("parkingd-ctl remove TWICE1 --dot 00000000000000ab:3")
    assert second.endswith("parkingd-ctl remove TWICE1 --dot 0000000000000002:9")
    head, *lines = ctl("unmatched", "-o", "table").out.splitlines()
    assert [line.split()[1] for line in lines] == ["GHOST1", "GHOST1", "GHOST2"]
    assert lines[1].endswith("parkingd-ctl remove CAR000001 --exit 00000000000000ab:31")
    assert lines[2].split()[-3:] == ["-", "-", "-"]


def test_when_there_is_nothing_to_settle_that_is_said(ctl: Ctl, server: RunningServer) -> None:
    server.node.conflicts = server.node.unmatched = ()
    for command, words in (("conflicts", "no plate is inside"), ("unmatched", "every exit of")):
        run = ctl(command, "-o", "table")
        assert (run.status, run.err) == (0, "")
        assert words in run.out
        assert ctl(command, "--json").json["items"] == []


def test_bytes_that_are_no_text_are_a_usage_error(ctl: Ctl, server: RunningServer) -> None:
    assert ctl("where", "\udcff").status == 2


@pytest.mark.parametrize("words", [("track", "A1", "9" * 20), ("enter", "A" * 70_000, "1")])
def test_what_no_frame_can_carry_is_a_usage_error_at_once(
    ctl: Ctl, server: RunningServer, words: tuple[str, ...]
) -> None:
    run = ctl(*words, "--json")
    assert (run.status, run.error["code"]) == (2, "usage")
    assert run.error["hint"]


def test_warnings_go_to_standard_error_and_into_json(ctl: Ctl, server: RunningServer) -> None:
    assert "(missed_exit)" in ctl("track", "ABC123", "1").err
    assert ctl("track", "ABC123", "1", "--json").json["warnings"] == ["missed_exit"]


def test_a_backup_is_asked_for_with_an_absolute_path(
    ctl: Ctl, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ctl("backup", "copy.db", "--json").json["path"] == str(tmp_path / "copy.db")


def test_the_version_of_both_sides_is_shown_and_ours_also_without_a_daemon(ctl: Ctl) -> None:
    run = ctl("version", "--json")
    assert (run.status, run.json["daemon"]) == (3, None)
    assert run.json["version"]
    assert ctl("--version").status == 0


def test_the_only_daemon_is_meant_when_none_is_named(ctl: Ctl, tmp_path: Path) -> None:
    nobody = ctl("lot")
    assert (nobody.status, nobody.out) == (3, "")
    assert "start one: parkingd (" in nobody.err
    one = ctl("lot", "--name", "joe", "--cluster", "east")
    assert "start one: parkingd --name joe --cluster east (" in one.err
    ControlLock.acquire(control_socket_path(tmp_path, "default", "crashed")).release()
    with running(tmp_path, cluster="east"):
        assert ctl("lot").status == 0
        assert ctl("lot", "--name", "gary").status == 0
        assert ctl("lot", "--name", "gary", "--cluster", "east").status == 0
        assert "running here: gary" in ctl("lot", "--name", "joe").err


def test_several_daemons_are_listed(ctl: Ctl, tmp_path: Path, server: RunningServer) -> None:
    with running(tmp_path, "joe"):
        run = ctl("lot")
        assert run.status == 2
        assert "gary" in run.err
        assert "joe" in run.err
        assert "--name" in run.err
        assert ctl("lot", "--name", "joe").status == 0
    with running(tmp_path, "gary", "east"):
        run = ctl("lot", "--name", "gary")
        assert (run.status, "--cluster" in run.err) == (2, True)
        assert ctl("lot", "--name", "gary", "--cluster", "east").status == 0


def test_the_environment_stands_in_for_flags(
    ctl: Ctl, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARKINGD_NAME", "joe")
    assert ctl("lot").status == 3
    assert ctl("lot", "--name", "gary").status == 0
    monkeypatch.setenv("PARKINGD_CONTROL", f"ipc://{server.path}")
    assert ctl("lot").status == 0
    assert ctl("lot", "--name", "joe").status == 3
    monkeypatch.setenv("PARKINGD_OUTPUT", "json")
    assert ctl("lot").json["kind"] == "Lot"
    assert ctl("stauts").error["code"] == "usage"
    monkeypatch.setenv("PARKINGD_TIMEOUT", "soon")
    assert ctl("lot").status == 2


def test_what_the_daemon_cannot_read_is_said_in_the_words_that_were_typed(
    ctl: Ctl, server: RunningServer
) -> None:
    complaint, advice = ctl("gate", "close", "0").err.splitlines()
    assert complaint == f"parkingd-ctl: gate is not an integer of 1 to {2**31 - 1}"
    assert advice == "  see parkingd-ctl gate --help"


@contextmanager
def newer_daemon(path: Path) -> Iterator[None]:
    """It answers everything, in a version of the control protocol that is to come."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{path}")
    stopped = threading.Event()

    def answer() -> None:
        while not stopped.is_set():
            if router.poll(20):
                sender, _ = router.recv_multipart()
                router.send_multipart([sender, msgpack.packb({"v": 2, "id": 1, "last": True})])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        context.destroy(linger=0)


@pytest.mark.parametrize("line", ["lot", "track ABC123 1", "watch", "top --once"])
def test_a_daemon_of_another_version_is_no_daemon_for_this_command(
    ctl: Ctl, tmp_path: Path, line: str
) -> None:
    path = tmp_path / "newer.ctl"
    with newer_daemon(path):
        run = ctl(*line.split(), "--control", f"ipc://{path}")
    assert run.status == 3
    complaint, advice = run.err.splitlines()
    assert complaint == "parkingd-ctl: newer answered in another version of the control protocol"
    assert advice == "  use the parkingd-ctl of the daemon's version"


def test_a_socket_of_another_user_is_not_permitted(
    ctl: Ctl, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert ctl("lot").status == 7


def test_a_lock_of_another_user_is_not_permitted_where_no_other_daemon_is_meant(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default/gary.lock").touch()
    where = ("--runtime-dir", str(tmp_path), "lot")
    assert ctl(*where).status == 3
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert ctl(*where).status == 7
    assert ctl(*where, "--name", "larry").status == 3
    run = ctl(*where, "--name", "gary")
    assert run.status == 7
    assert run.err.startswith("parkingd-ctl: no daemon named gary of this user runs here, and ")


def test_colour_is_used_when_asked_for(ctl: Ctl, server: RunningServer) -> None:
    assert "\x1b[32malive" in ctl("members", "-o", "table", "--color", "always").out
    assert "\x1b" not in ctl("members", "-o", "table").out
    assert "\x1b" not in ctl("discover", "-o", "table", "--color", "always").err


def test_help_goes_to_standard_output(ctl: Ctl) -> None:
    for words in (["--help"], ["-h"], ["track", "--help"]):
        run = ctl(*words)
        assert (run.status, run.err) == (0, "")
        assert "Examples:" in run.out


def rows_of(server: RunningServer) -> int:
    return len(server.node.requests)


CSV = "plate,gate,time\nABC1,1,2026-08-01T12:00:00Z\nABC2,2,\n\nABC3,9,\n,1,\nABC4,x,\n"


def test_an_import_reports_bad_rows_with_their_lines_and_goes_on(
    ctl: Ctl, server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "cars.csv").write_text(CSV)
    run = ctl("import", str(tmp_path / "cars.csv"), "--json")
    assert run.status == 1
    assert run.json["kind"] == "ImportResult"
    assert (run.json["accepted"], run.json["skipped"], run.json["failed_count"]) == (2, 0, 3)
    assert [row["line"] for row in run.json["failed"]] == [5, 6, 7]

    plain = ctl("import", str(tmp_path / "cars.csv"))
    assert plain.status == 1
    assert f"{tmp_path}/cars.csv:7: " in plain.err


def test_the_same_file_imported_again_is_skipped_row_by_row(
    ctl: Ctl, server: RunningServer, tmp_path: Path
) -> None:
    lines = [f"CAR{number},{number % 4 + 1}" for number in range(5_250)]
    (tmp_path / "cars.csv").write_text("\n".join(lines))
    first = ctl("import", str(tmp_path / "cars.csv"), "--json")
    assert (first.status, first.json["accepted"], first.json["skipped"]) == (0, 5_250, 0)
    again = ctl("import", str(tmp_path / "cars.csv"), "--json")
    assert (again.status, again.json["accepted"], again.json["skipped"]) == (0, 0, 5_250)


def test_an_import_reads_standard_input(
    ctl: Ctl, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b'{"plate": "A", "gate": 1, "time": "2026-08-01T12:00:00+02:00"}\nnonsense\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    run = ctl("import", "-", "--json")
    assert (run.status, run.json["accepted"]) == (1, 1)
    assert run.json["failed"] == [{"line": 2, "reason": "not JSON"}]


def test_an_import_that_is_refused_stops_and_says_that_it_can_be_repeated(
    ctl: Ctl, server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "cars.csv").write_text("A,1\n")
    server.node.instead = Failure(ErrorCode.DRAINING, "this node is leaving")
    run = ctl("import", str(tmp_path / "cars.csv"), "--json")
    assert (run.status, run.error["code"]) == (6, "draining")
    assert "again" in run.error["hint"]


def test_an_import_of_the_longest_plates_fits_the_frames(
    ctl: Ctl, server: RunningServer, tmp_path: Path
) -> None:
    lines = [f"{chr(0x1F600) * 60}{number:04d},1" for number in range(1_000)]
    (tmp_path / "cars.csv").write_text("\n".join(lines))
    assert ctl("import", str(tmp_path / "cars.csv"), "--json").json["accepted"] == 1_000


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_what_is_exported_can_be_imported(
    ctl: Ctl, server: RunningServer, tmp_path: Path, form: str
) -> None:
    server.node.rows = vehicle_rows(2_500)
    run = ctl("export", "--format", form)
    assert run.status == 0
    (tmp_path / "cars").write_text(run.out)
    assert ctl("import", str(tmp_path / "cars"), "--json").json["accepted"] == 2_500
    (first, *_) = server.node.seen[1].rows  # type: ignore[union-attr]
    plate, since, gate, *_ = server.node.rows[0]
    assert (first.plate, first.gate, first.since_ms) == (plate, gate, since)


def test_the_event_log_is_exported(ctl: Ctl, server: RunningServer) -> None:
    lines = ctl("export", "--log").out.splitlines()
    assert lines[0] == "time,type,plate,gate,replica,seq,detail"
    assert lines[1].endswith(",join,,,00000000000000ab,1,'=1+1"), "no spreadsheet computes it"
    assert lines[2] == "2026-08-01T12:00:00.000Z,enter,ABC123,1,00000000000000ab,2,"
    events = [json.loads(line) for line in ctl("export", "--log", "--json").out.splitlines()]
    assert [(event["kind"], event["type"]) for event in events] == [
        ("Event", "join"),
        ("Event", "enter"),
    ]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_event_log_that_is_empty_says_where_the_rest_is(
    ctl: Ctl, server: RunningServer, form: str
) -> None:
    assert ctl("export", "--log", "--format", form).err == ""
    server.node.log_is_empty = True
    run = ctl("export", "--log", "--format", form)
    assert run.status == 0
    assert "parkingd-ctl log" in run.err


def process(server: RunningServer, code: str, *words: str, **options: Any) -> Run:
    command = [sys.executable, "-c", code, *words, "--control", f"ipc://{server.path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return Run(done.returncode, done.stdout, done.stderr)


PROGRAM = "import sys; from parkingd.cli.ctl import main; sys.exit(main())"

SLOW_TO_LOAD = [
    "asyncio",
    "dataclasses",
    "dns",
    "hashlib",
    "inspect",
    "logging",
    "parkingd.adapters.control",
    "parkingd.adapters.documents",
    "parkingd.core.events",
    "parkingd.protocol.commands",
    "parkingd.protocol.messages",
    "parkingd.protocol.outcomes",
    "rich",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "zeroconf",
    "zmq.asyncio",
]


@pytest.mark.parametrize(
    "line", ["lot", "track ABC123 1", "enter A 1", "vehicles", "status --json"]
)
def test_a_one_shot_command_loads_nothing_that_is_slow_to_load(
    server: RunningServer, line: str
) -> None:
    code = (
        "import sys; from parkingd.cli.ctl import main; main();"
        f"print(sorted(set({SLOW_TO_LOAD!r}) & set(sys.modules)))"
    )
    assert process(server, code, *line.split()).out.splitlines()[-1] == "[]"


def test_a_reader_that_has_enough_is_no_error(server: RunningServer) -> None:
    server.node.rows = vehicle_rows(20_000)
    command = [sys.executable, "-c", PROGRAM, "vehicles", "--control", f"ipc://{server.path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ctl:
        assert ctl.stdout is not None
        assert ctl.stderr is not None
        assert ctl.stdout.readline().startswith(b"plate\t")
        ctl.stdout.close()
        assert ctl.stderr.read() == b""
    assert ctl.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
def test_output_that_cannot_be_written_is_said_to_be(server: RunningServer) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", PROGRAM, "lot", "--control", f"ipc://{server.path}"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_is_one_line_and_not_a_traceback(server: RunningServer) -> None:
    code = (
        "import sys; from parkingd.cli import ctl; ctl.run = lambda *_: 1 / 0; sys.exit(ctl.main())"
    )
    run = process(server, code, "lot")
    assert run.status == 70
    assert "this is a bug: ZeroDivisionError" in run.err
    assert "Traceback" not in run.err


def test_an_interruption_exits_130_and_names_the_request_id(
    ctl: Ctl, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("parkingd.adapters.client.ControlClient.call", interrupt)
    run = ctl("track", "A", "1")
    assert run.status == 130
    assert "may have been recorded" in run.err
    assert "--request-id" in run.err
    assert "may have been admitted" in ctl("enter", "A", "1").err
    assert ctl("lot").status == 130
