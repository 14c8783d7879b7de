"""Rows that are one answer stay together when a model raises, or takes few at once."""

import torch

from advgym import Victim, make_task
from advgym.core.asking import pieces


class Whole:
    """Rows of three, each three one answer."""

    together = 3

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def take(self, index):
        assert len(index) % 3 == 0 and bool((index.view(-1, 3) % 3 == torch.arange(3)).all()), "torn apart"
        return Whole(self.rows[index])


def test_one_that_raises_is_left_alone_whole():
    def answer(x, keys):
        if bool((x.rows == 7).any()):
            raise RuntimeError("seven")
        return x.rows.float().unsqueeze(1)

    found = pieces(answer, Whole(torch.arange(12)), None)
    flat = [row for part in found for row in (part if isinstance(part, torch.Tensor) else [part])]
    assert len(flat) == 12
    assert [i for i, row in enumerate(flat) if isinstance(row, RuntimeError)] == [6, 7, 8]
    assert [int(row) for i, row in enumerate(flat) if i not in (6, 7, 8)] == [0, 1, 2, 3, 4, 5, 9, 10, 11]


def test_a_global_graph_that_raises_costs_its_lane_alone():
    """Before, its rows were torn apart, and the error was hidden by another."""
    task = make_task("graph/karate-global", knowledge="score", queries=6)
    plain = task.victim

    def fails(x):
        if bool((x.flips == 33).any()):
            raise RuntimeError("out of luck")
        return plain.model(x)

    batch, victim = task.samples("test", [0, 1, 2]), Victim(fails, name="sometimes", access="scores")
    p = batch.null()
    p[0, 0], p[2, 0] = torch.tensor([2, 5]), torch.tensor([4, 9])
    fine = batch.inputs(batch.look(p).form)
    p[1, 0] = torch.tensor([1, 33])
    scores = victim(batch.inputs(batch.look(p).form)).view(3, 15, -1)
    assert torch.isnan(scores).flatten(1).all(1).tolist() == [False, True, False] and victim.why.endswith("out of luck")
    assert torch.allclose(scores[[0, 2]], plain(fine).view(3, 15, -1)[[0, 2]], atol=1e-5)


def test_chunks_keep_graphs_whole():
    task = make_task("graph/karate-global", knowledge="score", queries=6)
    batch = task.samples("test", [0, 1, 2])
    x = batch.inputs(batch.look(batch.random(1)).form)
    few = Victim(task.victim.model, name="few", access="scores", chunk=16)
    assert torch.allclose(few(x), task.victim(x), atol=1e-5)
