"""Certified accuracy by radius: rows, curve, file, and what is said where there is no certificate."""

import json

import pytest
import torch
import toy
from torch import nn

from advgym import AdvgymError, Victim, attack, make_task
from advgym.cli.app import main
from advgym.core.kinds.certificates import Certificate
from advgym.errors import DataError
from advgym.evaluations import certify as room
from advgym.evaluations.certify import accuracy_at, broken, certify, load, save

torch.set_num_threads(1)
FIELDS = {"episodes": 20, "defenses": ["interval-bounds"]}


class Says(nn.Module):
    """Abstains on every third sample, and claims a radius of its id / 10."""

    def forward(self, x):
        return toy.linear()(x)

    def certificate(self, batch, *, seed=0, often=1):
        label = self(batch.x).argmax(1)
        label[batch.ids % 3 == 0] = -1
        radius = torch.where(label < 0, 0.0, batch.ids / 10).double()
        radius[batch.ids == 1] = torch.inf
        return Certificate(label, radius, "l2")

    def settled(self, x, keys):
        return self(x).argmax(1)


def said(**options):
    task = toy.task(lattice=None)
    task.victim = Victim(Says())
    return task, certify(task, episodes=10, **options)


def test_rows_and_curve_are_what_was_said():
    task, found = said(radii=[0.0, 0.4, 5.0])
    assert [r.abstain for r in found.samples] == [r.id % 3 == 0 for r in found.samples]
    assert found.abstained == sum(r.abstain for r in found.samples) / 10
    batch = task.samples("test", [r.id for r in found.samples])
    right = task.victim(batch.x).argmax(1) == batch.labels
    for r, good in zip(found.samples, right.tolist(), strict=True):
        assert r.right == (good and not r.abstain)
        assert r.radius == (0.0 if r.abstain else None if r.id == 1 else pytest.approx(r.id / 10))
    for point in found.curve:
        held = [r for r in found.samples if r.right and (r.radius is None or r.radius >= point.radius)]
        assert point.accuracy == len(held) / 10 and point.ci[0] <= point.accuracy <= point.ci[1]
    assert found.curve[0].accuracy == found.clean_accuracy


def test_the_curve_falls_and_spans_what_was_found():
    _, found = said()
    accuracies = [p.accuracy for p in found.curve]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found.curve[-1].radius is None and found.curve[-1].accuracy == accuracy_at(found.samples, None)
    assert max(p.radius for p in found.curve[:-1]) >= max(r.radius for r in found.samples if r.radius is not None)


def test_chunks_do_not_matter(monkeypatch):
    settings = {"draws": 60, "pick": 10}
    whole = certify("image/digits-linf", defenses=["gaussian-smoothing"], episodes=12, settings=settings)
    monkeypatch.setattr(room, "CHUNK", 5)
    parts = certify("image/digits-linf", defenses=["gaussian-smoothing"], episodes=12, settings=settings)
    assert whole.samples == parts.samples
    other = certify("image/digits-linf", defenses=["gaussian-smoothing"], episodes=12, settings=settings, seed=1)
    assert [r.radius for r in other.samples] != [r.radius for r in whole.samples]


def test_graphs_are_served_by_the_same_protocol():
    found = certify("graph/karate-edge", victim="karate-gcn-smoothed", episodes=6, settings={"draws": 400})
    assert found.unit == "edges of the target" and found.curve[0].radius == 0
    assert all(r.radius == int(r.radius) and (r.radius == 0 or not r.abstain) for r in found.samples)


def test_the_file_comes_back(tmp_path):
    found = certify("image/digits-linf", **FIELDS)
    save(found, tmp_path / "c.json")
    assert load(tmp_path / "c.json") == found
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="no file of `advgym certify"):
        load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "offers no certificate"),
        ({"defenses": ["gaussian-smoothing", "bit-depth"]}, "offers no certificate"),
        ({"defenses": ["gaussian-smoothing"], "settings": {"drwas": 4}}, "drwas"),
        ({"defenses": ["gaussian-smoothing"], "settings": {"draws": 0}}, "draws is a whole number"),
        ({"defenses": ["gaussian-smoothing"], "settings": {"alpha": 1.0}}, "alpha is a number"),
        ({"defenses": ["interval-bounds"], "settings": {"draws": 5}}, "draws"),
        ({"defenses": ["interval-bounds"], "episodes": 0}, "episodes"),
    ],
)
def test_what_cannot_be_certified_is_said(options, words):
    with pytest.raises(AdvgymError, match=words):
        certify("image/digits-linf", **options)


def test_bundles_are_refused():
    with pytest.raises(AdvgymError, match="not of bundles"):
        certify("image/digits-universal", defenses=["gaussian-smoothing"], episodes=1)


def test_a_lie_is_found_and_the_truth_is_not_called_one():
    task = toy.task(lattice=None)
    task.victim = Victim(Says())
    result = attack(task, "pgd", episodes=20, lanes=20)
    wins = {s.id: s.distance for s in result.samples if s.success and s.id % 3}
    # The claimed radius is in L2 and the attack's ball in Linf: its corner is sqrt(SIZE) times as far.
    lies = {i for i, d in wins.items() if i == 1 or i / 10 > d * toy.SIZE**0.5 + 1e-3}
    assert lies and lies <= set(broken(task, "test", result)) <= set(wins)
    plain = make_task("image/digits-linf")
    assert broken(plain, "test", attack(plain, "pgd", episodes=4, lanes=4)) == []


def test_the_command(capsys, tmp_path):
    path = tmp_path / "c.json"
    args = ["certify", "image/digits-linf", "--defense", "gaussian-smoothing:sigma=0.5", "--episodes", "6"]
    assert main([*args, "--set", "draws=50", "--radii", "0,0.25", "--out", str(path)]) == 0
    out = capsys.readouterr().out
    assert "radius (l2)" in out and "clean accuracy" in out and "draws = 50" in out
    assert [p.radius for p in load(path).curve] == [0.0, 0.25]
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "advgym-certify/1"
    assert main(["certify", "image/digits-linf"]) == 2 and "offers no certificate" in capsys.readouterr().err
    assert main([*args, "--radii", "0,x"]) == 2 and "--radii" in capsys.readouterr().err
