"""Unpacking what a stranger sent: tar, tar.gz or zip, regular files only, every size counted and none believed."""

from __future__ import annotations

import io
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from advgym.errors import DataError
from advgym.leaderboards.rules.reasons import Refused, tidy

MB = 1 << 20
RATIO = 200  # unpacked bytes to packed ones, beyond the first `FREE`
FREE = 8 * MB
DEPTH = 8
LONGEST_NAME = 200
CHUNK = 1 << 16
Files = dict[str, bytes]


def unpack(data: bytes, to: Path, *, size_mb: float, files: int = 200) -> list[str]:
    """Check an archive whole, then write its files under a new folder.

    Args:
        data: a tar, a tar.gz or a zip.
        to: a folder that is not there yet, or is empty.
        size_mb: of all files together, in MiB; of the archive too.
        files: at most so many.

    Returns:
        The files' names, sorted, with `/` between folders.

    Raises:
        Refused: "bad-archive", "too-large" or "empty-submission"; then nothing was written.
    """
    found = contents(data, size_mb=size_mb, files=files)
    to.mkdir(parents=True, exist_ok=True)
    if any(to.iterdir()):
        raise DataError(f"cannot unpack into {to}: it is not empty")
    for name, content in found.items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
    return sorted(found)


def contents(data: bytes, *, size_mb: float, files: int = 200) -> Files:
    """The files of an archive by name; raises as `unpack` does."""
    limit = int(size_mb * MB)
    if len(data) > limit + MB:  # headers and padding
        raise Refused("too-large", f"the archive has {len(data) / MB:.1f} MB, the board allows {size_mb:g} MB")
    try:
        if data[:2] == b"\x1f\x8b":
            data, packed = _gunzip(data, limit + MB, size_mb), len(data)
            parts = _tar(data, files)
        elif data[:2] == b"PK":
            parts, packed = _zip(data, files), len(data)
        else:
            parts, packed = _tar(data, files), len(data)
        found = _collect(parts, limit, size_mb, files, packed)
    except Refused:
        raise
    except Exception as error:  # whatever a parser says to bytes that are made to break it
        raise Refused("bad-archive", f"it is no whole tar, tar.gz or zip ({tidy(str(error))[:100]})") from None
    if not found:
        raise Refused("empty-submission")
    return found


def _collect(parts: Iterator[tuple[str, IO[bytes]]], limit: int, size_mb: float, files: int, packed: int) -> Files:
    found: Files = {}
    total = 0
    for name, stream in parts:
        if name in found:
            raise Refused("bad-archive", f"{name!r} is in it twice")
        if len(found) == files:
            raise Refused("too-large", f"more than {files} files")
        pieces = []
        while piece := stream.read(min(CHUNK, limit - total + 1)):
            pieces.append(piece)
            total += len(piece)
            if total > limit:
                raise Refused("too-large", f"its files have more than {size_mb:g} MB")
            if total > max(FREE, RATIO * packed):
                raise Refused("bad-archive", f"it unpacks to more than {RATIO} times its size")
        found[name] = b"".join(pieces)
    folders = {str(parent) for name in found for parent in Path(name).parents}
    for name in found:
        if not name or name in folders:
            raise Refused("bad-archive", f"{name!r} is a file and a folder")
    return found


def _gunzip(data: bytes, most: int, size_mb: float) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    out = stream.decompress(data, most + 1)
    if len(out) > most:
        raise Refused("too-large", f"its files have more than {size_mb:g} MB")
    if not stream.eof or stream.unused_data.strip(b"\0"):
        raise Refused("bad-archive", "its gzip stream ends too early, or something follows it")
    if len(out) > max(FREE, RATIO * len(data)):
        raise Refused("bad-archive", f"it unpacks to more than {RATIO} times its size")
    return out


def _tar(data: bytes, files: int) -> Iterator[tuple[str, IO[bytes]]]:
    if len(data) < 512:
        raise Refused("bad-archive", "it is neither tar, tar.gz nor zip")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for number, member in enumerate(archive):
            if number > 2 * files + DEPTH:  # folders and all: headers that point back would never end
                raise Refused("too-large", f"more than {files} files and their folders")
            name = _name(member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise Refused("bad-archive", f"{name!r} is not a regular file: no links, devices or sparse files")
            if member.size < 0 or member.offset_data + member.size > len(data):
                raise Refused("bad-archive", f"{name!r} has not the {member.size} bytes that it claims")
            stream = archive.extractfile(member)
            assert stream is not None
            yield name, stream


def _zip(data: bytes, files: int) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > 2 * files + DEPTH:
            raise Refused("too-large", f"more than {files} files and their folders")
        for member in members:
            name = _name(member.filename)
            kind = (member.external_attr >> 16) & 0o170000  # 0 where it was not made on Unix
            if member.is_dir() and kind in (0, 0o040000):
                continue
            if kind not in (0, 0o100000):
                raise Refused("bad-archive", f"{name!r} is not a regular file: no links or devices")
            if member.flag_bits & 1:
                raise Refused("bad-archive", f"{name!r} is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused("bad-archive", f"{name!r} is packed by another method than deflate")
            with archive.open(member) as stream:
                yield name, stream


def _name(given: str) -> str:
    """A name that stays inside the folder.

    Raises:
        Refused: "bad-archive".
    """
    shown = repr(given[:80])
    if given.startswith("/") or "\\" in given or not given.isprintable():
        raise Refused("bad-archive", f"{shown} is no relative name with / between folders and printable letters")
    parts = [part for part in given.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused("bad-archive", f"{shown} leaves the folder")
    if len(parts) > DEPTH or len(given.encode()) > LONGEST_NAME:
        raise Refused("bad-archive", f"{shown} is longer than {LONGEST_NAME} bytes or deeper than {DEPTH} folders")
    return unicodedata.normalize("NFC", "/".join(parts))
