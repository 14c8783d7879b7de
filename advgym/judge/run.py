"""Running an attack: assigned samples, in batches of lanes, judged by the verifier, resumable."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from advgym import registry
from advgym.core.clean import CHUNK, answer, assigned, unanswered
from advgym.core.clean import right as is_right
from advgym.core.columns import Meter
from advgym.core.env import AttackEnv
from advgym.core.goals import BundleGoal
from advgym.core.meters import REASONS
from advgym.core.offers import check_fit
from advgym.core.task import Task, check_knowledge, defend, make_task
from advgym.core.victim import Victim, resolve_device
from advgym.errors import AdvgymError, BudgetExhausted, Malformed, unknown
from advgym.judge import results
from advgym.judge.aims import Aims, check_aims, read_aims
from advgym.judge.blind import blind_flag
from advgym.judge.checkpoint import Checkpoint
from advgym.judge.columns import summarise
from advgym.judge.contract import CONTRACT
from advgym.judge.costs import at_most
from advgym.judge.evaluator import evaluator
from advgym.judge.figures import figures
from advgym.judge.flags import chance_flags, denied_flags, growth_flags, silent_flags, victim_flags
from advgym.judge.results import Result, Sample
from advgym.judge.verdict import judge, victim_card
from advgym.lib import machine
from advgym.lib.rates import wilson
from advgym.lib.settings import checked, settings_of
from advgym.lib.weights import fingerprint

Progress = Callable[[int, int, int], None]  # (done, total, successes)


def attack(
    task: str | Task, agent: str | registry.Agent | Callable[..., Any] = "pgd", *, episodes: int = 100,
    lanes: int = 64, device: Any = "cpu", seed: int = 0, split: str = "test", settings: dict[str, Any] | None = None,
    defenses: Any = (), out: str | Path | None = None, progress: Progress | None = None,
    measures: dict[str, str] | None = None, targets: Any = None, clean: int | None = None,
    told: Callable[[dict[str, int]], None] | None = None, **options: Any,
) -> Result:  # fmt: skip
    """Attack the first `episodes` samples of a split and let the verifier judge every one.

    Args:
        task: a name or a `Task`.
        agent: a registered name, or `attack(env, *, seed)`; a function without a name is called "own" in the result.
        settings: the agent's own keyword arguments.
        defenses: names or (name, settings) pairs that guard the victim, in order.
        out: a result file; an interrupted run leaves `<out>.partial` and goes on from it.
        measures: further columns of the task that need a model, and its name or folder: {"perplexity": "gpt2"}.
        targets: of a goal that takes them: one per assigned sample, or {sample: target, None: that of all others}.
        clean: measure clean accuracy over that many samples of the split, the assigned ones among them; None for all.
        told: hears before anything is asked how many inputs the victim will be asked about at most, by what for.
        options: the threat model's, as for `advgym.make`; `knowledge` defaults to what the agent declares.
    """
    started = time.perf_counter()
    entry = _entry(agent)
    settings = check_settings(entry, settings or {})
    if isinstance(task, str):
        row = registry.task_row(task)[1]
        if entry.origin:  # a registered one; a bare function declares nothing
            options.setdefault("knowledge", entry.knowledge)
        check_knowledge(task, options.get("knowledge", registry.KNOWLEDGE[0]), row, None)
    given = options.get("victim")
    before = dict(given.tally.rows) if isinstance(given, Victim) else {}
    made = defend(make_task(task, **options), defenses)
    tally = made.victim.tally
    if not callable(given):  # by name: what it was asked earlier is not this attack's
        before = dict(tally.rows)
    place = resolve_device(device)
    size = made.sizes[made.check_split(split)]
    if episodes < 1:
        raise AdvgymError(f"episodes is at least 1, not {episodes}")
    ids = assigned(size, episodes)
    asked = clean_ids(size, clean, len(ids))
    check_fit(entry, made, made.samples(split, ids[:1], place), settings)
    meter = Meter(made, measures)
    given, needs = made.threat.knowledge, entry.knowledge
    if entry.origin and given != "transfer" and registry.KNOWLEDGE.index(given) < registry.KNOWLEDGE.index(needs):
        raise AdvgymError(f"agent {entry.name!r} needs {needs!r} knowledge; this task gives {given!r}")
    if told:
        told(at_most(made, asked, ids, made.samples(split, ids[:1], place).members, split))
    share, right, flags = clean_pass(made, split, place, asked)
    todo = [i for i in ids if right[i]]
    aims = read_aims(made, targets, ids)
    if aims:
        check_aims(made, split, aims, todo, place)
    key = [
        made.name,
        entry.name,
        settings,
        str(options),
        str(_pairs(defenses)),
        seed,
        split,
        ids,
        lanes,
        meter.about,
        str(aims),
    ]
    log = Checkpoint(out, fingerprint([*key, str(made.threat), victim_card(made)]))
    rows = log.rows
    done = {s.id for s in rows}
    if progress:
        progress(len(rows), len(todo), sum(s.success for s in rows))
    for batch_ids in chunks(todo, lanes):
        missing = [i for i in batch_ids if i not in done]
        if len(missing) < len(batch_ids):
            continue  # batches are kept whole, so that lanes are the same as in an uninterrupted run
        start = dict(tally.rows)
        with tally.during("attack"):
            new, error = play(made, entry, batch_ids, place, seed, split, settings, meter, aims)
        rows += new
        log.add(new, error, tally.since(start))
        if progress:
            progress(len(rows), len(todo), sum(s.success for s in rows))
    flags += [f"agent crashed: {e}" for e in dict.fromkeys(log.crashed)] + _idle(rows)
    if entry.name == registry.OWN:
        flags.append(
            f"the agent is a function of the caller's own: {getattr(entry.attack, '__name__', 'without a name')}"
        )
    with tally.during("flags"):
        blind = blind_flag(made, split, todo, place)
    flags += [*denied_flags(rows), *silent_flags(rows, len(ids)), *([] if blind is None else [blind])]
    with tally.during("flags"):
        flags += growth_flags(
            made, rows, lambda wider, few: play(wider, entry, few, place, seed, split, settings, aims=aims)[0]
        )
    control = control_rate(made, split, todo, place, seed, aims)
    strangers = not isinstance(task, str) or any(not _plain(v) for v in options.values())
    own = {"own": True} if strangers or any(not isinstance(n, str) for n, _ in _given(defenses)) else {}
    shown = {k: v for k, v in options.items() if _plain(v)}
    found = figures(rows, episodes=len(ids), clean=share, goal=made.goal, budget=made.threat.queries)
    if found["success_rate"] <= control and control > 0 and entry.name != "noise" and rows:
        flags.append("no better than the random control")
    clean_of = len(right) if asked is None else len(asked)
    result = Result(
        **found, task=made.name, agent=entry.name, defense="+".join(made.defenses) or "none", seed=seed,
        device=machine.device_name(place), versions=machine.versions(), episodes=len(ids), control_rate=control,
        seconds=round(log.seconds + time.perf_counter() - started, 3), flags=flags, split=split, lanes=lanes,
        threat=dict(msgspec.to_builtins(made.threat, builtin_types=())), options={**shown, **own}, settings=settings,
        defenses=[[n, s] for n, s in _pairs(defenses)], victim=victim_card(made), samples=rows,
        columns=summarise(rows, {} if made.columns is None else made.columns.bars), columns_about=meter.about,
        contract=CONTRACT, clean_of=clean_of, clean_size=size, asked=tally.since(before, log.asked),
        clean_ci=wilson(round(share * clean_of), clean_of) if clean_of else None,
    )  # fmt: skip
    if out is not None:
        results.save(result, out)
        log.close()
    return result


def play(
    task: Task, entry: registry.Agent, ids: list[int], device: Any, seed: int, split: str, settings: dict[str, Any],
    meter: Meter | None = None, aims: Aims | None = None,
) -> tuple[list[Sample], str]:  # fmt: skip
    """One batch of episodes, one row each, and the agent's error if it crashed."""
    env = AttackEnv(task, proposals=entry.proposals, split=split, device=device, assigned=ids)
    ours = evaluator(env)
    env.reset(seed=seed)  # the evaluator's, so that targets are not the agent's choice
    if aims:
        ours.deal(ids, [aims[i] for i in ids], seed)
    check_fit(entry, task, ours.batch, settings)
    error = ""
    try:
        ours.hand_in(entry.attack(env, seed=seed, **settings))
    except BudgetExhausted:
        pass
    except Exception as failure:
        if isinstance(failure, AdvgymError) and not isinstance(failure, Malformed):
            raise  # the task's or the victim's, not the agent's
        frame = inspect.trace()[-1]
        error = f"{type(failure).__name__}: {failure} ({Path(frame.filename).name}, line {frame.lineno})"
    book, batch, targets = ours.book, ours.batch, ours.targets
    stored = ours.stored()  # an appended choice means something in its own table only
    tally = task.victim.tally
    with tally.during("flags" if tally.phase == "flags" else "verdict"):
        found = judge(task, split, ids, stored, device=device, seed=seed, targets=targets)
    distinct, won_at = book.queries_distinct(), book.first_success
    measured = meter.rows(batch, ours.form()) if meter else [{}] * len(ids)
    rows = []
    for i, sample in enumerate(ids):
        success = bool(found.success[i])
        first = int(won_at[i])
        used = int(book.used[i])
        reason = REASONS[int(book.reason[i])] or ("crashed" if error else "stopped")
        reason = results.SILENT if bool(found.silent[i]) else reason
        rows.append(
            Sample(
                id=sample, label=batch.labels[i].tolist(),
                before=found.before[i].tolist(), after=found.after[i].tolist(),
                success=success, valid=bool(found.valid[i]), objective=float(found.objective[i]), queries=used,
                queries_distinct=int(distinct[i]), first_success=(first if first >= 0 else used) if success else -1,
                gradients=task.threat.gradients - int(book.gradients_left[i]), distance=float(found.distance[i]),
                reason=reason, perturbation=stored[i], target=None if targets is None else targets[i],
                columns=measured[i],
            )
        )  # fmt: skip
    return rows, error


@torch.no_grad()
def clean_pass(
    task: Task, split: str, device: Any, some: list[int] | None = None
) -> tuple[float, np.ndarray, list[str]]:
    """(clean accuracy, which samples are right, flags about the victim).

    Args:
        some: the samples that are asked; None for the whole split. All others count as not right.
    """
    victim, size = task.victim.on(device), task.sizes[split]
    right = np.zeros(size, dtype=np.bool_)
    flags: list[str] = []
    silent, labels = 0, []
    every = list(range(size)) if some is None else sorted(some)
    for start in range(0, len(every), CHUNK):
        ids = every[start : start + CHUNK]
        batch = task.samples(split, ids, device)
        with victim.tally.during("clean"):
            scores = answer(victim, batch, task.goal)
        right[ids] = is_right(task.goal, scores, batch.labels).cpu().numpy()
        silent += int(unanswered(scores).sum())
        labels.append(batch.labels.cpu())
        if start == 0:
            flags = victim_flags(task, victim, batch, scores)
    if silent:
        flags.append(f"{silent} of {len(every)} clean samples have no answer ({victim.why}) and count as wrong")
    found = right[every]
    return float(found.mean()), right, [*flags, *chance_flags(task.goal, torch.cat(labels), found)]


def clean_ids(size: int, clean: int | None, episodes: int) -> list[int] | None:
    """The samples that clean accuracy is over: `clean` of the split in the order of assignment; None for all."""
    if clean is None or clean >= size:
        return None
    if clean < episodes:
        raise AdvgymError(f"clean accuracy is over the {episodes} assigned samples at least, not over {clean}")
    return assigned(size, clean)


def control_rate(
    task: Task, split: str, ids: list[int], device: Any, seed: int, aims: Aims | None = None
) -> float:  # fmt: skip
    """Success of one random valid perturbation per sample: the control row beside every attack."""
    with task.victim.tally.during("control"):
        return _control_rate(task, split, ids, device, seed, aims)


def _control_rate(task: Task, split: str, ids: list[int], device: Any, seed: int, aims: Aims | None) -> float:
    wins = 0.0
    for part in chunks(ids, CHUNK):
        batch = task.samples(split, part, device)
        targets = None
        if aims:
            targets = [task.goal.parse_target(aims[i]) for i in part]
        elif task.goal.needs_target:
            ref = task.goal.output(answer(task.victim.on(device), batch, task.goal))
            targets = list(task.goal.targets(seed, batch.ids, ref).cpu())
        found = judge(task, split, part, batch.random(seed), device=device, seed=seed, targets=targets)
        if isinstance(task.goal, BundleGoal):  # success counts members
            turned = (found.after != found.before).reshape(len(part), task.goal.members, -1).any(2)
            wins += float(turned.double().mean(1).sum())
        else:
            wins += float(found.success.sum())
    return wins / len(ids) if ids else 0.0


def check_settings(entry: registry.Agent, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as the agent takes them, or an error that says what is allowed."""
    if "seed" in settings:
        raise unknown(f"setting of {entry.name}", "seed", agent_settings(entry), "The seed stands beside the settings.")
    if entry.argument in settings and entry.argument:
        raise AdvgymError(f"{entry.argument!r} of {entry.name} is what stands after the colon of its name")
    return checked(entry.name, entry.attack, settings, entry.allowed)


def agent_settings(entry: registry.Agent) -> dict[str, Any]:
    """The agent's keyword arguments and their defaults, `seed` and what its name gives aside."""
    return {name: default for name, default in settings_of(entry.attack).items() if name != entry.argument}


def _idle(rows: list[Sample]) -> list[str]:
    """A flag where an agent asked nothing and changed nothing, which shows no robustness."""
    idle = rows and not any(s.queries or s.gradients or s.distance or s.success or s.reason == "crashed" for s in rows)
    return [results.IDLE] if idle else []


def chunks(items: list[int], size: int) -> list[list[int]]:
    """Consecutive parts of at most `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def _entry(agent: str | registry.Agent | Callable[..., Any]) -> registry.Agent:
    """The agent of a name, of itself, or of a function: a registered one has its name, any other is "own"."""
    if isinstance(agent, str | registry.Agent):
        return registry.agent(agent) if isinstance(agent, str) else agent
    return registry.entry_of(agent) or registry.Agent(registry.OWN, agent, registry.KINDS, "white-box")


def _pairs(defenses: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(n if isinstance(n, str) else getattr(n, "__name__", "own"), s) for n, s in _given(defenses)]


def _given(defenses: Any) -> list[tuple[Any, dict[str, Any]]]:
    items = [defenses] if isinstance(defenses, str) or callable(defenses) else list(defenses)
    return [i if isinstance(i, tuple) else (i, {}) for i in items]


def _plain(value: Any) -> bool:
    """What a result file can hold, and a later run can be given again."""
    scalar = str | int | float | bool
    return isinstance(value, scalar) or (isinstance(value, list) and all(isinstance(v, scalar) for v in value))
