"""HEXRD's table of grains, `grains.out`, both ways.

HEXRD has X to the right, Y up along the rotation axis and Z against the beam, so that (x, y, z) here are (-Z, -X, Y),
and mm. Its crystals have our axes. Orientations are exponential maps, and strain is the inverse of the left stretch V
of `(I + strain) U = V R`, as 11, 22, 33, 23, 13, 12 with the last three times the square root of 2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.conventions.hexrd import FRAME
from kernels.hedm.conventions.told import bad, read_text
from kernels.hedm.crystals import Crystal
from kernels.hedm.grains import Grains, new_grains
from kernels.hedm.orientations import from_rotation_vectors, to_rotation_vectors
from kernels.hedm.strains import from_matrices, to_matrices

Floats = NDArray[np.float64]

_MANDEL = np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
_COLUMNS = 21
_SIX = ("0,0", "1,1", "2,2", "1,2", "0,2", "0,1")
_HEADER = [
    *("# grain ID", "completeness", "chi^2", *(f"exp_map_c[{n}]" for n in range(3))),
    *(f"t_vec_c[{n}]" for n in range(3)),
    *(f"inv(V_s)[{ij}]{'*sqrt(2)' if n > 2 else ''}" for n, ij in enumerate(_SIX)),
    *(f"ln(V_s)[{ij}]" for ij in _SIX),
]


def read_hexrd_grains(path: str | Path, crystal: Crystal) -> Grains:
    """The grains in `path`, of a crystal that the file does not tell.

    Raises
    ------
    KernelError
        Exit 66 when the file cannot be read; 65 when it is no such table.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    try:
        rows = [[float(word) for word in line.split()] for line in lines]
    except ValueError as error:
        raise bad(path, f"it is no grains.out of HEXRD: {error}.") from error
    if any(len(row) != _COLUMNS for row in rows):
        raise bad(path, f"it is no grains.out of HEXRD: that has {_COLUMNS} columns.")
    table = np.array(rows).reshape(-1, _COLUMNS)
    stretch = np.linalg.inv(to_matrices(table[:, 9:15] / _MANDEL))
    return new_grains(
        crystal,
        FRAME @ from_rotation_vectors(table[:, 3:6]),
        position_um=table[:, 6:9] @ FRAME.T * 1000,
        strain=from_matrices(FRAME @ (stretch - np.eye(3)) @ FRAME.T),
        number=table[:, 0].astype(np.int64),
        completeness=table[:, 1],
    )


def write_hexrd_grains(part: Path, grains: Grains) -> None:
    """Write grains to a staged `part`; chi² is 0, since HEXRD's is not known. Of which crystal they are is not told."""
    stretch = np.eye(3) + FRAME.T @ to_matrices(grains.strain) @ FRAME
    values, vectors = np.linalg.eigh(stretch)
    logarithm = (vectors * np.log(values)[:, None, :]) @ np.swapaxes(vectors, -1, -2)
    table = np.concatenate(
        [
            np.stack([grains.completeness, np.zeros(len(grains))], 1),
            to_rotation_vectors(FRAME.T @ grains.orientation),
            grains.position_um @ FRAME / 1000,
            from_matrices(np.linalg.inv(stretch)) * _MANDEL,
            from_matrices(logarithm),
        ],
        1,
    )
    lines = ["  ".join([*(f"{name:<12}" for name in _HEADER[:3]), *(f"{name:<23}" for name in _HEADER[3:])])]
    for number, row in zip(grains.number.tolist(), table.tolist(), strict=True):
        words = [f"{number:<12d}", f"{row[0]:<12f}", f"{row[1]:<12e}", *(f"{value:<23.16e}" for value in row[2:])]
        lines.append("  ".join(words))
    part.write_text("\n".join(lines) + "\n")
