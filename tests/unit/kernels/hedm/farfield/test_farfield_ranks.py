"""Several ranks find what one finds, bit by bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_grains import make, wider

from kernels.hedm.farfield.find import find_grains

RANGES = {"turn": ((-np.pi, np.pi),), "part": ((-1.0, 1.0),)}
PROGRAM = """
import sys
import numpy as np
from synthetic_grains import make, wider
from test_farfield_ranks import RANGES
from kernels.hedm.farfield.find import find_grains
from kernels.ranks import Ranks
ranks = Ranks.here()
for name, ranges in RANGES.items():
    sample = wider(make(40, seed=31, omega_ranges=ranges), radius_um=400.0)
    found = find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits, ranks=ranks)
    np.savez(f"{sys.argv[1]}/{name}{ranks.rank}", orientation=found.orientation, position_um=found.position_um,
             owner=found.owner, covariance=found.covariance, outside_um=found.outside_um)
"""


def test_the_result_is_the_same_for_any_number_of_ranks(tmp_path: Path):
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    alone = {}
    for name, ranges in RANGES.items():
        sample = wider(make(40, seed=31, omega_ranges=ranges), radius_um=400.0)
        alone[name] = find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits)
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment |= {"NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "3", sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, found in alone.items():
        assert len(found) + len(found.outside_um) == 40
        assert len(found.outside_um) > 3
        for rank in range(3):
            with np.load(tmp_path / f"{name}{rank}.npz") as theirs:
                for key in theirs.files:
                    assert np.array_equal(theirs[key], getattr(found, key)), (name, rank, key)
