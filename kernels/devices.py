"""Which accelerators this process may see, as the launcher or the agent has pinned them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
_NONE = ("-1", "NoDevFiles")  # how CUDA and Slurm say that there is none


class Visible(NamedTuple):
    """`names` of devices (indices or UUIDs) on `host`, and the variable that says so."""

    host: str
    variable: str
    names: tuple[str, ...]


def visible(environment: Mapping[str, str] | None = None) -> Visible | None:
    """The devices this process is pinned to; None where nothing is pinned, which says nothing about what is there."""
    environment = os.environ if environment is None else environment
    for variable in VARIABLES:
        words = [word.strip() for word in environment.get(variable, "").split(",")]
        names = tuple(word for word in words if word and word not in _NONE)
        if names:
            return Visible(socket.gethostname(), variable, names)
    return None
