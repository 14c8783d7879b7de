"""CTC pipelines of torchaudio by name, `torchaudio:WAV2VEC2_ASR_BASE_960H`, and any of its Wav2Vec2 models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.speech.victims.listening import Recogniser, convolved
from advgym.errors import DataError, VictimError, unknown

DELIMITER = "|"  # stands for the space among a bundle's labels


class Bundled(Recogniser):
    """A Wav2Vec2 model of torchaudio (wav2vec2, HuBERT, WavLM) with its labels, the blank first among them.

    Recordings of one length go together. Where a bundle normalises waveforms it does so over a whole batch; here each
    recording is normalised by itself, as a batch of one is there.

    Args:
        model: `torchaudio.models.Wav2Vec2Model`, or what a bundle's `get_model()` gives.
        labels: one for each output, as `bundle.get_labels()` gives them.
        normalize: each waveform to zero mean and unit variance; None for what the model says.
    """

    def __init__(self, model: nn.Module, labels: Sequence[str], normalize: bool | None = None, cap: int = 0) -> None:
        inner: Any = model
        if hasattr(model, "normalize_waveform"):
            normalize = bool(model.normalize_waveform) if normalize is None else normalize
            inner = model.model
        try:
            layers = inner.feature_extractor.conv_layers
            frames, least = convolved([b.kernel_size for b in layers], [b.stride for b in layers])
        except AttributeError:
            raise VictimError(
                f"{type(inner).__name__} is no Wav2Vec2Model of torchaudio; any callable of waveforms is a victim of "
                "speech/transcribe as it is: victim=f, alphabet=..., blank=..."
            ) from None
        tokens = [" " if label == DELIMITER else label for label in labels]
        super().__init__(["", *tokens[1:]], 0, frames, least=least, alike=True, cap=cap)
        self.model, self.normalize = inner, bool(normalize)

    def logits(self, wave: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        if self.normalize:
            wave = nn.functional.layer_norm(wave, wave.shape[1:])
        found = self.model(wave)[0]
        return found, torch.full_like(length, found.shape[1])


def wrap(
    model: nn.Module, labels: Sequence[str], rate: int, *, name: str = "own", normalize: bool | None = None,
    cap: int = 0, **card: Any,
) -> Victim:  # fmt: skip
    """A Wav2Vec2 model of torchaudio as a victim of `speech/transcribe`.

    Args:
        labels: of its outputs, the blank first, "|" for the space.
        rate: samples per second that it hears.
        normalize: see `Bundled`.
        cap: samples per forward; 0 for the device's default.
        card: what a result says of it besides.

    Raises:
        VictimError: it is another kind of model, or its labels are no letters.
    """
    module = Bundled(model.eval().requires_grad_(False), labels, normalize, cap).eval()
    told = {"architecture": type(module.model).__name__, "rate": int(rate), "alphabet": module.alphabet, "blank": 0}
    return Victim(module, name=name, access="gradients", card={**card, **told})


def recogniser(name: str, *, bundle: str = "", cap: int = 0) -> Victim:
    """A pipeline of torchaudio as a row of [victims]: `torchaudio:NAME`. torchaudio fetches and keeps its weights.

    Raises:
        DataError: there is no such CTC pipeline, or its weights cannot be had.
    """
    from torchaudio import pipelines

    known = [n for n in dir(pipelines) if isinstance(getattr(pipelines, n), pipelines.Wav2Vec2ASRBundle)]
    if bundle not in known:
        if hasattr(pipelines, bundle):
            raise DataError(f"torchaudio's {bundle} writes no transcripts by CTC. Those that do: {', '.join(known)}")
        raise unknown("CTC pipeline of torchaudio", bundle, known)
    found = getattr(pipelines, bundle)
    try:
        with torch.random.fork_rng(devices=[]):
            model = found.get_model()
    except Exception as error:  # urllib and torch.hub raise nearly anything
        said = str(error).strip().split("\n")[0]
        raise DataError(
            f"the weights of torchaudio's {bundle} are not in torch's hub folder on this machine and could not be "
            f"fetched: {type(error).__name__}: {said}. Fetch them where there is a connection "
            f"(torchaudio.pipelines.{bundle}.get_model()) and copy ~/.cache/torch/hub/checkpoints; or wrap a model of "
            "your own: advgym.envs.speech.victims.pipelines.wrap(model, labels, rate)"
        ) from error
    return wrap(model, found.get_labels(), int(found.sample_rate), name=name, cap=cap, source=f"torchaudio:{bundle}")
