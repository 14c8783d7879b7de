"""Whole graphs: the file format, dense models, flips and their ranking."""

import pytest
import torch

import advgym
from advgym.envs.graph.data.datasets import load_wholes, read_wholes
from advgym.envs.graph.perturb.dense import DenseRows, WholeBatch, randomise_dense
from advgym.envs.graph.victims.recipes import Whole
from advgym.errors import AdvgymError, DataError

TEXT = "2\n3 1\n0 1 1\n4 2 0 2\n0 1 1\n2 -1\n4 1 1\n4 1 0\n"


def _batch(edits=2):
    g = torch.Generator().manual_seed(0)
    count = torch.tensor([6, 4, 2])
    adjacency = torch.triu((torch.rand(3, 6, 6, generator=g) < 0.4).float(), 1)
    there = (torch.arange(6) < count.unsqueeze(1)).float()
    adjacency = (adjacency + adjacency.transpose(1, 2)) * there.unsqueeze(2) * there.unsqueeze(1)
    x = torch.eye(3)[torch.randint(0, 3, (3, 6), generator=g)] * there.unsqueeze(2)
    return WholeBatch(torch.arange(3), torch.tensor([0, 1, 0]), x, adjacency, count, edits)


def test_the_format_is_read(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(TEXT)
    data = read_wholes(path)
    assert data.x.shape == (2, 3, 2) and data.count.tolist() == [3, 2]
    assert data.labels.tolist() == [1, 0] and data.adjacency[0].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n2 0\n0 1 1\n0 0\n", r"graph 0: edge \(0, 1\) is stored in one direction"),
        ("1\n2 0\n0 1 0\n0 0\n", r"graph 0: edge \(0, 0\) is a self-loop"),
        ("1\n2 0\n0 1 5\n0 0\n", r"graph 0: edge \(0, 5\) names an unknown node"),
        ("1\n3 0\n0 0\n", "ends inside graph 0"),
        ("2\n1 0\n0 0\n", "not a file of graphs"),
        ("x\n", "not a file of graphs"),
        ("", "not a file of graphs"),
    ],
)
def test_bad_files_are_named(tmp_path, text, words):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_wholes(path)
    with pytest.raises(DataError, match="cannot read"):
        read_wholes(tmp_path / "none.txt")
    with pytest.raises(AdvgymError, match="unknown dataset"):
        load_wholes("mutagg")


def test_flips_and_masks():
    batch = _batch()
    assert batch.limit.tolist() == [2, 2, 1]
    site = torch.arange(6)
    for i in range(3):
        rows = torch.full((6,), i)
        grid = batch.choice_mask(site, rows)
        assert torch.equal(grid, batch.mask()[i])
        assert torch.equal(grid.any(1), batch.site_mask()[i])
    form = torch.tensor([[[0, 1], [2, 5]], [[0, 3], [-1, -1]], [[0, 1], [-1, -1]]])
    x = batch.inputs(form)
    assert torch.equal(x.adjacency, x.adjacency.transpose(1, 2))
    changed = (x.adjacency != batch.adjacency).triu(1).nonzero()
    assert changed.tolist() == [[0, 0, 1], [0, 2, 5], [1, 0, 3], [2, 0, 1]]
    half = batch.relaxed(form, torch.full((3, 2), 0.5)).adjacency
    assert bool((half[0, 0, 1] == 0.5) & (half[0, 5, 2] == 0.5))
    assert bool(batch.check(batch.random(0)).all())


@pytest.mark.parametrize("kind", ["gin", "gcn"])
def test_models_do_not_see_padding_or_node_order(kind):
    batch = _batch()
    model = Whole(3, 2, kind).eval()
    rows = batch.inputs(batch.null())
    wide = DenseRows(
        torch.nn.functional.pad(rows.x, (0, 0, 0, 2)),
        torch.nn.functional.pad(rows.adjacency, (0, 2, 0, 2)),
        torch.nn.functional.pad(rows.mask, (0, 2)),
    )
    torch.testing.assert_close(model(rows), model(wide))
    order = torch.tensor([3, 1, 0, 2, 5, 4])
    turned = DenseRows(rows.x[:, order], rows.adjacency[:, order][:, :, order], rows.mask[:, order])
    torch.testing.assert_close(model(rows), model(turned))


def test_ranking_is_the_first_order():
    batch, model = _batch(), Whole(3, 2, "gin").eval().requires_grad_(False)
    form = torch.tensor([[[0, 1], [-1, -1]]] * 3)
    x, leaves = batch.leaves(form)
    slope = torch.autograd.grad(model(x)[:, 0].sum(), leaves)
    edits, gain = batch.rank_by(form, list(slope), 20)
    assert (edits[:, :, 0] >= 0).sum(1).tolist() == [14, 5, 0]  # all pairs but the one the form holds
    w = torch.tensor([[1.0, 0.0]] * 3, requires_grad=True)
    for e in range(5):
        more = form.clone()
        more[:2, 1] = edits[:2, e]
        (g,) = torch.autograd.grad(model(batch.relaxed(more, w))[:, 0].sum(), w)
        torch.testing.assert_close(gain[:2, e], g[:2, 1], atol=1e-6, rtol=1e-4)


def test_random_variation_is_keyed_and_symmetric():
    batch = _batch()
    rows = batch.inputs(batch.null())
    keys = torch.tensor([5, 6, 7])
    once = randomise_dense(rows, 0.3, keys)
    assert torch.equal(once.adjacency, once.adjacency.transpose(1, 2))
    assert torch.equal(once.adjacency[1:2], randomise_dense(rows.take(torch.tensor([1])), 0.3, keys[1:2]).adjacency)
    assert torch.equal(randomise_dense(rows, 0.0, keys).adjacency, rows.adjacency)
    assert not (once.adjacency.diagonal(dim1=1, dim2=2)).any() and not once.adjacency[1, 4:].any()


def test_pruning_keeps_edges_between_like_nodes():
    batch = _batch()
    rows = batch.inputs(batch.null())
    pruned = rows.prune(0.5)
    same = rows.x @ rows.x.transpose(1, 2)
    assert torch.equal(pruned.adjacency, rows.adjacency * same)


@pytest.mark.realdata
def test_mutag(data_dir):
    task = advgym.make_task("graph/mutag-edge")
    assert sum(task.sizes.values()) == 188
    batch = task.samples("test", list(range(task.sizes["test"])))
    right = (task.victim(batch.inputs(batch.null())).argmax(1) == batch.labels).float().mean()
    assert float(right) >= 0.75
    form = batch.look(batch.random(0)).form
    assert task.line(batch, 0, form[0]).startswith("graph 0 (")
    html = task.show(batch, 0, form[0], torch.tensor(0), torch.tensor(1))
    assert html.count("<circle") >= int(batch.count[0])
    mixed = batch.put(torch.tensor([0]), task.samples("test", [9]))
    assert torch.equal(mixed.adjacency[0], batch.adjacency[9])
