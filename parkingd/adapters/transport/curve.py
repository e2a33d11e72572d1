"""The CURVE key pair that every node of a cluster shares.

All nodes hold the same pair: as a server a node proves it, as a client it proves it too, and the
ZAP handler (`zap`) lets in no other client key. The public key is as good as secret, because only
holders of the cookie can compute it; what may be shown is its fingerprint. DESIGN section 9.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import zmq
from zmq.utils import z85

from parkingd.errors import ConfigError

SECRET_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One CURVE key pair. Neither key appears in its ``repr``."""

    secret: bytes = field(repr=False)
    """32 raw bytes."""
    public_z85: bytes = field(repr=False)
    """40 characters, as libzmq takes it."""
    secret_z85: bytes = field(repr=False)
    fingerprint: str
    """16 hex digits of a hash of the public key: safe to show, compare and publish."""


def key_pair(secret: bytes) -> KeyPair:
    """The pair whose secret key is these 32 bytes. ConfigError when libzmq has no CURVE."""
    assert len(secret) == SECRET_BYTES
    if not zmq.has("curve"):
        raise ConfigError(
            "this build of libzmq has no CURVE encryption",
            "install pyzmq from a wheel: pip install --force-reinstall --only-binary :all: pyzmq",
        )
    secret_z85 = z85.encode(secret)
    public_z85 = zmq.curve_public(secret_z85)
    return KeyPair(
        secret=secret,
        public_z85=public_z85,
        secret_z85=secret_z85,
        fingerprint=hashlib.blake2b(public_z85, digest_size=FINGERPRINT_BYTES).hexdigest(),
    )
