"""Faults planted into what was in order: the audit has to see each."""

from __future__ import annotations

from tests.chaos.arrivals.plant import Plant
from tests.chaos.arrivals.truth import Truth


def blind(plant: Plant, truth: Truth) -> list[str]:
    """Which of them it does not see."""
    return []
