"""The metrics, made anew for every scrape from one look at the node.

Names follow the practices of Prometheus: base units, ``_total`` for counters. Labels come from
bounded sets only: gates of the lot, members, words of this program. Never a plate. What every node
knows of the one lot (``lot_...``, ``cluster_members``) is to be looked at with ``max``; what each
node did itself is to be summed; ``gate_owned`` summed by gate is 1 in a healthy car park.

No registry is shared with anything: each scrape has its own.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from parkingd import __version__
from parkingd.adapters.ops import tally
from parkingd.adapters.ops.health import DEGRADATIONS, degradations
from parkingd.adapters.ops.sight import Sight
from parkingd.protocol.members import MemberState
from parkingd.protocol.messages import WIRE_VERSION

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "parkingd_"
LOT_STATES: Final = ("open", "almost_full", "full", "closed")

_COUNTERS: Final = {
    "pauses": "Times that this process stood still for over half a second.",
    "suspicions_refuted": "Suspicions of this node that it answered.",
    "gap_requests": "Requests for events that were missed.",
    "events_received": "Events taken over from other nodes.",
    "snapshots_sent": "Whole records handed to nodes that were far behind.",
    "snapshots_joined": "Whole records taken over.",
    "divergences": "Times that a member had seen the same events and held something else.",
    "gates_contested": "Times that a gate was seen with two owners.",
    "gates_claimed": "Gates that this node took.",
    "gates_released": "Gates that this node handed over.",
    "from_strangers": "Messages of nodes that are no members.",
}
"""The node's own counters that become metrics of the same name."""

_SYNC_RESULTS: Final = {"pulls_answered": "served", "pulls_unanswered": "unanswered"}


def exposition(sight: Sight) -> bytes:
    """The text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Look(sight))
    return generate_latest(registry)


class _Look(Collector):
    def __init__(self, sight: Sight) -> None:
        self._sight = sight

    def collect(self) -> Iterator[Metric]:
        return families(self._sight)


def families(sight: Sight) -> Iterator[Metric]:
    """Every metric with its samples."""
    yield from _process(sight)
    yield from _health(sight)
    yield from _members(sight)
    yield from _discovery(sight)
    yield from _traffic(sight)
    yield from _replication(sight)
    yield from _lot(sight)
    yield from _gates(sight)
    yield from _cars(sight)
    yield from _requests(sight)


Rows = Iterable[tuple[tuple[str, ...], float]]
"""Values of the labels, and the value."""


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _gauges(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _counts(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _histogram(name: str, text: str, values: tally.Histogram) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text)
    family.add_metric((), values.buckets(), values.sum)
    return family


def _by_word(counts: Mapping[str, int]) -> Rows:
    return [((word,), count) for word, count in sorted(counts.items())]


def _stripped(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {
        key.removeprefix(prefix): count for key, count in counts.items() if key.startswith(prefix)
    }


# --- the process and its health ------------------------------------------------------------------


def _process(sight: Sight) -> Iterator[Metric]:
    labels = ("version", "wire", "python", "cluster", "node")
    row = (
        __version__,
        str(WIRE_VERSION),
        platform.python_version(),
        sight.status.cluster,
        sight.name,
    )
    yield _gauges("build_info", "Always 1: what runs here, and as whom.", labels, [(row, 1)])
    started_s = sight.inside.started_s
    yield _gauge("start_time_seconds", "When the daemon started, since 1970.", started_s)
    yield _histogram(
        "event_loop_lag_seconds", "How late the timer of the loop fired.", sight.tally.lag
    )
    yield from ProcessCollector(registry=None).collect()


def _health(sight: Sight) -> Iterator[Metric]:
    status = sight.status
    yield _gauge("ready", "1 if /readyz says so.", status.ready)
    yield _gauge("synced", "1 if nothing is known to be missing here.", status.synced)
    holding = degradations(status)
    rows = [((reason,), float(reason in holding)) for reason in DEGRADATIONS]
    yield _gauges("degraded", "1 if this is amiss; a degraded node serves.", ("reason",), rows)
    yield _gauge("warnings", "Warnings that the status shows.", len(status.warnings))
    yield _count(
        "storage_failures", "Times that the disk began to fail.", sight.tally.storage_failures
    )


# --- other nodes ---------------------------------------------------------------------------------


def _members(sight: Sight) -> Iterator[Metric]:
    by_state = dict(sight.status.members)
    rows: Rows = [((state.value,), by_state.get(state.value, 0)) for state in MemberState]
    yield _gauges(
        "cluster_members", "Members by state, this node among the living.", ("state",), rows
    )
    peers = [row for row in sight.members[1:] if row.state != MemberState.LEFT.value]
    yield _gauges(
        "peer_last_heard_seconds",
        "Since something of this member arrived.",
        ("peer",),
        [((peer.name,), peer.last_heard_s) for peer in peers],
    )
    yield _gauges(
        "peer_rtt_seconds",
        "How long the last exchange with this member took.",
        ("peer",),
        [((peer.name,), peer.rtt_ms / 1000) for peer in peers if peer.rtt_ms is not None],
    )
    yield _gauges(
        "clock_offset_seconds",
        "How far the wall clock of this member is ahead of this node's.",
        ("peer",),
        [((name,), offset_s) for name, offset_s in sight.clock_offsets_s],
    )
    counts = sight.tally.transitions
    yield _counts(
        "member_transitions",
        "Changes of members, by the state they came to.",
        ("to",),
        [((state.value,), counts[state.value]) for state in MemberState],
    )
    yield _count("member_flaps", "Members that came back from the dead.", sight.tally.flaps)
    taken = sight.status.counters
    yield _count(
        "name_conflicts",
        "Nodes that came under a name that somebody has.",
        dict(taken).get("refused_name_taken", 0),
    )


def _discovery(sight: Sight) -> Iterator[Metric]:
    counts = Counter((row.source.split(" ")[0], row.state) for row in sight.candidates)
    yield _gauges(
        "discovery_candidates",
        "Addresses that discovery proposed, by source and what became of them.",
        ("source", "state"),
        sorted(counts.items()),
    )


def _traffic(sight: Sight) -> Iterator[Metric]:
    network, tallied = sight.inside.network, sight.tally
    yield _counts(
        "messages_received",
        "Valid messages of other nodes, by kind.",
        ("type",),
        _by_word(tallied.received),
    )
    yield _counts(
        "messages_sent",
        "Messages to other nodes, by kind; a published one counts once.",
        ("type",),
        _by_word(tallied.sent),
    )
    yield _count("network_received_bytes", "Before encryption.", network.bytes_in)
    yield _count("network_sent_bytes", "Before encryption.", network.bytes_out)
    yield _counts(
        "messages_dropped",
        "Own messages that could not be sent, by reason.",
        ("reason",),
        _by_word(network.dropped),
    )
    yield _counts(
        "messages_refused",
        "What was turned away, by reason: strangers and malformed messages.",
        ("reason",),
        _by_word(_stripped(dict(sight.status.counters), "refused_")),
    )


def _replication(sight: Sight) -> Iterator[Metric]:
    counters = dict(sight.status.counters)
    for key, text in _COUNTERS.items():
        yield _count(key, text, counters.get(key, 0))
    yield _counts(
        "sync_rounds",
        "Exchanges: those of others that were served, and own ones without an answer.",
        ("result",),
        [((result,), counters.get(key, 0)) for key, result in _SYNC_RESULTS.items()],
    )
    yield _gauge("exit_marks", "Exits kept until every member has seen them.", sight.exit_marks)
    yield _gauge("unsaved_events", "Own events that are not on the disk yet.", sight.log_unsaved)


# --- the lot -------------------------------------------------------------------------------------


def _lot(sight: Sight) -> Iterator[Metric]:
    lot = sight.status.lot
    if lot is None:
        return
    yield _gauge("lot_spaces", "Spaces of the lot.", lot.spaces)
    yield _gauge("lot_vehicles", "Cars inside.", lot.inside)
    yield _gauge("lot_overbooked", "Cars inside beyond the spaces.", lot.overbooked)
    yield _gauge("lot_conflicts", "Plates that are inside more than once.", len(lot.conflicts))
    rows = [((state,), float(state == lot.state)) for state in LOT_STATES]
    yield _gauges("lot_state", "1 for the state that the lot is in.", ("state",), rows)


def _gates(sight: Sight) -> Iterator[Metric]:
    yield _gauges(
        "gate_owned",
        "1 if this node serves the gate. Summed over the nodes of a lot it is 1.",
        ("gate",),
        [((str(row.gate),), float(sight.name in row.claims)) for row in sight.gates],
    )
    yield _gauge("gates", "Gates of the lot.", sight.status.gates_total)


def _cars(sight: Sight) -> Iterator[Metric]:
    tallied = sight.tally
    yield _counts(
        "entries",
        "Entries recorded here by track, by gate.",
        ("gate",),
        [((str(gate),), count) for gate, count in sorted(tallied.entries.items())],
    )
    yield _counts(
        "exits",
        "Exits recorded here, by gate and by how they matched.",
        ("gate", "match"),
        [((str(g), match), count) for (g, match), count in sorted(tallied.exits.items())],
    )
    yield _counts(
        "admissions",
        "Decisions that clients of this node were told, by gate.",
        ("gate", "decision", "reason"),
        [
            ((str(gate), decision, reason), count)
            for (gate, decision, reason), count in sorted(tallied.admissions.items())
        ],
    )
    yield _count("imported", "Cars recorded here by import.", tallied.imported)
    yield _histogram("stay_seconds", "How long cars stayed that left here.", tallied.stays)


def _requests(sight: Sight) -> Iterator[Metric]:
    control = sight.inside.control
    yield _count("control_requests", "Requests on the control socket.", control.get("requests", 0))
    yield _counts(
        "request_failures",
        "Requests that were not carried out, by code.",
        ("code",),
        _by_word(sight.tally.failures),
    )
