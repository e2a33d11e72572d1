"""The completion scripts, in the real shells. What is typed is completed with a single TAB."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from parkingd.adapters.rundir import ControlLock, control_socket_path
from parkingd.cli.completion import script_for
from parkingd.cli.ctl import main
from parkingd.cli.ctl_arguments import SHELLS
from parkingd.cli.ctl_options import COMMANDS

WAIT_S = 20.0

TYPED = {
    "parkingd-ctl tr": "track",
    "parkingd-ctl --name gary vehi": "vehicles",
    "parkingd-ctl --json stat": "status",
    "parkingd-ctl set sp": "spaces",
    "parkingd-ctl members f": "forget",
    "parkingd-ctl wait --for sy": "synced",
    "parkingd-ctl export --form": "--format",
    "parkingd-ctl export --format js": "jsonl",
    "parkingd-ctl lot --color al": "always",
    "parkingd-ctl exit ABC123 1 --req": "--request-id",
    "parkingd-ctl import cars-of-to": "cars-of-today.csv",
    "parkingd-ctl --name gar": "gary",
    "parkingd --ephem": "--ephemeral",
    "parkingd --log-level de": "debug",
    "parkingd --name gary --log-form": "--log-format",
    "parkingd --config cars-of-to": "cars-of-today.csv",
}
"""What is typed, and the word that its last one becomes."""


def shell_or_skip(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a file to complete and a stand-in for the command that lists the daemons."""
    (tmp_path / "cars-of-today.csv").touch()
    for shell in SHELLS:
        (tmp_path / f"script.{shell}").write_text(script_for(shell), encoding="utf-8")
    command = tmp_path / "bin/parkingd-ctl"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\n[ "$*" = "completion nodes" ] && echo gary && echo larry\n')
    command.chmod(0o755)
    return tmp_path


def surroundings(home: Path) -> dict[str, str]:
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8", "PS1": "$ "}


def run_shell(argv: list[str], home: Path) -> list[str]:
    done = subprocess.run(
        argv, cwd=home, env=surroundings(home), capture_output=True, text=True, timeout=WAIT_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_bash_completes_what_is_typed(home: Path) -> None:
    bash = shell_or_skip("bash")
    program = """
        eval "$(cat script.bash)"
        while IFS= read -r line; do
            read -ra COMP_WORDS <<<"$line"
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
            [[ $(complete -p "${COMP_WORDS[0]}") =~ -F\\ ([^ ]+) ]]
            "${BASH_REMATCH[1]}" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}"
            echo "${COMPREPLY[*]}"
        done <typed
    """
    (home / "typed").write_text("".join(f"{line}\n" for line in TYPED))
    offered = run_shell([bash, "--norc", "-c", program], home)
    assert dict(zip(TYPED, offered, strict=True)) == TYPED


def test_fish_completes_what_is_typed(home: Path) -> None:
    fish = shell_or_skip("fish")
    asked = "; ".join(
        f"echo (complete -C '{line}' | string replace -r '\\t.*' '')" for line in TYPED
    )
    offered = run_shell([fish, "--no-config", "-c", f"source script.fish; {asked}"], home)
    assert dict(zip(TYPED, offered, strict=True)) == TYPED


@pytest.fixture
def zsh(home: Path) -> Iterator[int]:
    """The terminal of an interactive zsh that has evaluated the script."""
    program = shell_or_skip("zsh")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execve(program, [program, "-f", "-i"], surroundings(home))
    try:
        start = 'autoload -U compinit; compinit -u -D; eval "$(cat script.zsh)"; echo START""ED\n'
        os.write(terminal, start.encode())
        read_until(terminal, "STARTED")
        yield terminal
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def read_until(terminal: int, wanted: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    shown = ""
    while wanted not in shown:
        left_s = deadline_s - time.monotonic()
        assert left_s > 0, f"{wanted!r} was not shown, but {shown!r}"
        if select.select([terminal], [], [], left_s)[0]:
            shown += os.read(terminal, 65_536).decode(errors="replace")


def test_zsh_completes_what_is_typed(zsh: int) -> None:
    for line, word in TYPED.items():
        os.write(zsh, f"\x15{line}\t".encode())
        read_until(zsh, " ".join([*line.split(" ")[:-1], f"{word} "]))


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_flag_is_in_the_script(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in (*COMMANDS, "--request-id", "--timeout", "--no-mdns", "--cookie-file"):
        assert name.removeprefix("--") in script


def test_another_shell_is_told_for_which_there_is_a_script(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["completion", "tcsh"]) == 2
    said = capsys.readouterr().err.splitlines()[0]
    assert said == "parkingd-ctl: SHELL is bash, zsh or fish, not 'tcsh'"


def test_the_daemons_that_run_here_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["--runtime-dir", str(tmp_path), "completion", "nodes"]
    assert main(ask) == 0
    assert capsys.readouterr().out == ""
    with ExitStack() as stack:
        for cluster, name in (("day", "larry"), ("night", "larry"), ("day", "gary")):
            (tmp_path / cluster).mkdir(exist_ok=True)
            lock = ControlLock.acquire(control_socket_path(tmp_path, cluster, name))
            stack.callback(lock.release)
        assert main(ask) == 0
        assert capsys.readouterr().out == "gary\nlarry\n"
        assert main([*ask, "--cluster", "night"]) == 0
        assert capsys.readouterr().out == "larry\n"
