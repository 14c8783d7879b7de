"""Joint paraphrasing of sentences and words from scores alone (Lei et al. 2019)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.sequences.joint_paraphrase import search


@register_agent("joint-greedy", kind="edits", knowledge="score", proposals=16)
def attack(env, *, exchange=True, seed=0):
    """Objective-guided greedy search over sentences, then words (Lei et al. 2019), with lazily updated gains."""
    return search(env, 0, 0, exchange=exchange, guided=False, seed=seed)
