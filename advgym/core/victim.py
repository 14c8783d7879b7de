"""The victim: a model wrapped so that it answers batches of inputs, and says what may be asked of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advgym.core.asking import Copies, in_eval, pieces, scores_in
from advgym.core.batch import take
from advgym.core.cached import open_store, remembering
from advgym.core.rng import mix
from advgym.core.tally import Tally
from advgym.errors import AdvgymError, VictimError, unknown

ACCESS = ("labels", "scores", "gradients")
DRAWS = 3  # of a keyed victim, that one answer is the mean of


class Victim:
    """A batch of inputs in, scores out.

    Args:
        model: a module or any callable of the task's inputs, giving scores (n, *scores_shape) (a tensor, an array or a
            list); integers of shape (n,) are read as labels when `access="labels"`.
        name: as the registry and the results name it.
        access: the most it can give: "labels", "scores", or "gradients" (differentiable in a Field input, or in the
            leaves of its domain's inputs).
        keyed: the model takes `keys=` int64 (n,) and draws all its randomness from them. The verdict is then the
            majority over fresh draws.
        draws: of a keyed victim, what one answer is the mean of, at the evaluator's cost (1 for a model that averages
            by itself).
        retrains: every answer is a training run (poisoning): one draw an answer, and only the verdict confirms.
        chunk: most rows per forward; 0 for all at once.
        retries, wait: a passing error (too many requests, a time-out, memory) is tried again so often, after `wait`,
            2 `wait` ... seconds. An input on which the model raises all the same has no scores (NaN).
        cache: keep the answers of a callable, each distinct input being asked once: True in memory, "name@version" in a
            file of `advgym.lib.weights.cache_dir()`. Queries are charged as ever (`advgym.core.cached`).
        risk: optional callable of the inputs giving a detector's risk in [0, 1] for each row; success also needs it
            below `threshold`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        name: str = "own",
        access: str | None = None,
        keyed: bool = False,
        draws: int = DRAWS,
        retrains: bool = False,
        chunk: int = 0,
        retries: int = 0,
        wait: float = 1.0,
        cache: bool | str = False,
        risk: Callable[..., Any] | None = None,
        threshold: float = 0.5,
        card: dict[str, Any] | None = None,
    ) -> None:
        if access is None:
            access = "gradients" if isinstance(model, nn.Module) else "scores"
        if access not in ACCESS:
            raise ValueError(f"access is one of {', '.join(ACCESS)}, not {access!r}")
        self.tally = Tally()  # of inputs that the model was asked about
        model = remembering(model, open_store(cache), self.tally, able=not keyed and not retrains)
        self.model, self.name, self.access, self.keyed, self.chunk = model, name, access, keyed, chunk
        self.draws, self.retrains = 1 if retrains or not keyed else draws, retrains
        self.risk, self.threshold, self.retries, self.wait = risk, threshold, retries, wait
        self.card = card or {}  # what a result file says of it: clean accuracy, recipe, weights' hash
        # Told before each answer whose samples the inputs are (None: not said), which of them are clean, and whether
        # the answer is for a verdict.
        self.watch: Callable[[Tensor | None, Tensor | None, bool], None] | None = None
        self.copies = Copies()
        self.raises = False  # of a submitted defense: an input that it cannot answer is its fault, whichever it is
        self.unanswered, self.why = 0, ""  # inputs on which the model raised, and the last exception
        self._shape: torch.Size | None = None  # of one row of scores, once it is known

    def __repr__(self) -> str:
        return f"Victim({self.name!r}, access={self.access!r})"

    @property
    def module(self) -> nn.Module | None:
        """The trainable module behind the victim, if it is one."""
        return self.model if isinstance(self.model, nn.Module) else None

    def like(self, model: Callable[..., Any], **changes: Any) -> Victim:
        """Another model in this victim's place: what `changes` does not name (access, randomness, risk ...) stays."""
        twin = copy.copy(self)
        twin.model, twin.copies, twin.unanswered, twin._shape = model, Copies(), 0, None
        for name, value in changes.items():
            if name not in self.__dict__:
                raise unknown("attribute of a victim", name, self.__dict__)
            setattr(twin, name, value)
        return twin

    def to(self, device: torch.device | str) -> Victim:
        """Move the module, where there is one."""
        if self.module is not None:
            self.module.to(device)
        return self

    def on(self, device: torch.device | str) -> Victim:
        """This victim on a device: itself where it is there already, else a copy."""
        module = self.module
        some = next((p for p in (*module.parameters(), *module.buffers())), None) if module is not None else None
        if module is None or some is None or some.device == torch.device(device):
            return self
        twin = copy.copy(self)
        twin.model = copy.deepcopy(module).to(device)
        return twin

    def __call__(self, x: Any, keys: Tensor | None = None) -> Tensor:
        """Scores of every row of x, float32 on the device of x where it names one."""
        if not self.chunk:
            return self._rows(x, keys)
        n = len(x)
        if n <= self.chunk:
            return self._rows(x, keys)
        parts = []
        unit = getattr(x, "together", 1)
        chunk = max(self.chunk // unit, 1) * unit
        for start in range(0, n, chunk):
            index = torch.arange(start, min(start + chunk, n), device=x.device if isinstance(x, Tensor) else None)
            parts.append(self._rows(take(x, index), None if keys is None else keys[index]))
        return torch.cat(parts)

    def _rows(self, x: Any, keys: Tensor | None) -> Tensor:
        """The answer to each row; what the model raises on one costs that row, which answers NaN (unless `raises`)."""
        if self.raises:
            return self._answer(x, keys)
        found = pieces(self._answer, x, keys, retries=self.retries, wait=self.wait)
        if len(found) == 1 and isinstance(found[0], Tensor):
            self._shape = found[0].shape[1:]
            return found[0]
        good = next((p for p in found if isinstance(p, Tensor)), None)
        shape = self._shape if good is None else good.shape[1:]
        if shape is None:
            error = next(p for p in found if isinstance(p, Exception))
            raise VictimError(
                f"victim {self.name!r} answered none of the first {len(x)} inputs: {type(error).__name__}: {error}"
            ) from error
        self._shape = shape
        device = x.device if isinstance(x, Tensor) else None if good is None else good.device
        for p in found:
            if isinstance(p, Exception):
                self.unanswered, self.why = self.unanswered + 1, f"{type(p).__name__}: {p}"[:200]
        nan = torch.full((1, *shape), torch.nan, device=device)
        return torch.cat([p if isinstance(p, Tensor) else nan for p in found])

    def _answer(self, x: Any, keys: Tensor | None) -> Tensor:
        with in_eval(self.model), self.tally.asking(len(x) if hasattr(x, "__len__") else 1):
            scores = self.copies(self.model, x, keys=keys) if self.keyed else self.copies(self.model, x)
        scores = scores_in(scores, len(x))
        if not isinstance(scores, Tensor):
            try:
                scores = torch.as_tensor(scores)
            except (TypeError, ValueError, RuntimeError) as error:
                raise VictimError(f"victim {self.name!r} answered with something that is no array: {error}") from None
        if scores.dim() == 0 or scores.shape[0] != (x.shape[0] if isinstance(x, Tensor) else len(x)):
            raise VictimError(
                f"victim {self.name!r} answered {tuple(scores.shape)} to {len(x)} inputs; "
                "want one row of scores per input"
            )
        return scores.to(getattr(x, "device", scores.device), torch.float32)


def first_answer(victim: Victim, x: Any, keys: Tensor | None, what: str) -> Tensor:
    """The scores of an input that a task asks its victim about when it is made.

    Raises:
        VictimError: with what the model raised, and on `what`.
    """
    before = victim.unanswered
    try:
        scores = victim(x, keys)
    except VictimError as error:
        if error.__cause__ is None:
            raise
        raise VictimError(f"victim {victim.name!r} fails on {what}: {error.__cause__}") from error.__cause__
    if victim.unanswered > before:
        raise VictimError(f"victim {victim.name!r} fails on {what}: {victim.why}")
    return scores


def ask(
    victim: Victim, x: Any, members: int = 1, keys: Tensor | None = None, *, ids: Tensor | None = None,
    null: Tensor | None = None, final: bool = False,
) -> Tensor:  # fmt: skip
    """Scores (n, *shape), or (n, members, *shape) of a bundle, whose inputs are n * members rows.

    Args:
        keys: int64 (n,), of a randomised victim; each member draws its own.
        ids, null, final: what the victim's `watch` is told.
    """
    if victim.watch is not None:
        victim.watch(ids, null, final)
    if victim.keyed and keys is not None and members > 1:
        nth = torch.arange(members, device=keys.device)
        keys = mix(keys.unsqueeze(1) * 2**10 + nth).reshape(-1)
    scores = victim(x, keys) if victim.keyed else victim(x)
    return scores if members == 1 else scores.view(-1, members, *scores.shape[1:])


def one_hot(labels: Any, classes: int) -> Tensor:
    """Scores of a label-only model: 1 at the label, 0 elsewhere."""
    return nn.functional.one_hot(torch.as_tensor(labels, dtype=torch.int64), classes).to(torch.float32)


def as_victim(model: Any, **kwargs: Any) -> Victim:
    """A Victim as it is; a module or a callable wrapped into one."""
    return model if isinstance(model, Victim) else Victim(model, **kwargs)


def resolve_device(device: Any) -> torch.device:
    """The torch device, or an error that lists what this machine has."""
    have = ["cpu", *[f"cuda:{i}" for i in range(torch.cuda.device_count())]]
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise unknown("device", device, have) from None
    if found.type not in ("cpu", "cuda"):
        raise unknown("device", device, have)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise AdvgymError(f"device {device!r} is not on this machine. Known: {', '.join(have)}.")
    return found


def behind(guard: Callable[..., Any], label: str, victim: Victim, task: Any, settings: Mapping[str, Any]) -> Victim:
    """A victim behind one defense.

    Args:
        guard: of (victim, task, **settings).
        label: what errors call it.
        task: the task whose victim it is.

    Raises:
        VictimError: for a defense that fails while it is made, or makes no victim.
    """
    try:
        found = guard(victim, task, **settings)
    except AdvgymError:
        raise
    except Exception as error:
        raise VictimError(f"defense {label!r} fails on {task.name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Victim):
        raise VictimError(
            f"defense {label!r} gave {type(found).__name__} on {task.name}; it returns a Victim, such as "
            "victim.like(module)"
        )
    return found
