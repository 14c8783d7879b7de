"""What was handed in, by its SHA-256: written once, checked whenever it is read."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from advgym.errors import DataError
from advgym.leaderboards.store import files

SHA = re.compile(r"[0-9a-f]{64}")


def put(root: Path, data: bytes) -> str:
    """Keep some bytes under `root/blobs`; returns their SHA-256, by which `get` finds them."""
    sha = hashlib.sha256(data).hexdigest()
    if not _intact(path(root, sha), sha):
        files.write(path(root, sha), data)
    return sha


def get(root: Path, sha: str) -> bytes:
    """The bytes of a SHA-256.

    Raises:
        DataError: there are none, or they are not what they were.
    """
    where = path(root, sha)
    try:
        data = where.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the artefact {sha}: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != sha:
        raise DataError(f"the artefact {where} was changed: its bytes have another SHA-256 than its name")
    return data


def path(root: Path, sha: str) -> Path:
    """Where it lies.

    Raises:
        DataError: not a SHA-256.
    """
    if not SHA.fullmatch(sha):
        raise DataError(f"{sha[:80]!r} is not a SHA-256 (64 small hexadecimal digits)")
    return root / "blobs" / sha[:2] / sha


def _intact(where: Path, sha: str) -> bool:
    try:
        return hashlib.sha256(where.read_bytes()).hexdigest() == sha
    except OSError:
        return False
