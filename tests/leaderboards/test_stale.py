"""Entries turn stale when board, victims, samples or scorer change, and only then."""

import ast

import msgspec
import pytest
from scored import entry, facts, task_score

from advgym import AdvgymError, registry
from advgym.leaderboards import scorer
from advgym.leaderboards.board import board_hash, load
from advgym.leaderboards.phases import HiddenVictim, PhaseCard
from advgym.leaderboards.scorer import CORE, scorer_hash
from advgym.leaderboards.stale import stale

BOARD = load("image")
TASK = BOARD.tasks[0].id


@pytest.fixture
def made():
    score = task_score(TASK, 0.5, victim="v", samples="s")
    return entry(0.5, board="image", board_hash=board_hash(BOARD), scorer="now", tasks=[score])


def card(weights=""):
    victims = {TASK: HiddenVictim(name="digits", weights=weights)} if weights else {}
    return PhaseCard(board="image", phase="dev", board_hash="", commitment="", public_data=True, victims=victims)


def test_an_entry_of_today_is_not(made):
    now = [facts(task=TASK, victim="v", samples="s")]
    assert stale(made, BOARD, card(), "now") == "" == stale(made, BOARD, card("v"), "now", now)


def test_each_change_makes_it_so(made):
    assert "code" in stale(made, BOARD, card(), "later")
    assert "victim" in stale(made, BOARD, card("w"), "now")
    assert "victim" in stale(made, BOARD, card(), "now", [facts(task=TASK, victim="w", samples="s")])
    assert "samples" in stale(made, BOARD, card(), "now", [facts(task=TASK, victim="v", samples="t")])
    dearer = msgspec.structs.replace(BOARD.tasks[0], queries=BOARD.tasks[0].queries + 1)
    other = msgspec.structs.replace(BOARD, tasks=[dearer, *BOARD.tasks[1:]])
    assert "board" in stale(made, other, card(), "now")


def test_a_title_or_a_later_end_does_not(made):
    other = msgspec.structs.replace(BOARD, title="Another", closes=BOARD.closes.replace(year=2031))
    assert stale(made, other, card(), "now") == ""


# -- the scorer's hash -----------------------------------------------------------------------------------------------
@pytest.fixture
def house(tmp_path, monkeypatch):
    """A copy of the sources that decide scores, to be changed."""
    for name in CORE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((registry.HOME / name).read_bytes())
    real = registry.HOME
    monkeypatch.setattr(scorer.registry, "HOME", tmp_path)
    yield tmp_path
    monkeypatch.setattr(scorer.registry, "HOME", real)


def test_the_same_code_has_the_same_hash():
    assert scorer_hash(BOARD) == scorer_hash(BOARD) and len(scorer_hash(BOARD)) == 64


@pytest.mark.parametrize("name", ["verifier.py", "leaderboards/intervals.py"])
def test_another_source_is_another_hash(house, name):
    before = scorer_hash(BOARD)
    path = house / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert scorer_hash(BOARD) == before  # a checkout with other line ends
    path.write_bytes(path.read_bytes() + b"# more\n")
    assert scorer_hash(BOARD) != before


def test_a_source_that_is_missing_is_an_error(house):
    (house / "verifier.py").unlink()
    with pytest.raises(AdvgymError, match="reinstall"):
        scorer_hash(BOARD)


def test_other_domains_do_not_matter():
    names = {key.rpartition("/")[0] for key in scorer._domain("advgym.envs.image.task")}
    assert names == {"advgym.envs.image"}
    assert not any(key.endswith("show.py") for key in scorer._domain("advgym.envs.image.task"))
    assert scorer_hash(BOARD) != scorer_hash(load("text"))


def test_what_columns_are_made_with_is_part_of_it():
    known = scorer._domain("advgym.envs.text.task")
    assert {f"advgym.envs.text/validity/{name}" for name in ("scoring.py", "calibration.json")} <= set(known)
    assert {"columns.py", "leaderboards/measured.py"} <= set(CORE)


def test_a_tasks_row_matters(monkeypatch):
    before = scorer_hash(BOARD)
    name, row = registry.task_row(TASK)
    rows = {**registry.tasks(), name: {**row, "constraint": {**row["constraint"], "eps": 0.123}}}
    monkeypatch.setattr(scorer.registry, "task_row", lambda n: (n, rows[n]))
    assert scorer_hash(BOARD) != before


def test_a_module_of_its_own_is_hashed_alone():
    assert list(scorer._domain("toy")) == ["toy/toy.py"]
    with pytest.raises(AdvgymError, match="source"):
        scorer._domain("nowhere_at_all")


def imports(path):
    """The files of the core that a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            file = f"{name.removeprefix('advgym.')}.py"
            if name.startswith("advgym.") and (registry.HOME / file).is_file():
                yield file


def reached(*roots):
    """Names below the package of what the roots import, however far down."""
    found, todo = set(), [file for root in roots for file in imports(root)]
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += imports(registry.HOME / file)
    return found


def domains():
    return [p for p in (registry.HOME / "envs").rglob("*.py") if p.name not in scorer.SHOWN]


def test_all_of_the_core_that_scoring_imports_is_hashed():
    roots = [registry.HOME / name for name in ("env.py", "run.py", "verifier.py")]
    used = {"env.py", "run.py", "verifier.py", *reached(*roots, *domains())}
    left_out = sorted(used - set(CORE) - set(scorer.ASIDE))
    assert not left_out, f"{left_out} can change a score: name them in CORE of leaderboards/scorer.py"


def test_a_new_module_of_the_core_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "newcomer.py").write_text("")
    (tmp_path / "env.py").write_text("def ask():\n    from advgym.newcomer import twice\n    return twice\n")
    monkeypatch.setattr(registry, "HOME", tmp_path)
    assert reached(tmp_path / "env.py") == {"newcomer.py"}
    assert not {"newcomer.py"} & {*CORE, *scorer.ASIDE}


@pytest.mark.parametrize("name", ["episodes.py", "reading.py", "glyphs.py"])
def test_what_was_left_out_once_makes_another_hash(house, name):
    before = scorer_hash(BOARD)
    (house / name).write_bytes((house / name).read_bytes() + b"# more\n")
    assert scorer_hash(BOARD) != before
