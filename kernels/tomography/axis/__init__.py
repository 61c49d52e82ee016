"""Find the rotation axis by several ways, compared.

| way | what it looks at | good for | not for |
|---|---|---|---|
| wedge | energy where a true sinogram has none | stripes, noise, objects wider than the view | few angles |
| pairs | opposite projections, mirrored | few angles; full turns, also with the axis at the edge | shorter scans |
| moment | centres of mass on a sine | few angles, missing wedges | objects that leave the view |
| sharpness | trial reconstructions | a judge between the others | a search from nothing |
"""

from kernels.tomography.axis.choose import find_axis
from kernels.tomography.axis.estimate import Axis, Estimate
from kernels.tomography.axis.turn import half_turn

__all__ = ["Axis", "Estimate", "find_axis", "half_turn"]
