"""The cluster's secret: where the cookie comes from, and the key pair it turns into.

The cookie is a text that people copy from machine to machine. The key pair is never stored: it is
derived at every start with scrypt, which takes a tenth of a second and 32 MiB, so that guessing a
cookie from a fingerprint costs as much for each guess. DESIGN section 9; scrypt: RFC 7914.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from parkingd.adapters.transport.curve import SECRET_BYTES, KeyPair, key_pair
from parkingd.errors import ConfigError

DEFAULT_FILE: Final = ".parkingd.cookie"
COOKIE_BYTES_MAX: Final = 4_096
"""A file larger than this is not a cookie but a mistake."""
COOKIE_RANDOM_BYTES: Final = 32
"""In a cookie that we make: as many as the key has."""

SCRYPT_N: Final = 2**15
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
SCRYPT_MEMORY_MAX: Final = 64 * 1024 * 1024
"""hashlib's own limit is a little below the 32 MiB that these parameters need."""

FROM_TEXT: Final = "PARKINGD_COOKIE"
NAME_A_COOKIE: Final = f"set {FROM_TEXT} or --cookie-file"


@dataclass(frozen=True, slots=True)
class Cookie:
    """The secret, and where it came from."""

    text: str = field(repr=False)
    """Without white space at its ends; not empty."""
    origin: str
    """A path, or the name of the variable: safe to show."""
    warnings: tuple[str, ...] = ()
    """For the log: each one line that says what is wrong and what to do."""


def load_cookie(*, text: str | None, file: Path | None, home: Path | None) -> Cookie:
    """The cookie: ``text`` if given, else from ``file``, else from the home directory, where it is
    made on the first start. ConfigError with what to do when there is none to be had.

    A file that was named may be readable by a group of this process: so does Kubernetes mount a
    Secret. The one in the home directory we made ourselves, for its owner alone.
    """
    if text is not None:
        return Cookie(_checked(text, FROM_TEXT), FROM_TEXT)
    if file is not None:
        content, found = _read(file)
        mode = stat.S_IMODE(found.st_mode)
        warnings = (
            (f"others can read the cookie {file} (mode {mode:04o}): chmod 600 {file}",)
            if mode & _others_bits(found)
            else ()
        )
        return Cookie(_checked(content, str(file)), str(file), warnings)
    if home is None:
        raise ConfigError("there is no home directory to keep the cookie in", NAME_A_COOKIE)
    default = home / DEFAULT_FILE
    if not os.path.exists(default):
        _make(default)
    content, found = _read(default)
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"others may use the cookie {default} (mode {mode:04o})", f"chmod 600 {default}"
        )
    return Cookie(_checked(content, str(default)), str(default))


def derive_keys(cookie_text: str, cluster: str) -> KeyPair:
    """The key pair of a cluster. Takes 0.1 s and 32 MiB: call it in a worker thread. The same
    cookie gives every cluster name keys of its own."""
    secret = hashlib.scrypt(
        cookie_text.strip().encode(),
        salt=f"parkingd/1/{cluster}".encode(),
        n=SCRYPT_N,
        r=SCRYPT_R,
        p=SCRYPT_P,
        maxmem=SCRYPT_MEMORY_MAX,
        dklen=SECRET_BYTES,
    )
    return key_pair(secret)


def _checked(content: str, origin: str) -> str:
    cookie = content.strip()
    if not cookie:
        raise ConfigError(
            f"the cookie from {origin} is empty", "give every node of the cluster the same secret"
        )
    if len(cookie) > COOKIE_BYTES_MAX or not cookie.isprintable():
        raise ConfigError(
            f"the cookie from {origin} is not one line of text",
            f"use up to {COOKIE_BYTES_MAX} printable characters",
        )
    return cookie


def _others_bits(found: os.stat_result) -> int:
    """The permissions of a named cookie with which somebody else can read or change it."""
    bits = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP
    is_own_group = found.st_gid in (os.getegid(), *os.getgroups())
    return bits if is_own_group else bits | stat.S_IRGRP


def _read(file: Path) -> tuple[str, os.stat_result]:
    """Content and permissions, of the same file."""
    try:
        # Without O_NONBLOCK a fifo would hold the start up for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"the cookie {file} is not a file", NAME_A_COOKIE)
            content = stream.read(COOKIE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the cookie {file}: {error.strerror}", NAME_A_COOKIE
        ) from error
    try:
        return content.decode(), found
    except UnicodeDecodeError as error:
        raise ConfigError(f"the cookie {file} is not text", NAME_A_COOKIE) from error


def _make(file: Path) -> None:
    """Make a random cookie, complete and on the disk before it has its name. If another process
    was faster, its cookie stays."""
    folder = file.parent
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f"{DEFAULT_FILE}.", dir=folder)
        try:
            with open(descriptor, "w", encoding="ascii") as stream:
                stream.write(secrets.token_hex(COOKIE_RANDOM_BYTES) + "\n")
                stream.flush()
                os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(draft, file)
        finally:
            os.unlink(draft)
        folder_descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder_descriptor)
        finally:
            os.close(folder_descriptor)
    except OSError as error:
        raise ConfigError(
            f"cannot make a cookie in {folder}: {error.strerror}",
            f"make the directory writable, or {NAME_A_COOKIE}",
        ) from error
