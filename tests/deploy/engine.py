"""Docker Engine for tests: the one that answers here or one of their own, and the image it builds.

An engine of their own keeps everything in memory and in a folder that goes with it, makes no
bridge, and leaves the machine's packet filter alone. No registry of images is asked for anything:
the base is made from Debian's packages, as `python:slim` is, and given to the Dockerfile as its
ARG. What pip wants is downloaded beforehand, by the hashes of requirements.lock, and served as an
index on loopback.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.daemon.harness import until

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements.lock"
BASE_VARIABLE: Final = "PARKINGD_TEST_BASE"
"""Names an image that is there already, to be used as the base."""
BASE_TAG: Final = "parkingd-test-base"
IMAGE_TAG: Final = "parkingd-test"

ENGINE_START_S: Final = 30.0
FOLDER_SIZE: Final = "4g"
"""Of memory, at most; a base and two images take 1 GB."""
COMMAND_S: Final = 60.0
BUILD_S: Final = 600.0
DOWNLOAD_RETRIES: Final = 3
"""Of a package that does not come at the first time; pip's own number is 5."""

NOT_IN_SLIM: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl",
                      "usr/lib/*-linux-gnu/perl", "var/lib/apt/lists/*")  # fmt: skip
"""What Debian's packages bring and a slim image has not."""


def tool(name: str) -> str:
    """A program of the extra `deploy`; without it the test is skipped."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs `{name}` (the extra `deploy`)")
    return found


def refusal() -> str | None:
    """Why no container can be run here; None when one can."""
    for tool, package in (("docker", "docker.io"), ("mmdebstrap", "mmdebstrap")):
        if shutil.which(tool) is None:
            return f"needs `{tool}` (Debian package {package})"
    if _answers(os.environ.get("DOCKER_HOST")):
        return None
    if shutil.which("dockerd") is None:
        return "needs a Docker Engine (Debian package docker.io)"
    if os.geteuid() != 0:
        return "needs a Docker Engine that answers, or root to start one"
    return None


def _answers(host: str | None) -> bool:
    environ = os.environ | ({"DOCKER_HOST": host} if host else {})
    asked = subprocess.run(["docker", "info"], env=environ, capture_output=True, check=False)
    return asked.returncode == 0 and b"Server Version" in asked.stdout


class Engine:
    """Runs `docker`. AssertionError when a command fails that may not."""

    def __init__(self, folder: Path) -> None:
        """``folder``: an empty one. An engine of our own, if there has to be one, lives there."""
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        self._environ = dict(os.environ)
        # BuildKit is another program that need not be there.
        self._environ["DOCKER_BUILDKIT"] = "0"
        if not _answers(os.environ.get("DOCKER_HOST")):
            self._start()

    def _start(self) -> None:
        folder = self._folder
        tmpfs = ["mount", "-t", "tmpfs", "-o", f"mode=0700,size={FOLDER_SIZE}", "tmpfs"]
        subprocess.run([*tmpfs, str(folder)], check=True)
        host = f"unix://{folder}/docker.sock"
        self._environ["DOCKER_HOST"] = host
        with (folder / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [
                    "dockerd",
                    f"--host={host}",
                    f"--data-root={folder}/data",
                    f"--exec-root={folder}/exec",
                    f"--pidfile={folder}/dockerd.pid",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--ip-forward=false",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: _answers(host), "the engine answers", ENGINE_START_S)
        except AssertionError:
            said = (folder / "dockerd.log").read_text()[-2_000:]
            self.close()
            raise AssertionError(f"the engine does not answer; its log ends so:\n{said}") from None

    def close(self) -> None:
        """End an engine of our own; its containers are gone by then. It leaves mounts behind."""
        if self._daemon is None:
            return
        self._daemon.terminate()
        self._daemon.wait(ENGINE_START_S)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount == str(self._folder) or mount.startswith(f"{self._folder}/"):
                subprocess.run(["umount", mount], check=True)

    def attempt(
        self, *words: str | Path, stdin: str | None = None, timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail."""
        return subprocess.run(
            ["docker", *map(str, words)],
            env=self._environ,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def run(
        self, *words: str | Path, stdin: str | None = None, timeout_s: float = COMMAND_S
    ) -> str:
        """Run a command; what it wrote to standard output."""
        ended = self.attempt(*words, stdin=stdin, timeout_s=timeout_s)
        assert ended.returncode == 0, (words, ended.stdout[-2000:], ended.stderr[-2000:])
        return ended.stdout.strip()

    def base(self) -> str:
        """A slim image with Python, named by `BASE_VARIABLE` or made here."""
        named = os.environ.get(BASE_VARIABLE)
        if named:
            return named
        archive = self._folder / "base.tar"
        removed = " ".join(f'"$1"/{path}' for path in NOT_IN_SLIM)
        suite = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
        assert suite is not None
        subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=apt",
                "--include=python3-venv",
                f"--aptopt=Acquire::Retries {DOWNLOAD_RETRIES}",
                f"--customize-hook=rm -rf {removed}",
                suite[1],
                str(archive),
            ],
            env=os.environ | {"TMPDIR": str(self._folder)},
            check=True,
            timeout=BUILD_S,
        )
        self.run("import", archive, BASE_TAG, timeout_s=BUILD_S)
        archive.unlink()
        return BASE_TAG

    def build(self, base: str, folder: Path) -> str:
        """The Dockerfile of this tree, as it stands, on a base; the tag."""
        python = self.run(
            "run", "--rm", "--network=none", base, "python3", "-c",
            "import sys; print('%d.%d' % sys.version_info[:2])",
        )  # fmt: skip
        download(folder, "--python-version", python)
        with index(folder) as url:
            self.run(
                "build", "--network=host", "--tag", IMAGE_TAG, "--build-arg", f"BASE={base}",
                "--build-arg", f"INDEX_URL={url}", "--build-arg", "VERSION=1.2.3", ROOT,
                timeout_s=BUILD_S,
            )  # fmt: skip
        return IMAGE_TAG


def download(folder: Path, *flags: str) -> list[str]:
    """What the lock names, by its hashes, as wheels; the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", *wanted, *flags, "-r", str(LOCK)],
        check=True,
        timeout=BUILD_S,
    )
    return sorted(path.name for path in folder.glob("*.whl"))


@contextlib.contextmanager
def index(wheels: Path) -> Iterator[str]:
    """Serve a folder of wheels as pip expects an index to be; the address of it."""
    for wheel in wheels.glob("*.whl"):
        project = wheels / "simple" / wheel.name.split("-")[0].lower().replace("_", "-")
        project.mkdir(parents=True, exist_ok=True)
        wheel.rename(project / wheel.name)
    handler = functools.partial(_QuietHandler, directory=str(wheels))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass
