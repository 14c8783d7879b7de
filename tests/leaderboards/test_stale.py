"""Entries turn stale when board, victims, samples or scorer change, and only then."""

import ast
import shutil

import msgspec
import pytest
from scored import entry, facts, task_score

from advgym import AdvgymError, registry
from advgym.leaderboards.entries.stale import stale
from advgym.leaderboards.rules.board import board_hash, load
from advgym.leaderboards.rules.phase_cards import HiddenVictim, PhaseCard
from advgym.leaderboards.scoring import scorer
from advgym.leaderboards.scoring.scorer import DECIDES, scorer_hash

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
    """A copy of the folders that decide scores, to be changed."""
    for folder in DECIDES:
        shutil.copytree(registry.HOME / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(scorer.registry, "HOME", tmp_path)
    return tmp_path


def test_the_same_code_has_the_same_hash():
    assert scorer_hash(BOARD) == scorer_hash(BOARD) and len(scorer_hash(BOARD)) == 64


@pytest.mark.parametrize(
    "name", ["judge/verdict.py", "leaderboards/scoring/intervals.py", "core/episodes.py", "lib/needs.toml"]
)
def test_another_source_is_another_hash(house, name):
    before = scorer_hash(BOARD)
    path = house / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert scorer_hash(BOARD) == before  # a checkout with other line ends
    path.write_bytes(path.read_bytes() + b"# more\n")
    assert scorer_hash(BOARD) != before


def test_a_file_more_or_less_is_another_hash(house):
    before = scorer_hash(BOARD)
    (house / "core" / "newcomer.py").write_text("")
    more = scorer_hash(BOARD)
    (house / "core" / "newcomer.py").unlink()
    (house / "judge" / "verdict.py").unlink()
    assert len({before, more, scorer_hash(BOARD)}) == 3


def test_a_folder_that_is_missing_is_an_error(house):
    shutil.rmtree(house / "judge")
    with pytest.raises(AdvgymError, match="reinstall"):
        scorer_hash(BOARD)


def test_other_domains_do_not_matter():
    names = {key.rpartition("/")[0] for key in scorer.domain("advgym.envs.image.tasks.balls")}
    assert names and all(name.startswith("advgym.envs.image") for name in names)
    assert not any("/pictures" in key or "show" in key for key in scorer.domain("advgym.envs.image.tasks.balls"))
    assert scorer_hash(BOARD) != scorer_hash(load("text"))


@pytest.mark.parametrize("room", ["tasks.nodes", "victims.recipes", "show.figures", "measures"])
def test_the_rooms_of_a_domain_belong_together_save_what_draws(room):
    known = scorer.domain(f"advgym.envs.graph.{room}")
    assert known == scorer.domain("advgym.envs.graph.tasks.poison") and "advgym.envs.graph/inputs/rows.py" in known
    assert not any("/show" in key or key.endswith("tasks.toml") for key in known)


def test_what_columns_are_made_with_is_part_of_it():
    known = set(scorer.domain("advgym.envs.text.tasks.embedded"))
    assert {f"advgym.envs.text/measures/validity/{name}" for name in ("scoring.py", "calibration.json")} <= known
    assert "advgym.envs.text/candidates/glyphs.toml" in known
    assert {"core/columns.py", "leaderboards/scoring/measured.py"} <= set(scorer.house())


def test_a_tasks_row_matters(monkeypatch):
    before = scorer_hash(BOARD)
    name, row = registry.task_row(TASK)
    rows = {**registry.tasks(), name: {**row, "constraint": {**row["constraint"], "eps": 0.123}}}
    monkeypatch.setattr(scorer.registry, "task_row", lambda n: (n, rows[n]))
    assert scorer_hash(BOARD) != before


def test_a_module_of_its_own_is_hashed_alone():
    assert list(scorer.domain("toy")) == ["toy/toy.py"]
    with pytest.raises(AdvgymError, match="source"):
        scorer.domain("nowhere_at_all")


DOORS = {"registry.py", "errors.py", "factory.py", "ids.py", "__init__.py"}  # names and words: they decide no score


def imports(path):
    """The files of the package that a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            file = f"{name.removeprefix('advgym.').replace('.', '/')}.py"
            if name.startswith("advgym.") and (registry.HOME / file).is_file():
                yield file


def test_all_that_scoring_imports_is_hashed():
    """What the hashed folders import is hashed itself, or a door, or a room of the boards that decides no score."""
    rooms = ("rules", "entries", "sandbox", "store", "service")
    aside = tuple(f"leaderboards/{room}/" for room in rooms)
    known = scorer.house()
    for name, path in known.items():
        for file in imports(path) if name.endswith(".py") else ():
            spared = file in DOORS or file.startswith(aside)
            assert file in known or spared, f"{name} imports {file}: name its folder in DECIDES of {scorer.__name__}"
