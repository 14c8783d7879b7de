"""The house rules that no linter knows: who imports whom, what no file may hold, how long a file is."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import networkx

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("advgym", "agents", "envs", "leaderboards")
ABOVE = ("advgym.envs", "advgym.agents", "advgym.leaderboards")
LONGEST, FULLEST = 350, 25  # lines of a file, files of a folder


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


COMMANDS = [p for p in files("advgym/cli")] + [ROOT / "advgym" / "__main__.py"]
CORE = [p for p in files("advgym") if p not in COMMANDS]
OURS = files(*FOLDERS)


@cache
def tree(path):
    return ast.parse(path.read_text(), str(path))


def name(path):
    return path.relative_to(ROOT).as_posix()


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
def test_what_stands_below_imports_nothing_above_it():
    """Wherever the statement stands: import-linter sees the modules, this the lazy imports of every function, too."""
    bad = [(name(p), m) for p in CORE for m in imported(p) if any(under(m, a) for a in ABOVE)]
    assert not bad, bad


def test_the_upper_floors_keep_apart():
    """A domain imports itself, the boards themselves, agents themselves; a defense named after a domain that domain."""
    bad = []
    for path in files("agents", "envs", "leaderboards"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        allowed = [".".join(("advgym", *parts[: 2 if parts[0] == "envs" else 1]))]
        if parts[:2] == ("agents", "defenses") and len(parts) == 4:
            allowed.append(f"advgym.envs.{parts[3].partition('_')[0]}")
        for m in imported(path):
            if any(under(m, a) for a in ABOVE) and m not in ABOVE and not any(under(m, a) for a in allowed):
                bad.append((name(path), m))
    assert not bad, bad


def test_contracts_name_folders_and_every_folder_is_in_one():
    """A new folder of `advgym/` needs its place in the order; a new file has it from its first line."""
    contracts = config()["tool"]["importlinter"]["contracts"]
    layers = {part.strip() for line in contracts[0]["layers"] for part in line.split(":")}
    folders = {module_of(p) for p in CORE + COMMANDS if p.name == "__init__.py" and p.parent.parent == ROOT / "advgym"}
    doors = {f"advgym.{p.stem}" for p in files("advgym", pattern="*.py") if not p.stem.startswith("_")}
    assert folders <= layers and layers - folders <= doors
    assert folders - {"advgym.cli"} <= set(contracts[1]["source_modules"]) and contracts[1]["forbidden_modules"] == [
        *ABOVE
    ]


def test_the_contracts_hold():
    out = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout[-3000:]


def run_imports(node):
    """The import statements under a node, of functions too, without those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from run_imports(ast.Module([other], []))
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        else:
            yield from run_imports(child)


def test_no_modules_import_each_other_in_a_circle():
    """An import inside a function counts: it hides a circle, and breaks none."""
    modules = {module_of(p): p for p in OURS}
    graph = networkx.DiGraph()
    for module, path in modules.items():
        for node in run_imports(tree(path)):
            if isinstance(node, ast.Import):
                wanted = [a.name for a in node.names]
            else:
                inner = [f"{node.module}.{a.name}" for a in node.names]
                wanted = [m if m in modules else node.module for m in inner]
            graph.add_edges_from((module, m) for m in wanted if m in modules)
    circles = [sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    circles += [[m] for m in networkx.nodes_with_selfloops(graph)]
    assert graph.number_of_edges() > 1000 and not circles, circles


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


# A page speaks SVG, where "text" is an element; the table of old paths names every module.
NAMES = [ROOT / "advgym" / "__init__.py", ROOT / "advgym" / "_moved.py"]  # public names and old ones: no branches
BRANCHES = [p for p in CORE if p.parent.name != "report" and p not in NAMES]
DOMAINS_READ = ("catalogue/cards.py", "core/task.py", "judge/results.py", "judge/run.py", "report/page.py")


def test_no_domain_decides_a_branch_of_the_core():
    bad = []
    for path in BRANCHES:
        spared = set(docstrings(tree(path)))
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spared:
                said = node.value.lower()
                words = set(re.split(r"[^a-z]+", said)) if len(said) < 16 else {said}
                # `getattr(batch, "words", None)`: what a table may carry for any domain.
                hit = (words & DOMAIN_WORDS) - ({"words"} if path.name == "edits.py" else set())
                bad += [(name(path), node.lineno, hit)] if hit else []
        read = {n.attr for n in ast.walk(tree(path)) if isinstance(n, ast.Attribute)}
        bad += [name(path)] if "domain" in read and not name(path).endswith(DOMAINS_READ) else []
    assert not bad, bad


def test_the_core_compares_no_domain():
    for path in CORE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                names = {"domain"} & {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                assert not names or " in " in text, f"{path.name}:{node.lineno}: {text}"


# -- what no file holds ----------------------------------------------------------------------------------------------
NEVER = ("eval", "exec", "compile", "__import__", "torch.save", "numpy.load", "pd.read_pickle", "os.system")


def faults(path):
    """What of a file would unpickle, evaluate, or call a shell."""
    pickles = ("pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib")
    yield from (m for m in imported(path) if any(under(m, bad) for bad in pickles))
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called, flags = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in (
            "eval",
            "exec",
            "compile",
            "__import__",
            "torch.save",
            "numpy.load",
            "pd.read_pickle",
            "os.system",
        ):
            yield node.lineno, called
        if called == "torch.load" and flags.get("weights_only") != "True":  # tensors and plain containers alone
            yield node.lineno, called
        if called == "np.load" and flags.get("allow_pickle") not in (None, "False"):
            yield node.lineno, called
        if flags.get("shell", "False") != "False":
            yield node.lineno, "a shell"


def test_nothing_is_unpickled_or_evaluated():
    bad = [(name(p), fault) for p in OURS for fault in faults(p)]
    assert not bad, bad


def test_no_global_randomness():
    """Draws are keyed, or come from a generator; the one seeding of torch is inside fork_rng.

    `foreign.py` swaps the global states for libraries that draw from them.
    """
    pattern = r"\b(?:np|numpy)\.random\.(?!default_rng|Generator|SeedSequence)\w+|\brandom\.seed\("
    bad = []
    for path in OURS:
        source = path.read_text() if path.name != "foreign.py" else ""
        bad += [(name(path), found) for found in re.findall(pattern, source)]
        if "manual_seed" in re.sub(r"Generator\([^)]*\)\s*\.\s*manual_seed", "", source):
            loose = [line for line in source.splitlines() if "torch.manual_seed" in line]
            bad += [(name(path), loose)] if loose and "fork_rng" not in source else []
    assert not bad, bad


def test_the_library_does_not_print():
    bad = [(name(p), n.lineno) for p in OURS if p not in COMMANDS for n in ast.walk(tree(p))
           if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]  # fmt: skip
    assert not bad, bad


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
def test_files_are_short_and_folders_not_full():
    long = {name(p): n for p in OURS if (n := len(p.read_text().splitlines())) > LONGEST}
    many = Counter(name(p.parent) for p in [*OURS, *files("benchmarks")])
    assert not long and max(many.values()) <= FULLEST, (long, many.most_common(3))


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


def test_symlinks_are_relative():
    for folder in FOLDERS[1:]:
        link = ROOT / "advgym" / folder
        assert link.is_symlink() and os.readlink(link) == f"../{folder}"


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
