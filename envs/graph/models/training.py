"""Training runs as models: the victim of poisoning is a graph convolutional network fitted anew for every graph.

`Retrained` is the run that a verdict looks at: Adam, dropout, a fresh start for every key, n graphs side by side.
`Unrolled` is what an attacker can differentiate: a linear two-layer network fitted by momentum descent without any
chance in it, whose every step stays in the graph, so gradients by pairs of nodes are exact meta-gradients (Zuegner &
Guennemann 2019).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advgym.core import rng
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.graphs import Graph
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.victims.stacked import stack, stack_features
from advgym.errors import VictimError

ENTRIES = 1 << 22  # feature entries of graphs that are trained side by side
WORD = 62  # random bits taken from one draw
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam (Kingma & Ba 2015)


class Blocks:
    """A block-diagonal sparse matrix that is multiplied many times, from both sides, with values that may change.

    Args:
        row, column: int64 (m,) of its entries, any order.
        size: (rows, columns).
    """

    def __init__(self, row: Tensor, column: Tensor, size: tuple[int, int]) -> None:
        self.size = size
        self.plain, self.turned = (self._side(*pair) for pair in ((row, column, size[0]), (column, row, size[1])))

    @staticmethod
    def _side(row: Tensor, column: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """(start of each row, columns, order of the entries)."""
        order = (row * (int(column.max()) + 1 if len(column) else 1) + column).argsort()
        start = torch.zeros(rows + 1, dtype=torch.int64, device=row.device)
        start[1:] = torch.bincount(row, minlength=rows).cumsum(0)
        return start, column[order], order

    def times(self, value: Tensor, h: Tensor, *, turned: bool = False) -> Tensor:
        """The matrix with entries `value` (m,), or its transpose, times h; a row's terms are added in one order."""
        start, column, order = self.turned if turned else self.plain
        size = self.size[::-1] if turned else self.size
        with torch.sparse.check_sparse_tensor_invariants(False):
            return torch.sparse_csr_tensor(start, column, value[order], size) @ h


class Run:
    """One training run on each of n perturbed graphs; tensors have the graphs first: (n, N, H).

    Args:
        rows: the graphs.
        keys: int64 (n,), of all that is drawn.
        labels: int64 (N,); train: int64 (L,).
    """

    def __init__(
        self, rows: GlobalRows, keys: Tensor, labels: Tensor, train: Tensor, classes: int, hidden: int
    ) -> None:
        graph, n = rows.graph, rows.many
        self.keys, self.n, self.nodes, self.hidden, self.train = keys, n, graph.size, hidden, train
        plain = GraphRows(
            graph, keys.new_zeros(n), rows.flips, rows.weights, cells=rows.cells, cell_weights=rows.cell_weights
        )
        every = n * graph.size
        edges, weight = stack(plain)
        loops = torch.arange(every, device=keys.device)
        source, end = torch.cat([edges[0], loops]), torch.cat([edges[1], loops])
        mass = torch.cat([weight if weight is not None else torch.ones_like(edges[0], dtype=torch.float32),
                          torch.ones(every, device=keys.device)]).to(torch.float32)  # fmt: skip
        scale = torch.zeros(every, device=keys.device).index_add(0, source, mass).rsqrt()
        self.graphs, self.hat = Blocks(source, end, (every, every)), scale[source] * mass * scale[end]
        self.x = stack_features(plain)
        node, feature = self.x.nonzero(as_tuple=True)
        self.entries = self.x[node, feature]
        self.per = torch.bincount(node // graph.size, minlength=n)
        self.place = torch.arange(len(node), device=node.device) - (self.per.cumsum(0) - self.per)[node // graph.size]
        self.owner = node // graph.size
        wide = graph.features
        self.features = Blocks(node, feature + self.owner * wide, (every, n * wide))
        self.truth = nn.functional.one_hot(labels[train], classes).to(torch.float32)
        shapes = ((n * wide, hidden), (n, 1, hidden), (n, hidden, classes), (n, 1, classes))
        self.first = self._glorot(wide, hidden, 51).reshape(shapes[0])
        self.second = self._glorot(hidden, classes, 52)
        self.bias = [torch.zeros(shapes[i], device=keys.device) for i in (1, 3)]
        self.moments = [(torch.zeros(s, device=keys.device), torch.zeros(s, device=keys.device)) for s in shapes]

    def _glorot(self, a: int, b: int, stream: int) -> Tensor:
        return (rng.uniform(0, self.keys, (a, b), stream) * 2 - 1) * (6 / (a + b)) ** 0.5

    def _send(self, h: Tensor) -> Tensor:
        """One propagation of (n, N, H); symmetric, so it is its own backward."""
        return self.graphs.times(self.hat, h.reshape(-1, h.shape[2])).view(self.n, self.nodes, -1)

    def _halves(self, epoch: int) -> tuple[Tensor, Tensor]:
        """What dropout of 1/2 leaves, times 2: of feature entries (m,), of hidden units (n, N, H)."""
        widest, units = int(self.per.max()), self.nodes * self.hidden
        draws = rng.bits(epoch, self.keys, ((widest + units) // WORD + 1,), 53)
        coins = (draws.unsqueeze(2) >> torch.arange(WORD, device=draws.device)) & 1
        coins = coins.flatten(1).to(torch.float32) * 2  # units first: their number is the same for every graph
        return coins[self.owner, units + self.place], coins[:, :units].view(self.n, self.nodes, self.hidden)

    def _forward(self, values: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """(pre-activations (n, N, H), what the second layer reads (n, N, H))."""
        h = self._send(self.features.times(values, self.first).view(self.n, self.nodes, -1)) + self.bias[0]
        out = h.relu() if kept is None else h.relu() * kept
        return h, self._send(out)

    def scores(self) -> Tensor:
        """Scores of all nodes as trained so far, (n, N, C)."""
        return self._forward(self.entries, None)[1] @ self.second + self.bias[1]

    def step(self, epoch: int, lr: float, decay: float) -> None:
        """One step of Adam on the cross-entropy of the training nodes; the first layer decays. By hand: no graph."""
        entries, kept = self._halves(epoch)
        entries = entries * self.entries
        h, read = self._forward(entries, kept)
        near = read[:, self.train]
        error = (torch.softmax(near @ self.second + self.bias[1], 2) - self.truth) / len(self.train)
        back = torch.zeros_like(h)
        back[:, self.train] = error @ self.second.transpose(1, 2)
        back = self._send(back) * kept * (h > 0)
        first = self.features.times(entries, self._send(back).reshape(-1, self.hidden), turned=True)
        gradients = (
            first + decay * self.first, back.sum(1, keepdim=True) + decay * self.bias[0],
            near.transpose(1, 2) @ error, error.sum(1, keepdim=True),
        )  # fmt: skip
        for value, g, (m, v) in zip(
            (self.first, self.bias[0], self.second, self.bias[1]), gradients, self.moments, strict=True
        ):
            m.mul_(BETA1).add_(g, alpha=1 - BETA1)
            v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            a, b = 1 - BETA1 ** (epoch + 1), 1 - BETA2 ** (epoch + 1)
            value.sub_(lr / a * m / ((v / b).sqrt() + EPSILON))


class Fitted(nn.Module):
    """What both training runs know: the labels of the training nodes, as the attacker does.

    Args:
        labels: int64 (N,); train: int64 (L,) nodes whose labels are used.
    """

    takes_rows = True
    labels: Tensor
    train_nodes: Tensor

    def __init__(self, labels: Tensor, train: Tensor, classes: int, hidden: int = 16) -> None:
        super().__init__()
        known = torch.full_like(labels, -1)
        known[train] = labels[train]
        self.register_buffer("labels", known)
        self.register_buffer("train_nodes", train)
        self.classes, self.hidden = classes, hidden

    def _check(self, rows: Any) -> GlobalRows:
        if not isinstance(rows, GlobalRows):
            raise VictimError("a training run answers whole graphs: it is the victim of poisoning tasks alone")
        if rows.graph.size != len(self.labels):
            raise VictimError(f"this run knows labels of {len(self.labels)} nodes; the graph has {rows.graph.size}")
        return rows


class Retrained(Fitted):
    """Scores after a full training run on each graph; the model of a keyed `Victim`.

    A graph convolutional network (Kipf & Welling 2017) with dropout 1/2 on features and hidden units, fitted by Adam.
    A run is the same whichever graphs are trained beside it.

    Args:
        args, kwargs: see `Fitted`.
        epochs, lr, decay: of Adam; the weights of the last epoch count.
    """

    def __init__(self, *args: Any, epochs: int = 200, lr: float = 0.01, decay: float = 5e-4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.epochs, self.lr, self.decay = epochs, lr, decay

    @torch.no_grad()
    def forward(self, rows: GlobalRows, keys: Tensor | None = None) -> Tensor:
        """Scores of every member, (n * M, C). `keys` int64 (n * M,) or (n,): a graph draws by its first."""
        rows = self._check(rows)
        keys = torch.zeros(rows.many, dtype=torch.int64) if keys is None else keys.view(rows.many, -1)[:, 0]
        keys, parts = keys.to(rows.flips.device), []
        step = max(1, ENTRIES // max(int((rows.graph.x != 0).sum()), rows.graph.size * self.hidden))
        for at in torch.arange(rows.many, device=keys.device).split(step):
            run = Run(rows.graphs(at), keys[at], self.labels, self.train_nodes, self.classes, self.hidden)
            for epoch in range(self.epochs):
                run.step(epoch, self.lr, self.decay)
            parts.append(run.scores()[:, rows.nodes].flatten(0, 1))
        return torch.cat(parts)


class Unrolled(Fitted):
    """Scores after training without chance, differentiable in every pair of nodes.

    The network is linear, softmax(A_hat A_hat X W1 W2), as Metattack's surrogate is: what the graph does to it is one
    matrix Z = A_hat A_hat X, and training is descent on Z alone.

    Args:
        args, kwargs: see `Fitted`.
        steps, lr, momentum: of the descent; Z is scaled so that training rows of the clean graph have length 1 on
            average.
        exact: the gradient goes through all steps (Metattack); otherwise only through the graph that the trained
            weights are applied to (a first-order approximation).
        seed: of the first weights.
    """

    def __init__(
        self, *args: Any, steps: int = 100, lr: float = 0.1, momentum: float = 0.9, exact: bool = True, seed: int = 0,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.steps, self.lr, self.momentum, self.exact, self.seed = steps, lr, momentum, exact, seed
        self._lengths: dict[int, float] = {}

    def forward(self, rows: GlobalRows) -> Tensor:
        """Scores of every member, (n * M, C)."""
        rows = self._check(rows)
        step = rows.many if rows.tape is not None else max(1, ENTRIES // max(rows.graph.x.numel(), 1))
        return torch.cat([self._scores(some) for some in rows.runs(step)])

    def _sent(self, rows: GlobalRows) -> Tensor:
        """Z, (N, n, F)."""
        adjacency = rows.adjacency()
        dtype = adjacency.change.dtype
        # Not `adjacency.degree`, which would keep the graph of the whole run alive through what it caches.
        ones = torch.ones(rows.graph.size, 1, 1, dtype=dtype, device=rows.flips.device)
        scale = (adjacency.sum(ones) + 1).rsqrt()
        h = rows.features().dense().to(dtype)
        for _ in range(2):
            h = scale * h
            h = scale * (adjacency.sum(h) + h)
        return h

    def _length(self, graph: Graph) -> float:
        """The mean length of clean training rows of Z."""
        if graph.serial not in self._lengths:
            none = torch.empty(1, 0, 2, dtype=torch.int64, device=graph.device)
            with torch.no_grad():
                z = self._sent(GlobalRows(graph, self.train_nodes, none))[self.train_nodes]
            self._lengths[graph.serial] = max(float(z.norm(dim=2).mean()), 1e-12)
        return self._lengths[graph.serial]

    def _scores(self, rows: GlobalRows) -> Tensor:
        z = self._sent(rows).transpose(0, 1) / self._length(rows.graph)  # (n, N, F)
        near = z[:, self.train_nodes] if self.exact else z[:, self.train_nodes].detach()
        truth = nn.functional.one_hot(self.labels[self.train_nodes], self.classes).to(z.dtype)
        key = torch.tensor([self.seed], device=z.device)
        shapes = (z.shape[2], self.hidden), (self.hidden, self.classes)
        first, second = (
            ((rng.uniform(0, key, s, 54 + i) * 2 - 1) * (6 / sum(s)) ** 0.5).to(z.dtype).expand(len(z), -1, -1)
            for i, s in enumerate(shapes)
        )
        fast = [torch.zeros_like(first), torch.zeros_like(second)]
        for _ in range(self.steps):
            read = near @ first
            error = (torch.softmax(read @ second, 2) - truth) / len(self.train_nodes)
            slopes = near.transpose(1, 2) @ (error @ second.transpose(1, 2)), read.transpose(1, 2) @ error
            fast = [self.momentum * v + g for v, g in zip(fast, slopes, strict=True)]
            first, second = first - self.lr * fast[0], second - self.lr * fast[1]
        return (z[:, rows.nodes] @ first @ second).flatten(0, 1)
