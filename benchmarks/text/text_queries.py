"""Cost of a text query beside the victim's own: 64 lanes x 16 proposals of MR word swaps, a victim that costs nothing.

The peer is TextAttack's greedy word-importance search on the same sentences, table and victim.
"""

from __future__ import annotations

import os
import time

import torch

import advgym
from advgym.lib.weights import data_dir
from benchmarks._common import arguments, clock, device_label, table


class FreeTokens(torch.nn.Module):
    """Takes token ids (packed left, with a mask) and answers from one gather of them."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.register_buffer("remap", torch.arange(words + 1))

    def forward(self, x) -> torch.Tensor:
        """TextInput -> (n, 2)."""
        tokens, _ = x.tokens(self.remap)
        few = (tokens[:, 0] % 97) * 1e-3  # always class 0
        return torch.stack([1 - few, few], 1)


def free_strings(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[1.0, 0.0]]).expand(len(texts), 2)


def environment(args, victim, lines: list[str]) -> advgym.AttackEnv:
    """The MR sentences as the caller's own samples, all of class 0, which is what a free victim says."""
    env = advgym.make(
        "text/wordswap", args.lanes, args.proposals, victim=victim, samples=[(line, 0) for line in lines],
        candidates="counter-fitted", queries=10**6, least=True, device=args.device,
    )  # fmt: skip
    env.reset(seed=0)
    return env


def per_query(args, env) -> float:
    """Microseconds of CPU per query of a step of random perturbations."""
    p = [env.threat.random(t, args.proposals) for t in range(args.steps)]

    def loop():
        for q in p:
            env.step(q)

    loop()
    took = sorted(clock(loop, args.device) for _ in range(args.repeat))[args.repeat // 2]
    return took / (args.steps * args.lanes * args.proposals) * 1e6


def textattack_cost(args, sentences: list[tuple[str, int]], swaps: dict[str, list[str]]) -> float | None:
    """Microseconds of CPU per counted query of TextAttack on the same sentences and table."""
    root = data_dir()
    os.environ.setdefault("NLTK_DATA", str(root / "text" / "nltk_data") if root else "")
    try:
        import textattack
        from textattack.constraints.overlap import MaxWordsPerturbed
        from textattack.constraints.pre_transformation import RepeatModification
        from textattack.goal_functions import UntargetedClassification
        from textattack.search_methods import GreedyWordSwapWIR
        from textattack.transformations import WordSwap
    except Exception as error:
        print(f"TextAttack does not import: {error}")
        return None

    class Table(WordSwap):
        def _get_replacement_words(self, word):
            return swaps.get(word, [])

    class Free(textattack.models.wrappers.ModelWrapper):
        model = None

        def __call__(self, texts):
            # Scores that hardly move: as in the environment, no attack succeeds and every query is asked.
            return torch.tensor([[0.5 + (hash(t) % 97) * 1e-4, 0.5 - (hash(t) % 97) * 1e-4] for t in texts])

    goal = UntargetedClassification(Free(), use_cache=False)
    attack = textattack.Attack(
        goal, [RepeatModification(), MaxWordsPerturbed(max_percent=0.25)], Table(), GreedyWordSwapWIR("delete")
    )
    started, queries = time.process_time(), 0
    for text, _ in sentences:
        result = attack.attack(text, 0)
        queries += result.num_queries
    return (time.process_time() - started) / queries * 1e6


def main() -> None:
    args = arguments(__doc__, lanes=64, proposals=16, steps=10, peer=1)
    task = advgym.make_task("text/mr-wordswap")
    probe = task.samples("test", list(range(args.lanes)))
    lines = probe.inputs(probe.look(probe.null()).form).strings()
    tokens = environment(args, advgym.Victim(FreeTokens(200_000), name="free-tokens"), lines)
    strings = environment(args, advgym.Victim(free_strings, name="free-strings"), lines)
    rows = [["advgym, token ids", per_query(args, tokens)], ["advgym, strings", per_query(args, strings)]]
    if args.peer:
        names, swaps = task.context["vocabulary"], {}
        words_at, mask = probe.payloads, probe.mask()
        for i, line in enumerate(lines):
            for site, word in enumerate(line.split()):
                swaps[word] = [names[w] for w in words_at[i, site][mask[i, site]].tolist()]
        cost = textattack_cost(args, [(line, 0) for line in lines], swaps)
        if cost is not None:
            rows.append(["TextAttack 0.3.11, greedy WIR (delete)", cost])
    for row in rows:
        row.append(row[1] / rows[0][1])
    title = f"CPU per query, {args.lanes} lanes x {args.proposals} proposals ({device_label(args.device)})"
    table(title, ["runner", "us per query", "ratio"], rows, args.json)


if __name__ == "__main__":
    main()
