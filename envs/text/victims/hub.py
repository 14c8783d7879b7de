"""Models of `transformers` by hub name or local folder: safetensors alone, any sequence classifier as a victim."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.victim import Victim
from advgym.envs.text.inputs.pieces import FORMS, Pieces, few, find_template
from advgym.envs.text.inputs.slots import TextInput
from advgym.envs.text.inputs.text_pairs import unpaired
from advgym.envs.text.inputs.vocabulary import Vocabulary
from advgym.envs.text.models.hub_heads import answers_of, check_complete, pools_last, replaced
from advgym.errors import AdvgymError, DataError, VictimError
from advgym.lib.hub import settle

log = logging.getLogger("advgym")
CAP = {"cpu": 4096, "cuda": 65536}  # tokens per forward
GAPS = f"more than {FORMS} different gaps stand between the words of these texts, so that they are tokenised whole"
WORKS = "mr-cnn, mr-bert, mr-tfidf, the synth victims, and any callable of list[str] work without it"
LONGEST = 512  # tokens, where neither tokenizer nor configuration says
_SAFE = "weights are read from safetensors alone, for a .bin file is a pickle, which can run code"


def open_model(
    source: str, auto: str, wanted: str = "such model", *, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Any]:
    """(model in eval mode, tokenizer) of a hub name or a local folder.

    Args:
        source: the name or the folder; a name is looked up in the offline cache where there is no connection.
        auto: the class of transformers, such as "AutoModelForSequenceClassification".
        wanted: that in words, for messages.
        dtype: of the weights.

    Raises:
        DataError: neither there nor in the cache, its weights are pickles, or it is a checkpoint of another kind.
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
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        loader, how = getattr(transformers, auto), {"use_safetensors": True, "output_loading_info": True}
        model, info = loader.from_pretrained(where, **how)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _missing(source, folder, error) from error
    check_complete(source, model, info, wanted)
    return model.to(dtype).eval().requires_grad_(False), tokenizer


def _missing(source: str, folder: Path, error: Exception) -> DataError:
    said = str(error).strip().split("\n")[0]
    if folder.is_dir():
        if not list(folder.glob("*.safetensors*")) and list(folder.glob("*.bin")):
            return DataError(
                f"{folder} has weights in .bin alone; {_SAFE}. Save it anew with "
                "model.save_pretrained(folder), which writes safetensors"
            )
        return DataError(f"cannot load the model in {folder}: {said} ({_SAFE})")
    return DataError(
        f"the model {source!r} is no local folder, and is neither in the hub's cache on this machine nor could be "
        f"fetched with safetensors weights: {said} Give the path of a folder that save_pretrained wrote; {WORKS}."
    )


def longest_of(model: nn.Module, tokenizer: Any) -> int:
    """Tokens that a model reads, special ones included."""
    config: Any = model.config
    given = [getattr(tokenizer, "model_max_length", 0), getattr(config, "max_position_embeddings", 0)]
    if given[1] and config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet"):
        given[1] -= 2  # their positions begin after the padding's
    return min([int(g) for g in given if g and 0 < g < 10**6], default=LONGEST)


def buckets(lengths: Tensor, cap: int, *, alike: bool = False) -> Iterator[Tensor]:
    """Row indices in batches of like lengths, each of at most `cap` tokens with its padding; `alike`: of one length."""
    order = lengths.argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        rows = max(1, cap // max(1, int(lengths[order[start]])))
        if alike:
            rows = min(rows, int((lengths[order[start:]] == lengths[order[start]]).sum()))
        yield order[start : start + rows]
        start += rows


class Reader(nn.Module):
    """A hub model with its tokenizer: what classifiers and writers share.

    Args:
        model, tokenizer: of transformers.
        longest: tokens it reads at most; longer texts are cut, with one warning.
        cap: tokens per forward; 0 for the device's default.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, longest: int | None = None, cap: int = 0) -> None:
        super().__init__()
        self.model, self.tokenizer, self.cap = model, tokenizer, cap
        self.longest = longest or longest_of(model, tokenizer)
        self.template = find_template(tokenizer)
        self.truncated = 0  # texts cut so far
        read = inspect.signature(model.forward).parameters
        self.typed = "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in read
        config: Any = model.config
        known = getattr(config, "pad_token_id", None)
        # Classifiers without a class token find the end of a text by the configuration's padding.
        self.padding = int((known if known is not None and known >= 0 else tokenizer.pad_token_id) or 0)
        self.alike = False  # whether only texts of one length go together, so that nothing is padded
        self._tables: dict[tuple[str, torch.device], tuple[Pieces, bool | None]] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def embeddings(self) -> Tensor:
        """The input embeddings (ids, D) as the first layer reads them: some models scale them."""
        module: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        scale = getattr(module, "embed_scale", None)
        encoder: Any = getattr(self.model, "get_encoder", None)
        if scale is None and encoder is not None:
            scale = getattr(encoder(), "embed_scale", None)
        table: Tensor = module.weight
        return table if scale is None else table * scale

    def pieces(self, x: TextInput) -> tuple[Pieces, bool] | None:
        """Sub-tokens of a vocabulary, computed once, and whether they are the tokenizer's own of whole texts."""
        if self.template is None:
            return None
        key = (x.vocabulary.digest, self.device)
        if key not in self._tables:
            if len(self._tables) > 4:
                self._tables.clear()
            made = Pieces(self.tokenizer, self.template, x.vocabulary, self.longest, self.device, self.padding)
            if made.paired and not self.template.middle:
                raise VictimError("this tokenizer takes one text, and the samples are pairs")
            self._tables[key] = (made, None)
        made, faithful = self._tables[key]
        if faithful is None and made.known(plain := TextInput(x.ids, x.vocabulary, gaps=x.gaps).to(self.device)):
            faithful = made.faithful(plain)
            if not faithful:
                log.warning(
                    "this tokenizer joins words across spaces: texts are tokenised whole, and there are no gradients"
                )
            self._tables[key] = (made, faithful)
        return made, bool(faithful)

    def run(self, x: Any, forward: Callable[..., Tensor]) -> Tensor:
        """`forward(ids, embeddings or None, mask, types)` over length buckets, rows in their own order."""
        if not isinstance(x, TextInput):
            return self._strings(_texts(x), forward)
        soft = x.weight is not None and x.swap is not None
        found = self.pieces(x)
        if soft and found is not None and not found[0].known(x):  # after other texts over the same words
            found[0].forget()
            found = self.pieces(x)
        known = found is not None and found[0].known(x)
        if found is None or not found[1] or not known:
            if soft:
                why = "this tokenizer hides which tokens are whose, or joins words" if known or found is None else GAPS
                raise VictimError(f"{why}: no gradients in words, use scores")
            return self._strings(unpaired(x.strings()), forward)
        made = found[0]
        x = x.to(self.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and soft):
            lengths, parts = made.lengths(x)
            around = len(made.template.prefix) + len(made.template.suffix)
            self._note(int((lengths > self.longest - around).sum()))
            table = self.embeddings() if soft else None

            def rows(index: Tensor) -> Tensor:
                ids, hidden, mask, kinds = made.rows(tuple(p[index] for p in parts), table)
                return forward(ids, hidden, mask, kinds if self.typed else None)

            return self._gather(lengths + around, rows)

    def _gather(self, lengths: Tensor, rows: Callable[[Tensor], Tensor]) -> Tensor:
        cap = self.cap or CAP["cuda" if self.device.type == "cuda" else "cpu"]
        order = list(buckets(lengths.clamp_max(self.longest), cap, alike=self.alike))
        if not order:
            raise VictimError("no texts were given")
        out = torch.cat([rows(index) for index in order])
        return out[torch.cat(order).argsort()]

    def _strings(self, texts: list[Any], forward: Callable[..., Tensor]) -> Tensor:
        columns = list(zip(*texts, strict=True)) if texts and isinstance(texts[0], tuple) else [texts]
        encoded = self.tokenizer(*map(list, columns), truncation=True, max_length=self.longest)
        lengths = torch.tensor([len(row) for row in encoded["input_ids"]])
        self._note(int((lengths >= self.longest).sum()))

        def rows(index: Tensor) -> Tensor:
            width = max(1, int(lengths[index].max()))

            def padded(key: str, value: int) -> Tensor:
                found = [list(encoded[key][i]) for i in index.tolist()]
                return torch.tensor([r + [value] * (width - len(r)) for r in found], device=self.device)

            ids, mask = padded("input_ids", self.padding), padded("attention_mask", 0)
            return forward(ids, None, mask, padded("token_type_ids", 0) if self.typed else None)

        with torch.no_grad():
            return self._gather(lengths, rows)

    def _note(self, cut: int) -> None:
        if cut and not self.truncated:
            log.warning("%d text(s) are longer than the model's %d tokens and are cut there", cut, self.longest)
        self.truncated += cut


def _texts(x: Any) -> list[Any]:
    """A list of strings or of pairs of strings, checked."""
    fine = isinstance(x, Sequence) and not isinstance(x, str)
    if fine and all(isinstance(t, str) for t in x):
        return list(x)
    if fine and all(isinstance(t, tuple | list) and len(t) == 2 and all(isinstance(s, str) for s in t) for t in x):
        return [tuple(t) for t in x]
    raise AdvgymError(f"a text victim takes TextInput, a list of strings or of pairs, not {type(x).__name__}")


class Classifier(Reader):
    """Any sequence classifier: scores (n, classes), differentiable in relaxed words.

    Args:
        single: the model's one logit z is that of the second of two classes: scores [0, z].
    """

    single = False

    def __init__(
        self, model: nn.Module, tokenizer: Any, longest: int | None = None, cap: int = 0, *, single: bool = False
    ) -> None:  # fmt: skip
        super().__init__(model, tokenizer, longest, cap)
        self.single = single
        config: Any = model.config
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = -1  # an id that no text holds: batches are let through, and nothing is padded
            self.alike = True
        self.alike = self.alike or pools_last(config)

    def forward(self, x: Any) -> Tensor:
        """Logits of each text."""
        scores = self.run(x, self.logits)
        return scores if isinstance(x, list) else scores.to(x.device)

    def logits(self, ids: Tensor, hidden: Tensor | None, mask: Tensor, kinds: Any = None) -> Tensor:
        """Scores of texts as tokens (n, L), or as embeddings in their place; `kinds` are token types."""
        named = {"input_ids": ids, "attention_mask": mask, **({} if kinds is None else {"token_type_ids": kinds})}
        if hidden is None:
            found: Tensor = self.model(**named).logits
        else:
            with replaced(self.model, ids, hidden):
                found = self.model(**named).logits
        found = found.float()
        return torch.cat([torch.zeros_like(found), found], 1) if self.single else found

    @torch.no_grad()
    def disagrees(self) -> str:
        """Why relaxed texts would not be those of plain ones, or nothing: found on two texts of different lengths."""
        if self.template is None:
            return "its tokenizer hides which tokens are whose"
        vocabulary = Vocabulary(PROBE.split())
        ids = torch.arange(len(vocabulary)).repeat(2, 1)
        ids[1, 3:] = -1
        swap, own = ids.roll(1, 1).unsqueeze(2), torch.zeros(2, len(vocabulary), 1)
        swap = torch.where(ids.unsqueeze(2) < 0, -1, swap)
        want = [self([text])[0] for text in TextInput(ids, vocabulary).strings()]
        moved = self(TextInput(swap[..., 0], vocabulary).strings())
        try:
            found = self(TextInput(ids, vocabulary, swap, own)), self(TextInput(ids, vocabulary, swap, own + 1))
        except Exception as error:  # whatever a model says to embeddings that are put in
            return f"{type(error).__name__}: {error}"
        gap = max(_apart(found[0], torch.stack(want)), _apart(found[1], moved))
        return "" if gap <= CLOSE else f"its answers to texts and to their embeddings lie {gap:.2g} apart"


PROBE = "a fine film of good plots"
CLOSE = 1e-4  # of the largest score


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(1.0))


def load(
    source: str, *, name: str | None = None, longest: int | None = None, cap: int = 0, delta: float = 0.0
) -> Victim:  # fmt: skip
    """A sequence classifier of transformers as a victim.

    Args:
        source: hub name, or the folder that save_pretrained wrote (config, tokenizer, model.safetensors).
        name: of the victim; its source without one.
        longest: tokens it reads; None for the model's own.
        cap: tokens per forward with their padding; 0 for 4,096 on a CPU and 65,536 on CUDA.
        delta: of a regressor, by which a success moves its answer (`goals.answers.MoveGoal`).

    Raises:
        DataError: the model is not there, its weights are pickles, or it is no classifier.
        VictimError: it is a regressor and there is no delta, or the other way round.
    """
    model, tokenizer = open_model(source, "AutoModelForSequenceClassification", "sequence classifier")
    return wrap(model, tokenizer, source, name=name, longest=longest, cap=cap, delta=delta)


def wrap(
    model: nn.Module, tokenizer: Any, source: str, *, name: str | None = None, longest: int | None = None, cap: int = 0,
    delta: float = 0.0,
) -> Victim:  # fmt: skip
    """A sequence classifier and its tokenizer as a victim; see `load`."""
    config: Any = model.config
    kind = answers_of(source, config, delta)
    names = {int(i): str(n) for i, n in config.id2label.items()}
    module = Classifier(model, tokenizer, longest, cap, single=kind == "logit").eval()
    card: dict[str, Any] = {"source": source, "architecture": type(model).__name__}
    if kind == "logit":
        log.warning("%s gives one logit z: its classes 0 and 1 have the scores [0, z]; delta= says regression", source)
    elif kind == "number":
        card |= {"answers": kind, "delta": delta}
    else:
        card |= {"labels": names, "classes": [names[i] for i in sorted(names)]} | ({"answers": kind} if kind else {})
    why = module.disagrees()
    if why:
        log.warning("%s gives scores alone, no gradients in words: %s", source, why)
        card["no_gradients"] = why
    return Victim(module, name=name or source, access="scores" if why else "gradients", card=card)


def fit_gaps(victim: Victim, gaps: Iterable[Sequence[str]]) -> Victim:
    """The victim, with scores alone where what stands between the words is of too many kinds to be tokenised ahead."""
    if victim.access != "gradients" or not isinstance(victim.model, Reader) or few(g for row in gaps for g in row):
        return victim
    log.warning("%s gives scores alone, no gradients in words: %s", victim.name, GAPS)
    return victim.like(victim.model, access="scores", card={**victim.card, "no_gradients": GAPS})


def classifier(name: str, *, source: str = "", longest: int = 0, cap: int = 0, delta: float = 0.0) -> Victim:
    """`load` with the arguments of a row of [victims]."""
    return load(source, name=name, longest=longest or None, cap=cap, delta=delta)
