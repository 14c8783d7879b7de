"""Victims that write into their inputs, are in training mode, raise on an input, or have their classes mixed up."""

import numpy as np
import pytest
import torch
from torch import nn

import advgym
from advgym import Victim, VictimError
from advgym.core.asking import passing, pieces
from advgym.core.task import load_victim, make_task
from advgym.judge.results import SILENT

DIGITS = {"eps": "3/16", "episodes": 24, "lanes": 8}


def digits():
    return load_victim(make_task("image/digits-linf").victim.name).model


def plain(x):
    return digits()(x)


# -- 2: writing into the input ------------------------------------------------------------------------------------
class Writes(nn.Module):
    """Normalises in place, and back: what a reader of the paper would call preprocessing."""

    def __init__(self):
        super().__init__()
        self.inner = digits()

    def forward(self, x):
        x.sub_(0.5).div_(0.25)
        return self.inner(x * 0.25 + 0.5)


def writes_numpy(x):
    a = x.numpy()
    a -= 0.5
    return digits()(torch.from_numpy(a + 0.5)).numpy()


@pytest.mark.parametrize(
    ("victim", "agent"),
    [(Writes(), "pgd"), (Writes(), "fgsm"), (Victim(Writes(), access="scores"), "square"),
     (Victim(writes_numpy, access="scores"), "square"), (Victim(writes_numpy, access="scores"), "random-search")],
)  # fmt: skip
def test_a_victim_that_writes_into_its_input_is_named_and_changes_nothing(victim, agent):
    """Before: PGD fell from 100 to 75 %, FGSM to 0, without a flag."""
    found = advgym.attack("image/digits-linf", agent, victim=victim, **DIGITS)
    knowledge = {"knowledge": "score"} if agent in ("square", "random-search") else {}
    honest = advgym.attack("image/digits-linf", agent, victim=Victim(digits()), **DIGITS, **knowledge)
    rows = [(s.id, s.success, s.queries, s.perturbation) for s in honest.samples]
    assert [(s.id, s.success) for s in found.samples] == [r[:2] for r in rows]
    assert found.success_rate == honest.success_rate > 0 or agent == "random-search"
    assert any("writes into its inputs" in f for f in found.flags)
    assert not any("writes" in f for f in honest.flags)


def test_one_that_writes_now_and_then_is_an_error():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.asked = digits(), 0

        def forward(self, x):
            self.asked += 1
            if self.asked > 3:
                x.mul_(1.0)
            return self.inner(x)

    with pytest.raises(VictimError, match="writes into its input now and then"):
        advgym.attack("image/digits-linf", "square", victim=Late(), knowledge="score", episodes=4)


# -- 3: training mode ---------------------------------------------------------------------------------------------
def norm_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5),
                        nn.utils.parametrizations.weight_norm(nn.Linear(32, 10)))  # fmt: skip
    task = make_task("image/digits-linf")
    batch = task.samples("train", list(range(512)))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(batch.x), batch.labels).backward()
        optimiser.step()
    return net


def test_a_module_in_training_mode_is_asked_in_eval_mode_and_found_as_it_was():
    """Before: its running statistics moved, and success hung on the number of lanes."""
    net = norm_net()
    net[4].eval()  # parts in different modes are each left as they were
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    rates = {
        lanes: advgym.attack("image/digits-linf", "fgsm", victim=net, episodes=24, lanes=lanes, eps="2/16")
        for lanes in (1, 8, 24)
    }
    assert len({r.success_rate for r in rates.values()}) == 1 and 0 < rates[1].success_rate < 1
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes and net.training
    for r in rates.values():
        assert any("in training mode" in f for f in r.flags)
    assert not any("training mode" in f for f in advgym.attack("image/digits-linf", "fgsm", victim=net.eval(),
                                                               episodes=4).flags)  # fmt: skip


def test_it_is_found_as_it_was_when_it_raises():
    net = norm_net()
    victim = Victim(net)
    with pytest.raises(VictimError, match="answered none of the first"):
        victim(torch.zeros(2, 3))
    assert net.training and net[2].training


def test_rows_that_hang_on_their_company_are_flagged():
    def company(x):
        return digits()(x - x.mean(0, keepdim=True) * (len(x) > 1))

    found = advgym.attack("image/digits-linf", "square", victim=Victim(company, access="scores"), episodes=8)
    assert any("rows alone are answered otherwise" in f for f in found.flags)


# -- 8: chance, and nothing attacked ------------------------------------------------------------------------------
def test_classes_that_are_numbered_otherwise_are_flagged():
    """Before: clean accuracy .024 where it is .976, without a flag."""
    turned = Victim(lambda x: digits()(x).roll(1, 1), access="scores")
    found = advgym.attack("image/digits-linf", "square", victim=turned, episodes=64)
    assert found.clean_accuracy < 0.1
    assert any("numbered as the labels" in f for f in found.flags), found.flags


def test_nothing_attacked_is_said(capsys):
    def never(x):
        return torch.eye(11)[torch.full((len(x),), 10)][:, :10] + torch.eye(10)[torch.zeros(len(x), dtype=int)]

    samples = make_task("image/digits-linf").samples("test", list(range(40)))
    own = [(x, int(y)) for x, y in zip(samples.x, samples.labels, strict=True) if int(y) != 0]
    found = advgym.attack("image/digits-linf", "square", victim=Victim(never, access="scores"), samples=own, episodes=9)
    assert found.attacked == 0 and any("no sample right, so nothing was attacked" in f for f in found.flags)
    from advgym.cli.attack import print_result

    print_result(found)
    said = capsys.readouterr().out
    assert "not known" in said and "nothing was attacked" in said


# -- 12: exceptions -----------------------------------------------------------------------------------------------
def fragile(texts):
    """Raises on any text with "brittle" in it."""
    if any("brittle" in t for t in texts):
        raise RuntimeError("brittle text")
    return [[2.0 * t.split().count("awful"), 1.0] for t in texts]


TEXTS = [(f"an awful film number {i}", 0) for i in range(20)]
TABLE = {"awful": ["terrible"], "film": ["movie"]}


def test_one_text_on_which_the_victim_raises_costs_itself():
    """Before: twenty winnable sentences beside it became 0.0 under "agent crashed"."""
    samples = [*TEXTS, ("a brittle awful film", 0)]
    found = advgym.attack("text/wordswap", "greedy", victim=fragile, samples=samples, candidates=TABLE, edits=1,
                          episodes=21, lanes=21)  # fmt: skip
    assert (found.attacked, found.success_rate) == (20, 1.0)
    assert any("1 of 21 clean samples have no answer (RuntimeError: brittle text)" in f for f in found.flags)


def test_a_query_that_it_cannot_answer_is_charged_and_no_success():
    samples = [("an awful film", 0), ("an awful day", 0)]
    table = {"awful": ["brittle"], "film": ["movie"]}
    found = advgym.attack("text/wordswap", "greedy", victim=fragile, samples=samples, candidates=table, edits=1,
                          episodes=2, lanes=2)  # fmt: skip
    assert found.success_rate == 0.0 and all(s.queries > 0 for s in found.samples)
    assert not any("crashed" in f for f in found.flags)


def test_a_final_perturbation_without_an_answer_is_counted_both_ways():
    samples = [("an awful film", 0), ("an awful day", 0), ("awful", 0), ("fine", 1)]
    table = {"awful": ["brittle"]}

    def last(env, *, seed=0):
        env.reset(seed=seed)
        env.step(env.threat.random(seed))

    found = advgym.attack("text/wordswap", last, victim=fragile, samples=samples, candidates=table, edits=1,
                          knowledge="transfer", surrogate=Victim(lambda t: [[1.0, 0.0]] * len(t), access="scores"),
                          queries=4, episodes=4)  # fmt: skip
    silent = [s for s in found.samples if s.reason == SILENT]
    assert silent and not any(s.success for s in silent)
    assert any(f"{len(silent)} final perturbations have no answer" in f and "as broken" in f for f in found.flags)


def test_a_victim_that_answers_nothing_is_named():
    def broken(texts):
        raise KeyError("weights")

    with pytest.raises(VictimError, match="KeyError"):
        advgym.attack("text/wordswap", "greedy", victim=broken, samples=TEXTS, candidates=TABLE, edits=1)


def test_gradients_go_on_beside_a_row_that_raises():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = digits()

        def forward(self, x):
            if bool((x[:, 0, 0, 0] > 0.1).any()):
                raise RuntimeError("ink in the corner")
            return self.inner(x)

    found = advgym.attack("image/digits-linf", "pgd", victim=Fragile(), **DIGITS)
    assert found.attacked > 10 and found.success_rate >= 0 and not any("crashed" in f for f in found.flags)


class Busy(Exception):
    status_code = 429


@pytest.mark.parametrize(("error", "again"), [(Busy(), True), (TimeoutError(), True), (ConnectionResetError(), True),
                                              (torch.OutOfMemoryError(), True), (ValueError(), False)])  # fmt: skip
def test_passing_errors_are_tried_again(error, again):
    left = [2]

    def answer(x, keys):
        if left[0]:
            left[0] -= 1
            raise error
        return torch.zeros(len(x), 2)

    found = pieces(answer, torch.zeros(3, 1), None, retries=2, wait=0.0)
    assert passing(error) == again
    assert (len(found) == 1 and isinstance(found[0], torch.Tensor)) == again


def test_what_does_not_fit_is_halved():
    sizes = []

    def model(x):
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError
        return x.sum(1, keepdim=True)

    x = torch.arange(20.0).view(10, 2)
    assert torch.equal(Victim(model, access="scores")(x), x.sum(1, keepdim=True))
    assert max(s for s in sizes if s <= 3) == 3 and sizes[0] == 10


def test_numpy_and_lists_are_isolated_too():
    def model(texts):
        if "bad" in texts:
            raise ValueError("bad")
        return np.ones((len(texts), 2))

    found = Victim(model)(["a", "bad", "b", "bad"])
    assert torch.isnan(found).any(1).tolist() == [False, True, False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 4, 4), (40,)])
def test_a_module_of_any_float_type_is_asked_in_its_own(dtype, shape):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3))
    x = torch.rand(5, *shape, requires_grad=True)
    right = module(x).detach()
    found = Victim(module.to(dtype))(x)
    assert found.dtype == torch.float32 and torch.allclose(found, right, atol=0.02)
    found.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
