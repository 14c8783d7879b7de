"""Frames over a socket: a length-capped typed header and raw array bytes. Nothing else ever crosses.

    u32 length of the rest | u16 length of the header | header, padded to 8 | arrays, each padded to 8

The header is msgpack of (message, specs): the message is one of a closed union of structs, a spec is (dtype, shape)
with the dtype from a closed set. Sizes are checked before anything is allocated and must add up exactly.
"""

from __future__ import annotations

import hashlib
import math
import socket
import struct
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from advgym.errors import AdvgymError

PREFIX = struct.Struct("<IH")
HEADER = (1 << 16) - 1
MOST_ARRAYS = 32
MOST_AXES = 8
HARD_CAP = 1 << 30
DTYPES = {"f4": np.float32, "f8": np.float64, "i8": np.int64, "i4": np.int32, "u1": np.uint8, "b1": np.bool_}
MOST_GUESSED = 1 << 24
KEPT = 64  # layouts of headers
_ZEROS = bytes(8)
_CODES = {np.dtype(kind): code for code, kind in DTYPES.items()}


class Broken(AdvgymError):
    """The peer broke the protocol: the connection is of no more use."""


class Gone(AdvgymError):
    """The peer closed its end."""


class Spec(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Type and shape of one array."""

    dtype: Literal["f4", "f8", "i8", "i4", "u1", "b1"]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes; Python's integers do not overflow."""
        return math.prod(self.shape) * int(self.dtype[1])


class _Layout:
    """A header, understood: the message, and where the arrays lie."""

    def __init__(self, message: Any, specs: list[Spec], head: int) -> None:
        if len(specs) > MOST_ARRAYS or any(len(s.shape) > MOST_AXES or min(s.shape, default=0) < 0 for s in specs):
            raise Broken(f"at most {MOST_ARRAYS} arrays of {MOST_AXES} axes, no negative sizes")
        self.message, self.places = message, []
        self.bools = [i for i, s in enumerate(specs) if s.dtype == "b1" and s.size]
        at = head + -head % 8
        for s in specs:
            self.places.append((s.shape, np.dtype(DTYPES[s.dtype]), at))
            at += s.size + -s.size % 8
        self.need = at

    def cut(self, body: np.ndarray) -> list[np.ndarray]:
        """The arrays of a frame's body."""
        if self.need != len(body):
            raise Broken(f"the arrays need {self.need} bytes, the frame has {len(body)}")
        arrays = [np.ndarray(shape, kind, body, at) for shape, kind, at in self.places]
        for i in self.bools:
            if int(arrays[i].view(np.uint8).max()) > 1:
                raise Broken("a bool that is neither 0 nor 1")
        return arrays


class Channel:
    """One end of the boundary.

    Args:
        sock: a connected stream socket.
        reads: the union of message structs that this end accepts.
        cap: most bytes of one frame that is read.
    """

    def __init__(self, sock: socket.socket, reads: Any, *, cap: int = 1 << 26) -> None:
        self.sock, self.cap = sock, min(cap, HARD_CAP)
        self._decoder = msgspec.msgpack.Decoder(tuple[reads, list[Spec]])
        self._encoder = msgspec.msgpack.Encoder()
        self._prefix, self._guess = memoryview(bytearray(PREFIX.size)), 0
        self._layouts: dict[bytes, _Layout] = {}
        self._digest: Any = None
        self._unhashed: list[Any] = []
        self.frames = 0

    # -- sending ---------------------------------------------------------------------------------------------
    def send(self, message: msgspec.Struct, arrays: Sequence[np.ndarray] = ()) -> None:
        """Write one frame; the arrays' bytes go out as they lie in memory, and stay as they are until `recv`."""
        flat = [a if a.flags.c_contiguous else np.ascontiguousarray(a) for a in arrays]
        header = self._encoder.encode((message, [(_CODES[a.dtype], a.shape) for a in flat]))
        head = len(header)
        if head > HEADER:
            raise Broken(f"a header of {head} bytes; at most {HEADER} fit")
        parts: list[Any] = [b"", header + _ZEROS[: -head % 8]]
        total = 2 + head + -head % 8
        for a in flat:
            size = a.nbytes
            if size:
                parts.append(a)
                total += size
                if size % 8:
                    parts.append(_ZEROS[: -size % 8])
                    total += -size % 8
        if total > HARD_CAP:
            raise Broken(f"a frame of {total} bytes; at most {HARD_CAP} fit")
        parts[0] = PREFIX.pack(total, head)
        self.frames += 1
        if self._digest is not None:
            self._unhashed += [b">", *parts]
        try:
            sent = self.sock.sendmsg(parts)
            if sent != total + 4:
                self._send_rest(parts, sent)
        except OSError as error:
            raise Gone(f"the other side is gone ({type(error).__name__})") from None

    def _send_rest(self, parts: list[Any], sent: int) -> None:
        for part in parts:
            view = memoryview(part).cast("B")
            if sent < len(view):
                self.sock.sendall(view[sent:])
            sent = max(0, sent - len(view))

    # -- receiving -------------------------------------------------------------------------------------------
    def recv(self) -> tuple[Any, list[np.ndarray]]:
        """Read one frame: (message, arrays). The arrays are writable views of one fresh buffer.

        Raises:
            Broken: for a frame that is too long, of unknown type, or whose sizes do not add up.
            Gone: when the peer has closed.
        """
        if self._unhashed:  # while the other side is at work
            self._hash()
        # Most frames are as long as the one before: prefix and body then come in one call, without a copy.
        body = np.empty(self._guess, np.uint8)
        try:
            got = self.sock.recvmsg_into((self._prefix, body.data))[0]
        except OSError as error:
            raise Gone(f"the other side is gone ({type(error).__name__})") from None
        if not got:
            raise Gone("the other side has closed")
        while got < PREFIX.size:
            got += self._read([self._prefix[got:], body])
        total, head = PREFIX.unpack(self._prefix)
        rest, got = total - 2, got - PREFIX.size
        if rest < head or rest > self.cap:
            raise Broken(f"a frame of {rest} bytes with a header of {head}; at most {self.cap} are taken")
        if got > rest:
            raise Broken("a message before the last one was answered")
        if rest != len(body):
            body, early = np.empty(rest, np.uint8), body
            body[:got] = early[:got]
            self._guess = min(rest, MOST_GUESSED)
        while got < rest:
            got += self._read([body[got:]])
        key = bytes(body.data[:head])
        layout = self._layouts.get(key) or self._layout(key)
        self.frames += 1
        if self._digest is not None:
            self._unhashed += [b"<", body]
        return layout.message, layout.cut(body)

    def _layout(self, header: bytes) -> _Layout:
        """What a header says; the last few are kept, for most frames repeat one."""
        try:
            message, specs = self._decoder.decode(header)
        except msgspec.DecodeError as error:
            raise Broken(f"a message that is none of the protocol's: {error}") from None
        if len(self._layouts) >= KEPT:
            self._layouts.clear()
        self._layouts[header] = layout = _Layout(message, specs, len(header))
        return layout

    def _read(self, buffers: list[Any]) -> int:
        try:
            got = self.sock.recvmsg_into(buffers)[0]
        except OSError as error:
            raise Gone(f"the other side is gone ({type(error).__name__})") from None
        if not got:
            raise Gone("the other side has closed")
        return got

    # -- the transcript --------------------------------------------------------------------------------------
    def keep(self) -> None:
        """Start a transcript: SHA-256 over every frame's header and arrays, in order, with its direction. No times."""
        self._digest = hashlib.sha256()

    def _hash(self) -> None:
        for part in self._unhashed:
            self._digest.update(part)
        self._unhashed.clear()

    @property
    def transcript(self) -> str:
        """Hex digest so far."""
        if self._digest is None:
            return ""
        self._hash()
        return str(self._digest.hexdigest())
