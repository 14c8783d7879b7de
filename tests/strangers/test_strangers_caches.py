"""Trained victims are kept by all that they depend on: data by their content and split, never by name or path alone."""

import dataclasses
import shutil

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

import advgym
from advgym.core.task import load_victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.data.own import own_graph
from advgym.envs.graph.victims.recipes import node_victim
from advgym.envs.graph.victims.zoo import zoo_victim
from advgym.lib import weights
from advgym.lib.content import digest
from advgym.lib.weights import weights_hash


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("advgym.core.task._loaded", {})
    return tmp_path / "cache"


def _swapped(data):
    return dataclasses.replace(data, nodes={"train": data.nodes["test"], "test": data.nodes["train"]})


MAKERS = {
    "node": lambda data: node_victim("v", dataset="karate", data=data, epochs=4),
    "zoo": lambda data: zoo_victim("v", dataset="karate", model="sage", data=data, epochs=4),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("change", ["split", "features", "labels", "edges", "row_norm"])
def test_a_victim_is_of_one_split_and_one_content(make, change):
    """Swapped masks gave the same weights, trained on the nodes that were then attacked."""
    data = load_nodes("karate")
    graph = data.graph
    other = {
        "split": lambda: _swapped(data),
        "features": lambda: dataclasses.replace(data, graph=_graph(graph, x=graph.x.roll(1, 1))),
        "labels": lambda: dataclasses.replace(data, labels=data.labels.roll(1)),
        "edges": lambda: dataclasses.replace(data, graph=_graph(graph, pairs=graph.pairs[1:])),
        "row_norm": lambda: dataclasses.replace(data, graph=_graph(graph, row_norm=True)),
    }[change]()
    first, second, again = MAKERS[make](data), MAKERS[make](other), MAKERS[make](data)
    assert weights_hash(first.module) == weights_hash(again.module)
    assert first.card["recipe"]["content"] != second.card["recipe"]["content"]
    if change != "row_norm":  # rows of the identity sum to one
        assert weights_hash(first.module) != weights_hash(second.module)


def _graph(graph, **change):
    public = {**graph.public(), **change}
    return type(graph)(public.pop("size"), public.pop("pairs"), public.pop("x"), **public)


def test_targets_leave_the_training_of_an_own_victim(cache):
    """`samples=(graph, targets)`: other targets, other training nodes, another victim."""
    club = nx.Graph(list(nx.karate_club_graph().edges))
    nx.set_node_attributes(club, {n: int(n > 16) for n in club}, "label")
    found = [advgym.make_task("graph/edge", samples=(club, aims)) for aims in ([0, 33], [5, 8], [0, 33])]
    files = list(cache.rglob("own-gcn-*.safetensors"))
    assert len(files) == 2
    assert found[0].victim.card["recipe"] == found[2].victim.card["recipe"] != found[1].victim.card["recipe"]
    data = own_graph((club, [0, 33]))
    assert [data.graph.names[i] for i in data.nodes["test"]] == ["0", "33"]


def _npz(path, seed):
    g = np.random.default_rng(seed)
    edge = np.triu(g.random((24, 24)) < 0.2, 1)
    np.savez(path, edge_index=np.argwhere(edge | edge.T).T, x=np.eye(24, dtype=np.float32), y=np.arange(24) % 2)


def test_a_file_that_changed_is_another_dataset(tmp_path):
    """One process or two: the path alone names nothing."""
    path = tmp_path / "own.npz"
    _npz(path, 0)
    first, data = load_victim("karate-gcn", dataset=str(path)), load_nodes(str(path))
    _npz(path, 1)
    second = load_victim("karate-gcn", dataset=str(path))
    assert load_nodes(str(path)).digest() != data.digest()
    assert first.card["recipe"]["content"] != second.card["recipe"]["content"]
    assert weights_hash(first.module) != weights_hash(second.module)


def _idx(folder, seed, size=6):
    folder.mkdir(exist_ok=True)
    g = np.random.default_rng(seed)
    for part in ("train", "t10k"):
        pixels, labels = g.integers(0, 256, (20, size, size), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 3
        for stem, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
            (folder / f"{part}-{stem}-ubyte").write_bytes(head + array.tobytes())


def test_images_of_a_changed_folder(tmp_path):
    folder = tmp_path / "own"
    _idx(folder, 0)
    first = load_victim("digits-mlp", dataset=str(folder), epochs=1)
    _idx(folder, 1)
    second = load_victim("digits-mlp", dataset=str(folder), epochs=1)
    assert first.name == "own-mlp" and first.card["shape"] == [1, 6, 6]
    assert weights_hash(first.module) != weights_hash(second.module)


@pytest.mark.realdata
def test_recordings_of_a_changed_folder(tmp_path, data_dir):
    folder, source = tmp_path / "own", data_dir / "speech" / "fsdd"
    folder.mkdir()
    for name in ("0_george_0", "1_george_1", "0_george_7", "1_george_8", "2_george_9"):
        shutil.copy(source / f"{name}.wav", folder)
    first = load_victim("fsdd-keyword-m5", dataset=str(folder), epochs=1)
    shutil.copy(source / "3_george_9.wav", folder / "2_george_9.wav")
    second = load_victim("fsdd-keyword-m5", dataset=str(folder), epochs=1)
    assert first.card["recipe"]["content"] != second.card["recipe"]["content"]
    assert weights_hash(first.module) != weights_hash(second.module)


def _reviews(folder, word):
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        rows = [f'{{"text": "a {word if i % 2 else "bad"} film {i}", "label": {i % 2}}}' for i in range(12)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))


def test_texts_of_a_changed_folder(tmp_path):
    folder = tmp_path / "own"
    _reviews(folder, "good")
    first = load_victim("mr-bag", dataset=str(folder), epochs=1)
    _reviews(folder, "able")
    second = load_victim("mr-bag", dataset=str(folder), epochs=1)
    assert first.name == "own-bag" and first.card["recipe"]["digest"] != second.card["recipe"]["digest"]
    assert weights_hash(first.module) != weights_hash(second.module)


def test_adversarial_training_is_of_its_samples():
    """Two sets of own training images, as many each, and one victim: two defenses, whatever is attacked."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    sets = [[(torch.rand(1, 2, 2), i % 2) for i in range(6)] for _ in range(2)]
    settings = ("adversarial-training", {"epochs": 1, "queries": 4})
    given = {"victim": net, "samples": [(torch.rand(1, 2, 2), 0)], "defenses": [settings]}
    found = [advgym.make_task("image/linf", train=s, **given) for s in (*sets, sets[0])]
    hashes = [weights_hash(t.victim.module) for t in found]
    assert hashes[0] == hashes[2] != hashes[1]


def test_what_a_recipe_holds_counts_by_content():
    """Text of a long tensor leaves out its middle."""
    a, b = torch.zeros(5000), torch.zeros(5000)
    b[2500] = 1
    assert weights.fingerprint({"x": a}) != weights.fingerprint({"x": b})
    assert digest(a) != digest(b) and digest(a) != digest(a.double()) and digest(a) != digest(a.view(50, 100))
    assert digest(np.zeros(3)) == digest(np.zeros(3)) != digest(np.zeros(3, np.float32))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(1) != digest("1") and digest([1, [2]]) != digest([[1], 2])


def test_the_default_dtype_is_part_of_a_recipe():
    def load():
        return weights.load_or_train("v", lambda: nn.Linear(2, 2), lambda m: {}, recipe={"seed": 0})[0]

    assert load().weight.dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert load().weight.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert load().weight.dtype == torch.float32


def test_weights_of_any_dtype_have_a_hash():
    """numpy has no bfloat16: naming the victim in a result file ended in a TypeError."""
    module = nn.Linear(2, 2).to(torch.bfloat16)
    assert len(weights_hash(module)) == 64
