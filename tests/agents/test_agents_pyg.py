"""PyG's attacks through our meter give what they give on the bare model."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import advgym
from advgym.errors import AdvgymError
from advgym.lib.foreign import own_states

SETTINGS = {"block": 800, "epochs": 12, "resampling": 8}


class Bare(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, edge_index, edge_weight):
        return self.model.full(x, edge_index, edge_weight)


@pytest.mark.parametrize("kind", ["prbcd", "grbcd"])
def test_the_bridge_finds_what_the_library_finds(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.contrib.nn import GRBCDAttack, PRBCDAttack
    task = advgym.make_task("graph/sbm-global")
    result = advgym.attack(
        "graph/sbm-global", f"pyg:{kind}", episodes=1, lanes=1, queries=500, settings=SETTINGS, seed=3
    )
    row = result.samples[0]
    env = advgym.make("graph/sbm-global", lanes=1, queries=500)
    obs, _ = env.reset(options={"samples": [row.id]})
    seed = int(env.draws(3).integers(2**31 - 1)[0])
    rows = env.threat.apply(env.threat.null())
    graph, nodes = rows.graph, rows.nodes
    labels = torch.zeros(graph.size, dtype=torch.int64)
    labels[nodes] = obs["output"][0]
    extra = {"epochs_resampling": 8, "lr": 1000} if kind == "prbcd" else {}
    attack = {"prbcd": PRBCDAttack, "grbcd": GRBCDAttack}[kind](
        Bare(task.victim.model), 800, epochs=12, log=False, **extra
    )
    with own_states(seed):
        _, flips = attack.attack(graph.inputs_x(), graph.edge_index(), labels, int(env.table.limit[0]), nodes)
    want = {tuple(sorted(pair)) for pair in flips.T.tolist()}
    got = {tuple(sorted(pair[:2])) for pair in row.perturbation["edits"]}
    shared = len(want & got) / len(want | got)
    assert shared > 0.9  # float rounding in another order of sums may move the last few
    assert row.gradients == 12 and row.queries > 12
    assert row.valid


def test_a_spent_budget_hands_in_what_there_is():
    result = advgym.attack("graph/sbm-global", "pyg:prbcd", episodes=1, lanes=1, queries=5, settings=SETTINGS)
    assert result.samples[0].queries <= 5 and result.invalid_rate == 0


def test_other_tasks_and_names_are_refused():
    with pytest.raises(AdvgymError, match="edges: edits flip edges of that graph"):
        advgym.attack("graph/sbm-feature", "pyg:prbcd", episodes=1, settings=SETTINGS)
    with pytest.raises(AdvgymError, match="unknown attack of PyG"):
        advgym.attack("graph/sbm-global", "pyg:nettack", episodes=1)


def test_raw_graphs_are_checked():
    env = advgym.make("graph/karate-global", lanes=2)
    env.reset(seed=0)
    rows = env.threat.apply(env.threat.null()).of_lane(0)
    index = torch.tensor([[0, 40], [40, 0]])
    with pytest.raises(AdvgymError, match="node 40"):
        rows.raw(index, torch.ones(2))
    with pytest.raises(AdvgymError, match="NaN"):
        rows.raw(index % 7, torch.tensor([1.0, float("nan")]))
    clean = env.context["edge_index"]
    lane = torch.tensor([1])
    scores = env.victim(rows.raw(clean, torch.ones(clean.shape[1])), lane)
    obs, *_ = env.step((env.threat.null(), torch.zeros(2, env.shape[0], requires_grad=True)))
    assert torch.allclose(scores, obs["scores"][1:2].detach(), atol=1e-5)
    assert obs["queries_left"].tolist() == [499, 498]
