"""A missing package is said, with the line that installs it, in every domain and command: never "please report"."""

import json
import subprocess
import sys

import pytest

from advgym.lib import extras

# One process that imports PyTorch once; every command in a fork of it, in which some packages cannot be imported.
FORKS = """
import json, os, sys
import torch
import advgym.judge.run
from advgym.cli.app import main
torch.set_num_threads(1)
gone = set()
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in gone else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for missing, args, err in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        gone.update(missing)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = main(args)
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
EVERY = {m: extra for extra, modules in extras.table().items() for m in modules}


def answers(cases, folder):
    """(code, stderr) of each command, as lists of words, without the packages named."""
    given = [[sorted(gone), args, str(folder / f"err{i}")] for i, (gone, args) in enumerate(cases)]
    run = subprocess.run(
        [sys.executable, "-c", FORKS], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    return [(int(code), (folder / f"err{i}").read_text()) for i, code in enumerate(run.stdout.split())]


CASES = [  # extra, module, command
    ("text", "transformers", "attack text/synth-wordswap --agent greedy --episodes 1"),
    ("text", "transformers", "audit transformers:nothing --data x.csv"),
    ("graph", "torch_geometric", "attack graph/karate-edge --agent first-order --episodes 1"),
    ("speech", "torchaudio", "attack speech/synth-keyword --agent noise --episodes 1"),
    ("report", "jinja2", "attack image/digits-linf --agent noise --episodes 1 --report {tmp}/r.html"),
    ("report", "jinja2", "demo --out {tmp}/demo"),
    ("report", "jinja2", "audit digits-cnn --out {tmp}/audit"),
    ("report", "jinja2", "score image --agent noise --out {tmp}/s"),
    ("report", "matplotlib", "study {tmp}/grid.toml --out {tmp}/study"),
    ("server", "fastapi", "serve --data {tmp}/data --port 0"),
    ("server", "sqlalchemy", "token new --data {tmp}/data"),
    ("ray", "ray", "score image --agent noise --engine ray"),
    ("peers", "foolbox", "attack image/digits-linf --agent foolbox:LinfPGD --episodes 1"),
    ("peers", "textattack", "attack text/synth-wordswap --agent textattack:pwws --episodes 1"),
    ("data", "datasets", "attack text/wordswap --agent greedy --set victim=synth-bert --set dataset=imdb"),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each case answers."""
    place, logs = tmp_path_factory.mktemp("place"), tmp_path_factory.mktemp("logs")
    cases = [([module], command.format(tmp=place).split()) for _, module, command in CASES]
    found = dict(zip(CASES, answers(cases, logs), strict=True))
    assert not list(place.iterdir())  # nothing was begun
    return found


@pytest.mark.parametrize("case", CASES, ids=[f"{m}-{c.split()[0]}" for _, m, c in CASES])
def test_it_is_said(said, case):
    (extra, module, _), (code, err) = case, said[case]
    assert code == 2, err
    assert f"needs {module}, which is not installed: {extras.install(extra)}" in err.strip().splitlines()[-1]
    assert "please report" not in err and "Traceback" not in err


def test_nothing_but_what_every_install_has(tmp_path):
    """Without any extra: the lists, images, own victims, results; with one, its domain."""
    out = tmp_path / "r.json"
    base = [
        ["attack", "image/digits-linf", "--agent", "pgd", "--episodes", "2", "--set", "queries=5", "--out", str(out)],
        ["verify", str(out)],
        *(["list", what] for what in ("tasks", "agents", "defenses", "victims", "boards", "runtime")),
        ["new", "agent", str(tmp_path / "mine")],
    ]
    text = ["attack", "text/synth-wordswap", "--agent", "greedy", "--episodes", "2", "--set", "queries=5"]
    cases = [(EVERY, args) for args in base] + [([m for m, extra in EVERY.items() if extra != "text"], text)]
    for (_, args), (code, err) in zip(cases, answers(cases, tmp_path), strict=True):
        assert code == 0, (args, err)


def test_the_line_is_that_of_this_installation(monkeypatch):
    """A checkout and an address name themselves; elsewhere the packages are named."""
    assert f" -e '{extras.HOME.parent}[text]'" in extras.install("text")
    monkeypatch.setattr(extras, "HOME", extras.HOME / "nowhere" / "advgym")
    monkeypatch.setattr(extras, "_origin", lambda: "git+https://example.org/advgym.git")
    assert extras.install("text").endswith("install 'advgym[text] @ git+https://example.org/advgym.git'")
    monkeypatch.setattr(extras, "_origin", lambda: "")
    assert extras.install("graph").endswith("install torch_geometric networkx")


def test_every_extra_is_in_the_table():
    """And every package of an extra's that this environment has is imported under the name it says."""
    import importlib.util
    import tomllib

    project = tomllib.loads((extras.HOME.parent / "pyproject.toml").read_text())["project"]
    made_of = set(project["optional-dependencies"]) - {"all", "dev"}
    assert set(extras.table()) - {"none"} == made_of
    for extra in made_of - {"real"}:  # large, and no test needs it
        for module, name in extras.table()[extra].items():
            assert importlib.util.find_spec(module), (extra, module, name)
