"""`advgym train` of an agent that learns."""


def test_a_learning_agent_is_shown_and_trained(advgym, monkeypatch, tmp_path):
    answer = advgym("train", "policy")
    assert answer.code == 0 and "policy-text-synth-wordswap.safetensors" in answer.out
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    small = ["--set", "steps=512", "--set", "lanes=16", "--set", "queries=4"]
    answer = advgym("train", "policy", "--task", "text/synth-wordswap", *small)
    assert answer.code == 0, answer.err
    assert str(tmp_path) in answer.out and list(tmp_path.rglob("policy-*.safetensors"))
    answer = advgym("train", "policy", "--set", "stpes=3")
    assert answer.code == 2 and "did you mean 'steps'" in answer.err
