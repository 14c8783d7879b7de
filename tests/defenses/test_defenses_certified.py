"""Certificates: against radii known in closed form, against brute force, and against the attacks of the suites."""

import itertools
import math

import pytest
import torch
import toy
from torch import nn

from advgym import AdvgymError, Victim, attack, make_task, registry
from advgym.agents.defenses.intervals import Interval, bounded, certain, margins
from advgym.core.kinds.certificates import certifier, sizes
from advgym.core.rng import normal_pairs
from advgym.core.task import defend
from advgym.evaluations.certify import broken
from advgym.lib.tallies import settles

torch.set_num_threads(1)
SIGMA = 0.5


def smoothed(**settings):
    victim = registry.defense("gaussian-smoothing").defend(
        Victim(toy.linear()), toy.task(lattice=None), sigma=SIGMA, **settings
    )
    return victim.module


# -- Gaussian smoothing ------------------------------------------------------------------------------------------------
def two_classes():
    """A linear classifier of two classes, whose smoothed radius is the distance to its plane."""
    layer = nn.Linear(toy.SIZE, 2)
    with torch.no_grad():
        layer.weight[0], layer.bias[:] = 0.0, 0.0
        layer.weight[1] = torch.randn(toy.SIZE, generator=torch.Generator().manual_seed(3))
        layer.bias[1] = -layer.weight[1].sum() / 2
    return layer.requires_grad_(False)


def test_the_radius_of_a_linear_classifier_is_never_above_the_true_one_and_near_it():
    layer, task = two_classes(), toy.task(lattice=None)
    model = registry.defense("gaussian-smoothing").defend(Victim(layer), task, sigma=SIGMA).module
    batch = task.samples("test", list(range(toy.SAMPLES)))
    found = model.certificate(batch, draws=20_000, pick=200)
    x = batch.inputs(batch.look(batch.null()).form)
    true = (layer(x)[:, 1].abs() / layer.weight[1].norm()).double()
    kept = found.prediction >= 0
    assert kept.float().mean() > 0.7 and (found.prediction[kept] == layer(x).argmax(1)[kept]).all()
    assert (found.radius <= true + 1e-6).all() and (found.radius[~kept] == 0).all()
    near = kept & (true < 2 * SIGMA)  # beyond, so few draws cannot tell a probability from 1
    assert near.sum() > 10 and (true - found.radius)[near].max() < 0.12
    assert (true[~kept] < 0.05).all(), "it abstains where the plane is"


def test_counts_are_of_keyed_draws_whatever_stands_beside():
    model, x, keys = smoothed(), toy.samples()[:9], torch.arange(40, 49)
    whole = model.counts(x, keys, 300)
    assert (whole.sum(1) == 300).all()
    for i in (0, 8):
        assert torch.equal(model.counts(x[i : i + 1], keys[i : i + 1], 300)[0], whole[i])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.counts(x[order], keys[order], 300), whole[order])
    assert not torch.equal(model.counts(x, keys + 1, 300), whole)


def test_counts_are_those_of_their_own_probabilities():
    """Of a linear classifier of two classes the share is Phi(margin / (sigma |w|))."""
    layer = two_classes()
    model = registry.defense("gaussian-smoothing").defend(Victim(layer), toy.task(lattice=None), sigma=SIGMA).module
    x, n = toy.samples()[:12], 20_000
    share = model.counts(x, torch.arange(12), n)[:, 1] / n
    true = torch.special.ndtr(layer(x)[:, 1] / (SIGMA * layer.weight[1].norm()))
    assert ((share - true).abs() < 4.5 * (true * (1 - true) / n).sqrt() + 1e-6).all()


def test_what_a_victim_draws_by_itself_is_counted_too():
    """Noise on noise is noise of the deviation of both: the share of a linear classifier says so."""
    layer, task = two_classes(), toy.task(lattice=None)
    defense = registry.defense("gaussian-smoothing").defend

    class Draws(nn.Module):
        def forward(self, x, keys):
            return layer(x + SIGMA * normal_pairs(0, keys, (toy.SIZE,)))

    model = defense(Victim(Draws(), keyed=True, draws=1), task, sigma=SIGMA).module
    x, n = toy.samples()[:12], 20_000
    share = model.counts(x, torch.arange(12), n)[:, 1] / n
    true = torch.special.ndtr(layer(x)[:, 1] / (2**0.5 * SIGMA * layer.weight[1].norm()))
    assert ((share - true).abs() < 4.5 * (true * (1 - true) / n).sqrt() + 1e-6).all()


def test_the_binomial_test_abstains_on_ties_and_settles_majorities():
    found = settles(torch.tensor([50, 60, 90, 1000]), torch.tensor([50, 40, 10, 0]), 0.001)
    assert found.tolist() == [False, False, True, True]


@pytest.mark.parametrize("bad", [{"sigma": 0.0}, {"sigma": float("nan")}, {"draws": 0}, {"epochs": -1}])
def test_settings_that_are_none(bad):
    with pytest.raises(AdvgymError):
        registry.defense("gaussian-smoothing").defend(Victim(toy.linear()), toy.task(lattice=None), **bad)


def test_a_wrapper_does_not_inherit_a_certificate():
    task = make_task("image/digits-linf", defenses=["gaussian-smoothing"])
    assert certifier(task.victim) is not None and certifier(make_task("image/digits-linf").victim) is None
    assert certifier(defend(task, ["bit-depth"]).victim) is None
    assert certifier(defend(make_task("image/digits-linf", defenses=["interval-bounds"]), ["smoothing"]).victim) is None


# -- interval bounds ---------------------------------------------------------------------------------------------------
def tiny(seed):
    torch.manual_seed(seed)
    parts = [nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.GELU()]
    net = nn.Sequential(*parts, nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net.double().eval().requires_grad_(False)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_everywhere_by_brute_force(seed):
    """Nine pixels, five values each of four of them in every combination, and many points at random."""
    net = tiny(seed)
    g = torch.Generator().manual_seed(seed)
    x, wide = torch.rand(1, 1, 3, 3, generator=g).double(), 0.3
    box = Interval(x - wide, x + wide)
    scores = bounded(net, box)
    grid = torch.tensor(list(itertools.product(torch.linspace(-wide, wide, 5).tolist(), repeat=4))).double()
    points = x.repeat(len(grid), 1, 1, 1)
    points.view(-1, 9)[:, :4] += grid
    corners = x + wide * (2 * torch.randint(0, 2, (3000, 1, 3, 3), generator=g) - 1)
    inside = x + wide * (2 * torch.rand(3000, 1, 3, 3, generator=g).double() - 1)
    seen = net(torch.cat([points, corners, inside]))
    assert (seen >= scores.low - 1e-9).all() and (seen <= scores.high + 1e-9).all()
    label = net(x).argmax(1)
    worst = margins(scores, label)
    assert (seen[:, label] - seen >= worst - 1e-9).all()
    assert (worst >= scores.low[:, label] - scores.high - 1e-9).masked_fill(worst == 0, True).all(), "never looser"
    if certain(scores, label):
        assert (seen.argmax(1) == label).all()


def test_bounds_of_a_linear_net_are_exact():
    layer, x = toy.linear().double(), toy.samples().double()
    label = layer(x).argmax(1)
    for eps in (0.01, 0.1):
        worst = margins(bounded(layer, Interval(x - eps, x + eps)), label)
        w = layer.weight[label].unsqueeze(1) - layer.weight
        true = (w @ x.unsqueeze(2)).squeeze(2) - eps * w.abs().sum(2)
        assert torch.allclose(worst, true)


def test_the_certified_radius_of_a_linear_net_is_the_distance_in_linf():
    task = toy.task(lattice=None)
    victim = registry.defense("interval-bounds").defend(Victim(toy.linear()), task)
    batch = task.samples("test", list(range(toy.SAMPLES)))
    found = victim.module.certificate(batch)
    layer, x = toy.linear().double(), batch.x.double()
    label = layer(x).argmax(1)
    assert torch.equal(found.prediction, label)
    # By bisection in every direction of the box: the least eps at which some class overtakes.
    for i in range(toy.SAMPLES):
        r = float(found.radius[i])
        w = layer.weight[label[i]] - layer.weight
        for eps, held in ((r, True), (min(r + 1e-3, 1.0), False)):
            corner = torch.where(w > 0, (x[i] - eps).clamp_min(0), (x[i] + eps).clamp_max(1))
            margin = (w * corner).sum(1)
            margin[label[i]] = math.inf
            assert (margin.min() > 0) == held or (not held and (r >= 1.0 - 1e-3 or margin.min() < 1e-3))


@pytest.mark.parametrize(
    ("net", "what"), [(nn.LayerNorm(6), "layer_norm"), (nn.Softmax(1), "softmax"), (nn.LeakyReLU(-1.0), "leaky_relu")]
)
def test_what_has_no_rule_is_refused_by_name(net, what):
    with pytest.raises(AdvgymError, match=f"cannot be had through '{what}'"):
        registry.defense("interval-bounds").defend(Victim(nn.Sequential(net, toy.linear())), toy.task(lattice=None))


def test_batch_norm_that_moves_and_callables_are_refused():
    task = toy.task(lattice=None)
    with pytest.raises(AdvgymError, match="training mode"):
        bounded(nn.BatchNorm1d(6).train(), Interval(toy.samples(), toy.samples()))
    with pytest.raises(AdvgymError, match="no module"):
        registry.defense("interval-bounds").defend(Victim(lambda x: x[:, :3]), task)
    with pytest.raises(AdvgymError, match="guards text"):
        make_task("image/digits-linf", defenses=["word-bounds"])


# -- words -------------------------------------------------------------------------------------------------------------
def word_task(**options):
    return make_task("text/synth-wordswap", **{"victim": "synth-bag", **options})


@pytest.mark.parametrize("model", ["Bag", "Convolution"])
def test_word_bounds_hold_for_every_combination_of_substitutes(model):
    from advgym.agents.defenses.certified.text_word_bounds import read
    from advgym.envs.text.inputs.slots import TextInput
    from advgym.envs.text.models import classifiers

    batch = word_task().samples("test", list(range(6)))
    torch.manual_seed(1)
    net = getattr(classifiers, model)(batch.lexicon.vocabulary, 2).eval().requires_grad_(False)
    few = batch.open & (batch.open.cumsum(1) <= 4)  # four sites a text, three choices a site
    batch.grid = batch.grid & few.unsqueeze(2) & (batch.grid.cumsum(2) <= 3)
    scores = read(net, batch, torch.float64)
    clean = batch.inputs(batch.null()).ids
    for i in range(len(batch)):
        words = [[int(w), *batch.segments[i, s, batch.grid[i, s], 0].tolist()] for s, w in enumerate(clean[i])]
        texts = torch.tensor(list(itertools.product(*words)))
        assert len(texts) > 1
        seen = net(TextInput(texts, batch.lexicon.vocabulary))
        assert (seen >= scores.low[i] - 1e-5).all() and (seen <= scores.high[i] + 1e-5).all()


def test_tables_that_are_no_swaps_of_words_are_refused():
    with pytest.raises(AdvgymError, match="open table"):
        word_task(slots=4, defenses=["word-bounds"])
    with pytest.raises(AdvgymError, match="layer_norm"):
        word_task(victim="synth-bert", defenses=["word-bounds"])
    with pytest.raises(AdvgymError, match="models of embedded words"):
        word_task(defenses=["merge-synonyms", "word-bounds"])


# -- no attack of the suites succeeds inside ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVGYM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("agent", ["pgd", "auto"])
def test_no_attack_breaks_a_net_inside_its_interval_bounds(agent, cache):
    learnt = {"epochs": 8, "eps": 0.08, "lr": 3e-3, "batch": 32}
    budget = {"eps": "1/16", "queries": 100, "gradients": 100}
    task = make_task("image/digits-linf", defenses=[("interval-bounds", learnt)], **budget)
    result = attack(task, agent, episodes=64, lanes=64)
    found = certifier(task.victim)(task.samples("test", [s.id for s in result.samples]))
    held = [s.id for s, r in zip(result.samples, found.radius.tolist(), strict=True) if r >= 1 / 16]
    assert len(held) >= 16 and any(s.success for s in result.samples)
    assert not [s.id for s in result.samples if s.success and s.id in held]
    assert broken(task, "test", result) == []


@pytest.mark.parametrize("agent", ["pgd", "auto"])
def test_no_attack_moves_a_smoothed_answer_inside_its_radius(agent):
    defenses = [("gaussian-smoothing", {"sigma": 0.25, "draws": 8})]
    task = make_task("image/digits-l2", defenses=defenses, eps=0.3, queries=30, gradients=30)
    result = attack(task, agent, episodes=32, lanes=32)
    found = certifier(task.victim)(task.samples("test", [s.id for s in result.samples]))
    assert (found.radius > 0.3).sum() >= 3
    assert broken(task, "test", result) == []


@pytest.mark.parametrize("agent", ["greedy", "first-order"])
def test_no_swaps_break_a_certified_text(agent, words):
    result = attack(words, agent, episodes=100, lanes=50)
    found = certifier(words.victim)(words.samples("test", [s.id for s in result.samples]))
    held = {s.id for s, r in zip(result.samples, found.radius.tolist(), strict=True) if math.isinf(r)}
    assert len(held) >= 20
    assert not [s.id for s in result.samples if s.success and s.id in held]
    assert broken(words, "test", result) == []


@pytest.fixture(scope="module")
def words(cache):
    return word_task(defenses=[("word-bounds", {"epochs": 4, "lr": 5e-3})], queries=150, gradients=150)


def test_sizes_are_those_of_the_attack():
    task = make_task("image/digits-l2")
    batch = task.samples("test", [0, 1, 2])
    form = batch.look(batch.random(0)).form
    assert torch.allclose(sizes(batch, form, "l2").float(), batch.look(batch.random(0)).distance, atol=1e-5)
    assert sizes(batch, form, "edits") is None and sizes(batch, form, "edges of the target") is None
