"""What Prometheus's own tool thinks of the metrics, the alerting rules and their tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from parkingd.adapters.ops.metrics import exposition
from parkingd.protocol.commands import AskToEnter
from tests.adapters.ops_stage import OpsOnStage
from tests.unit.scripted import Stage

MONITORING = Path(__file__).parents[2] / "docs/monitoring"

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: Debian package prometheus"
)


def promtool(*words: str | Path, stdin: bytes = b"") -> str:
    """What it says; it must find nothing wrong."""
    done = subprocess.run(
        ["promtool", *map(str, words)],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


def test_it_accepts_the_metrics_of_a_node_that_has_seen_everything() -> None:
    gary, diane = Stage().found("gary", "diane", gates=2)
    with OpsOnStage(gary) as ops:
        gary.track("A1")
        gary.submit(AskToEnter("B2", 1, None))
        gary.submit(AskToEnter("B2", 9, None))
        diane.track("C3")
        gary.exit("A1")
        gary.exit("D4")
        ops.network.dropped["full"] += 1
        gary.node.counters["refused_auth"] += 1
        gary.stage.pass_ms(3_000)
        text = exposition(ops.look())
    assert promtool("check", "metrics", stdin=text) == ""


def test_it_would_find_a_name_that_breaks_the_rules() -> None:
    with pytest.raises(AssertionError, match="_total"):
        promtool(
            "check", "metrics", stdin=b"# HELP x_count Bad.\n# TYPE x_count counter\nx_count 1\n"
        )


def test_it_accepts_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", MONITORING / "alerts.yaml")


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", MONITORING / "alerts_test.yaml")


def test_the_tests_of_the_alerts_can_fail(tmp_path: Path) -> None:
    """A rule whose threshold is off by one is caught."""
    for file in MONITORING.glob("*.yaml"):
        text = file.read_text().replace("(parkingd_gate_owned) > 1", "(parkingd_gate_owned) > 2")
        (tmp_path / file.name).write_text(text)
    with pytest.raises(AssertionError, match="GateDoubleOwned"):
        promtool("test", "rules", tmp_path / "alerts_test.yaml")
