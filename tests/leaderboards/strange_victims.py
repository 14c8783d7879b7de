"""Victims whose answers raise, for the question of whose fault that is; found as "strange_victims:image/..."."""

from advgym import registry
from advgym.core.task import load_victim
from advgym.errors import Unusable

ROW = {k: v for k, v in registry.tasks()["image/digits-linf"].items() if k != "generator"}


def make(name, always):
    """The digits' own victim, that raises on ink in the corner (or on whatever comes in a small batch)."""
    inner = load_victim(ROW["victim"])

    def model(x):
        if always and len(x) <= 4:
            raise Unusable("out of sorts")
        if not always and bool((x[:, 0, 0, 0] > 0.5).any()):
            raise Unusable("what is this corner")
        return inner.model(x)

    return inner.like(model, name=name)


for kind in ("grumpy", "broken"):
    registry.register_victim(kind, make="strange_victims:make", always=kind == "broken")
    registry.register_task(f"image/{kind}", **{**ROW, "victim": kind})
