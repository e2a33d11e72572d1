"""What `parkingd` says to people and scripts before and instead of running, and how it logs."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import parkingd
from parkingd.cli.logs import LIMIT_KEYS_MAX, RateLimit, configure_logging
from parkingd.cli.parkingd import CRASH_FILE, config_as_toml, main
from parkingd.config import Config, load_config
from parkingd.config.options import OPTIONS
from parkingd.errors import ConfigError, StorageError

Run = Callable[[Config], int]


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A home and a runtime directory of its own; the logging of pytest put back afterwards."""
    for variable in [name for name in os.environ if name.startswith(("PARKINGD_", "XDG_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PARKINGD_RUNTIME_DIR", "/run/x")
    root, raises = logging.getLogger(), logging.raiseExceptions
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises
    for name in ("parkingd", "zeroconf"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Put something else in the place of the daemon."""

    def replace(run: Run) -> None:
        stand_in = types.ModuleType("parkingd.daemon")
        stand_in.run_daemon = lambda config, *_: run(config)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "parkingd.daemon", stand_in)

    return replace


def raising(error: BaseException) -> Run:
    def run(config: Config) -> int:
        raise error

    return run


def test_the_daemon_gets_the_checked_configuration_and_its_status_is_the_exit_status(
    daemon: Callable[[Run], None],
):
    seen: list[Config] = []
    daemon(lambda config: seen.append(config) or 0)
    assert main(["--name", "gary", "--peer", "a:1", "--peer", "b:2", "--no-mdns"]) == 0
    (config,) = seen
    assert config.name == "gary"
    assert [str(peer) for peer in config.peers] == ["a:1", "b:2"]
    assert config.mdns is False


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("port 7744 is in use", "give another --port"),
        StorageError("port 7744 is in use", "give another --port"),
        ConfigError("port 7744\nis in use", "give another\n  --port"),
    ],
)
def test_what_the_operator_can_put_right_is_one_line_and_exit_status_2(
    daemon: Callable[[Run], None], capsys: pytest.CaptureFixture[str], error: Exception
):
    daemon(raising(error))
    assert main([]) == 2
    assert capsys.readouterr().err == "parkingd: port 7744 is in use; give another --port\n"


def test_an_interrupt_is_exit_status_130(
    daemon: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
):
    daemon(raising(KeyboardInterrupt()))
    assert main([]) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_one_line_and_its_traceback_is_in_the_data_directory(
    daemon: Callable[[Run], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    daemon(raising(AssertionError("B-AA 123")))
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    assert main(["--data-dir", str(data_dir)]) == 70
    said = capsys.readouterr().err
    report = data_dir / CRASH_FILE
    assert said == f"parkingd: this is a bug (AssertionError); please report it with {report}\n"
    assert "AssertionError: B-AA 123" in report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600


def test_a_bug_without_a_data_directory_is_one_line(
    daemon: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
):
    daemon(raising(ZeroDivisionError()))
    assert main(["--ephemeral"]) == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "PARKINGD_LOG_LEVEL=debug" in said


def test_with_the_debug_level_a_bug_shows_its_traceback(
    daemon: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
):
    daemon(raising(ZeroDivisionError()))
    assert main(["--ephemeral", "--log-level", "debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--spacs", "3"], "unknown flag --spacs; did you mean --spaces?"),
        (["--no-mdn"], "unknown flag --no-mdn; did you mean --no-mdns?"),
        (["--space=3"], "did you mean --spaces?"),
        (["--data", "x"], "did you mean --data-dir?"),
        (["--bogus"], "unknown flag --bogus; see parkingd --help"),
        (["--name"], "--name needs a value"),
        (["--ephemeral=1"], "--ephemeral takes no value"),
        (["gary"], "'gary' is not expected here"),
        (["--spaces", "many"], "from --spaces"),
        (["--spaces", "-5"], "from 1 to"),
        (["--name", ""], "is empty"),
        (["--ops", "localhost:9744"], "is not a port, nor an IP address with one"),
        (["--srv", "_gossip._tcp.a b"], "is not a name in the DNS"),
        (["--srv", "lot.test", "--dns", "ns.lot.test"], "is not the address of a name server"),
        (["--admission", "strong"], "not in this version"),
        (["--config", "/does/not/exist"], "No such file"),
        (["--peer", "gate"], "HOST:PORT"),
    ],
)
@pytest.mark.parametrize("action", [[], ["--check-config"], ["--print-config"]])
def test_a_wrong_flag_is_one_line_and_exit_status_2_whatever_was_asked(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str, action: list[str]
):
    assert main([*action, *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("parkingd: ")
    assert said.err.count("\n") == 1
    assert expected in said.err


def test_check_config_says_that_it_is_valid_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert main(["--check-config"]) == 0
    assert capsys.readouterr().out == "configuration is valid\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["h11", "prometheus_client"])
def test_check_config_says_what_to_install_for_the_ops_port(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
):
    check = ["--check-config", "--ops", "9744"]
    assert main(check) == 0
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["--check-config"]) == 0
    assert capsys.readouterr().err == ""
    assert main(check) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"parkingd: --ops needs {package}, which is not installed; ")
    assert said.endswith("-m pip install 'parkingd[ops]'\n")


def test_check_config_warns_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PARKINGD_SPACE", "1")
    assert main(["--check-config", "--cookie", "hunter2"]) == 0
    said = capsys.readouterr()
    assert said.out == "configuration is valid\n"
    assert "did you mean PARKINGD_SPACES?" in said.err
    assert "--cookie-file" in said.err
    assert "hunter2" not in said.err


def test_check_config_looks_at_the_cookie_as_the_daemon_will(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    cookie = tmp_path / "cookie"
    check = ["--check-config", "--cookie-file", str(cookie)]
    assert main(check) == 2
    assert "No such file" in capsys.readouterr().err
    cookie.write_text("s3cret\n")
    cookie.chmod(0o600)
    assert main(check) == 0
    assert capsys.readouterr().err == ""
    cookie.chmod(0o644)
    assert main(check) == 0
    assert "warning: others can read" in capsys.readouterr().err
    cookie.write_text(" \n")
    assert main(check) == 2
    assert "is empty" in capsys.readouterr().err
    monkeypatch.setenv("HOME", "/proc/none")
    assert main(["--check-config"]) == 2
    assert "cannot make the cookie /proc/none" in capsys.readouterr().err


def test_without_a_home_the_way_out_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HOME")
    assert main(["--check-config"]) == 2
    assert "PARKINGD_COOKIE" in capsys.readouterr().err


def test_what_print_config_prints_reads_back_to_the_same_configuration(tmp_path: Path):
    file = tmp_path / "first.toml"
    file.write_text(
        'srv = "lot.test"\npeers = ["a:1", "[fd00::1]:2"]\nops = "[::]:9744"\n'
        'runtime_dir = "/run/\\u00e4 \\"q\\" \\\\"\n'
    )
    flags: dict[str, str | bool | list[str]] = {"name": "gary", "port": "0", "mdns": False}
    environ = {"HOME": str(tmp_path), "PARKINGD_SPACES": "7", "PARKINGD_DNS": "fd00::53"}
    first = load_config(flags, environ, config_file=str(file))
    again = tmp_path / "again.toml"
    again.write_text(config_as_toml(first))
    second = load_config({}, {"HOME": str(tmp_path)}, config_file=str(again))
    for option in OPTIONS:
        assert getattr(first, option.key) == getattr(second, option.key)


def test_print_config_names_origins_and_masks_the_cookie(capsys: pytest.CaptureFixture[str]):
    assert main(["--print-config", "--name", "gary", "--cookie", "hunter2"]) == 0
    printed = capsys.readouterr().out
    assert 'name = "gary"  # from --name\n' in printed
    assert "spaces = 100  # default\n" in printed
    assert '"/run/x"  # from PARKINGD_RUNTIME_DIR\n' in printed
    assert "hunter2" not in printed
    assert "cookie" not in tomllib.loads(printed)


def test_version_names_the_parts():
    done = subprocess.run(
        [sys.executable, "-m", "parkingd", "--version"], capture_output=True, text=True, check=True
    )
    rows = dict(line.split(" ") for line in done.stdout.splitlines())
    assert rows["parkingd"] == parkingd.__version__
    assert rows["wire"] == "1"
    assert {"Python", "pyzmq", "libzmq"} <= rows.keys()


def test_help_shows_every_flag_with_its_variable(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for option in OPTIONS:
        assert option.flag in text
        assert option.environment in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_examples_of_the_help_are_valid(
    capsys: pytest.CaptureFixture[str], daemon: Callable[[Run], None]
):
    daemon(lambda _: 0)
    main(["-h"])
    text = capsys.readouterr().out
    examples = [line.split()[1:] for line in text.splitlines() if line.startswith("  parkingd ")]
    assert len(examples) >= 3
    for example in examples:
        assert main(example) == 0


@pytest.mark.parametrize("target", ["/dev/full", "pipe"])
def test_output_that_nobody_takes_is_no_traceback(target: str):
    if target == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-m", "parkingd", "--help"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
    assert done.returncode == (0 if target == "pipe" else 2)


@pytest.mark.parametrize("module", ["parkingd.cli.parkingd", "parkingd.cli.ctl"])
def test_closed_standard_streams_are_no_bug(module: str):
    code = f"import sys; from {module} import main; sys.exit(main())"
    for closed, flag, status in (
        (">&-", "--version", 0),
        ("<&- >&- 2>&-", "--help", 0),
        ("2>&-", "--nope", 2),
    ):
        line = f'exec "$0" -c "$1" {flag} {closed}'
        done = subprocess.run(["sh", "-c", line, sys.executable, code], capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_neither_the_loop_nor_discovery_nor_the_database_are_loaded_to_check_a_configuration():
    code = (
        "import sys; from parkingd.cli.parkingd import main; main(['--check-config']);"
        "print(sorted({'zeroconf', 'dns', 'rich', 'sqlite3', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "configuration is valid\n[]\n"


# The log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_line_is_one_json_object_where_nobody_looks():
    stream = io.StringIO()
    configure_logging("info", None, stream)
    log = logging.getLogger("parkingd.gates")
    log.info("gate_claimed", extra={"values": {"gate": 3, "owner": "gary", "level": "x"}})
    log.debug("too_small")
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said.pop("ts").endswith("Z")
    assert said == {"level": "info", "event": "gate_claimed", "gate": 3, "owner": "gary"}


def test_a_log_line_is_text_on_a_terminal_with_colour_unless_unwanted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    configure_logging("info", None, stream)
    logging.getLogger("parkingd").warning("mdns_off", extra={"values": {"reason": "no device"}})
    assert "\x1b[33mWARNING\x1b[0m mdns_off" in stream.getvalue()
    assert stream.getvalue().endswith('reason="no device"\n')
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure_logging("info", None, stream)
    logging.getLogger("parkingd").warning("mdns_off")
    assert "\x1b" not in stream.getvalue()
    stream = Terminal()
    configure_logging("info", "json", stream)
    logging.getLogger("parkingd").warning("mdns_off")
    assert json.loads(stream.getvalue())["event"] == "mdns_off"


def test_a_text_line_is_for_people():
    stream = io.StringIO()
    configure_logging("info", "text", stream)
    values = {"gates": [1, 4], "names": ("a b", "c"), "target": None, "kept": False}
    logging.getLogger("parkingd").info("gates_stopped", extra={"values": values})
    assert stream.getvalue().endswith('gates_stopped gates=1,4 names="a b,c" kept=False\n')


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[2J", "a b=c", "\u202egary", "\udcff", "ä"])
def test_what_a_stranger_says_stays_on_its_line(format: str, hostile: str):
    stream = io.StringIO()
    configure_logging("info", format, stream)
    logging.getLogger("parkingd").info(hostile, extra={"values": {"name": hostile}})
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    line.encode()


def test_a_traceback_shows_only_at_the_debug_level():
    for level, shown in (("info", False), ("debug", True)):
        stream = io.StringIO()
        configure_logging(level, "json", stream)
        try:
            raise ValueError("x")
        except ValueError as error:
            logging.getLogger("asyncio").error("loop", exc_info=error)
        said = json.loads(stream.getvalue())
        assert (said["logger"], said["error"]) == ("asyncio", "ValueError: x")
        assert ("traceback" in said) is shown


def test_a_line_that_cannot_be_written_makes_no_noise(capsys: pytest.CaptureFixture[str]):
    stream = io.StringIO()
    configure_logging("info", "text", stream)
    stream.close()
    logging.getLogger("parkingd").error("gone")
    assert capsys.readouterr().err == ""


def test_repeated_warnings_pass_once_per_interval_and_key_and_are_counted():
    now = 0.0
    limit = RateLimit(interval_s=10.0, clock_s=lambda: now)
    assert limit.suppressed("a") == 0
    assert limit.suppressed("b") == 0
    assert [limit.suppressed("a") for _ in range(3)] == [None] * 3
    now = 10.0
    assert limit.suppressed("a") == 3
    assert limit.suppressed("a") is None


def test_the_rate_limit_remembers_a_bounded_number_of_keys():
    now = 0.0
    limit = RateLimit(interval_s=10.0, clock_s=lambda: now)
    for number in range(LIMIT_KEYS_MAX + 1):
        assert limit.suppressed(str(number)) == 0
    assert limit.suppressed(str(LIMIT_KEYS_MAX)) is None
    assert limit.suppressed("0") == 0


def test_a_record_with_a_limit_key_is_limited_and_one_without_is_not():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    log = logging.getLogger("parkingd")
    for _ in range(5):
        log.warning("frame_refused", extra={"limit_key": "truncated"})
        log.warning("frame_refused", extra={"limit_key": "too_large"})
        log.warning("gate_lost")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events.count("frame_refused") == 2
    assert events.count("gate_lost") == 5
