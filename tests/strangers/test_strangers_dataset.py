"""`dataset=` in place of the row's data: victims and surrogates follow; loaders keep values or say what not."""

import json
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import advgym
from advgym.core.task import make_task
from advgym.envs.graph.data.datasets import load_nodes, read_wholes
from advgym.errors import AdvgymError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("advgym.core.task._loaded", {})


def planetoid_folder(folder, name, *, binary, nodes=560, width=12, classes=3, seed=0):
    """Raw Planetoid files of a random graph: 15 training nodes, 500 to validate (PyG reads no fewer), 15 test nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    g = np.random.default_rng(seed)
    y = np.eye(classes)[np.arange(nodes) % classes]
    x = (g.random((nodes, width)) < 0.3).astype(np.float64)
    x[np.arange(nodes), np.arange(nodes) % classes] = 1
    if not binary:
        x *= g.uniform(0.01, 0.4, x.shape)  # TF-IDF, as PubMed's
    test = list(range(nodes - 15, nodes))
    edges = {i: sorted({int(v) for v in g.integers(0, nodes, 3)} - {i}) for i in range(nodes)}
    for i in list(edges):
        for j in edges[i]:
            edges[j] = sorted({*edges[j], i})
    parts = {"x": sp.csr_matrix(x[:15]), "y": y[:15], "allx": sp.csr_matrix(x[:-15]), "ally": y[:-15],
             "tx": sp.csr_matrix(x[-15:]), "ty": y[-15:], "graph": edges}  # fmt: skip
    for key, value in parts.items():
        (folder / f"ind.{name}.{key}").write_bytes(pickle.dumps(value))
    (folder / f"ind.{name}.test.index").write_text("\n".join(map(str, test)))
    return torch.from_numpy(x).float()


def test_weighted_features_stay_what_they_are(tmp_path):
    """PubMed's TF-IDF became zeros and ones, then rows were divided by their sums."""
    x = planetoid_folder(tmp_path / "PubMed" / "raw", "pubmed", binary=False)
    data = load_nodes(str(tmp_path / "PubMed"))
    torch.testing.assert_close(data.graph.x, x, rtol=0, atol=0)
    torch.testing.assert_close(data.graph.inputs_x(), x, rtol=0, atol=0)
    assert data.notes == ()
    with pytest.raises(AdvgymError, match="feature flips need features of 0 and 1"):
        make_task("graph/feature", dataset=str(tmp_path / "PubMed"))


def test_bags_of_words_are_divided_by_their_sums_and_that_is_said(tmp_path):
    x = planetoid_folder(tmp_path / "raw", "seer", binary=True)
    task = make_task("graph/cora-edge", dataset=str(tmp_path))
    graph = task.samples("test", [0]).graph
    torch.testing.assert_close(graph.x, x, rtol=0, atol=0)
    torch.testing.assert_close(graph.inputs_x(), x / x.sum(1, keepdim=True).clamp_min(1))
    assert any("divided by its sum" in note for note in task.notes)


@pytest.mark.realdata
def test_cora_is_as_it_was(data_dir):
    data, folder = load_nodes("cora"), load_nodes(str(data_dir / "graph" / "planetoid" / "Cora"))
    assert data.graph.row_norm and bool(((data.graph.x == 0) | (data.graph.x == 1)).all())
    assert data.digest() == folder.digest()


def test_attributes_and_graphs_that_are_left_out_are_named(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("2\n2 0\n0 1 1 0.5\n1 1 0 0.5\n3 1\n0 1 1\n0 2 0 2\n0 1 1\n")
    data = read_wholes(path, largest=2)
    assert len(data.labels) == 1
    assert data.notes == (
        "attributes behind the neighbours of a node are not read", "1 graphs have more than 2 nodes: left out",
    )  # fmt: skip


@pytest.mark.parametrize("given", [{}, {"victim": "cora-sgc"}, {"victim": "cora-sage"}])
@pytest.mark.parametrize("name", ["graph/cora-edge", "graph/cora-global", "graph/cora-rewire", "graph/cora-inject"])
def test_a_graph_takes_its_victim_and_surrogate_with_it(tmp_path, name, given):
    """graph/cora-edge on another folder trained on Cora and ended in a shape error."""
    planetoid_folder(tmp_path / "CiteSeer" / "raw", "seer", binary=True)
    task = make_task(name, dataset=str(tmp_path / "CiteSeer"), knowledge="transfer", **given)
    model = given.get("victim", "cora-gcn").removeprefix("cora-")
    assert task.victim.name == f"citeseer-{model}" and task.surrogate.name == "citeseer-sgc"
    for victim in (task.victim, task.surrogate):
        recipe = victim.card["recipe"]
        assert recipe["dataset"] == str(tmp_path / "CiteSeer") and recipe["content"]
    env = advgym.make(name, 2, dataset=str(tmp_path / "CiteSeer"), knowledge="transfer", queries=2, **given)
    env.reset(seed=0)
    env.step(env.threat.random(0))


def test_poisoning_takes_its_runs_with_it(tmp_path):
    planetoid_folder(tmp_path / "CiteSeer" / "raw", "seer", binary=True)
    task = make_task("graph/cora-poison", dataset=str(tmp_path / "CiteSeer"), knowledge="transfer", fresh=1)
    assert (task.victim.name, task.surrogate.name) == ("citeseer-retrained", "citeseer-unrolled")


def test_an_own_graph_on_a_named_task_has_a_surrogate_of_its_own(tmp_path):
    planetoid_folder(tmp_path / "raw", "own", binary=True)
    task = make_task("graph/cora-edge", samples=load_nodes(str(tmp_path)), knowledge="transfer")
    assert (task.victim.name, task.surrogate.name) == ("own-gcn", "own-sgc")


def test_a_victim_of_another_graph_is_refused_by_name():
    with pytest.raises(AdvgymError, match=r"'sbm-gcn' fails on this graph of 34 nodes.*another graph"):
        make_task("graph/karate-edge", victim="sbm-gcn")


def test_results_carry_the_data_and_its_victim(tmp_path):
    planetoid_folder(tmp_path / "CiteSeer" / "raw", "seer", binary=True)
    out = tmp_path / "r.json"
    result = advgym.attack(
        "graph/cora-edge", "random-search", dataset=str(tmp_path / "CiteSeer"), episodes=2, queries=3,
        knowledge="score", out=out,
    )  # fmt: skip
    held = json.loads(out.read_bytes())
    assert result.victim["name"] == held["victim"]["name"] == "citeseer-gcn"
    assert "divided by its sum" in held["victim"]["data_notes"][0]
    assert held["options"]["dataset"] == str(tmp_path / "CiteSeer")
    assert advgym.verify(out) == []


def _idx(folder, size=6, count=20, classes=3):
    folder.mkdir(exist_ok=True)
    for part in ("train", "t10k"):
        labels = np.arange(count, dtype=np.uint8) % classes
        pixels = np.zeros((count, size, size), np.uint8)
        pixels[np.arange(count), labels] = 200  # a bright row tells the class
        for stem, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
            (folder / f"{part}-{stem}-ubyte").write_bytes(head + array.tobytes())


def test_images_take_their_victim_and_surrogate_with_them(tmp_path):
    _idx(tmp_path / "own")
    task = make_task("image/digits-linf", dataset=str(tmp_path / "own"), knowledge="transfer")
    assert (task.victim.name, task.surrogate.name) == ("own-cnn", "own-mlp")
    assert task.victim.card["shape"] == task.surrogate.card["shape"] == [1, 6, 6]
    drawn = make_task("image/digits-linf", dataset="digits#3:4", knowledge="transfer")  # new samples, the same data
    assert (drawn.victim.name, drawn.surrogate.name) == ("digits-cnn", "digits-mlp")


def test_texts_take_their_victim_and_surrogate_with_them(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for split in ("train", "test"):
        rows = [json.dumps({"text": f"a {'good' if i % 2 else 'bad'} film", "label": i % 2}) for i in range(40)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    task = make_task(
        "text/mr-wordswap", dataset=str(folder), knowledge="transfer", candidates={"good": ["fine"]}, victim="mr-bag"
    )
    assert (task.victim.name, task.surrogate.name) == ("own-bag", "own-bag")
    assert task.victim.card["recipe"]["corpus"] == str(folder)


def test_drawn_graphs_take_the_surrogate_with_them():
    task = make_task("graph/sbm-edge", dataset="sbm#5:20", knowledge="transfer")
    assert task.victim.name == "sbm-gcn" and task.surrogate.card["recipe"]["dataset"] == "sbm#5:20"
    assert task.victim.card["recipe"]["dataset"] == "sbm#5:20"


def test_what_a_lattice_moves_is_said():
    """Pixels between two bytes and samples between two 16-bit steps were rounded without a word."""

    def score(x):
        return torch.stack([x.flatten(1).mean(1), 1 - x.flatten(1).mean(1)], 1)

    off, on = ([(torch.full((1, 2, 2), v), 0)] for v in (0.7501, 191 / 255))
    said = make_task("image/linf", victim=score, samples=off).notes
    assert said == ("pixels are rounded to k/255: they move by up to 0.0011",)
    assert make_task("image/linf", victim=score, samples=on).notes == ()
    assert make_task("image/linf", victim=score, samples=off, lattice=0).notes == ()
    assert make_task("image/digits-linf").notes == ()
    assert make_task("image/digits-linf", lattice=255).notes[0].startswith("pixels are rounded to k/255")
    waves = [(np.full(400, 0.1), 0)], [(np.full(400, 0.125), 0)], [(np.full(400, 99, np.int16), 0)]
    assert [make_task("speech/keyword", victim=score, samples=w).notes for w in waves] == [
        ("waveforms are rounded to 16 bits",), (), (),
    ]  # fmt: skip
