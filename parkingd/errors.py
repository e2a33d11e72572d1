"""Every exception that parkingd raises on purpose, in two families.

    ParkingdError
    ├── LocalError              our side: the operator or the machine has to act
    │   ├── UsageError          a flag, an argument or a value makes no sense (exit status 2)
    │   ├── ConfigError         configuration, cookie, directory or port (exit status 2)
    │   └── StorageError        the disk or the database under the data directory
    └── RemoteError             their side: bytes or claims from somebody else
        └── WireError           a frame that is not a message of ours; carries a countable reason

Anything else that escapes is a bug. A broken invariant is an ``AssertionError`` and nobody
catches it. A full lot or an unknown plate is a value, not an exception.
"""

from __future__ import annotations


class ParkingdError(Exception):
    """The root of the tree."""


class LocalError(ParkingdError):
    """Ours: ``str()`` is one line for the operator, ``hint`` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(LocalError):
    """The caller asked for something that makes no sense."""


class ConfigError(LocalError):
    """The daemon cannot start as it is configured."""


class StorageError(LocalError):
    """The data directory or the database cannot be used."""


class RemoteError(ParkingdError):
    """Theirs: counted and answered or dropped, never a traceback."""


class WireError(RemoteError):
    """Bytes that are not a valid message. ``reason`` is one short word for the counters."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
