"""PyG's own attacks on edges, unmodified, as agents: `pyg:prbcd` and `pyg:grbcd` (Geisler et al. 2021).

The library samples its blocks, makes its steps and picks its set; every forward goes through our metered victim. It has
no batching, so lanes are played one after the other, and it sees gradients by edge weights, so knowledge is white-box.
"""

from __future__ import annotations

import contextlib
import warnings

import torch
from torch import Tensor, nn

from advgym import register_agent
from advgym.errors import AdvgymError, BudgetExhausted, unknown
from advgym.lib.foreign import own_states
from advgym.lib.settings import COUNT, NATURAL, POSITIVE

BLOCK = 250_000  # as in PyG's example
KINDS = {"prbcd": "PRBCDAttack", "grbcd": "GRBCDAttack"}


@register_agent(
    "pyg",
    kind="edits",
    knowledge="white-box",
    argument="attack",
    needs=("edges",),
    allowed={"block": COUNT, "epochs": COUNT, "resampling": NATURAL, "lr": POSITIVE},
)
def attack(env, *, attack, block=BLOCK, epochs=125, resampling=100, lr=1000, loss="", seed=0):
    """One of PyG's block coordinate descents over edge flips.

    Args:
        attack: "prbcd" or "grbcd".
        block: pairs searched at once; epochs, resampling (the epochs that draw new blocks), lr, loss: as PyG has them,
            "" for its own default; `resampling` and `lr` are prbcd's alone.

    The library cannot be told to leave other nodes alone: on a task of one target, its flips elsewhere are dropped.
    """
    if attack not in KINDS:
        raise unknown("attack of PyG", attack, KINDS)
    settings = {"epochs": epochs, "log": False, **({"loss": loss} if loss else {})}
    if attack == "prbcd":
        settings.update(epochs_resampling=resampling, lr=lr)
    obs, _ = env.reset(seed=seed)
    if "edge_index" not in env.context or env.table.key != "pair":
        raise AdvgymError("PyG's attacks flip edges of one graph: play tasks such as graph/cora-edge or cora-global")
    size = env.context["num_nodes"]
    clean, blank = env.context["edge_index"].to(env.device), torch.zeros(size, 1, device=env.device)
    state, reference = env.threat.null(), obs["output"]
    seeds = env.draws(seed).integers(2**31 - 1)
    for lane in env.live.nonzero().squeeze(1).tolist():
        model = Metered(env, lane, size)
        nodes = model.nodes
        labels = torch.zeros(size, dtype=torch.int64, device=env.device)
        labels[nodes] = reference[lane].reshape(-1)
        peer = _library(KINDS[attack])(model, min(block, size * (size - 1) // 2), **settings)
        with own_states(int(seeds[lane])), contextlib.suppress(BudgetExhausted):
            pairs = peer.attack(blank, clean, labels, int(env.table.limit[lane]), nodes)[1].T
            state[lane] = _as_edits(env, state[lane], pairs.to(env.device), model.target)
    state = env.threat.project(state)
    if not env.done:
        env.step(state)
    return state


class Metered(nn.Module):
    """Our metered victim as PyG calls a model; rows of nodes that nobody asks about stay zero.

    Attributes:
        nodes: int64 (M,), the nodes that the lane's episode is about.
        target: the one node of a direct attack, None where flips may be anywhere.
    """

    def __init__(self, env, lane: int, size: int) -> None:
        super().__init__()
        self.env, self.lane, self.size = env, lane, size
        self.rows = env.threat.apply(env.threat.null()).of_lane(lane)
        self.nodes = self.rows.asked
        sites = env.table.site_mask()[lane].nonzero().squeeze(1)
        self.target = int(sites[0]) if len(sites) == 1 else None
        if self.target is None and len(self.nodes) == 1:
            raise AdvgymError("PyG's attacks have no influence attack: play the task with influence=false")

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        """Scores (N, C) of a graph of weighted edges; one query."""
        lanes = torch.tensor([self.lane], device=edge_index.device)
        answer = self.env.victim(self.rows.raw(edge_index, edge_weight), lanes).flatten(0, -2)
        return answer.new_zeros(self.size, answer.shape[1]).index_copy(0, self.nodes, answer)


def _library(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "experimental code"
        from torch_geometric.contrib import nn as contrib
    return getattr(contrib, name)


def _as_edits(env, state: Tensor, pairs: Tensor, target: int | None) -> Tensor:
    """Undirected pairs as edits of the lane: the smaller node first, or the target where there is one."""
    pairs = pairs.sort(1).values.unique(dim=0)
    if target is not None:
        pairs = pairs[(pairs == target).any(1)]
        pairs = torch.stack([torch.full_like(pairs[:, 0], target), pairs.sum(1) - target], 1)
    pairs = pairs[: len(state)]
    return state.index_copy(0, torch.arange(len(pairs), device=state.device), pairs)
