"""Daemons of one machine, found through the folder that they share."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parkingd.adapters.discovery import local
from parkingd.adapters.discovery.local import AddressFile, LocalSource
from parkingd.protocol.facts import Candidate, LinkFailure
from parkingd.protocol.limits import CANDIDATES_MAX
from parkingd.protocol.messages import Address


@pytest.fixture(autouse=True)
def _scan_often(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "YOUNG_INTERVAL_S", 0.005)


def said(name: str, port: int = 7744, **changes: object) -> AddressFile:
    fields: dict[str, object] = {
        "name": name,
        "host": "127.0.0.1",
        "port": port,
        "pub_port": port + 1,
        "pid": os.getpid(),
        "fingerprint": "c0ffee",
    }
    return AddressFile(**(fields | changes))  # type: ignore[arg-type]


def put(folder: Path, file: AddressFile) -> Path:
    path = folder / f"{file.name}.addr"
    path.write_bytes(file.encode())
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def test_two_daemons_find_each_other_in_the_first_round_or_soon_after(tmp_path: Path):
    async def scenario() -> None:
        by_a: list[Candidate] = []
        by_b: list[Candidate] = []
        a = LocalSource(tmp_path / "default", said("a", 7744))
        b = LocalSource(tmp_path / "default", said("b", 7746))
        await a.start(by_a.append)
        assert by_a == []
        await b.start(by_b.append)
        assert by_b == [Candidate(Address("127.0.0.1", 7744), "local", "a")]
        await until(lambda: by_a == [Candidate(Address("127.0.0.1", 7746), "local", "b")])
        await b.stop()
        await until(lambda: len(by_a) == 2)
        assert by_a[1] == Candidate(Address("127.0.0.1", 7746), "local", "b", gone=True)
        await a.stop()
        assert list((tmp_path / "default").iterdir()) == []

    asyncio.run(scenario())


def test_the_folder_is_private_and_the_file_says_where_the_daemon_is(tmp_path: Path):
    async def scenario() -> None:
        source = LocalSource(tmp_path / "airport", said("a"))
        await source.start(lambda _: None)
        folder = tmp_path / "airport"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert json.loads((folder / "a.addr").read_text()) == {
            "name": "a",
            "host": "127.0.0.1",
            "port": 7744,
            "pub_port": 7745,
            "pid": os.getpid(),
            "fingerprint": "c0ffee",
        }
        await source.stop()

    asyncio.run(scenario())


def test_a_daemon_with_another_cookie_is_proposed_as_such(tmp_path: Path):
    async def scenario() -> None:
        put(tmp_path, said("b", 7746, fingerprint="beef"))
        found: list[Candidate] = []
        source = LocalSource(tmp_path, said("a"))
        await source.start(found.append)
        assert [candidate.mismatch for candidate in found] == [LinkFailure.OTHER_COOKIE]
        await source.stop()

    asyncio.run(scenario())


def test_what_a_dead_process_left_is_ignored_and_removed(tmp_path: Path):
    async def scenario() -> None:
        path = put(tmp_path, said("b", 7746, pid=dead_pid()))
        found: list[Candidate] = []
        source = LocalSource(tmp_path, said("a"))
        await source.start(found.append)
        assert found == []
        assert not path.exists()
        await source.stop()

    asyncio.run(scenario())


def test_a_daemon_that_is_killed_is_withdrawn(tmp_path: Path):
    async def scenario() -> None:
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        path = put(tmp_path, said("b", 7746, pid=process.pid))
        found: list[Candidate] = []
        source = LocalSource(tmp_path, said("a"))
        await source.start(found.append)
        assert len(found) == 1
        process.kill()
        process.communicate()
        await until(lambda: len(found) == 2)
        assert found[1].gone
        assert not path.exists()
        await source.stop()

    asyncio.run(scenario())


def test_a_restart_on_another_port_withdraws_the_old_address(tmp_path: Path):
    async def scenario() -> None:
        put(tmp_path, said("b", 7746))
        found: list[Candidate] = []
        source = LocalSource(tmp_path, said("a"))
        await source.start(found.append)
        draft = tmp_path / "draft"
        draft.write_bytes(said("b", 7750).encode())
        draft.rename(tmp_path / "b.addr")
        await until(lambda: len(found) == 3)
        assert [(c.address.port, c.gone) for c in found] == [
            (7746, False),
            (7746, True),
            (7750, False),
        ]
        await source.stop()

    asyncio.run(scenario())


def test_a_file_that_does_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reads: list[bytes] = []
    decode = AddressFile.decode_untrusted
    monkeypatch.setattr(
        AddressFile,
        "decode_untrusted",
        classmethod(lambda _, data: reads.append(data) or decode(data)),
    )
    rounds: list[int] = []

    class Counting(LocalSource):
        def _round(self) -> None:
            super()._round()
            rounds.append(1)

    async def scenario() -> None:
        put(tmp_path, said("b", 7746))
        (tmp_path / "c.addr").write_bytes(b"no address")
        source = Counting(tmp_path, said("a"))
        await source.start(lambda _: None)
        await until(lambda: len(rounds) >= 10)
        await source.stop()

    asyncio.run(scenario())
    assert len(reads) == 2


def test_the_own_file_is_put_back_when_a_cleaner_took_it(tmp_path: Path):
    async def scenario() -> None:
        source = LocalSource(tmp_path / "x", said("a"))
        await source.start(lambda _: None)
        (tmp_path / "x" / "a.addr").unlink()
        (tmp_path / "x").rmdir()
        await until((tmp_path / "x" / "a.addr").exists)
        await source.stop()

    asyncio.run(scenario())


def test_at_the_stop_the_file_of_another_daemon_of_that_name_stays(tmp_path: Path):
    async def scenario() -> None:
        source = LocalSource(tmp_path, said("a"))
        await source.start(lambda _: None)
        await asyncio.to_thread((tmp_path / "a.addr").unlink)
        path = put(tmp_path, said("a", 9000))
        await source.stop()
        assert path.exists()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 4_000,
        b'{"name": "b"}',
        said("c").encode(),
        said("b", host="0.0.0.0").encode(),
        said("b", host="239.1.1.1").encode(),
        said("b", host="evil.example").encode(),
        said("b", port=0).encode(),
        said("b", port=65_536).encode(),
        said("b", pub_port="7745").encode(),
        said("b", pid=0).encode(),
        said("b", pid=-1).encode(),
        said("b", pid=2**70).encode(),
        said("b", fingerprint="f" * 1_000).encode(),
        said("b", fingerprint="f" * 100_000).encode(),
    ],
    ids=lambda _: "",  # the bytes hold a process id: as names they would differ between workers
)
def test_a_file_that_is_no_address_file_proposes_nothing(tmp_path: Path, data: bytes):
    async def scenario() -> None:
        (tmp_path / "b.addr").write_bytes(data)
        found: list[Candidate] = []
        source = LocalSource(tmp_path, said("a"))
        await source.start(found.append)
        assert found == []
        assert source.problem is None
        await source.stop()

    asyncio.run(scenario())


def test_links_pipes_folders_and_names_that_are_none_are_left_alone(tmp_path: Path):
    async def scenario() -> None:
        outside = put(tmp_path, said("b", 7746))
        folder = tmp_path / "cluster"
        folder.mkdir()
        (folder / "b.addr").symlink_to(outside)
        os.mkfifo(folder / "c.addr")
        (folder / "d.addr").mkdir()
        (folder / "e e.addr").write_bytes(said("e e").encode())
        found: list[Candidate] = []
        source = LocalSource(folder, said("a"))
        await source.start(found.append)
        assert found == []
        assert source.problem is None
        await source.stop()

    asyncio.run(scenario())


def test_a_thousand_files_propose_a_bounded_number(tmp_path: Path):
    async def scenario() -> None:
        for number in range(1_000):
            put(tmp_path, said(f"n{number}", 10_000 + number))
        found: list[Candidate] = []
        source = LocalSource(tmp_path, said("a"))
        await source.start(found.append)
        assert len(found) == CANDIDATES_MAX
        await source.stop()

    asyncio.run(scenario())


def test_a_folder_that_cannot_be_used_is_a_problem_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")

    async def scenario() -> None:
        in_the_way = tmp_path / "runtime"
        in_the_way.write_text("not a folder")
        found: list[Candidate] = []
        source = LocalSource(in_the_way / "default", said("a"))
        await source.start(found.append)
        assert source.problem is not None
        assert "Not a directory" in source.problem
        in_the_way.unlink()
        await until(lambda: source.problem is None)
        assert (in_the_way / "default" / "a.addr").exists()
        await source.stop()

    asyncio.run(scenario())
    assert [record.message for record in caplog.records] == ["local_failed", "local_works"]
