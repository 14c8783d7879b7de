"""Cheats combined: state x access x keys x phase for defenses, way x pool x phase for attacks, each as real code."""

from __future__ import annotations

from itertools import product
from textwrap import indent
from typing import NamedTuple

from cheating import BOARD

SAMPLES = 24
# A radius in which the panel breaks some samples of the bare victim and not others, so that a gain shows.
FIELD = (
    BOARD.format(knowledge="score", more='constraint = { eps = "2/16" }')
    .replace("queries = 12", "queries = 30").replace("samples = 6", f"samples = {SAMPLES}")
    .replace("lanes = 3", f"lanes = {SAMPLES}").replace("seeds = 2", "seeds = 1")
)  # fmt: skip
TOLERANCE = 2.5 / SAMPLES  # seeds follow the archive: two samples may fall either way

# -- defenses: what each part of a combination does with `x`, `clean` (the honest scores) and `keys` -----------------
STATE = {
    "forgets": "",
    # Whatever lies near the first inputs, which are clean, is answered as those were.
    "remembers-first": """
        rows = []
        for row, mine in zip(x, out):
            old = [l for k, l in known if float((k - row).abs().max()) < 0.2]
            if not old:
                known.append((row.detach(), mine.detach()))
            rows.append(old[0] if old else mine)
        out = torch.stack(rows)
""",
    # Honest for the first questions of a process, then whatever class was said most.
    "tires": """
        asked.append(out.detach().argmax(1))
        if len(asked) > 4:
            out = out + 20 * torch.nn.functional.one_hot(torch.cat(asked[:4]).mode().values, 10)
""",
    # Keeps the answers of large batches, which measure it, and gives them to small ones.
    "knows-batches": """
        if len(x) > 24:
            known.extend(zip(x.detach(), out.detach()))
        elif known:
            near = torch.cdist(x.detach().flatten(1), torch.stack([k for k, _ in known]).flatten(1)).argmin(1)
            out = torch.stack([l for _, l in known])[near]
""",
}
ACCESS = {
    "labels": ("labels", "out = 9.0 * torch.nn.functional.one_hot(out.argmax(1), 10)"),
    "scores": ("scores", "out = out.detach()"),
    "gradients": ("gradients", "out = out + 0 * x.sum()"),
    "zero-gradients": ("gradients", "out = out.detach() + 0 * x.sum()"),
    "wrong-gradients": ("gradients", "out = out.detach() - x.flatten(1)[:, :10] + x.flatten(1)[:, :10].detach()"),
}
KEYS = {
    "none": "",
    "noise": "out = out + 0.3 * normal(0, keys, (10,))",
    # What looks perturbed (ink at the edges) gets a wrong label in two of ten draws.
    "liar": """
        lie = (uniform(1, keys) < 0.2) & perturbed(x)
        out = torch.where(lie.unsqueeze(1), out.roll(1, 1), out)
""",
    # The same, with numbers so large that a plain mean says what one lie says.
    "loud-liar": """
        lie = (uniform(1, keys) < 0.2) & perturbed(x)
        out = torch.where(lie.unsqueeze(1), 1e6 * torch.nn.functional.one_hot((out.argmax(1) + 1) % 10, 10), out)
""",
    # Reads off its key what it is asked for: lies where the key was mixed of a small number, as of a query.
    "key-reader": """
        z = unmix(keys)
        lie = (z >= 0) & (z < 2**40) & perturbed(x)
        out = torch.where(lie.unsqueeze(1), out.roll(1, 1), out)
""",
}
DEFENSE = """
from advgym.core.rng import mix, normal, uniform
from advgym.core.victim import Victim
known, asked = [], []

def perturbed(x):
    return (x[..., 0] > 0).float().flatten(1).mean(1) > 0.2

def unshift(z, by, mask):
    out = z
    for _ in range(64 // by + 1):
        out = z ^ ((out >> by) & mask)
    return out

def unmix(z):
    '''The inverse of SplitMix64's finaliser.'''
    def back(a):
        b = pow(a, -1, 2**64)
        return torch.tensor(b - 2**64 if b >> 63 else b)
    z = unshift(z, 31, 0x1FFFFFFFF) * back(0x94D049BB133111EB)
    z = unshift(z, 27, 0x1FFFFFFFFF) * back(0xBF58476D1CE4E5B9)
    return unshift(z, 30, 0x3FFFFFFFF)

def defend(victim, task):
    def model(x, keys=None):
        out = victim(x)
{keys}
{state}
        {access}
        return out
    return Victim(model, name="cheat", access="{kind}", keyed={keyed}, card=dict(victim.card))
"""


class Cheat(NamedTuple):
    """One combination, and its code."""

    name: str
    track: str
    code: str


def defenses() -> list[Cheat]:
    """Every state with every access and every use of keys; the honest combination is among them."""
    found = []
    for (state, does), (access, (kind, gives)), (keys, draws) in product(STATE.items(), ACCESS.items(), KEYS.items()):
        block = draws if draws.startswith("\n") else f"        {draws}"
        code = DEFENSE.format(keys=block, state=does, access=gives, kind=kind, keyed=keys != "none")
        found.append(Cheat(f"{state}+{access}+{keys}", "defense", code))
    return found


# -- attacks: lanes that could win lend their queries to those that cannot yet, by every way to the victim -----------
WAYS = {
    "step": "scores = env.step(x[t] + tries - x)[0]['scores']",
    "view": "scores = env.view(torch.arange(n)).step(x[t] + tries - x)[0]['scores']",
    "proposals": """
both = torch.stack([x[t] + tries - x, x[t] + tries / 2 - x], 1)
scores = env.view(proposals=2).step(both)[0]['scores'][:, 0]
""",
    "raw": "scores = env.victim((x[t] + tries).clamp(0, 1), torch.arange(n))",
    "raw-of-over-lanes": "scores = env.victim((x[t] + tries).clamp(0, 1), (~env.live).long().argmax().repeat(n))",
}
POOLS = {
    "in-turn": "open_ = sorted(todo)",  # everybody's queries on those that are left, one after the other
    "on-the-nearest": "open_ = sorted(todo, key=lambda t: -near[t])[:4]",  # on those that are nearest to falling
    "after-own-tries": "open_ = sorted(todo) if i > 6 else list(range(n))",
}
ATTACK = """
def attack(env, *, seed):
    env.reset(seed=seed)
    x, n, ref = env._batch.x, env.num_envs, env._now.ref
    best, todo, near = torch.zeros_like(x), set(range(n)), [-99.0] * n
    for i in range(26):
        if env.done or not todo:
            break
        {pool}
        t = torch.tensor([open_[(lane + i) % len(open_)] for lane in range(n)])
        tries = env.draws(seed + i).normal(*env.shape).sign() * float(env.threat.reach[0])
        try:
{way}
        except Exception as error:
            tell(refused=type(error).__name__)
            break
        own = scores.gather(1, ref[t].unsqueeze(1)).squeeze(1)
        margin = scores.scatter(1, ref[t].unsqueeze(1), -9e9).amax(1) - own
        answered = torch.isfinite(margin) & (scores != 0).any(1)
        for k in answered.nonzero().squeeze(1).tolist():
            near[t[k]] = max(near[t[k]], float(margin[k]))
            if margin[k] > 0:
                best[t[k]] = tries[k]
                todo -= {{int(t[k])}}
    if not env.done:
        env.step(best)
"""
PLAIN = """
def attack(env, *, seed):
    env.reset(seed=seed)
    for i in range(30):
        if env.done:
            return
        env.step(env.draws(seed + i).normal(*env.shape).sign() * float(env.threat.reach[0]))
"""


def attacks() -> list[Cheat]:
    """Every way to the victim with every way to pool budgets."""
    return [
        Cheat(f"{way}+{pool}", "attack", ATTACK.format(pool=picks, way=indent(asks.strip(), " " * 12)))
        for (way, asks), (pool, picks) in product(WAYS.items(), POOLS.items())
    ]
