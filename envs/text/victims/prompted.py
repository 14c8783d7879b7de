"""Causal language models as classifiers: a prompt around the text, and a label word for each class.

Schick & Schuetze (2021), "Exploiting Cloze Questions for Few Shot Text Classification": the score of a class is the
log-probability of its label after the prompt. Of a label of several tokens it is the sum over them. With `calibrate=`,
what a text without content gets is taken off (Zhao et al., 2021, "Calibrate Before Use").
"""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgym.core.victim import Victim
from advgym.envs.text.inputs.pieces import ANCHOR, find_template
from advgym.envs.text.models.hub_heads import kind_of, replaced
from advgym.envs.text.victims.hub import Classifier, Reader, longest_of, open_model
from advgym.envs.text.victims.replies import HOLE, check_prompt, checked_labels
from advgym.errors import AdvgymError, DataError, VictimError

log = logging.getLogger("advgym")
CAUSAL = ("ForCausalLM", "LMHeadModel")
LATER = 1e-4  # by which a score may move with a later token: float rounding


class OneText(VictimError, NotImplementedError):
    """A pair of texts for a prompt that has one place."""


class PromptTokenizer:
    """A tokenizer of texts that stand in a prompt, in place of the one it is made of.

    Whole texts are tokenised with the prompt around them, as one string. Without special tokens it gives what the text
    alone is there, so that `Pieces` finds each word as it stands after the prompt.

    Args:
        base: a tokenizer of transformers.
        prompt: with {text}; blanks at its end belong to the labels.
    """

    def __init__(self, base: Any, prompt: str) -> None:
        self.base = base
        self.before, _, after = prompt.partition(HOLE)
        self.after = after.rstrip(" ")
        self.between = "" if self.after != self.after.rstrip() else " "  # before a label
        own = find_template(base)
        self._end = [] if own is None else own.suffix  # what ends a text: the answer would stand behind it
        found = find_template(self)
        self.suffix = base(self.after, add_special_tokens=False)["input_ids"] if found is None else found.suffix

    def __getattr__(self, name: str) -> Any:
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    def whole(self, texts: list[str], label: str = "") -> list[list[int]]:
        """Tokens of the prompt with each text in it, and a label behind it."""
        rows = self.base([self.before + t + self.after + label for t in texts])["input_ids"]
        many = len(self._end)
        return [list(r)[: len(r) - many] if many and list(r)[-many:] == self._end else list(r) for r in rows]

    def __call__(
        self, texts: Any, pair: Any = None, *, add_special_tokens: bool = True, truncation: bool = False,
        max_length: int = 0, return_offsets_mapping: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """`input_ids`, `attention_mask` and `offset_mapping` of texts; a long one is cut, its prompt is not."""
        if pair is not None:
            raise OneText(f"a prompt has one {HOLE}, and the samples are pairs of texts")
        many = [texts] if isinstance(texts, str) else list(texts)
        spans: list[list[tuple[int, int]]] = []
        if add_special_tokens:
            ids = self.whole(many)
            if truncation and max_length:
                room = max_length - len(self.suffix)
                ids = [r if len(r) <= max_length else r[:room] + self.suffix for r in ids]
        else:
            ids, spans = self._inside(many)
        out = {"input_ids": ids, "attention_mask": [[1] * len(r) for r in ids]}
        if return_offsets_mapping:
            out["offset_mapping"] = spans  # type: ignore[assignment]
        return {k: v[0] for k, v in out.items()} if isinstance(texts, str) else dict(out)

    def _inside(self, texts: list[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """(tokens of each text as it stands behind the start of the prompt, where each of them lies in the text)."""
        if not self.base.is_fast:
            return [list(r) for r in self.base(texts, add_special_tokens=False)["input_ids"]], []
        found = self.base(
            [self.before + t for t in texts], add_special_tokens=False, return_offsets_mapping=True
        )  # fmt: skip
        start, lead = len(self.before.rstrip()), len(self.before)
        rows = [list(zip(r, s, strict=True)) for r, s in zip(found["input_ids"], found["offset_mapping"], strict=True)]
        kept = [[(i, (a - lead, b - lead)) for i, (a, b) in row if a >= start] for row in rows]
        return [[i for i, _ in row] for row in kept], [[s for _, s in row] for row in kept]


def label_tokens(tokenizer: PromptTokenizer, labels: tuple[str, ...]) -> list[list[int]]:
    """The tokens of each label as it stands behind the prompt.

    Raises:
        AdvgymError: one is no token of this model, or begins another, which could never win then.
    """
    out: list[list[int]] = []
    own = tokenizer.whole([ANCHOR])[0]
    for label in labels:
        ids = tokenizer.whole([ANCHOR], tokenizer.between + label)[0]
        new = ids[len(own) :]
        if ids[: len(own)] != own or not new:
            raise AdvgymError(
                f"label {label!r} is no token behind the prompt: it joins with what stands before it. End the prompt "
                "with a word or a colon, and leave the blank to the label"
            )
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in new:
            raise AdvgymError(f"label {label!r} is no token of this model's tokenizer, which reads it as unknown")
        out.append(new)
    for i, one in enumerate(out):
        for j, other in enumerate(out):
            if i != j and other[: len(one)] == one:
                raise AdvgymError(
                    f"label {labels[j]!r} begins with the tokens of label {labels[i]!r}, and so can never be likelier: "
                    "use other words"
                )
    return out


def last_positions(mask: Tensor) -> Tensor:
    """Where the last real token of each row stands, int64 (n,), padded left or right.

    >>> last_positions(torch.tensor([[1, 1, 0], [0, 1, 1]])).tolist()
    [1, 2]
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask > 0, place, 0).amax(1)


class Prompted(Classifier):
    """Log-probabilities (n, classes) of label words behind a prompt, differentiable in relaxed words.

    Args:
        model: a causal language model; tokenizer: its own.
        prompt: with {text}.
        labels: a word for each class.
        longest, cap: as of `hub.Reader`.
    """

    bias: Tensor

    def __init__(
        self, model: Any, tokenizer: Any, prompt: str, labels: tuple[str, ...], longest: int | None = None, cap: int = 0
    ) -> None:
        reader = PromptTokenizer(tokenizer, prompt)
        self_labels = label_tokens(reader, labels)
        longest = (longest or longest_of(model, tokenizer)) - max(len(ids) - 1 for ids in self_labels)
        Reader.__init__(self, model, reader, longest, cap)  # not that of classifiers, which pool
        self.typed = False
        around = len(reader.whole([""])[0])
        if around >= self.longest:
            raise AdvgymError(f"the prompt takes {around} tokens, and the model reads {self.longest}: shorten it")
        self.labels = self_labels
        self.heads = sorted({tuple(ids[:i]) for ids in self_labels for i in range(len(ids))})
        takes = inspect.signature(model.forward).parameters
        self.takes = {name for name in ("position_ids", "logits_to_keep", "use_cache") if name in takes}
        self.register_buffer("bias", torch.zeros(len(labels)), persistent=False)

    def logits(self, ids: Tensor, hidden: Tensor | None, mask: Tensor, kinds: Any = None) -> Tensor:
        """Scores (n, classes) of prompts as tokens.

        Args:
            ids: int64 (n, L), padded on either side; hidden: embeddings in their place, or None.
            mask: int64 (n, L), 1 at real tokens.
        """
        columns = []
        found = {head: self._next(ids, hidden, mask, head) for head in self.heads}
        for label in self.labels:
            parts = [found[tuple(label[:i])][:, token] for i, token in enumerate(label)]
            columns.append(torch.stack(parts).sum(0))
        return torch.stack(columns, 1) - self.bias

    def _next(self, ids: Tensor, hidden: Tensor | None, mask: Tensor, head: tuple[int, ...]) -> Tensor:
        """Log-probabilities (n, V) of the token behind each prompt that is followed by `head`."""
        last, n = last_positions(mask), len(ids)
        row = torch.arange(n, device=ids.device)
        if head:
            ids = torch.cat([ids, ids.new_full((n, len(head)), self.padding)], 1)
            mask = torch.cat([mask, mask.new_zeros(n, len(head))], 1)
            at = last.unsqueeze(1) + 1 + torch.arange(len(head), device=ids.device)
            ids = ids.scatter(1, at, torch.tensor(head, device=ids.device).expand(n, -1))
            mask = mask.scatter(1, at, 1)
            if hidden is not None:
                more = self.embeddings()[ids]
                hidden = torch.where(
                    torch.arange(ids.shape[1], device=ids.device).view(1, -1, 1) < at[:, :1].unsqueeze(2),
                    torch.cat([hidden, more[:, hidden.shape[1] :]], 1), more,
                )  # fmt: skip
            last = last + len(head)
        named: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in self.takes:
            named["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
        if "use_cache" in self.takes:
            named["use_cache"] = False
        column = last
        if "logits_to_keep" in self.takes:  # a vocabulary at every position would not fit
            named["logits_to_keep"], column = last.unique(return_inverse=True)
        if hidden is None:
            out = self.model(**named).logits
        else:
            with replaced(self.model, ids, hidden):
                out = self.model(**named).logits
        found: Tensor = out[row, column].float().log_softmax(1)
        return found

    @torch.no_grad()
    def looks_ahead(self) -> bool:
        """Whether what stands later changes what is said before, as in an encoder."""
        ids = torch.tensor(self.tokenizer.whole([ANCHOR]), device=self.device)
        other = ids.clone()
        other[0, -1] = (ids[0, -1] + 1) % len(self.embeddings())
        if ids.shape[1] < 2:
            ids, other = ids.repeat(1, 2), torch.cat([ids, other], 1)
        one, two = (self.model(input_ids=i, attention_mask=torch.ones_like(i)).logits[0, -2] for i in (ids, other))
        return bool((one - two).abs().max() > LATER * one.abs().max().clamp_min(1.0))


def open_causal(source: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a causal language model.

    Raises:
        DataError: it is a model of another kind, or has no tokenizer.
    """
    import transformers

    folder = Path(source).expanduser()
    where = str(folder) if folder.is_dir() else source
    if folder.is_dir() and (folder / "config.json").is_file():
        config = transformers.AutoConfig.from_pretrained(where)
        first = (getattr(config, "architectures", None) or ["a model of an unnamed architecture"])[0]
        if not first.endswith(CAUSAL) or getattr(config, "is_encoder_decoder", False):
            raise DataError(f"a prompt is for a causal language model; {source} is {kind_of(config, source)}")
        try:
            transformers.AutoTokenizer.from_pretrained(where)
        except Exception as error:  # each class of tokenizer fails in its own way
            said = str(error).strip().split("\n")[0]
            raise DataError(
                f"{folder} holds no tokenizer ({said[:120]}): save it beside the model, tokenizer.save_pretrained(...)"
            ) from None
    return open_model(source, "AutoModelForCausalLM", "causal language model")


def load(
    source: str, *, prompt: str, labels: Any, name: str | None = None, calibrate: str = "", longest: int | None = None,
    cap: int = 0,
) -> Victim:  # fmt: skip
    r"""A causal language model of transformers as a classifier by prompt.

    Args:
        source: hub name, or the folder that save_pretrained wrote.
        prompt: with {text} where the text goes: "Review: {text}\nSentiment:".
        labels: the word of each class, in the order of the scores: a sequence, or words with commas between.
        name: of the victim.
        calibrate: a text without content ("N/A") whose scores are taken off; "" for none.
        longest, cap: as of `hub.load`.

    Raises:
        AdvgymError: the prompt has no {text}, or a label is no token of this model.
        DataError: the model is not there, is no causal language model, or has no tokenizer.
    """
    check_prompt(prompt)
    words = checked_labels(labels)
    if not words:
        raise AdvgymError("a prompt needs labels=, the word of each class: labels=negative,positive")
    model, tokenizer = open_causal(source)
    module = Prompted(model, tokenizer, prompt, words, longest, cap).eval()
    if module.looks_ahead():
        raise DataError(
            f"a prompt is for a causal language model; {source} is {kind_of(model.config, source)}, and reads later "
            "tokens: an encoder"
        )
    if calibrate:
        with torch.no_grad():
            module.bias = module([calibrate])[0]
    read = {w: tokenizer.convert_ids_to_tokens(ids) for w, ids in zip(words, module.labels, strict=True)}
    card = {"source": source, "architecture": type(model).__name__, "prompt": prompt, "classes": list(words),
            "label_tokens": read, "calibrate": calibrate}  # fmt: skip
    several = [w for w, ids in read.items() if len(ids) > 1]
    if several:
        log.warning("labels of several tokens are scored by the sum of their log-probabilities: %s", ", ".join(several))
    why = module.disagrees()
    if why:
        log.warning("%s gives scores alone, no gradients in words: %s", source, why)
        card["no_gradients"] = why
    return Victim(module, name=name or source, access="scores" if why else "gradients", card=card)
