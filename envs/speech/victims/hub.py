"""Models of `transformers` that hear, by hub name or local folder: CTC recognisers and audio classifiers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.speech.models.fronts import AstFront
from advgym.envs.speech.victims import writing
from advgym.envs.speech.victims.listening import Listener, Recogniser, convolved, standardised
from advgym.errors import AdvgymError, DataError, VictimError
from advgym.lib.checkpoints import drawn_weights
from advgym.lib.hub import settle

# What an architecture's name ends with: how it is opened, and what it is, in words.
KINDS = {
    "ForCTC": ("AutoModelForCTC", "CTC recogniser"),
    "ForSequenceClassification": ("AutoModelForAudioClassification", "audio classifier"),
    "ForAudioClassification": ("AutoModelForAudioClassification", "audio classifier"),
    "ForConditionalGeneration": ("AutoModelForSpeechSeq2Seq", "model that writes what it hears"),
}
OTHERS = {
    "ForPreTraining": "a model before its training for a task",
    "ForMaskedLM": "a language model of texts",
    "ForCausalLM": "a language model of texts",
    "ForAudioFrameClassification": "a model that labels each frame",
    "ForXVector": "a model that embeds voices: wrap its cosine and a threshold as Victim(f)",
    "Model": "a model without a head",
}
_MARK = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")  # tokens that stand for something, as <unk> or [PAD]
_SAFE = "weights are read from safetensors alone, for a .bin file is a pickle, which can run code"


# -- opening --------------------------------------------------------------------------------------------------------
def open_model(source: str) -> tuple[nn.Module, Any, str]:
    """(model in eval mode, its feature extractor, the end of its architecture's name) of a hub name or local folder.

    Raises:
        DataError: neither there nor in the cache, its weights are pickles or incomplete, or it does not hear.
    """
    if not source:
        raise AdvgymError("a hub model is named with its folder or name, as in 'transformers:VALUE'")
    settle(source, "model")
    import transformers

    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise DataError(f"{folder} holds no config.json: a model folder is what save_pretrained writes")
    where = str(folder) if folder.is_dir() else source
    try:
        config = transformers.AutoConfig.from_pretrained(where)
        end = _kind(source, config)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(where)
        model, info = getattr(transformers, KINDS[end][0]).from_pretrained(
            where, use_safetensors=True, output_loading_info=True
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _missing(source, folder, error) from error
    lost = drawn_weights(model, info)
    if lost:
        raise DataError(
            f"{source} is a {KINDS[end][1]} in name alone: its weights lack {', '.join(lost[:3])}"
            f"{' ...' if len(lost) > 3 else ''}, which would be drawn at random. Fine-tune it and give the folder that "
            "save_pretrained wrote then"
        )
    return model.float().eval().requires_grad_(False), extractor, end


def _kind(source: str, config: Any) -> str:
    name = (getattr(config, "architectures", None) or ["a model of an unnamed architecture"])[0]
    end = next((e for e in KINDS if name.endswith(e)), None)
    if end is None:
        said = next((text for e, text in OTHERS.items() if name.endswith(e)), "a model for another task")
        raise DataError(
            f"{source} holds a {name}, {said}; its head would be drawn at random. Those that are read here: CTC "
            "recognisers (...ForCTC), audio classifiers (...ForSequenceClassification, ...ForAudioClassification) and "
            "Whisper"
        )
    return end


def _missing(source: str, folder: Path, error: Exception) -> DataError:
    said = str(error).strip().split("\n")[0]
    if folder.is_dir():
        if not list(folder.glob("*.safetensors*")) and list(folder.glob("*.bin")):
            return DataError(
                f"{folder} has weights in .bin alone; {_SAFE}. Save it anew with "
                "model.save_pretrained(folder), which writes safetensors"
            )
        if not (folder / "preprocessor_config.json").is_file():
            return DataError(
                f"{folder} has no preprocessor_config.json, which says its rate and how it normalises: save the "
                "feature extractor there, extractor.save_pretrained(folder)"
            )
        return DataError(f"cannot load the model in {folder}: {said} ({_SAFE})")
    return DataError(
        f"the model {source!r} is no local folder, and is neither in the hub's cache on this machine nor could be "
        f"fetched with safetensors weights: {said} Give the path of a folder that save_pretrained wrote"
    )


# -- what it is given -----------------------------------------------------------------------------------------------
class RawEar(nn.Module):
    """Waveforms, standardised over their real lengths and with a mask where the extractor says so (wav2vec2 ...)."""

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.masked, self.normal = bool(extractor.return_attention_mask), bool(extractor.do_normalize)
        # A group norm over time sees the padding; without a mask everything does.
        self.alike = not self.masked or getattr(config, "feat_extract_norm", "group") == "group"
        self.least = convolved(config.conv_kernel, config.conv_stride)[1]

    def forward(self, wave: Tensor, length: Tensor) -> dict[str, Tensor]:
        given = {"input_values": standardised(wave, length) if self.normal else wave}
        if self.masked:
            given["attention_mask"] = (torch.arange(wave.shape[1], device=wave.device) < length.unsqueeze(1)).long()
        return given


class AstEar(nn.Module):
    """The filter bank of AST, padded to the model's frames."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.front = AstFront(extractor)
        self.least, self.alike = self.front.width, False

    def forward(self, wave: Tensor, length: Tensor) -> dict[str, Tensor]:
        return {"input_values": self.front(wave, length)}


def ear_of(model: nn.Module, extractor: Any) -> RawEar | AstEar:
    """Waves and lengths -> what the model is called with; it says the samples needed, and if batches hold one length.

    Raises:
        VictimError: for a feature extractor that is not known here.
    """
    config: Any = model.config
    kind = type(extractor).__name__
    if kind == "Wav2Vec2FeatureExtractor" and hasattr(config, "conv_kernel"):
        return RawEar(extractor, config)
    if kind == "ASTFeatureExtractor":
        return AstEar(extractor)
    raise VictimError(
        f"{type(model).__name__} reads its input by {kind}, which is not known here; those that are: "
        "Wav2Vec2FeatureExtractor, ASTFeatureExtractor, WhisperFeatureExtractor. Wrap it with its own front end in "
        "torch: any callable of waveforms is a victim"
    )


class CtcModel(Recogniser):
    """A CTC model of transformers (wav2vec2, HuBERT, WavLM ...), its processor's normalisation inside."""

    def __init__(self, model: nn.Module, extractor: Any, tokenizer: Any, cap: int = 0) -> None:
        config: Any = model.config
        ear = ear_of(model, extractor)
        if not isinstance(ear, RawEar):
            raise VictimError(f"{type(model).__name__} reads spectrograms, which no CTC recogniser does here")
        raw_frames, _ = convolved(config.conv_kernel, config.conv_stride)
        shrinks = int(config.num_adapter_layers) if getattr(config, "add_adapter", False) else 0

        def frames(samples: int) -> int:
            found = raw_frames(samples)
            for _ in range(shrinks):
                found = (found - 1) // int(config.adapter_stride) + 1
            return found

        blank = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else config.pad_token_id
        super().__init__(
            tokens_of(tokenizer, int(config.vocab_size)), int(blank), frames, least=ear.least, alike=ear.alike,
            cap=cap,
        )  # fmt: skip
        self.model, self.ear, self.blank = model, ear, int(blank)

    def logits(self, wave: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(**self.ear(wave, length)).logits
        many = [self.frames(n) for n in length.tolist()]
        return found, torch.tensor(many, device=wave.device)


def tokens_of(tokenizer: Any, count: int) -> list[str]:
    """What each output of a CTC model writes: a letter, a space for the word delimiter, "" for marks."""
    delimiter = getattr(tokenizer, "word_delimiter_token", None)
    marks = {*tokenizer.all_special_tokens} - {delimiter}
    lower = bool(getattr(tokenizer, "do_lower_case", False))
    out = [""] * count
    for token, index in tokenizer.get_vocab().items():
        if index < count and token not in marks and not _MARK.fullmatch(token):
            out[index] = " " if token == delimiter else token.lower() if lower else token
    return out


class AudioClassifier(Listener):
    """An audio classifier of transformers: scores (n, classes), its processor's front end inside."""

    def __init__(self, model: nn.Module, extractor: Any, cap: int = 0) -> None:
        ear = ear_of(model, extractor)
        super().__init__(least=ear.least, alike=ear.alike, cap=cap)
        self.model, self.ear = model, ear

    def forward(self, x: Tensor) -> Tensor:
        """Logits of waveforms (n, samples)."""

        def logits(wave: Tensor, length: Tensor) -> Tensor:
            found: Tensor = self.model(**self.ear(wave, length)).logits
            return found.float()

        return self.heard(x, logits)


# -- victims --------------------------------------------------------------------------------------------------------
def load(source: str, *, name: str | None = None, cap: int = 0, **options: Any) -> Victim:
    """A model of transformers as a victim of waveforms (n, samples) at the rate that its card says.

    CTC recognisers play `speech/transcribe`, audio classifiers `speech/keyword`, Whisper `speech/dictate`. The card has
    the architecture, `rate`, and of a recogniser its `alphabet` and the `blank`'s index in its scores (`own_blank` in
    the model's own), of a classifier `names`.

    Args:
        source: hub name, or the folder that save_pretrained wrote (config, preprocessor, tokenizer, model.safetensors).
        name: of the victim; its source without one.
        cap: samples per forward with their padding; 0 for 20 s of 16 kHz on a CPU, 320 s on CUDA.
        options: of Whisper: `length` (output tokens at most, 32) and `language` ("en").

    Raises:
        DataError: the model is not there, its weights are pickles or incomplete, or it is of another kind.
        VictimError: its tokens are no letters, its front end is unknown, or its classes do not exclude each other.
    """
    model, extractor, end = open_model(source)
    tokenizer = _tokenizer(source) if end in ("ForCTC", "ForConditionalGeneration") else None
    return wrap(model, extractor, tokenizer, source, end, name=name, cap=cap, **options)


def wrap(
    model: nn.Module, extractor: Any, tokenizer: Any, source: str, end: str, *, name: str | None = None, cap: int = 0,
    **options: Any,
) -> Victim:  # fmt: skip
    """A model with its feature extractor and, where it writes, its tokenizer as a victim; see `load`.

    Args:
        end: of its architecture's name, in `KINDS`.
    """
    card = {"source": source, "architecture": type(model).__name__, "rate": int(extractor.sampling_rate)}
    if end == "ForCTC":
        module: Listener = CtcModel(model, extractor, tokenizer, cap)
        card |= {"alphabet": module.alphabet, "blank": 0, "own_blank": module.blank}
    elif end == "ForConditionalGeneration":
        return writing.wrap(model, extractor, tokenizer, name=name or source, card=card, **options)
    else:
        config: Any = model.config
        if getattr(config, "problem_type", None) in ("multi_label_classification", "regression"):
            raise VictimError(
                f"{source} is a classifier of kind {config.problem_type}: its largest score is no prediction. Attack "
                "one logit z: Victim(lambda x: torch.stack([-z(x) / 2, z(x) / 2], 1))"
            )
        module = AudioClassifier(model, extractor, cap)
        names = {int(i): str(n) for i, n in config.id2label.items()}
        card |= {"names": [names[i] for i in sorted(names)]}
    return Victim(module.eval(), name=name or source, access="gradients", card=card)


def _tokenizer(source: str) -> Any:
    import transformers

    folder = Path(source).expanduser()
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = str(error).strip().split("\n")[0]
        raise DataError(
            f"{source} has no tokenizer, which says the letters of its outputs: {said} Save it there, "
            "tokenizer.save_pretrained(folder)"
        ) from error


def hearer(name: str, *, source: str = "", cap: int = 0) -> Victim:
    """`load` as a row of [victims]; `transformers:PATH` names one in a speech task."""
    return load(source, name=name, cap=cap)
