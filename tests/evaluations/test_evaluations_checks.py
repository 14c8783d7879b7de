"""Every planted culprit raises its flag and only companions that its row lists; honest victims raise none."""

import pytest
from culprits import CASES, HONEST

from advgym.evaluations.audit import audit
from advgym.judge.checks import check_of, checks, flag

OF_THE_ATTACK = {"few", "more-budget", "weak-suite"}  # they speak of what was spent, not of the victim


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_a_culprit_is_named(case):
    made = case.make()
    model, data = made if isinstance(made, tuple) else (made, None)
    found = audit(model, data, budget="quick", episodes=32, **case.options)
    named = {f.check for f in found.findings}
    row = checks()[case.check]
    assert case.check in named, [f.says for f in found.findings]
    assert named - {case.check} - OF_THE_ATTACK <= set(row.companions)
    assert found.void == any(checks()[name].severity == "void" for name in named)
    assert all(f.do for f in found.findings if f.severity != "note")


@pytest.mark.parametrize(("model", "options"), [h[1:] for h in HONEST], ids=[h[0] for h in HONEST])
def test_an_honest_victim_raises_none(model, options):
    found = audit(model, budget="quick", episodes=32, **options)
    named = {f.check for f in found.findings}
    assert named <= OF_THE_ATTACK, [f.says for f in found.findings]
    assert not found.void and found.attacked > 20


def test_there_are_enough_culprits():
    assert len(CASES) >= 30 and len(HONEST) >= 8
    assert {c.name.split("/")[0] for c in CASES} == {"image", "text", "graph", "speech"}


@pytest.mark.parametrize("name", sorted(checks()))
def test_a_flag_is_found_again_by_its_words(name):
    row = checks()[name]
    fields = set(row.pattern.pattern.split(".*?"))
    text = flag(name, **{word.split("}")[0]: "7" for word in row.says.split("{")[1:]})
    assert check_of(text) is row and fields
    assert row.do and row.asks.endswith("?") and set(row.companions) <= set(checks()) and name not in row.companions
