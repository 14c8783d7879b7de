"""Names of tasks, agents, defenses and victims, by pattern and domain. No torch."""

from __future__ import annotations

from fnmatch import fnmatchcase

from advgym import registry
from advgym.errors import AdvgymError, unknown


def domains() -> list[str]:
    """The domains that have tasks, in the order of their first ones."""
    return list(dict.fromkeys(name.split("/")[0] for name in registry.tasks()))


def check_domain(domain: str | None) -> str | None:
    """The domain, or an error that lists them."""
    if domain is not None and domain not in domains():
        raise unknown("domain", domain, domains())
    return domain


def matching(names: list[str], pattern: str) -> list[str]:
    """Those that a pattern with * and ? matches, in their order.

    >>> matching(["image/digits-l2", "text/insert"], "image/*")
    ['image/digits-l2']

    Raises:
        AdvgymError: for an empty pattern.
    """
    if not pattern.strip():
        raise AdvgymError("a pattern of names is empty; * matches all of them")
    return [name for name in names if fnmatchcase(name, pattern)]


def list_tasks(pattern: str = "*", domain: str | None = None) -> list[str]:
    """Names of tasks.

    Args:
        pattern: of names, with * and ?.
        domain: of one domain alone: "image", "text", "graph" or "speech".

    >>> list_tasks("image/digits-l?")
    ['image/digits-l2', 'image/digits-l1', 'image/digits-l0']
    """
    check_domain(domain)
    return matching([n for n in registry.tasks() if domain is None or n.split("/")[0] == domain], pattern)


def list_agents(pattern: str = "*", domain: str | None = None, *, task: str | None = None) -> list[str]:
    """Names of agents.

    Args:
        pattern: of names, with * and ?.
        domain: those that play at least one task of it.
        task: those that play this task.

    >>> list_agents("*reduction")
    ['input-reduction']
    """
    from advgym.catalogue.facts import agents_of, facts, plays

    check_domain(domain)
    names = list(registry.agents())
    if task is not None:
        playing = agents_of(registry.task_row(task)[0])
        names = [n for n in names if n in playing]
    if domain is not None:
        there = [known for name in list_tasks(domain=domain) if (known := facts(name)) is not None]
        names = [n for n in names if any(plays(registry.agents()[n], known) for known in there)]
    return matching(names, pattern)


def list_defenses(pattern: str = "*", domain: str | None = None) -> list[str]:
    """Names of defenses.

    Args:
        pattern: of names, with * and ?.
        domain: those that guard tasks of it.

    >>> "jpeg" in list_defenses(domain="image"), "jpeg" in list_defenses(domain="graph")
    (True, False)
    """
    check_domain(domain)
    found = [n for n, d in registry.defenses().items() if domain is None or not d.domains or domain in d.domains]
    return matching(found, pattern)


def list_victims(pattern: str = "*", domain: str | None = None) -> list[str]:
    """Names of victims.

    Args:
        pattern: of names, with * and ?.
        domain: those that a domain makes.

    >>> list_victims("digits-cnn")
    ['digits-cnn']
    """
    check_domain(domain)
    found = [n for n, row in registry.victims().items() if domain in (None, domain_of_victim(row))]
    return matching(found, pattern)


def domain_of_victim(row: dict[str, object]) -> str:
    """The domain whose package makes a victim; "" for a victim from elsewhere."""
    parts = str(row.get("make", "")).split(".")
    return parts[2] if parts[:2] == ["advgym", "envs"] and len(parts) > 2 else ""
