"""Any attack of TextAttack (Morris et al. 2020) as an agent: `textattack:<recipe>`."""

from __future__ import annotations

import torch

from advgym import register_agent
from advgym.agents.shared.libraries import textattack_parts as peer
from advgym.agents.shared.libraries.lockstep import Lane, play
from advgym.agents.shared.libraries.sentences import Sentences
from advgym.errors import unknown

RAW = 256  # texts outside the table asked at once


@register_agent(
    "textattack",
    kind="edits",
    knowledge="score",
    proposals=32,
    argument="recipe",
    needs=("words",),
    allowed={"space": ("table", "recipe")},
)
def attack(env, *, recipe, space="table", seed=0):
    """A recipe of TextAttack, or its search alone over the task's table, under our meter, many sentences at once.

    `space="table"` holds the candidates fixed: the recipe's search method over the substitutes and the word limit of
    the task, which is what comparing searches takes. `space="recipe"` is the recipe as published, or any
    "module:function" of a model wrapper: a text outside the task's table is charged, answered, and never counts.
    The victim's clean answer is known from the reset and costs nothing.
    """
    if space not in ("table", "recipe"):
        raise unknown("space", space, ("table", "recipe"))
    textattack = peer.library()
    obs, _ = env.reset(seed=seed)
    obs = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in obs.items()}
    sentences, limit = Sentences(env, obs["words"]), env.table.limit.tolist()
    classes = env.threat.model.goal == "untargeted" and obs["scores"].dim() == 3
    told = "scores" if classes else "objective"
    goal = textattack.goal_functions.UntargetedClassification if classes else peer.objective_goal()
    clean = {name: obs[name][:, 0].cpu() for name in ("scores", "objective")}
    reference = obs["output"][:, 0].tolist()
    base = peer.own_space(recipe, peer.wrapper_of(lambda texts: None, told)) if space == "recipe" else None

    def body(lane: int):
        def run(ask):
            text = sentences.text(lane)

            def answer(texts: list[str]):
                """The clean text is known."""
                if texts == [text]:
                    return {name: value[lane : lane + 1] for name, value in clean.items()}
                return ask(texts)

            wrapper = peer.wrapper_of(answer, told)
            if base is not None:
                search = peer.clone(base, wrapper)
            else:
                search = peer.table_space(recipe, wrapper, sentences, lane, limit[lane], goal)
            search.attack(text, reference[lane] if classes else 0)

        return run

    draws = env.draws(seed).integers(2**31 - 1)
    lanes = [Lane(body(i), int(draws[i])) for i in range(env.num_envs)]
    left = obs["queries_left"].tolist()
    play(lanes, lambda asking: _answer(env, sentences, asking, left))
    for lane in lanes:
        if lane.error is not None:
            raise lane.error


def _answer(
    env, sentences: Sentences, asking: dict[int, list[str]], left: list[int]
) -> dict[int, dict[str, torch.Tensor]]:
    """Scores and objectives of each lane's texts; lanes that are finished or out of queries are left out.

    `left`, the queries of each lane, is kept up to date.
    """
    sets = {i: [sentences.edits(i, text) for text in texts] for i, texts in asking.items()}
    room = env.shape[0]
    inside = {
        i: [j for j, edits in enumerate(found) if edits is not None and len(edits) <= room] for i, found in sets.items()
    }
    out: dict[int, list] = {i: [None] * len(texts) for i, texts in asking.items()}
    for start in range(0, max(map(len, inside.values())), env.proposals):
        part = {i: here[start : start + env.proposals] for i, here in inside.items()}
        if env.done or not any(part.values()):
            break
        some = {i: [edits for j in js if (edits := sets[i][j]) is not None] for i, js in part.items()}
        obs, *_ = env.step(sentences.proposals(env, some))
        left[:] = obs["queries_left"].tolist()
        scores, objective, evaluated = (obs[k].detach().cpu() for k in ("scores", "objective", "evaluated"))
        for i, js in part.items():
            for p, j in enumerate(js):
                if evaluated[i, p]:
                    out[i][j] = (scores[i, p], objective[i, p])
    _raw(env, asking, inside, out, left)
    whole = {i: rows for i, rows in out.items() if all(row is not None for row in rows)}
    return {
        i: {"scores": torch.stack([r[0] for r in rows]), "objective": torch.stack([r[1] for r in rows])}
        for i, rows in whole.items()
    }


def _raw(
    env, asking: dict[int, list[str]], inside: dict[int, list[int]], out: dict[int, list], left: list[int]
) -> None:
    """Texts that the table cannot make: charged and answered, but never a success."""
    live = env.live.tolist()
    todo = []
    for i, texts in asking.items():
        known = set(inside[i])
        missing = [j for j in range(len(texts)) if j not in known]
        if live[i] and len(missing) <= left[i]:
            todo += [(i, j) for j in missing]
            left[i] -= len(missing)
    for start in range(0, len(todo), RAW):
        part = todo[start : start + RAW]
        scores = env.victim([asking[i][j] for i, j in part], [i for i, _ in part]).detach().cpu()
        for (i, j), row in zip(part, scores, strict=True):
            out[i][j] = (row, torch.tensor(-1.0))
