"""Victims that write about an image: one trained on generated scenes, and any image-to-text model of transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgym.core import rng
from advgym.core.kinds.sequences import END
from advgym.core.victim import Victim
from advgym.envs.image.data import scenes
from advgym.envs.image.models.captioner import Captioner, sealed
from advgym.envs.image.victims.hub import Prepared, open_model, preparation
from advgym.envs.image.victims.recipes import WEIGHTS
from advgym.errors import DataError
from advgym.lib.fit import descend
from advgym.lib.weights import load_or_train

LENGTH = 16  # tokens that a model of transformers writes, where nothing else is asked for


def captioner(name: str, *, dataset: str = scenes.NAME, epochs: int = 24, batch: int = 64, rate: float = 6e-3,
              hidden: int = 64, seed: int = 0) -> Victim:  # fmt: skip
    """A `Captioner` of the generated scenes."""
    build = {"arch": "captioner", "hidden": hidden, "words": list(scenes.WORDS), "length": scenes.LENGTH}
    recipe = {**build, "dataset": dataset, "epochs": epochs, "batch": batch, "rate": rate, "seed": seed}

    def make() -> Captioner:
        return Captioner((3, scenes.SIDE, scenes.SIDE), len(scenes.WORDS) + 1, scenes.LENGTH, hidden=hidden)

    def train(module: nn.Module) -> dict[str, Any]:
        assert isinstance(module, Captioner)
        fit(module, recipe)
        held = scenes.load("test")
        with torch.no_grad():
            said = module(held.pixels(slice(None))).argmax(2)
        exact = (torch.where((said == END).cumsum(1) > 0, -1, said) == held.captions).all(1)
        return {
            "dataset": dataset,
            "clean_accuracy": round(float(exact.double().mean()), 4),
            "train_samples": scenes.SIZES["train"],
            "parameters": sum(p.numel() for p in module.parameters()),
        }

    module, card = load_or_train(name, make, train, recipe=recipe, shipped=WEIGHTS / f"{name}.safetensors")
    words = {"words": list(scenes.WORDS), "length": scenes.LENGTH}
    return Victim(module, name=name, access="gradients", card={**card, **words})


def fit(module: Captioner, recipe: dict[str, Any]) -> None:
    """Train in place by teacher forcing, one-cycle AdamW, in an order keyed by the seed."""
    data = scenes.load("train")
    x, y = data.pixels(slice(None)), data.captions
    keys, batch, epochs = torch.arange(len(x)), int(recipe["batch"]), int(recipe["epochs"])
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe["rate"], weight_decay=1e-2)
    steps = -(-len(x) // batch) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe["rate"], total_steps=steps, pct_start=0.25)

    def loss(index: Tensor) -> Tensor:
        said = y[index].clamp_min(END)
        counted = torch.arange(module.length) <= (y[index] >= 0).sum(1, keepdim=True)
        scores = module.teach(module.read(x[index]), said)
        return F.cross_entropy(scores[counted], said[counted])

    order = (rng.bits(int(recipe["seed"]), keys, (), epoch).argsort().split(batch) for epoch in range(epochs))
    descend(module, loss, order, optimiser, schedule=schedule)


class HubCaptioner(nn.Module):
    """An encoder-decoder of transformers behind its processor's preparation: x to scores (n, T, V) of what it writes.

    It writes greedily. Token 0 of the output is the end, token i + 1 the model's own token i; special tokens are never
    written.

    Args:
        prepared: of the whole model, for its preparation alone.
        length: T, the end among them.
    """

    def __init__(self, prepared: Prepared, tokenizer: Any, length: int) -> None:
        super().__init__()
        self.prepared, self.length = prepared, length
        config: Any = prepared.model.config
        decoder: Any = getattr(config, "decoder", config)
        ends = [getattr(c, "eos_token_id", None) for c in (config, decoder)] + [tokenizer.eos_token_id]
        starts = [getattr(c, "decoder_start_token_id", None) for c in (config, decoder)] + [tokenizer.bos_token_id]
        self.end = next((int(e) for e in [*ends, tokenizer.sep_token_id] if e is not None), -1)
        self.start = next((int(s) for s in [*starts, tokenizer.cls_token_id] if s is not None), self.end)
        if self.end < 0:
            raise DataError("the model names no token that ends a text (eos_token_id)")
        vocabulary = int(decoder.vocab_size)
        special = [i for i in {*tokenizer.all_special_ids, self.start} if i != self.end and i < vocabulary]
        self.barred: Tensor
        barred = torch.zeros(vocabulary, dtype=torch.bool)
        barred[special] = True
        self.register_buffer("barred", barred, persistent=False)

    def _scores(self, hidden: Tensor, said: Tensor) -> Tensor:
        """Scores (n, t, 1 + V) of each position after the tokens `said` (n, t) of the model."""
        from transformers.modeling_outputs import BaseModelOutput

        memory = BaseModelOutput(last_hidden_state=hidden)  # type: ignore[arg-type]
        found = self.prepared.model(encoder_outputs=memory, decoder_input_ids=said, use_cache=False).logits
        end = found[..., self.end : self.end + 1]
        low = torch.full_like(found, -1e4)
        bar = self.barred.clone()
        bar[self.end] = True  # it is the output's token 0 alone
        return torch.cat([end, torch.where(bar, low, found)], -1)

    def forward(self, x: Tensor) -> Tensor:
        model: Any = self.prepared.model
        hidden = model.get_encoder()(self.prepared.prepare(x)).last_hidden_state
        said = torch.full((len(x), 1), self.start, dtype=torch.int64, device=x.device)
        out: list[Tensor] = []
        with torch.no_grad():
            for _ in range(self.length):
                word = self._scores(hidden.detach(), said)[:, -1].argmax(-1)
                out.append(word)
                said = torch.cat([said, torch.where(word == END, self.end, word - 1).unsqueeze(1)], 1)
        return sealed(self._scores(hidden, said[:, :-1]), torch.stack(out, 1))


def image_to_text(name: str, *, source: str, length: int = LENGTH) -> Victim:
    """An image-to-text encoder-decoder of transformers (`image-to-text:SOURCE`).

    Raises:
        DataError: where the source has no such model, image processor or tokenizer.
    """
    import transformers

    model, processor = open_model(source, "VisionEncoderDecoderModel", "image-to-text model")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{source!r} has no tokenizer that can be read: {str(error).splitlines()[0]}") from error
    encoder: Any = getattr(model.config, "encoder", None)
    prepared = Prepared(model, **preparation(processor), channels=int(getattr(encoder, "num_channels", 3) or 3))
    module = HubCaptioner(prepared, tokenizer, length).eval()
    words = tokenizer.convert_ids_to_tokens(list(range(len(module.barred))))
    words = [f"<{i}>" if w is None else str(w) for i, w in enumerate(words)]
    card = {"source": source, "architecture": type(model).__name__, "words": words, "length": length}
    return Victim(module, name=name or source, access="gradients", card=card)
