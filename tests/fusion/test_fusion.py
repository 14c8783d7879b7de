"""Two channels with one label: pairs, the Field of two parts, the fused victims, what notices that they disagree."""

from functools import partial

import pytest
import torch

from advgym import AdvgymError, attack, check_vector_env, make, make_task, registry, verify
from advgym.agents.defenses.detect.fusion_consistency import Repaired
from advgym.core.kinds.parts import Part, PartsBatch, split
from advgym.envs.fusion import data
from advgym.envs.fusion.models import Fused
from advgym.errors import DataError

torch.set_num_threads(1)
TASK = "fusion/synth-pair"
PARTS = ("image/digits-linf", "speech/synth-keyword")


def test_pairs_have_one_label_and_are_their_tasks_samples():
    pairs = data.load(PARTS, "test")
    image, speech = (make_task(p) for p in PARTS)
    a, b = split(pairs.x, pairs.shapes)
    first = image.samples("test", list(range(len(a))))
    assert torch.equal(a, first.x) and torch.equal(pairs.labels, first.labels)
    others = speech.samples("test", list(range(speech.sizes["test"])))
    for i in range(40):
        at = (others.x == b[i]).all(1)
        assert at.any() and (others.labels[at] == pairs.labels[i]).all()
    assert [c.levels for c in pairs.channels] == [16, 32768] and pairs.channels[1].low == -1


@pytest.mark.parametrize("parts", [(PARTS[0],), (PARTS[0], "image/digits-l2")])
def test_parts_are_of_two_domains(parts):
    with pytest.raises(DataError, match="different domains"):
        data.load(parts, "test")


def tiny(**more):
    parts = [Part("a", (1, 2), more.get("a", 0.3), 0.0, 1.0, 10), Part("b", (3,), more.get("b", 0.5), -1.0, 1.0, 0)]
    x = torch.tensor([[0.5, 1.0, 0.0, -0.9, 0.2]])
    return PartsBatch(torch.tensor([7]), torch.tensor([0]), x, parts)


def test_theta_is_in_units_of_each_radius():
    batch = tiny()
    seen = batch.inputs(torch.tensor([[1.0, 1.0, -1.0, -1.0, 0.5]]))
    assert torch.allclose(seen, torch.tensor([[0.8, 1.0, -0.5, -1.0, 0.45]]))
    assert batch.sizes(torch.tensor([[1.0, 0, 0, 0.5, 0]])) == {"a": torch.tensor([1.0]), "b": torch.tensor([0.5])}
    assert torch.equal(batch.inputs(batch.null()), batch.x)


def test_a_closed_part_stays_and_rounding_leaves_no_ball():
    seen = tiny(b=0.0, a=0.37).inputs(torch.ones(1, 5))
    assert torch.equal(seen[:, 2:], tiny().x[:, 2:]) and float(seen[0, 0]) == pytest.approx(0.8)  # .37 is three steps


def test_gradients_are_scaled_and_both_parts_are_bounded():
    batch = tiny()
    theta = torch.zeros(1, 5, requires_grad=True)
    batch.inputs(theta).sum().backward()
    assert torch.allclose(theta.grad, torch.tensor([[0.3, 0.3, 0.5, 0.5, 0.5]]))
    assert batch.look(torch.full((1, 5), 1.0)).valid.all() and not batch.look(torch.full((1, 5), 1.01)).valid.any()


@pytest.mark.parametrize("fusion", ["early", "middle", "late"])
def test_fused_nets_read_both_channels(fusion):
    torch.manual_seed(0)
    net = Fused([(1, 8, 8), (1600,)], 4, fusion, width=4).eval()
    x = torch.rand(3, 64 + 1600)
    y = net(x)
    for some in (slice(0, 64), slice(64, None)):
        other = x.clone()
        other[:, some] = 0
        assert y.shape == (3, 4) and not torch.allclose(net(other), y)
    if fusion == "late":
        assert torch.allclose(net(x[:1]), y[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"attacked": "smell"}, "attacked is"), ({"image": 0}, "above 0"), ({"image": 0.01}, "less than one step"),
     ({"speech": "x"}, "speech is")],
)  # fmt: skip
def test_bad_options_are_named(options, words):
    with pytest.raises(AdvgymError, match=words):
        make_task(TASK, **options)


def test_the_task_keeps_the_contract():
    check_vector_env(partial(make, TASK))


def test_an_attack_on_one_channel_leaves_the_other():
    found = attack(TASK, "pgd", episodes=4, lanes=4, queries=8, gradients=8, attacked="speech")
    assert verify(found) == [] and found.clean_accuracy > 0.9
    task = make_task(TASK, attacked="speech")
    batch = task.samples("test", [s.id for s in found.samples])
    theta = batch.load([s.perturbation for s in found.samples])
    seen = batch.inputs(theta)
    assert torch.equal(seen[:, :64], batch.x[:, :64]) and not torch.equal(seen[:, 64:], batch.x[:, 64:])


@pytest.fixture(scope="module")
def attacked():
    task = make_task(TASK, attacked="speech")
    batch = task.samples("test", list(range(60)))
    other = batch.x.clone()
    shift = (batch.labels.unsqueeze(0) != batch.labels.unsqueeze(1)).int().argmax(1)  # another digit's recording
    other[:, 64:] = batch.x[shift, 64:]
    return task, batch, other


def test_channels_that_disagree_are_found(attacked):
    task, batch, other = attacked
    guard = registry.defense("consistency").defend(task.victim, task, samples=200, epochs=8)
    clean, found = guard.risk(batch.x), guard.risk(other)
    assert float((clean >= 0.5).double().mean()) < 0.25 and float((found >= 0.5).double().mean()) > 0.9


def test_a_channel_is_made_anew_from_the_other(attacked):
    task, batch, other = attacked
    guard = registry.defense("consistency").defend(task.victim, task, samples=500, epochs=12, repair=True)
    model = guard.model
    assert isinstance(model, Repaired)
    told = model.rebuilt(other, torch.ones(60, dtype=torch.int64))
    assert torch.equal(told[:, :64], other[:, :64])
    assert float((task.victim(told).argmax(1) == batch.labels).double().mean()) > 0.8
    assert guard(batch.x).argmax(1).eq(batch.labels).double().mean() > 0.9


def test_other_domains_are_refused():
    with pytest.raises(AdvgymError, match="guards fusion"):
        make_task("image/digits-linf", defenses=["consistency"])
