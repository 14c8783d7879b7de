"""Own graphs in every form they come in: each works, or is refused with what to do."""

import json

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn
from torch_geometric.data import Data, InMemoryDataset
from typer.testing import CliRunner

import advgym
from advgym.core.task import make_task
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.own import own_graph
from advgym.errors import AdvgymError, DataError

SIZE = 24


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("advgym.core.task._loaded", {})


def plain(**change):
    g = torch.Generator().manual_seed(2)
    upper = (torch.rand(SIZE, SIZE, generator=g) < 0.25).triu(1)
    edges = (upper | upper.T).nonzero().T
    x = (torch.rand(SIZE, 6, generator=g) < 0.4).float()
    return Data(**{"x": x, "edge_index": edges, "y": torch.arange(SIZE) % 2, "num_nodes": SIZE, **change})


def sparse(edges, layout):
    full = torch.zeros(SIZE, SIZE)
    full[edges[0], edges[1]] = 1
    return {"coo": full.to_sparse_coo, "csr": full.to_sparse_csr, "csc": full.to_sparse_csc}[layout]()


class One(InMemoryDataset):
    def __init__(self, *graphs):
        super().__init__()
        self.data, self.slices = self.collate(list(graphs))


def _adj(layout):
    data = plain()
    return Data(x=data.x, y=data.y, adj_t=sparse(data.edge_index, layout), num_nodes=SIZE)


SAME = {
    "as it is": plain,
    "sparse features": lambda: plain(x=plain().x.to_sparse()),
    "csr features": lambda: plain(x=plain().x.to_sparse_csr()),
    "float64": lambda: plain(x=plain().x.double()),
    "bfloat16": lambda: plain(x=plain().x.bfloat16()),
    "bool features": lambda: plain(x=plain().x.bool()),
    "numpy features": lambda: plain(x=plain().x.numpy()),
    "scipy features": lambda: plain(x=sp.csr_matrix(plain().x.numpy())),
    "adj_t coo": lambda: _adj("coo"),
    "adj_t csr": lambda: _adj("csr"),
    "adj_t csc": lambda: _adj("csc"),
    "sparse edge_index": lambda: plain(edge_index=sparse(plain().edge_index, "coo")),
    "int32 edges": lambda: plain(edge_index=plain().edge_index.int()),
    "numpy edges": lambda: plain(edge_index=plain().edge_index.numpy()),
    "a dataset of one graph": lambda: One(plain()),
    "weights of one": lambda: plain(edge_weight=torch.ones(plain().edge_index.shape[1])),
    "bool labels": lambda: plain(y=plain().y.bool()),
    "float labels": lambda: plain(y=plain().y.float()),
    "bfloat16 labels": lambda: plain(y=plain().y.bfloat16()),
    "numpy labels": lambda: plain(y=plain().y.numpy()),
    "a list of numpy labels": lambda: plain(y=list(np.int32(plain().y.numpy()))),
    "a column of labels": lambda: plain(y=plain().y.unsqueeze(1)),
}


@pytest.mark.parametrize("form", SAME)
def test_one_graph_in_many_forms(form):
    data, wanted = own_graph(SAME[form]()), own_graph(plain())
    assert data.digest() == wanted.digest() and data.graph.x.dtype == torch.float32


def test_class_words_are_names():
    words = ["cat" if v else "ant" for v in plain().y.tolist()]
    for y in (words, np.array(words)):
        data = own_graph(plain(y=y))
        assert data.class_names == ["ant", "cat"] and torch.equal(data.labels, plain().y)


REFUSED = {
    "two graphs": (lambda: One(plain(), plain()), r"dataset of 2 graphs.*dataset\[i\]"),
    "one-hot labels": (lambda: plain(y=torch.eye(2)[plain().y]), r"argmax\(1\)"),
    "fractions": (lambda: plain(y=plain().y + 0.5), r"label 0\.5: labels are whole numbers"),
    "nan labels": (lambda: plain(y=plain().y * torch.nan), "label nan"),
    "objects": (lambda: plain(y=np.array([object()] * SIZE)), "Python objects"),
    "weights": (lambda: plain(edge_weight=torch.rand(plain().edge_index.shape[1])), "weights and attributes"),
    "weighted adj_t": (lambda: Data(y=plain().y, adj_t=sparse(plain().edge_index, "csr") * 2), "weighted"),
    "complex": (lambda: plain(x=plain().x.cfloat()), "complex"),
    "no edges": (lambda: Data(x=plain().x, y=plain().y), "neither edge_index nor adj_t"),
    "ten splits": (lambda: plain(train_mask=torch.ones(SIZE, 10).bool()), "keep one split"),
    "a mask of numbers": (lambda: plain(train_mask=torch.arange(SIZE)), "other values than 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(form):
    make, words = REFUSED[form]
    with pytest.raises(DataError, match=words):
        own_graph(make())


def test_nodes_one_and_one_as_text_are_two():
    """networkx tells 1 from "1": targets and names did not."""
    graph = nx.Graph([(1, "1"), ("1", 2), (2, 3), (3, 1)])
    for node, label in ((1, 0), ("1", 1), (2, 0), (3, 1)):
        graph.nodes[node]["label"] = label
    data = own_graph(graph)
    assert data.graph.names == ["1", "'1'", "2", "3"]
    assert own_graph((graph, [1])).nodes["test"].tolist() == [0]
    assert own_graph((graph, ["1"])).nodes["test"].tolist() == [1]
    assert own_graph((graph, ["1", 1])).nodes["test"].tolist() == [1, 0]
    assert own_graph((graph, ["3"])).nodes["test"].tolist() == [3]  # by its text, where that is no other's
    mixed = graph.copy()
    mixed.nodes[2]["label"] = "0"
    with pytest.raises(DataError, match="numbers or words, not both"):
        own_graph(mixed)


# -- models ----------------------------------------------------------------------------------------------------------
class Conv(nn.Module):
    def __init__(self, features=6):
        super().__init__()
        from torch_geometric.nn import GCNConv

        self.conv = GCNConv(features, 2)

    def forward(self, x, edge_index, edge_weight=None):
        return self.conv(x, edge_index, edge_weight)


def _answers(how):
    torch.manual_seed(0)
    model = Conv()
    if how in ("float64", "bfloat16"):
        return model.to(getattr(torch, how))
    return {
        "module": model,
        "numpy": lambda x, e: model(x, e).detach().numpy(),
        "float16 numpy": lambda x, e: model(x, e).detach().numpy().astype(np.float16),
        "lists": lambda x, e: model(x, e).tolist(),
        "tuple": lambda x, e: (model(x, e), None),
        "logits": lambda x, e: type("Output", (), {"logits": model(x, e)})(),
    }[how]


@pytest.mark.parametrize("how", ["module", "float64", "bfloat16", "numpy", "float16 numpy", "lists", "tuple", "logits"])
@pytest.mark.parametrize("name", ["graph/edge", "graph/global", "graph/inject", "graph/rewire", "graph/feature"])
def test_models_of_any_dtype_and_answer(name, how):
    agent = "first-order" if how in ("module", "float64", "bfloat16") and name != "graph/rewire" else "random-search"
    result = advgym.attack(name, agent, samples=plain(), victim=_answers(how), episodes=2, queries=6)
    assert not any("crashed" in flag for flag in result.flags), result.flags


@pytest.mark.parametrize("name", ["graph/edge", "graph/global", "graph/inject", "graph/rewire", "graph/feature"])
def test_a_pyg_module_as_surrogate(name):
    torch.manual_seed(0)
    result = advgym.attack(
        name, "transfer", samples=plain(), victim=Conv(), surrogate=Conv(), knowledge="transfer", episodes=2, queries=6,
    )  # fmt: skip
    assert not any("crashed" in flag for flag in result.flags), result.flags


def test_a_dense_model_of_so_many_nodes_works_or_is_refused_by_name():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(6, 2)

        def forward(self, x, edge_index):
            full = torch.zeros(SIZE, SIZE)
            full[edge_index[0], edge_index[1]] = 1
            return self.lin(full @ x + x)

    result = advgym.attack("graph/edge", "greedy", samples=plain(), victim=Dense(), knowledge="score", episodes=3)
    assert result.attacked and not any("crashed" in f for f in result.flags)
    with pytest.raises(AdvgymError, match=r"victim 'own' fails on a graph of 29 nodes"):
        advgym.attack("graph/inject", "random-search", samples=plain(), victim=Dense(), episodes=1, queries=3)

    class Adjacency(nn.Module):  # takes a matrix
        def forward(self, x, adj):
            return adj @ x

    with pytest.raises(AdvgymError, match=r"edge_index int64 \(2, edges\)"):
        make_task("graph/edge", samples=plain(), victim=Adjacency())


# -- tasks of their own ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["graph/poison", "graph/inject", "graph/rewire", "graph/edge", "graph/global"])
def test_an_own_graph_is_poisoned_injected_and_rewired(name):
    few = {"fresh": 1, "queries": 3} if name == "graph/poison" else {"queries": 6}
    result = advgym.attack(name, "random-search", samples=plain(), episodes=6, **few)
    assert result.attacked and result.victim["name"] in ("own-gcn", "own-retrained")
    assert not any("crashed" in flag for flag in result.flags)


def test_poisoning_of_an_own_graph_by_meta_gradients():
    result = advgym.attack("graph/poison", "metattack", samples=plain(), episodes=1, queries=3, fresh=1)
    assert not any("crashed" in flag for flag in result.flags), result.flags
    with pytest.raises(AdvgymError, match="trains its victim anew for every query, and 'own' is trained already"):
        make_task("graph/poison", samples=plain(), victim=Conv())


# -- files -------------------------------------------------------------------------------------------------------------
def _write(kind, path):
    data = plain()
    edges, x, y = data.edge_index, data.x, data.y
    adjacency = sp.csr_matrix((np.ones(edges.shape[1]), edges.numpy()), (SIZE, SIZE))
    if kind == "graphml":
        graph = nx.Graph([(a, b) for a, b in edges.T.tolist() if a < b])
        graph.add_nodes_from(range(SIZE))
        for i in range(SIZE):
            graph.nodes[i].update(label=int(y[i]), x=" ".join(str(int(v)) for v in x[i]))
        path = path.with_suffix(".graphml")
        nx.write_graphml(graph, path)
    elif kind == "csr":
        attr, path = sp.csr_matrix(x.numpy()), path.with_suffix(".npz")
        parts = {f"{n}_{p}": getattr(m, p) for n, m in (("adj", adjacency), ("attr", attr))
                 for p in ("data", "indices", "indptr", "shape")}  # fmt: skip
        np.savez(path, labels=y.numpy(), **parts)
    elif kind == "scipy":
        other = _write("csr", path.with_name("clean"))
        sp.save_npz(path.with_suffix(".npz"), adjacency)
        return f"{path.with_suffix('.npz')}?labels={other}"
    elif kind in ("npz", "dense npz"):
        path = path.with_suffix(".npz")
        edge = {"adj": adjacency.toarray()} if kind == "dense npz" else {"edge_index": edges.numpy()}
        np.savez(path, x=x.numpy(), y=y.numpy(), **edge)
    elif kind == "pt":
        path = path.with_suffix(".pt")
        torch.save({"x": x, "edge_index": edges, "y": y}, path)
    elif kind == "safetensors":
        from safetensors.torch import save_file

        path = path.with_suffix(".safetensors")
        save_file({"x": x, "edge_index": edges.contiguous(), "y": y}, str(path))
    return str(path)


@pytest.mark.parametrize("kind", ["graphml", "csr", "scipy", "npz", "dense npz", "pt", "safetensors"])
def test_a_file_is_a_dataset(tmp_path, kind):
    name = _write(kind, tmp_path / "own")
    data, wanted = load_nodes(name), own_graph(plain())
    if kind != "graphml":  # whose nodes have an order of their own
        assert torch.equal(data.graph.pairs, wanted.graph.pairs) and torch.equal(data.graph.x, wanted.graph.x)
    assert len(data.graph.pairs) == len(wanted.graph.pairs) and data.classes == 2
    assert not set(data.nodes["train"].tolist()) & set(data.nodes["test"].tolist())
    assert "half of each class is for training" in data.notes


@pytest.mark.parametrize("kind", ["graphml", "csr", "scipy", "npz", "pt"])
def test_the_command_line_takes_files(tmp_path, kind):
    from advgym.cli.app import app

    name, out = _write(kind, tmp_path / "own"), tmp_path / "r.json"
    told = ["attack", "graph/edge", "--agent", "random-search", "--episodes", "2", "--set", "queries=4",
            "--set", f"dataset={name}", "--out", str(out)]  # fmt: skip
    found = CliRunner().invoke(app, told)
    assert found.exit_code == 0, found.output
    assert json.loads(out.read_bytes())["options"]["dataset"] == name
    assert CliRunner().invoke(app, ["verify", str(out)]).exit_code == 0


def test_splits_of_pro_gnn(tmp_path):
    name = _write("csr", tmp_path / "own")
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"idx_train": [0, 1, 2], "idx_val": [3], "idx_test": [4, 5]}))
    data = load_nodes(f"{name}?splits={splits}")
    assert {k: v.tolist() for k, v in data.nodes.items()} == {"train": [0, 1, 2], "val": [3], "test": [4, 5]}
    splits.write_text(json.dumps({"idx_train": [0], "idx_test": [99]}))
    with pytest.raises(DataError, match="not among the 24"):
        load_nodes(f"{name}?splits={splits}")


def test_files_that_would_run_code_are_not_opened(tmp_path):
    path = tmp_path / "data.pt"
    torch.save(plain(), path)
    with pytest.raises(DataError, match=r"without running what is in it.*save its tensors: torch\.save"):
        load_nodes(str(path))
    objects = tmp_path / "names.npz"
    np.savez(objects, x=np.array([{"a": 1}], dtype=object), edge_index=plain().edge_index.numpy(), y=np.zeros(SIZE))
    assert load_nodes(str(objects)).graph.x.shape == (SIZE, SIZE)  # the array of objects stayed shut
    alone = tmp_path / "adj.npz"
    sp.save_npz(alone, sp.eye(4, format="csr"))
    with pytest.raises(DataError, match=r"adjacency alone \(scipy\).*\?labels=cora\.npz"):
        load_nodes(str(alone))
    for name, words in (("x.bin", "cannot tell the format"), ("x.npz", "cannot read"), ("x.pt", "save its")):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match=words):
            load_nodes(str(tmp_path / name))
    with pytest.raises(AdvgymError, match=r"no such file or folder.*\.graphml"):
        make_task("graph/edge", dataset=str(tmp_path / "none.npz"))
    with pytest.raises(AdvgymError, match="unknown option of a graph's file 'label'"):
        load_nodes(_write("csr", tmp_path / "own") + "?label=x")


def test_what_reading_drops_is_said(tmp_path):
    """Loops, weights, directions and doubles went without a word."""
    matrix = sp.coo_matrix(([1.0, 1, 2, 1, 1], ([0, 1, 1, 2, 2], [1, 0, 2, 2, 3])), (4, 4))
    csr, attr = matrix.tocsr(), sp.csr_matrix(np.eye(4))
    parts = {f"{n}_{p}": getattr(m, p) for n, m in (("adj", csr), ("attr", attr))
             for p in ("data", "indices", "indptr", "shape")}  # fmt: skip
    np.savez(tmp_path / "own.npz", labels=np.array([0, 1, 0, 1]), **parts)
    data = load_nodes(str(tmp_path / "own.npz"))
    assert data.graph.pairs.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert data.notes[:3] == (
        "1 self-loops are dropped", "1 weights are dropped", "2 edges stored in one direction count as undirected",
    )  # fmt: skip
    bare = own_graph(Data(edge_index=plain().edge_index, y=plain().y, num_nodes=SIZE))
    assert bare.notes == ("nodes have no features: the identity stands for them",)
    assert own_graph(plain(x=torch.full((SIZE, 2), 0.1, dtype=torch.float64))).notes == (
        "features are rounded to float32",
    )
