"""A name of the hub where the hub cannot be reached: said in one sentence, at once."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from advgym.lib import hub

SAMPLES = 'samples=[("a film", 0)], candidates={"a": ["b"]}'
ASK = f"""
import time, torch, advgym
advgym.attack
from advgym.errors import AdvgymError
def fails(task, agent, **options):
    started = time.monotonic()
    try:
        advgym.attack(task, agent, episodes=1, **options)
    except AdvgymError as error:
        print(error)
fails("text/wordswap", "greedy", victim="transformers:no-such/model", {SAMPLES})
fails("speech/keyword", "noise", victim="transformers:no-such/model", samples=[(torch.zeros(16000), 0)])
"""


def test_models_are_refused_in_a_sentence():
    dead = "http://127.0.0.1:9"
    env = {**os.environ, "HTTPS_PROXY": dead, "https_proxy": dead, "HF_HUB_OFFLINE": ""}
    run = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=env)
    lines = run.stdout.strip().splitlines()
    assert len(lines) == 2 and all("no-such/model" in line and "cannot be reached" in line for line in lines), run
    assert "Retrying" not in run.stderr


def test_silence_is_no_answer(monkeypatch):
    """A host that takes the connection and says nothing: patience ends the wait. One that refuses has answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert not hub.reachable(0.3)

        def refuse():
            for _ in range(2):  # the connection of before, too
                peer, _ = server.accept()
                peer.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                peer.close()

        threading.Thread(target=refuse, daemon=True).start()
        assert hub.reachable(30)


def test_what_is_asked_for_what(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    asked = []
    monkeypatch.setattr(hub, "reachable", lambda: asked.append(1) or len(asked) > 1)
    monkeypatch.setattr(hub, "_FLAGS", ())
    hub.settle(str(tmp_path), "model")  # a folder: nothing is asked
    assert not asked
    hub.settle("no-such/data", "dataset")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    hub.settle("no-such/model", "model")  # offline from here on: the client's own affair
    assert len(asked) == 1
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.settle("no-such/model", "model")  # it can be reached
    assert "HF_HUB_OFFLINE" not in os.environ and len(asked) == 2
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(hub.DataError, match="cannot be reached"):
        hub.settle("no-such/model", "model")
