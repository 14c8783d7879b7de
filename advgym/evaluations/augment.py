"""Examples to train on: a data set with perturbed or adversarial versions of its samples, and training with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advgym import registry
from advgym.core.clean import CHUNK, Clean
from advgym.core.own.back import Item, clean_items, items
from advgym.core.task import Task, make_task
from advgym.core.victim import Victim, resolve_device
from advgym.errors import AdvgymError
from advgym.evaluations import subject
from advgym.judge.play import chunks, play
from advgym.judge.results import Sample
from advgym.judge.run import check_settings
from advgym.report.augmented import Augmented, input_of, shares
from advgym.report.examples import forms
from advgym.report.written import label_of

RANDOM = "random"  # in an agent's place: draws within the threat model, and no victim is asked


def augment(
    data: Any = None, *, task: str | Task | None = None, victim: Any = None, agent: str = RANDOM, per_sample: int = 1,
    fraction: float | None = None, keep: bool = True, wins: bool = False, most: int | None = None, seed: int = 0,
    split: str | None = None, settings: dict[str, Any] | None = None, lanes: int = 64, device: Any = "cpu",
    progress: Callable[[int, int], None] | None = None, **options: Any,
) -> Augmented:  # fmt: skip
    """Perturbed versions of every sample: random ones within the threat model, or an agent's against a victim.

    Randomness is keyed by (seed, sample, nth): the same call gives the same rows, whatever the lanes. A version that is
    equal to its original, or to an earlier one, is left out.

    Args:
        data: samples, a data set's name or a path, as of `advgym.attack`; None for the task's own.
        task: a name or a `Task`; None where the data tell what they are.
        victim: that an agent plays against; random versions need none.
        agent: "random", or an agent's name. An agent plays the samples that the victim has right.
        per_sample: versions of each sample, by as many seeds.
        fraction: of the words that may change, above 0 and at most 1 (tasks whose constraint has `share`).
        keep: the originals too.
        wins: of an agent's versions those alone that the victim gets wrong.
        most: at most so many samples, the first of the split.
        split: "train" of a registered data set, "test" (the only one) of the caller's own.
        settings: of the agent; options: the threat model's, as for `advgym.make`.

    Raises:
        AdvgymError: for what cannot be: no victim for an agent, a fraction where no words are, a graph's nodes.
    """
    if per_sample < 1:
        raise AdvgymError(f"per_sample is at least 1, not {per_sample}")
    made = _task(data, task, victim, agent, fraction, options)
    split = split or ("train" if "train" in made.sizes and not _is_own(data) else "test")
    size = made.sizes[made.check_split(split)]
    ids = list(range(size if most is None else min(most, size)))
    out = Augmented(made.name, seed, agent)
    drawn = _drawn if agent == RANDOM else _played
    found = drawn(made, split, ids, per_sample, seed, agent, settings, lanes, device, progress)
    for part in chunks(ids, CHUNK):
        batch = made.samples(split, part, device)
        for i, sample in enumerate(part):
            clean = _one(clean_items(made, batch, i))
            label = _label(made, batch, i)
            seen = [_key(clean)]
            if keep:
                out.rows.append({"sample": sample, "nth": 0, "kind": "original", "label": label, **clean})
            for nth, (item, about) in enumerate(found.get(sample, []), 1):
                if _key(item) in seen or (wins and about.get("success") is False):
                    continue
                seen.append(_key(item))
                kind = "random" if agent == RANDOM else "adversarial"
                out.rows.append({"sample": sample, "nth": nth, "kind": kind, "label": label, **item, **about})
    return out


def harden(
    fit: Callable[[list[Any], list[Any]], Any], data: Any, *, agent: str, rounds: int = 1, told: Any = None,
    **options: Any,
) -> tuple[Any, list[Augmented]]:  # fmt: skip
    """Adversarial training of any model that can be fitted again: (the model, what each round added).

    A round attacks the model on the training data and fits it anew on the originals and all versions so far; the labels
    stay. What this gains is to be measured on samples that were not trained on.

    Args:
        fit: (inputs, labels) -> a model, as `victim=` takes it.
        data: the training samples.
        agent: the attack; rounds: how often.
        told: hears each round's `Augmented`.
        options: as of `augment`.
    """
    if rounds < 1:
        raise AdvgymError(f"rounds is at least 1, not {rounds}")
    plain = augment(data, agent=RANDOM, **{**options, "per_sample": 1, "wins": False, "settings": None})
    originals = [row for row in plain.rows if row["kind"] == "original"]
    inputs, labels = [input_of(row) for row in originals], [row["label"] for row in originals]
    model, history = fit(inputs, labels), []
    for nth in range(rounds):
        seed = int(options.get("seed", 0)) + nth
        added = augment(data, victim=model, agent=agent, **{**options, "seed": seed, "keep": False})
        history.append(added)
        if told is not None:
            told(added)
        inputs, labels = inputs + added.inputs, labels + added.labels
        model = fit(inputs, labels)
    return model, history


# -- the task --------------------------------------------------------------------------------------------------------
def _task(data: Any, task: Any, victim: Any, agent: str, fraction: float | None, options: dict[str, Any]) -> Task:
    if isinstance(task, Task):
        return task
    if agent != RANDOM:
        registry.agent(agent)
        if victim is None and (task is None or "victim" not in registry.task_row(task)[1]):
            raise AdvgymError(f"agent {agent!r} plays against a victim: pass victim=, or agent='random'")
        options = {"knowledge": registry.agent(agent).knowledge, **options}
    nobody = None
    if victim is None and agent == RANDOM:  # it is asked nothing that matters
        victim = nobody = Victim(lambda x, *_: [0] * len(x), name="nobody", access="labels")
    if task is None:
        found = subject.read(victim, data)
        task, given = found.task, {k: v for k, v in found.options.items() if k != "victim"}
    else:
        task = registry.task_row(task)[0]
        given = {} if data is None else subject.given(data)
    constraint = registry.task_row(task)[1].get("constraint", {})
    if fraction is not None:
        if "share" not in constraint:
            raise AdvgymError(
                f"fraction= is of words, and {task} has none to count: its limits are {', '.join(constraint)}"
            )
        if not 0 < fraction <= 1:
            raise AdvgymError(f"fraction is above 0 and at most 1, not {fraction!r}")
        options = {"edits": 0, "share": fraction, **options}
    if victim is nobody and nobody is not None:
        options = {**options, "knowledge": "decision"}
    made = _made(task, given, victim, nobody, options)
    if shares(made):
        raise AdvgymError(
            f"{made.name} perturbs one whole that many samples share: there is nothing to augment sample by sample. "
            "`advgym list defenses` has those that train on perturbed ones"
        )
    return made


def _made(name: str, given: dict[str, Any], victim: Any, nobody: Victim | None, options: dict[str, Any]) -> Task:
    """The task; where nobody cannot stand in for a victim, with its own."""
    more = {} if victim is None else {"victim": victim}
    try:
        return make_task(name, **given, **more, **options)
    except AdvgymError:
        if victim is not nobody or nobody is None:
            raise
        if "victim" not in registry.task_row(name)[1]:
            raise AdvgymError(
                f"{name} is made from a victim's answers: pass victim=, though none is attacked"
            ) from None
    return make_task(name, **given, **{k: v for k, v in options.items() if k != "knowledge"})


def _is_own(data: Any) -> bool:
    return data is not None and not isinstance(data, str)


# -- versions --------------------------------------------------------------------------------------------------------
Found = dict[int, list[tuple[Item, dict[str, Any]]]]


def _drawn(
    made: Task, split: str, ids: list[int], many: int, seed: int, agent: str, settings: Any, lanes: int, device: Any,
    progress: Any,
) -> Found:  # fmt: skip
    """Random valid perturbations, `many` of each sample."""
    out: Found = {i: [] for i in ids}
    for part in chunks(ids, lanes):
        batch = made.samples(split, part, device)
        for nth in range(many):
            form = batch.look(batch.random(seed * 1_000_003 + nth)).form
            for i, sample in enumerate(part):
                out[sample].append((_one(items(made, batch, i, form[i])), {}))
        if progress is not None:
            progress(part[-1] + 1, len(ids))
    return out


def _played(
    made: Task, split: str, ids: list[int], many: int, seed: int, agent: str, settings: Any, lanes: int, device: Any,
    progress: Any,
) -> Found:  # fmt: skip
    """What an agent holds at the end of `many` attacks with seeds of their own; nothing where the victim is wrong.

    Raises:
        AdvgymError: for an agent that crashes, or does not fit the task.
    """
    entry, place = registry.agent(agent), resolve_device(device)
    settings = check_settings(entry, settings or {})
    known = Clean(made, split, place, made.victim.on(place))
    out: Found = {i: [] for i in ids}
    for part in chunks(ids, lanes):
        for nth in range(many):
            rows, error = play(made, entry, part, place, seed + nth, split, settings, clean=known)
            if error:
                raise AdvgymError(f"agent {agent!r} crashed on {made.name}: {error}")
            batch, held = forms(made, split, rows)
            for i, s in enumerate(rows):
                out[s.id].append((_one(items(made, batch, i, held[i])), _about(s)))
        if progress is not None:
            progress(part[-1] + 1, len(ids))
    return out


def _about(s: Sample) -> dict[str, Any]:
    return {"success": s.success, "queries": s.queries, "distance": s.distance}


def _one(found: list[Item]) -> Item:
    if len(found) != 1:
        raise AdvgymError("a task on bundles perturbs several samples at once: augment by the task on single ones")
    return found[0]


def _key(item: Item) -> tuple[Any, ...]:
    return tuple(v.tobytes() if hasattr(v, "tobytes") else v for v in item.values())


def _label(made: Task, batch: Any, row: int) -> Any:
    """As the data have it: a number, the name of a class that has one, or a transcript."""
    import torch

    label = batch.labels[row].cpu()
    if label.dim():
        return label_of(made, label.tolist())
    said = made.goal.describe(torch.as_tensor(label))
    if said.isdecimal() or said == f"LABEL_{int(label)}":  # as transformers calls classes without a name
        return int(said.removeprefix("LABEL_"))
    return said
