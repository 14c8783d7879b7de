"""The pretended card refuses and lets pass what a real one does, and computes what the CPU computes."""

import copy

import numpy as np
import pytest
import torch
from pretend import card
from torch import nn

pytestmark = pytest.mark.device
MIXED = "same device"


@pytest.fixture
def device():
    with card() as found:
        yield found


@pytest.fixture
def x(device):
    return torch.arange(6.0).view(2, 3).to(device)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x + torch.ones(2, 3),
        lambda x: torch.ones(2, 3).add_(x),
        lambda x: torch.tensor(1.0).add_(x.sum()),
        lambda x: torch.ones(3) * x[0, 0],
        lambda x: x @ torch.ones(3, 1),
        lambda x: torch.cat([x, torch.ones(1, 3)]),
        lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
        lambda x: torch.where(x > 2, x, torch.zeros(2, 3)),
        lambda x: x.masked_fill(torch.ones(2, 3, dtype=torch.bool), 0.0),
        lambda x: x.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
        lambda x: x.index_select(0, torch.tensor([1])),
        lambda x: x.index_select(0, torch.tensor(1)),
        lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1, 3)),
        lambda x: x.index_add_(0, torch.tensor([0]), x[:1]),
        lambda x: x.scatter_add(1, torch.zeros(2, 1, dtype=torch.int64), x[:, :1]),
        lambda x: nn.functional.embedding(torch.tensor([1]), x),
        lambda x: nn.functional.cross_entropy(x, torch.tensor([0, 1])),
        lambda x: nn.functional.linear(x, torch.ones(2, 3)),
        lambda x: nn.Linear(3, 2)(x),
        lambda x: torch.searchsorted(x[0], torch.tensor([1.0])),
        lambda x: torch.equal(x, torch.ones(2, 3)),
    ],
)
def test_both_sides_do_not_mix(x, call):
    with pytest.raises(RuntimeError, match=MIXED):
        call(x)


@pytest.mark.parametrize("at", [[1], [True, False]])
def test_indices_of_the_card_do_not_index_the_cpu(device, at):
    here = torch.ones(2)
    with pytest.raises(RuntimeError, match="either on cpu or on the same device"):
        here[torch.tensor(at).to(device)]
    with pytest.raises(RuntimeError, match="either on cpu or on the same device"):
        here[torch.tensor(at).to(device)] = 1.0


def test_indices_of_the_cpu_index_the_card(x):
    want = torch.arange(6.0).view(2, 3)
    for at in (
        torch.tensor([1, 0]),
        torch.tensor([True, False]),
        [1, 0],
        np.array([1, 0]),
        (slice(None), [2, 0]),
        -1,
        None,
    ):
        assert x[at].device == x.device and torch.equal(x[at].cpu(), want[at])
    x[torch.tensor([0])] = 7.0
    x[[1], [1]] = torch.tensor(8.0)
    x[1, 2] = 9
    x[x == 7] += 1
    x[0, :1] = torch.ones(1)  # a slice is a copy, which crosses
    assert x.tolist() == [[1.0, 8.0, 8.0], [3.0, 8.0, 9.0]]


def test_scalars_of_the_cpu_pass_in_arithmetic(x):
    one = torch.tensor(1.0)
    assert (x + one).device == (one - x).device == torch.maximum(x, one).device == x.device
    assert torch.where(x > one, x, one).device == x.device
    assert x.sum().item() == float(x.sum()) == 15.0 and bool((x > 4).any()) and int(x[0, 1]) == 1 and len(x) == 2


def test_arrays_are_had_by_way_of_the_cpu(x):
    for call in (x.numpy, lambda: np.asarray(x), x.detach().numpy):
        with pytest.raises(TypeError, match="numpy"):
            call()
    assert x.cpu().numpy().sum() == 15.0 and x.numpy(force=True).sum() == 15.0 and type(x.cpu()) is torch.Tensor


def test_what_is_there_says_so(device, x):
    made = [torch.zeros(2, device=device), torch.arange(3, device="cuda"), torch.full((2,), 1.0, device=device),
            torch.tensor([1, 2], device=device), torch.as_tensor(np.ones(2), device=device), x.new_zeros(2),
            x.new_tensor([1]), torch.zeros_like(x), torch.tensor([x[0, 0]], device=device), torch.ones(2).cuda(),
            torch.ones(2).to(x)]  # fmt: skip
    for t in made:
        assert (
            t.device == device and t.is_cuda and not t.is_cpu and t.get_device() == 0 and t.tolist() == t.cpu().tolist()
        )
    assert torch.tensor([x[0, 0], x[1, 1]]).device.type == "cpu"
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1


def test_to_where_it_is_gives_itself(device, x):
    assert x.to(device) is x and x.to("cuda") is x and x.cuda() is x and x.to(x.dtype) is x and x.to(x) is x
    assert x.to(device, copy=True) is not x and x.to(torch.float64).dtype is torch.float64
    assert torch.as_tensor(x) is x and torch.as_tensor(x, device=device) is x


def test_views_and_changes_in_place_are_shared(x):
    row, flat = x[0], x.view(-1)
    row.mul_(2)
    flat[5] = 0.0
    assert x.tolist() == [[0.0, 2.0, 4.0], [3.0, 4.0, 0.0]]
    assert x.add_(1) is x and x.unsqueeze_(0).shape == (1, 2, 3)
    here = torch.zeros(2, 3)
    assert here.copy_(x[0]) is here and here.sum() == 19.0


def test_the_cpus_generator_does_not_draw_on_the_card(device):
    here = torch.Generator().manual_seed(1)
    for call in (
        torch.rand,
        torch.randn,
        lambda *a, **k: torch.randperm(9, **k),
        lambda *a, **k: torch.randint(9, (3,), **k),
    ):
        with pytest.raises(RuntimeError, match="Expected a 'cuda'"):
            call(3, generator=here, device=device)
        with pytest.raises(RuntimeError, match="Expected a 'cpu'"):
            call(3, generator=torch.Generator(device).manual_seed(1))
    with pytest.raises(RuntimeError, match="Expected a 'cuda'"):
        torch.empty(3, device=device).uniform_(generator=here)
    with pytest.raises(RuntimeError, match="Expected a 'cuda'"):
        torch.multinomial(torch.ones(4, device=device), 2, generator=here)


def test_a_seed_means_other_numbers_there(device):
    def drawn(where, generator=None):
        return torch.rand(8, device=where, generator=generator).cpu()

    torch.manual_seed(3)
    here, there = drawn("cpu"), drawn(device)
    torch.manual_seed(3)
    again = drawn(device), drawn("cpu")
    assert not torch.equal(here, there) and torch.equal(again[0], there) and torch.equal(again[1], here)
    mine, yours = torch.Generator(device).manual_seed(3), torch.Generator().manual_seed(3)
    assert mine.device == device and not torch.equal(drawn(device, mine), drawn("cpu", yours))
    with torch.random.fork_rng(devices=[0]):
        once = drawn(device)
    assert torch.equal(drawn(device), once)
    a = nn.functional.dropout(torch.ones(64, device=device))
    torch.manual_seed(3)
    assert not torch.equal(a.cpu(), nn.functional.dropout(torch.ones(64)))


def test_draws_may_be_asked_to_be_the_cpus():
    with card(draws="cpu") as device:
        torch.manual_seed(3)
        there = torch.rand(8, device=device).cpu()
        made = torch.rand(8, device=device, generator=torch.Generator(device).manual_seed(4)).cpu()
    torch.manual_seed(3)
    assert torch.equal(there, torch.rand(8)) and torch.equal(
        made, torch.rand(8, generator=torch.Generator().manual_seed(4))
    )


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_tensors(x, layout):
    def sparse(dense):
        return dense.to_sparse_coo().coalesce() if layout == "coo" else dense.to_sparse_csr()

    s, here = sparse(x), sparse(torch.arange(6.0).view(2, 3))
    assert (
        s.device == x.device
        and s.layout is here.layout
        and s.is_sparse is here.is_sparse
        and s.values().device == x.device
    )
    w = torch.ones(3, 2, device=x.device, requires_grad=True)
    out = torch.sparse.mm(s, w)
    (grad,) = torch.autograd.grad(out.square().sum(), w)
    v = torch.ones(3, 2, requires_grad=True)
    want = torch.autograd.grad(torch.sparse.mm(here, v).square().sum(), v)[0]
    assert (
        torch.equal(grad.cpu(), want)
        and torch.equal((s @ w).cpu(), here @ v)
        and torch.equal(s.to_dense().cpu(), here.to_dense())
    )
    with pytest.raises(RuntimeError, match=MIXED):
        s @ v


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def trained(where):
    module, data = net().to(where), torch.linspace(-1, 1, 48).view(8, 1, 6).to(where)
    goal = (torch.arange(8) % 3).to(where)
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(data), goal).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    return copy.deepcopy(module)


def test_autograd_and_training_give_the_cpus_numbers(device):
    there, here = trained(device), trained("cpu")
    assert {p.device for p in there.parameters()} == {device}
    for a, b in zip(there.state_dict().values(), here.state_dict().values(), strict=True):
        assert torch.equal(a.cpu(), b)
    back = net()
    back.load_state_dict(there.state_dict())  # a copy crosses
    assert torch.equal(back[0].weight, here[0].weight)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        assert grad.device == x.device
        return grad * 2


def test_gradients_lie_where_their_tensors_lie(x):
    leaf = x.clone().requires_grad_()
    (Double.apply(leaf) ** 2).sum().backward()
    assert leaf.grad.device == x.device and torch.equal(leaf.grad, 8 * x)
    (twice,) = torch.autograd.grad((leaf**3).sum(), leaf, create_graph=True)
    (more,) = torch.autograd.grad(twice.sum(), leaf)
    assert torch.equal(more, 6 * x)
    crossed = leaf.cpu().sin()
    (grad,) = torch.autograd.grad(crossed.sum(), leaf)
    assert grad.device == x.device
    with pytest.raises(RuntimeError, match="invalid gradient"):
        torch.autograd.grad(leaf * 2, leaf, torch.ones(2, 3))


def test_lengths_of_sequences_lie_on_the_cpu(device):
    data, lengths = torch.arange(12.0).view(2, 3, 2).to(device), torch.tensor([3, 2])
    gru, want = nn.GRU(2, 3, batch_first=True), None
    packed = nn.utils.rnn.pack_padded_sequence(data, lengths, batch_first=True)
    got = gru.to(device)(packed)[1]
    want = gru.cpu()(nn.utils.rnn.pack_padded_sequence(data.cpu(), lengths, batch_first=True))[1]
    assert got.device == device and torch.equal(got.cpu(), want)
    with pytest.raises(RuntimeError, match="CPU int64"):
        nn.utils.rnn.pack_padded_sequence(data, lengths.to(device), batch_first=True)


def test_nothing_is_left_behind():
    before = torch.cuda.device_count, torch.Generator, torch.get_rng_state()
    with card() as device:
        torch.rand(3, device=device)
    assert before[:2] == (torch.cuda.device_count, torch.Generator) and torch.equal(before[2], torch.get_rng_state())
