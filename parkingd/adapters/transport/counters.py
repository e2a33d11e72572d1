"""What passed, and what was turned away, counted since the start."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Messages and bytes are those of this program, before encryption."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Theirs: strangers and malformed messages, by reason (`monitor.refusal_reason`,
    ``multipart``)."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Ours: messages that could not be sent, by reason (``full``, ``gone``, ``expired``,
    ``waiting``, ``links``, ``address``)."""

    def heard(self, size: int) -> None:
        """A message of this many bytes came in."""
        self.messages_in += 1
        self.bytes_in += size

    def told(self, size: int) -> None:
        """A message of this many bytes was handed to libzmq."""
        self.messages_out += 1
        self.bytes_out += size

    def snapshot(self) -> dict[str, int]:
        """Everything under flat names: ``refused_auth``, ``dropped_full``."""
        return {
            "messages_in": self.messages_in,
            "messages_out": self.messages_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            **{f"refused_{reason}": count for reason, count in self.refused.items()},
            **{f"dropped_{reason}": count for reason, count in self.dropped.items()},
        }
