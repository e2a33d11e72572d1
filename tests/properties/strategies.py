"""What may travel: strategies for every event, record, request and message within its limits."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from parkingd.core import events as ev
from parkingd.core.causal import Part
from parkingd.core.gates import SCORE_MAX, Fence
from parkingd.core.ids import REPLICA_MAX, SEQ_MAX
from parkingd.core.records import Record, RequestEffect
from parkingd.core.registers import KEY_LENGTH_MAX
from parkingd.protocol import messages as msg
from parkingd.protocol.checks import INCARNATION_MAX, NONCE_MAX, TIME_MAX, WALL_MS_MAX
from parkingd.protocol.limits import EPOCH_SEEN_MAX, GATES_MAX, SPACES_MAX

NAME_LETTERS = string.ascii_letters + string.digits


def below(limit: int) -> st.SearchStrategy[int]:
    """0 to ``limit``, inclusive, the ends often."""
    return st.one_of(st.sampled_from((0, 1, limit)), st.integers(0, limit))


def upwards(limit: int) -> st.SearchStrategy[int]:
    """1 to ``limit``, inclusive, the ends often."""
    return st.one_of(st.sampled_from((1, limit)), st.integers(1, limit))


names = st.builds(
    str.__add__,
    st.sampled_from(NAME_LETTERS),
    st.text(NAME_LETTERS + "._-", max_size=62),
)
texts = st.text(max_size=60)
setting_values = st.integers(-(2**63) + 1, 2**63 - 1) | texts
replicas = upwards(REPLICA_MAX)
several_replicas = st.lists(replicas, max_size=4).map(tuple)
seqs = upwards(SEQ_MAX)
numbers = below(SEQ_MAX)
times = below(TIME_MAX)
walls = below(WALL_MS_MAX)
gates = below(GATES_MAX)
incarnations = below(INCARNATION_MAX)
nonces = below(NONCE_MAX)
ids16 = st.binary(min_size=16, max_size=16)
roots = st.binary(min_size=1, max_size=32)
ports = below(65_535)
plates = st.one_of(
    st.text(string.ascii_uppercase + string.digits, min_size=1, max_size=16),
    st.text("ÄÖÜÉŠЖ京٣A1", min_size=1, max_size=16),
)
raws = st.none() | st.text(max_size=64)
dots = st.tuples(replicas, seqs)
covers = st.lists(dots, max_size=4).map(tuple)
flags = below(255)


@st.composite
def spans_above(draw: st.DrawFn, upto: int) -> tuple[tuple[int, int], ...]:
    """Ascending spans that touch neither each other nor ``upto``."""
    spans = []
    end = upto
    for _ in range(draw(st.integers(0, 3))):
        first = end + 1 + draw(st.integers(1, 1_000))
        end = first + draw(st.integers(0, 1_000))
        if end > SEQ_MAX:
            break
        spans.append((first, end))
    return tuple(spans)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    upto = draw(numbers)
    return draw(replicas), upto, draw(spans_above(upto))


contexts = st.lists(parts(), max_size=4, unique_by=lambda part: part[0]).map(
    lambda drawn: tuple(sorted(drawn, key=lambda part: part[0]))
)


@st.composite
def seals(draw: st.DrawFn) -> ev.Seal:
    upto = draw(numbers)
    return ev.Seal(draw(replicas), upto, draw(spans_above(upto)))


optional_walls = st.none() | walls
requests = st.none() | ids16

bodies: dict[type, st.SearchStrategy[ev.Body]] = {
    ev.Join: st.builds(ev.Join, names, st.booleans()),
    ev.Found: st.builds(
        ev.Found, ids16, below(SPACES_MAX), upwards(GATES_MAX), st.sampled_from(("local", "escrow"))
    ),
    ev.Enter: st.builds(ev.Enter, plates, gates, requests, covers, raws, optional_walls, flags),
    ev.Exit: st.builds(
        ev.Exit,
        plates,
        gates,
        requests,
        covers,
        st.lists(ids16, max_size=3).map(tuple),
        st.integers(0, 2),
        optional_walls,
        raws,
    ),
    ev.Removal: st.builds(ev.Removal, plates, requests, covers),
    ev.Correction: st.builds(
        ev.Correction, plates, covers, plates, gates, ids16, requests, walls, raws, flags
    ),
    ev.Claim: st.builds(
        ev.Claim, gates, numbers, names, incarnations, st.integers(0, 1), st.none() | names
    ),
    ev.Setting: st.builds(
        ev.Setting,
        st.text(NAME_LETTERS, min_size=1, max_size=KEY_LENGTH_MAX),
        setting_values,
        requests,
        texts,
        st.none() | setting_values,
    ),
    ev.Capacity: st.builds(ev.Capacity, st.integers(-SPACES_MAX, SPACES_MAX)),
    ev.Transfer: st.builds(ev.Transfer, replicas, numbers),
    ev.Fence: st.builds(ev.Fence, replicas),
    ev.Seal: seals(),
}
events = st.builds(ev.Event, replicas, seqs, times, st.one_of(*bodies.values()))

stays = st.tuples(
    seqs,
    replicas,
    times,
    plates,
    gates,
    requests,
    st.none() | st.tuples(raws, optional_walls, flags),
)
marks = st.tuples(
    seqs,
    replicas,
    times,
    plates,
    gates,
    requests,
    st.lists(ids16, max_size=3).map(tuple),
    st.integers(0, 2),
    optional_walls,
)
records: st.SearchStrategy[Record] = stays | marks
effects: st.SearchStrategy[RequestEffect] = st.tuples(
    times, st.integers(0, 15), plates, replicas, seqs, gates, st.integers(0, 2), optional_walls
)

packed = st.binary(min_size=1, max_size=40)
many_packed = st.builds(
    lambda one, count: (one,) * count, st.binary(min_size=20, max_size=60), st.integers(1, 60)
)
event_lists = st.lists(packed, min_size=1, max_size=4).map(tuple) | many_packed
runs = st.lists(st.builds(msg.Run, replicas, st.integers(1, 2**40), event_lists), max_size=3).map(
    tuple
)

messages: dict[type, st.SearchStrategy[msg.Message]] = {
    msg.Hello: st.builds(
        msg.Hello,
        st.booleans(),
        requests,
        ports,
        ports,
        walls,
        contexts,
        st.booleans(),
        texts,
        st.booleans(),
        st.lists(st.builds(msg.Address, texts, ports), max_size=4).map(tuple),
    ),
    msg.Refused: st.builds(msg.Refused, names, texts, contexts),
    msg.Heartbeat: st.builds(
        msg.Heartbeat,
        numbers,
        numbers,
        walls,
        numbers,
        st.booleans(),
        st.lists(
            st.builds(msg.Suspicion, names, incarnations, numbers, st.booleans()), max_size=3
        ).map(tuple),
        st.none() | st.lists(st.tuples(upwards(GATES_MAX), numbers), max_size=4).map(tuple),
        st.lists(st.tuples(upwards(GATES_MAX), names), max_size=3).map(tuple),
    ),
    msg.EnterAsk: st.builds(
        msg.EnterAsk,
        nonces,
        st.text(max_size=64),
        upwards(GATES_MAX),
        ids16,
        numbers,
        names | st.just(""),
        st.integers(0, 86_400_000),
        st.none() | st.builds(Fence, below(EPOCH_SEEN_MAX), below(SCORE_MAX), names),
    ),
    msg.EnterAnswer: st.builds(
        msg.EnterAnswer,
        nonces,
        st.text(max_size=60),
        st.text(max_size=60),
        numbers,
        names | st.just(""),
        incarnations,
        st.integers(-SEQ_MAX, SEQ_MAX),
        texts,
        texts,
        st.lists(texts, max_size=3).map(tuple),
    ),
    msg.Goodbye: st.builds(msg.Goodbye, numbers),
    msg.Delta: st.builds(msg.Delta, runs),
    msg.Pull: st.builds(msg.Pull, nonces, ids16, contexts, st.none() | contexts, st.none() | roots),
    msg.PullReply: st.builds(
        msg.PullReply,
        nonces,
        ids16,
        runs,
        st.booleans(),
        st.booleans(),
        contexts,
        st.none() | contexts,
        st.none() | roots,
    ),
    msg.Want: st.builds(
        msg.Want,
        st.lists(
            st.builds(
                lambda origin, pair: (origin, *sorted(pair)), replicas, st.tuples(seqs, seqs)
            ),
            max_size=4,
        ).map(tuple),
    ),
    msg.SnapshotRequest: st.builds(msg.SnapshotRequest, nonces, ids16, numbers),
    msg.SnapshotHeader: st.builds(
        msg.SnapshotHeader, nonces, ids16, contexts, covers, times, event_lists, below(2**40)
    ),
    msg.SnapshotChunk: st.builds(
        msg.SnapshotChunk,
        nonces,
        below(2**20),
        st.binary(max_size=80)
        | st.builds(bytes.__mul__, st.binary(min_size=1, max_size=60), st.integers(1, 3_000)),
    ),
    msg.SnapshotAck: st.builds(msg.SnapshotAck, nonces, below(2**20)),
    msg.SnapshotTrailer: st.builds(msg.SnapshotTrailer, nonces, below(2**20), below(2**40), roots),
    msg.SnapshotAbort: st.builds(msg.SnapshotAbort, nonces, texts),
    msg.RootQuery: st.builds(msg.RootQuery, nonces),
    msg.RootAnswer: st.builds(msg.RootAnswer, nonces, roots, contexts),
    msg.FenceReport: st.builds(msg.FenceReport, parts(), several_replicas, several_replicas),
}
any_message = st.one_of(*messages.values())


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The original cut short, or with a few bytes changed, inserted or dropped."""
    damaged = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(damaged)))
        match draw(st.sampled_from(("change", "insert", "drop", "cut"))):
            case "change":
                damaged[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                damaged[place:place] = draw(st.binary(min_size=1, max_size=4))
            case "drop":
                del damaged[place : place + draw(st.integers(1, 4))]
            case "cut":
                del damaged[place:]
    return bytes(damaged)
