"""Daemons that nobody told where the others are."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.daemon.harness import COMMAND, Cluster, Daemon, until
from tests.net.network import Network, refusal

FOUND_S = 15.0
"""The aim is 2 s; this leaves room for a machine that runs other tests."""


@pytest.fixture
def network() -> Iterator[Network]:
    why = refusal()
    if why is not None:
        pytest.skip(why)
    network = Network()
    yield network
    network.close()


def all_members(daemons: list[Daemon]) -> bool:
    return all(
        daemon.ctl("wait", "--for", f"members={len(daemons)}", timeout_s=0.05).status == 0
        for daemon in daemons
    )


def test_three_daemons_of_one_machine_with_only_a_name_find_each_other(cluster: Cluster) -> None:
    started = [cluster.start(name, mdns=True, answers=False) for name in ("gary", "diane")]
    for daemon in started:
        until(daemon.answers, "it answers")
    started.append(cluster.start("joe", mdns=True, lot=False))
    last_s = time.monotonic()
    until(lambda: all_members(started), "three members", FOUND_S)
    print(f"three members {time.monotonic() - last_s:.2f} s after the last answered")
    for daemon in started:
        daemon.wait_for("ready", "synced")
    assert len({daemon.read("lot")["lot"] for daemon in started}) == 1


def test_three_machines_of_one_lan_find_each_other_by_mdns_alone(
    cluster: Cluster, network: Network
) -> None:
    started: list[Daemon] = []
    for name in ("gary", "diane", "joe"):
        prefix = network.add_machine().prefix
        started.append(cluster.start(name, mdns=True, apart=True, prefix=prefix, answers=False))
    for daemon in started:
        until(daemon.answers, "it answers")
    last_s = time.monotonic()
    until(lambda: all_members(started), "three members", FOUND_S)
    print(f"three members {time.monotonic() - last_s:.2f} s after the last answered")
    for daemon in started:
        daemon.wait_for("ready", "synced")
        assert not daemon.events("mdns_blocked")
    found = [item for daemon in started for item in daemon.read("discover")["items"]]
    assert {item["state"] for item in found} == {"connected"}
    # Who was greeted before it had heard of the other has it by that greeting.
    sources = {item["source"].split()[0] for item in found}
    assert {"mdns"} <= sources <= {"mdns", "hello", "from"}
    assert len({daemon.read("lot")["lot"] for daemon in started}) == 1


def test_a_daemon_of_another_cluster_shows_in_discover_by_mdns(
    cluster: Cluster, network: Network
) -> None:
    here, there = network.add_machine().prefix, network.add_machine().prefix
    gary = cluster.start("gary", mdns=True, apart=True, prefix=here, lot=False)
    annex = ("--cluster", "annex")
    other = cluster.start("other", *annex, mdns=True, apart=True, prefix=there, lot=False)

    def states() -> set[str]:
        return {item["state"] for item in gary.read("discover")["items"]}

    until(lambda: states() == {"other_cluster"}, "gary has heard of the other", FOUND_S)
    assert other.read("status")["members"]["alive"] == 1
    assert len(gary.events("mdns_other_cluster")) == 1


def test_without_multicast_the_daemons_of_one_machine_find_each_other_and_say_so(
    cluster: Cluster, network: Network
) -> None:
    """Somebody else holds the mDNS port and does not share it."""
    machine = network.add_machine(plugged=False).prefix
    block = (
        "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "s.bind(('', 5353)); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([*machine, COMMAND[0], "-c", block], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            started = [
                cluster.start(name, mdns=True, prefix=machine, answers=False)
                for name in ("gary", "diane")
            ]
            for daemon in started:
                until(daemon.is_ready, "it is ready")
                daemon.wait_for("members=2", "synced")
                assert len(daemon.events("mdns_off")) == 1
        finally:
            holder.kill()


class Screen:
    """What a person sees who starts the daemon in a terminal."""

    def __init__(self, cluster: Cluster, *flags: str) -> None:
        self._master, slave = pty.openpty()
        runtime = ("--runtime-dir", str(cluster.runtime / "all"))
        take_terminal = (
            "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            [
                COMMAND[0],
                "-c",
                take_terminal,
                *COMMAND,
                "--port",
                "0",
                "--no-mdns",
                *runtime,
                *flags,
            ],
            env=cluster.environment(TERM="xterm"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.text = ""

    def read_until(self, pattern: str, timeout_s: float = 10.0) -> re.Match[str]:
        deadline_s = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.text, re.MULTILINE)) is None:
            assert time.monotonic() < deadline_s, self.text
            if select.select([self._master], [], [], 0.1)[0]:
                with suppress(OSError):  # EIO: the daemon has ended.
                    self.text += os.read(self._master, 65_536).decode().replace("\r\n", "\n")
        return found

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_on_a_terminal_the_banner_says_who_it_is_and_whom_it_found(cluster: Cluster) -> None:
    diane = cluster.start("diane")
    screen = Screen(cluster, "--name", "gary")
    try:
        screen.read_until(r"^ *found +diane at 127\.0\.0\.1:\d+$")
        banner = dict(re.findall(r"^ *([a-z][a-z ]*[a-z])  (\S.*)$", screen.text, re.MULTILINE))
        gary = Daemon("gary", screen.process, diane.log, diane.control.with_name("gary.ctl"))
        status = gary.read("status")
        assert banner["node"] == "gary"
        assert banner["cluster"] == "default"
        assert banner["replica"] == status["replica"]
        assert f":{gary.port}" in banner["listening"]
        assert str(gary.port + 1) in banner["listening"]
        assert banner["control"] == str(gary.control)
        assert re.match(r"[0-9a-f]{16} \(from .*\.parkingd\.cookie\)$", banner["cookie"])
        assert banner["data"] == str(cluster.data_dir("gary"))
        assert banner["looking for others"] == "local"
        cookie = (cluster.home / ".parkingd.cookie").read_text().strip()
        assert cookie not in screen.text
        log = screen.read_until(r"^\d\d:\d\d:\d\d\.\d{3} \S*INFO\S* .*member_found member=diane")
        assert "{" not in log[0]

        screen.type(b"\x03")  # Ctrl-C leaves in good order.
        screen.read_until(r"left")
        assert screen.process.wait(10.0) == 0
        assert "Traceback" not in screen.text
    finally:
        screen.close()


def test_on_a_terminal_an_ephemeral_node_says_that_it_keeps_nothing(cluster: Cluster) -> None:
    screen = Screen(cluster, "--name", "gary", "--ephemeral")
    try:
        screen.read_until(r"^ *data +nothing is kept on disk$")
        screen.read_until(r"^ *found +nobody yet$")
    finally:
        screen.close()


def test_in_a_log_file_there_is_no_banner_and_every_line_is_an_event(cluster: Cluster) -> None:
    gary = cluster.start("gary", lot=False)
    assert gary.end(signal.SIGTERM) == 0
    lines = gary.said().splitlines()
    assert lines
    assert all(line.startswith('{"ts": "') for line in lines), lines
    assert gary.events("leaving")
