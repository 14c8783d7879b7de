"""Speech models of other libraries, beam search and resampling answer on the card as on the CPU."""

import json

import pytest
import torch
from same import both

from advgym.core.victim import Victim
from advgym.envs.speech.goals.beam import beam
from advgym.envs.speech.models.nets import Verifier
from advgym.envs.speech.victims import hub
from advgym.envs.speech.victims.listening import heard_at

pytestmark = pytest.mark.device
transformers = pytest.importorskip("transformers")
SIZE = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
    conv_kernel=(10, 8), conv_stride=(5, 40), num_feat_extract_layers=2, num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2, vocab_size=4, pad_token_id=0, num_labels=2,
)  # fmt: skip


def sounds() -> torch.Tensor:
    x = torch.randn(3, 1200, generator=torch.Generator().manual_seed(0)) * 0.1
    return torch.where(torch.arange(1200) < torch.tensor([1200, 700, 3])[:, None], x, 0.0)


def wav2vec2(folder, kind, norm):
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "A": 2, "B": 3}))
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    config = transformers.Wav2Vec2Config(**SIZE, feat_extract_norm=norm)
    getattr(transformers, f"Wav2Vec2{kind}")(config).save_pretrained(folder)


def ast(folder):
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=32,
        num_mel_bins=16, num_labels=2,
    )  # fmt: skip
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=32, num_mel_bins=16).save_pretrained(folder)


MODELS = {
    "ctc": lambda folder: wav2vec2(folder, "ForCTC", "group"),
    "masked": lambda folder: wav2vec2(folder, "ForCTC", "layer"),
    "classes": lambda folder: wav2vec2(folder, "ForSequenceClassification", "layer"),
    "ast": ast,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers(tmp_path, name):
    torch.manual_seed(0)
    MODELS[name](tmp_path)

    loaded = hub.load(str(tmp_path))

    def run(device):
        victim = loaded.on(device)
        x = sounds().to(device).requires_grad_()
        scores = victim(x)
        assert scores.device == x.device
        (g,) = torch.autograd.grad(scores.square().sum(), x)
        return scores.detach().cpu(), g.cpu()

    here, there = both(run)
    assert not isinstance(there, str), there
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(here, there, strict=True))


def test_verification_at_another_rate_and_beam_search():
    torch.manual_seed(0)
    net = Verifier(size=8, channels=8).eval()

    def run(device):
        victim = heard_at(Victim(net, card={"rate": 8000}), 16000)
        scores = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(1)).to(device)
        return victim.on(device)(sounds().to(device)).detach().cpu(), beam(scores, 1, 4).cpu()

    here, there = both(run)
    assert not isinstance(there, str), there
    assert torch.allclose(here[0], there[0], atol=1e-6) and torch.equal(here[1], there[1])
