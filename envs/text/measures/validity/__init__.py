"""Whether the meaning was kept: a probability calibrated on people's judgements, in no observation and no objective."""

from advgym.envs.text.measures.validity.relations import Relations, default_relations
from advgym.envs.text.measures.validity.scoring import bar, calibration, caution, score

__all__ = ["Relations", "bar", "calibration", "caution", "default_relations", "score"]
