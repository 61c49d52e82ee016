"""What several ranks tell each other while they look for grains: the result is the same for any number of them."""

from __future__ import annotations

from typing import TypeVar

from kernels.ranks import Ranks

T = TypeVar("T")

ALONE = Ranks()


def to_all(ranks: Ranks, value: T) -> list[T]:
    """What each rank gives here, in the order of ranks; for all of them."""
    return ranks.told(ranks.gathered(value))
