"""What is exported is read again: the victim says to the files what the index says."""

import csv

import numpy as np
import pytest
import torch

import advgym
from advgym import AdvgymError, load_graph, make_task
from advgym.cli.app import main
from advgym.errors import DataError

torch.set_num_threads(1)


def index(folder):
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def answers(victim, x):
    with torch.no_grad():
        return [str(v) for v in victim(x).argmax(1).tolist()]


def test_images_come_back_exactly_and_as_png(tmp_path):
    from PIL import Image

    result = advgym.attack("image/digits-linf", "pgd", episodes=12)
    folder, victim = advgym.export(result, tmp_path / "out"), result.made.victim
    rows, held = index(folder), np.load(folder / "images.npz", allow_pickle=False)
    assert held["sample"].tolist() == [s.id for s in result.samples] == [int(r["sample"]) for r in rows]
    assert answers(victim, torch.from_numpy(held["adversarial"])) == [r["answer"] for r in rows]
    assert answers(victim, torch.from_numpy(held["clean"])) == [r["clean_answer"] for r in rows]
    png = [np.asarray(Image.open(folder / r["adversarial"]), np.float32)[None] / 255 for r in rows]
    assert answers(victim, torch.from_numpy(np.stack(png))) == [r["png_answer"] for r in rows]
    assert {r["png_exact"] for r in rows} == {"False"}  # 16 levels are no 255
    assert [r["success"] for r in rows] == [str(s.success) for s in result.samples]
    assert not advgym.verify(folder / "result.json")


def test_bytes_are_exact_in_png(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 2))
    x = torch.rand(6, 3, 3, 3, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    samples = (x.numpy(), model(x).argmax(1).numpy())
    result = advgym.attack("image/linf", "pgd", victim=model, samples=samples, eps="32/255", queries=20)
    rows = index(advgym.export(result, tmp_path / "out", only=True))
    assert len(rows) == sum(s.success for s in result.samples) > 0
    assert all(r["png_exact"] == "True" and r["png_success"] == "True" for r in rows)


def test_texts_stand_in_the_index(tmp_path):
    score = lambda texts: [[t.count("good"), t.count("bad") + 0.5] for t in texts]  # noqa: E731
    samples = [('a "good", film\nindeed', 0), ("a bad film", 1), ("a good plot", 0)]
    result = advgym.attack("text/wordswap", "greedy", victim=score, samples=samples, candidates={"good": ["fine"]})
    rows = index(advgym.export(result, tmp_path / "out"))
    by_id = {int(r["sample"]): r for r in rows}
    assert by_id[0]["clean"] == samples[0][0] and by_id[0]["adversarial"] == 'a "fine", film\nindeed'
    for r in rows:
        said = score([r["adversarial"]])[0]
        assert str(int(said[1] > said[0])) == r["answer"]


def test_recordings_come_back_as_they_were_heard(tmp_path):
    import soundfile

    result = advgym.attack("speech/synth-keyword", "pgd", episodes=4, queries=10)
    folder, task = advgym.export(result, tmp_path / "out"), result.made
    for r in index(folder):
        wave, rate = soundfile.read(folder / r["adversarial"], dtype="float32")
        full = task.samples("test", [int(r["sample"])]).x.shape[1]
        x = torch.nn.functional.pad(torch.from_numpy(wave), (0, full - len(wave)))[None]
        with torch.no_grad():
            said = task.goal.describe(task.victim(x).argmax(1)[0])
        assert said == r["answer"] and rate == int(r["rate"])


@pytest.mark.parametrize("form", ["npz", "graphml", "json"])
@pytest.mark.parametrize("name", ["graph/karate-edge", "graph/sbm-feature"])
def test_graphs_come_back_as_pyg_and_networkx(tmp_path, name, form):
    result = advgym.attack(name, "greedy", episodes=3, queries=20)
    folder, task = advgym.export(result, tmp_path / "out", form=form), result.made
    batch = task.samples("test", [s.id for s in result.samples])
    rows = batch.inputs(batch.look(batch.load([s.perturbation for s in result.samples])).form)
    with torch.no_grad():
        want = task.victim(rows)
    for i, r in enumerate(index(folder)):
        data = load_graph(folder / r["adversarial"])
        assert data.asked.tolist() == [int(r["asked"])] and data.is_undirected() and not data.has_self_loops()
        assert int(data.y[data.asked[0]]) == int(r["label"])
        clean = load_graph(folder / r["clean"])
        assert torch.equal(clean.x, batch.graph.x)
        # The very graph as the caller's own: what the victim says to it clean is what it said to the perturbed one.
        flips = rows.flips[i][rows.flips[i][:, 0] >= 0]
        assert abs(data.num_edges - clean.num_edges) <= 2 * len(flips)
        raw = type(batch.graph)(data.num_nodes, data.edge_index.t()[data.edge_index[0] < data.edge_index[1]], data.x,
                                row_norm=batch.graph.row_norm)  # fmt: skip
        one = type(rows)(raw, data.asked, torch.full((1, 0, 2), -1))
        with torch.no_grad():
            assert torch.allclose(task.victim(one)[0], want[i], atol=1e-4)
        graph = load_graph(folder / r["adversarial"], "networkx")
        assert graph.number_of_edges() * 2 == data.num_edges and sum("label" in d for _, d in graph.nodes.data()) == 1


def test_an_exported_graph_is_a_data_set_of_ours(tmp_path):
    result = advgym.attack("graph/karate-global", "greedy", episodes=1, queries=10)
    folder = advgym.export(result, tmp_path / "out")
    row = index(folder)[0]
    from advgym.envs.graph.data.interchange import read_npz

    size, pairs, x, _ = read_npz(folder / row["adversarial"])
    data = load_graph(folder / row["adversarial"])
    assert size == data.num_nodes and 2 * len(pairs) == data.num_edges and torch.equal(x, data.x)
    with pytest.raises(DataError, match="no graph"):
        load_graph(folder / "missing.npz") if (folder / "missing.npz").exists() else load_graph(_broken(tmp_path))
    with pytest.raises(AdvgymError, match="kind is one of"):
        load_graph(folder / row["clean"], "dgl")


def _broken(folder):
    np.savez(folder / "broken.npz", a=np.zeros(2))
    return folder / "broken.npz"


@pytest.mark.parametrize(
    "name", ["graph/karate-inject", "graph/sbm-continuous", "image/digits-pixel", "graph/karate-rewire"]
)
def test_other_perturbations_are_handed_back_too(tmp_path, name):
    result = advgym.attack(name, "noise", episodes=2, queries=6)
    rows = index(advgym.export(result, tmp_path / "out"))
    assert len(rows) == len(result.samples) and all((tmp_path / "out" / r["adversarial"]).is_file() for r in rows)


def test_the_command_and_its_refusals(tmp_path, capsys):
    file = tmp_path / "r.json"
    advgym.attack("text/synth-wordswap", "greedy", episodes=3).save(file)
    assert main(["export", str(file), str(tmp_path / "out"), "--successes"]) == 0
    assert main(["export", str(file), str(tmp_path / "out")]) == 2
    assert "new or empty" in capsys.readouterr().err
    assert main(["export", str(file), str(tmp_path / "hub"), "--hub"]) == 0
    assert (tmp_path / "hub" / "data" / "test.parquet").is_file()
    assert main(["export", str(file), str(tmp_path / "other"), "--format", "gml"]) == 2
    own = make_task("text/wordswap", victim=lambda t: [[1.0, 0.0]] * len(t), samples=[("a film", 0)])
    advgym.attack(own, "greedy").save(file)
    assert main(["export", str(file), str(tmp_path / "own")]) == 2
    assert "objects of the caller's own" in capsys.readouterr().err
