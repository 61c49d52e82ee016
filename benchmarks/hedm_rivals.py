"""What `hedm_ff.py` runs in the environment of a rival: python hedm_rivals.py NAME FOLDER

FOLDER holds the spots as `spots.npz`; what comes out is `NAME.npz` there: orientations, and the CPU and wall seconds.
"""

import contextlib
import io
import sys
import time
from pathlib import Path

import numpy as np


def imaged11(spots):
    """Orientations from reciprocal vectors that do not know where the grains lie, by pairs of {200} spots.

    As its `do_index` goes about it: first 0.9, then 0.7 of the 116 spots of a grain, each with a tolerance of the
    indices of 0.01, then 0.025.
    """
    from ImageD11 import indexing, transform, unitcell
    from ImageD11.grain import grain

    indexing.loglevel = 3
    begun, on_wall = time.process_time(), time.perf_counter()
    points = np.array([np.full(len(spots["y"]), float(spots["distance"])), spots["y"], spots["z"]])
    tth, eta = transform.compute_tth_eta_from_xyz(points, np.degrees(spots["omega"]))
    g = transform.compute_g_vectors(tth, eta, np.degrees(spots["omega"]), float(spots["wavelength"]))
    a = float(spots["a"])
    found = indexing.indexer(
        unitcell=unitcell.unitcell([a, a, a, 90, 90, 90], "F"),
        gv=np.ascontiguousarray(g.T),
        wavelength=float(spots["wavelength"]),
        cosine_tol=np.cos(np.radians(90 - 0.25)),
        ring_1=1,
        ring_2=1,
        ds_tol=0.006,
        uniqueness=0.5,
        max_grains=2 * int(spots["grains"]),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        found.assigntorings()
        for share in (0.9, 0.7):
            for found.hkl_tol in (0.01, 0.025):
                found.minpks = 116 * share
                found.find()
                if len(found.hits):
                    found.scorethem()
    cpu, wall = time.process_time() - begun, time.perf_counter() - on_wall
    orientation = np.array([grain(ubi).U for ubi in found.ubis]).reshape(-1, 3, 3)
    return {"orientation": orientation, "cpu": cpu, "wall": wall}


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    spots = dict(np.load(folder / "spots.npz"))
    work = {"imaged11": imaged11}[name]
    np.savez(folder / f"{name}.npz", **work(spots))
