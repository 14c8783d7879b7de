"""The GCN of the recipes and the GCN of the zoo: one function of a graph, with weights of their own."""

import torch

from advgym.core.task import load_victim
from advgym.envs.graph.data.datasets import load_nodes
from advgym.envs.graph.inputs.global_rows import GlobalRows
from advgym.envs.graph.inputs.rows import GraphRows
from advgym.envs.graph.models.convolutions import GCN
from advgym.lib.weights import weights_hash

SHIPPED = {"karate-gcn": "8f1e3d6600933e01", "sbm-gcn": "d0f36141a68c59da"}


def test_shipped_weights_answer_alike_in_both():
    for name, want in SHIPPED.items():
        data, shipped = load_nodes(name.removesuffix("-gcn")), load_victim(name).model
        assert weights_hash(shipped)[:16] == want
        size = data.graph.size
        zoo = GCN(data.graph.features, data.classes).eval().requires_grad_(False)
        names = {"layer1": "conv1", "layer2": "conv2"}
        theirs = shipped.state_dict()
        zoo.load_state_dict(
            {f"{ours}.weight": theirs[f"{pyg}.lin.weight"].T for ours, pyg in names.items()}
            | {f"{ours}.bias": theirs[f"{pyg}.bias"] for ours, pyg in names.items()}
        )
        nodes, g = torch.arange(size), torch.Generator().manual_seed(0)
        ends = torch.randint(0, size, (size, 3), generator=g)
        flips = torch.stack([nodes.unsqueeze(1).expand(-1, 3), ends], 2)
        flips[flips[..., 0] == flips[..., 1]] = -1
        whole = GlobalRows(data.graph, nodes, flips[:8])
        near = GraphRows(data.graph, nodes, flips)
        for rows in (whole, near):
            torch.testing.assert_close(zoo(rows), shipped(rows), atol=1e-5, rtol=0)
