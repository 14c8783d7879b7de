"""Whisper: the plain greedy loop's output, scores along it, and the goals on it; a tiny model of random weights."""

import numpy as np
import pytest
import torch

import advgym
from advgym.core.task import load_victim, make_task
from advgym.envs.speech.goals.sequences import SequenceGoal
from advgym.envs.speech.victims import hub
from advgym.errors import AdvgymError, VictimError

transformers = pytest.importorskip("transformers")
WORDS = [f"w{i}" for i in range(30)]
MARKS = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>", "<unk>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    where = tmp_path_factory.mktemp("whisper")
    vocab = {w: i for i, w in enumerate(MARKS + WORDS)}
    plain = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token=MARKS[0], unk_token="<unk>", additional_special_tokens=MARKS[1:3]
    ).save_pretrained(where)
    transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1).save_pretrained(where)
    config = transformers.WhisperConfig(
        vocab_size=len(vocab), num_mel_bins=20, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_source_positions=50, max_target_positions=20, decoder_start_token_id=1, eos_token_id=0, pad_token_id=0,
        bos_token_id=0, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    for name, value in model.named_parameters():  # far enough from uniform that outputs differ between sounds
        if "norm" not in name and "encoder.embed_positions" not in name and value.dim() > 1:
            value.data.mul_(14.0)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=1, eos_token_id=0, pad_token_id=0, bos_token_id=0, no_timestamps_token_id=2,
        suppress_tokens=[1, 2, 3, 9], begin_suppress_tokens=[0],
    )  # fmt: skip
    model.save_pretrained(where)
    return where, model


def sounds(n: int = 5) -> torch.Tensor:
    t = torch.arange(8000) / 16000
    x = torch.stack([0.3 * torch.sin(2 * torch.pi * 200 * (i + 1) * t) for i in range(n)])
    return torch.where(torch.arange(8000) < 8000 - 1000 * torch.arange(n)[:, None], x, 0.0)


@torch.no_grad()
def plain_greedy(model, extractor, wave, length):
    """One recording at a time, without a cache."""
    features = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    ids = [1, 2]
    for t in range(length):
        logits = model(input_features=features, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
        logits[[1, 2, 3, 9] + ([0] if t == 0 else [])] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == 0:
            break
    return [i for i in ids[2:] if i]


def test_it_writes_what_the_model_writes(folder):
    where, model = folder
    victim = load_victim(f"speech-transformers:{where}")
    writer, x = victim.model, sounds()
    assert victim.card["rate"] == 16000 and victim.card["seconds"] == 1.0 and writer.prefix == [1, 2]
    short = hub.load(str(where), length=8).model
    extractor = transformers.AutoFeatureExtractor.from_pretrained(where)
    found = short.outputs(x)
    want = [plain_greedy(model, extractor, row, 8) for row in x]
    assert [[i for i in row if i >= 0] for row in found.tolist()] == want
    assert len({tuple(w) for w in want}) > 1
    scores = short(x)
    assert scores.shape == (5, 8, len(short.keep) + 2)
    tokens = scores.argmax(2)
    assert torch.equal(torch.where(found >= 0, short.keep[(tokens - 1).clamp_min(0)], -1), found)
    torch.testing.assert_close(scores, torch.cat([short(row[None]) for row in x]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(short(torch.nn.functional.pad(x, (0, 500))), scores, atol=1e-4, rtol=1e-4)
    y = x.clone().requires_grad_()
    again = short(y)
    torch.testing.assert_close(again, scores, atol=1e-5, rtol=1e-5)
    (g,) = torch.autograd.grad(again[:, 0, 1:].logsumexp(1).sum() + again[:, 1, 3].sum(), y)
    assert g.isfinite().all() and g.any()
    assert short(torch.zeros(1, 5)).isfinite().all()


def test_scores_over_some_tokens_keep_every_margin(folder):
    writer, x = hub.load(str(folder[0]), length=6).model, sounds()
    whole, keep = writer(x), writer.outputs(x).unique()
    keep = keep[keep >= 0][:2]
    narrow = writer.narrowed(keep)(x)
    assert narrow.shape[2] == len(keep) + 2
    index = (writer.keep.unsqueeze(0) == keep.unsqueeze(1)).int().argmax(1) + 1
    torch.testing.assert_close(narrow[..., 1:-1], whole[..., index])
    others = [i for i in range(1, whole.shape[2] - 1) if i not in index.tolist()]
    torch.testing.assert_close(narrow[..., -1], whole[..., others].amax(2))


def test_it_plays(folder):
    where, _ = folder
    writer = hub.load(str(where)).model
    x = sounds()
    texts = [writer.text(row) for row in writer.outputs(x).tolist()]
    samples = [(row.numpy(), text or "w1") for row, text in zip(x, texts, strict=True)]
    given = {"victim": f"transformers:{where}", "samples": samples}
    task = make_task("speech/dictate", goal="targeted", words="w1 w2", **given)
    batch = task.samples("test", list(range(5)))
    scores = task.victim(batch.x)
    said = task.goal.output(scores)
    assert [task.goal.write(row) for row in said.tolist()] == texts
    assert task.goal.right(scores, batch.labels).tolist() == [bool(t) for t in texts]
    targets = task.goal.targets(0, batch.ids, said)
    assert (targets != said).any(1).all() and task.goal.met(targets, said, targets).all()
    assert task.goal.write(task.goal.parse_target("w1 w2").tolist()) == "w1 w2"
    missing = next(w for w in WORDS if w not in {*" ".join(texts).split(), "w1", "w2"})
    with pytest.raises(AdvgymError, match="words="):
        task.goal.parse_target(missing)
    found = advgym.attack("speech/dictate", "pgd", eps=0.2, queries=30, settings={"steps": 20}, **given)
    assert found.attacked >= 3 and found.success_rate > 0
    with pytest.raises(VictimError, match="attacks Whisper"):
        make_task("speech/dictate", victim=lambda v: v, samples=samples)


def test_goals_on_sequences_by_hand():
    goal = {
        n: SequenceGoal(3, 4, n, write=str, read=lambda t: [1], pool=torch.tensor([[1, 2, -1, -1], [2, 1, -1, -1]]))
        for n in ("untargeted", "targeted", "silence")
    }

    def scores(*tokens):
        return torch.log_softmax(torch.nn.functional.one_hot(torch.tensor([tokens]), 5) * 5.0, 2)

    ref = torch.tensor([[1, 2, -1, -1]])
    assert goal["untargeted"].output(scores(1, 2, 0, 3)).tolist() == ref.tolist()
    for said, errors in (((1, 2, 0, 0), 0), ((1, 3, 0, 0), 1), ((4, 3, 0, 0), 2), ((0, 0, 0, 0), 2)):
        objective, _ = goal["untargeted"].judge(scores(*said), ref, None)
        assert objective.item() == pytest.approx((errors - 1 + 0.5) / 2)
        objective, _ = goal["targeted"].judge(scores(*said), ref, ref)
        assert objective.item() == pytest.approx((0.5 - errors) / 2)
    assert goal["silence"].judge(scores(0, 0, 0, 0), ref, None)[0].item() > 0
    assert goal["silence"].judge(scores(1, 0, 0, 0), ref, None)[0].item() < 0
    near, far = (goal["targeted"].judge(scores(*s), ref, ref)[1].item() for s in ((1, 2, 0, 0), (3, 3, 0, 0)))
    assert near > far
    assert goal["targeted"].targets(0, torch.tensor([5]), ref).tolist() == [[2, 1, -1, -1]]
    assert goal["targeted"].judge(scores(1, 2, 0, 0) * np.nan, ref, ref)[0].item() == -1
    for bad in ([7], [], [1, 2, 3, 1]):
        with pytest.raises(AdvgymError):
            goal["targeted"].parse_target(bad)
