import numpy as np
import pytest
import torch
from torch import nn

import advgym
from advgym.core.task import load_victim, make_task
from advgym.core.victim import Victim
from advgym.envs.text.data import grammar
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.tasks.options import Limited, word_limit
from advgym.errors import AdvgymError, DataError, VictimError
from advgym.lib.options import read

SYNTH = ("text/synth-wordswap", "text/synth-paraphrase", "text/synth-headline")
PAIRS = [(t, v) for t in SYNTH[:2] for v in ("synth-bert", "synth-bag")]
PAIRS += [(SYNTH[2], v) for v in ("synth-headline-bart", "synth-headline-gru")]


def play(task, lanes=24, split="test"):
    b = task.samples(split, list(range(lanes)))
    with torch.no_grad():
        clean = task.victim(b.inputs(b.null()))
    return b, clean, task.goal.output(clean)


@pytest.mark.parametrize(("name", "victim"), PAIRS)
def test_shipped_victims_are_as_their_cards_say(name, victim):
    found = load_victim(victim)
    assert "train_seconds" in found.card and found.card["clean_accuracy"] >= 0.97
    task = make_task(name, victim=victim)
    b, clean, _ = play(task, 200)
    assert task.goal.right(clean, b.labels).float().mean() >= 0.95
    alone = task.victim(b.inputs(b.null()).take(torch.tensor([3])))
    assert torch.allclose(alone[0], clean[3], atol=1e-4)
    assert sum(p.numel() for p in found.model.parameters()) * 4 < 1_000_000


@pytest.mark.parametrize(("name", "victim"), PAIRS)
def test_relaxed_and_leaves_meet_the_plain_scores(name, victim):
    task = make_task(name, victim=victim)
    b, clean, ref = play(task)
    form = b.look(b.random(5)).form
    hard = task.victim(b.inputs(form))
    ones, zeros = torch.ones(form.shape[:2]), torch.zeros(form.shape[:2])
    assert torch.allclose(task.victim(b.relaxed(form, ones)), hard, atol=2e-4)
    assert torch.allclose(task.victim(b.relaxed(form, zeros)), clean, atol=2e-4)
    x, leaves = b.leaves(form)
    scores = task.victim(x)
    assert torch.allclose(scores, hard, atol=2e-4)
    _, surrogate = task.goal.judge(scores, ref, None)
    grads = list(torch.autograd.grad(surrogate.sum(), leaves))
    edits, gains = b.rank_by(form, grads, 5)
    assert edits.shape == (len(b), 5, 2) and gains[:, 0].isfinite().any()
    trial = b.compose(form, edits[:, 0])
    assert b.look(trial).real.all()


@pytest.mark.parametrize("name", SYNTH)
def test_a_table_is_exact_and_fixed_per_task(name):
    task = make_task(name)
    b = task.samples("test", [5, 0, 7])
    assert task.sizes["test"] == 1000 and b.shape == (b.rows_max, 2)
    assert b.sites * b.choices <= 160
    twin = b.put(torch.tensor([1]), task.samples("train", [3]))
    want = task.samples("train", [3])
    assert twin.inputs(twin.null()).strings()[1] == want.inputs(want.null()).strings()[0]
    assert b.check(b.random(0)).all() and not b.look(b.random(0)).null.any()
    for value in b.view().values():
        assert len(value) == 3 and value.isfinite().all()
    stored = [b.dump(b.look(b.random(1)).form[i], i) for i in range(3)]
    assert torch.equal(b.load(stored), b.look(b.random(1)).form)


def test_a_paraphrase_says_the_same_and_a_swap_stays_in_its_synset():
    b = make_task("text/synth-wordswap").samples("test", list(range(30)))
    synonyms = grammar.synonyms()
    words = b.lexicon.vocabulary.words
    old = b.clean[:, :, 0].tolist()
    for lane, site, choice in b.mask().nonzero().tolist():
        assert words[b.payloads[lane, site, choice]] in synonyms[words[old[lane][site]]]
    assert b.mask().sum((1, 2)).float().mean() > 25
    long = make_task("text/synth-paraphrase").samples("test", list(range(10)))
    p = long.null()
    p[:, 0] = torch.tensor([1, 4])
    old, new = long.inputs(long.null()).strings(), long.inputs(long.look(p).form).strings()
    for a, c in zip(old, new, strict=True):
        a, c = a.split(" . "), c.split(" . ")
        assert a[0] == c[0] and a[1] != c[1] and a[2:] == c[2:]


def greedy(task, b, ref):
    """Best single edit again and again, all cells tried: no agent of the project, a plain reference."""
    p = b.null()
    target = task.goal.targets(0, b.ids, ref) if task.goal.needs_target else None
    for _ in range(int(b.limit.max())):
        best, held = torch.full((len(b),), -torch.inf), p.clone()
        for site, choice in b.mask().any(0).nonzero().tolist():
            trial = b.compose(p, torch.tensor([[site, choice]]).expand(len(b), 2))
            look = b.look(trial)
            with torch.no_grad():
                objective, surrogate = task.goal.judge(task.victim(b.inputs(look.form)), ref, target)
            score = torch.where(look.valid, surrogate + 1e3 * (objective > 0), -torch.inf)
            held = torch.where((score > best).view(-1, 1, 1), look.form, held)
            best = torch.maximum(score, best)
        p = held
    with torch.no_grad():
        return p, task.goal.judge(task.victim(b.inputs(p)), ref, target)[0] > 1e-6


@pytest.mark.parametrize(
    ("name", "low", "high"), [(SYNTH[0], 0.5, 0.97), (SYNTH[1], 0.45, 0.97), (SYNTH[2], 0.15, 1.0)]
)
def test_tasks_can_be_won_by_search_and_less_by_luck(name, low, high):
    task = make_task(name)
    b, clean, ref = play(task, 40)
    right = task.goal.right(clean, b.labels)
    p, won = greedy(task, b, ref)
    assert b.check(p).all()
    lucky = torch.zeros(len(b), dtype=torch.bool)
    for seed in range(20):
        with torch.no_grad():
            lucky |= task.goal.judge(task.victim(b.inputs(b.look(b.random(seed)).form)), ref, None)[0] > 1e-6
    rate = (won & right).sum() / right.sum()
    assert low <= rate <= high and (lucky & right).sum() / right.sum() < rate - 0.1


@pytest.mark.parametrize("victim", ["synth-headline-bart", "synth-headline-gru"])
def test_scores_are_those_of_the_greedy_output(victim):
    task = make_task("text/synth-headline", victim=victim)
    b, _, _ = play(task)
    model = task.victim.model
    x = b.inputs(b.look(b.random(2)).form)
    scores = model(x)
    embedded, mask = x.embed(model.embedding.weight, model.remap(x.vocabulary, x.device))
    memory = model.encode(embedded, mask)
    for i in range(len(b)):
        # One token at a time, each prefix read afresh.
        tokens = torch.zeros(1, model.length, dtype=torch.int64)
        for t in range(model.length):
            logits = model.decode(memory[i : i + 1], mask[i : i + 1], model.shifted(tokens))[0, t]
            tokens[0, t] = logits.argmax()
            assert torch.allclose(logits, scores[i, t], atol=1e-4)
            if tokens[0, t] == 0:
                break
        assert torch.equal(scores[i].argmax(1), tokens[0])


def test_the_headline_gradient_is_that_of_the_score():
    task = make_task("text/synth-headline")
    b, _, ref = play(task, 4)
    x, (weight,) = b.leaves(b.null())
    _, surrogate = task.goal.judge(task.victim(x), ref, None)
    (gain,) = torch.autograd.grad(surrogate.sum(), weight)
    site, choice = b.mask()[0].nonzero()[3].tolist()
    form = b.null()
    form[0, 0] = torch.tensor([site, choice])
    out = []
    for h in (0.0, 2e-3):
        _, s = task.goal.judge(task.victim(b.relaxed(form, torch.full(form.shape[:2], h))), ref, None)
        out.append(s[0].item())
    assert (out[1] - out[0]) / 2e-3 == pytest.approx(gain[0, site, choice].item(), abs=0.05, rel=0.1)


def test_limits_are_the_lesser_of_edits_and_share():
    words = torch.tensor([0, 1, 7, 8, 30])
    assert word_limit(Limited(edits=4), words).tolist() == [1, 1, 4, 4, 4]
    assert word_limit(Limited(share=0.25), words).tolist() == [1, 1, 1, 2, 7]
    assert word_limit(Limited(edits=5, share=0.1), words).tolist() == [1, 1, 1, 1, 3]
    for wrong in (
        {"edits": -1},
        {"edits": 1.5},
        {"edits": "x"},
        {"share": 1.5},
        {"share": float("nan")},
        {"share": "a"},
    ):
        with pytest.raises(AdvgymError, match=r"(edits|share) is"):
            read(Limited, wrong)


def test_context_lets_a_defense_merge_synonyms():
    task = make_task("text/synth-wordswap")
    synonyms = task.context["synonyms"]
    own = torch.arange(len(synonyms)).unsqueeze(1)
    merge = torch.cat([own, torch.where(synonyms >= 0, synonyms, own)], 1).amin(1)
    b, _, _ = play(task)
    x, y = b.inputs(b.null()), b.inputs(b.look(b.random(4)).form)
    assert x.strings() != y.strings() and x.replace(merge).strings() == y.replace(merge).strings()
    noisy = task.randomise(x, 0.5, b.ids)
    assert noisy.strings() != x.strings() and noisy.replace(merge).strings() == x.replace(merge).strings()


@pytest.mark.parametrize("settings", [{}, {"knowledge": "transfer"}, {"knowledge": "decision", "slots": 2}])
@pytest.mark.parametrize("name", [SYNTH[0], SYNTH[2]])
def test_the_environment_plays_it(name, settings):
    import advgym

    env = advgym.make(name, lanes=3, proposals=2, queries=6, **settings)
    obs, _ = env.reset(seed=0)
    for turn in range(3):
        assert obs["perturbation"].shape[0] == 3 and "site_features" in obs
        p = torch.stack([env.threat.random(2 * turn), env.threat.random(2 * turn + 1)], 1)
        obs, *_ = env.step(p)
    assert env.done


def test_embedded_tasks_refuse_other_data():
    with pytest.raises(AdvgymError, match="text/wordswap takes your own"):
        make_task("text/synth-wordswap", samples=[("a", 1)])
    with pytest.raises(AdvgymError, match="unknown dataset"):
        make_task("text/synth-headline", dataset="cnn")


# -- the caller's own ------------------------------------------------------------
SAMPLES = [("A fine film, really.", 1), ("awful", 0), ("", 0), ("the plot is dull and the film is awful", 0)]
GROUPS = {"fine": ["nice", "good"], "awful": ["terrible"], "film": ["movie"], "dull": ["boring"]}


def keyword_victim(texts):
    assert isinstance(texts, list) and all(isinstance(t, str) for t in texts)
    return np.array([[("awful" in t) * 1.0, 0.5] for t in texts], dtype=np.float64)


def test_five_lines_with_your_own_victim():
    task = make_task("text/wordswap", victim=keyword_victim, samples=SAMPLES, candidates=GROUPS)
    assert task.threat.knowledge == "score" and task.sizes == {"test": 4}
    b, _, ref = play(task, 4)
    assert ref.tolist() == [1, 0, 1, 0] and b.sites == 9
    p = b.null()
    p[0, 0] = torch.tensor([1, 0])
    p[1, 0] = torch.tensor([0, 0])
    look = b.look(p)
    assert b.inputs(look.form).strings()[:3] == ["A nice film, really.", "terrible", ""]
    assert b.site_mask()[2].sum() == 0 and b.random(0)[2].eq(-1).all()
    objective, _ = task.goal.judge(task.victim(b.inputs(look.form)), ref, None)
    assert objective[1] > 0 > objective[3]


def test_labels_only_and_modules_and_registered_names():
    task = make_task("text/wordswap", victim=Victim(lambda t: [int("awful" in s) for s in t], access="labels"),
                     samples=SAMPLES, candidates=GROUPS)  # fmt: skip
    assert task.threat.knowledge == "decision" and task.goal.outputs == 2
    assert play(task, 4)[2].tolist() == [0, 1, 0, 1]
    named = make_task("text/wordswap", victim="synth-bert", samples=SAMPLES, candidates="synth")
    assert named.threat.knowledge == "white-box" and play(named, 4)[1].shape == (4, 2)
    b = named.samples("test", [0, 1, 2, 3])
    x, leaves = b.leaves(b.null())
    grads = torch.autograd.grad(named.victim(x)[:, 0].sum(), leaves)
    assert b.rank_by(b.null(), list(grads), 2)[0][3, 0, 0] >= 0

    class Reader(nn.Module):
        def forward(self, x):
            return torch.tensor([[float(len(t)), 1.0, 2.0] for t in x.strings()])

    three = make_task("text/wordswap", victim=Reader(), samples=SAMPLES, candidates=GROUPS)
    assert three.goal.outputs == 3
    b = three.samples("test", [0, 1, 2, 3])
    with pytest.raises(AdvgymError, match="reads strings"):
        three.victim(b.leaves(b.null())[0])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"samples": None}, AdvgymError, "pass samples="),
        ({"samples": []}, AdvgymError, "list of .sentence, label. pairs"),
        ({"samples": "a fine film"}, AdvgymError, "list of .sentence, label. pairs"),
        ({"samples": [("a",)]}, AdvgymError, "sample 0 is"),
        ({"samples": [("a", 1), (3, 1)]}, AdvgymError, "sample 1 is"),
        ({"samples": [("a", 5)]}, DataError, "sample 0: labels are 0 to 1, not 5"),
        ({"samples": [("a", -1)]}, DataError, "sample 0: labels"),
        ({"victim": lambda t: [0.5] * len(t)}, VictimError, "at least 2 classes"),
        ({"victim": lambda t: 1 / 0}, VictimError, "ZeroDivisionError"),
        ({"victim": lambda t: [[1.0, 2.0]] * 7}, VictimError, "one row of scores per input"),
        ({"candidates": {"film": "movie"}}, DataError, "list of single words"),
        ({"candidates": "thesaurus"}, AdvgymError, "unknown candidates"),
        ({"choices": 0}, AdvgymError, "choices is a whole number"),
        ({"slots": -1}, AdvgymError, "slots is a whole number"),
        ({"victim": None}, AdvgymError, "pass victim="),
    ],
)
def test_plain_errors(change, error, says):
    given = {"victim": keyword_victim, "samples": SAMPLES, "candidates": GROUPS, **change}
    with pytest.raises(error, match=says):
        make_task("text/wordswap", **given)


def test_only_empty_texts_still_make_a_task():
    task = make_task("text/wordswap", victim=keyword_victim, samples=[("", 0), ("  ", 1)], candidates=GROUPS)
    b = task.samples("test", [0, 1])
    assert b.inputs(b.null()).strings() == ["", "  "] and b.check(b.random(0)).all()
    scores = load_victim("synth-bert")(["", "an unknown word zzz"])
    assert scores.shape == (2, 2) and scores.isfinite().all()


# -- Movie Reviews ------------------------------------------------------------
@pytest.mark.realdata
def test_movie_reviews_with_own_victim(data_dir):
    from pathlib import Path

    for source in ("counter-fitted", "wordnet"):
        task = make_task("text/mr-wordswap", victim=keyword_victim, candidates=source, slots=2)
        b = task.samples("test", list(range(64)))
        first = (data_dir / "text/mr/mr-1000.txt").read_text().splitlines()[0]
        line = b.inputs(b.null()).strings()[0]
        assert f"{int(b.labels[0])} {line}" == first
        assert b.limit[0] == max(1, len(line.split()) // 4)
        assert b.check(b.random(0)).all()
    assert isinstance(data_dir, Path) and task.threat.queries == 1000


@pytest.mark.realdata
@pytest.mark.slow
def test_the_movie_review_victim_trains_to_its_mark(data_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("ADVGYM_CACHE", str(tmp_path))
    from advgym.core.task import _load_victim

    card = _load_victim("mr-cnn", {}).card
    assert card["clean_accuracy"] >= 0.75 and card["train_seconds"] < 120


@pytest.mark.gpu
def test_the_same_scores_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for name in SYNTH:
        task = make_task(name)
        _, clean, _ = play(task)
        g = task.samples("test", list(range(24)), "cuda")
        victim = task.victim.to("cuda")
        assert torch.allclose(victim(g.inputs(g.null())).cpu(), clean, atol=1e-3)
        x, leaves = g.leaves(g.null())
        grads = torch.autograd.grad(victim(x).sum(), leaves)
        assert g.rank_by(g.null(), list(grads), 3)[0].device.type == "cuda"
        victim.to("cpu")
        assert isinstance(x, TextInput)


def test_appended_words_are_judged_in_their_own_table():
    """The verifier's batch is a fresh one: what an agent appended must reach it by payload, not by slot."""

    def attack(env, *, seed=0):
        env.reset(seed=seed)
        lexicon = env.threat._batch.lexicon
        sites = env.table.site_mask()
        for nth in range(int(sites.sum(1).max())):
            order = (~sites).to(torch.int8).argsort(dim=1, stable=True)
            site = order[:, min(nth, order.shape[1] - 1)]
            word = torch.stack(
                [_related(lexicon, int(w)) for w in env.threat._batch.clean[torch.arange(len(site)), site, 0]]
            )
            choice = env.append(word.unsqueeze(1))
            p = env.threat.null()
            p[:, 0] = torch.where((choice >= 0).unsqueeze(1), torch.stack([site, choice], 1), -1)
            if env.done:
                return
            env.step(p)

    result = advgym.attack("text/synth-wordswap", attack, slots=12, episodes=6, queries=30, knowledge="score")
    edited = [s for s in result.samples if s.perturbation["edits"]]
    assert edited and all(s.valid and s.distance == len(s.perturbation["edits"]) for s in edited)
    probe = 6
    assert any(choice > probe for s in edited for _, choice, *_ in s.perturbation["edits"])
    assert advgym.verify(result) == []


def _related(lexicon, word):
    every = torch.arange(len(lexicon.vocabulary))
    fits = lexicon.related(torch.tensor([[word]]).expand(1, 1), every.unsqueeze(0)).squeeze(0)
    fits[word] = False
    found = fits.nonzero()
    return found[0, 0] if len(found) else torch.tensor(word)
