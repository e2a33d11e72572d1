"""What the ops port shows of a node: names, labels, values, and nowhere a plate."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from parkingd import __version__
from parkingd.adapters.ops import service
from parkingd.adapters.ops.health import LOOP_STILL_MS_MAX, degradations
from parkingd.adapters.ops.metrics import CONTENT_TYPE, exposition, families
from parkingd.adapters.ops.tally import Histogram, Tally
from parkingd.protocol.commands import (
    AskToEnter,
    Correct,
    ImportRow,
    ImportRows,
    Leave,
    RecordExit,
    SetGates,
    SetSpaces,
    Track,
)
from parkingd.protocol.effects import Effects, Level, Notice, Reply
from parkingd.protocol.outbox import STORAGE_WARNING
from parkingd.protocol.outcomes import Decision, Entry, Exit, Failure, Status
from tests.adapters.ops_stage import OpsOnStage
from tests.unit.scripted import Box, Stage

LABELS = {
    "build_info": {"version", "wire", "python", "cluster", "node"},
    "cluster_members": {"state"},
    "peer_last_heard_seconds": {"peer"},
    "peer_rtt_seconds": {"peer"},
    "clock_offset_seconds": {"peer"},
    "member_transitions": {"to"},
    "discovery_candidates": {"source", "state"},
    "messages_received": {"type"},
    "messages_sent": {"type"},
    "messages_dropped": {"reason"},
    "messages_refused": {"reason"},
    "sync_rounds": {"result"},
    "lot_state": {"state"},
    "gate_owned": {"gate"},
    "entries": {"gate"},
    "exits": {"gate", "match"},
    "admissions": {"gate", "decision", "reason"},
    "request_failures": {"code"},
    "degraded": {"reason"},
    "event_loop_lag_seconds": {"le"},
    "stay_seconds": {"le"},
}
"""Every metric with labels, and which."""


@pytest.fixture
def ops() -> Iterator[OpsOnStage]:
    """Gary, alone in a lot of three spaces and two gates."""
    (box,) = Stage().found("gary", spaces=3, gates=2)
    with OpsOnStage(box) as ops:
        yield ops


def pair() -> tuple[Box, Box]:
    gary, diane = Stage().found("gary", "diane", gates=2)
    return gary, diane


def scrape(ops: OpsOnStage) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples of parkingd's own metrics: name -> values of the labels, in order -> value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exposition(ops.look()).decode()):
        for sample in family.samples:
            rows = found.setdefault(sample.name.removeprefix("parkingd_"), {})
            rows[tuple(sample.labels[key] for key in sorted(sample.labels))] = sample.value
    return found


def degraded(ops: OpsOnStage) -> str:
    return dict(ops.get("/readyz").headers).get("X-Parkingd-Degraded", "")


# --- names and labels ----------------------------------------------------------------------------


def test_every_name_has_the_prefix_and_every_label_is_of_a_known_set() -> None:
    gary, diane = pair()
    with OpsOnStage(gary) as ops:
        for plate in ("A1", "B2"):
            gary.track(plate)
        gary.submit(AskToEnter("C3", 1, None))
        gary.exit("A1")
        diane.exit("B2")
        gary.stage.pass_ms(1_000)
        own = [f for f in families(ops.look()) if not f.name.startswith("process_")]
    assert all(family.name.startswith("parkingd_") for family in own)
    assert len({family.name for family in own}) == len(own)
    labelled = {family.name.removeprefix("parkingd_"): _labels(family) for family in own}
    with_labels = {name: labels for name, labels in labelled.items() if labels}
    assert with_labels == {name: LABELS[name] for name in with_labels}
    assert with_labels.keys() >= {"exits", "entries", "peer_rtt_seconds", "gate_owned"}
    assert all(family.documentation.endswith(".") for family in own)


def _labels(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels}


def test_the_exposition_is_text_of_the_format_that_its_type_names(ops: OpsOnStage) -> None:
    response = ops.get("/metrics")
    assert (response.status, response.content_type) == (200, CONTENT_TYPE)
    assert "version=0.0.4" in response.content_type
    names = {f.name for f in text_string_to_metric_families(response.body.decode())}
    assert names >= {"parkingd_gate_owned", "parkingd_lot_spaces", "process_cpu_seconds"}


def test_two_scrapes_share_nothing(ops: OpsOnStage) -> None:
    assert scrape(ops).keys() == scrape(ops).keys()


# --- values --------------------------------------------------------------------------------------


def test_the_lot_and_the_gates_are_as_the_node_reports_them(ops: OpsOnStage) -> None:
    for plate in ("A1", "B2", "C3", "D4"):
        ops.box.track(plate)
    values = scrape(ops)
    assert values["lot_spaces"][()] == 3
    assert values["lot_vehicles"][()] == 4
    assert values["lot_overbooked"][()] == 1
    assert values["lot_conflicts"][()] == 0
    assert values["lot_state"] == {("open",): 0, ("almost_full",): 0, ("full",): 1, ("closed",): 0}
    assert values["gates"][()] == 2
    assert values["gate_owned"] == {("1",): 1, ("2",): 1}
    assert values["build_info"] == {
        ("scripted", "gary", platform.python_version(), __version__, "1"): 1
    }
    assert values["start_time_seconds"][()] == 1
    assert values["control_requests_total"][()] == 3


def test_every_gate_is_owned_once_over_all_nodes() -> None:
    boxes = pair()
    total: dict[tuple[str, ...], float] = {}
    for box in boxes:
        with OpsOnStage(box) as ops:
            for gate, value in scrape(ops)["gate_owned"].items():
                total[gate] = total.get(gate, 0) + value
    assert total == {("1",): 1, ("2",): 1}


def test_apart_both_sides_own_every_gate() -> None:
    """So that whoever sums over both sees two."""
    gary, diane = pair()
    gary.stage.cut("gary")
    gary.stage.pass_ms(6_000)
    for box in (gary, diane):
        with OpsOnStage(box) as ops:
            assert set(scrape(ops)["gate_owned"].values()) == {1}


def test_cars_are_counted_by_who_answered_and_a_repeated_request_is_not(
    ops: OpsOnStage,
) -> None:
    request = b"r" * 16
    for _ in range(2):
        ops.box.track("A1", request, gate=2)
    ops.box.submit(AskToEnter("B2", 1, None))
    ops.box.submit(AskToEnter("B2", 1, None))
    ops.box.submit(AskToEnter("C3", 99_999, None))
    ops.box.stage.pass_ms(10_000)
    ops.box.exit("A1", gate=2)
    ops.box.exit("NEVERSEEN", gate=1)
    rows = tuple(ImportRow(line, f"I{line}", 1, None, bytes([line]) * 16) for line in (1, 2))
    ops.box.submit(ImportRows(rows))
    ops.box.submit(Track("", 1, None))
    values = scrape(ops)
    assert values["entries_total"] == {("2",): 1}
    assert values["exits_total"] == {("1", "none"): 1, ("2", "exact"): 1}
    assert values["admissions_total"] == {
        ("denied", "0", "unknown_gate"): 1,
        ("admitted", "1", "ok"): 1,
        ("denied", "1", "already_inside"): 1,
    }
    assert values["imported_total"][()] == 2
    assert values["request_failures_total"] == {("invalid_plate",): 1}
    assert values["stay_seconds_count"][()] == 1
    assert values["stay_seconds_sum"][()] == pytest.approx(10, abs=1)
    assert values["stay_seconds_bucket"]["900",] == 1


def test_members_are_counted_by_state_and_left_ones_have_no_series() -> None:
    gary, diane = pair()
    with OpsOnStage(gary) as ops:
        values = scrape(ops)
        assert values["cluster_members"]["alive",] == 2
        assert values["peer_last_heard_seconds"].keys() == {("diane",)}
        assert values["clock_offset_seconds"]["diane",] == 0
        assert degraded(ops) == ""
        diane.submit(Leave())
        gary.stage.pass_ms(10_000)
        values = scrape(ops)
        assert values["cluster_members"]["alive",] == 1
        assert values["cluster_members"]["left",] == 1
        assert "peer_last_heard_seconds" not in values
        assert values["member_transitions_total"]["left",] == 1
        assert degraded(ops) == "alone"


def test_a_clock_that_is_ahead_shows_with_its_sign() -> None:
    gary, diane = pair()
    diane.skew_ms = 3_000
    gary.stage.pass_ms(1_000)
    for box, expected_s in ((gary, 3), (diane, -3)):
        with OpsOnStage(box) as ops:
            (offset_s,) = scrape(ops)["clock_offset_seconds"].values()
            assert offset_s == pytest.approx(expected_s, abs=0.5)


def test_a_member_that_died_and_is_back_has_flapped() -> None:
    gary, _ = pair()
    with OpsOnStage(gary) as ops:
        gary.stage.cut("gary")
        gary.stage.pass_ms(6_000)
        values = scrape(ops)
        assert values["member_transitions_total"]["dead",] == 1
        assert values["member_flaps_total"][()] == 0
        assert degraded(ops) == "alone, members_lost"
        assert ops.get("/readyz").status == 200
        gary.stage.heal()
        gary.stage.pass_ms(6_000)
        values = scrape(ops)
        assert values["member_flaps_total"][()] == 1
        assert values["member_transitions_total"]["alive",] == 2
        assert values["messages_received_total"]["Heartbeat",] > 0
        assert values["messages_sent_total"]["Heartbeat",] > 0
        assert values["peer_rtt_seconds"].keys() == {("diane",)}
        assert degraded(ops) == ""


def test_what_only_a_dead_node_had_makes_nobody_unready() -> None:
    """Of two events of roy the second arrived alone, and nobody else has the first."""
    gary, _, roy = Stage().found("gary", "diane", "roy", gates=1)
    gary.stage.cut("roy")
    _, second = roy.track("LOST1"), roy.track("SEEN2")
    roy.kill()
    gary.give(roy, second)
    with OpsOnStage(gary) as ops:
        gary.stage.pass_ms(6_000)
        values = scrape(ops)
        assert values["cluster_members"]["alive",] == 2
        assert values["synced"][()] == 0
        assert values["ready"][()] == 1
        assert ops.get("/readyz").status == 200


def test_counts_of_the_sockets_and_of_refusals_show_by_reason(ops: OpsOnStage) -> None:
    ops.network.heard(100)
    ops.network.told(7)
    ops.network.dropped["full"] += 2
    ops.box.node.counters["refused_other_cluster"] = 5
    ops.box.node.counters["refused_name_taken"] = 1
    values = scrape(ops)
    assert values["network_received_bytes_total"][()] == 100
    assert values["network_sent_bytes_total"][()] == 7
    assert values["messages_dropped_total"] == {("full",): 2}
    assert values["messages_refused_total"] == {("other_cluster",): 5, ("name_taken",): 1}
    assert values["name_conflicts_total"][()] == 1


def test_a_failing_disk_degrades_and_makes_nothing_unready(ops: OpsOnStage) -> None:
    look = ops.look()
    failing = replace(look, status=replace(look.status, warnings=(STORAGE_WARNING,)))
    rows = {
        sample.labels["reason"]: sample.value
        for family in families(failing)
        if family.name == "parkingd_degraded"
        for sample in family.samples
    }
    assert rows == {"alone": 1, "members_lost": 0, "storage": 1, "gates": 0}
    failed = Notice(Level.ERROR, "storage_failed", (("reason", "no space"),))
    ops.service.tally.did(Effects(notices=(failed,)))
    assert scrape(ops)["storage_failures_total"][()] == 1


def test_a_node_without_a_lot_shows_no_lot_and_no_gates() -> None:
    stage = Stage()
    box = stage.box("gary", 1)
    box.start(patient=True)
    with OpsOnStage(box) as ops:
        values = scrape(ops)
        assert values["ready"][()] == values["synced"][()] == 0
        assert "lot_spaces" not in values
        assert "gate_owned" not in values
        reply = ops.get("/readyz")
        assert reply.status == 503
        assert b"[-]lot failed: it has neither joined nor founded a lot" in reply.body
        assert ops.get("/livez").status == 200
        status = json.loads(ops.get("/v1/status").body)
        assert (status["lot"], status["ready"]) == (None, False)


def test_a_histogram_counts_up_to_its_bounds() -> None:
    histogram = Histogram((1, 5))
    for value in (0.5, 1, 1.5, 7):
        histogram.add(value)
    assert histogram.buckets() == [("1", 2), ("5", 3), ("+Inf", 4)]
    assert histogram.sum == 10


def test_a_timer_that_is_late_shows_and_one_that_is_early_counts_as_on_time() -> None:
    tally = Tally()
    for late_ms in (-3, 0, 30, 2_000):
        tally.ticked(late_ms, ())
    assert dict(tally.lag.buckets())["0.001"] == 2
    assert dict(tally.lag.buckets())["1.5"] == 3


def test_what_the_daemon_asks_itself_is_not_counted() -> None:
    tally = Tally()
    failure = Failure("not_ready", "no lot yet")
    tally.did(Effects(replies=(Reply(-1_000, failure), Reply(1, failure))))
    assert tally.failures == {"not_ready": 1}


@given(st.integers(), st.sampled_from([Entry, Exit, Decision]))
def test_whatever_gates_clients_name_there_are_never_more_series_than_gates(
    gate: int, kind: type[Entry | Exit | Decision]
) -> None:
    outcome = {
        Entry: Entry("A1", gate, (1, 1), 0),
        Exit: Exit("A1", gate, "none", None, (1, 1)),
        Decision: Decision("denied", "unknown_gate", "A1", gate, None, None, None),
    }[kind]
    tally = Tally()
    tally.did(Effects(replies=(Reply(1, outcome),)))
    (counted,) = [*tally.entries, *(each[0] for each in (*tally.exits, *tally.admissions))]
    assert counted == (gate if 1 <= gate <= 1_000 else 0)


# --- health --------------------------------------------------------------------------------------


def test_a_loop_that_turns_is_alive_and_one_that_stood_still_is_not(ops: OpsOnStage) -> None:
    assert ops.get("/livez").body == b"ok\n"
    ops.ticked_ms = ops.box.now.mono_ms - LOOP_STILL_MS_MAX - 1
    reply = ops.get("/livez")
    assert reply.status == 503
    assert reply.body.startswith(b"[-]loop failed: the node's timer did not fire for 5.0 s\n")


def test_a_leaving_node_is_alive_and_not_ready() -> None:
    gary, diane = pair()
    diane.pause()
    with OpsOnStage(gary) as ops:
        gary.submit(Leave())
        reply = ops.get("/readyz")
        assert reply.status == 503
        assert b"[-]staying failed: it is leaving\n" in reply.body
        assert b"[+]synced ok\n" in reply.body
        assert ops.get("/livez").status == 200


def test_a_gate_that_nobody_serves_degrades(ops: OpsOnStage) -> None:
    status = ops.look().status
    assert isinstance(status, Status)
    with_hole = replace(status, gates_unowned=(2,))
    assert degradations(with_hole) == ["alone", "gates"]


def test_a_node_that_does_not_answer_is_a_503_with_the_reason(
    ops: OpsOnStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ANSWER_S", 0.05)
    ops.box.commits = False
    ops.box.submit(Track("A1", 1, None))
    reply = ops.get("/v1/lot")
    assert (reply.status, reply.content_type) == (503, "application/json")
    document = json.loads(reply.body)
    assert (document["kind"], document["code"]) == ("Error", "timed_out")
    assert ops.get("/readyz").status == 200
    ops.box.persist()
    assert json.loads(ops.get("/v1/lot").body)["inside"] == 1


# --- plates --------------------------------------------------------------------------------------

MARK = "ZQ"
"""In every plate and in nothing else."""

plates = st.text("ABCXYZ0189", min_size=1, max_size=8).map(lambda rest: f"{MARK}{rest}")
acts = st.one_of(
    st.builds(Track, plates, st.integers(1, 2), st.none()),
    st.builds(Track, plates.map(lambda plate: f"{plate}!?{plate}{plate}"), st.just(1), st.none()),
    st.builds(AskToEnter, plates, st.integers(0, 5), st.none()),
    st.builds(RecordExit, plates, st.integers(1, 3), st.none()),
    st.builds(Correct, plates, plates, st.none()),
    st.builds(SetSpaces, st.integers(1, 3), st.none()),
    st.builds(SetGates, st.integers(1, 3), st.none()),
)


@given(st.lists(st.tuples(st.booleans(), acts), min_size=1, max_size=12))
def test_no_plate_is_shown_anywhere(steps: list[tuple[bool, object]]) -> None:
    """Two nodes that are apart record cars, so that there are conflicts when they meet."""
    gary, diane = pair()
    with OpsOnStage(gary) as ops:
        gary.stage.cut("gary")
        for is_gary, act in steps:
            (gary if is_gary else diane).submit(act)  # type: ignore[arg-type]
        for box in (gary, diane):
            box.track(f"{MARK}1")
        gary.stage.heal()
        gary.stage.pass_ms(7_000)
        assert any(plate.startswith(MARK) for plate in gary.node.state.stays.plates())
        lot = json.loads(ops.get("/v1/lot").body)
        assert lot["conflicts"] >= 1
        for target in ("/metrics", "/v1/lot", "/v1/status", "/readyz?verbose", "/livez?verbose"):
            reply = ops.get(target)
            assert MARK not in reply.body.decode().upper(), target
            assert MARK not in str(reply.headers).upper()


# --- documents -----------------------------------------------------------------------------------


def test_the_status_has_the_members_and_the_lot_has_no_plates(ops: OpsOnStage) -> None:
    status = json.loads(ops.get("/v1/status").body)
    assert (status["api"], status["kind"], status["node"]) == ("parkingd/v1", "Status", "gary")
    assert [member["name"] for member in status["items"]] == ["gary"]
    assert status["members"] == {"alive": 1, "suspect": 0, "dead": 0, "left": 0}
    assert status["degraded"] == ["alone"]
    lot = json.loads(ops.get("/v1/lot").body)
    assert (lot["kind"], lot["spaces"], lot["conflicts"]) == ("Lot", 3, 0)
    assert "conflict_plates" not in lot
    assert "conflict_plates" not in status["lot"]


def test_an_unknown_path_is_told_which_there_are(ops: OpsOnStage) -> None:
    for target in ("/", "/livez/", "/v1", "/v1/vehicles", "//livez", "http://gary/livez", "*"):
        reply = ops.get(target)
        assert reply.status == 404, target
        assert b"/livez, /readyz, /metrics, /v1/status, /v1/lot" in reply.body


@given(st.text("?&=verbos%/#+ ", max_size=30))
def test_any_query_is_understood_or_ignored(query: str) -> None:
    (box,) = Stage().found("gary", gates=1)
    with OpsOnStage(box) as ops:
        reply = ops.get(f"/livez?{query}")
        assert reply.status == 200
        assert reply.body in (b"ok\n", b"[+]loop ok\nlivez check passed\n")
