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


def test_a_policy_for_texts_of_ones_own(advgym, monkeypatch, tmp_path):
    """`dataset=` is what is attacked: without `train=` there is nothing to train on."""
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path / "cache"))
    for name in ("attacked", "seen", "others"):
        rows = [f"a {'good' if i % 2 else 'bad'} film {name},{i % 2}" for i in range(8)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "near.json").write_text('{"good": ["bad", "fine"], "bad": ["good", "awful"]}')
    own = [f"dataset={tmp_path / 'attacked.csv'}", "victim=synth-bag", f"candidates={tmp_path / 'near.json'}"]
    small = ["steps=64", "lanes=4", "queries=4"]

    def train(*more):
        pairs = [part for text in (*small, *own, *more) for part in ("--set", text)]
        return advgym("train", "policy", "--task", "text/wordswap", *pairs)

    answer = train()
    assert answer.code == 2 and "pass train=" in answer.err, answer.err
    for name in ("seen", "others", "seen"):
        answer = train(f"train={tmp_path / name}.csv")
        assert answer.code == 0, answer.err
        assert "content=" in answer.out
    assert len(list((tmp_path / "cache").rglob("policy-text-wordswap-*.safetensors"))) == 2
    attack = ["attack", "text/wordswap", "--agent", "random-search", "--episodes", "2"]
    attack += ["--defense", "adversarial-training:epochs=1,queries=3"]
    attack += [part for text in own for part in ("--set", text)]
    answer = advgym(*attack)
    assert answer.code == 2 and "pass train=" in answer.err, answer.err
    answer = advgym(*attack, "--set", f"train={tmp_path / 'seen'}.csv")
    assert answer.code == 0 and "synth-bag-at-first-order" in answer.out, answer.err
    answer = advgym("train", "policy", "--task", "text/wordswap", "--set", "candidate=3")
    assert answer.code == 2 and "did you mean 'candidates'" in answer.err
