"""The models of the zoo as their papers write them: of a dense adjacency, dense features and named parameters.

The sizes (heads, steps, rank, thresholds) are those of SMALL in test_graph_zoo.py.
"""

import torch
import torch.nn.functional as F


def _gcn(a, x, p):
    hat = norm(a + torch.eye(len(a)))
    h = (hat @ x @ p["layer1.weight"] + p["layer1.bias"]).relu()
    return hat @ h @ p["layer2.weight"] + p["layer2.bias"]


def _jaccard(a, x, p):
    on = (x > 0).double()
    both = on @ on.T
    either = on.sum(1)[:, None] + on.sum(1)[None] - both
    return _gcn(a * (both >= 0.3 * either.clamp_min(1)), x, p)


def norm(a):
    """D^-1/2 A D^-1/2."""
    d = a.sum(1).rsqrt()
    return d[:, None] * a * d[None, :]


def _sage(a, x, p):
    mean = a / a.sum(1, keepdim=True).clamp_min(1)
    h = (x @ p["own1.weight"] + mean @ x @ p["near1.weight"] + p["own1.bias"]).relu()
    return h @ p["own2.weight"] + mean @ h @ p["near2.weight"] + p["own2.bias"]


def _gin(a, x, p):
    for i in "12":
        x = ((x + a @ x) @ p[f"in{i}.weight"] + p[f"in{i}.bias"]).relu() @ p[f"out{i}.weight"] + p[f"out{i}.bias"]
        x = x.relu() if i == "1" else x
    return x


def _mlp(a, x, p):
    return (x @ p["layer1.weight"] + p["layer1.bias"]).relu() @ p["layer2.weight"] + p["layer2.bias"]


def _appnp(a, x, p):
    start = _mlp(a, x, p)
    hat, h = norm(a + torch.eye(len(a))), start
    for _ in range(4):
        h = 0.9 * hat @ h + 0.1 * start
    return h


def _rgcn(a, x, p):
    a = a + torch.eye(len(a))
    one, two = norm(a), a / (a.sum(1)[:, None] * a.sum(1)[None, :])
    mean, var = x, x
    for i in "12":
        mean = F.elu(mean @ p[f"mean{i}.weight"] + p[f"mean{i}.bias"])
        var = (var @ p[f"var{i}.weight"] + p[f"var{i}.bias"]).relu()
        att = (-var).exp()
        mean, var = one @ (mean * att), two @ (var * att * att)
    return mean


def _gat(a, x, p):
    a = a + torch.eye(len(a))

    def head(h, name, heads):
        h = (h @ p[f"{name}.map.weight"]).view(len(h), heads, -1)
        score = (h * p[f"{name}.from_target"]).sum(2)[:, None] + (h * p[f"{name}.from_source"]).sum(2)[None]
        share = F.leaky_relu(score, 0.2).exp() * a[:, :, None]
        return torch.einsum("ijk,jkd->ikd", share / share.sum(1, keepdim=True), h)

    h = F.elu(head(x, "layer1", 2).flatten(1) + p["bias1"])
    return head(h, "layer2", 1).squeeze(1) + p["bias2"]


def _gnnguard(a, x, p):
    def alpha(h):
        unit = h / (h.square().sum(1, keepdim=True) + 1e-12).sqrt()
        s = unit @ unit.T
        kept = (s >= 0.1).to(s)
        count = (a * kept).sum(1)
        s = a * kept * s
        return (
            torch.diag(1 / (count + 1)) + s / s.sum(1, keepdim=True).clamp_min(1e-12) * (count / (count + 1))[:, None]
        )

    first = alpha(x)
    h = (first @ x @ p["layer1.weight"] + p["layer1.bias"]).relu()
    return (0.5 * first + 0.5 * alpha(h)) @ h @ p["layer2.weight"] + p["layer2.bias"]


def _rung(a, x, p):
    start = f = _mlp(a, x, p)
    d = a.sum(1).clamp_min(1)
    for _ in range(3):
        even = f / d.sqrt()[:, None]
        y = ((even[:, None] - even[None]).square().sum(2) + 0.01).sqrt()
        w = a * (0.5 / y - 0.5 / 3.0).relu()
        lam = 1 / 0.9 - 1
        f = (w @ even / d.sqrt()[:, None] + lam * start) / (w.sum(1) / d + lam)[:, None]
    return f


def _svd(a, x, p):
    with torch.no_grad():
        value, vector = torch.linalg.eigh(a)
        v = vector[:, value.abs().argsort(descending=True)[:3]]
    inside = v @ v.T
    turn = inside @ a + a @ inside - 2 * inside @ a @ inside
    low = inside @ a @ inside + turn - turn.detach()
    d = low.sum(1)
    d = (torch.where(d < -1e-6, 0.0, d) + 1).rsqrt()
    hat = d[:, None] * (low + torch.eye(len(a))) * d[None]
    h = (hat @ x @ p["layer1.weight"] + p["layer1.bias"]).relu()
    return hat @ h @ p["layer2.weight"] + p["layer2.bias"]


def _soft_median(a, x, p):
    rank = 0.15 * torch.linalg.inv(torch.eye(len(a)) - 0.85 * norm(a + torch.eye(len(a))))

    def layer(h):
        out = []
        for i in range(len(a)):
            w, near = rank[i].topk(min(4, len(a)))
            middle = []
            for j in range(h.shape[1]):
                order = h[near, j].argsort()
                middle.append(h[near[order[int((w[order].cumsum(0) < 0.5 * w.sum()).sum())]], j])
            far = ((h - torch.stack(middle)).square().sum(1) + 1e-12).sqrt() / (0.5 * h.shape[1] ** 0.5)
            heard = torch.zeros(len(a), dtype=torch.bool).index_fill(0, near, True)
            s = (-far).exp() * torch.where(heard, rank[i], rank[i] - rank[i].detach())
            out.append(s @ h / s.sum())
        return torch.stack(out)

    h = (layer(x @ p["layer1.weight"]) + p["layer1.bias"]).relu()
    return layer(h @ p["layer2.weight"]) + p["layer2.bias"]


def _pro_gnn(a, x, p):
    unit = F.normalize(x, dim=1)
    smooth, sparse = F.softplus(p["smooth"]), F.softplus(p["sparse"])
    return _gcn(a * (1 - smooth * (1 - unit @ unit.T) - sparse).relu(), x, p)


DENSE = {"gcn": _gcn, "sage": _sage, "gin": _gin, "appnp": _appnp, "mlp": _mlp, "rgcn": _rgcn, "gat": _gat,
         "gnnguard": _gnnguard, "rung": _rung, "jaccard": _jaccard, "svd": _svd,
         "soft-median": _soft_median, "pro-gnn": _pro_gnn}  # fmt: skip
