"""Language models that are asked by a prompt: the library's own probabilities, on both paths, whatever is padded."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym.core.task import make_task
from advgym.envs.text.victims import named, prompted
from advgym.errors import AdvgymError, DataError, VictimError
from advgym.evaluations import subject

sys.path.insert(0, str(Path(__file__).parent))
import tiny_hub

torch.set_num_threads(1)
PROMPT = "a good film : {text} really :"
LABELS = ("good", "awful", "unforgettable masterpiece")  # the last is of several tokens
TEXTS = ["A fine film with unforgettable acting , really .", "awful", "a zebra", "the plot is dull and the film awful"]
SAMPLES = [(t, i % 2) for i, t in enumerate(TEXTS)]
GROUPS = {"fine": ["unforgettable", "good"], "awful": ["terrible"], "film": ["movie", "masterpiece"],
          "dull": ["boring", "zzz"], "zebra": ["man", "dog"], "plot": ["script"]}  # fmt: skip
KINDS = ["gpt2", "llama", "opt"]


@torch.no_grad()
def plain(folder, texts, labels=LABELS, prompt=PROMPT):
    """The library's own answer, a text and a label at a time."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = transformers.AutoModelForCausalLM.from_pretrained(folder)

    def tokens(text):
        ids = tokenizer(text)["input_ids"]
        return ids[:-1] if ids[-1] == 1 else ids

    out = torch.zeros(len(texts), len(labels))
    for i, text in enumerate(texts):
        asked = prompt.replace("{text}", text)
        start = len(tokens(asked))
        for k, label in enumerate(labels):
            ids = torch.tensor([tokens(f"{asked} {label}")])
            said = found(ids).logits[0].log_softmax(1)
            out[i, k] = sum(said[j - 1, ids[0, j]] for j in range(start, ids.shape[1]))
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_librarys_on_both_paths(model, kind, caplog):
    folder = model(kind)
    with caplog.at_level(logging.WARNING):
        victim = prompted.load(folder, prompt=PROMPT, labels=LABELS, cap=60)  # several buckets
    assert victim.access == "gradients" and "several tokens" in caplog.text
    assert len(victim.card["label_tokens"][LABELS[2]]) > 1
    assert torch.allclose(victim(TEXTS), plain(folder, TEXTS), atol=1e-5)
    task = make_task("text/wordswap", victim=victim, samples=named_labels(), candidates=GROUPS, antonyms=False, edits=3)
    b = task.samples("test", list(range(len(TEXTS))))
    form = b.look(b.random(3)).form
    with torch.no_grad():
        clean, hard = task.victim(b.inputs(b.null())), task.victim(b.inputs(form))
    ones = torch.ones(form.shape[:2])
    assert torch.allclose(clean, plain(folder, TEXTS), atol=1e-5)
    assert torch.allclose(hard, plain(folder, b.inputs(form).strings()), atol=1e-5) and not torch.equal(hard, clean)
    assert torch.allclose(task.victim(b.relaxed(form, ones)), hard, atol=1e-5)
    assert torch.allclose(task.victim(b.relaxed(form, 0 * ones)), clean, atol=1e-5)
    assert all(faithful for _, faithful in victim.model._tables.values())
    x, leaves = b.leaves(b.null())
    (gain,) = torch.autograd.grad(task.victim(x)[:, 0].sum(), leaves)
    assert gain.isfinite().all() and gain.abs().sum() > 0


def named_labels():
    return [(t, LABELS[i]) for t, i in SAMPLES]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans(), st.sampled_from(KINDS), st.integers(0, 99))
def test_padding_never_matters(model, lengths, left, kind, seed):
    key = model(kind)
    if key not in LOADED:
        LOADED[key] = prompted.load(key, prompt=PROMPT, labels=LABELS).model
    module, draw = LOADED[key], torch.Generator().manual_seed(seed)
    width = max(lengths) + 2
    rows = [torch.randint(5, 330, (n,), generator=draw) for n in lengths]
    ids = torch.randint(5, 330, (len(rows), width), generator=draw)  # anything stands where nothing is
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, where], mask[i, where] = row, 1
    with torch.no_grad():
        alone = torch.cat([module.logits(r[None], None, torch.ones_like(r[None])) for r in rows])
        hidden = module.embeddings()[ids]
        assert torch.allclose(module.logits(ids, None, mask), alone, atol=1e-5)
        assert torch.allclose(module.logits(ids, hidden, mask), alone, atol=1e-5)


LOADED: dict[str, prompted.Prompted] = {}


def test_a_tokenizer_without_bytes_and_other_prompts(model):
    folder = model("llama", byte=False)
    for prompt in ("{text} really", "the film : {text}", "it was a good film : {text} . it is"):
        victim = prompted.load(folder, prompt=prompt + " ", labels="good,awful")  # its blank is the label's
        assert torch.allclose(victim(TEXTS), plain(folder, TEXTS, ("good", "awful"), prompt), atol=1e-5)


def test_long_texts_are_cut_and_the_prompt_is_not(model, caplog):
    folder = model("gpt2")
    victim = prompted.load(folder, prompt=PROMPT, labels="good,awful")
    long = " ".join(["film"] * 200)
    with caplog.at_level(logging.WARNING):
        found = victim([long, "awful"])
    assert "are cut there" in caplog.text and found.isfinite().all()
    short = victim([" ".join(["film"] * (found_room(victim)))])
    assert torch.allclose(found[:1], short, atol=1e-4)


def found_room(victim):
    reader = victim.model
    return reader.longest - len(reader.tokenizer.whole([""])[0])


def test_calibration_is_off_and_takes_off_what_no_text_gets(model):
    folder = model("gpt2")
    off, on = (prompted.load(folder, prompt=PROMPT, labels=LABELS, calibrate=c) for c in ("", "a"))
    assert torch.allclose(on(TEXTS), off(TEXTS) - off(["a"]), atol=1e-5)


@pytest.mark.parametrize("head", ["transformers", "prompted"])
def test_both_spellings_name_it(model, head):
    folder = model("llama")
    name = f"{head}:{folder}?prompt=a+good+film+:+{{text}}+really+:&labels=good,awful"
    samples = [("a fine film", "good"), ("the plot is dull", "awful"), ("awful", "good"), ("a movie", "awful")]
    task = make_task("text/wordswap", victim=name, samples=samples, candidates=GROUPS, antonyms=False, edits=1)
    assert task.victim.name == name and task.threat.knowledge == "white-box"
    assert torch.allclose(task.victim(TEXTS), plain(folder, TEXTS, ("good", "awful")), atol=1e-5)
    result = advgym.attack(task, "first-order", episodes=4)
    assert result.clean_size == 4
    assert subject.read(name, "somewhere.xyz").task == "text/wordswap"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"prompt": "no hole"}, AdvgymError, r"holds \{text\} once"),
        ({"prompt": "{text} {text}"}, AdvgymError, r"holds \{text\} once"),
        ({"labels": "good"}, AdvgymError, "at least two words"),
        ({"labels": ()}, AdvgymError, "needs labels="),
        ({"labels": "good,good acting"}, AdvgymError, "can never be likelier"),
        ({"prompt": "film " * 120 + "{text} :"}, AdvgymError, "the prompt takes .* tokens, and the model reads"),
    ],
)
def test_what_does_not_fit_is_refused(model, options, error, words):
    with pytest.raises(error, match=words):
        prompted.load(model("gpt2"), **{"prompt": PROMPT, "labels": "good,awful", **options})


def test_models_of_another_kind_are_refused(model, tmp_path):
    import transformers

    with pytest.raises(AdvgymError, match="label '龍' is no token of this model's tokenizer"):
        prompted.load(model("llama", byte=False), prompt=PROMPT, labels="good,龍")
    with pytest.raises(DataError, match=r"causal language model; .* is BertForSequenceClassification, a classifier"):
        prompted.load(model("bert"), prompt=PROMPT, labels="good,awful")
    found = transformers.AutoModelForCausalLM.from_pretrained(model("gpt2"))
    found.save_pretrained(tmp_path / "bare")
    with pytest.raises(DataError, match=r"holds no tokenizer.*save it beside"):
        prompted.load(str(tmp_path / "bare"), prompt=PROMPT, labels="good,awful")
    config = transformers.BertConfig(vocab_size=330, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=32, initializer_range=0.5)  # fmt: skip
    encoder = tiny_hub.save(transformers.BertLMHeadModel(config), tiny_hub.byte_level(), tmp_path / "bert")
    with pytest.raises(DataError, match="reads later tokens: an encoder"):
        prompted.load(encoder, prompt=PROMPT, labels="good,awful")
    with pytest.raises(VictimError, match="pairs of texts"):
        prompted.load(model("gpt2"), prompt=PROMPT, labels="good,awful")([("a", "b")])
    with pytest.raises(AdvgymError, match="named with its prompt"):
        named.by_prompt("x", source="gpt2")
    with pytest.raises(AdvgymError, match=r"holds \{text\} once"):
        named.by_prompt("x", source=model("gpt2") + "?labels=a,b")
    with pytest.raises(AdvgymError, match="did you mean 'prompt'"):
        named.classifier("x", source=model("gpt2") + "?promt=a")
