"""The seeds that once failed."""

from __future__ import annotations

import pytest

from tests.sim import __main__ as command
from tests.sim.corpus import ONCE_FAILED
from tests.sim.run import PASSED, run


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_a_seed_that_once_failed_keeps_every_promise(seed: int) -> None:
    result = run(seed)
    assert result.code == PASSED, (
        f"{result.text}\nit once showed: {ONCE_FAILED[seed]}"
        f"\nreplay: python -m tests.sim --seed {seed} --trace"
    )


def test_the_command_plays_every_seed_of_the_corpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = min(ONCE_FAILED)
    monkeypatch.setattr(command, "ONCE_FAILED", {seed: ONCE_FAILED[seed], 2: "nothing"})
    monkeypatch.setattr("sys.argv", ["tests.sim", "--corpus"])
    assert command.main() == 0
    assert "2 seeds, 0 failed" in capsys.readouterr().out


def test_the_command_takes_a_range_of_seeds_and_refuses_what_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.seeds_of("17:20") == range(17, 20)
    assert command.seeds_of("1000") == range(1000)
    for text in ("", "5:", "a:b", "5:5", "7:3", "0"):
        monkeypatch.setattr("sys.argv", ["tests.sim", "--seeds", text])
        with pytest.raises(SystemExit, match="2"):
            command.main()
        assert "is not FIRST:END" in capsys.readouterr().err
