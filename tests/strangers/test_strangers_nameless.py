"""Containers run as a uid without a passwd entry: no user name, often no home. Training works there too."""

import json
import os
import subprocess
import sys

import pytest

UID = 54_321
NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "TORCHINDUCTOR_CACHE_DIR", "ADVGYM_CACHE")
# The real uid is what has no name; root's rights stay, or a Python beneath /root could not be read.
TRAINS = """
import getpass, json, os
os.setresuid({uid}, 0, 0)
try:
    getpass.getuser()
except (KeyError, OSError) as error:
    nameless = str(error)
import torch
{first}
import torch._dynamo
print(json.dumps([nameless, os.environ["TORCHINDUCTOR_CACHE_DIR"], {said}]))
"""
WAYS = {
    "victim": (
        "from advgym.core.task import load_victim\nv = load_victim('digits-mlp', epochs=1)",
        "v.card['recipe']['epochs']",
    ),
    "agent": (
        "import advgym\nr = advgym.attack('graph/karate-inject', 'tdgia', episodes=1, knowledge='white-box')",
        "r.attacked",
    ),
    "own": ("import advgym\nadvgym.make('image/digits-linf')\ntorch.optim.SGD([torch.zeros(1)])", "1"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as a uid that has no name")
@pytest.mark.parametrize("cache", ["given", "none"])
@pytest.mark.parametrize("way", WAYS)
def test_a_uid_without_a_name_trains(way, cache, tmp_path):
    """torch named a folder after the user: KeyError 'getpwuid(): uid not found' from the first optimiser."""
    first, said = WAYS[way]
    env = {k: v for k, v in os.environ.items() if k not in NAMES} | {"TMPDIR": str(tmp_path)}
    env |= {"ADVGYM_CACHE": str(tmp_path / "kept")} if cache == "given" else {}
    code = TRAINS.format(uid=UID, first=first, said=said)
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nameless, folder, many = json.loads(done.stdout.splitlines()[-1])
    assert str(UID) in nameless and many >= 1
    assert folder.startswith(str(tmp_path / "kept" if cache == "given" else tmp_path / "advgym-"))
    assert ("set ADVGYM_CACHE" in done.stderr) is (cache == "none")
    assert not list(tmp_path.glob("advgym-*"))  # goes with the process


def test_whoever_has_a_name_keeps_torchs_default(monkeypatch):
    from advgym.lib.weights import spare_torch_a_name

    monkeypatch.setenv("LOGNAME", "somebody")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    spare_torch_a_name()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
