"""Hypothesis measures no time here: a machine that does much else is slow, and nothing is wrong with that."""

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
