"""`hedm.compare`: are the grains those that should be there?"""

from __future__ import annotations

import math

from kernels.errors import Exit, KernelError
from kernels.hedm.grains import read_grains
from kernels.hedm.matching import match_grains
from kernels.job import Job


def compare(
    job: Job, *, input: str, truth: str, angle: float, distance: float, min_found: float, max_false: int | None
) -> None:
    """Pair the grains `input` with those of `truth`; arguments as in the schema.

    Reports `true`, `found`, `missed`, `false`, and medians and 95 of a hundred of the errors: `orientation_deg`,
    `position_um`, and `strain_rms`.

    Raises
    ------
    KernelError
        Exit 3 when fewer were found, or more are false, than is allowed; 65, 66 for files.
    """
    match = match_grains(
        read_grains(input), read_grains(truth), max_angle=math.radians(angle), max_distance_um=distance
    )
    said = match.summary()
    for name, value in said.items():
        if math.isfinite(value):
            job.metric(name, value)
    if said["found"] < min_found * said["true"]:
        raise KernelError(
            f"{said['found']:.0f} of {said['true']:.0f} grains were found within {angle:g}° and {distance:g} µm; "
            f"at least {min_found:.0%} were asked for.",
            Exit.BAD_OUTPUT,
        )
    if max_false is not None and said["false"] > max_false:
        raise KernelError(f"{said['false']:.0f} grains are false, at most {max_false} may be.", Exit.BAD_OUTPUT)
