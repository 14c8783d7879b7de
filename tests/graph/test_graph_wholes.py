"""Files of whole graphs: attributes behind the neighbours, a bound on the size, PROTEINS."""

import pytest
import torch

import advgym
from advgym.envs.graph.data.datasets import load_wholes, read_wholes
from advgym.errors import DataError

TWO = "2\n2 0\n0 1 1 0.5 -3\n1 1 0 1.5 2\n3 1\n0 1 1\n0 2 0 2 7.25\n2 1 1\n"


def test_attributes_are_not_read_and_large_graphs_left_out(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(TWO)
    data = read_wholes(path)
    assert data.count.tolist() == [2, 3] and data.labels.tolist() == [0, 1] and data.x.shape == (2, 3, 3)
    assert data.adjacency[0].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert data.adjacency[1].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    few = read_wholes(path, 2)
    assert few.count.tolist() == [2] and few.x.shape == (1, 2, 2) and few.classes == 1
    with pytest.raises(DataError, match="no graph of at most 1 nodes"):
        read_wholes(path, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TWO.replace("0 1 1 0.5 -3", "0 1 x"), "is not a file of graphs"),
        (TWO.replace("0 1 1 0.5 -3", "0 1 7"), "unknown node"),
        (TWO.replace("3 1\n", "9 1\n"), "ends inside graph 1"),
        ("0\n", "holds no graph"),
    ],
)
def test_other_files_say_what_is_wrong(tmp_path, text, words):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_wholes(path)


@pytest.mark.realdata
def test_proteins(data_dir):
    data = load_wholes("proteins")
    assert len(data.labels) == 1070 and data.x.shape[1:] == (126, 3) and data.classes == 2
    assert torch.bincount(data.labels).tolist() == [623, 447] and int(data.count.sum()) < 1113 * 39.06
    assert bool((data.adjacency == data.adjacency.transpose(1, 2)).all())
    assert len(load_wholes("mutag").labels) == 188
    task = advgym.make_task("graph/proteins-edge")
    assert task.sizes == {"train": 857, "test": 213} and task.victim.card["clean_accuracy"] > 0.7
