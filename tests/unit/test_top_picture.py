"""The picture in the README: made by a command, the same everywhere, and current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from parkingd.cli.ctl import main
from parkingd.cli.top.app import glyphs_of
from parkingd.cli.top.ink import ASCII, UNICODE, Glyphs

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/top.svg"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_in_the_readme_is_current(tmp_path: Path) -> None:
    made = tmp_path / "top.svg"
    assert main(["top", "--demo", "--svg", str(made)]) == 0
    assert made.read_text(encoding="utf-8") == PICTURE.read_text(encoding="utf-8"), (
        "parkingd-ctl top --demo --svg docs/top.svg"
    )
    assert "](docs/top.svg)" in README
    assert "`parkingd-ctl top --demo --svg docs/top.svg`" in README


def test_it_is_the_same_wherever_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "66")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    made = tmp_path / "top.svg"
    assert main(["top", "--demo", "--svg", str(made)]) == 0
    assert made.read_bytes() == PICTURE.read_bytes()


def test_it_needs_nothing_from_the_net_and_has_words_for_who_cannot_see_it() -> None:
    root = ElementTree.parse(PICTURE).getroot()
    assert root.findtext(f"{SVG}title") == "parkingd-ctl top"
    assert root.findtext(f"{SVG}desc")
    text = PICTURE.read_text(encoding="utf-8")
    assert text.count("http") == 1  # the name space
    assert "url(" not in text
    assert "<script" not in text


def test_it_shows_what_matters() -> None:
    texts = [found.text or "" for found in ElementTree.parse(PICTURE).iter(f"{SVG}text")]
    for words in ("DEGRADED", "OVERBOOKED by 3", "suspect", "moving", "gary → larry", "conflict"):
        assert any(words in text for text in texts), words


def test_nothing_is_drawn_beside_it() -> None:
    root = ElementTree.parse(PICTURE).getroot()
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    drawn = [found for kind in ("text", "rect") for found in root.iter(SVG + kind)]
    placed = [found.attrib for found in drawn if "x" in found.attrib]
    assert len(placed) > 100
    for each in placed:
        length = float(each.get("textLength") or each["width"])
        assert 0 < float(each["x"]) < float(each["x"]) + length < width
        assert 0 < float(each["y"]) < height


def test_a_frame_of_the_demonstration_is_printed_without_a_daemon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["top", "--demo", "--once", "-o", "table"]) == 0
    printed = capsys.readouterr().out
    assert "OVERBOOKED by 3" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_colours_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--demo", "--once", "--color", "always"]) == 0
    assert "\x1b[" in capsys.readouterr().out
    assert main(["top", "--demo", "--once", "--color", "never"]) == 0
    assert "\x1b[" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--demo"], "--demo draws one frame"),
        (["--once", "--json"], "top draws for people"),
        (["--interval", "0"], "no interval"),
        (["--interval", "nan"], "no interval"),
        (["--once", "ABC"], "ABC"),
    ],
    ids=" ".join,
)
def test_misuse_is_exit_status_2_with_a_hint(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_said_to_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    program = "import sys; from parkingd.cli.ctl import main; sys.exit(main())"
    target = tmp_path / "no" / "top.svg"
    done = subprocess.run(
        [sys.executable, "-c", program, "top", "--demo", "--svg", str(target)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert str(target) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environ", "encoding", "glyphs"),
    [
        ({}, "utf-8", UNICODE),
        ({"LANG": "de_DE.UTF-8"}, "utf-8", UNICODE),
        ({"LANG": "en_GB.utf8"}, "UTF-8", UNICODE),
        ({"LANG": "C.UTF-8"}, "utf-8", UNICODE),
        ({"LANG": "C"}, "utf-8", ASCII),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", ASCII),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, "utf-8", ASCII),
        ({"LANG": "de_DE.ISO-8859-1"}, "iso-8859-1", ASCII),
        ({"LANG": "de_DE.UTF-8"}, "ascii", ASCII),
        ({"LC_CTYPE": "C.UTF-8"}, "utf-8", UNICODE),
    ],
)
def test_the_locale_says_which_characters_there_are(
    environ: dict[str, str], encoding: str, glyphs: Glyphs
) -> None:
    assert glyphs_of(environ, encoding) is glyphs
