"""Shards on a Ray cluster. Only bytes and this module's own function go there; isolation stays ours, inside the task.

Every node needs advgym, the server's data folder under the same path, and a sandbox. Ray itself is no boundary: run it
where only the organiser reaches it (its token authentication on, no dashboard).
"""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from advgym.leaderboards.entries.card import pack
from advgym.leaderboards.runs.rivals import Rivals, unpacked
from advgym.leaderboards.runs.shards import Runner, Shard, ShardRun
from advgym.leaderboards.runs.stage import Stage
from advgym.leaderboards.sandbox import Box
from advgym.leaderboards.sandbox.workfolder import WorkFolder
from advgym.leaderboards.service.plan import Plan, boards_of
from advgym.lib.extras import need

AHEAD = 2  # shards placed for every core of the cluster


class RayEngine:
    """Places every shard as one Ray task; it asks for a GPU where victims live on one.

    Args:
        plan: the server's (`advgym.leaderboards.service.plan.Plan`).
    """

    def __init__(self, plan: Any) -> None:
        ray = need("ray", "--engine ray (--engine local needs nothing more)")
        self._ray, self.plan = ray, plan
        if not ray.is_initialized():  # a cluster where RAY_ADDRESS names one, else this machine
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        gpus = 1 if str(plan.device).startswith("cuda") else 0
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=2)(run_shard)

    def __call__(self, shards: list[Shard], runner: Runner) -> Iterator[ShardRun]:
        """See `Engine`. A window of shards is placed ahead: when the caller stops listening, the rest never is."""
        stage, size = runner.stage, runner.stage.board.limits.size_mb
        order = (msgspec.to_builtins(self.plan), stage.board.name, stage.phase, pack(runner.folder, size_mb=size))
        shared = self._ray.put(msgspec.msgpack.encode(order))
        ahead = int(AHEAD * max(1.0, self._ray.cluster_resources().get("CPU", 1.0)))
        refs = deque[Any]()
        waiting = iter(shards)
        while True:
            for shard in islice(waiting, ahead - len(refs)):
                refs.append(self._task.remote(shared, msgspec.msgpack.encode(shard)))
            if not refs:
                return
            runner.level, run = msgspec.msgpack.decode(self._ray.get(refs.popleft()), type=tuple[str, ShardRun])
            yield run


_stages: dict[tuple[str, str], Stage] = {}  # of this node's process: what it has loaded
_here: dict[bytes, tuple[Runner, Rivals, WorkFolder]] = {}  # and the submission that it runs


def run_shard(order: bytes, shard: bytes) -> bytes:
    """One shard on a node: (level of the sandbox, what it gave), as msgpack."""
    import torch

    torch.set_num_threads(1)
    if order not in _here:
        _clear()
        _here[order] = _open(*msgspec.msgpack.decode(order))
    runner = _here[order][0]
    run = runner.run(msgspec.msgpack.decode(shard, type=Shard))
    return msgspec.msgpack.encode((runner.level, run))


def _open(plan_: dict[str, Any], board: str, phase: str, archive: bytes) -> tuple[Runner, Rivals, WorkFolder]:
    plan = msgspec.convert(plan_, Plan)
    if (board, phase) not in _stages:
        _stages[board, phase] = Stage(boards_of(plan)[board], phase, Path(plan.root), plan.device)
    stage, scratch = _stages[board, phase], WorkFolder("ray")
    take = partial(Box, plan.level)
    rivals, folder = Rivals(stage, Path(plan.root), take), scratch.path / "submission"
    return Runner(stage, unpacked(archive, folder, stage.board), folder, take, rival=rivals), rivals, scratch


@atexit.register
def _clear() -> None:
    for runner, rivals, scratch in _here.values():
        runner.close()
        rivals.__exit__()
        scratch.close()
    _here.clear()
