"""Which accelerators this process may see, as launchers and schedulers say it."""

from __future__ import annotations

import os
from collections.abc import Mapping

VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
_NONE = {"", "-1", "none", "NoDevFiles"}


def visible(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The devices pinned to this process, by number or identifier; empty when none were."""
    for name in VARIABLES:
        found = tuple(d.strip() for d in environment.get(name, "").split(",") if d.strip() not in _NONE)
        if found:
            return found
    return ()
