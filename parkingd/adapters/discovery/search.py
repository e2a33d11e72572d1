"""All sources of one daemon: started together, heard together, stopped together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from parkingd.adapters.discovery.proposals import Proposals
from parkingd.protocol.facts import Candidate, DiscoveryReady, Fact, Finding


class Source(Protocol):
    """Where candidate addresses come from."""

    async def start(self, found: Callable[[Finding], None]) -> None:
        """Propose what is known now, and go on in the background; bounded at 6 s."""

    async def stop(self) -> None:
        """Say goodbye; bounded at 1 s."""


class Search:
    """What has been found, and by whom, whichever node of this daemon is told of it."""

    def __init__(self, on_fact: Callable[[Fact], None]) -> None:
        """``on_fact``: what to tell the node."""
        self._on_fact = on_fact
        self._proposals = Proposals()
        self._sources: list[Source] = []
        self._ready: DiscoveryReady | None = None

    @property
    def is_ready(self) -> bool:
        """Every source has proposed what it knew at the start."""
        return self._ready is not None

    async def start(self, sources: Iterable[Source], *, patient: bool) -> None:
        """Until all have proposed what they know. ``patient``: see `DiscoveryReady`."""
        self._sources = list(sources)
        await asyncio.gather(*(source.start(self._found) for source in self._sources))
        self._ready = DiscoveryReady(patient=patient)
        self._on_fact(self._ready)

    async def stop(self) -> None:
        """All sources that were started."""
        if self._sources:
            await asyncio.gather(*(source.stop() for source in self._sources))

    def known(self) -> list[Fact]:
        """What a new node has to be told."""
        ready = [self._ready] if self._ready is not None else []
        return [*self._proposals.all(), *ready]

    def _found(self, finding: Finding) -> None:
        if isinstance(finding, Candidate):
            finding = self._proposals.heard(finding)
        self._on_fact(finding)
