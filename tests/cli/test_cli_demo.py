"""`advgym demo`, on one small task."""

import json

import pytest

from advgym import registry

TASK = "image/digits-linf"


@pytest.fixture
def one_task(monkeypatch):
    row = {**registry.tasks()[TASK], "demo": ["noise", "pgd", "square"]}
    agents = {name: registry.agent(name) for name in ("noise", "pgd", "square", "greedy")}

    @registry.register_defense("demo-test", kinds=("field",))
    def defend(victim, task):
        """Nothing."""
        return victim

    monkeypatch.setattr(registry, "tasks", lambda: {TASK: row})
    monkeypatch.setattr(registry, "agents", lambda: agents)
    monkeypatch.setattr(registry, "defenses", lambda: {"demo-test": registry.defense("demo-test")})


def test_it_runs_and_writes(advgym, one_task, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("stays")
    answer = advgym("demo", "--quick", "--out", folder)
    assert answer.code == 0, answer.err
    for word in ("pgd", "square", "noise", "demo-test", "none", "clean accuracy", str(folder / "index.html")):
        assert word in answer.out
    names = sorted(p.name for p in (folder / "results").iterdir())
    assert [n for n in names if n.endswith("--none.json")] == [
        f"image.digits-linf--{a}--none.json" for a in ("noise", "pgd", "square")
    ]
    assert [n for n in names if n.endswith("--demo-test.json")] == [
        f"image.digits-linf--{a}--demo-test.json" for a in ("noise", "pgd", "square")
    ]
    for path in (folder / "results").iterdir():
        assert json.loads(path.read_text())["task"] == TASK
    assert advgym("verify", folder / "results" / names[0]).code == 0
    assert (folder / "mine.txt").read_text() == "stays"
    page = (folder / "index.html").read_text()
    assert "greedy" not in page or "plays edits" in page
    assert advgym("demo", "--quick", "--out", folder).code == 0  # again, over the same folder


def test_a_failing_agent_leaves_a_cell_and_exit_1(advgym, one_task, tmp_path, monkeypatch):
    from advgym.judge import run

    real = run.attack

    def attack(task, agent, **options):
        if agent == "square":
            raise RuntimeError("out of luck")
        return real(task, agent, **options)

    monkeypatch.setattr(run, "attack", attack)
    answer = advgym("demo", "--quick", "--out", tmp_path)
    assert answer.code == 1
    assert "square on image/digits-linf failed: RuntimeError: out of luck" in answer.err
    assert "out of luck" in (tmp_path / "index.html").read_text()


def test_no_demo_rows(advgym, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "tasks", dict)
    answer = advgym("demo", "--out", tmp_path / "x")
    assert answer.code == 2
    assert "demo = [...]" in answer.err
    assert not (tmp_path / "x").exists()


def test_out_is_a_file(advgym, one_task, tmp_path):
    (tmp_path / "x").write_text("")
    assert advgym("demo", "--out", tmp_path / "x").code == 2


def test_the_rows_name_agents_that_play_them():
    rows = {name: row["demo"] for name, row in registry.tasks().items() if row.get("demo")}
    assert {name.split("/")[0] for name in rows} == {"image", "text", "graph", "speech"}
    for name, agents in rows.items():
        kind = "field" if name.split("/")[0] in ("image", "speech") else "edits"
        assert len(agents) == len(set(agents))
        assert all(kind in registry.agent(a).kinds for a in agents), name
