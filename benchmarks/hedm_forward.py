"""The forward model of HEDM: how many spots a second are predicted, and that they are the definition's.

    python benchmarks/hedm_forward.py [--grains 10000] [--rounds 5]

Gold on a detector of 2048 x 2048 pixels a metre away, five rings, grains with strain off the axis. A possible spot is a
reflection at one of its two omegas; that most of them reach the panel is told. Times are CPU seconds of all cores, the
least of the rounds, without compiling. The bar is 26 million a second on two cores, which a model without tilts,
wedge, edges of panels and lists of spots reached.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kernels.compiled import threads  # noqa: E402
from kernels.hedm.forward import predict  # noqa: E402
from kernels.hedm.geometry import Geometry, Panel  # noqa: E402
from kernels.hedm.rotations import by_vector  # noqa: E402

BAR = 26e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grains", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    random = np.random.default_rng(0)
    hkl = [
        h for h in product(range(-4, 5), repeat=3) if 0 < sum(i * i for i in h) <= 12 and len({i % 2 for i in h}) == 1
    ]
    g0 = np.array(hkl, float) / 4.08
    vectors = random.normal(size=(told.grains, 3))
    grains = {
        "orientation": np.array([by_vector(vector) for vector in vectors]),
        "position_um": random.uniform(-500, 500, (told.grains, 3)),
        "strain": random.normal(0, 5e-4, (told.grains, 6)),
    }
    panel = Panel.tilted(
        "ge",
        shape=(2048, 2048),
        pixel_um=(200.0, 200.0),
        distance_um=1e6,
        beam_centre=(1020.0, 1030.0),
        tilts=(0.001, 0.002, -0.001),
    )
    geometry = Geometry(0.22291, (panel,), wedge=0.001)
    predict(geometry, g0, **{name: values[:10] for name, values in grains.items()})
    wall, cpu = [], []
    for _ in range(told.rounds):
        begin = time.perf_counter(), time.process_time()
        spots = predict(geometry, g0, **grains)
        wall.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    possible = 2 * len(g0) * told.grains
    g = geometry.reciprocal(
        spots.panel[:1000],
        spots.row[:1000],
        spots.column[:1000],
        omega=spots.omega[:1000],
        position_um=grains["position_um"][spots.grain[:1000]],
    )
    longer = np.abs(np.linalg.norm(g, axis=1) / np.linalg.norm(g0[spots.reflection[:1000]], axis=1) - 1).max()
    print(f"{threads()} threads; {possible:,} possible spots, {len(spots):,} on the panel; |g| within {longer:.1e}")
    speed = possible / min(cpu) * threads()
    print(
        f"RESULT name=hedm_forward ours={speed / 1e6:.1f} rival={BAR / 1e6:.1f} ratio={speed / BAR:.2f} bar=1.0 "
        f"unit=Mspots/s cpu_s={min(cpu):.3f} wall_s={min(wall):.3f}"
    )


if __name__ == "__main__":
    main()
