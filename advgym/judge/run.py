"""Running an attack: assigned samples, in batches of lanes, judged by the verifier, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from advgym import registry
from advgym.core.clean import Clean, assigned
from advgym.core.columns import Meter
from advgym.core.offers import check_fit
from advgym.core.tally import Tally
from advgym.core.task import Task, check_knowledge, defend, make_task
from advgym.core.victim import Victim, resolve_device
from advgym.errors import AdvgymError, unknown
from advgym.judge import results
from advgym.judge.aims import check_aims, read_aims
from advgym.judge.blind import blind_flag
from advgym.judge.callbacks import Calls, Run
from advgym.judge.checkpoint import Checkpoint
from advgym.judge.checks import flag
from advgym.judge.columns import summarise
from advgym.judge.contract import CONTRACT
from advgym.judge.costs import at_most
from advgym.judge.figures import figures
from advgym.judge.flags import denied_flags, growth_flags, silent_flags
from advgym.judge.play import chunks, clean_ids, clean_pass, control_rate, play
from advgym.judge.results import Result, Sample
from advgym.judge.verdict import victim_card
from advgym.lib import machine
from advgym.lib.extras import says_missing
from advgym.lib.rates import wilson
from advgym.lib.settings import check_seed, checked, settings_of
from advgym.lib.weights import fingerprint

Progress = Callable[[int, int, int], None]  # (done, total, successes)


@says_missing
def attack(
    task: str | Task, agent: str | registry.Agent | Callable[..., Any] = "pgd", *, episodes: int = 100,
    lanes: int = 64, device: Any = "cpu", seed: int = 0, split: str = "test", settings: dict[str, Any] | None = None,
    defenses: Any = (), out: str | Path | None = None, progress: Progress | None = None,
    measures: dict[str, str] | None = None, targets: Any = None, clean: int | None = None,
    told: Callable[[dict[str, int]], None] | None = None, callbacks: Any = (), **options: Any,
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
        callbacks: one or several `advgym.Callback`, told of the start, of every finished batch, and of the result.
        options: the threat model's, as for `advgym.make`; `knowledge` defaults to what the agent declares.
    """
    started = time.perf_counter()
    entry, seed = _entry(agent), check_seed(seed)
    settings = check_settings(entry, settings or {})
    made, before = _made(task, entry, options, defenses)
    tally, place = made.victim.tally, resolve_device(device)
    size = made.sizes[made.check_split(split)]
    if episodes < 1:
        raise AdvgymError(f"episodes is at least 1, not {episodes}")
    ids = assigned(size, episodes)
    asked = clean_ids(size, clean, len(ids))
    first = made.samples(split, ids[:1], place)
    check_fit(entry, made, first, settings)
    meter = Meter(made, measures)
    _check_told(entry, made)
    if told:
        told(at_most(made, asked, ids, first.members, split))
    known = Clean(made, split, place, made.victim.on(place))
    share, right, flags = clean_pass(made, split, place, asked, known)
    todo = [i for i in ids if right[i]]
    aims = read_aims(made, targets, ids)
    if aims:
        check_aims(made, split, aims, todo, place, known)
    key = [made.name, entry.name, settings, str(options), str(_pairs(defenses)), seed, split, ids, lanes, meter.about,
           str(aims)]  # fmt: skip
    log = Checkpoint(out, fingerprint([*key, str(made.threat), victim_card(made)]))
    calls = Calls(callbacks)
    calls.start(Run(made.name, entry.name, made.victim.name, len(ids), len(todo), seed, split,
                    dict(msgspec.to_builtins(made.threat, builtin_types=())), settings))  # fmt: skip

    def batch(task: Task, some: list[int], meter: Meter | None = None) -> tuple[list[Sample], str]:
        return play(task, entry, some, place, seed, split, settings, meter, aims, known)

    rows = _play_all(todo, lanes, log, tally, lambda some: batch(made, some, meter), progress, calls)
    flags += _flags(made, entry, rows, log.crashed, len(ids))
    with tally.during("flags"):
        blind = blind_flag(made, split, todo, place)
        flags += [blind] if blind else []
        flags += growth_flags(made, rows, lambda wider, few: batch(wider, few)[0])
    control = control_rate(made, split, todo, place, seed, aims, known)
    found = figures(rows, episodes=len(ids), clean=share, goal=made.goal, budget=made.threat.queries)
    if found["success_rate"] <= control and control > 0 and entry.name != "noise" and rows:
        flags.append(flag("no-better-than-noise"))
    clean_of = len(right) if asked is None else len(asked)
    result = Result(
        **found, task=made.name, agent=entry.name, defense="+".join(made.defenses) or "none", seed=seed,
        device=machine.device_name(place), versions=machine.versions(), episodes=len(ids), control_rate=control,
        seconds=round(log.seconds + time.perf_counter() - started, 3), flags=flags, split=split, lanes=lanes,
        threat=dict(msgspec.to_builtins(made.threat, builtin_types=())), options=_shown(task, options, defenses),
        settings=settings, defenses=[[n, s] for n, s in _pairs(defenses)], victim=victim_card(made), samples=rows,
        columns=summarise(rows, made.columns), columns_about=meter.about,
        contract=CONTRACT, clean_of=clean_of, clean_size=size, asked=tally.since(before, log.asked),
        clean_ci=wilson(round(share * clean_of), clean_of) if clean_of else None,
    )  # fmt: skip
    vars(result)["made"] = made  # beside the fields: of no file
    if out is not None:
        results.save(result, out)
        log.close()
    calls.result(result)
    return result


def _made(
    task: str | Task, entry: registry.Agent, options: dict[str, Any], defenses: Any
) -> tuple[Task, dict[str, int]]:
    """The task behind its defenses, and what its victim was asked before this attack; `options` get their default."""
    if isinstance(task, str):
        row = registry.task_row(task)[1]
        if entry.origin:  # a registered one; a bare function declares nothing
            options.setdefault("knowledge", entry.knowledge)
        check_knowledge(task, options.get("knowledge", registry.KNOWLEDGE[0]), row, None)
    given = options.get("victim")
    before = dict(given.tally.rows) if isinstance(given, Victim) else {}
    made = defend(make_task(task, **options), defenses)
    if not callable(given):  # by name: what it was asked earlier is not this attack's
        before = dict(made.victim.tally.rows)
    return made, before


def _check_told(entry: registry.Agent, made: Task) -> None:
    """A registered agent is told what it declares, or plays under transfer."""
    given, needs = made.threat.knowledge, entry.knowledge
    if entry.origin and given != "transfer" and registry.KNOWLEDGE.index(given) < registry.KNOWLEDGE.index(needs):
        raise AdvgymError(f"agent {entry.name!r} needs {needs!r} knowledge; this task gives {given!r}")


def _play_all(
    todo: list[int], lanes: int, log: Checkpoint, tally: Tally, batch: Callable[[list[int]], tuple[list[Sample], str]],
    progress: Progress | None, calls: Calls,
) -> list[Sample]:  # fmt: skip
    """The rows of all samples, those of an interrupted run among them; what is new is logged batch by batch."""
    rows = log.rows
    done = {s.id for s in rows}
    tell = progress or (lambda *_: None)
    tell(len(rows), len(todo), sum(s.success for s in rows))
    for ids in chunks(todo, lanes):
        if done & set(ids):
            continue  # batches are kept whole, so that lanes are the same as in an uninterrupted run
        start = dict(tally.rows)
        with tally.during("attack"):
            new, error = batch(ids)
        rows += new
        log.add(new, error, tally.since(start))
        tell(len(rows), len(todo), sum(s.success for s in rows))
        calls.progress(len(todo), rows)
    return rows


def _flags(made: Task, entry: registry.Agent, rows: list[Sample], crashed: list[str], episodes: int) -> list[str]:
    """What the rows themselves tell."""
    flags = [flag("crashed", error=e) for e in dict.fromkeys(crashed)] + _idle(rows)
    if entry.name == registry.OWN:
        name = getattr(entry.attack, "__name__", "without a name")
        flags.append(flag("own-agent", name=name))
    # Of unseen members the verdict is another question than what was told.
    denied = denied_flags(rows) if made.unseen is None else []
    return [*flags, *denied, *silent_flags(rows, episodes)]


def _shown(task: str | Task, options: dict[str, Any], defenses: Any) -> dict[str, Any]:
    """The options that a file can hold, and whether there were others."""
    strangers = not isinstance(task, str) or any(not _plain(v) for v in options.values())
    own = {"own": True} if strangers or any(not isinstance(n, str) for n, _ in _given(defenses)) else {}
    return {**{k: v for k, v in options.items() if _plain(v)}, **own}


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
