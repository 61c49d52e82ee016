"""What surrounds an order at a site: the facts of its profile that a worker or a job needs to carry it out."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from msgspec import Struct

from orchestrator import codec

if TYPE_CHECKING:
    from sites.schema import SiteProfile


class Around(Struct, frozen=True):
    slots: str = ""  # directory of the slot files; empty in a job of its own
    cap_bytes: int = 16_000_000  # of output kept
    launcher: str = "none"
    launcher_command: str = ""
    launcher_options: tuple[str, ...] = ()
    program: tuple[str, ...] = (sys.executable,)  # what starts Python there, container included
    variable: str = "CUDA_VISIBLE_DEVICES"  # says which devices a process may see
    gpus: int = 0  # of a node
    far: bool = False  # workers run on other hosts: no signals reach them, marks on the shared file system do


def of(profile: SiteProfile, slots: str) -> Around:
    accelerator = profile.node.accelerator
    return Around(
        slots=slots,
        cap_bytes=profile.limits.log_cap_bytes,
        launcher=profile.launcher.kind,
        launcher_command=profile.launcher.command,
        launcher_options=tuple(profile.launcher.options),
        program=(*profile.environment.container, profile.environment.python or sys.executable),
        variable=accelerator.variable() if accelerator else "CUDA_VISIBLE_DEVICES",
        gpus=profile.node.gpus,
        far=not profile.local,
    )


@functools.lru_cache(maxsize=8)
def read(text: str) -> Around:
    return codec.loads(text, Around)
