"""The fold of the dashboard: what is known after each message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from parkingd.adapters.document_values import Document, envelope, rfc3339
from parkingd.cli.top.demo import demo_model
from parkingd.cli.top.model import (
    BUCKET_S,
    BUCKETS,
    EVENTS_MAX,
    Compared,
    Lost,
    Message,
    Model,
    Moment,
    Polled,
    TellsNothing,
    Told,
    after,
)
from parkingd.cli.top.reading import read_event, read_gates, read_groups, read_lot, read_members

NOON_MS = 1_785_585_600_000


def moment(second: float) -> Moment:
    return Moment(500.0 + second, NOON_MS + int(second * 1_000))


def polled(second: float, inside: int = 0, incarnation: int = 1, **more: Any) -> Polled:
    status = {
        "cluster": "default",
        "incarnation": incarnation,
        "uptime_s": second,
        "synced": True,
        "ready": True,
        "lot": {"spaces": 100, "inside": inside, "free": 100 - inside, "state": "open"},
        "counters": {"events_received": int(second * 2), "bytes_in": int(second * 500)},
        **more,
    }
    at_ms = NOON_MS + int(second * 1_000)
    members = {"items": [{"name": "gary", "state": "alive", "version": "1.2.3"}]}
    return Polled(
        moment(second),
        envelope("Status", "gary", at_ms, status),
        envelope("MemberList", "gary", at_ms, members),
        envelope("GateList", "gary", at_ms, {"items": []}),
    )


def told(second: float, *events: tuple[int, str, str, int], missed: int = 0) -> Told:
    """Events as (second, type, plate, gate)."""
    items = tuple(
        {
            "seq": at,
            "type": kind,
            "time": rfc3339(NOON_MS + then * 1_000),
            "plate": plate,
            "gate": gate,
        }
        for at, (then, kind, plate, gate) in enumerate(events, 1)
    )
    return Told(moment(second), items, missed)


def folded(*messages: Message) -> Model:
    model = Model()
    for message in messages:
        model = after(model, message)
    return model


# --- one look ------------------------------------------------------------------------------------


def test_a_look_says_who_and_how() -> None:
    model = folded(polled(1, inside=3))
    assert (model.node, model.cluster, model.version) == ("gary", "default", "1.2.3")
    assert model.lot is not None
    assert (model.lot.inside, model.lot.free) == (3, 97)
    assert model.members[0].is_self
    assert model.polled == moment(1)


def test_before_the_first_look_nothing_is_known_and_nothing_is_stale() -> None:
    model = Model()
    assert model.age_s(moment(100)) is None
    assert not model.is_stale(moment(100), 1.0)
    assert model.per_minute(moment(100)) == (0, 0)
    assert model.rate("bytes_in") is None


def test_a_node_without_a_lot_has_none() -> None:
    look = polled(1, lot=None)
    model = folded(Polled(look.at, look.status, look.members, None))
    assert model.lot is None
    assert model.gates == ()


# --- cars in and out -----------------------------------------------------------------------------


def test_without_events_the_flow_is_what_the_count_changed_by() -> None:
    model = folded(polled(0, 10), polled(1, 13), polled(2, 12), TellsNothing(moment(2), ""))
    assert model.per_minute(moment(2)) == (3, 1)


def test_the_first_look_is_no_arrival_of_everybody() -> None:
    assert folded(polled(0, 50)).per_minute(moment(0)) == (0, 0)


def test_a_restarted_daemon_is_no_arrival_or_departure() -> None:
    model = folded(polled(0, 50), polled(1, 0, incarnation=2))
    assert model.per_minute(moment(1)) == (0, 0)


def test_with_events_the_flow_is_counted_and_not_guessed() -> None:
    events = told(2, (1, "entered", "A", 1), (1, "exited", "B", 2), (2, "entered", "C", 1))
    model = folded(told(0), polled(0, 10), events, polled(3, 11))
    assert model.per_minute(moment(3)) == (2, 1)


def test_cars_of_a_minute_ago_leave_the_rate_and_stay_in_the_history() -> None:
    model = folded(told(2, (1, "entered", "A", 1)))
    assert model.per_minute(moment(59)) == (1, 0)
    later = moment(1 + 7 * BUCKET_S)
    assert model.per_minute(later) == (0, 0)
    assert sum(came for came, _ in model.history(later)) == 1


def test_the_history_is_bounded_and_its_last_bucket_is_the_running_one() -> None:
    events = [(second, "entered", "A", 1) for second in range(0, 2 * BUCKETS * BUCKET_S, BUCKET_S)]
    model = folded(told(1, *events))
    history = model.history(moment(events[-1][0]))
    assert history == [(1, 0)] * BUCKETS
    assert len(model.flows) == BUCKETS


def test_the_last_car_of_a_gate_is_remembered() -> None:
    model = folded(told(3, (1, "entered", "A", 1), (2, "entered", "B", 2), (3, "exited", "C", 1)))
    assert {gate: (car.plate, car.direction) for gate, car in model.last_cars.items()} == {
        1: ("C", "out"),
        2: ("B", "in"),
    }


# --- events --------------------------------------------------------------------------------------


def test_events_are_kept_in_order_and_up_to_a_bound() -> None:
    first = told(1, *((1, "entered", f"A{n}", 1) for n in range(EVENTS_MAX)))
    model = folded(first, told(2, (2, "exited", "LAST", 1), missed=4))
    assert len(model.events) == EVENTS_MAX
    assert model.events[-1].plate == "LAST"
    assert (model.events_before, model.events_missed) == (1, 4)


def test_a_daemon_without_events_is_remembered_as_such_until_it_tells_some() -> None:
    model = folded(TellsNothing(moment(0), "no verb 'watch'"))
    assert model.tells_events is False
    assert after(model, told(1)).tells_events is True


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"by": "track", "empty": None, "request": "ab" * 16}, "by track"),
        ({"stay_s": 5_412}, "stay 1h"),
        ({"text": "overbooked by 3"}, "overbooked by 3"),
        ({"detail": {"owner": "joe", "epoch": 3}}, "owner joe, epoch 3"),
        ({"detail": "was ABC"}, "was ABC"),
        ({"names": ["a", "b"]}, "names a b"),
    ],
    ids=str,
)
def test_an_event_shows_whatever_else_it_carries(more: Document, detail: str) -> None:
    event = read_event({"seq": 7, "type": "x", "member": "joe"} | more, 5)
    assert (event.seq, event.member, event.detail, event.at_ms) == (7, "joe", detail, 5)


# --- loss ----------------------------------------------------------------------------------------


def test_what_was_known_stays_when_the_daemon_is_lost_and_since_when_is_the_first_time() -> None:
    lost = Lost(moment(5), "gary stopped")
    model = folded(polled(1, 3), lost, Lost(moment(9), "no daemon"))
    assert model.lost == lost
    assert model.lot is not None


def test_a_look_ends_the_loss() -> None:
    assert folded(polled(1), Lost(moment(2), ""), polled(3)).lost is None


@pytest.mark.parametrize(
    ("age_s", "interval_s", "stale"),
    [(2.9, 1.0, False), (3.1, 1.0, True), (12.0, 5.0, False), (13.0, 5.0, True)],
)
def test_no_answer_for_several_looks_is_stale(age_s: float, interval_s: float, stale: bool) -> None:
    assert folded(polled(0)).is_stale(moment(age_s), interval_s) is stale


def test_a_lost_daemon_is_not_stale_as_well() -> None:
    assert not folded(polled(0), Lost(moment(1), "")).is_stale(moment(60), 1.0)


# --- rates ---------------------------------------------------------------------------------------


def test_rates_are_means_of_the_last_looks() -> None:
    model = folded(*(polled(second) for second in range(30)))
    assert model.rate("events_received") == pytest.approx(2.0)
    assert model.rate("bytes_in") == pytest.approx(500.0)
    assert len(model.samples) <= 11


def test_a_restart_begins_the_rates_anew() -> None:
    restarted = replace(polled(0.5, incarnation=2), at=moment(52))
    model = folded(polled(50), polled(51), restarted)
    assert model.rate("bytes_in") is None


# --- troubles ------------------------------------------------------------------------------------


def test_all_well_has_no_troubles() -> None:
    assert folded(polled(1)).troubles() == ()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"warnings": ["clock joe +3600 s"]}, "clock joe"),
        ({"ready": False}, "not ready"),
        ({"synced": False}, "not in sync"),
    ],
)
def test_a_trouble_of_the_node_is_said(more: Document, says: str) -> None:
    (line,) = folded(polled(1, **more)).troubles()
    assert says in line


def test_the_demonstration_has_troubles_of_every_kind() -> None:
    said = "; ".join(demo_model().troubles())
    assert all(word in said for word in ("overbooked", "suspect: harry", "differ"))


# --- reading -------------------------------------------------------------------------------------


def test_a_document_of_another_version_is_read_as_far_as_it_goes() -> None:
    odd: Document = {"items": [{"gate": "four", "claims": 7}, "nonsense", {}], "node": "gary"}
    assert [gate.number for gate in read_gates(odd)] == [0, 0]
    assert [member.name for member in read_members(odd)] == ["", ""]
    assert read_lot("full") is None
    assert read_groups({"items": None}) == ()
    assert read_event({"time": "yesterday", "gate": "x"}, 9).at_ms == 9


def test_text_that_would_move_the_cursor_is_escaped() -> None:
    (member,) = read_members({"items": [{"name": "\x1b[2Jgary\n"}]})
    assert member.name == "\\x1b[2Jgary\\n"


def test_the_greatest_group_comes_first_and_of_equal_ones_our_own() -> None:
    document: Document = {
        "node": "gary",
        "items": [
            {"root": "a", "nodes": ["joe"]},
            {"root": "b", "nodes": ["gary"]},
            {"root": "c", "nodes": ["x", "y"]},
        ],
    }
    assert [group.root for group in read_groups(document)] == ["c", "b", "a"]
    model = folded(Compared(moment(0), document))
    assert model.root_of("joe") == "a"
    assert model.root_of("nobody") is None
