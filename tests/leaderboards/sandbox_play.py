"""Run snippets in a sandbox, as a submission would: what they tell, and how they ended."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.sandbox import Box, Ended, ladder, launch, lockdown

ROOMY = Limits(cpu_s=20, wall_s=300, memory_mb=1024, processes=16)
OLD = "landlock-1"  # as on the first kernels that had Landlock: no signal scope, no truncation, no devices
CONFINED = ("bwrap", "landlock", OLD)
AGENT = """
import json, os, runpy, struct
def tell(*values):
    for value in values:
        data = json.dumps(value).encode()
        sock.sendall(struct.pack("<I", len(data)) + data)
size = struct.unpack("<I", sock.recv(4, 256))[0]
code = b""
while len(code) < size:
    code += sock.recv(size - len(code))
with open("snippet.py", "wb") as file:
    file.write(code)
os.rename("snippet.py", "code.py")
runpy.run_path("code.py", init_globals={"tell": tell, "sock": sock, "folder": folder, "role": role})
"""
ENTRY = """
import runpy
def enter(sock, folder, role):
    runpy.run_path(folder + "/agent.py", init_globals={"sock": sock, "folder": folder, "role": role})
"""


def need(level: str) -> str:
    """Skip, loudly, where a level is missing."""
    name = level.split("-")[0]
    if name in ladder.missing():
        pytest.skip(f"sandbox level missing: {name}: {ladder.missing()[name]}")
    return name


def open_box(level: str, folder: Path, runtime: tuple[str, ...] = ("json",), **options: Any) -> Box:
    """A box that plays snippets, with a small runtime: starting it takes 0.2 s instead of 4."""
    name = need(level)
    folder.mkdir(exist_ok=True)
    (folder / "entry.py").write_text(ENTRY)
    submission = folder / "submission"
    submission.mkdir(exist_ok=True)
    (submission / "agent.py").write_text(AGENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "RUNTIME", runtime)
        if level == OLD:
            patch.setattr(lockdown, "landlock_version", lambda: 1)
        binds = [folder / "entry.py", *options.pop("binds", [])]
        made = Box(name, binds=binds, entry=f"{folder / 'entry.py'}:enter", **options)
    made.assign(submission)
    return made


def play(box: Box, code: str, limits: Limits = ROOMY) -> tuple[list[Any], Ended]:
    """One turn: everything that `tell` told, and the end."""
    turn = box.turn(limits, role="agent")
    data = b""
    with turn.clock():
        try:
            turn.sock.sendall(struct.pack("<I", len(code)) + code.encode())
            while chunk := turn.sock.recv(1 << 16):
                data += chunk
        except ConnectionError:
            pass
    return parse(data), turn.end()


def parse(data: bytes) -> list[Any]:
    """The messages in a stream."""
    told = []
    while data:
        size = struct.unpack("<I", data[:4])[0]
        told.append(json.loads(data[4 : 4 + size]))
        data = data[4 + size :]
    return told


def ask(box: Box, code: str) -> Any:
    """One answer of a snippet that must run through."""
    told, ended = play(box, code)
    assert ended.reason == "" and len(told) == 1, (told, ended)
    return told[0]
