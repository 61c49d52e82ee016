"""The angle of a direction by sums, products and one quotient: the same bits on every processor, and on a GPU.

Libraries agree on `atan2` to a unit in the last place only, which is enough to put a spot into another frame.
"""

from __future__ import annotations

import math

from kernels.compiled import compiled

TANGENTS = (0.0, 0.198912367379658, 0.41421356237309503, 0.6681786379192988, 1.0)  # of multiples of pi / 16


@compiled()
def angle_of(sine: float, cosine: float) -> float:
    """The angle in radians, from -pi to pi, of a direction whose length is of no account; to 3e-16.

    Folded into an eighth of a turn, it is turned back by the nearest multiple of pi / 16. What is left is so small that
    seven terms of the arc tangent's series are enough. Multiples of a quarter of a turn are exact.
    """
    a, b = abs(cosine), abs(sine)
    x, y = max(a, b), min(a, b)
    nearest = 0
    if y > 0.0985 * x:
        nearest += 1
    if y > 0.3033 * x:
        nearest += 1
    if y > 0.5345 * x:
        nearest += 1
    if y > 0.8207 * x:
        nearest += 1
    tangent = TANGENTS[nearest]
    t = (y - tangent * x) / (x + tangent * y)
    s = t * t
    series = 1.0 / 7.0 - s * (1.0 / 9.0 - s * (1.0 / 11.0 - s / 13.0))
    series = t * (1.0 - s * (1.0 / 3.0 - s * (1.0 / 5.0 - s * series)))
    angle = nearest * math.pi / 16.0 + series
    if b > a:
        angle = 0.5 * math.pi - angle
    if cosine < 0:
        angle = math.pi - angle
    return -angle if sine < 0 else angle
