"""TextBugger (Li et al. 2019)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.shared.importance import clean_surrogate, order_sites, walk, widened


@register_agent("textbugger", kind="edits", knowledge="score", proposals=16, needs=("deleted", "bugs"))
def attack(env, *, white_box=False, seed=0):
    """Words by importance, and at each the bug that lowers the victim's probability most, whether it helps or not.

    Args:
        env: Edits; the bugs (insert, delete, swap, look-alike) are the task's table: `candidates="typos"` or
            "homoglyphs", beside which a table of words may stand.
        white_box: rank words by the gradient (algorithm 1; white-box knowledge), not by deletion (algorithm 3). The
            ranking of sentences that comes before it in algorithm 3 is left out: all sites are ranked together.
        seed: unused, the attack draws nothing.
    """
    env.reset(seed=seed)
    env = widened(env)
    obs, _ = env.reset(seed=seed)
    order = order_sites(env, "gradient" if white_box else "delete", seed)
    return walk(env, order, always=True, start=clean_surrogate(obs))
