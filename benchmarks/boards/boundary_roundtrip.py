"""A round trip through the process boundary against a raw socket echo of the same bytes, in one run."""

from __future__ import annotations

import os
import socket
import statistics
import time

import numpy as np

from advgym.leaderboards.boundary import messages as m
from advgym.leaderboards.boundary.wire import Channel, Gone
from benchmarks._common import arguments, table

ARRAYS = {
    "256x3x32x32 float32": np.random.default_rng(0).standard_normal((256, 3, 32, 32)).astype(np.float32),
    "256x60 int32": np.arange(256 * 60, dtype=np.int32).reshape(256, 60),
}
BUFFER = 4 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """A socketpair with 4 MiB buffers, as the sandbox makes it."""
    ends = socket.socketpair()
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return ends


def child(serve) -> socket.socket:
    """The parent's end; `serve` runs in a forked process on the other."""
    ours, theirs = pair()
    if os.fork() == 0:
        ours.close()
        try:
            serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    return ours


def read(sock: socket.socket, view: memoryview) -> bool:
    """Fill the view."""
    while len(view):
        got = sock.recv_into(view)
        if not got:
            return False
        view = view[got:]
    return True


def echo(size: int):
    """Sends back as many bytes as came, with no frame and into one buffer."""

    def serve(sock: socket.socket) -> None:
        data = bytearray(size)
        while read(sock, memoryview(data)):
            sock.sendall(data)

    return serve


def answer(sock: socket.socket) -> None:
    """Sends back the array of every frame."""
    channel = Channel(sock, m.Request, cap=1 << 26)
    try:
        while True:
            message, arrays = channel.recv()
            channel.send(message, arrays)
    except Gone:
        return


def main() -> None:
    args = arguments(__doc__, trips=300)
    rows = []
    for name, array in ARRAYS.items():
        raw, framed, kept = child(echo(array.nbytes)), child(answer), child(answer)
        data, back = array.tobytes(), bytearray(array.nbytes)
        channel, logged = Channel(framed, m.Request, cap=1 << 26), Channel(kept, m.Request, cap=1 << 26)
        logged.keep()

        def bare(raw=raw, data=data, back=back) -> None:
            raw.sendall(data)
            read(raw, memoryview(back))

        def ours(channel=channel, array=array) -> None:
            channel.send(m.Step(0), [array])
            channel.recv()

        def hashed(channel=logged, array=array) -> None:
            channel.send(m.Step(0), [array])
            channel.recv()

        runners = {"raw socket echo": bare, "frames": ours, "frames, with the transcript": hashed}
        times: dict[str, list[float]] = {k: [] for k in runners}
        for trip in range(args.trips + 20):
            for key, run in runners.items():
                started = time.perf_counter()
                run()
                if trip >= 20:
                    times[key].append(time.perf_counter() - started)
        base = statistics.median(times["raw socket echo"])
        for key, values in times.items():
            rows.append([name, key, statistics.median(values) * 1e3, statistics.median(values) / base])
        for sock in (raw, framed, kept):
            sock.close()
    table("round trips (goal: frames <= 1.5x)", ["array", "through", "ms", "ratio"], rows, args.json)


if __name__ == "__main__":
    main()
