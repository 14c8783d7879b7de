"""Training runs of the zoo as victims of poisoning: alone or in company, by their key, on the graph that is given."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym.core import rng
from advgym.core.task import load_victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import similar
from advgym.envs.graph.models.fitting import fit
from advgym.envs.graph.tasks.poison import retrained_victim
from advgym.envs.graph.victims.refit import flipped
from advgym.envs.graph.victims.zoo import MODELS
from advgym.errors import AdvgymError, VictimError

DATA = load_nodes("sbm")
TEST = DATA.nodes["test"]
NONE = torch.full((1, 0, 2), -1)


def run(model, flips=NONE, keys=(3,), **options):
    victim = retrained_victim("own", data=DATA, model=model, epochs=12, **options)
    return victim.model(GlobalRows(DATA.graph, TEST, flips), torch.tensor(keys)).view(len(flips), len(TEST), 3)


def unlike():
    """Pairs of nodes that share no feature and no edge, int64 (8, 2)."""
    a, b = torch.triu_indices(300, 300, 1)
    x = DATA.graph.x > 0
    apart = ~similar(x[a], x[b], 0.01) & ~DATA.graph.has(a, b)
    return torch.stack([a, b], 1)[apart][::97][:8]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 33), st.integers(0, 33)).filter(lambda p: p[0] != p[1]), max_size=9))
def test_the_graph_after_flips(pairs):
    graph, seen = load_nodes("karate").graph, {frozenset(p): p for p in pairs}
    flips = torch.tensor([*seen.values(), (-1, -1)])
    found = flipped(graph, flips)
    want = {frozenset(p) for p in graph.pairs.tolist()} ^ set(seen)
    assert {frozenset(p) for p in found.pairs.tolist()} == want and len(found.pairs) == len(want)
    assert bool((found.pairs[:, 0] < found.pairs[:, 1]).all()) and found.x is graph.x


@pytest.mark.parametrize("model", ["sage", "sgc"])
def test_a_run_is_the_same_in_any_company(model):
    flips = torch.tensor([[[0, 200], [-1, -1]], [[1, 250], [5, 9]], [[-1, -1], [-1, -1]]])
    before = torch.random.get_rng_state()
    every = run(model, flips, (4, 8, 4))
    assert torch.equal(torch.random.get_rng_state(), before)  # no draw from the caller's generator
    for i, key in enumerate((4, 8, 4)):
        assert torch.equal(run(model, flips[i : i + 1], (key,))[0], every[i])
    assert not torch.equal(every[0], every[2]) and not torch.equal(run(model, flips, (9, 9, 9))[0], every[0])


def test_a_run_is_the_zoo_s_own_training():
    flips = unlike()
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.bits(0, torch.tensor([7]), (), 57)))
        net = MODELS["sage"](DATA.graph.features, 3, hidden=8)
        fit(net, DATA, epochs=12, perturb=lambda *_: flips.unsqueeze(0))
    net.eval()
    want = net(GlobalRows(DATA.graph, TEST, flips.unsqueeze(0))).view(len(TEST), 3)
    torch.testing.assert_close(run("sage", flips.unsqueeze(0), (7,), hidden=8)[0], want, atol=1e-4, rtol=1e-4)


def test_a_model_is_moved_by_what_it_reads_alone():
    flips = unlike().unsqueeze(0)
    for model, same in (("mlp", True), ("jaccard", True), ("appnp", False), ("sgc", False)):
        clean, poisoned = run(model), run(model, flips)
        assert torch.equal(clean, poisoned) == same, model
    inside = DATA.graph.pairs[:8].unsqueeze(0)
    assert torch.equal(run("mlp", inside), run("mlp")) and not torch.equal(run("jaccard", inside), run("jaccard"))


@pytest.mark.parametrize("model", ["sgc", "sage", "gat", "appnp", "rgcn", "gnnguard", "svd", "jaccard", "gin"])
def test_models_of_the_zoo_learn(model):
    options = {"gat": {"epochs": 120, "lr": 0.01}}.get(model, {"epochs": 40, "lr": 0.05})
    victim = retrained_victim("own", data=DATA, model=model, **options)
    right = victim.model(GlobalRows(DATA.graph, TEST, NONE)).argmax(1) == DATA.labels[TEST]
    assert float(right.float().mean()) > 0.5 and victim.keyed and victim.card["model"] == model


def test_the_contract_is_kept():
    karate = load_nodes("karate")
    victim = retrained_victim("quick", data=karate, model="sgc", epochs=3)
    advgym.check_vector_env(partial(advgym.make, "graph/karate-poison", victim=victim, fresh=1), lanes=2)


def test_rows_of_tasks_name_the_model():
    for name in ("sbm-poison-jaccard", "sbm-poison-rgcn"):
        task = advgym.make_task(f"graph/{name}", fresh=1, knowledge="transfer", targets=20)
        assert task.victim.card["model"] == name.rpartition("-")[2] and task.surrogate.name == "sbm-unrolled"
    assert load_victim("karate-retrained-gat").model.recipe["lr"] == 0.005  # the paper's recipe


def test_poisoning_another_model_can_be_verified():
    victim = retrained_victim("quick", data=DATA, model="rgcn", epochs=15, lr=0.05)
    task = advgym.make_task("graph/sbm-poison", victim=victim, knowledge="transfer", fresh=1)
    result = advgym.attack(task, "metattack", episodes=1, settings={"flips": 19})
    assert advgym.verify(result, task=task) == [] and result.members_rate > 0


def test_wrong_use_says_so():
    with pytest.raises(AdvgymError, match="gcm"):
        retrained_victim("own", data=DATA, model="gcm")
    victim = retrained_victim("own", data=DATA, model="mlp", epochs=1)
    flips = unlike().unsqueeze(0)
    with pytest.raises(VictimError, match="no relaxed ones"):
        victim.model(GlobalRows(DATA.graph, TEST, flips, torch.full(flips.shape[:2], 0.5)))
    with pytest.raises(VictimError, match="whole graphs"):
        victim.model(object())
