"""Frames: what is sent arrives, and nothing malformed gets through or allocates more than the cap."""

import socket
import struct
import threading

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.wire import DTYPES, PREFIX, Broken, Channel, Gone, Spec


@pytest.fixture
def ends():
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


def exchange(arrays, message=None):
    a, b = socket.socketpair()
    try:
        sender = threading.Thread(target=Channel(a, m.Request).send, args=(message or m.Done(), arrays))
        sender.start()
        got = Channel(b, m.Request, cap=1 << 28).recv()
        sender.join()
        return got
    finally:
        a.close()
        b.close()


def raw(header: bytes, body: bytes = b"", total: int | None = None) -> bytes:
    padded = header + bytes(-len(header) % 8)
    size = PREFIX.size - 4 + len(padded) + len(body) if total is None else total
    return PREFIX.pack(size, len(header)) + padded + body


def header(*specs, message=None) -> bytes:
    return msgspec.msgpack.encode((message or m.Done(), list(specs)))


arrays = st.lists(
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 5), max_size=4), st.integers(0, 255)), max_size=5
)


@given(arrays)
@settings(max_examples=100, deadline=None)
def test_what_is_sent_arrives(shapes):
    sent = [np.full(shape, seed % 2 if code == "b1" else seed).astype(DTYPES[code]) for code, shape, seed in shapes]
    message, got = exchange(sent, m.Rank(3, 7, True))
    assert message == m.Rank(3, 7, True)
    assert len(got) == len(sent)
    for x, y in zip(sent, got, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y)
        assert y.flags.aligned and y.flags.writeable


def test_a_large_frame_arrives():
    x = np.random.default_rng(0).standard_normal((256, 3, 32, 32)).astype(np.float32)
    _, (y,) = exchange([x])
    assert np.array_equal(x, y)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (raw(header(), total=1 << 31), "at most"),
        (PREFIX.pack(3, 9), "at most"),
        (raw(b"\xc1garbage"), "none of the protocol"),
        (raw(msgspec.msgpack.encode([{"type": "Evil"}, []])), "none of the protocol"),
        (raw(msgspec.msgpack.encode([{"type": "Done", "more": 1}, []])), "none of the protocol"),
        (raw(msgspec.msgpack.encode([m.Done(), [["O", [1]]]]), bytes(8)), "none of the protocol"),
        (raw(msgspec.msgpack.encode([m.Done(), [["V4", [1]]]]), bytes(8)), "none of the protocol"),
        (raw(msgspec.msgpack.encode([m.Done(), [["M8[s]", [1]]]]), bytes(8)), "none of the protocol"),
        (raw(msgspec.msgpack.encode([m.Done(), [["f4", [-1]]]])), "negative"),
        (raw(msgspec.msgpack.encode([m.Done(), [["f4", [2**40, 2**40]]]])), "the arrays need"),
        (raw(msgspec.msgpack.encode([m.Done(), [["f4", [4]]]]), bytes(8)), "the arrays need"),
        (raw(msgspec.msgpack.encode([m.Done(), [["f4", [1]]]]), bytes(64)), "the arrays need"),
        (raw(msgspec.msgpack.encode([m.Done(), [["f4", [1] * 9]]]), bytes(8)), "axes"),
        (raw(msgspec.msgpack.encode([m.Done(), [["u1", [0]]] * 40])), "at most"),
        (raw(msgspec.msgpack.encode([m.Done(), [["b1", [1]]]]), b"\x02" + bytes(7)), "bool"),
    ],
)
def test_a_malformed_frame_is_refused(ends, frame, why):
    a, b = ends
    a.sendall(frame)
    with pytest.raises(Broken, match=why):
        Channel(b, m.Request, cap=1 << 20).recv()


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise_never_passes(data):
    a, b = socket.socketpair()
    a.sendall(data)
    a.close()
    with pytest.raises((Broken, Gone)):
        while True:
            Channel(b, m.Request, cap=1 << 16).recv()
    b.close()


def test_a_closed_peer_is_gone(ends):
    a, b = ends
    a.sendall(struct.pack("<I", 100))
    a.close()
    with pytest.raises(Gone):
        Channel(b, m.Request).recv()


def test_the_transcript_follows_the_frames_alone(ends):
    digests = []
    for value in (1, 1, 2):
        a, b = socket.socketpair()
        channel = Channel(a, m.Request)
        channel.keep()
        channel.send(m.Done(), [np.array([value])])
        digests.append(channel.transcript)
        a.close()
        b.close()
    assert digests[0] == digests[1] != digests[2]


def test_a_spec_counts_without_overflow():
    assert Spec("f8", (2**40, 2**40)).size == 2**83
