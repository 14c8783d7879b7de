import numpy as np
import pytest
import torch
from torch import nn

from advgym import Victim, registry
from advgym.core.batch import Batch
from advgym.core.task import make_task
from advgym.errors import AdvgymError, DataError, VictimError
from advgym.lib.options import number

DIGITS = ("image/digits-linf", "image/digits-l2", "image/digits-l1", "image/digits-l0", "image/digits-pixel")
GENERIC = ("image/linf", "image/l2", "image/l1", "image/l0", "image/pixel")


def model(shape=(1, 5, 6), classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))


def pairs(n=7, shape=(1, 5, 6)):
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(shape, generator=generator), i % 3) for i in range(n)]


@pytest.mark.parametrize("name", DIGITS)
def test_digits_tasks(name):
    task = make_task(name)
    assert task.sizes == {"train": 1347, "test": 450} and task.goal.outputs == 10
    batch = task.samples("test", [3, 0, 449])
    assert isinstance(batch, Batch) and batch.ids.tolist() == [3, 0, 449] and batch.members == 1
    null = batch.look(batch.null())
    assert bool(null.null.all()) and bool(null.valid.all()) and torch.equal(batch.inputs(null.form), batch.x)
    scores = task.victim(batch.inputs(batch.look(batch.random(0)).form))
    assert scores.shape == (3, 10)
    assert batch.view()["clean"].shape == (3, 1, 8, 8)


def test_every_row_is_complete():
    ours = set(registry.built_in_tasks())  # other tests register rows of their own
    rows = {name: row for name, row in registry.tasks().items() if name.startswith("image/") and name in ours}
    assert {*DIGITS, *GENERIC, "image/mnist-linf"} <= set(rows)
    for name, row in rows.items():
        if "poison" in name:  # test_core_poison.py
            continue
        assert row["title"] and row["knowledge"] == "white-box" and row["goals"][:2] == ["untargeted", "targeted"]
        own = not name.startswith(("image/digits-", "image/mnist-", "image/synth-"))
        assert own == ("victim" not in row) and (name in GENERIC) <= own
        assert own or "synth" in name or {row["victim"], row["surrogate"]} <= set(registry.victims())


def test_options_come_as_numbers_or_text():
    for eps in ("2/16", "0.125", 0.125):
        task = make_task("image/digits-linf", eps=eps, lattice="16")
        assert task.threat.constraint == {"eps": 0.125, "lattice": 16}
        assert task.samples("test", [0]).limit.tolist() == [2]
    assert make_task("image/digits-pixel", pixels="3").samples("test", [0]).shape == (3, 2)
    plain = make_task("image/digits-l2", lattice=0).samples("test", [0])
    assert plain.lattice is None and float(plain.reach) == 0.5


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("image/digits-linf", {"eps": 0}, "eps is a number above 0"),
        ("image/digits-linf", {"eps": "-1/16"}, "eps is a number above 0"),
        ("image/digits-linf", {"eps": "a lot"}, "number above 0.*8/255"),
        ("image/digits-linf", {"eps": "1/0"}, "number above 0.*8/255"),
        ("image/digits-linf", {"eps": float("nan")}, "number above 0.*8/255"),
        ("image/digits-linf", {"eps": True}, "number above 0.*8/255"),
        ("image/digits-linf", {"eps": 0.01}, "less than one step"),
        ("image/digits-linf", {"lattice": 1.5}, "whole number"),
        ("image/digits-pixel", {"pixels": 0}, "whole number from 1"),
        ("image/digits-pixel", {"pixels": "many"}, "pixels is a whole number from 1"),
        ("image/digits-pixel", {"lattice": 0}, "whole number from 1"),
        ("image/digits-linf", {"dataset": "digit"}, "did you mean 'digits'"),
        ("image/linf", {"victim": model()}, "pass samples="),
        ("image/linf", {"samples": pairs()}, "pass victim="),
        ("image/linf", {"samples": 3, "victim": model()}, "list of"),
    ],
)
def test_plain_errors(name, options, says):
    with pytest.raises(AdvgymError, match=says):
        make_task(name, **options)


def test_fractions():
    assert number("76/255") == 76 / 255 and number(" 1e-1 ") == 0.1


@pytest.mark.parametrize("name", GENERIC)
def test_own_victim_and_samples(name):
    samples = pairs()
    task = make_task(name, victim=model(), samples=samples)
    assert task.sizes == {"test": 7} and task.goal.scores_shape == (3,)
    batch = task.samples("test", [2, 6])
    assert batch.labels.tolist() == [2, 0]
    assert torch.equal(batch.x, torch.round(torch.stack([samples[i][0] for i in (2, 6)]) * 255) / 255)
    assert bool(batch.look(batch.random(0)).valid.all())


def test_own_victims_of_every_sort():
    w = np.random.default_rng(0).normal(size=(30, 4))
    arrays = make_task("image/l2", victim=lambda x: x.reshape(len(x), -1).numpy() @ w, samples=pairs())
    assert arrays.goal.outputs == 4 and arrays.threat.knowledge == "score"
    only = Victim(lambda x: (x.flatten(1).mean(1) > 0.5).long(), access="labels")
    task = make_task("image/linf", victim=only, samples=pairs())
    assert task.threat.knowledge == "decision" and task.goal.outputs == 3
    x = task.samples("test", [0, 1, 2]).x
    assert torch.equal(task.victim(x).argmax(1), (x.flatten(1).mean(1) > 0.5).long())
    keyed = Victim(lambda x, keys: x.flatten(1)[:, :3] + keys.view(-1, 1) * 0.0, keyed=True)
    assert make_task("image/pixel", victim=keyed, samples=pairs()).goal.outputs == 3
    late = Victim(lambda x: torch.full((len(x),), 9 if len(x) > 1 else 0), access="labels")
    stray = make_task("image/linf", victim=late, samples=pairs())
    with pytest.raises(VictimError, match="outside 0 to 2"):
        stray.victim(x)
    with pytest.raises(VictimError, match=r"fails on images.*\(1, 1, 5, 6\)"):
        make_task("image/linf", victim=model((1, 9, 9)), samples=pairs())
    with pytest.raises(VictimError, match="want finite scores"):
        make_task("image/linf", victim=lambda x: x.flatten(1) * np.nan, samples=pairs())
    with pytest.raises(DataError, match="has the label 2"):
        make_task("image/linf", victim=model(classes=2), samples=pairs()[2:])


def test_own_samples_for_a_shipped_victim():
    task = make_task("image/digits-linf", samples=[(np.zeros((8, 8)), 1)] * 3)
    assert len(task.samples("test", [0, 2])) == 2
    with pytest.raises(VictimError, match="fails on images"):
        make_task("image/digits-linf", samples=[(np.zeros((12, 12)), 1)])


def test_the_surrogate_is_built_differently():
    task = make_task("image/digits-linf", knowledge="transfer")
    assert task.surrogate is not None and task.surrogate.name == "digits-mlp" != task.victim.name


def test_pgd_beats_noise_on_digits():
    """An attack on the bare task: projected gradients through `look`, against random points of the same ball."""
    task = make_task("image/digits-linf")
    batch = task.samples("test", list(range(100)))
    with torch.no_grad():
        ref = task.victim(batch.x).argmax(1)

    def flipped(p):
        with torch.no_grad():
            objective, _ = task.goal.judge(task.victim(batch.look(p).form), ref, None)
        return objective > 1e-6

    p, best = batch.random(0), torch.zeros(100, dtype=torch.bool)
    noise = float(torch.stack([flipped(batch.random(seed)) for seed in range(20)]).any(0).float().mean())
    for _ in range(20):
        p = p.detach().requires_grad_()
        look = batch.look(p)
        assert bool(look.valid.all())
        _, surrogate = task.goal.judge(task.victim(look.form), ref, None)
        (g,) = torch.autograd.grad(surrogate.sum(), p)
        p = batch.project(p.detach() + 0.03 * batch.steepest(g))
        best |= flipped(p)
    assert float(best.float().mean()) > 0.5 > 5 * noise


@pytest.mark.realdata
def test_mnist_task(data_dir):
    # A victim of our own spares the training of mnist-cnn.
    task = make_task("image/mnist-linf", victim=model((1, 28, 28), 10))
    assert task.sizes == {"train": 60000, "test": 10000} and task.threat.queries == 1000
    batch = task.samples("test", [9999, 0])
    assert batch.limit.tolist() == [76, 76] and batch.x.shape == (2, 1, 28, 28)
    assert torch.equal(torch.round(batch.x * 255) / 255, batch.x)
    folder = make_task("image/mnist-linf", victim=model((1, 28, 28), 10), dataset=str(data_dir / "image" / "mnist"))
    assert torch.equal(folder.samples("test", [9999, 0]).x, batch.x)
