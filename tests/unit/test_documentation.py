"""The pages say what is there: commands, flags, variables, files, modules and tests."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from parkingd import __version__
from parkingd.adapters.control_wire import CONTROL_VERSION
from parkingd.adapters.data_dir import IDENTITY_FORMAT
from parkingd.adapters.database_format import FORMAT
from parkingd.cli import ctl_options, ctl_parsing
from parkingd.cli.ctl_help import overview
from parkingd.cli.flag_parser import as_text
from parkingd.cli.journal_options import EVENT_VARIABLE, HOOK_FIELDS, variable_of
from parkingd.cli.parkingd import help_page, main
from parkingd.config import load_config
from parkingd.config.options import OPTIONS, OTHER_VARIABLES
from parkingd.protocol.messages import WIRE_VERSION
from tests.docs.pages import MADE
from tests.docs.shell import calls, typed

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
CHANGELOG = ROOT / "CHANGELOG.md"
EVENT_PAGE = ROOT / "docs/reference-events.md"
MANUAL = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = (*MANUAL, CHANGELOG)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTINGS = {option.environment for option in OPTIONS} | set(OTHER_VARIABLES)
OF_EVENTS = {EVENT_VARIABLE, *map(variable_of, HOOK_FIELDS)}
"""What configures parkingd and parkingd-ctl; what a program that `watch` runs is told."""

PROGRAMS = ("parkingd", "parkingd-ctl", "python")
BLANK = re.compile(r"\s+")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text_of(page)) if found == language]


def inline(page: Path) -> list[str]:
    """Every piece of inline code, on one line."""
    prose = FENCE.sub("", text_of(page))
    return [BLANK.sub(" ", code) for code in re.findall(r"`([^`]+)`", prose)]


def words(line: str) -> list[str]:
    """A shell line without its prompt, and without where the program lies."""
    found = typed(line.removeprefix("$ "))
    if found and found[0] == "sudo":
        found = found[3:] if found[1] == "-u" else found[1:]
    return [found[0].removeprefix(".venv/bin/"), *found[1:]] if found else []


def shell_lines(page: Path) -> Iterator[str]:
    yield from (line for body in blocks(page, "sh") for line in body.splitlines())
    for body in blocks(page, "console"):
        yield from (line for line in body.splitlines() if line.startswith("$ "))


def commands(*pages: Path) -> list[list[str]]:
    """Every command of ours that a page tells people to type."""
    found = []
    for page in pages:
        typed = [part for line in shell_lines(page) for part in line.split(" && ")]
        named = [code for code in inline(page) if code.split(" ")[0] in PROGRAMS]
        for line in (*typed, *named):
            parts = words(line)
            if parts and parts[0] in PROGRAMS and len(parts) > 1:
                found.append(parts)
    return found


def called(program: str) -> list[list[str]]:
    return [parts[1:] for parts in commands(*PAGES) if parts[0] == program]


def known_flags() -> set[str]:
    texts = [overview()]
    texts += [str(ctl_parsing.parse([name, "--help"])[1].text) for name in ctl_options.COMMANDS]
    flags = {flag for text in texts for flag in re.findall(r"--[a-z][a-z-]+", text)}
    flags |= set(re.findall(r"--[a-z][a-z-]+", as_text(help_page())))
    return flags | {option.flag for option in OPTIONS}


# --- what people type ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", called("parkingd-ctl"), ids=" ".join)
def test_a_ctl_command_that_a_page_shows_is_understood(arguments: list[str]) -> None:
    if arguments[0] == "COMMAND":
        arguments = ["lot", *arguments[1:]]
    command, _ = ctl_parsing.parse(arguments)
    assert command in ctl_options.COMMANDS or command == "--help"


SCRIPTS = [(page, body) for page in MANUAL for body in blocks(page, "bash")]


@pytest.mark.parametrize(("page", "script"), SCRIPTS, ids=lambda what: getattr(what, "name", ""))
def test_a_script_that_a_page_shows_is_sound(page: Path, script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for arguments in calls(script, "parkingd-ctl"):
        assert ctl_parsing.parse(arguments)[0] in ctl_options.COMMANDS


@pytest.mark.parametrize("arguments", called("parkingd"), ids=" ".join)
def test_a_daemon_command_that_a_page_shows_is_valid(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp/x")
    assert main([*arguments, "--check-config"]) == 0


@pytest.mark.parametrize("arguments", called("python"), ids=" ".join)
def test_a_script_that_a_page_shows_is_there_and_knows_its_flags(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "venv"]:
        return
    if arguments[0] == "-m":
        module = arguments[1].replace(".", "/")
        if module == "pytest":
            assert all((ROOT / name).exists() for name in arguments[2:] if "/" in name)
            return
        folder = ROOT / module
        source = folder / "__main__.py" if folder.is_dir() else folder.with_suffix(".py")
        rest = arguments[2:]
    else:
        source, rest = ROOT / arguments[0], arguments[1:]
    code = text_of(source)
    for flag in (word for word in rest if word.startswith("--")):
        assert f'"{flag}"' in code, f"{source} knows no {flag}"


def test_the_pages_show_commands_at_all() -> None:
    assert len(called("parkingd-ctl")) > 20
    assert len(called("parkingd")) > 5
    assert len(called("python")) > 8


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_every_flag_that_a_page_names_alone_exists(page: Path) -> None:
    """A bare `--flag`; those in a command are tried above."""
    scripts = "".join(text_of(path) for path in ROOT.glob("tests/*/__main__.py"))
    scripts += "".join(text_of(path) for path in ROOT.glob("examples/*.py"))
    named = {code.split(" ")[0].split("=")[0] for code in inline(page) if code.startswith("--")}
    assert {flag for flag in named - known_flags() if f'"{flag}"' not in scripts} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_that_a_page_names_exists(page: Path) -> None:
    variables = SETTINGS | OF_EVENTS
    assert set(re.findall(r"PARKINGD_[A-Z_]+", text_of(page))) <= variables


def test_a_program_that_watch_runs_finds_what_the_reference_says_and_no_setting() -> None:
    told = set(re.findall(r"`(PARKINGD_[A-Z]+)`", text_of(EVENT_PAGE)))
    assert told == OF_EVENTS | {"PARKINGD_CONTROL"}
    assert not OF_EVENTS & SETTINGS


def test_the_table_of_commands_has_every_command_and_no_other() -> None:
    section = text_of(README).split("\n## The commands\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)", section, re.MULTILINE)
    assert set(rows) == set(ctl_options.COMMANDS)


def test_the_configuration_that_the_readme_shows_can_be_loaded(tmp_path: Path) -> None:
    (shown,) = blocks(README, "toml")
    assert tomllib.loads(shown)
    file = tmp_path / "parkingd.toml"
    file.write_text(shown)
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/tmp/x"}
    config = load_config({}, environ, config_file=str(file))
    assert (config.name, config.spaces, len(config.peers)) == ("north", 400, 2)


# --- what is made from the program ---------------------------------------------------------------


@pytest.mark.parametrize("path", MADE)
def test_what_is_made_from_the_program_is_current(path: str) -> None:
    """If not: `python -m tests.docs` writes it anew."""
    assert text_of(ROOT / path) == MADE[path](), "not current: run python -m tests.docs"


def test_the_index_links_every_page() -> None:
    linked = set(
        re.findall(r"^- \[.*?\]\(([\w-]+\.md)\): ", text_of(ROOT / "docs/README.md"), re.M)
    )
    assert linked == {path.name for path in MANUAL} - {"README.md"}


@pytest.mark.parametrize("page", [path for path in MADE if path.endswith(".1")])
def test_a_manual_page_is_sound(page: str) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed here")
    done = subprocess.run(
        [mandoc, "-Tlint", "-Wwarning", str(ROOT / page)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- the two commands of the first screen --------------------------------------------------------


def first_screen() -> str:
    return text_of(README).split("\n## ")[0]


def test_installing_and_running_is_one_line_and_so_is_installing_and_testing() -> None:
    screen = [body for language, body in FENCE.findall(first_screen()) if language == "sh"]
    install = [body for body in screen if "pip install" in body]
    assert [len(body.splitlines()) for body in install] == [1, 1]
    run, test = install
    assert run.startswith("python3 -m venv .venv && .venv/bin/pip install . && ")
    assert run.split(" && ")[-1].split() == [".venv/bin/parkingd", "--name", "gary"]
    assert test.startswith("python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && ")
    assert test.split(" && ")[-1].split() == [".venv/bin/python", "-m", "pytest", "-n", "4"]


def test_what_the_two_commands_install_is_declared() -> None:
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = declared["options.entry_points"]["console_scripts"]
    assert {line.split(" = ")[0] for line in scripts.split("\n") if line} == {
        "parkingd",
        "parkingd-ctl",
    }
    extra = declared["options.extras_require"]["test"]
    assert {"pytest", "pytest-xdist"} <= {line.split(" ")[0] for line in extra.split("\n") if line}


# --- files, modules and tests --------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_or_names_exists(page: Path) -> None:
    prose = FENCE.sub("", text_of(page))
    linked = re.findall(r"\]\(([^)#]+)", prose)
    targets = [page.parent / link for link in linked if "://" not in link]
    named = [
        c for c in inline(page) if re.match(r"(tests|docs|examples|parkingd|k8s)/[\w./-]+$", c)
    ]
    missing = [
        str(path) for path in (*targets, *(ROOT / name for name in named)) if not path.exists()
    ]
    assert missing == []


def modules_in_the_tree() -> set[str]:
    """Paths of the drawn tree, from its indentation."""
    (drawn,) = (body for body in blocks(ARCHITECTURE, "") if body.startswith("parkingd/\n"))
    found: set[str] = set()
    folders: list[str] = []
    for line in filter(str.strip, drawn.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name.rstrip("/")] if name.endswith("/") else []
        if not name.endswith("/"):
            found.add("/".join([*folders[:depth], name]))
    return found


def test_the_tree_of_the_architecture_has_every_module_and_no_other() -> None:
    """A package's own `__init__.py` is where its folder is."""
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "parkingd").rglob("*.py")
        if path.name != "__init__.py" or path.parent.name == "parkingd"
    }
    assert modules_in_the_tree() == there


def test_every_folder_of_tests_is_explained() -> None:
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders <= set(re.findall(r"^\| `tests/(\w+)`", text_of(ARCHITECTURE), re.MULTILINE))


def test_every_promise_of_this_version_names_tests_that_hold_it() -> None:
    rows = re.findall(r"^\| (P\d+) \|.*\| ([^|]*) \|$", text_of(README), re.MULTILINE)
    held = "P1 P2 P3 P4 P5 P6 P9 P10 P11"
    assert [promise for promise, _ in rows] == held.split()
    for promise, held_by in rows:
        files = re.findall(r"`(tests/[\w/]+\.py)`", held_by)
        assert files, promise
        assert all("def test_" in text_of(ROOT / file) for file in files), promise


def test_the_changelog_names_this_version_and_its_formats() -> None:
    text = text_of(CHANGELOG)
    newest = text.split("\n## [")[1]
    assert newest.startswith(f"{__version__}]")
    said = BLANK.sub(" ", newest)
    assert f"Wire protocol {WIRE_VERSION}, control protocol {CONTROL_VERSION}" in said
    assert f"database format {FORMAT}, identity format {IDENTITY_FORMAT}" in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_a_page_is_trailed_by_spaces_or_holds_a_tab(page: Path) -> None:
    lines = text_of(page).splitlines()
    assert [line for line in lines if line != line.rstrip() or "\t" in line] == []
