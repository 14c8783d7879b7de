"""The wheel holds advgym/ alone, whole, and works away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the checkout stays clean."""
    import shutil

    source, out = tmp_path_factory.mktemp("source") / "advgym", tmp_path_factory.mktemp("wheel")
    keep = ("advgym", "agents", "envs", "leaderboards", "pyproject.toml", "README.md", "LICENSE")
    source.mkdir()
    for name in keep:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, source / name)
    build = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert build.returncode == 0, build.stdout[-2000:] + build.stderr[-2000:]
    (found,) = out.glob("*.whl")
    return found


def names(wheel):
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_it_holds_advgym_alone(wheel):
    top = {n.split("/")[0] for n in names(wheel)}
    assert len(top) == 2 and "advgym" in top and any(t.endswith(".dist-info") for t in top)


def test_it_is_whole(wheel):
    have = names(wheel)
    want = {f"advgym/{p.name}" for p in (ROOT / "advgym").glob("*.py")} | {"advgym/py.typed"}
    want |= {f"advgym/templates/{p.name}" for p in (ROOT / "advgym" / "templates").glob("*") if p.is_file()}
    for folder in ("agents", "envs", "leaderboards"):
        for path in (ROOT / folder).rglob("*"):
            if (
                path.suffix in (".py", ".toml", ".safetensors", ".json", ".html", ".css", ".js", ".npz")
                and path.is_file()
            ):
                want.add(f"advgym/{path.relative_to(ROOT)}")
    assert not want - have, sorted(want - have)
    assert not {n for n in have if n.endswith((".pyc", ".pkl", ".pt")) or "/tests/" in n}


def test_it_is_small_and_carries_its_licence(wheel):
    assert wheel.stat().st_size < 8 * 2**20
    assert any(n.endswith("licenses/LICENSE") for n in names(wheel))


def test_it_works_from_elsewhere(wheel, tmp_path):
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:  # what `pip install --no-deps --target` does, without pip
        file.extractall(target)
    code = """
import advgym, pathlib, sys
assert pathlib.Path(advgym.__file__).is_relative_to(sys.argv[1]), advgym.__file__
from advgym import registry
result = advgym.attack("image/digits-linf", "pgd", episodes=4, queries=10, settings={"steps": 3})
assert advgym.verify(result) == []
assert {"pgd", "greedy"} <= set(registry.agents()) and {"smoothing"} <= set(registry.defenses())
assert {t.split("/")[0] for t in registry.tasks()} == {"image", "text", "graph", "speech", "fusion"}
import advgym.agents, advgym.envs
assert pathlib.Path(advgym.agents.__file__).is_relative_to(sys.argv[1])
print("works")
"""
    env = {**os.environ, "PYTHONPATH": str(target), "ADVGYM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert out.stdout.strip().endswith("works"), out.stderr[-3000:]
