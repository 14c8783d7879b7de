"""Normalisation: look-alikes become the word they resemble, plain words and gradients stay."""

import pytest
import torch

from advgym import AdvgymError, Victim, attack, make_task, registry, verify
from advgym.agents.defenses.inputs.text_normalise import merged
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.vocabulary import Vocabulary

WORDS = ("film", "fіlm", "caf\u00e9", "\u200b", "fine", "ｏｄｄ", "ᴏdd")
IDS = torch.tensor([[4, 1, 3, -1], [2, 0, 5, 6]])


def guard(victim):
    return registry.defense("normalise").defend(Victim(victim, access="scores"), make_task("text/synth-wordswap"))


def seen(x):
    """What a victim of strings reads behind the defense."""
    read = []

    def spy(y):
        read.extend(y if isinstance(y, list) else y.strings())
        return torch.zeros(len(y), 2)

    guard(spy)(x)
    return read


def test_strings_are_what_they_look_like():
    assert seen(TextInput(IDS, Vocabulary(WORDS))) == ["fine film", "cafe film odd odd"]
    assert seen(["𝓯ine fi\u200blm", "plain"]) == ["fine film", "plain"]


def test_words_merge_into_the_one_they_resemble():
    table, renamed = merged(Vocabulary(WORDS))
    assert table.tolist() == [0, 0, 2, -1, 4, 5, 5]
    assert [renamed.words[i] for i in (0, 2, 4, 5)] == ["film", "cafe", "fine", "odd"] and len(renamed) == len(WORDS)
    assert merged(Vocabulary(["a", "film"])) is None


def test_plain_text_passes_as_it_is():
    x = TextInput(torch.tensor([[0, 1]]), Vocabulary(["a", "film"]))
    read = []
    guard(lambda y: read.append(y) or torch.zeros(len(y), 2))(x)
    assert read[0] is x


def test_a_word_victim_is_not_fooled_by_look_alikes():
    """Scores of texts in other characters are those of the plain ones, for texts, relaxed texts and rankings."""
    task = make_task("text/synth-wordswap")
    lexicon = task.samples("test", [0]).lexicon
    plain = list(lexicon.vocabulary.words)
    both = Vocabulary([*plain, *("\u200b".join(w) for w in plain if len(w) > 1)])
    twin = {w.replace("\u200b", ""): i for i, w in enumerate(both.words) if "\u200b" in w}
    batch = task.samples("test", list(range(8)))
    x = batch.inputs(batch.null())
    odd = torch.tensor([twin.get(w, i) for i, w in enumerate(plain)])
    fooled = TextInput(torch.where(x.ids >= 0, odd[x.ids.clamp_min(0)], -1), both)
    bare, safe = task.victim, registry.defense("normalise").defend(task.victim, task)
    with torch.no_grad():
        assert torch.allclose(safe(fooled), bare(x), atol=1e-5) and not torch.allclose(bare(fooled), bare(x), atol=0.1)
        assert torch.equal(safe(x), bare(x))
        half = torch.full((8, x.ids.shape[1], 1), 0.5)
        soft, plain_soft = (TextInput(v.ids, v.vocabulary, v.ids.unsqueeze(2), half) for v in (fooled, x))
        assert torch.allclose(safe(soft), bare(plain_soft), atol=1e-5)


def test_it_undoes_homoglyph_attacks_on_the_callers_own_texts():
    """A bag of words that knows plain words alone is fooled by every look-alike, and by none behind the defense."""

    def scores(texts):
        good = torch.tensor([[float(sum(w in t.split() for w in ("fine", "great")))] for t in texts])
        return torch.cat([0.5 - good, good - 0.5], 1)

    samples = [("a fine film", 1), ("a great plot", 1), ("fine acting", 1)]
    table = {"fine": ["fіne", "f\u200bine"], "great": ["grеat"]}
    options = {"victim": scores, "samples": samples, "share": 1.0, "queries": 20}
    options["candidates" if "candidates" in registry.task_row("text/wordswap")[1]["constraint"] else "synonyms"] = table
    bare = attack(make_task("text/wordswap", **options), "random-search", episodes=3)
    safe = attack(make_task("text/wordswap", defenses=["normalise"], **options), "random-search", episodes=3)
    assert bare.success_rate == 1.0 and safe.success_rate == 0.0 and safe.attacked == 3
    assert bare.columns["kept"].success_rate == 1.0 and bare.columns["kept"].mean_success > 0.9
    assert verify(safe, task=make_task("text/wordswap", defenses=["normalise"], **options)) == []


def test_what_is_no_text_is_refused():
    with pytest.raises(AdvgymError, match="reads words or strings"):
        guard(lambda y: torch.zeros(1, 2))(torch.zeros(1, 3))
