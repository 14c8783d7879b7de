"""`check_vector_env`: the checker for batched attack environments that Gymnasium lacks.

It plays an environment like a suspicious client: shapes and dtypes, masks, budgets, what a refused proposal tells,
determinism, independence of lanes, a reward that telescopes, both autoreset modes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advgym.clients.views import edit_view
from advgym.core.env import AttackEnv
from advgym.judge.evaluator import evaluator

STEPS = 6
Factory = Callable[..., AttackEnv]


def check_vector_env(factory: Factory, *, seed: int = 0, lanes: int = 3, tolerance: float = 1e-4) -> None:
    """Raise AssertionError, naming the broken promise, if an environment breaks the contract.

    Args:
        factory: makes the environment from `lanes`, `proposals`, `output`, `autoreset` and `queries`, as
            `functools.partial(advgym.make, "image/digits-linf")` does.
        seed: of the samples and proposals.
        lanes: how many to play at once, at least 2.
        tolerance: of floating-point answers in other batches.

    >>> from functools import partial
    >>> import advgym
    >>> check_vector_env(partial(advgym.make, "image/digits-linf"))
    """
    price = _price(factory, seed)
    if price > 1:
        factory = partial(_priced, factory, price)
    _spaces(factory, seed, lanes)
    _budgets(factory, seed, lanes)
    _refusals(factory, seed, lanes)
    _telescopes(factory, seed, lanes, tolerance)
    _deterministic(factory, seed, lanes)
    _independent(factory, seed, lanes, tolerance)
    _proposals_agree(factory, seed, lanes, tolerance)
    _never_rewritten(factory, seed, lanes)
    _same_step(factory, seed, lanes)
    _edit_view(factory, seed, lanes)


def _price(factory: Factory, seed: int) -> int:
    """Queries that one proposal costs: of bundles one for each member."""
    env = factory(lanes=1)
    obs, _ = env.reset(seed=seed)
    left, asks = int(torch.as_tensor(obs["queries_left"]).max()), int(env.asks_left.max())
    assert asks > 0, "an episode starts with too few queries for one proposal"
    return left // asks


def _priced(factory: Factory, price: int, **options: Any) -> AttackEnv:
    """The environment with budgets in proposals."""
    if "queries" in options:
        options["queries"] *= price
    return factory(**options)


def _spaces(factory: Factory, seed: int, lanes: int) -> None:
    for proposals in (None, 2):
        env = factory(lanes=lanes, proposals=proposals, output="numpy")
        assert env.metadata["autoreset_mode"] is env.autoreset_mode, (
            "autoreset_mode differs between attribute and metadata"
        )
        assert isinstance(env.autoreset_mode, AutoresetMode), "autoreset_mode is not the enum"
        obs, info = env.reset(seed=seed)
        assert isinstance(info, dict), "info is no dict"
        _contains(env.observation_space, obs, "reset")
        action = env.threat.random(seed, proposals).cpu().numpy()
        assert action in env.action_space, f"a valid perturbation {action.shape} is not in the action space"
        obs, reward, terminated, truncated, info = env.step(action)
        _contains(env.observation_space, obs, "step")
        assert reward.shape == (lanes,) and reward.dtype == np.float32, "reward is not float32 (lanes,)"
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            assert flag.shape == (lanes,) and flag.dtype == np.bool_, f"{name} is not bool (lanes,)"
        assert not truncated.any(), "truncated is left to outer time limits"
        one = env.single_observation_space
        for name, box in env.observation_space.items():
            assert box.shape == (lanes, *(one[name].shape or ())), f"single and batched space of {name} differ"


def _contains(space: Any, obs: dict[str, Any], when: str) -> None:
    assert set(obs) == set(space.keys()), f"{when}: observation keys differ: {set(obs) ^ set(space.keys())}"
    for name, value in obs.items():
        box = space[name]
        assert value.dtype == box.dtype, f"{when}: {name} is {value.dtype}, its space {box.dtype}"
        assert value.shape == box.shape, f"{when}: {name} is {value.shape}, its space {box.shape}"
        assert value in box, f"{when}: {name} leaves its space [{box.low.min()}, {box.high.max()}]"


def _kept(env: Any) -> int:
    """Proposals of a lane that are kept for what the attack returns."""
    return int(env.knowledge == "transfer")


def _left(env: Any, obs: dict[str, Any]) -> Any:
    """Proposals that each lane may still ask about."""
    price = evaluator(env).batch.price
    left: Any = obs["queries_left"] // price
    return left


def _budgets(factory: Factory, seed: int, lanes: int) -> None:
    env = factory(lanes=lanes, proposals=4, queries=6)
    obs, _ = env.reset(seed=seed)
    left, over = _left(env, obs), torch.zeros(lanes, dtype=torch.bool, device=env.device)
    assert bool((left == 6 - _kept(env)).all()), "an episode does not start with its budget"
    obs, *_ = env.step(env.threat.null().unsqueeze(1).expand(-1, 4, *env.shape))
    assert torch.equal(_left(env, obs), left), "the null perturbation is not free"
    for t in range(8):
        obs, reward, terminated, _, _ = env.step(env.threat.random(seed + t, 4))
        spent = left - _left(env, obs)
        assert bool((spent >= 0).all()) and bool((spent <= 4).all()), "more queries are charged than were proposed"
        assert bool((obs["queries_left"] >= 0).all()), "a budget is exceeded"
        assert torch.equal(obs["evaluated"].sum(1), spent), "evaluated proposals and charged queries differ"
        assert bool((reward[over] == 0).all()) and bool((spent[over] == 0).all()), "a finished lane plays on"
        assert bool((terminated | ~over).all()), "a finished lane came back"
        assert bool(terminated[obs["queries_left"] == 0].all()), "a spent lane is not terminated"
        left, over = _left(env, obs), terminated
    assert env.done, "8 steps of 4 proposals do not end a budget of 6"


def _refusals(factory: Factory, seed: int, lanes: int) -> None:
    """A proposal that is no input of the domain is charged and answers nothing; a malformed one raises."""
    env = factory(lanes=lanes, queries=50)
    obs, _ = env.reset(seed=seed)
    for bad in _bad(env):
        before = _left(env, obs)
        obs, reward, _, _, _ = env.step(bad)
        live = _left(env, obs) < before
        assert bool((before - _left(env, obs) == 1).all()), "a proposal outside the domain is not charged"
        assert not bool(obs["evaluated"].any()), "a proposal outside the domain is evaluated"
        assert not bool(obs["valid"].any()) and not bool(obs["success"].any()), "a proposal outside the domain counts"
        assert bool((reward == 0).all()), "a proposal outside the domain earns"
        told = [k for k in ("scores", "objective", "surrogate") if k in obs and bool((obs[k][live] != 0).any())]
        assert not told, f"a refused proposal tells {told}"
    try:
        env.step(env.threat.null()[:, :-1] if env.kind == "field" else env.threat.null()[..., :1])
    except ValueError:
        return
    raise AssertionError("a malformed proposal does not raise")


def _bad(env: AttackEnv) -> list[Tensor]:
    null = env.threat.null()
    if env.kind == "field":
        return [torch.full_like(null, torch.nan), torch.full_like(null, torch.inf)]
    outside, twice = null.clone(), null.clone()
    outside[:, 0] = torch.tensor([env.table.sites, 0])
    out = [outside]
    if null.shape[1] > 1:
        cell = torch.full((len(null), 2), 0.5, device=null.device)
        twice[:, :2] = env.threat.sample_edit(cell).unsqueeze(1)
        out.append(twice)
    return out


def _telescopes(factory: Factory, seed: int, lanes: int, tolerance: float) -> None:
    env = factory(lanes=lanes, proposals=3, queries=12)
    obs, _ = env.reset(seed=seed)
    if "objective" not in obs:
        return
    best = obs["objective"][:, 0].clone()
    success = torch.zeros(lanes, dtype=torch.bool, device=env.device)
    total, start = torch.zeros(lanes, device=env.device), best.clamp_max(0)
    distance, model = torch.full((lanes,), torch.inf, device=env.device), env.threat.model
    for t in range(STEPS):
        live = env.live
        obs, reward, *_ = env.step(env.threat.random(seed + t, 3))
        counts = obs["evaluated"] & obs["valid"] & live.unsqueeze(1)
        won = counts & obs["success"]
        top = torch.where(counts, obs["objective"], -torch.inf).amax(1)
        best = torch.where(success, best, torch.maximum(best, top))
        distance = torch.minimum(distance, torch.where(won, obs["distance"], torch.inf).amin(1))
        success |= won.any(1)
        total += reward
    end = torch.where(success, 1.0, best.clamp_max(0))
    if model.least:
        end = end + torch.where(success, 1 - distance / env.threat.reach, 0.0)
    gap = float((total - (end - start)).abs().max())
    assert gap <= tolerance * max(1.0, float(start.abs().max())), f"rewards do not telescope: off by {gap}"


def _play(env: AttackEnv, seed: int, options: dict[str, Any] | None = None) -> list[dict[str, Tensor]]:
    obs, _ = env.reset(seed=seed, options=options)
    seen = [obs]
    for t in range(STEPS):
        obs, reward, terminated, _, _ = env.step(env.threat.random(seed + t, env.proposals))
        seen.append({**obs, "reward": reward, "terminated": terminated})
    return seen


def _deterministic(factory: Factory, seed: int, lanes: int) -> None:
    a, b = (_play(factory(lanes=lanes), seed) for _ in range(2))
    for x, y in zip(a, b, strict=True):
        for name in x:
            assert torch.equal(x[name], y[name]), f"the same seed gives another {name}"


def _independent(factory: Factory, seed: int, lanes: int, tolerance: float) -> None:
    """A sample's transcript does not depend on its neighbours."""
    env = factory(lanes=lanes)
    together = _play(env, seed)
    ids = evaluator(env).batch.ids.tolist()
    targets = evaluator(env).targets
    for lane in (0, lanes - 1):
        options: dict[str, Any] = {"samples": [ids[lane]]}
        if targets is not None:
            options["targets"] = [targets[lane]]
        alone = _play(factory(lanes=1), seed, options)
        for t, (x, y) in enumerate(zip(together, alone, strict=True)):
            for name in x:
                gap = (
                    float((x[name][lane].double() - y[name][0].double()).abs().max()) if x[name][lane].numel() else 0.0
                )
                assert gap <= tolerance * 10, f"step {t}: {name} of a lane depends on the other lanes (by {gap})"


def _proposals_agree(factory: Factory, seed: int, lanes: int, tolerance: float) -> None:
    """The answer to a proposal does not depend on how many are proposed with it."""
    many = factory(lanes=lanes, proposals=3)
    many.reset(seed=seed)
    p = many.threat.random(seed, 3)
    obs, *_ = many.step(p)
    ours = evaluator(many)
    ids = ours.batch.ids.tolist()
    if many.keyed:
        return  # its draws are keyed by the query
    single = factory(lanes=lanes)
    single.reset(seed=seed, options={"samples": ids, **({} if ours.targets is None else {"targets": ours.targets})})
    one, *_ = single.step(p[:, 0].contiguous())
    for name in ("evaluated", "valid", "success", "distance", "scores", "objective", "surrogate"):
        if name in obs:
            gap = float((obs[name][:, 0].double() - one[name].double()).abs().max())
            assert gap <= tolerance * 10, f"{name} depends on the other proposals (by {gap})"


def _never_rewritten(factory: Factory, seed: int, lanes: int) -> None:
    env = factory(lanes=lanes)
    obs, _ = env.reset(seed=seed)
    kept = [(obs, {k: v.clone() for k, v in obs.items()})]
    for t in range(STEPS):
        obs, *_ = env.step(env.threat.random(seed + t))
        kept.append((obs, {k: v.clone() for k, v in obs.items()}))
    for held, copy in kept:
        for name in held:
            assert torch.equal(held[name], copy[name]), f"{name} was written again after it was returned"


def _same_step(factory: Factory, seed: int, lanes: int) -> None:
    env = factory(lanes=lanes, queries=2, autoreset="same-step")
    assert env.autoreset_mode is AutoresetMode.SAME_STEP
    env.reset(seed=seed)
    ended = 0
    for t in range(STEPS):
        obs, _, terminated, _, info = env.step(env.threat.random(seed + t))
        assert bool(env.live.all()), "same-step: a lane is left finished"
        if bool(terminated.any()):
            ended += int(terminated.sum())
            for key in ("final_info", "final_obs"):
                assert key in info and (info[f"_{key}"] == terminated.cpu().numpy()).all(), (
                    f"same-step: {key} is missing"
                )
            full = _left(env, obs)[terminated] == 2 - _kept(env)
            assert bool(full.all()), "same-step: a new episode has no full budget"
            assert not bool(obs["evaluated"][terminated].any()), (
                "same-step: the new episode's first observation is evaluated"
            )
    assert ended >= lanes, "same-step: episodes of two queries do not end"


def _edit_view(factory: Factory, seed: int, lanes: int) -> None:
    """The RL view: spaces, the three customs of masks, masked actions move, others are refused."""
    for mode in ("same-step", "disabled"):
        view = edit_view(factory(lanes=lanes, autoreset=mode, output="numpy", queries=8))
        obs, info = view.reset(seed=seed)
        rng = np.random.default_rng(seed)
        for _ in range(STEPS):
            _contains(view.observation_space, obs, "edit view")
            if view.edits:
                mask = view.action_masks()
                assert (mask == obs["action_mask"].astype(bool)).all(), "action_masks() and the observation differ"
                assert (mask == info["action_mask"].astype(bool)).all(), "action_masks() and the info differ"
                action = np.array([rng.choice(np.flatnonzero(m)) if m.any() else 0 for m in mask])
            else:
                action = rng.uniform(-1, 1, view.action_space.shape).astype(np.float32)
            before, open_ = view.state, view.env.live
            if view.edits:
                open_ = open_ & torch.as_tensor(mask.any(1), device=open_.device)
            obs, reward, terminated, _, info = view.step(action)
            stayed = open_ & (view.state == before).flatten(1).all(1) & ~torch.as_tensor(terminated).to(open_.device)
            if view.edits and not getattr(view, "phase", 0):
                assert not bool(stayed.any()), "an action of the mask moves nothing"
            assert reward.shape == (lanes,) and np.isfinite(reward).all(), "edit view: reward is not finite (lanes,)"
            if mode == "disabled" and terminated.all():
                break
