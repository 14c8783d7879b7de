"""One sound for many utterances: added to each, or played before each; judged on utterances it was not made on.

A sample is a bundle of M utterances that an attack sees; the verdict is on M others (`Task.unseen`). Its objective is
the mean over the members, and asking about one perturbation costs M queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor

from advgym.core.goals import BundleGoal
from advgym.core.task import Spec, Task
from advgym.envs.speech.data import decoding
from advgym.envs.speech.data import digits as data
from advgym.envs.speech.data.clips import Clips, pack
from advgym.envs.speech.goals.transcripts import CtcGoal
from advgym.envs.speech.measures.columns import columns
from advgym.envs.speech.perturb.shared import PrependBatch, SharedBatch
from advgym.envs.speech.tasks.source import Source, finished, rate_of, source
from advgym.envs.speech.tasks.transcripts import Transcribed, ids_of, recogniser
from advgym.errors import AdvgymError, DataError
from advgym.lib.options import takes

UNSEEN = "what the verdict is on: other utterances of the same speakers, or the other half of the speakers"


class Shared(Transcribed, kw_only=True):
    """Of `additive`."""

    norm: Literal["linf", "l2"]
    utterances: Annotated[int, Meta(ge=1, description="M, how many utterances one perturbation is for")]
    unseen: Annotated[Literal["utterances", "speakers"], Meta(description=UNSEEN)]


class Played(Shared, kw_only=True):
    """Of `prepended`."""

    seconds: Annotated[float, Meta(gt=0, le=60, description="the length of the sound before each clip")]


class Pool(NamedTuple):
    """Utterances that bundles are dealt from."""

    clips: Clips
    labels: Tensor


@takes(Shared)
def additive(spec: Spec, options: Shared) -> Task:
    """A perturbation added to M utterances."""
    return _task(spec, options, SharedBatch, 0)


@takes(Played)
def prepended(spec: Spec, options: Played) -> Task:
    """A sound of `seconds` before each of M utterances; other options as of `additive`."""
    wide = max(1, round(options.seconds * rate_of(spec)))
    return _task(spec, options, partial(PrependBatch, wide=wide), wide)


def _task(spec: Spec, options: Shared, make: Callable[..., SharedBatch], wide: int) -> Task:
    members, rate = options.utterances, rate_of(spec)
    found = source(spec, data.utterances, data.line_sizes, data.LINE_SAMPLES, transcripts=True)
    victim, inner = recogniser(spec, options, found, spec.load_victim(), more=wide)
    pools = _pools(spec, options.unseen, found, inner)
    sizes = {split: _bundles(pools, split, members) for split in pools if split != "fit"}
    short = [split for split, many in sizes.items() if not many]
    if len(short) == len(sizes):
        raise DataError(
            f"no bundle of {members} utterances to see and as many others to be judged on: ask for fewer, utterances=, "
            "or give more"
        )

    def deal(split: str, ids: list[int], device: Any, *, unseen: bool) -> SharedBatch:
        pool, start = _part(pools, split, members, unseen)
        at = torch.tensor([[(start + i) * members + k for k in range(members)] for i in ids]) % len(pool.clips)
        wave = pool.clips.wave[at].float() / data.LEVELS
        tensors = (t.to(device) for t in (torch.tensor(ids), pool.labels[at], wave, pool.clips.length[at]))
        return make(*tensors, spec.threat.constraint, rate)

    goal = BundleGoal(inner, members)
    task = Task(
        spec.name, victim, goal, spec.threat, {k: v for k, v in sizes.items() if v},
        partial(deal, unseen=False), unseen=partial(deal, unseen=True), context={"rate": rate}, notes=found.notes,
        columns=columns(goal, rate),
    )  # fmt: skip
    return finished(task, found)


def _pools(spec: Spec, unseen: str, found: Source, goal: CtcGoal) -> dict[str, Pool]:
    """The utterances of each split, and under "fit" those that attacks on the other splits see."""
    if found.own:
        if unseen == "speakers":
            raise AdvgymError(
                "unseen='speakers' needs a dataset that names its speakers; of samples= give others, train="
            )
        parts = dict(found.own)
        if "train" in parts:
            parts["fit"] = parts["train"]
        else:  # one half to see, one to be judged on
            clips = parts["test"]
            half = len(clips) // 2
            parts["fit"], parts["test"] = _some(clips, slice(0, half)), _some(clips, slice(half, None))
    elif unseen == "speakers":
        parts = _by_speakers(spec.load_dataset())
        if (rate := rate_of(spec)) != data.RATE:
            parts = {name: decoding.resampled(clips, data.RATE, rate) for name, clips in parts.items()}
    else:
        parts = {split: found.load(split) for split, many in found.sizes.items() if many}
        parts["fit"] = parts.get("train", parts["test"])
    return {name: Pool(clips, ids_of(clips.texts, goal)) for name, clips in parts.items()}


def _some(clips: Clips, part: slice) -> Clips:
    return Clips(clips.wave[part], clips.length[part], clips.texts[part], clips.labels[part])


def _by_speakers(dataset: str) -> dict[str, Clips]:
    """Utterances of one half of the speakers to see, of the other half to be judged on."""
    samples = data.samples_of(dataset, data.LINE_SAMPLES)
    every = {split: data.source_words(dataset, split) for split in data.SPLITS}
    shared = {w.speaker for w in every["train"]} & {w.speaker for w in every["test"]}
    known = sorted(shared)
    if shared and len(known) < 2:
        raise DataError(f"unseen='speakers' needs two speakers at least; {dataset} has {', '.join(known) or 'none'}")
    first = set(known[: len(known) // 2])
    out = {}
    for split, words in every.items():
        mine = [w for w in words if not shared or (w.speaker in first) == (split == "train")]
        waves, texts = data.connect(mine, data.LINES[split], samples, 300 + data.SPLITS.index(split))
        out[split] = pack(waves, samples, texts)
    return {**out, "fit": out["train"]}


def _part(pools: dict[str, Pool], split: str, members: int, unseen: bool) -> tuple[Pool, int]:
    """The pool that a split's bundles are dealt from, and the first bundle: "train" is judged on its next bundle."""
    if not unseen:
        return pools["fit" if split != "train" else split], 0
    return pools[split], int(split == "train")


def _bundles(pools: dict[str, Pool], split: str, members: int) -> int:
    """Bundles of a split: as many as there are of utterances to see and of others to be judged on."""
    mine = len(pools[split].clips) // members
    if split == "train":
        return mine if mine > 1 else 0
    return min(mine, len(pools["fit"].clips) // members)
