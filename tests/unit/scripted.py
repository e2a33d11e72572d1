"""A few nodes driven by hand: every message, every commit and every millisecond is the test's.

While the stage *flows* (its default) letters are delivered at once and in order, which is how a
test gets to its beginning. With ``stage.flows = False`` they pile up in ``stage.letters`` for the
test to deliver, repeat or drop, and so do the kinds in ``stage.holds``, whatever the rest does;
`Box.give` hands over single events whatever was sent. A box with
``commits = False`` has a disk that takes batches and keeps them waiting until `Box.persist`.
`Box.stop` is a power cut, of which others hear nothing; after `Box.kill` the machine goes on and
refuses connections. A paused box does nothing, its letters wait, and `Box.wake` finds it late.
Every message is encoded when it is sent and decoded when it arrives.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from parkingd.core.ids import Dot, Now, ReplicaId
from parkingd.protocol import codec
from parkingd.protocol.commands import Command, RecordExit, Track
from parkingd.protocol.effects import (
    Disconnect,
    Effects,
    Notice,
    Occurrence,
    Outgoing,
    Persist,
    Probe,
    Publish,
    Send,
    StartOver,
    Stop,
    Subscribe,
)
from parkingd.protocol.facts import (
    Candidate,
    ConnectionFailed,
    DiscoveryReady,
    Fact,
    LinkFailure,
)
from parkingd.protocol.messages import Address, Delta, Message, Route, Run, Sender
from parkingd.protocol.node import Node
from parkingd.protocol.outcomes import Entry, Exit, Outcome
from parkingd.protocol.settings import NodeSettings
from tests.sim.disk import FakeDisk, Image

CLUSTER = "scripted"
PORT, PUB_PORT = 7744, 7745
WALL_MS = 1_700_000_000_000

M = TypeVar("M")
O = TypeVar("O", bound=Outcome)  # noqa: E741 - an outcome


@dataclass(frozen=True)
class Letter:
    """A message on its way: the frame, and the way it goes."""

    source: str
    target: str
    process: int
    """Of the target; 0: whichever runs."""
    sender: Sender
    kind: type[Message]
    """Known from when it was posted: whoever looks for letters does not open them all."""
    frame: bytes

    @property
    def message(self) -> Message:
        return codec.decode_untrusted(self.frame, cluster=CLUSTER).message


class Box:
    """One machine: a disk, and a process that runs or not."""

    def __init__(self, stage: Stage, name: str, replica: ReplicaId, settings: NodeSettings) -> None:
        self.stage = stage
        self.name = name
        self.settings = settings
        self.address = Address(f"10.0.0.{len(stage.boxes) + 1}", PORT)
        self.disk = FakeDisk(random.Random(replica))
        self.disk.restore(Image(replica=replica), noticed=False)
        self.process = 0
        self.commits = True
        self.skew_ms = 0
        self.runs = self.is_paused = False
        self.subscribed: set[str] = set()
        self.replies: dict[int, list[Outcome]] = {}
        self.notices: list[Notice] = []
        self.told: list[Occurrence] = []
        self.batches: list[Persist] = []
        self.sent: list[Message] = []
        self.minted: dict[Dot, bytes] = {}
        self.end: StartOver | Stop | None = None
        self._handles = 0

    # --- process -------------------------------------------------------------------------

    def start(
        self, *, knows: Iterable[str] = (), patient: bool = False, orphaned: tuple[int, ...] = ()
    ) -> Box:
        """Load the disk, make the node, and end its first round of discovery. ``orphaned``: ids
        that it gave up before, as nobody had answered."""
        self.stop()
        now = self.now
        stored = self.disk.load(now.wall_ms)
        self.process += 1
        self.runs, self.is_paused, self.end = True, False, None
        self.node = Node(
            self.settings,
            stored,
            now=now,
            seed=stored.replica,
            retired=orphaned,
            orphaned=orphaned,
        )
        self.replica, self.incarnation = stored.replica, stored.incarnation
        self.take()
        for name in knows:
            self.observe(Candidate(self.stage.boxes[name].address, "static", name))
        self.observe(DiscoveryReady(patient=patient))
        return self

    def stop(self, *, keep: bool = True) -> None:
        """The process dies; what waits for the disk is lost."""
        self.runs = False
        self.subscribed.clear()
        self.disk.crash(random.Random(0), keep=keep, torn=False)

    def kill(self) -> None:
        """The process dies alone: its links break, and whoever had one tries to connect again."""
        self.stop()
        self.stage.knocks += [
            (box, self.address) for box in self.stage.boxes.values() if self.name in box.subscribed
        ]
        self.stage.flow()

    def pause(self) -> None:
        """From here on it stands still."""
        self.is_paused = True

    def wake(self, *, sockets_first: bool) -> None:
        """It goes on: with all that has arrived meanwhile, or with the timer that is overdue."""
        self.is_paused = False
        if sockets_first:
            self.stage.flow()
        self.tick()

    def succeed(self, *, knows: Iterable[str] = ()) -> Box:
        """Carry out the `StartOver` that the node asked for."""
        end = self.end
        assert isinstance(end, StartOver), end
        self.disk.close()
        self.disk.begin_again(end)
        return self.start(knows=knows)

    # --- verbs ---------------------------------------------------------------------------

    @property
    def now(self) -> Now:
        stage = self.stage
        return Now(stage.mono_ms, WALL_MS + stage.mono_ms + self.skew_ms)

    def submit(self, command: Command, wait_ms: int = 5_000) -> int:
        """The handle of a request; its answers are in ``replies``."""
        self._handles += 1
        now = self.now
        self.node.submit(self._handles, command, now.mono_ms + wait_ms, now)
        self.take()
        return self._handles

    def ask(self, command: Command, kind: type[O], wait_ms: int = 5_000) -> O:
        """The one answer of a request that is answered within this call."""
        outcome = self.answer(self.submit(command, wait_ms))
        assert isinstance(outcome, kind), outcome
        return outcome

    def answer(self, handle: int) -> Outcome | None:
        """The answer to this request, if there is one."""
        replies = self.replies.get(handle, [])
        assert len(replies) <= 1, replies
        return replies[0] if replies else None

    def track(self, plate: str, request: bytes | None = None, gate: int = 1) -> Dot:
        """The dot of an entry recorded here and now."""
        return self.ask(Track(plate, gate, request), Entry).dot

    def exit(self, plate: str, request: bytes | None = None, gate: int = 1) -> Dot:
        """The dot of an exit recorded here and now."""
        return self.ask(RecordExit(plate, gate, request), Exit).dot

    def observe(self, fact: Fact) -> None:
        self.node.observe(fact, self.now)
        self.take()

    def tick(self) -> None:
        self.node.tick(self.now)
        self.take()

    def receive(self, sender: Sender, message: Message) -> None:
        self.node.receive(sender, message, self.now)
        self.take()

    def persist(self) -> None:
        """The disk commits everything that waits, or fails to."""
        for fact in self.disk.commit_next():
            if self.runs:
                self.observe(fact)

    def give(self, source: Box, *dots: Dot) -> None:
        """Exactly these events arrive here, in this order, each in a delta of its own."""
        for origin, seq in dots:
            packed = self.stage.packed(origin, seq)
            delta = Delta((Run(origin, seq, (packed,)),))
            frame = source.encode(delta)
            decoded = codec.decode_untrusted(frame, cluster=CLUSTER).message
            self.receive(source.sender(None), decoded)

    # --- what a verb asked for -----------------------------------------------------------

    def take(self) -> None:
        """Carry out the effects, in their order."""
        if not self.runs:
            return
        effects: Effects = self.node.take_effects()
        for batch in effects.persist:
            self.batches.append(batch)
            self.disk.submit(batch)
            for run in batch.runs:
                if run.origin == self.replica:
                    self.minted.update(
                        ((run.origin, run.first + place), packed)
                        for place, packed in enumerate(run.events)
                    )
        for outgoing in effects.outgoing:
            self._post(outgoing)
        for reply in effects.replies:
            self.replies.setdefault(reply.handle, []).append(reply.outcome)
        self.notices.extend(effects.notices)
        self.told.extend(effects.occurrences)
        if effects.end is not None:
            self.end, self.runs = effects.end, False
        elif self.commits and self.disk.queued:
            self.persist()
        self.stage.flow()

    def encode(self, message: Message) -> bytes:
        return codec.encode(
            message,
            cluster=CLUSTER,
            name=self.settings.name,
            replica=self.replica,
            incarnation=self.incarnation,
        )

    def sender(self, link: Address | Route | None) -> Sender:
        return Sender(self.settings.name, self.replica, self.incarnation, link)

    @property
    def route(self) -> Route:
        return Route(f"{self.name}/{self.process}".encode(), self.address.host)

    def _post(self, outgoing: Outgoing) -> None:
        stage = self.stage
        match outgoing:
            case Publish(message=message):
                self.sent.append(message)
                for other in stage.boxes.values():
                    if self.name in other.subscribed:
                        stage.post(self, other, 0, self.sender(None), message)
            case Send(to=Address() as to, message=message):
                self.sent.append(message)
                other = stage.at(to)
                if other is not None:
                    stage.post(self, other, 0, self.sender(self.route), message)
            case Send(to=Route() as to, message=message):
                self.sent.append(message)
                name, _, process = to.id.decode().partition("/")
                target = stage.boxes[name]
                stage.post(self, target, int(process), self.sender(self.address), message)
            case Subscribe(host=host):
                other = stage.at(Address(host, PORT))
                if other is not None:
                    self.subscribed.add(other.name)
            case Disconnect(address=address):
                other = stage.at(address)
                if other is not None:
                    self.subscribed.discard(other.name)
            case Probe(address=address):
                stage.knocks.append((self, address))
            case _:
                pass

    # --- what a test looks at ------------------------------------------------------------

    def shown(self, plate: str) -> set[Dot]:
        """The dots of the stays that count as inside."""
        return {(stay[1], stay[0]) for stay in self.node.state.stays.visible(plate)}

    def heard(self, name: str) -> bool:
        """Whether a notice of this name was given."""
        return any(notice.event == name for notice in self.notices)

    def lines(self, *types: str) -> list[Occurrence]:
        """What the journal told of these types; of all where none is named."""
        return [line for line in self.told if not types or line.type in types]

    def has_sent(self, kind: type[M]) -> list[M]:
        """Every message of this kind sent so far, arrived or not."""
        return [message for message in self.sent if isinstance(message, kind)]


class Stage:
    """The boxes, the letters between them, and the time."""

    def __init__(self) -> None:
        self.mono_ms = 1_000_000
        self.boxes: dict[str, Box] = {}
        self.letters: list[Letter] = []
        self.flows = True
        self.holds: tuple[type[Message], ...] = ()
        self.cuts: set[frozenset[str]] = set()
        self.deaf: set[tuple[str, str]] = set()
        """(source, target): the target hears nothing of the source."""
        self.knocks: list[tuple[Box, Address]] = []
        """Connections on their way: who tries, and where."""
        self._is_flowing = False

    def box(self, name: str, replica: ReplicaId, **settings: object) -> Box:
        """Another machine, off."""
        base = NodeSettings(name=name, cluster=CLUSTER, port=PORT, pub_port=PUB_PORT)
        box = Box(self, name, replica, replace(base, **settings))  # type: ignore[arg-type]
        self.boxes[name] = box
        return box

    def found(self, *names: str, **settings: object) -> list[Box]:
        """These nodes, with ascending replica ids, in one lot founded by the first; in sync.

        The gates are shared out and stand still. With ``gates=1`` the first has the only one, and
        nobody mints anything by himself while all live.
        """
        boxes = [self.box(name, place, **settings) for place, name in enumerate(names, start=1)]
        for box in boxes:
            box.start(knows=[name for name in names if name != box.name])
        self.pass_ms(6_000)
        assert len({box.node.lot for box in boxes} - {None}) == 1
        assert all(box.node.is_synced() for box in boxes)
        return boxes

    def at(self, address: Address) -> Box | None:
        """Who listens there, else who did."""
        there = [box for box in self.boxes.values() if box.address == address]
        return next((box for box in there if box.runs), there[0] if there else None)

    def packed(self, origin: ReplicaId, seq: int) -> bytes:
        """An event as its origin packed it."""
        return next(
            box.minted[origin, seq] for box in self.boxes.values() if (origin, seq) in box.minted
        )

    # --- letters -------------------------------------------------------------------------

    def post(
        self, source: Box, target: Box, process: int, sender: Sender, message: Message
    ) -> None:
        if self._reaches(source, target):
            frame = source.encode(message)
            letter = Letter(source.name, target.name, process, sender, type(message), frame)
            self.letters.append(letter)

    def cut(self, *names: str) -> None:
        """Nothing passes between these and the others, until `heal`."""
        others = [name for name in self.boxes if name not in names]
        self.cuts |= {frozenset((one, other)) for one in names for other in others}

    def cut_one_way(self, source: Box, *targets: Box) -> None:
        """These hear nothing of the source, until `heal`; it still hears them."""
        self.deaf |= {(source.name, target.name) for target in targets}

    def heal(self) -> None:
        self.cuts.clear()
        self.deaf.clear()

    def _reaches(self, source: Box, target: Box) -> bool:
        is_cut = frozenset((source.name, target.name)) in self.cuts
        return not is_cut and (source.name, target.name) not in self.deaf

    def flow(self) -> None:
        """Deliver everything, and what that brings about, if the stage flows."""
        if self._is_flowing:
            return
        self._is_flowing = True
        while self.flows:
            letter = next(filter(self._is_free, self.letters), None)
            if letter is not None:
                self.deliver(letter)
            elif self.knocks:
                self._answer_knock(*self.knocks.pop(0))
            else:
                break
        self._is_flowing = False

    def _is_free(self, letter: Letter) -> bool:
        if self.boxes[letter.target].is_paused:
            return False
        return letter.kind not in self.holds

    def _answer_knock(self, box: Box, address: Address) -> None:
        """A machine without the process refuses; one that cannot be reached is silent."""
        there = self.at(address)
        if there is None or there.runs or not box.runs or box.is_paused:
            return
        if self._reaches(box, there) and self._reaches(there, box):
            box.observe(ConnectionFailed(address, LinkFailure.REFUSED))

    def release(self, *holds: type[Message]) -> None:
        """Deliver what was held, in its order; from here on only these kinds are held."""
        self.holds = holds
        self.flow()

    def deliver(self, letter: Letter, *, keep: bool = False) -> None:
        """One letter arrives; ``keep``: and is still on its way, so that it comes twice."""
        if not keep:
            self.letters.remove(letter)
        target = self.boxes[letter.target]
        if target.runs and letter.process in (0, target.process):
            target.receive(letter.sender, letter.message)

    def waiting(self, kind: type[Message], target: Box | None = None) -> list[Letter]:
        """Letters of this kind on their way."""
        return [
            letter
            for letter in self.letters
            if letter.kind is kind and target in (None, self.boxes[letter.target])
        ]

    def pass_ms(self, ms: int) -> None:
        """Time passes; every node is called when it wants to be."""
        end_ms = self.mono_ms + ms
        while self.mono_ms < end_ms:
            running = [box for box in self.boxes.values() if box.runs and not box.is_paused]
            due = min((box.node.next_deadline() for box in running), default=end_ms)
            self.mono_ms = min(end_ms, max(due, self.mono_ms + 1))
            for box in running:
                if box.runs and box.node.next_deadline() <= self.mono_ms:
                    box.tick()
