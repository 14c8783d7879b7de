"""Every row of `agents/defenses/training/rows.toml` trains on each kind of task; losses against the closed form."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import advgym
from advgym import AdvgymError, attack, make_task, registry
from advgym.agents.defenses import loop
from advgym.agents.defenses.lessons import Lesson, divergence, inner_of
from advgym.agents.defenses.training import (
    adversarial_training,
    distillation,
    ensemble,
    free,
    input_gradients,
    mart,
    neighbour,
    stored,
    trades,
    virtual_adversarial,
)
from advgym.lib.weights import weights_hash

ROOT = Path(__file__).parents[2]
ROWS = loop.table()["defenses"]
TINY = {"samples": 16, "epochs": 1, "queries": 3, "steps": 2, "batch": 8}
TASKS = {"field": ["image/digits-linf", "speech/synth-keyword"], "edits": ["text/synth-wordswap", "graph/karate-edge"]}
EPS = 2 / 16


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def settings(name, **more):
    return {**TINY, **({"watch": 8} if ROWS[name].get("set", {}).get("watch") else {}), **more}


# -- every row -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "task"), [(n, t) for n in ROWS for kind in TASKS for t in TASKS[kind]])
def test_it_trains_on_every_kind_of_task(name, task):
    plain = make_task(task)
    kind = plain.samples("test", [0]).kind
    if kind not in ROWS[name].get("kinds", (kind,)):
        with pytest.raises(AdvgymError, match=f"{name} needs the gradient of a field, and {task} offers edits"):
            make_task(task, defenses=[(name, settings(name))])
        return
    if (name, task) == ("neighbour-training", "graph/karate-edge"):  # its layers work on nodes, not on inputs
        with pytest.raises(AdvgymError, match="offers no hidden layers by input"):
            make_task(task, defenses=[(name, settings(name))])
        return
    guarded = make_task(task, defenses=[(name, settings(name))]).victim
    assert weights_hash(guarded.module) != weights_hash(plain.victim.module)
    assert all(v.isfinite().all() for v in guarded.module.state_dict().values() if v.is_floating_point())
    assert guarded.access == "gradients" and not any(p.requires_grad for p in guarded.module.parameters())
    assert guarded.card["inner"] and guarded.card["cpu_seconds"] >= 0


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_typed_defense_with_its_paper(name):
    entry, row = registry.defense(name), ROWS[name]
    assert row["paper"] in entry.summary and row["title"] in entry.summary
    assert set(entry.kinds) == set(row.get("kinds", registry.KINDS))
    with pytest.raises(AdvgymError, match="setting 'epochs'"):
        make_task("image/digits-linf", defenses=[(name, {"epochs": -1})])
    with pytest.raises(AdvgymError, match="unknown setting"):
        make_task("image/digits-linf", defenses=[(name, {"epoch": 1})])


def test_rows_and_files_are_the_same():
    room = ROOT / "agents" / "defenses" / "training"
    files = {p.stem for p in room.glob("[a-z]*.py")}
    alone = {"feature_denoising"}  # changes the net before it is trained
    assert files == {row["loss"] for row in ROWS.values()} | alone
    assert all(len(p.read_text().splitlines()) <= 120 for p in room.glob("*.py"))
    page = (ROOT / "docs" / "defenses.md").read_text()
    assert all(f"`{name}`" in page for name in ROWS), "docs/defenses.md lists every row"


@pytest.mark.parametrize("name", ["image/digits-universal", "speech/synth-transcribe", "image/digits-flow"])
def test_other_shapes_of_answers(name):
    """Members of a bundle, transcripts, a Field that is not added: trained, or refused by what is missing."""
    for guard in ("trades", "mart", "input-gradients", "neighbour-training", "virtual-adversarial", "distillation"):
        try:
            assert make_task(name, defenses=[(guard, settings(guard))]).victim.module is not None
        except AdvgymError as error:
            assert "offers no" in str(error) or "has no split" in str(error) or "unknown split" in str(error), error


# -- the losses ------------------------------------------------------------------------------------------------------
def lesson(agent="pgd", ids=(0, 1, 2, 3, 4, 5), step=0, total=4, memory=None):
    task = make_task("image/digits-linf")
    inner = inner_of(agent, {"steps": 3, "step_size": 0.4}, 3)
    return Lesson(
        task, "train", list(ids), task.victim, task.victim, inner, 3, step, total, {} if memory is None else memory
    )


def test_min_max_is_the_loss_at_what_the_agent_finds():
    one = lesson()
    δ = one.attacked()
    x, y, net = one.batch.x, one.labels, one.victim.module
    assert bool(one.batch.check(δ).all()) and torch.equal(δ, lesson().attacked())
    attacked, clean = (F.cross_entropy(net(v), y, reduction="none") for v in (one.batch.look(δ).form, x))
    assert attacked.mean() > clean.mean()
    assert torch.allclose(adversarial_training.loss(one), attacked, atol=1e-5)
    assert torch.allclose(adversarial_training.loss(one, clean=0.25), 0.75 * attacked + 0.25 * clean, atol=1e-5)


def test_a_success_does_not_end_the_search():
    """It did: the victim met the first point that fools it, not the worst of all steps."""
    one = lesson(ids=range(60))
    found, first = (one.loss(one.scores(p)).mean() for p in (one.attacked(), _until_success(one)))
    assert found > first


def _until_success(one):
    env = advgym.AttackEnv(one.task, split="train", assigned=one.ids)
    env.reset()
    registry.agent("pgd").attack(env, seed=one.seed, steps=3, step_size=0.4)
    return env.reset()[0]["perturbation"]


def test_trades_and_mart_in_closed_form():
    one = lesson()
    δ, net, x, y = one.attacked(), one.victim.module, one.batch.x, one.labels
    moved = net(one.batch.look(δ).form)
    p, q = net(x).softmax(1), moved.softmax(1)
    kl = (p * (p.log() - q.log())).sum(1)
    ce = F.cross_entropy(net(x), y, reduction="none")
    assert torch.allclose(trades.loss(one, beta=6.0), ce + 6 * kl, atol=1e-4)
    assert torch.allclose(divergence(net(x), moved), kl, atol=1e-5)
    own = q[torch.arange(6), y]
    others = torch.where(F.one_hot(y, 10).bool(), 0.0, q).amax(1)
    bce = -own.log() - (1 - others).log()
    want = bce + 5 * kl * (1 - p[torch.arange(6), y])
    assert torch.allclose(mart.loss(one, beta=5.0), want, atol=1e-3)


def test_input_gradients_of_a_linear_model():
    """The gradient of cross-entropy of Wx is W'(p - y); its squared length, and the slope of that in W."""
    one = lesson()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    one.victim = one.victim.like(net)
    w = net[1].weight
    x, y = one.batch.x.flatten(1), F.one_hot(one.labels, 10)
    g = ((x @ w.T).softmax(1) - y) @ w
    want = F.cross_entropy(x @ w.T, one.labels, reduction="none") + 3 * g.square().sum(1)
    found = input_gradients.loss(one, weight=3.0)
    assert torch.allclose(found, want, atol=1e-5)
    slope = [torch.autograd.grad(v.mean(), w, retain_graph=True)[0] for v in (found, want)]
    assert torch.allclose(*slope, atol=1e-5)


def test_virtual_adversarial_moves_more_than_noise():
    one = lesson(ids=range(40))
    moved = virtual_adversarial.loss(one, alpha=1.0) - one.loss(one.scores())
    noise = divergence(one.scores(), one.scores(one.batch.random(5)))
    assert moved.mean() > 2 * noise.mean()


def test_free_carries_the_perturbation_on():
    memory = {}
    net = make_task("image/digits-linf").victim.module.requires_grad_(True)
    try:
        for step, ids in enumerate([(0, 1, 2, 3), (0, 1, 2, 3), (7, 8)]):
            one = lesson(ids=ids, step=step, memory=memory)
            last = memory.get("δ")
            value = free.loss(one).mean()
            if step == 1:
                want = one.loss(one.scores(one.batch.project(last))).mean()
                assert torch.equal(value, want) and last.abs().max() > 0.9 * EPS
            value.backward()
            assert memory["δ"].shape[0] == 4 and memory["δ"].abs().max() <= EPS + 1e-6
    finally:
        net.requires_grad_(False)
        net.zero_grad()


def test_stored_examples_are_found_once(monkeypatch):
    memory, calls, found = {}, [], Lesson.attacked
    monkeypatch.setattr(Lesson, "attacked", lambda self, victim=None: calls.append(victim) or found(self, victim))
    first = stored.loss(lesson(memory=memory))
    again = stored.loss(lesson(memory=memory, step=1))
    assert len(calls) == 1 and calls[0] is not None and torch.allclose(first, again)


def test_an_ensemble_takes_turns(monkeypatch):
    memory, calls = {}, []
    monkeypatch.setattr(Lesson, "attacked", lambda self, victim=None: calls.append(victim and victim.name) or self.null)
    for step in range(3):
        ensemble.loss(lesson(memory=memory, step=step))
    assert calls == ["digits-cnn", "digits-mlp", None]
    with pytest.raises(AdvgymError, match="unknown victim"):
        ensemble.loss(lesson(), sources="no-such")


def test_the_neighbour_loss_is_nothing_without_a_neighbour():
    one = lesson("noise")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lesson, "attacked", lambda self: self.null)
        assert torch.allclose(neighbour.loss(one), one.loss(one.scores()), atol=1e-6)
    assert (neighbour.loss(one, alpha=1.0) > one.loss(one.scores())).all()
    one.victim = one.victim.like(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(AdvgymError, match="offers no hidden layers"):
        neighbour.loss(one)


def test_distillation_grows_the_scores_and_hides_gradients():
    given = {"samples": 512, "epochs": 6, "temperature": 20.0}
    plain, hidden = (
        make_task("image/digits-linf", defenses=d).victim for d in ([], [("distillation", {**given, "lr": 3e-3})])
    )
    batch = make_task("image/digits-linf").samples("test", list(range(50)))
    grown = [v.module(batch.x).topk(2, 1).values.diff(dim=1).abs().mean() for v in (plain, hidden)]
    assert grown[1] > 1.3 * grown[0]
    assert distillation.loss(lesson()).shape == (6,)


# -- the loop --------------------------------------------------------------------------------------------------------
def test_weights_are_averaged():
    one, mean = nn.Linear(2, 2), {}
    mean = {k: torch.zeros_like(v) for k, v in one.state_dict().items()}
    loop._average(mean, one, 0.75)
    assert all(torch.allclose(mean[k], 0.25 * v) for k, v in one.state_dict().items())


def test_catastrophic_overfitting_is_noticed_and_undone(monkeypatch, caplog):
    """Held-out robust accuracy as it falls in FGSM training: .5, .6, then .1."""
    seen = iter([0.5, 0.6, 0.1, 0.9])
    weights = []

    def look(self, part, batch):
        weights.append(weights_hash(self.pupil.module))
        return self.told_of(next(seen), part)

    monkeypatch.setattr(loop.Watch, "look", look)
    given = {"samples": 128, "epochs": 1, "batch": 8, "watch": 16, "seed": 11}
    victim = make_task("image/digits-linf", defenses=[("fast-training", given)]).victim
    assert len(weights) == 3 and weights_hash(victim.module) == weights[1] != weights[2]
    assert victim.card["overfitting"] == {"part": 3, "from": 0.6, "to": 0.1}
    assert "catastrophic overfitting" in caplog.text


def test_the_watch_measures_robust_accuracy_of_samples_held_out():
    s = {"seed": 0, "watch": 24, "samples": 1000, "batch": 64, "drop": 0.2, "queries": 8}
    task = make_task("image/digits-linf")
    held = loop.held_out(task.sizes["train"], s)
    dealt = {i for part in loop._batches(task.sizes["train"], s, 0) for i in part}
    assert len(held) == 24 and not dealt & set(held) and len(dealt) == 1000
    watch = loop.Watch(task, "train", task.victim, s)
    assert 0 <= watch.look(0, None) < 0.8 and watch.look(1, None) == watch.best and not watch.over


def test_a_loss_that_is_no_number_is_named():
    with pytest.raises(AdvgymError, match="loss of image/digits-linf is nan"):
        loop.train(
            "own", lambda lesson: lesson.loss(lesson.scores()) * torch.nan, make_task("image/digits-linf").victim,
            make_task("image/digits-linf"), {**loop.COMMON, **TINY},
        )  # fmt: skip


def test_it_holds_more_than_the_plain_victim():
    """Seconds of training, so a few points; the figures are in benchmarks/defenses/trained.py."""
    play = {"episodes": 100, "lanes": 100, "queries": 20, "settings": {"steps": 15, "step_size": 0.15}}
    plain = attack("image/digits-linf", "pgd", **play).robust_accuracy
    for name in ("trades", "mart", "fast-training", "free-training", "fgsm-mix", "weight-averaging"):
        guard = (name, {"samples": 700, "epochs": 2, "lr": 2e-3, "queries": 4})
        result = attack("image/digits-linf", "pgd", defenses=[guard], **play)
        assert result.robust_accuracy > plain + 0.03 and result.clean_accuracy > 0.9, name


# -- a defense of one file and one row -------------------------------------------------------------------------------
FILE = '''"""Logit pairing (an example)."""

from advgym.agents.defenses.loop import trained
from advgym.lib.settings import NATURAL


@trained(allowed={"weight": NATURAL})
def loss(lesson, *, weight: float = 0.5):
    """L(x + d) + weight |f(x) - f(x + d)|^2."""
    moved = lesson.scores(lesson.attacked())
    return lesson.loss(moved) + weight * (lesson.scores() - moved).flatten(1).square().mean(1)
'''
ROW = """
[defenses.logit-pairing]
loss = "logit_pairing"
title = "Answers to a sample and to its attacked twin are pulled together"
paper = "Kannan et al. 2018"
"""


def test_one_file_and_one_row_are_a_defense(tmp_path):
    """In a copy of the checkout: listed, trained, attacked, and a row of a board's matrix."""
    for folder in ("advgym", "envs", "agents", "leaderboards"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    room = tmp_path / "agents" / "defenses" / "training"
    (room / "logit_pairing.py").write_text(FILE)
    with (room / "rows.toml").open("a") as file:
        file.write(ROW)
    given = "samples=16,epochs=1,queries=2,batch=8"

    def run(*argv):
        env = {"PATH": "", "PYTHONPATH": str(tmp_path), "ADVGYM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "advgym", *argv], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    rows = {d["name"]: d for d in json.loads(run("list", "defenses", "--json"))}
    assert "Kannan" in rows["logit-pairing"]["summary"] and "weight" in rows["logit-pairing"]["settings"]
    pairs = [x for pair in given.split(",") for x in ("--set", pair)]
    assert "logit-pairing" in run("train", "logit-pairing", "--task", "image/digits-linf", *pairs)
    out = tmp_path / "out.json"
    run("attack", "image/digits-linf", "--agent", "noise", "--episodes", "4", "--out", str(out), "--defense",
        f"logit-pairing:{given}")  # fmt: skip
    result = json.loads(out.read_text())
    assert result["defense"] == "logit-pairing" and "logit-pairing" in result["victim"]["name"]
    assert "logit-pairing" not in tomllib.loads(loop.ROWS.read_text())["defenses"]
