"""Scenes and what is written about them; goals on whole captions and error rates; image-to-text models by folder."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import advgym
from advgym import AdvgymError, make_task
from advgym.core.kinds.sequences import SequenceGoal
from advgym.envs.image.data import scenes
from advgym.envs.image.models.captioner import Captioner
from advgym.errors import DataError, VictimError
from advgym.lib.distances import levenshtein

torch.set_num_threads(1)
TASK = "image/synth-scenes-caption"


def words(row):
    return [scenes.WORDS[t - 1] for t in row.tolist() if t > 0]


def test_scenes_say_what_they_show():
    data = scenes.load("test")
    assert data.levels.shape == (400, 3, 24, 24) and data.captions.shape == (400, scenes.LENGTH)
    paint = {name: torch.tensor(v).view(3, 1, 1) for name, v in scenes.COLOURS.items()}
    for n in range(20):
        said, image = words(data.captions[n]), data.levels[n].float()
        near = {c: int(((image - v).abs().amax(0) < 40).sum()) for c, v in paint.items()}
        assert {c for c, many in near.items() if many > 8} == set(said) & set(paint)
        assert said.count("and") == len(said) // 4
    assert len({tuple(c) for c in data.captions.tolist()}) > 200
    assert not (scenes.load("train").levels[:400] == data.levels).flatten(1).all(1).any()


@settings(max_examples=60, deadline=None)
@given(a=st.lists(st.integers(0, 3), max_size=6), b=st.lists(st.integers(0, 3), max_size=6))
def test_edit_distances(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        last, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(last[j] + (x != y), last[j + 1] + 1, row[j] + 1))
    left, right = (torch.tensor([v + [-1] * (7 - len(v))]) for v in (a, b))
    assert levenshtein(left, right).tolist() == [row[-1]]


def spoken(*texts, size=6, length=4):
    """Scores whose greedy output is the given tokens."""
    out = torch.zeros(len(texts), length, size)
    for i, text in enumerate(texts):
        for t, token in enumerate([*text, 0, *[0] * length][:length]):
            out[i, t, token] = 2.0
    return out


def test_a_whole_caption_is_the_target_or_it_is_not():
    goal = SequenceGoal(list("abcde"), 4, "targeted")
    target = goal.parse_target("a b").unsqueeze(0).expand(4, -1)
    scores = spoken([1, 2], [1, 2, 3], [1], [2, 1]).requires_grad_()
    objective, surrogate = goal.judge(scores, target, target)
    assert (objective > 0).tolist() == [True, False, False, False]
    surrogate.sum().backward()
    assert scores.grad.abs().sum() > 0
    assert goal.parse_target(["c"]).tolist() == [3, -1, -1, -1]
    with pytest.raises(AdvgymError, match="a target is a phrase"):
        goal.parse_target("nothing")


def test_error_rates_count_words():
    goal = SequenceGoal(list("abcde"), 4, "error-rate", rate=0.5)
    ref = torch.tensor([[1, 2, 3, -1]]).expand(3, -1)
    objective, _ = goal.judge(spoken([1, 2, 3], [1, 2], [4, 2]), ref, None)
    assert torch.allclose(objective, torch.tensor([-1.5, -0.5, 0.5]) / 3)
    with pytest.raises(AdvgymError, match="rate is a share"):
        SequenceGoal(["a"], 3, "error-rate", rate=1.5)


@pytest.mark.parametrize("goal", ["untargeted", "targeted", "keyword", "phrase", "bleu", "error-rate"])
def test_captions_are_attacked_and_verified(goal):
    made = make_task(TASK, goal=goal, queries=60)
    result = advgym.attack(made, "pgd", episodes=8, lanes=8)
    assert result.attacked and advgym.verify(result, task=made) == []
    if goal in ("keyword", "error-rate"):
        assert result.success_rate > result.control_rate


def test_the_shipped_captioner_writes():
    made = make_task(TASK)
    assert made.victim.card["clean_accuracy"] > 0.8
    b = made.samples("test", list(range(16)))
    said = made.goal.output(made.victim(b.x))
    assert (said == b.labels).all(1).double().mean() > 0.6
    assert all(w in scenes.WORDS for w in made.goal.describe(said[0]).split())
    torch.testing.assert_close(made.victim(b.x[:3]), made.victim(b.x)[:3], atol=1e-4, rtol=0)


def test_ones_own_captioner():
    torch.manual_seed(0)
    net = Captioner((1, 8, 8), 4, 3, patch=4, width=4, hidden=8)
    from advgym import Victim

    mine = Victim(net, card={"words": ["a", "b", "c"], "length": 3})
    images = [(torch.rand(1, 8, 8), None) for _ in range(3)]
    made = make_task("image/caption", victim=mine, samples=images)
    assert made.sizes == {"test": 3}
    with pytest.raises(VictimError, match="does not say what it writes"):
        make_task("image/caption", victim=net, samples=images)
    with pytest.raises(VictimError, match="want"):
        make_task("image/caption", victim=mine.like(net, card={"words": ["a"], "length": 3}), samples=images)
    with pytest.raises(AdvgymError, match="at most 2"):
        make_task("image/caption", victim=mine, samples=[(torch.rand(1, 8, 8), "a b c")])
    with pytest.raises(DataError, match="not a pair"):
        make_task("image/caption", victim=mine, samples=[5])


def test_an_image_to_text_model_by_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    vocabulary = {w: i for i, w in enumerate(["<s>", "</s>", "<pad>", "<unk>", "a", "red", "blue", "circle", "square"])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    vit = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                 image_size=8, patch_size=4)  # fmt: skip
    gpt = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=9, n_positions=32, bos_token_id=0,
                                  eos_token_id=1)  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, gpt)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 2, 1
    model = transformers.VisionEncoderDecoderModel(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    images = [(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(i)), None) for i in range(4)]
    made = make_task("image/caption", victim=f"image-to-text:{tmp_path}", samples=images, eps="60/255")
    b = made.samples("test", [0, 1])
    said = made.goal.output(made.victim(b.x))
    pixels = made.victim.module.prepared.prepare(b.x)
    want = model.eval().generate(pixels, max_new_tokens=15, do_sample=False, suppress_tokens=[0, 2, 3])
    for ours, theirs in zip(said, want, strict=True):
        plain = [int(t) for t in theirs[1:] if t not in (1, 2)]
        assert [t - 1 for t in ours.tolist() if t > 0] == plain[: int((ours > 0).sum())]
    x = b.x.clone().requires_grad_()
    made.victim(x).square().sum().backward()
    assert (x.grad != 0).any()
    result = advgym.attack("image/caption", "pgd", victim=f"image-to-text:{tmp_path}", samples=images, eps="60/255",
                           goal="error-rate", episodes=4, lanes=4)  # fmt: skip
    assert result.attacked == 4 and not result.invalid_rate
