"""Models of transformers and torchaudio: their processors' own numbers, rows alone as together, refusals by name."""

import json

import numpy as np
import pytest
import torch

from advgym.core.task import load_victim
from advgym.envs.speech.goals.decode import greedy
from advgym.envs.speech.models.fronts import AstFront, WhisperFront
from advgym.envs.speech.victims import hub, pipelines
from advgym.envs.speech.victims.listening import groups, real_length
from advgym.errors import AdvgymError, DataError, VictimError

transformers = pytest.importorskip("transformers")
LENGTHS = (3000, 2900, 1000, 7)
SIZE = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=(16, 16, 16),
    conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2), num_feat_extract_layers=3, num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2, vocab_size=11, pad_token_id=2, num_labels=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("letters") / "vocab.json"
    vocab = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "|": 4, **{c: i + 5 for i, c in enumerate("ABCDE'")}}
    path.write_text(json.dumps(vocab))
    return transformers.Wav2Vec2CTCTokenizer(str(path))


def saved(folder, family, task, norm, tokenizer=None):
    """A tiny model of random weights as `save_pretrained` writes it."""
    config = getattr(transformers, f"{family}Config")(
        **SIZE, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer"
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}{task}")(config).eval()
    model.save_pretrained(folder)
    masked = norm == "layer"
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masked, do_normalize=True).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return model


def waves() -> torch.Tensor:
    x = torch.randn(4, 3000, generator=torch.Generator().manual_seed(0)) * 0.1
    return torch.where(torch.arange(3000) < torch.tensor(LENGTHS)[:, None], x, 0.0)


@pytest.mark.parametrize(
    ("family", "norm"), [("Wav2Vec2", "group"), ("Wav2Vec2", "layer"), ("Hubert", "layer"), ("WavLM", "layer")]
)
def test_recognisers_answer_as_their_processor_says(tmp_path, tokenizer, family, norm):
    model = saved(tmp_path, family, "ForCTC", norm, tokenizer)
    victim = hub.load(str(tmp_path))
    assert victim.card["rate"] == 16000 and victim.card["alphabet"] == " ABCDE'" and victim.card["own_blank"] == 2
    x = waves()
    together = victim(x)
    assert together.shape == (4, victim.model.frames(3000), 8)
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], victim(x[i : i + 1]), atol=1e-4, rtol=1e-4)
    assert (together[2, victim.model.frames(1000) :, 0] == 0).all()  # beyond its end: the blank
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    own = model(**extractor(x[1, :2900].numpy(), sampling_rate=16000, return_tensors="pt")).logits
    found = together[1:2, : own.shape[1], 2:]
    torch.testing.assert_close(found, own.log_softmax(2)[..., 5:], atol=1e-4, rtol=1e-4)
    ids = [i for i in own.argmax(2)[0].tolist() if i > 3 or i == 2]
    if ids == own.argmax(2)[0].tolist():  # where no mark is written both decode alike
        said = "".join(" ABCDE'"[i - 1] for i in greedy(together[1:2])[0].tolist() if i > 0)
        assert said == tokenizer.decode(ids)
    x = x.requires_grad_()
    (g,) = torch.autograd.grad(victim(x).square().sum(), x)
    assert g.isfinite().all() and not g[1, 2900:].any() and not g[2, 1000:].any() and g[2, :1000].any()


@pytest.mark.parametrize(("family", "norm"), [("Wav2Vec2", "layer"), ("Hubert", "group")])
def test_classifiers_of_waveforms(tmp_path, family, norm):
    model = saved(tmp_path, family, "ForSequenceClassification", norm)
    victim = load_victim(f"speech-transformers:{tmp_path}")
    assert victim.card["names"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    x = waves()
    together = victim(x)
    torch.testing.assert_close(together, torch.cat([victim(row[None]) for row in x]), atol=1e-4, rtol=1e-4)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    own = model(**extractor(x[2, :1000].numpy(), sampling_rate=16000, return_tensors="pt")).logits
    torch.testing.assert_close(together[2:3], own, atol=1e-4, rtol=1e-4)


def test_the_spectrogram_transformer(tmp_path):
    config = transformers.ASTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=64,
        num_mel_bins=32, num_labels=3, patch_size=16, frequency_stride=16, time_stride=16,
    )  # fmt: skip
    extractor = transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32)
    torch.manual_seed(0)
    model = transformers.ASTForAudioClassification(config).eval()
    model.save_pretrained(tmp_path), extractor.save_pretrained(tmp_path)
    x, front = waves(), AstFront(extractor)
    for i, n in enumerate(LENGTHS[:3]):
        want = extractor(x[i, :n].numpy(), sampling_rate=16000, return_tensors="pt")["input_values"]
        torch.testing.assert_close(front(x[i : i + 1], torch.tensor([n])), want, atol=1e-4, rtol=1e-4)
    victim = hub.load(str(tmp_path))
    torch.testing.assert_close(victim(x), torch.cat([victim(row[None]) for row in x]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(victim(x)[1:2], model(extractor(x[1, :2900].numpy(), sampling_rate=16000,
                               return_tensors="pt")["input_values"]).logits, atol=1e-4, rtol=1e-4)  # fmt: skip
    silent = torch.zeros(1, 1000, requires_grad=True)
    (g,) = torch.autograd.grad(victim(silent).sum(), silent)
    assert g.isfinite().all()


def test_the_front_end_of_whisper():
    extractor = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    x = waves()
    want = extractor([row[:n].numpy() for row, n in zip(x, LENGTHS, strict=True)], sampling_rate=16000,
                     return_tensors="pt")["input_features"]  # fmt: skip
    torch.testing.assert_close(WhisperFront(extractor)(x), want, atol=1e-4, rtol=1e-4)
    long = torch.randn(1, 20000, generator=torch.Generator().manual_seed(1))
    assert WhisperFront(extractor)(long).shape == (1, 20, 100)


def test_what_is_no_victim_is_refused_by_name(tmp_path, tokenizer):
    base = tmp_path / "base"
    saved(base, "Wav2Vec2", "Model", "group", tokenizer)
    with pytest.raises(DataError, match=r"Wav2Vec2Model, a model without a head.*at random"):
        hub.load(str(base))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "architectures": ["Wav2Vec2ForCTC"]}))
    with pytest.raises(DataError, match=r"lack lm_head.*at random"):
        hub.load(str(base))
    whole = tmp_path / "whole"
    saved(whole, "Wav2Vec2", "ForCTC", "group")
    with pytest.raises(DataError, match="no tokenizer"):
        hub.load(str(whole))
    (whole / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match="preprocessor_config"):
        hub.load(str(whole))
    with pytest.raises(DataError, match=r"config.json"):
        hub.load(str(tmp_path))
    with pytest.raises(DataError, match="no local folder"):
        hub.load("nobody/nothing-of-this-name")
    with pytest.raises(AdvgymError, match="transformers:VALUE"):
        hub.load("")


def test_tokens_of_several_letters_are_refused(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps({"<pad>": 0, "|": 1, "TH": 2, "E": 3}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "v.json"))
    saved(tmp_path, "Wav2Vec2", "ForCTC", "group", tokenizer)
    with pytest.raises(VictimError, match=r"'TH'.*returns texts"):
        hub.load(str(tmp_path))


# -- torchaudio ----------------------------------------------------------------------------------------------------
def bundle_model(mode: str = "group_norm"):
    import torchaudio

    torch.manual_seed(0)
    return torchaudio.models.wav2vec2_model(
        extractor_mode=mode, extractor_conv_layer_config=[(16, 10, 5), (16, 3, 2), (16, 3, 2)],
        extractor_conv_bias=False, encoder_embed_dim=32, encoder_projection_dropout=0.0, encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=2, encoder_num_layers=2, encoder_num_heads=2, encoder_attention_dropout=0.0,
        encoder_ff_interm_features=48, encoder_ff_interm_dropout=0.0, encoder_dropout=0.0,
        encoder_layer_norm_first=False, encoder_layer_drop=0.0, aux_num_out=5,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("normal", [False, True])
def test_pipelines_of_torchaudio(normal):
    from torchaudio.pipelines._wav2vec2.utils import _extend_model

    inner = bundle_model()
    model = _extend_model(inner, normalize_waveform=True) if normal else inner
    victim = pipelines.wrap(model, ("-", "|", "E", "T", "A"), 16000)
    assert victim.card == {"architecture": "Wav2Vec2Model", "rate": 16000, "alphabet": " ETA", "blank": 0}
    x = waves()
    together = victim(x)
    assert together.shape == (4, victim.model.frames(3000), 5)
    torch.testing.assert_close(together, torch.cat([victim(row[None]) for row in x]), atol=1e-4, rtol=1e-4)
    own = model(x[1:2, :2900])[0].log_softmax(2)  # one at a time, as the documentation of the bundle does
    torch.testing.assert_close(together[1:2, : own.shape[1]], own, atol=1e-4, rtol=1e-4)


def test_pipelines_by_name(monkeypatch):
    import torchaudio

    with pytest.raises(AdvgymError, match="did you mean 'WAV2VEC2_ASR_BASE_960H'"):
        pipelines.recogniser("v", bundle="WAV2VEC2_ASR_BASE_960")
    with pytest.raises(DataError, match="no transcripts by CTC"):
        pipelines.recogniser("v", bundle="WAV2VEC2_BASE")
    bundle = torchaudio.pipelines.WAV2VEC2_ASR_BASE_10M

    def nowhere(*a, **k):
        raise OSError("no connection")

    monkeypatch.setattr(type(bundle), "get_model", nowhere)
    with pytest.raises(DataError, match="could not be fetched: OSError: no connection"):
        load_victim("torchaudio:WAV2VEC2_ASR_BASE_10M")
    labels = bundle.get_labels()

    def small(*a, **k):
        model = bundle_model()
        model.aux = torch.nn.Linear(32, len(labels))
        return model

    monkeypatch.setattr(type(bundle), "get_model", small)
    victim = pipelines.recogniser("v", bundle="WAV2VEC2_ASR_BASE_10M")
    assert victim.card["alphabet"].startswith(" ETAON") and victim(waves()).shape[2] == 29
    with pytest.raises(VictimError, match="no Wav2Vec2Model"):
        pipelines.wrap(torch.nn.Linear(2, 2), labels, 16000)


# -- batches -------------------------------------------------------------------------------------------------------
def test_real_lengths_and_batches_of_them():
    x = torch.tensor([[0.0, 1, 0, 2, 0], [0, 0, 0, 0, 0], [torch.nan, 0, 0, 0, 0]])
    assert real_length(x).tolist() == [4, 1, 1] and real_length(x, 3).tolist() == [4, 3, 3]
    lengths = [100, 95, 40, 100, 39, 7]
    assert list(groups(lengths, 10**6, alike=True)) == [[0, 3], [1], [2], [4], [5]]
    assert list(groups(lengths, 10**6, alike=False)) == [[0, 3, 1], [2, 4], [5]]
    assert list(groups(lengths, 200, alike=False)) == [[0, 3], [1], [2, 4], [5]]
    assert sorted(np.concatenate(list(groups(lengths, 1, alike=False))).tolist()) == [0, 1, 2, 3, 4, 5]
