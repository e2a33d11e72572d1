#!/usr/bin/env python3
"""Three terminals, one car, and a plug that is pulled: what parkingd is for, in fifteen seconds.

Starts three daemons, `parkingd --name larry`, `gary` and `harry`, with no other flag, and does with
`parkingd-ctl` what a person would do beside them. Shows each command and its real output, checks
it, and leaves nothing behind. Exit status 1, and a line that says why, when something is not as it
should be.

    python examples/three_terminals.py
    python examples/three_terminals.py --keep     # leave them running, to look around
"""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Final, NoReturn

from local_cluster import LocalCluster, Unexpected, run_script

NAMES: Final = ("larry", "gary", "harry")

WALK_S_MAX: Final = 50
"""All of it; it takes about fifteen, more on a busy machine."""

AGREE_S_MAX: Final = 15.0
"""What one node has acknowledged the others show in milliseconds; after a crash, in seconds."""

POLL_S: Final = 0.1

EXIT_NOT_FOUND: Final = 5


class Terminal:
    """Types commands, shows what they print, and compares that with what it should be."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        # A person sees tables; what is not a terminal would get tab-separated values.
        self._environment = cluster.environment | {"PARKINGD_OUTPUT": "table", "NO_COLOR": "1"}

    def say(self, *lines: str) -> None:
        """A remark, after an empty line."""
        print("", *(f"# {line}" for line in lines), sep="\n", flush=True)

    def say_more(self, line: str) -> None:
        """The remark goes on."""
        print(f"# {line}", flush=True)

    def start(self, *names: str) -> None:
        """One `parkingd` per terminal."""
        for name in names:
            print(f"$ parkingd --name {name}", flush=True)
        self._cluster.start(names)

    def pull_the_plug(self, name: str) -> None:
        """`kill -9`."""
        print(f"$ kill -9 {self._cluster.processes[name].pid}", flush=True)
        self._cluster.kill(name)

    def stop(self) -> None:
        """Ctrl-C in every terminal."""
        pids = " ".join(str(process.pid) for process in self._cluster.processes.values())
        print(f"$ kill -INT {pids}", flush=True)
        self._cluster.stop()

    def ctl(self, arguments: str, *wanted: str, status: int = 0, settles: bool = False) -> None:
        """Run `parkingd-ctl`, show it, and find every wanted pattern in what it prints.

        ``settles``: what is asked may take a moment to reach this node, so it is asked until the
        answer is as it should be, for `AGREE_S_MAX`. Only the last answer is shown.
        """
        print(f"$ parkingd-ctl {arguments}", flush=True)
        command = [str(self._cluster.find("parkingd-ctl")), *shlex.split(arguments)]
        until_s = time.monotonic() + (AGREE_S_MAX if settles else 0)
        while True:
            output, found = self._run(command)
            missing = [each for each in wanted if not re.search(each, output, re.MULTILINE)]
            if found == status and not missing:
                break
            if time.monotonic() >= until_s:
                print(output, end="", flush=True)
                what = f"no {missing[0]!r} in it" if missing else f"exit status {found}"
                raise Unexpected(f"parkingd-ctl {arguments}: {what}")
            time.sleep(POLL_S)
        print(output, end="", flush=True)

    def _run(self, command: list[str]) -> tuple[str, int]:
        done = subprocess.run(
            command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout, done.returncode


def walk(terminal: Terminal) -> None:
    """Everything but the end."""
    ctl = terminal.ctl
    print("# Three terminals, one command in each.")
    terminal.start(*NAMES)

    terminal.say("In a fourth one: they have found each other.")
    ctl("--name larry wait --for members=3 --for synced", r"^members=3 +yes +3$")

    terminal.say("A car enters at larry's lane. Every node knows it.")
    ctl('--name larry track "ABC 123" 1', r"^plate +ABC123$", r"^gate +1$")
    ctl("--name gary --json vehicles", r'"plate": "ABC123"', settles=True)

    terminal.say("The four gates are shared out: each is served by one of them.")
    ctl("--name harry gates", *(rf"^\d +{name} .* served" for name in NAMES), settles=True)

    terminal.say("A car asks to be let in, at gary. Whoever serves gate 2 decides.")
    ctl('--name gary enter "M-TX 42" 2', r"^admitted MTX42 at gate 2 ", settles=True)

    terminal.say("Pull larry's plug. The others serve his gates before the next car is there,")
    terminal.say_more("and the first car is still inside, on both.")
    terminal.pull_the_plug("larry")
    ctl("--name gary wait --for members=2 --for gates=4", r"^gates=4 +yes +4$")
    ctl("--name harry gates", r"\A(?!(.|\n)*larry)(.*\n){5}\Z", settles=True)
    ctl('--name gary where "ABC 123"', r"^ABC123 .* larry ", settles=True)
    ctl('--name harry where "ABC 123"', r"^ABC123 .* larry ", settles=True)

    terminal.say("Life goes on without larry: one car leaves, another one enters.")
    ctl('--name harry exit "ABC 123" 2', r"^matched +exact$")
    ctl('--name gary exit "M-TX 42" 3', r"^matched +exact$", settles=True)
    ctl('--name gary track "KA-PI 314" 3', r"^plate +KAPI314$")

    terminal.say("larry comes back. It has missed nothing.")
    terminal.start("larry")
    ctl("--name larry wait --for members=3 --for synced", r"^members=3 +yes +3$")
    ctl("--name larry vehicles", r"\A.*\nKAPI314 .* gary .*\n\Z", settles=True)

    terminal.say("One root for all three: the replicas are identical.")
    ctl("--name larry digest", r"\A.*\n[0-9a-f]{32} +gary,harry,larry\n\Z", settles=True)

    terminal.say("Ctrl-C in all three terminals. Then start them again: the lot is as it was.")
    terminal.stop()
    terminal.start(*NAMES)
    ctl("--name harry wait --for members=3 --for synced", r"^members=3 +yes +3$")
    ctl("--name harry lot", r"^spaces +100$", r"^inside +1$", r"^free +99$", settles=True)
    ctl('--name larry where "KA-PI 314"', r"^KAPI314 .* gary ", settles=True)
    ctl('--name larry where "ABC 123"', r"^\(none\)$", status=EXIT_NOT_FOUND, settles=True)


def look_around(cluster: LocalCluster, terminal: Terminal) -> None:
    """Wait for Ctrl-C while somebody else types."""
    terminal.say("They go on running until Ctrl-C here. To look around, in another terminal:")
    print(f"$ export PARKINGD_RUNTIME_DIR={cluster.environment['PARKINGD_RUNTIME_DIR']}")
    print("$ parkingd-ctl --name larry members", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def main() -> int:
    """The exit status. Raises Unexpected."""
    parser = argparse.ArgumentParser(description="Walk through parkingd in three terminals.")
    parser.add_argument(
        "--keep", action="store_true", help="leave the daemons running until Ctrl-C"
    )
    keep = parser.parse_args().keep
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(WALK_S_MAX)
    with LocalCluster() as cluster:
        terminal = Terminal(cluster)
        walk(terminal)
        if keep:
            signal.alarm(0)
            look_around(cluster, terminal)
        terminal.say("That was it. Stop them all.")
        terminal.stop()
        signal.alarm(0)
    return 0


def _too_long(number: int, frame: FrameType | None) -> NoReturn:
    raise Unexpected(f"the walk takes longer than {WALK_S_MAX} s")


if __name__ == "__main__":
    sys.exit(run_script(main))
