"""Single-edge candidates on Cora: the local evaluation against one full PyG forward per candidate, in one run.

Needs ADVGYM_DATA. Command: python -m benchmarks.graph.graph_candidates
"""

import time

import torch
from torch_geometric.nn.conv.gcn_conv import gcn_norm

import advgym.core.task

TARGETS, CANDIDATES, FULL = 50, 500, 100


def main() -> None:
    torch.set_num_threads(1)
    task = advgym.core.task.make_task("graph/cora-edge")
    model = task.victim.model
    batch = task.samples("test", list(range(TARGETS)))
    graph = batch.graph
    generator = torch.Generator().manual_seed(0)
    other = torch.stack([torch.randperm(graph.size - 1, generator=generator)[:CANDIDATES] for _ in range(TARGETS)])
    other = other + (other >= batch.target.unsqueeze(1))  # any node but the target
    rows = torch.arange(TARGETS).repeat_interleave(CANDIDATES)
    proposal = torch.full((len(rows), batch.rows_max, 2), -1)
    proposal[:, 0, 0], proposal[:, 0, 1] = batch.target[rows], other.flatten()

    def ours() -> torch.Tensor:
        look = batch.look(proposal, rows)
        assert bool(look.valid.all())
        return task.victim(batch.inputs(look.form, rows))

    with torch.no_grad():
        ours()  # tables of the clean graph, computed once for a victim
        started = time.process_time()
        scores = ours()
        local = (time.process_time() - started) / len(rows)

        x, edges = graph.inputs_x(), graph.edge_index()
        model.full(x, edges)
        worst, spent = 0.0, 0.0
        for i in torch.randperm(len(rows), generator=generator)[:FULL].tolist():
            a, b = proposal[i, 0].tolist()
            started = time.process_time()
            hit = ((edges[0] == a) & (edges[1] == b)) | ((edges[0] == b) & (edges[1] == a))
            flipped = edges[:, ~hit] if bool(hit.any()) else torch.cat([edges, torch.tensor([[a, b], [b, a]])], 1)
            full = model.full(x, flipped)[a]
            spent += time.process_time() - started
            worst = max(worst, float((full - scores[i]).abs().max()))
        full_time = spent / FULL

        # A peer that also keeps x W1, as no library does by itself.
        message = model.conv1.lin(x)
        started = time.process_time()
        for _ in range(FULL):
            at, weight = gcn_norm(flipped, None, graph.size)
            hidden = (model.conv1.propagate(at, x=message, edge_weight=weight) + model.conv1.bias).relu()
            model.conv2.propagate(at, x=model.conv2.lin(hidden), edge_weight=weight)
        kept_time = (time.process_time() - started) / FULL
    print(f"candidates: {len(rows)} ({TARGETS} targets x {CANDIDATES}), CPU time, one thread")
    print(f"local evaluation:   {local * 1e3:.4f} ms per candidate (look + inputs + victim)")
    print(f"full PyG forward:   {full_time * 1e3:.4f} ms per candidate (mean of {FULL})")
    print(f"... with x W1 kept: {kept_time * 1e3:.4f} ms per candidate")
    print(f"ratio:              {full_time / local:.0f}x ({kept_time / local:.0f}x with x W1 kept)")
    print(f"max |logit diff|:   {worst:.2e}")


if __name__ == "__main__":
    main()
