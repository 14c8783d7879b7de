"""The inductive split of Cora-ML: who is in which part, and that a victim never saw the part it is asked about."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advgym import make_task
from advgym.envs.graph.data.cora_ml import load, split
from advgym.envs.graph.data.datasets import sbm
from advgym.envs.graph.victims.inductive import induced, inductive_victim
from advgym.errors import DataError
from advgym.lib.weights import cache_in


@given(
    sizes=st.lists(st.integers(12, 60), min_size=1, max_size=5), seed=st.integers(0, 10_000), each=st.integers(1, 4),
    unlabelled=st.integers(0, 5),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_a_split_is_stratified(sizes, seed, each, unlabelled):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)] + [torch.full((unlabelled,), -1)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    parts = split(labels, seed, each, 0.25)
    every = torch.cat(list(parts.values()))
    assert len(every.unique()) == len(every) and list(parts) == ["train", "val", "test"]
    for label, size in enumerate(sizes):
        counts = [int((labels[parts[name]] == label).sum()) for name in ("train", "val", "test")]
        assert counts == [each, each, round(0.25 * size)]
    assert (labels[every] >= 0).all() and all(torch.equal(p, p.sort().values) for p in parts.values())
    again, other = split(labels, seed, each, 0.25), split(labels, seed + 1, each, 0.25)
    assert all(torch.equal(parts[n], again[n]) for n in parts)
    assert len(every) < 20 or any(not torch.equal(parts[n], other[n]) for n in parts)


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(DataError, match="class 1 has 5 nodes"):
        split(torch.tensor([0] * 50 + [1] * 5), 0)


def small():
    data = sbm(size=120, features=20)
    from dataclasses import replace

    return replace(data, nodes=split(data.labels, 0, 5, 0.2))


def test_the_training_graph_is_the_induced_one():
    data = small()
    known = induced(data)
    gone = torch.zeros(120, dtype=torch.bool)
    gone[data.nodes["test"]] = True
    old = (~gone).nonzero()[:, 0]
    assert known.graph.size == len(old) and torch.equal(known.graph.x, data.graph.x[old])
    assert torch.equal(known.labels, data.labels[old]) and set(known.nodes) == {"train", "val"}
    for name, nodes in known.nodes.items():
        assert torch.equal(old[nodes], data.nodes[name])
    want = {(a, b) for a, b in data.graph.pairs.tolist() if not gone[a] and not gone[b]}
    assert {(int(old[a]), int(old[b])) for a, b in known.graph.pairs.tolist()} == want


def test_a_victim_never_saw_the_test_nodes(tmp_path):
    """Other labels, features and edges of test nodes make the same victim; another training graph does not."""
    from dataclasses import replace

    from advgym.envs.graph.inputs.graphs import Graph

    data = small()
    test, graph = data.nodes["test"], data.graph
    x, labels = graph.x.clone(), data.labels.clone()
    x[test], labels[test] = 1 - x[test], (labels[test] + 1) % 3
    cut = graph.pairs[~torch.isin(graph.pairs, test).any(1)]
    with cache_in(tmp_path):
        torch.manual_seed(0)
        one = inductive_victim("a", "none", epochs=20, hidden=4, data=data)
        other = replace(data, graph=Graph(120, cut, x), labels=labels)
        two = inductive_victim("b", "none", epochs=20, hidden=4, data=other)
    weights = zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    scores = one.model.full(graph.inputs_x(), graph.edge_index())[test]
    assert one.card["clean_accuracy"] == pytest.approx(float((scores.argmax(1) == data.labels[test]).float().mean()))
    assert one.card["test_size"] == len(test) and one.card["clean_accuracy"] != two.card["clean_accuracy"]


def test_names_of_splits():
    for name in ("cora-ml#", "cora-ml#x", "cora", "cora-ml#-1", "cora-ml#0:5"):
        with pytest.raises(DataError, match="cora-ml#0"):
            load(name)


@pytest.mark.realdata
def test_cora_ml(data_dir):
    data = load("cora-ml#3")
    assert data.graph.size == 2810 and len(data.graph.pairs) == 7981 and data.classes == 7
    assert {k: len(v) for k, v in data.nodes.items()} == {"train": 140, "val": 140, "test": 281}
    assert torch.equal(load("cora-ml").nodes["test"], load("cora-ml#0").nodes["test"])
    assert not torch.equal(data.nodes["test"], load("cora-ml#0").nodes["test"])
    task = make_task("graph/cora-global", samples=data, of="targets", eps=0.05, victim=untrained(data))
    assert task.samples("test", [0]).members <= 281


def untrained(data):
    from advgym.core.victim import Victim
    from advgym.envs.graph.victims.recipes import GCN

    torch.manual_seed(0)
    return Victim(GCN(data.graph.features, 7, 4).eval())
