"""Nodes in containers, as a StatefulSet runs them: a read-only root, no capability, no privilege.

All are on a private network from which nothing leads out. A name server in a container of its own
says which pods there are, and each pod finds it where containers find theirs, in `resolv.conf`. A
pod has a volume of its own and a control socket in memory, and parkingd-ctl is run inside it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tests.daemon.harness import until
from tests.deploy import zone
from tests.deploy.engine import ROOT, Engine

SUBNET: Final = "10.78.0.0/24"
NAME_SERVER: Final = "10.78.0.253"
USER: Final = "10001:10001"
CTL_S: Final = 30
"""For one command in a container, beside whatever else this machine does."""
READY_S: Final = 60.0
CLUSTER: Final = "parking.parkingd"

_numbers = itertools.count(1)


class Pods:
    """A network, its name server, and the pods on it; all gone at the end."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self.engine = engine
        self.image = image
        self.prefix = f"parkingd-test-{os.getpid()}-{next(_numbers)}"
        self._folder = folder
        self._pods: dict[str, Pod] = {}
        self._made: list[tuple[str, str]] = []

    def __enter__(self) -> Pods:
        self.engine.run("network", "create", "--internal", "--subnet", SUBNET, self.prefix)
        self._made.append(("network", self.prefix))
        (self._folder / "zone").mkdir()
        shutil.copy(ROOT / "tests/deploy/zone.py", self._folder / "zone")
        self._cookie = self._folder / "cookie"
        self._cookie.write_text("a cookie for tests only\n")
        self._cookie.chmod(0o444)
        self._publish()
        self.container(
            f"{self.prefix}-names", "--ip", NAME_SERVER, "--user=0", "--no-healthcheck",
            "--volume", f"{self._folder}/zone:/zone:ro", "--entrypoint", "python3",
            words=("/zone/zone.py",),
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        logs = {pod.name: pod.log() for pod in self._pods.values()}
        for what, name in reversed(self._made):
            self.engine.run(what, "rm", *(["--force"] if what != "network" else []), name)
        if kind is not None:
            for name, log in logs.items():
                print(f"--- {name}\n{log}")
            return
        for name, log in logs.items():
            assert "Traceback" not in log, (name, log)
            assert '"level": "critical"' not in log, (name, log)

    def container(self, name: str, *flags: str, words: tuple[str, ...] = ()) -> None:
        """Start one on the network."""
        self._made.append(("container", name))
        network = ("--network", self.prefix)
        self.engine.run("run", "--detach", "--name", name, *network, *flags, self.image, *words)

    def start(self, pod: str, *flags: str) -> Pod:
        """A new pod, or a successor with the volume of one that was removed; in DNS at once."""
        volume = f"{self.prefix}-{pod}"
        if ("volume", volume) not in self._made:
            self.engine.run("volume", "create", volume)
            self._made.append(("volume", volume))
        name = f"{self.prefix}-{pod}-{next(_numbers)}"
        settings = {
            "PARKINGD_NAME": pod,
            "PARKINGD_CLUSTER": CLUSTER,
            "PARKINGD_SRV": zone.SERVICE.removesuffix("."),
            "PARKINGD_PORT": str(zone.PORT),
            "PARKINGD_MDNS": "0",
            "PARKINGD_COOKIE_FILE": "/etc/parkingd-cookie/cookie",
        }
        self.container(
            name,
            "--hostname", pod, "--dns", NAME_SERVER, "--user", USER,
            "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
            "--memory=128m", "--pids-limit=64",
            "--tmpfs", "/run/parkingd",
            "--volume", f"{volume}:/var/lib/parkingd",
            "--volume", f"{self._cookie}:/etc/parkingd-cookie/cookie:ro",
            *(word for key, value in settings.items() for word in ("--env", f"{key}={value}")),
            *flags,
        )  # fmt: skip
        self._pods[pod] = made = Pod(self, pod, name)
        self._publish()
        return made

    def start_all(self, *pods: str, flags: tuple[str, ...] = ()) -> list[Pod]:
        """Together, as a StatefulSet with parallel pod management does; in one lot and in sync."""
        started = [self.start(pod, *flags) for pod in pods]
        for pod in started:
            pod.wait_for(f"members={len(pods)}", "synced", "ready")
        return started

    def lose_volume(self, pod: str) -> None:
        """What the volume held is gone; the pod has been removed before."""
        volume = f"{self.prefix}-{pod}"
        self.engine.run("volume", "rm", volume)
        self._made.remove(("volume", volume))

    def forget(self, pod: Pod) -> None:
        """It is not in DNS any more."""
        del self._pods[pod.name]
        self._made.remove(("container", pod.container))
        self._publish()

    def _publish(self) -> None:
        addresses = {pod.name: pod.address for pod in self._pods.values()}
        records = self._folder / "zone/records.json"
        # In place of the old one at once: the folder is what the container sees.
        draft = records.with_suffix(".draft")
        draft.write_text(json.dumps(addresses))
        draft.replace(records)


class Pod:
    """One node in a container."""

    def __init__(self, pods: Pods, name: str, container: str) -> None:
        self._engine = pods.engine
        self._pods = pods
        self.name = name
        self.container = container
        self.address = self.inspect(f'(index .NetworkSettings.Networks "{pods.prefix}").IPAddress')

    def inspect(self, path: str) -> str:
        """A field of what the engine knows of the container."""
        return self._engine.run("inspect", "--format", f"{{{{{path}}}}}", self.container)

    def log(self) -> str:
        """Everything it has written."""
        said = self._engine.attempt("logs", self.container)
        return said.stdout + said.stderr

    def ctl(self, *words: str | int, stdin: str | None = None) -> dict[str, Any]:
        """parkingd-ctl inside, without a word about which daemon is meant; its JSON."""
        flags = ("--interactive",) if stdin is not None else ()
        command = ("parkingd-ctl", *map(str, words), "--json", "--timeout", str(CTL_S))
        said = self._engine.run("exec", *flags, self.container, *command, stdin=stdin)
        return dict(json.loads(said))

    def wait_for(self, *conditions: str) -> None:
        """`wait --for` each of them."""
        until(self.answers, f"{self.name} answers", READY_S)
        words = [word for condition in conditions for word in ("--for", condition)]
        self.ctl("wait", *words)

    def answers(self) -> bool:
        """Whether its control socket does."""
        state = self.inspect(".State.Status")
        assert state == "running", (state, self.log())
        asked = self._engine.attempt("exec", self.container, "parkingd-ctl", "status")
        return asked.returncode == 0

    def plates(self) -> list[str]:
        """One for each stay, sorted."""
        return sorted(item["plate"] for item in self.ctl("vehicles")["items"])

    def kill(self) -> None:
        """SIGKILL, as when the machine's power goes."""
        self._engine.run("kill", self.container)

    def stop(self) -> float:
        """SIGTERM and ten seconds, as `docker stop` has it; how long it took."""
        began_s = time.monotonic()
        self._engine.run("stop", self.container)
        took_s = time.monotonic() - began_s
        status = self.inspect(".State.ExitCode")
        assert status == "0", (status, self.log())
        return took_s

    def start_again(self) -> None:
        """The same container, as after a crash in a pod."""
        self._engine.run("start", self.container)

    def remove(self) -> None:
        """The container is gone, its volume is not."""
        self._engine.run("rm", "--force", self.container)
        self._pods.forget(self)
