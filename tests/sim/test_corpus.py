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
