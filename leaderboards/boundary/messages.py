"""The messages of the protocol. What exists here is all that either side can say."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class _Message(msgspec.Struct, forbid_unknown_fields=True, tag=True, frozen=True):
    """Tagged by its name."""


Graded = Literal["scores", "objective", "surrogate"]  # what a cotangent may be of


# -- the agent asks --------------------------------------------------------------------------------------------
class Step(_Message, frozen=True):
    """Arrays: the proposal, and the weights of relaxed edits where `weighted`. View 0 is the whole environment."""

    view: int
    grad: bool = False
    weighted: bool = False


class Back(_Message, frozen=True):
    """A backward through an earlier step. Arrays: one cotangent for each name of `of`."""

    step: int
    of: list[Graded]


class Rank(_Message, frozen=True):
    """Arrays: the perturbation, a cotangent where `along`, the edits' weights where `weighted`."""

    view: int
    k: int
    along: bool = False
    weighted: bool = False


class Append(_Message, frozen=True):
    """Arrays: the payload."""

    view: int


class Ask(_Message, frozen=True):
    """Raw inputs. Arrays: x, lanes, and of inputs that are no tensors their other parts, x being the last part.

    With `grad` the answer can be differentiated by `Back` (of scores), by x.
    """

    view: int
    grad: bool = False


class View(_Message, frozen=True):
    """Arrays: the lanes of the whole environment that the view plays, ascending."""

    proposals: int | None


class Loaded(_Message, frozen=True):
    """The submission's code is imported, before anything is dealt. An attack that registered itself says as what."""

    registered: bool = False
    kind: list[str] = []
    knowledge: str = ""
    proposals: int | None = None


class Done(_Message, frozen=True):
    """The agent has returned. Arrays: what it returned, where that is the last word; none for the last proposed."""


class Failed(_Message, frozen=True):
    """The agent's side could not go on; believed as far as a message to its author goes. The fields are `Fault`'s."""

    code: str
    kind: str = ""
    file: str = ""
    line: int = 0
    text: str = ""


Request = Loaded | Step | Back | Rank | Append | Ask | View | Done | Failed


# -- the evaluator answers -------------------------------------------------------------------------------------
class Welcome(_Message, frozen=True):
    """The dealt episodes. Arrays: `tree` as msgpack bytes, then the arrays that it names."""

    seed: int
    proposals: int | None
    settings: dict[str, Any]


class Answer(_Message, frozen=True):
    """Named arrays. `step` numbers what a `Back` may name; `over`: some lane has just ended."""

    names: list[str]
    step: int = -1


class Refusal(_Message, frozen=True):
    """What was asked is not possible; the connection goes on."""

    kind: Literal["malformed", "exhausted", "refused"]
    text: str


Reply = Welcome | Answer | Refusal


# -- a defense: here the evaluator asks, and the sandbox answers ----------------------------------------------------
class Enlist(_Message, frozen=True):
    """The task that is defended. Arrays: the undefended victim's weights, packed by `mirror`."""

    task: str
    options: dict[str, Any]
    settings: dict[str, Any]
    env: dict[str, str] = {}
    device: str = "cpu"


class Ready(_Message, frozen=True):
    """What the defended victim is."""

    access: Literal["labels", "scores", "gradients"]
    keyed: bool = False
    risk: bool = False
    threshold: float = 0.5


class Look(_Message, frozen=True):
    """Inputs, packed by `mirror`, then keys where `keyed`. `leaves` are the float tensors of the inputs to remember."""

    leaves: list[str]
    keyed: bool = False


class Scores(_Message, frozen=True):
    """Arrays: scores, and the risk where there is one."""

    step: int = -1


class Pull(_Message, frozen=True):
    """A backward. Arrays: the cotangent of the scores."""

    step: int


class Pulled(_Message, frozen=True):
    """Arrays: the cotangent of every leaf."""


Order = Enlist | Look | Pull
Report = Loaded | Ready | Scores | Pulled | Failed
