"""Cards: what there is to know of a task, an agent, a defense or a victim, for people, notebooks and programs."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec

from advgym.lib.settings import Setting

Rows = list[tuple[str, str]]


class Card(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Printed it is a listing, in a notebook a table; `to_json` and `to_dict` give everything."""

    name: str
    summary: str = ""

    def sections(self) -> list[tuple[str, Rows]]:
        """What is shown: (heading, rows of a word and what stands beside it); the first has no heading."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field, with `what` the card is of."""
        return {"what": type(self).__name__.lower(), **msgspec.to_builtins(self)}

    def to_json(self) -> str:
        """The same as JSON."""
        return msgspec.json.format(msgspec.json.encode(self.to_dict()), indent=1).decode()

    def __repr__(self) -> str:
        return "\n".join([f"{self.name}: {self.summary}" if self.summary else self.name, *text_lines(self.sections())])

    def _repr_html_(self) -> str:
        body = []
        for title, rows in self.sections():
            if title:
                body.append(f'<tr><th colspan="2" style="text-align:left">{escape(title)}</th></tr>')
            body += [
                f'<tr><td style="text-align:left;vertical-align:top"><code>{escape(word)}</code></td>'
                f'<td style="text-align:left">{escape(text)}</td></tr>'
                for word, text in rows
            ]
        return f"<h4>{escape(self.name)}</h4><p>{escape(self.summary)}</p><table>{''.join(body)}</table>"


def text_lines(sections: list[tuple[str, Rows]]) -> list[str]:
    """Rows as aligned lines of plain text."""
    lines = []
    for title, rows in sections:
        lines += ["", title] if title else []
        wide = max((len(word) for word, _ in rows), default=0)
        lines += [f"  {word:<{wide}}  {text}".rstrip() for word, text in rows]
    return lines


def _kept(rows: list[tuple[str, Any]]) -> Rows:
    """Rows that say something."""
    return [(word, str(text)) for word, text in rows if text not in ("", None, [], {}, ())]


def _some(names: list[str], most: int = 40) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _settings(settings: list[Setting]) -> Rows:
    return [
        (s.name, s.type + (f", {s.allowed}" if s.allowed else "") + (f"; {s.default}" if s.default else "; required"))
        for s in settings
    ]


class Task(Card, frozen=True, kw_only=True):
    """Of a task. `sample` is there where the task was made: `describe(name, sample=0)`."""

    domain: str
    kind: str
    dataset: str
    victim: str
    surrogate: str
    knowledge: list[str]  # what may be asked for, from least to most; the last is the default
    goals: list[str]  # the first is the default
    queries: int
    gradients: int
    constraint: dict[str, Any]
    gives: list[str]  # what the caller must give: victim=, samples=
    offers: dict[str, str]  # words of needs.toml, and what they mean
    id: str  # of gymnasium.make
    action: str = ""
    proposal: str = ""
    max_episode_steps: int = 0
    reward_threshold: float | None = None
    observation: dict[str, str] = {}
    sizes: dict[str, int] = {}
    sample: str = ""
    agents: list[str] = []
    defenses: list[str] = []
    command: str = ""

    def sections(self) -> list[tuple[str, Rows]]:
        limit = ", ".join(f"{k}={v}" for k, v in self.constraint.items())
        about = [
            ("sample", self.sample), ("dataset", self.dataset),
            ("samples", ", ".join(f"{n:,} {split}" for split, n in self.sizes.items())),
            ("victim", self.victim), ("surrogate", self.surrogate), ("to give", _some(self.gives)),
        ]  # fmt: skip
        threat = [
            ("perturbation", self.kind), ("constraint", limit), ("knowledge", f"at most {self.knowledge[-1]}"),
            ("goals", _some(self.goals)), ("queries", f"{self.queries:,}"), ("gradients", f"{self.gradients:,}"),
        ]  # fmt: skip
        spaces = [
            ("id", self.id), ("action", self.action), ("proposal", self.proposal),
            ("steps", f"at most {self.max_episode_steps:,}" if self.max_episode_steps else ""),
            ("reward threshold", self.reward_threshold),
            *((f"sees {name}", text) for name, text in self.observation.items()),
        ]  # fmt: skip
        return [
            ("", _kept(about)), ("Threat model, each a --set K=V", _kept(threat)), ("Spaces", _kept(spaces)),
            ("Offers", list(self.offers.items())),
            ("Who fits", _kept([("agents", _some(self.agents, 99)), ("defenses", _some(self.defenses, 99))])),
            ("Attack it", _kept([("$", self.command)])),
        ]  # fmt: skip


class Agent(Card, frozen=True, kw_only=True):
    """Of an agent."""

    kinds: list[str]
    knowledge: str
    proposals: int | None
    needs: dict[str, str]
    papers: list[str]
    settings: list[Setting]
    about: str  # the docstring
    file: str  # the module
    argument: str = ""  # what stands after the colon of its name
    tasks: list[str] = []
    command: str = ""

    def sections(self) -> list[tuple[str, Rows]]:
        about = [
            ("plays", " and ".join(self.kinds)), ("is told", self.knowledge),
            ("proposals", self.proposals or "one a step"), ("paper", "; ".join(self.papers)),
            ("named", f"{self.name}:{self.argument.upper()}" if self.argument else ""), ("code", self.file),
        ]  # fmt: skip
        return [
            ("", _kept(about)), ("Needs of a task", list(self.needs.items())),
            ("Settings, each a --set K=V", _settings(self.settings)),
            (f"Plays {len(self.tasks)} tasks", _kept([("tasks", _some(self.tasks))])),
            ("Try it", _kept([("$", self.command)])),
        ]  # fmt: skip


class Defense(Card, frozen=True, kw_only=True):
    """Of a defense."""

    domains: list[str]
    kinds: list[str]
    papers: list[str]
    settings: list[Setting]
    about: str
    file: str
    tasks: list[str] = []
    command: str = ""

    def sections(self) -> list[tuple[str, Rows]]:
        about = [
            ("guards", ", ".join(self.domains) or "every domain"), ("against", " and ".join(self.kinds)),
            ("paper", "; ".join(self.papers)), ("code", self.file),
        ]  # fmt: skip
        return [
            ("", _kept(about)), (f"Settings, as --defense {self.name}:K=V,K=V", _settings(self.settings)),
            (f"Guards {len(self.tasks)} tasks", _kept([("tasks", _some(self.tasks))])),
            ("Try it", _kept([("$", self.command)])),
        ]  # fmt: skip


class Victim(Card, frozen=True, kw_only=True):
    """Of a victim. `measured` is what its weights' card says, where they ship or are kept; nothing is trained."""

    domain: str
    dataset: str
    settings: dict[str, Any]
    measured: dict[str, Any]
    weights: str  # "shipped", "kept", or "trained when first used"
    argument: str = ""
    tasks: list[str] = []
    surrogate_of: list[str] = []
    command: str = ""

    def sections(self) -> list[tuple[str, Rows]]:
        about = [
            ("domain", self.domain), ("dataset", self.dataset), ("weights", self.weights),
            ("named", f"{self.name}:{self.argument.upper()}" if self.argument else ""),
        ]  # fmt: skip
        return [
            ("", _kept(about)),
            ("Measured", [(k, f"{v:.4g}" if isinstance(v, float) else str(v)) for k, v in self.measured.items()]),
            ("Settings, each a --set K=V of `advgym train`", [(k, str(v)) for k, v in self.settings.items()]),
            ("Used by", _kept([("tasks", _some(self.tasks)), ("as a surrogate", _some(self.surrogate_of))])),
            ("Load it", _kept([("$", self.command)])),
        ]  # fmt: skip
