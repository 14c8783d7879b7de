"""Planted culprits and honest victims: victims whose fault is known, and which check has to name it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advgym import Victim, make_task
from advgym.core.kinds.certificates import Certificate
from advgym.core.task import load_victim


class Case(NamedTuple):
    """A victim with one fault, the check that has to be raised, and the rest of what is given to the audit."""

    name: str
    check: str
    make: Callable[[], Any]
    options: dict[str, Any]


CASES: list[Case] = []


def case(name: str, check: str, **options: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enter a culprit; the part before the slash says its task."""

    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        CASES.append(Case(name, check, make, {"task": TASKS[name.split("/")[0]], **options}))
        return make

    return add


TASKS = {
    "image": "image/digits-linf", "text": "text/synth-wordswap", "graph": "graph/sbm-feature",
    "speech": "speech/synth-keyword",
}  # fmt: skip
VICTIMS = {"image": "digits-cnn", "text": "synth-bag", "graph": "sbm-gcn", "speech": "synth-keyword-cnn"}


@cache
def net(domain: str) -> nn.Module:
    """The honest network of a domain; of graphs one that takes (features, edges) as everybody's does."""
    if domain == "graph":
        return _graph_net()
    module = load_victim(VICTIMS[domain]).module
    assert module is not None
    return copy.deepcopy(module)


def _graph_net() -> nn.Module:
    from torch_geometric.nn import GCNConv

    from advgym.envs.graph.data.datasets import sbm

    class Gcn(nn.Module):
        def __init__(self, features: int, classes: int) -> None:
            super().__init__()
            self.one, self.two = GCNConv(features, 16), GCNConv(16, classes)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.two(self.one(x, edges).relu(), edges)

    torch.manual_seed(0)
    data = sbm()
    graph, train = data.graph, torch.as_tensor(data.nodes["train"])
    edges = torch.cat([graph.pairs, graph.pairs.flip(1)]).T.contiguous()
    model = Gcn(graph.x.shape[1], data.classes)
    adam = torch.optim.Adam(model.parameters(), 0.02, weight_decay=1e-3)
    for _ in range(120):
        adam.zero_grad()
        nn.functional.cross_entropy(model(graph.x, edges)[train], data.labels[train]).backward()
        adam.step()
    return model.eval()


class Wrap(nn.Module):
    """A network behind a function of (network, first input); the others of its inputs go by."""

    def __init__(self, inner: nn.Module, function: Callable[[Callable[[Any], Tensor], Any], Tensor]) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x: Any, *others: Any) -> Tensor:
        return self.function(lambda given: self.inner(given, *others), x)


def wrapped(domain: str, function: Callable[[Callable[[Any], Tensor], Any], Tensor]) -> nn.Module:
    return Wrap(copy.deepcopy(net(domain)), function).eval()


# -- every domain ----------------------------------------------------------------------------------------------------
for _domain in TASKS:
    case(f"{_domain}/constant", "blind")(
        lambda d=_domain: wrapped(d, lambda f, x: f(x) * 0 + torch.tensor([2.0] + [0.1] * 30)[: f(x).shape[1]])
    )
    case(f"{_domain}/order", "shuffled-labels")(lambda d=_domain: wrapped(d, lambda f, x: f(x).roll(1, 1)))
    case(f"{_domain}/softmax", "probabilities")(lambda d=_domain: wrapped(d, lambda f, x: f(x).softmax(1)))
    case(f"{_domain}/random", "non-deterministic")(
        lambda d=_domain: wrapped(d, lambda f, x: (y := f(x)) + 0.3 * torch.randn_like(y))
    )
    case(f"{_domain}/rounded", "rounded")(lambda d=_domain: wrapped(d, lambda f, x: f(x).round()))

for _domain in ("image", "text", "speech"):  # a graph's model answers for all nodes at once
    case(f"{_domain}/batch", "rows-alone")(
        lambda d=_domain: wrapped(d, lambda f, x: (y := f(x)) - 0.2 * y.mean(0, keepdim=True))
    )

for _domain in ("image", "speech"):
    case(f"{_domain}/in-place", "writes")(lambda d=_domain: wrapped(d, lambda f, x: f(x.mul_(0.98))))


def _dropout(domain: str) -> nn.Module:
    module = wrapped(domain, lambda f, x: f(x))
    module.drop = nn.Dropout(0.2)
    module.function = lambda f, x: module.drop(f(x))
    return module.train()


for _domain in TASKS:
    case(f"{_domain}/training", "training-mode")(lambda d=_domain: _dropout(d))


# -- images ----------------------------------------------------------------------------------------------------------
@case("image/untrained", "chance")
def _untrained() -> nn.Module:
    weight = torch.randn(64, 10, generator=torch.Generator().manual_seed(5))
    return wrapped("image", lambda f, x: (x.flatten(1) - x.flatten(1).mean(1, keepdim=True)) @ weight)


@case("image/black-and-white", "zero-gradients")
def _binary() -> nn.Module:
    return wrapped("image", lambda f, x: f((x > 0.5).float() + 0 * x))


class _Certifies(nn.Module):
    """Says that nothing within half of the box moves any of its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net("image")

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def certificate(self, batch: Any, *, seed: int = 0) -> Certificate:
        label = self(batch.x).argmax(1)
        return Certificate(label, torch.full(label.shape, 0.5, dtype=torch.float64), "linf")

    def settled(self, x: Tensor, keys: Tensor) -> Tensor:
        return self(x).argmax(1)


@case("image/certifies", "certified-broken")
def _certifies() -> nn.Module:
    return _Certifies()


@case("image/detached", "broken-gradients")
def _detached() -> nn.Module:
    return wrapped("image", lambda f, x: f(x.detach()))


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


@case("image/reversed", "wrong-gradients")
def _reversed() -> nn.Module:
    return wrapped("image", lambda f, x: f(_Back.apply(x)))


@case("image/optimises", "dynamic")
def _optimises() -> nn.Module:
    def answer(f: nn.Module, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(f(z).logsumexp(1).sum(), z)
        return f(x - 0.01 * g.sign())

    return wrapped("image", answer)


@case("image/sign", "coarse")
def _signs() -> nn.Module:
    return wrapped("image", lambda f, x: torch.nn.functional.one_hot(f(x).argmax(1), 10) * 1.337 + 0 * f(x))


@case("image/claims", "claimed-accuracy")
def _claims() -> Victim:
    module = wrapped("image", lambda f, x: f(x.roll(3, -1)))
    return Victim(module, name="claims", card={"clean_accuracy": 0.999, "split": "test"})


@case("image/shattered", "unstable-loss")
def _shattered() -> nn.Module:
    return wrapped("image", lambda f, x: f(x) + 14 * torch.sin(4000 * x.flatten(1)[:, :10]))


@case("image/wide", "covers-others", eps="12/16")
def _wide() -> nn.Module:
    return wrapped("image", lambda f, x: f(x))


@case("image/fails-clean", "clean-unanswered")
def _fails_clean() -> Victim:
    def answer(x: Tensor) -> Tensor:
        if bool((x.flatten(1)[:, 20] > 0.9).any()):
            raise ValueError("too bright")
        return net("image")(x).detach()

    return Victim(answer, name="fragile", access="scores")


@case("image/fails-attacked", "unanswered")
def _fails_attacked() -> Victim:
    def answer(x: Tensor) -> Tensor:
        if bool((x.flatten(1)[:, 0] > 0).any()):
            raise ValueError("a corner is never lit")
        return net("image")(x).detach()

    return Victim(answer, name="corner", access="scores")


@case("image/bytes", "rounding", task="image/linf", lattice=0, eps=0.001)
def _bytes() -> tuple[nn.Module, list[tuple[Tensor, int]]]:
    clean = make_task("image/digits-linf").samples("test", list(range(300)))
    images = (clean.x * 255).round() / 255

    def between(f: nn.Module, x: Tensor) -> Tensor:
        off = (x * 255 - (x * 255).round()).abs().flatten(1)
        return f(x) + 800 * off[:, :10]

    return wrapped("image", between), list(zip(images, clean.labels.tolist(), strict=True))


# -- texts, graphs ---------------------------------------------------------------------------------------------------
@case("graph/mlp", "blind", task="graph/sbm-edge")
def _mlp() -> str:
    return "sbm-mlp"


HONEST = [
    ("image", "digits-cnn", {"task": "image/digits-linf"}),
    ("image, adversarially trained", "digits-cnn", {"task": "image/digits-linf", "defenses": ["adversarial-training"]}),
    ("text", "synth-bag", {"task": "text/synth-wordswap"}),
    ("text, another", "synth-bert", {"task": "text/synth-wordswap"}),
    ("graph", "sbm-gcn", {"task": "graph/sbm-edge"}),
    ("graph, adversarially trained", "sbm-gcn-robust", {"task": "graph/sbm-edge"}),
    ("speech", "synth-keyword-cnn", {"task": "speech/synth-keyword"}),
    ("speech, another", "synth-keyword-m5", {"task": "speech/synth-keyword"}),
]
