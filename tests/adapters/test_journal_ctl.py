"""`watch` and `log` against a daemon that has nothing but a journal."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from parkingd.cli.ctl import main
from tests.adapters.control_fake import NOON, eventually
from tests.adapters.journal_fake import JournalDaemon, event, journal_daemon

PROGRAM = "import sys; from parkingd.cli.ctl import main; sys.exit(main())"

LATER = "2026-08-01T12:00:01.000Z"

SAYS = """
printf '%s %s %s %s|' "$PARKINGD_SEQ" "$PARKINGD_TYPE" "$PARKINGD_PLATE" "$PARKINGD_GATE"
"""
"""What a hook writes of its event, to standard error of the test's process."""


class Run(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [dict(json.loads(line)) for line in self.out.splitlines()]

    @property
    def seqs(self) -> list[int]:
        return [each["seq"] for each in self.objects]


Ctl = Callable[..., Run]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[JournalDaemon]:
    with journal_daemon(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def ctl(daemon: JournalDaemon, capfd: pytest.CaptureFixture[str]) -> Ctl:
    """Also what the programs write that it runs."""

    def ctl(*words: str) -> Run:
        capfd.readouterr()
        place = words.index("--") if "--" in words else len(words)
        where = ("--control", f"ipc://{daemon.path}")
        status = main([*words[:place], *where, *words[place:]])
        captured = capfd.readouterr()
        return Run(status, captured.out, captured.err)

    return ctl


def start(daemon: JournalDaemon, *words: str) -> subprocess.Popen[str]:
    place = words.index("--") if "--" in words else len(words)
    where = ("--control", f"ipc://{daemon.path}")
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words[:place], *where, *words[place:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- watch ---------------------------------------------------------------------------------------


def test_watch_begins_with_now_and_tells_what_comes_one_object_a_line(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(1), event(2)]
    later = threading.Timer(0.1, daemon.events.extend, ([event(3, reason="ok"), event(4)],))
    later.start()
    run = ctl("watch", "--json", "--count", "1")
    later.join()
    assert (run.status, run.err) == (0, "")
    assert run.objects == [
        {
            "api": "parkingd/v1",
            "kind": "Event",
            "node": "gary",
            "at": NOON,
            **event(3, reason="ok"),
        }
    ]


def test_watch_goes_on_from_a_number_and_its_filters_reach_the_daemon(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(seq, "exited" if seq % 2 else "denied") for seq in range(1, 9)]
    line = "watch --from 4 --type denied,warning --type Denied --plate CAR1 --count 3 --json"
    assert ctl(*line.split()).seqs == [4, 6, 8]
    (asked,) = daemon.asked
    assert asked["types"] == ["denied", "warning"]
    assert (asked["after"], asked["plate"]) == (3, "CAR1")


def test_a_reader_that_fell_behind_is_told_what_it_missed(ctl: Ctl, daemon: JournalDaemon) -> None:
    daemon.events += [event(seq) for seq in range(8, 11)]
    told = ctl("watch", "--from", "3", "--count", "2", "--json").objects
    assert told[0] | {"at": 0} == {
        "api": "parkingd/v1",
        "kind": "Event",
        "node": "gary",
        "at": 0,
        "type": "missed",
        "seq": 7,
        "first": 3,
        "count": 5,
        "time": NOON,
    }
    assert [each["seq"] for each in told[1:]] == [8, 9]
    run = ctl("watch", "--from", "3", "--count", "2", "-o", "tsv")
    assert "missed 5 events, 3 to 7" in run.err
    assert len(run.out.splitlines()) == 3


def test_watch_waits_for_a_daemon_that_is_restarted_and_goes_on_where_it_was(
    daemon: JournalDaemon,
) -> None:
    daemon.events.append(event(1))
    with start(daemon, "watch", "--from", "1", "--count", "3", "--json") as ctl:
        assert ctl.stdout is not None
        assert ctl.stderr is not None
        assert json.loads(ctl.stdout.readline())["seq"] == 1
        daemon.stop()
        note = json.loads(ctl.stderr.readline())
        daemon.events += [event(2), event(3)]
        daemon.start()
        told = [json.loads(line)["seq"] for line in ctl.stdout]
        assert (note["kind"], note["code"]) == ("Note", "reconnecting")
        assert json.loads(ctl.stderr.readline())["code"] == "reconnected"
        assert told == [2, 3]
    assert ctl.returncode == 0


def test_a_daemon_that_does_not_come_back_is_given_up_with_the_number_to_go_on_with(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events.append(event(6))
    stopper = threading.Timer(0.1, daemon.stop)
    stopper.start()
    run = ctl("watch", "--from", "6", "--reconnect", "0.3", "-o", "tsv")
    stopper.join()
    assert run.status == 3
    first, *_ = run.err.splitlines()
    assert first.endswith("; waiting up to 0.3 s for it")
    assert "--from 7" in run.err


def test_a_daemon_that_hangs_is_given_up_too(
    ctl: Ctl, daemon: JournalDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parkingd.cli.journal.GRACE_S", 0.05)
    daemon.events.append(event(1))
    daemon.answers = False
    run = ctl("watch", "--from", "1", "--reconnect", "0.2", "--timeout", "0.1")
    assert run.status == 4
    assert run.err.count("waiting up to") == 1


def test_a_journal_that_was_begun_anew_is_read_from_its_beginning(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(1), event(2)]
    run = ctl("watch", "--from", "500", "--count", "2", "--json")
    assert run.seqs == [1, 2]
    assert "begun anew" in run.err


@pytest.mark.parametrize(
    ("kept", "told", "says"),
    [
        ([event(seq, time=LATER) for seq in range(1, 9)], [1], "begun_anew"),
        ([event(5), event(6, "denied"), event(9)], [9], None),
        ([event(6), event(9)], [9], None),
        ([event(8), event(9)], [7, 8], None),
    ],
    ids=["a restored one", "the same", "not all of the past", "a gap"],
)
def test_numbers_that_go_on_are_told_from_numbers_that_were_begun_anew(
    daemon: JournalDaemon, kept: list[dict[str, Any]], told: list[int], says: str | None
) -> None:
    daemon.events += [event(5), event(6, "denied")]
    line = "watch --from 5 --type admitted --json --count 2"
    with start(daemon, *line.split()) as ctl:
        assert ctl.stdout is not None
        assert ctl.stderr is not None
        assert json.loads(ctl.stdout.readline())["seq"] == 5
        eventually(lambda: daemon.asked[-1]["after"] == 6)
        daemon.stop()
        assert json.loads(ctl.stderr.readline())["code"] == "reconnecting"
        daemon.events[:] = kept
        daemon.start()
        assert [json.loads(ctl.stdout.readline())["seq"] for _ in told] == told
        assert json.loads(ctl.stderr.readline())["code"] == "reconnected"
        rest = [json.loads(line)["code"] for line in ctl.stderr]
        assert rest == ([] if says is None else [says])


def test_who_has_seen_nothing_yet_misses_nothing_of_a_journal_that_was_begun_anew(
    daemon: JournalDaemon,
) -> None:
    daemon.events += [event(1), event(2)]
    with start(daemon, "watch", "--type", "denied", "--json", "--count", "2") as ctl:
        eventually(lambda: bool(daemon.asked) and daemon.asked[-1]["wait"] > 0)
        daemon.stop()
        daemon.journal = "0b"
        daemon.events[:] = [event(1), event(2, "denied"), event(3), event(4, "denied")]
        daemon.start()
        out, err = ctl.communicate(timeout=20)
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [2, 4]
    notes = [json.loads(line)["code"] for line in err.splitlines()]
    assert notes == ["reconnecting", "reconnected", "begun_anew"]


def test_ctrl_c_ends_a_watch_without_a_word(daemon: JournalDaemon) -> None:
    daemon.events.append(event(1))
    with start(daemon, "watch", "--from", "1") as ctl:
        assert ctl.stdout is not None
        assert ctl.stdout.readline().startswith("seq\t")
        assert ctl.stdout.readline().startswith("1\t")
        ctl.send_signal(signal.SIGINT)
        assert ctl.stderr is not None
        assert ctl.stderr.read() == ""
    assert ctl.returncode == 130


def test_a_watch_ends_when_its_reader_has_gone_though_nothing_happens(
    daemon: JournalDaemon,
) -> None:
    daemon.events.append(event(1))
    with start(daemon, "watch", "--from", "1", "--json") as ctl:
        assert ctl.stdout is not None
        assert json.loads(ctl.stdout.readline())["seq"] == 1
        ctl.stdout.close()
        assert ctl.stderr is not None
        assert ctl.stderr.read() == ""
    assert ctl.returncode == 0


# --- watch -- CMD --------------------------------------------------------------------------------


def test_a_program_is_run_for_each_event_in_order_with_the_event_around_it(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(1), {"seq": 2, "type": "warning", "time": NOON, "text": "a\x00b"}]
    script = SAYS + 'printf "%s|%s|" "$PARKINGD_CONTROL" "$PARKINGD_EVENT"; cat'
    run = ctl("watch", "--from", "1", "--count", "2", "--", "sh", "-c", script)
    assert (run.status, run.err) == (0, "")
    first, second = run.out.splitlines()
    said, control, variable, piped = first.split("|")
    assert said == "1 admitted CAR1 2"
    assert control == f"ipc://{daemon.path}"
    assert json.loads(variable) == json.loads(piped)
    assert json.loads(piped)["plate"] == "CAR1"
    assert second.startswith("2 warning  |")


def test_a_run_that_fails_is_said_and_counted_and_watching_goes_on(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(1), event(2), event(3)]
    script = '[ "$PARKINGD_SEQ" != 2 ] && printf "%s " "$PARKINGD_SEQ"'
    run = ctl("watch", "--from", "1", "--count", "3", "--", "sh", "-c", script)
    assert (run.status, run.out) == (1, "1 3 ")
    assert "event 2: sh failed with status 1" in run.err
    assert "1 of 3 runs failed" in run.err


def test_a_watch_that_stops_on_error_names_the_event_to_go_on_with(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(1), event(2)]
    run = ctl("watch", "--from", "1", "--stop-on-error", "--", "false")
    assert run.status == 1
    assert "--from 1\n" in run.err
    assert "1 of 1 runs failed" in run.err


def test_a_run_that_hangs_is_ended_with_everything_it_has_started(
    ctl: Ctl, daemon: JournalDaemon, tmp_path: Path
) -> None:
    daemon.events += [event(1), event(2)]
    script = f'[ "$PARKINGD_SEQ" = 2 ] || {{ sleep 100 & echo $! > {tmp_path}/pid; wait; }}'
    line = "watch --from 1 --count 2 --kill-after 0.5 -- sh -c"
    run = ctl(*line.split(), script)
    assert run.status == 1
    assert "event 1: sh was ended after 0.5 s" in run.err
    assert "1 of 2 runs failed" in run.err
    eventually(lambda: is_gone(int((tmp_path / "pid").read_text())))


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # Nobody has asked for its status yet.


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_who_ends_a_watch_ends_the_program_that_runs(
    daemon: JournalDaemon, tmp_path: Path, number: int, status: int
) -> None:
    daemon.events.append(event(1))
    script = f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 100"
    with start(daemon, "watch", "--from", "1", "--", "sh", "-c", script) as ctl:
        eventually((tmp_path / "pid").exists)
        ctl.send_signal(number)
        _, err = ctl.communicate(timeout=20)
    assert (ctl.returncode, err) == (status, "")
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_program_that_is_not_there_is_said_before_anything_is_watched(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    run = ctl("watch", "--", "no-such-program", "--json")
    assert run.status == 2
    assert run.err.startswith("parkingd-ctl: there is no program 'no-such-program'")
    assert daemon.asked == []


# --- log -----------------------------------------------------------------------------------------


def test_a_long_log_comes_page_by_page_and_whole(ctl: Ctl, daemon: JournalDaemon) -> None:
    daemon.events += [event(seq) for seq in range(4, 1_204)]
    run = ctl("log", "--format", "jsonl")
    assert (run.status, run.err) == (0, "")  # What is kept no more was not missed.
    assert run.seqs == list(range(4, 1_204))
    assert max(asked["limit"] for asked in daemon.asked) <= 1_000


def test_the_newest_few_are_found_though_few_of_the_last_are_such(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(seq, "denied" if seq < 90 else "exited") for seq in range(1, 6_000)]
    assert ctl("log", "--type", "denied", "--limit", "3", "--json").seqs == [87, 88, 89]
    assert ctl("log", "--limit", "2", "--json").seqs == [5_998, 5_999]


def test_a_log_is_a_table_or_csv_that_no_spreadsheet_computes(
    ctl: Ctl, daemon: JournalDaemon
) -> None:
    daemon.events += [event(1, text="=1+1\x1b[2J"), event(2, "member_suspect", member="x" * 20)]
    head, first, second = ctl("log", "--format", "table").out.splitlines()
    assert head.split() == ["SEQ", "TIME", "TYPE", "PLATE", "GATE", "MEMBER", "DETAIL"]
    places = [line.index(word) for line, word in ((head, "MEMBER"), (first, "gary"))]
    assert places == [second.index("xxx")] * 2
    assert first.endswith(r"=1+1\x1b[2J")
    rows = list(csv.DictReader(io.StringIO(ctl("log", "--format", "csv").out)))
    assert rows[0]["detail"] == r"'=1+1\x1b[2J"
    assert rows[1] | {"time": "", "detail": ""} == {
        "seq": "2",
        "time": "",
        "type": "member_suspect",
        "plate": "CAR2",
        "gate": "3",
        "member": "x" * 20,
        "detail": "",
    }


@pytest.mark.parametrize(("form", "out"), [("table", "(none)\n"), ("csv", None), ("jsonl", "")])
def test_a_log_without_events_says_so_in_its_form(ctl: Ctl, form: str, out: str | None) -> None:
    run = ctl("log", "--format", form)
    assert (run.status, run.err) == (0, "")
    assert run.out == ("seq,time,type,plate,gate,member,detail\n" if out is None else out)


def test_a_log_that_is_followed_shows_each_event_once(daemon: JournalDaemon) -> None:
    daemon.events += [event(1), event(2), event(3)]
    with start(daemon, "log", "--follow", "--limit", "2", "--json") as ctl:
        assert ctl.stdout is not None
        assert [json.loads(ctl.stdout.readline())["seq"] for _ in range(2)] == [2, 3]
        daemon.events.append(event(4))
        assert json.loads(ctl.stdout.readline())["seq"] == 4
        ctl.send_signal(signal.SIGINT)
        assert ctl.stdout.read() == ""
    assert ctl.returncode == 130


def test_times_of_a_log_reach_the_daemon_as_milliseconds(ctl: Ctl, daemon: JournalDaemon) -> None:
    ctl("log", "--since", "2026-08-01T12:00Z", "--until", "2026-08-01T14:00:00.5+01:00")
    asked = daemon.asked[-1]
    assert (asked["since_ms"], asked["until_ms"]) == (1_785_585_600_000, 1_785_589_200_500)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("log --since teatime", "--since: 'teatime' is no time"),
        ("log --since 1h --until 2h", "--until is not later than --since"),
        ("log --until today --follow", "--follow has no end"),
        ("log --limit 0", "--limit 0 is out of range"),
        ("log --type admited", "no event is of type 'admited'"),
        ("watch --type admitted,cars", "no event is of type 'cars'"),
        ("watch --from -1", "--from -1 is out of range"),
        ("watch --count 0", "--count 0 is out of range"),
        ("watch --kill-after 0 -- true", "--kill-after 0 is out of range"),
        ("watch --reconnect nan", "--reconnect nan is out of range"),
        ("watch --stop-on-error", "--stop-on-error is about a program"),
        ("watch --", "which program"),
    ],
)
def test_a_flag_that_makes_no_sense_is_one_line(ctl: Ctl, line: str, says: str) -> None:
    run = ctl(*line.split())
    assert run.status == 2
    assert says in run.err.splitlines()[0]
    assert len(run.err.splitlines()) == 2
    assert "e+" not in run.err
