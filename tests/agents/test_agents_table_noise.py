"""Every agent on a toy task beside noise, and whichever samples play beside its own."""

import pytest
import toy
from table import AGENTS, plays

from advgym import attack


def rate(name, kind, knowledge=None, **options):
    task = toy.task(kind, knowledge=knowledge or AGENTS[name].knowledge, queries=80, gradients=80, **options)
    return attack(task, name, episodes=toy.SAMPLES, lanes=20)


@pytest.mark.parametrize("kind", ["field", "edits"])
@pytest.mark.parametrize("name", [n for n, e in AGENTS.items() if e.knowledge in ("white-box", "score", "decision")])
def test_an_attack_beats_noise(name, kind):
    if not plays(name, toy.task(kind)):
        return
    result = rate(name, kind)
    if name == "noise":
        assert result.success_rate > 0
    else:
        assert result.success_rate > result.control_rate


def test_transfer_is_bounded_by_the_white_box():
    for kind, best in (("field", "pgd"), ("edits", "first-order")):
        assert rate("transfer", kind).success_rate <= rate(best, kind).success_rate


@pytest.mark.parametrize("name", AGENTS)
def test_lanes_do_not_matter(name):
    """An agent's rows are the same whichever samples play beside them."""
    entry = AGENTS[name]
    for kind in entry.kinds:
        task = toy.task(kind, knowledge=entry.knowledge, queries=30)
        if not plays(name, task):
            continue
        one, four = ({s.id: s for s in attack(task, name, episodes=12, lanes=lanes).samples} for lanes in (1, 12))
        assert {i: s.success for i, s in one.items()} == {i: s.success for i, s in four.items()}
