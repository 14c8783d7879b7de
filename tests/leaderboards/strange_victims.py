"""Victims whose answers raise, for the question of whose fault that is; found as "strange_victims:image/..."."""

import torch

from advgym import registry
from advgym.victim import Victim


class Grumpy(torch.nn.Module):
    """Raises on what is not clean (blue), or on whatever it is asked after the clean pass (red)."""

    def __init__(self, always):
        super().__init__()
        self.layer, self.always, self.asked = torch.nn.Linear(64, 10), always, 0
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.bias.copy_(torch.arange(10) * 0.0)

    def forward(self, x):
        self.asked += 1
        if self.always and len(x) <= 4:
            raise RuntimeError("out of sorts")
        if not self.always and bool((x[:, 0, 0, 0] > 0).any()):
            raise RuntimeError("what is this corner")
        return self.layer(x.flatten(1)) + torch.eye(10)[0]


def make(name, always):
    return Victim(Grumpy(always), name=name, card={"classes": 10})


registry.register_victim("grumpy", make="strange_victims:make", always=False)
registry.register_victim("broken", make="strange_victims:make", always=True)
for kind in ("grumpy", "broken"):
    row = dict(registry.tasks()["image/digits-linf"])
    registry.register_task(f"image/{kind}", **{**row, "victim": kind})
