"""The cookie and the keys that follow from it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from parkingd.adapters import keys
from parkingd.adapters.keys import COOKIE_BYTES_MAX, Cookie, derive_keys, load_cookie
from parkingd.adapters.transport.curve import key_pair
from parkingd.errors import ConfigError

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def write(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def test_a_given_text_wins_over_a_file_and_a_file_over_the_home_directory(tmp_path: Path) -> None:
    write(tmp_path / ".parkingd.cookie", "home")
    file = write(tmp_path / "file", "file\n")
    assert load_cookie(text=" text ", file=file, home=tmp_path) == Cookie("text", "PARKINGD_COOKIE")
    assert load_cookie(text=None, file=file, home=tmp_path) == Cookie("file", str(file))
    assert load_cookie(text=None, file=None, home=tmp_path).text == "home"


def test_the_first_start_makes_a_cookie_that_later_starts_find(tmp_path: Path) -> None:
    first = load_cookie(text=None, file=None, home=tmp_path)
    made = tmp_path / ".parkingd.cookie"
    assert first.origin == str(made)
    assert first.warnings == ()
    assert len(first.text) == 64
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [made.name]
    assert load_cookie(text=None, file=None, home=tmp_path) == first


def test_two_homes_get_two_cookies(tmp_path: Path) -> None:
    homes = [tmp_path / "a", tmp_path / "b"]
    for home in homes:
        home.mkdir()
    assert len({load_cookie(text=None, file=None, home=home).text for home in homes}) == 2


def test_of_many_first_starts_at_once_one_cookie_is_left(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        starts = [pool.submit(load_cookie, text=None, file=None, home=tmp_path) for _ in range(64)]
        assert len({start.result().text for start in starts}) == 1
    assert os.listdir(tmp_path) == [".parkingd.cookie"]


def test_who_loses_the_race_reads_the_winners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(source: object, target: Path) -> None:
        write(target, "the winner's")
        raise FileExistsError

    monkeypatch.setattr(keys.os, "link", overtaken)
    assert load_cookie(text=None, file=None, home=tmp_path).text == "the winner's"
    assert os.listdir(tmp_path) == [".parkingd.cookie"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_default_cookie_that_others_may_use_is_refused_with_the_remedy(
    tmp_path: Path, mode: int
) -> None:
    file = write(tmp_path / ".parkingd.cookie", "secret", mode)
    with pytest.raises(ConfigError) as caught:
        load_cookie(text=None, file=None, home=tmp_path)
    assert caught.value.hint == f"chmod 600 {file}"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o444, 0o644, 0o404, 0o460, 0o602])
def test_a_named_file_that_others_may_read_or_change_is_only_warned_about(
    tmp_path: Path, mode: int
) -> None:
    file = write(tmp_path / "mounted", "secret", mode)
    cookie = load_cookie(text=None, file=file, home=None)
    assert cookie.text == "secret"
    [warning] = cookie.warnings
    assert f"chmod 600 {file}" in warning
    assert "secret" not in warning


@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_a_named_file_that_the_own_group_may_read_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Kubernetes makes a Secret root's, readable by the group that `fsGroup` gives to the pod."""
    file = write(tmp_path / "mounted", "secret", mode)
    assert load_cookie(text=None, file=file, home=None).warnings == ()
    monkeypatch.setattr(keys.os, "getegid", lambda: 65_432)
    monkeypatch.setattr(keys.os, "getgroups", lambda: [65_433, os.stat(file).st_gid])
    assert load_cookie(text=None, file=file, home=None).warnings == ()
    monkeypatch.setattr(keys.os, "getgroups", lambda: [65_433])
    [warning] = load_cookie(text=None, file=file, home=None).warnings
    assert "others can read" in warning


@pytest.mark.parametrize("content", ["", " \n\t "])
def test_an_empty_cookie_is_refused_wherever_it_is(tmp_path: Path, content: str) -> None:
    file = write(tmp_path / ".parkingd.cookie", content)
    for text, named, home in ((content, None, None), (None, file, None), (None, None, tmp_path)):
        with pytest.raises(ConfigError, match="is empty") as caught:
            load_cookie(text=text, file=named, home=home)
        assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"two\nlines", b"nul\0", b"x" * (COOKIE_BYTES_MAX + 1)],
)
def test_a_file_that_is_no_line_of_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "cookie", content)
    with pytest.raises(ConfigError, match="text"):
        load_cookie(text=None, file=file, home=None)


def test_a_variable_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="PARKINGD_COOKIE"):
        load_cookie(text=os.fsdecode(b"caf\xe9"), file=None, home=None)


def test_a_missing_file_a_folder_and_a_fifo_are_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for file in (tmp_path / "missing", tmp_path, fifo):
        with pytest.raises(ConfigError, match=str(file)):
            load_cookie(text=None, file=file, home=None)


def test_without_a_home_the_error_names_the_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        load_cookie(text=None, file=None, home=None)
    assert "PARKINGD_COOKIE" in caught.value.hint


def test_a_home_that_is_not_there_is_named(tmp_path: Path) -> None:
    home = tmp_path / "nobody"
    with pytest.raises(ConfigError, match=str(home)) as caught:
        load_cookie(text=None, file=None, home=home)
    assert "PARKINGD_COOKIE" in caught.value.hint


@not_root
def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_cookie(text=None, file=None, home=tmp_path)


def test_a_disk_that_fails_leaves_no_half_cookie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys.os, "fsync", fail)
    with pytest.raises(ConfigError, match="No space left"):
        load_cookie(text=None, file=None, home=tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_derivation_is_the_one_that_every_version_must_keep() -> None:
    """Computed apart from the code: another value would split every running cluster."""
    expected = hashlib.scrypt(
        b"correct horse", salt=b"parkingd/1/default", n=32768, r=8, p=1, maxmem=2**26, dklen=32
    )
    pair = derive_keys("  correct horse\n", "default")
    assert pair.secret == expected
    assert z85.decode(pair.secret_z85) == expected
    assert pair.public_z85 == zmq.curve_public(pair.secret_z85)
    assert pair.fingerprint == "d7ffd75ae6a7bb17"


def test_another_cookie_or_cluster_gives_other_keys() -> None:
    pairs = [derive_keys("a", "x"), derive_keys("b", "x"), derive_keys("a", "y")]
    assert len({pair.secret for pair in pairs}) == 3
    assert len({pair.fingerprint for pair in pairs}) == 3


def test_what_is_secret_does_not_show_when_printed() -> None:
    cookie, pair = Cookie("secret text", "here"), key_pair(bytes(range(32)))
    assert "secret text" not in repr(cookie)
    for hidden in (pair.secret, pair.secret_z85, pair.public_z85):
        assert repr(hidden)[2:-1] not in repr(pair)
    assert pair.fingerprint in repr(pair)
    assert pair.fingerprint == hashlib.blake2b(pair.public_z85, digest_size=8).hexdigest()


def test_two_processes_that_start_together_share_one_cookie(tmp_path: Path) -> None:
    code = (
        "from parkingd.adapters.keys import load_cookie; from pathlib import Path; import sys;"
        "print(load_cookie(text=None, file=None, home=Path(sys.argv[1])).text)"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert len({start.communicate(timeout=30)[0] for start in starts}) == 1
