"""A name server on a machine of its own: dnsmasq, with records that change and answers that fail.

It answers only for the domain `parkingd.test` and asks nobody else. Its records are given when it
starts, so a change ends it and starts another, a few milliseconds later.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.daemon.harness import until
from tests.net.network import Machine

PROGRAM: Final = "dnsmasq"
PACKAGE: Final = "dnsmasq-base"
DOMAIN: Final = "parkingd.test"
SERVICE: Final = f"_gossip._tcp.{DOMAIN}"
END_S: Final = 5.0


def is_installed() -> bool:
    """Whether there is such a program here."""
    return shutil.which(PROGRAM) is not None


class NameServer:
    """Ended with `stop`, also when it has not been started."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self._log = folder / f"{machine.namespace}.log"
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def serve(self, pods: Mapping[str, Machine], port: int) -> None:
        """One SRV record for each pod, with the address of its machine."""
        flags = [f"--local=/{DOMAIN}/"]
        for pod, machine in pods.items():
            flags.append(f"--srv-host={SERVICE},{pod}.{DOMAIN},{port}")
            flags.append(f"--host-record={pod}.{DOMAIN},{machine.address}")
        self._start(*flags)

    def serve_nothing(self) -> None:
        """NXDOMAIN: there is no such name."""
        self._start(f"--local=/{DOMAIN}/")

    def serve_no_records(self) -> None:
        """The name is there, and has no SRV record."""
        self._start(f"--local=/{DOMAIN}/", f"--txt-record={SERVICE},nobody")

    def stop(self) -> None:
        """Nobody listens there any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(END_S)
            self._process = None

    def asked_by(self, machine: Machine) -> int:
        """How often this machine has asked for the SRV records."""
        question = f"query[SRV] {SERVICE} from {machine.address}\n"
        return self._log.read_text().count(question)

    def _start(self, *flags: str) -> None:
        self.stop()
        own = ("--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file")
        log = ("--keep-in-foreground", "--log-queries", "--log-facility=-")
        starts = self._starts()
        with self._log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*self.machine.prefix, PROGRAM, *own, *log, *flags],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )
        until(lambda: self._starts() > starts, f"{PROGRAM} has started")

    def _starts(self) -> int:
        return self._log.read_text().count("started, version")
