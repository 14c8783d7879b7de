"""Imperceptible transcripts: a success first, then what the ear does not hear of it (Qin et al. 2019)."""

from __future__ import annotations

from advgym import register_agent
from advgym.agents.gradient.cw_ctc import LOSSES, ball, peak, shrunk
from advgym.agents.shared.common import choose
from advgym.agents.shared.signals import clean_of
from advgym.lib.settings import COUNT, NATURAL, SHARE, Range

RANGE = Range(0, 2, above=True)


@register_agent(
    "imperceptible",
    kind="field",
    knowledge="white-box",
    needs=("waveform",),
    allowed={
        "steps": COUNT, "first": SHARE, "start": Range(0, 1, above=True), "step_size": RANGE, "second_step": RANGE,
        "decay": SHARE, "momentum": Range(0, 0.999), "shrink": Range(0.01, 0.999), "patience": COUNT, "loss": LOSSES,
        "margin": NATURAL,
    },
)  # fmt: skip
def attack(
    env, *, steps=400, first=0.2, start=0.2, step_size=0.4, second_step=0.2, decay=0.95, momentum=0.8, shrink=0.8,
    patience=15, loss="margin", margin=0.5, seed=0,
):  # fmt: skip
    """Two stages: max |δ| is bounded, then what of δ is above the masking threshold (after Qin et al. 2019).

    The first stage is `cw-ctc` on max |δ|, wherever the constraint's ball is. The second starts from its quietest
    success, made as quiet as the ball asks, and is the same search on the constraint's own distance: of `norm="mask"`,
    for which the attack is made, the mean excess over the masking threshold. Qin et al. weigh that loss against the
    network's by an α that grows on success; here its bound shrinks on success, and steps follow the threshold's shape.

    Args:
        first: the share of the steps that the first stage takes.
        start: its first bound, as a share of the clean signal's peak.
        second_step: of the second stage, as a share of the ball's radius.
    """
    env.reset(seed=seed)
    common = {"momentum": momentum, "shrink": shrink, "patience": patience, "loss": loss, "margin": margin, "fine": 0.5}
    turn = round(first * steps)
    loud = start * clean_of(env).abs().flatten(1).amax(1).clamp_min(1e-4)
    δ, found = shrunk(env, env.threat.null(), loud, peak(), steps=turn, step_size=step_size, decay=decay / 2, **common)
    bound, reach = ball(env), env.threat.reach
    δ = choose(found.isfinite(), bound.within(δ, reach), env.threat.null())
    held, _ = shrunk(env, δ, reach, bound, steps=steps - turn, step_size=second_step, decay=decay, **common)
    if not env.done:
        env.step(held)
    return held
