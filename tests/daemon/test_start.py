"""Starts that must fail, and say why in one line; starts that must not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.harness import COMMAND, PATIENCE_S, Cluster, Daemon, run_here, until


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--nmae", "gary"], "unknown flag --nmae; did you mean --name?"),
        (["gary"], "'gary' is not expected here"),
        (["--port"], "needs a value"),
        (["--port", "seven"], "port = 'seven' (from --port) is not a whole number"),
        (["--port", "70000"], "out of range"),
        (["--spaces", "0"], "out of range"),
        (["--gates", "many"], "is not a whole number"),
        (["--name", "../gary"], "is not a name"),
        (["--name", "x" * 64], "is not a name"),
        (["--peer", "10.0.0.1"], "is not HOST:PORT"),
        (["--host", "nowhere"], "is not an IP address"),
        (["--admission", "escrow"], "not in this version"),
        (["--log-level", "loud"], "give debug or info or warning or error"),
        (["--cookie", "a", "--cookie-file", "b"], "give a cookie"),
        (["--cookie-file", "/nowhere/cookie"], "cannot read the cookie /nowhere/cookie"),
        (["--runtime-dir", "/tmp/" + "x" * 100], "--runtime-dir"),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, list) else "",
)
def test_a_wrong_flag_is_one_line_and_exit_status_2(flags: list[str], said: str) -> None:
    ended = run_here(*flags, "--no-mdns")
    assert ended.status == 2
    assert said in ended.complaint


def test_the_command_itself_says_the_same_and_nothing_else(cluster: Cluster) -> None:
    ended = cluster.run("--nmae", "gary")
    assert ended == run_here("--nmae", "gary")


def test_an_address_of_another_machine_is_one_line_and_exit_status_2(cluster: Cluster) -> None:
    ended = cluster.run("--name", "gary", "--no-mdns", "--host", "192.0.2.99")
    assert ended.status == 2
    assert "this machine has no address 192.0.2.99" in ended.complaint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spaces = \n", "is not TOML"),
        ("[spaces\n", "is not TOML"),
        ("space = 5\n", "unknown key 'space' (did you mean spaces?)"),
        ('spaces = "5"\n', "is a text, not a number"),
        ("spaces = true\n", "is not a number"),
        ("name = 5\n", "is not a text"),
        ('peers = "10.0.0.1:7744"\n', "is not a list"),
        ("peers = [7744]\n", "7744 is not HOST:PORT"),
        ("mdns = 1\n", "is neither on nor off"),
        ("spaces = 1979-05-27\n", "is not a whole number"),
        ("spaces = 10\nspaces = 20\n", "is not TOML"),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_a_bad_configuration_file_is_one_line_and_exit_status_2(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "parkingd.toml"
    file.write_text(text)
    ended = run_here("--config", file)
    assert ended.status == 2
    assert said in ended.complaint
    assert str(file) in ended.complaint


def test_a_configuration_file_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "parkingd.toml"
    file.write_bytes(os.urandom(2_000))
    ended = run_here("--config", file)
    assert ended.status == 2
    assert "is not TOML" in ended.complaint


@pytest.mark.parametrize("home", ["", "/nowhere/home"])
def test_without_a_usable_home_it_says_what_to_give(cluster: Cluster, home: str) -> None:
    ended = cluster.run("--name", "gary", "--no-mdns", environment={"HOME": home})
    assert ended.status == 2
    assert "PARKINGD_COOKIE" in ended.complaint or home in ended.complaint.split()


def test_a_cookie_that_others_can_read_is_refused(cluster: Cluster) -> None:
    cookie = cluster.home / ".parkingd.cookie"
    cookie.write_text("secret\n")
    cookie.chmod(0o644)
    ended = cluster.run("--name", "gary", "--no-mdns")
    assert ended.status == 2
    assert f"chmod 600 {cookie}" in ended.complaint


def test_a_port_in_use_is_named_and_the_exit_status_is_2(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = cluster.fail_to_start("gary", "--host", "127.0.0.1", "--port", port)
        assert ended.status == 2
        assert f"port {port} is in use" in ended.complaint
        before = cluster.fail_to_start("gary", "--host", "127.0.0.1", "--port", port - 1)
        assert before.status == 2
        assert f"port {port} is in use" in before.complaint


def test_a_second_daemon_of_one_name_ends_with_status_2_and_the_first_goes_on(
    cluster: Cluster,
) -> None:
    gary = cluster.start("gary", lot=False)
    ended = cluster.fail_to_start("gary")
    assert ended.status == 2
    assert f"a daemon named gary already runs here (pid {gary.process.pid})" in ended.complaint
    assert "--name" in ended.complaint
    assert gary.answers()


def test_a_second_node_of_one_name_elsewhere_gives_up_and_names_the_holder(
    cluster: Cluster,
) -> None:
    """Another runtime directory stands for another machine."""
    gary = cluster.start("gary", lot=False)
    elsewhere = Cluster(cluster.root / "elsewhere")
    with elsewhere:
        shutil.copy(cluster.home / ".parkingd.cookie", elsewhere.home)
        ended = elsewhere.fail_to_start("gary", "--peer", f"127.0.0.1:{gary.port}")
    assert ended.status == 2
    assert "the name gary is taken" in ended.complaint
    assert str(gary.port) in ended.complaint
    gary.read("track", "HELD1", 1)


def test_a_data_directory_in_use_names_the_process_that_holds_it(cluster: Cluster) -> None:
    gary = cluster.start("gary", lot=False)
    ended = cluster.fail_to_start("gary", "--data-dir", cluster.data_dir("gary"), apart=True)
    assert ended.status == 2
    assert f"is in use by process {gary.process.pid}" in ended.complaint


def test_the_data_directory_of_another_node_is_refused(cluster: Cluster) -> None:
    cluster.start("gary", lot=False).stop()
    ended = cluster.fail_to_start("diane", "--data-dir", cluster.data_dir("gary"))
    assert ended.status == 2
    assert "belongs to node gary" in ended.complaint


def test_a_data_directory_that_cannot_be_made_is_one_line(cluster: Cluster) -> None:
    obstacle = cluster.root / "file"
    obstacle.write_text("")
    ended = cluster.fail_to_start("gary", "--data-dir", obstacle / "data")
    assert ended.status == 2
    assert f"the data directory {obstacle / 'data'} cannot be used" in ended.complaint
    assert "--data-dir" in ended.complaint


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to root")
def test_a_data_directory_that_may_not_be_written_is_one_line(cluster: Cluster) -> None:
    data = cluster.root / "data"
    data.mkdir(mode=0o500)
    ended = cluster.fail_to_start("gary", "--data-dir", data)
    assert ended.status == 2
    assert f"the data directory {data} cannot be used: Permission denied" in ended.complaint


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_data_directory_in_a_file_system_that_takes_nothing_is_one_line(
    cluster: Cluster,
) -> None:
    ended = cluster.fail_to_start("gary", "--data-dir", "/proc/parkingd")
    assert ended.status == 2
    assert "the data directory /proc/parkingd cannot be used" in ended.complaint


def test_a_database_of_a_newer_format_is_refused_and_left_alone(cluster: Cluster) -> None:
    cluster.start("gary", lot=False).stop()
    database = cluster.data_dir("gary") / "parkingd.db"
    connection = sqlite3.connect(database)
    connection.execute("pragma user_version = 999")
    connection.close()
    content = database.read_bytes()
    ended = cluster.fail_to_start("gary")
    assert ended.status == 2
    assert "newer" in ended.complaint
    assert database.read_bytes() == content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_it_leave_with_status_0(cluster: Cluster, number: int) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under nohup it would be deaf to it.
    gary = cluster.start("gary", lot=False)
    signal.signal(signal.SIGHUP, before)
    assert gary.end(number, timeout_s=10.0) == 0
    (started,) = gary.events("started")
    assert started["data"].endswith("/gary")
    assert started["addresses"]
    assert gary.events("left")
    assert list(gary.control.parent.glob("*.ctl")) == []
    assert list(gary.control.parent.glob("*.addr")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it_without_a_traceback(
    cluster: Cluster, number: int
) -> None:
    """Nobody knows of it yet, so that there is nobody to tell."""
    gary = cluster.start("gary", answers=False)
    until(lambda: list(gary.control.parent.glob("*.lock")), "it has begun")
    assert gary.end(number, timeout_s=10.0) == 0
    assert all(line.startswith('{"ts": "') for line in gary.said().splitlines())


def test_the_second_signal_stops_it_at_once(cluster: Cluster) -> None:
    """The first waits for a member whose disk covers its events, and that one is frozen."""
    gary, diane = cluster.start_all("gary", "diane")
    gary.read("track", "SEEN1", 1)
    diane.process.send_signal(signal.SIGSTOP)
    gary.read("track", "UNSEEN1", 1)
    gary.process.send_signal(signal.SIGTERM)
    until(lambda: gary.events("leaving"), "gary is leaving")
    assert gary.is_running
    assert gary.end(signal.SIGTERM) == 0
    assert gary.events("stopped_at_once")
    diane.process.send_signal(signal.SIGCONT)
    gary = cluster.start("gary")
    until(lambda: diane.ctl("where", "UNSEEN1").status == 0, "diane has what gary kept")


def test_leave_answers_and_stops_the_daemon_with_status_0(cluster: Cluster) -> None:
    gary, diane = cluster.start_all("gary", "diane")
    diane.read("track", "STAYS1", 1)
    gary.read("track", "LEFT1", 1)
    left = gary.read("leave")
    assert (left["kind"], left["safe_with"]) == ("Left", "diane")
    assert gary.wait() == 0
    diane.until_status(lambda status: status["members"]["left"] == 1, "left member")
    assert diane.plates() == ["LEFT1", "STAYS1"]
    diane.read("exit", "LEFT1", 1)


def test_without_mdns_the_daemons_of_one_machine_find_each_other(
    trio: tuple[Daemon, ...],
) -> None:
    items = trio[0].read("discover")["items"]
    assert {item["name"] for item in items} >= {"diane", "joe"}
    assert {item["state"] for item in items} <= {"connected", "self"}
    assert {item["source"].split()[0] for item in items} <= {"local", "hello", "from"}


BROKEN = """
import sys, {module} as module
def broken(*_): raise AssertionError("invariant")
module.{name} = broken
from parkingd.cli.parkingd import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("parkingd.adapters.database", "Database.apply"),  # in the writer thread
        ("parkingd.protocol.node", "Node.tick"),  # in a callback
        ("parkingd.adapters.discovery.local", "LocalSource._scan"),  # in a task
    ],
)
def test_a_bug_anywhere_ends_the_whole_daemon_in_one_line_and_leaves_a_report(
    cluster: Cluster, module: str, name: str
) -> None:
    data = cluster.root / "data"
    program = (COMMAND[0], "-c", BROKEN.format(module=module, name=name))
    ended = cluster.fail_to_start("gary", "--data-dir", data, command=program)
    assert ended.status == 70
    report = data / "crash-report.txt"
    assert ended.complaint == (
        f"parkingd: this is a bug (AssertionError); please report it with {report}"
    )
    assert "invariant" in report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("spaces", "status"), [("100", 0), ("none", 1)])
def test_the_script_that_starts_a_daemon_and_waits_for_it_does_so(
    cluster: Cluster, spaces: str, status: int
) -> None:
    """As the manual shows it; who cannot start is not waited for."""
    text = (Path(__file__).parents[2] / "docs" / "howto-scripts.md").read_text("utf-8")
    (script,) = (body for body in re.findall(r"```bash\n(.*?)```", text, re.S) if "kill -0" in body)
    search_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", f"trap 'kill $! 2>/dev/null; wait' EXIT\n{script}"],
        env=cluster.environment(PATH=search_path, PARKINGD_SPACES=spaces, PARKINGD_MDNS="false"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == status, ended
    assert ("ready" in ended.stdout.split()) is (status == 0)
