"""Commitments: a phase's secret, its public hash, and everything that is drawn from it."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from advgym.errors import AdvgymError

SIZE = 32  # bytes of a secret


def draw() -> bytes:
    """A fresh secret of 32 random bytes."""
    return secrets.token_bytes(SIZE)


def commit(secret: bytes) -> str:
    """SHA-256 of a secret, hex: published at opening, before anything is drawn from the secret."""
    return hashlib.sha256(_check(secret)).hexdigest()


def derive(secret: bytes, *labels: str | int) -> int:
    """A seed in [0, 2**63) for a purpose: HMAC-SHA256 of the labels under the secret, its first 63 bits.

    Labels are written with their type and length, so that no two lists of labels are one message.

    >>> derive(bytes(32), "a", 1) == derive(bytes(32), "a", "1")
    False
    """
    message = b"".join(_label(label) for label in labels)
    digest = hmac.new(_check(secret), b"advgym-derive/1" + message, hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _label(label: str | int) -> bytes:
    data = str(label).encode()
    return (b"i" if isinstance(label, int) else b"s") + len(data).to_bytes(4, "big") + data


def run_seeds(secret: bytes, submission: str, count: int) -> list[int]:
    """The seeds of the `count` runs of a submission (its SHA-256): nobody knows them before the upload."""
    return [derive(secret, "run", submission, k) for k in range(count)]


def public_secret(*parts: str) -> bytes:
    """The secret of a phase with public samples, which anyone can make: SHA-256 of its parts."""
    return hashlib.sha256("\n".join(("advgym public phase", *parts)).encode()).digest()


def _check(secret: bytes) -> bytes:
    if len(secret) != SIZE:
        raise AdvgymError(f"a phase's secret is {SIZE} bytes, not {len(secret)}")
    return secret
