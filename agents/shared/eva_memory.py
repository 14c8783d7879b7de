"""What a genetic attack remembers of all sets that it asked about, one lane's, and the children that it makes of it."""

from __future__ import annotations

import torch
from torch import Tensor

from advgym.agents.shared.effects import Effects, effects, mend
from advgym.agents.shared.margins import margins
from advgym.agents.shared.messages import Messages

LARGEST = 1 << 23  # members times nodes: the table looks at all pairs of them
WARM = 5  # generations of chance that the model is first fitted to
STEPS, FAST, SLOW = 150, 0.3, 0.02  # of the first fit, its rate, and that of later steps
AGAIN = 8  # generations after which the table is made again
RECENT = 8  # generations that are learned from again
WHOLE, SINGLE = 0.1, 0.3  # the largest share of a set that is exchanged; the share of children of one parent alone
TASTES = 1021  # numbers that flips' tastes are drawn from, by key


class Memory:
    """A model of messages with a table of effects, made anew where the best set stands.

    Attributes:
        ready: whether the model has been fitted.
    """

    CHANCES = 4 + TASTES

    def __init__(self, env, obs: dict, lane: int) -> None:
        self.ref, self.clean = obs["output"][lane, 0].clone(), obs["scores"][lane, 0].detach()
        edges = env.context["edge_index"].to(env.device)
        self.model = Messages(edges, env.table.sites, obs["members"][lane], self.clean, self.ref)
        self.budget = int(env.table.limit[lane])
        # A tenth of the queries at most goes to chance.
        self.warm = max(1, min(WARM, env.threat.model.queries // (10 * env.proposals)))
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.age, self.ready = 0, False
        self.table: Effects | None = None

    def note(self, genes: Tensor, scores: Tensor, evaluated: Tensor) -> None:
        """Learn from the answers (P, M, C) to a generation, int64 (P, E)."""
        if not bool(evaluated.any()):
            return
        self.seen = [*self.seen, (genes[evaluated], scores[evaluated])][-RECENT:]
        self.age += 1
        if self.ready:
            self.model.learn(*self.seen[-1], SLOW)
            self.model.learn(*self.seen[self.age % len(self.seen)], SLOW)
        elif self.age >= self.warm:
            for step in range(STEPS):
                self.model.learn(*self.seen[step % len(self.seen)], FAST * max(SLOW, 1 - step / STEPS))
            self.ready = True

    def children(self, population: Tensor, answers: Tensor, mother: Tensor, father: Tensor, chance: Tensor) -> Tensor:
        """Sets (P, budget) of keys: mothers mended by the table, some with what the fathers did better.

        Args:
            population: keys (P, E), the best first, -1 for none; answers: the scores there, (P, M, C).
            mother, father: int64 (P,), indices; chance: uniforms (P, CHANCES).
        """
        soft, drop, alone, chance = chance[:, :1], chance[:, 1], chance[:, 2], chance[:, 3:]
        soft = 0.05 + 0.4 * soft
        if self.table is None:  # the first ones are made from nothing
            none = population[:1].new_full((1, self.budget), -1).expand(len(mother), -1)
            self.table = effects(self.model, none[0], self.clean, none[0])
            margin = margins(self.clean, self.ref).expand(len(mother), -1)
            return self._mend(none, margin, torch.zeros_like(mother), soft, chance)
        if self.age % AGAIN == 0 or self.age < self.warm + 5:
            self.table = effects(self.model, population[0], answers[0], population)
        every = margins(answers, self.ref.expand(answers.shape[:2]))
        margin, other = every[mother], every[father]
        better = (other > 0) & (margin <= 0) & (alone > SINGLE).unsqueeze(1)
        who, gain = self.table.of(population[father])
        helps = (better.gather(1, who.flatten(1)).view(who.shape) & (gain > 0)).any(2)
        genes = torch.cat([population[mother], torch.where(helps, population[father], -1)], 1)
        genes = genes.sort(1, descending=True).values
        twice = torch.zeros_like(genes, dtype=torch.bool)
        twice[:, 1:] = genes[:, 1:] == genes[:, :-1]
        genes = torch.where(twice, -1, genes)
        margin = torch.where(better, other, margin)
        most = max(2.0, WHOLE * self.budget)
        return self._mend(genes, margin, (1 + most * drop.square()).long(), soft, chance)

    def _mend(self, genes: Tensor, margin: Tensor, drop: Tensor, soft: Tensor, chance: Tensor) -> Tensor:
        assert self.table is not None
        at = torch.cat([(genes % TASTES).clamp_min(0), self.table.key.expand(len(genes), -1) % TASTES], 1)
        drawn = chance[:, 1:].gather(1, at)
        drawn = torch.cat([drawn[:, : genes.shape[1]], chance[:, :1], drawn[:, genes.shape[1] :]], 1)
        return mend(self.table, genes, margin, self.budget, drop, soft, drawn)[0]
