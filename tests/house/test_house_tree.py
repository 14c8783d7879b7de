"""The house rules that no linter knows: who imports whom, what no file may hold, how long a file is."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("advgym", "agents", "envs", "leaderboards")
ABOVE = ("advgym.envs", "advgym.agents", "advgym.leaderboards")
LONGEST = 350


def files(*folders, pattern="**/*.py"):
    """Files of the real folders; the symlinks inside advgym/ are not followed."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).glob(pattern)):
            inside = path.relative_to(ROOT / folder).parts
            if "__pycache__" not in inside and not (folder == "advgym" and inside[0] in FOLDERS):
                found.append(path)
    return found


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "advgym" else ("advgym", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_command_line(path):
    return path.name.startswith("cli") or path.name == "__main__.py"


CORE = [p for p in files("advgym", pattern="*.py") if not is_command_line(p)]
OURS = files(*FOLDERS)


def tree(path):
    return ast.parse(path.read_text(), str(path))


def ids(paths):
    return [str(p.relative_to(ROOT)) for p in paths]


def imported(path):
    """Every module a file imports, wherever the statement stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)


def under(module, package):
    return module == package or module.startswith(package + ".")


def config():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


# -- who imports whom ------------------------------------------------------------------------------------------------
def test_every_core_module_is_in_the_import_contract():
    contract = config()["tool"]["importlinter"]["contracts"][0]
    assert set(contract["forbidden_modules"]) == set(ABOVE)
    assert {module_of(p) for p in CORE} == set(contract["source_modules"])


@pytest.mark.parametrize("path", CORE, ids=ids(CORE))
def test_the_core_imports_nothing_above_it(path):
    bad = [m for m in imported(path) if any(under(m, a) for a in ABOVE)]
    assert not bad, f"{path.name} imports {bad}"


@pytest.mark.parametrize(
    "path", files("agents", "envs", "leaderboards"), ids=ids(files("agents", "envs", "leaderboards"))
)
def test_the_upper_floors_keep_apart(path):
    floor = path.relative_to(ROOT).parts[0]
    allowed = {
        "agents": ("advgym.agents",),
        "envs": (".".join(("advgym", *path.relative_to(ROOT).parts[:2])).removesuffix(".py"),),
        "leaderboards": ("advgym.leaderboards",),
    }[floor]
    for m in imported(path):
        if any(under(m, a) for a in ABOVE) and m not in ABOVE:
            assert any(under(m, a) for a in allowed), f"{path} imports {m}"


def test_the_contracts_hold():
    out = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout[-3000:]


def test_import_advgym_is_light():
    heavy = (
        "torch",
        "transformers",
        "torch_geometric",
        "torchaudio",
        "sklearn",
        "matplotlib",
        "stable_baselines3",
        "rich",
    )
    code = f"import sys, advgym; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# -- the core knows no domain ------------------------------------------------------------------------------------------
DOMAIN_WORDS = {
    "image", "text", "graph", "speech", "word", "words", "pixel", "pixels", "waveform", "sentence", "node", "nodes",
    "edge", "audio", "token", "tokens", "transcript",
}  # fmt: skip


def docstrings(top):
    for node in ast.walk(top):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield id(first.value)


BRANCHES = [p for p in CORE if not p.name.startswith("report")]  # a page speaks SVG, where "text" is an element


@pytest.mark.parametrize("path", BRANCHES, ids=ids(BRANCHES))
def test_no_domain_decides_a_branch_of_the_core(path):
    top = tree(path)
    spared = set(docstrings(top))
    for node in ast.walk(top):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spared:
            words = set(re.split(r"[^a-z]+", node.value.lower())) if len(node.value) < 16 else {node.value.lower()}
            # `getattr(batch, "words", None)`: what a table may carry for any domain.
            hit = (words & DOMAIN_WORDS) - ({"words"} if path.name == "edits.py" else set())
            assert not hit, f"{path.name}:{node.lineno} speaks of {hit}"
    names = {n.attr for n in ast.walk(top) if isinstance(n, ast.Attribute)}
    assert "domain" not in names or path.name in ("task.py", "results.py", "report.py", "run.py"), path.name


def test_the_core_compares_no_domain():
    for path in CORE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                names = {"domain"} & {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                assert not names or " in " in text, f"{path.name}:{node.lineno}: {text}"


# -- what no file holds ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", OURS, ids=ids(OURS))
def test_nothing_is_unpickled_or_evaluated(path):
    for m in imported(path):
        assert not any(
            under(m, bad) for bad in ("pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib")
        ), m
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in ("eval", "exec", "compile", "__import__"), f"{path}:{node.lineno} calls {name}"
        assert name not in ("torch.save", "numpy.load", "pd.read_pickle"), f"{path}:{node.lineno}: {name}"
        flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name == "torch.load":  # tensors and plain containers alone
            assert flags.get("weights_only") == "True", f"{path}:{node.lineno}"
        if name == "np.load":
            assert flags.get("allow_pickle") in (None, "False"), f"{path}:{node.lineno}"
        shell = [k for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) != "False"]
        assert not shell and name != "os.system", f"{path}:{node.lineno} calls a shell"


@pytest.mark.parametrize("path", OURS, ids=ids(OURS))
def test_no_global_randomness(path):
    """Draws are keyed, or come from a generator; the one seeding of torch is inside fork_rng.

    `foreign.py` swaps the global states for libraries that draw from them.
    """
    source = path.read_text() if path.name != "foreign.py" else ""
    bad = re.findall(r"\b(?:np|numpy)\.random\.(?!default_rng|Generator|SeedSequence)\w+|\brandom\.seed\(", source)
    assert not bad, bad
    if "manual_seed" in re.sub(r"Generator\([^)]*\)\s*\.\s*manual_seed", "", source):
        loose = [line for line in source.splitlines() if "torch.manual_seed" in line]
        assert not loose or "fork_rng" in source, f"{path}: {loose}"


@pytest.mark.parametrize("path", OURS, ids=ids(OURS))
def test_the_library_does_not_print(path):
    if is_command_line(path) or path.name.startswith("cli"):
        return
    calls = [n.lineno for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
    assert not calls, f"{path}: {calls}"


def test_no_machine_is_named():
    pattern = re.compile(r"/(?:home|root|Users|work|tmp)/[a-z]|localhost:\d|\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")
    for path in [*OURS, *files("benchmarks"), ROOT / "pyproject.toml", ROOT / "requirements.lock", ROOT / "Makefile"]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            hit = None if "==" in line else pattern.search(line)  # a version of four parts is no address
            assert not hit or hit.group() in ("127.0.0.1", "0.0.0.0"), f"{path}:{number}: {line.strip()}"


def test_the_lock_holds_versions_only():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert len(lines) > 50
    for line in lines:
        assert re.match(r"^[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.+!-]+( ; .+)?$", line), line
        assert "://" not in line and "@" not in line and not line.startswith("-")
    pinned = {line.split("==")[0] for line in lines}
    wanted = config()["project"]["dependencies"]
    for requirement in wanted:
        assert re.split(r"[<>=!\[ ]", requirement)[0].lower().replace("_", "-") in pinned, requirement


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", OURS, ids=ids(OURS))
def test_files_are_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST, f"{path.relative_to(ROOT)} has {lines} lines; split it"


def test_no_module_is_named_like_one_of_the_standard_library():
    """A file run as a script puts its folder first on the path: `agents/random.py` would break `import random`."""
    for path in files("agents", "envs", "leaderboards", "benchmarks", "tests"):
        assert path.stem == "__init__" or path.stem not in sys.stdlib_module_names, path
    for path in CORE:
        assert path.stem in ("__init__", "__main__") or path.stem not in sys.stdlib_module_names, path


def test_test_files_have_names_of_their_own():
    names = [p.name for p in files("tests") if p.name.startswith("test_")]
    assert len(names) == len(set(names)), {n for n in names if names.count(n) > 1}
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("name", FOLDERS[1:])
def test_symlinks_are_relative(name):
    link = ROOT / "advgym" / name
    assert link.is_symlink() and os.readlink(link) == f"../{name}"


def test_every_package_is_listed():
    listed = set(config()["tool"]["setuptools"]["packages"])
    found = {module_of(p) for p in OURS if p.name == "__init__.py"}
    assert found == listed
    mapped = config()["tool"]["setuptools"]["package-dir"]
    assert mapped == {"advgym": "advgym", **{f"advgym.{f}": f for f in FOLDERS[1:]}}


def test_every_domain_has_its_package_data():
    data = config()["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "envs").glob("*/tasks.toml"):
        assert {"*.toml", "weights/*.safetensors"} <= set(data[f"advgym.envs.{path.parent.name}"])


def test_shipped_weights_are_small():
    weights = list((ROOT / "envs").glob("*/weights/*"))
    assert weights and all(p.suffix == ".safetensors" for p in weights)
    assert sum(p.stat().st_size for p in weights) < 4 * 2**20


def test_public_functions_have_docstrings():
    bare = []
    for path in files("agents"):
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{path.name}:{node.name}")
    assert not bare
