"""What waits for the disk: nothing of an own event leaves a node before its commit."""

from __future__ import annotations

from parkingd.protocol.commands import (
    ImportRow,
    ImportRows,
    ReadLot,
    ReadStatus,
    ReadVehicles,
    RecordExit,
    Track,
    Where,
)
from parkingd.protocol.messages import (
    Delta,
    Goodbye,
    Heartbeat,
    Hello,
    Pull,
    PullReply,
    RootAnswer,
    RootQuery,
    SnapshotHeader,
    SnapshotRequest,
    Want,
)
from parkingd.protocol.outcomes import (
    Entry,
    ErrorCode,
    Failure,
    ImportResult,
    Lot,
    Status,
    Vehicle,
    VehicleList,
)
from tests.unit.scripted import Box, Stage

REQUEST = b"r" * 16


def named(box: Box) -> int:
    """The highest own seq that any message sent since names."""
    highest = 0
    for message in box.sent:
        match message:
            case Heartbeat(head=head):
                highest = max(highest, head)
            case Goodbye(final_seq=head):
                highest = max(highest, head)
            case Delta(runs=runs):
                highest = max([highest, *(run.last for run in runs if run.origin == box.replica)])
            case Hello(context=context) | Pull(context=context) | RootAnswer(context=context):
                own = (upto for origin, upto, _ in context if origin == box.replica)
                highest = max([highest, *own])
            case PullReply(context=context, runs=runs):
                own = (upto for origin, upto, _ in context if origin == box.replica)
                sent = (run.last for run in runs if run.origin == box.replica)
                highest = max([highest, *own, *sent])
            case _:
                pass
    return highest


def with_a_waiting_entry() -> tuple[Stage, Box, Box, int]:
    """Two nodes; the first has an entry that its disk does not have yet."""
    stage = Stage()
    a, b = stage.found("a", "b")
    a.track("KA0")
    a.commits = False
    a.sent.clear()
    handle = a.submit(Track("KA1", 1, REQUEST))
    return stage, a, b, handle


def test_an_own_event_is_in_no_message_before_the_disk_has_it() -> None:
    stage, a, b, _ = with_a_waiting_entry()
    before = a.node.durable_seq
    assert a.node.own_seq == before + 1
    route = b.sender(b.route)
    pull = b.has_sent(Pull)[-1]
    a.receive(route, pull)
    a.receive(route, Want(((a.replica, before, before + 1),)))
    a.receive(route, RootQuery(77))
    a.receive(route, SnapshotRequest(78, pull.lot, 1))
    a.receive(route, b.has_sent(Hello)[-1])
    stage.pass_ms(3_000)
    kinds = {type(message) for message in a.sent}
    assert {Heartbeat, Hello, Pull, PullReply, Delta} <= kinds
    assert not {RootAnswer, SnapshotHeader} & kinds, "these need the whole state"
    assert named(a) == before
    assert b.shown("KA1") == set()
    a.persist()
    assert SnapshotHeader in {type(message) for message in a.sent}
    assert named(a) == before + 1
    assert b.shown("KA1") == {(a.replica, before + 1)}


def test_the_root_of_a_state_that_is_ahead_of_its_disk_is_not_told() -> None:
    stage, a, b, _ = with_a_waiting_entry()
    stage.pass_ms(3_000)
    assert [pull.root for pull in a.has_sent(Pull)] == [None] * len(a.has_sent(Pull))
    assert all(reply.root is None for reply in a.has_sent(PullReply))
    assert a.node.counters["divergences"] == b.node.counters["divergences"] == 0


def test_a_reply_and_every_read_that_depends_on_it_wait_for_the_commit() -> None:
    _, a, _, handle = with_a_waiting_entry()
    reads = [a.submit(command) for command in (ReadLot(), Where("KA1"), ReadVehicles())]
    assert [a.answer(each) for each in (handle, *reads)] == [None] * 4
    a.persist()
    entry, lot, vehicle, vehicles = (a.answer(each) for each in (handle, *reads))
    assert isinstance(entry, Entry)
    assert isinstance(lot, Lot)
    assert lot.inside == 2
    assert isinstance(vehicle, Vehicle)
    assert vehicle.inside
    if vehicles is None:  # Pages go out with the turn that follows.
        a.tick()
        vehicles = a.answer(reads[-1])
    assert isinstance(vehicles, VehicleList)
    assert [row[0] for row in vehicles.rows] == ["KA0", "KA1"]


def test_the_next_decision_sees_an_event_that_waits_for_the_disk() -> None:
    _, a, _, first = with_a_waiting_entry()
    second = a.submit(RecordExit("KA1", 1, None))
    third = a.submit(Track("KA1", 1, REQUEST))
    a.persist()
    assert [a.answer(each) is not None for each in (first, second, third)] == [True] * 3
    entry, repeated = a.answer(first), a.answer(third)
    assert isinstance(entry, Entry)
    assert isinstance(repeated, Entry)
    assert repeated.dot == entry.dot
    assert a.shown("KA1") == set()


def test_replies_come_in_the_order_in_which_the_disk_took_their_events() -> None:
    _, a, _, first = with_a_waiting_entry()
    second = a.submit(Track("KA2", 1, None))
    assert a.disk.queued == 2
    a.persist()
    assert list(a.replies)[-2:] == [first, second]


def test_a_heartbeat_does_not_wait_for_the_disk() -> None:
    stage, a, _, _ = with_a_waiting_entry()
    stage.pass_ms(2_000)
    assert len(a.has_sent(Heartbeat)) >= 6


def test_a_remote_event_counts_at_once_and_its_vector_only_when_it_is_on_disk() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.commits = False
    entry = b.track("KA1")
    assert a.shown("KA1") == {entry}
    a.sent.clear()
    stage.pass_ms(3_000)
    pulls = a.has_sent(Pull)
    assert pulls
    for pull in pulls:
        assert {part[0]: part[1] for part in pull.context}[b.replica] == entry[1]
        assert pull.durable is not None
        assert {part[0]: part[1] for part in pull.durable}[b.replica] == entry[1] - 1
    a.persist()
    a.sent.clear()
    stage.pass_ms(3_000)
    assert all(pull.durable is None for pull in a.has_sent(Pull))


def test_a_mark_is_not_collected_on_the_word_of_a_memory() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    b.commits = False
    a.exit("KA1")
    stage.pass_ms(10_000)
    assert b.node.state.stays.mark_count == 1
    assert a.node.state.stays.mark_count == 1
    b.commits = True
    b.persist()
    stage.pass_ms(10_000)
    assert a.node.state.stays.mark_count == b.node.state.stays.mark_count == 0


def test_a_repeated_request_waits_until_the_remote_event_is_on_the_own_disk() -> None:
    stage = Stage()
    a, b = stage.found("a", "b")
    a.commits = False
    entry = b.track("KA1", REQUEST)
    handle = a.submit(Track("KA1", 1, REQUEST))
    assert a.answer(handle) is None
    a.persist()
    answer = a.answer(handle)
    assert isinstance(answer, Entry)
    assert answer.dot == entry
    assert answer.warnings == ("repeated",)
    assert a.shown("KA1") == {entry}


# --- a failing disk ----------------------------------------------------------------------------


def test_a_failed_commit_answers_who_waits_and_refuses_new_writes_while_reads_go_on() -> None:
    _, a, _, handle = with_a_waiting_entry()
    reading = a.submit(ReadLot())
    a.disk.fail("disk full")
    a.persist()
    failure, lot = a.answer(handle), a.answer(reading)
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.STORAGE_FAILED
    assert "will be recorded" in failure.reason
    assert isinstance(lot, Lot)
    assert any("disk is failing" in warning for warning in lot.warnings)
    refused = a.ask(Track("KA2", 1, None), Failure)
    assert refused.code == ErrorCode.STORAGE_FAILED
    assert "nothing was recorded" in refused.reason
    assert a.ask(ReadLot(), Lot).warnings == lot.warnings
    assert a.ask(Where("KA1"), Vehicle).warnings == lot.warnings
    assert any("disk is failing" in line for line in a.ask(ReadStatus(), Status).warnings)
    listing = a.submit(ReadVehicles())
    a.tick()
    vehicles = a.answer(listing)
    assert isinstance(vehicles, VehicleList)
    assert vehicles.warnings == lot.warnings


def test_a_failed_commit_still_shows_its_events_to_nobody_else() -> None:
    stage, a, b, _ = with_a_waiting_entry()
    before = a.node.durable_seq
    a.disk.fail("disk full")
    a.persist()
    stage.pass_ms(3_000)
    assert named(a) == before
    assert b.shown("KA1") == set()


def test_after_recovery_the_repeated_request_has_had_one_effect() -> None:
    stage, a, b, _ = with_a_waiting_entry()
    a.disk.fail("disk full")
    a.persist()
    assert a.ask(Track("KA1", 1, REQUEST), Failure).code == ErrorCode.STORAGE_FAILED
    a.disk.recover()
    a.commits = True
    a.persist()
    assert a.heard("storage_recovered")
    again = a.ask(Track("KA1", 1, REQUEST), Entry)
    assert again.warnings == ("repeated",)
    stage.pass_ms(100)
    assert a.shown("KA1") == b.shown("KA1") == {again.dot}
    assert a.ask(ReadLot(), Lot).warnings == ()


def test_a_failed_request_repeated_elsewhere_is_one_car_when_the_disk_recovers() -> None:
    stage, a, b, _ = with_a_waiting_entry()
    a.disk.fail("disk full")
    a.persist()
    stage.pass_ms(100)
    b.ask(Track("KA1", 1, REQUEST), Entry)
    a.disk.recover()
    a.commits = True
    a.persist()
    stage.pass_ms(100)
    for box in (a, b):
        lot = box.ask(ReadLot(), Lot)
        assert (lot.inside, lot.conflicts) == (2, ())
        assert len(box.node.state.stays.stays_of("KA1")) == 2


def test_a_crash_with_an_uncommitted_entry_reuses_its_dot_for_nobody_has_seen_it() -> None:
    stage, a, b, _ = with_a_waiting_entry()
    a.stop()
    a.commits = True
    a.start(knows=["b"])
    stage.pass_ms(4_500)
    assert a.shown("KA1") == set()
    entry = a.track("KA2")
    assert b.shown("KA2") == {entry}


def test_an_import_that_the_disk_refuses_says_that_it_may_be_recorded() -> None:
    stage = Stage()
    (a,) = stage.found("a")
    a.commits = False
    rows = tuple(ImportRow(n, f"KA{n}", 1, None, bytes([n]) * 16) for n in range(1, 4))
    handle = a.submit(ImportRows(rows))
    a.disk.fail("disk full")
    a.persist()
    failure = a.answer(handle)
    assert isinstance(failure, Failure)
    assert failure.code == ErrorCode.STORAGE_FAILED
    a.disk.recover()
    a.commits = True
    a.persist()
    result = a.ask(ImportRows(rows), ImportResult)
    assert (result.accepted, result.skipped, result.failed) == (0, 3, ())
    assert a.node.state.stays.visible_count == 3
