"""`advgym train` and `advgym bench`."""

import pytest

from advgym import registry
from advgym.cli import bench


def test_a_shipped_victim_prints_its_card(advgym):
    answer = advgym("train", "digits-cnn")
    assert answer.code == 0
    for word in ("clean accuracy", "train seconds", "digits-cnn.safetensors"):
        assert word in answer.out


def test_force_trains_into_the_cache(advgym, monkeypatch, tmp_path):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    from advgym.core import task

    monkeypatch.setattr(task, "_loaded", {})
    answer = advgym("train", "digits-mlp", "--force", "--set", "epochs=1")
    assert answer.code == 0, answer.err
    assert "training the victim 'digits-mlp'" in answer.err
    assert "epochs=1" in answer.out
    assert str(tmp_path) in answer.out
    assert list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["digits-cn"], "did you mean 'digits-cnn'"),
        (["digits-cnn", "--set", "epohcs=3"], "did you mean 'epochs'"),
        (["digits-cnn", "--set", "epochs"], "k=v"),
        (["train-test"], "--task"),
        (["train-test", "--task", "image/digit-linf"], "did you mean"),
        (["train-test", "--task", "image/digits-linf", "--set", "levl=1"], "did you mean 'level'"),
    ],
)
def test_errors(advgym, args, says):
    @registry.register_defense("train-test")
    def defend(victim, task, *, level=1):
        """Nothing."""
        return victim

    answer = advgym("train", *args)
    assert answer.code == 2
    assert says in answer.err
    if args == ["train-test"]:
        assert advgym("train", "train-test", "--task", "image/digits-linf", "--set", "level=2").code == 0


def test_benchmarks_are_listed_and_run(advgym, monkeypatch, tmp_path):
    (tmp_path / "speed_up.py").write_text('"""How fast."""\nimport sys\nsys.exit(len(sys.argv))\n')
    monkeypatch.setattr(bench, "folder", lambda: tmp_path)
    assert "How fast." in advgym("bench").out
    assert advgym("bench", "speed-up", "--size", "3").code == 3
    answer = advgym("bench", "sped-up")
    assert answer.code == 2
    assert "did you mean 'speed-up'" in answer.err


def test_benchmarks_need_a_checkout(advgym, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "HOME", tmp_path / "site" / "advgym")
    monkeypatch.chdir(tmp_path)
    answer = advgym("bench")
    assert answer.code == 2
    assert "checkout" in answer.err
