"""Several ranks find what one finds, bit by bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """
import sys
import numpy as np
from synthetic_grains import make
from kernels.hedm.farfield.find import find_grains
from kernels.ranks import Ranks
for name, ranges in (("turn", ((-3.141592653589793, 3.141592653589793),)), ("part", ((-1.0, 1.0),))):
    sample = make(40, seed=31, omega_ranges=ranges)
    found = find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits, ranks=Ranks.here())
    if Ranks.here().first:
        np.savez(sys.argv[1] + name, orientation=found.orientation, position=found.position_um, owner=found.owner,
                 covariance=found.covariance)
"""


def test_the_result_is_the_same_for_any_number_of_ranks(tmp_path: Path):
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment |= {"NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for count in (1, 3):
        line = [
            "mpirun",
            "--oversubscribe",
            "-n",
            str(count),
            sys.executable,
            "-c",
            PROGRAM,
            str(tmp_path / str(count)),
        ]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr[-2000:]
    for name in ("turn", "part"):
        one, three = (np.load(tmp_path / f"{count}{name}.npz") for count in (1, 3))
        assert len(one["orientation"]) == 40
        for key in one.files:
            assert np.array_equal(one[key], three[key]), key
