"""MIDAS's table of grains, `Grains.csv`, both ways.

Columns are found by their names, since there are files with 19, 21, 44, 47 and more of them. Its frames are ours; its
crystals have x along a* and z along c. Lengths are in µm and Å, angles in degrees but for the Euler angles, which are
in radians, and strains in millionths. Its orientation belongs to the strained lattice: `O B(lattice) = (I + strain)^-T
U B0`, so that ours, which is the rotation of a polar decomposition, differs from it by as much as the strain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.conventions.told import bad, read_text
from kernels.hedm.crystals import Crystal, lattice_of
from kernels.hedm.grains import Grains, new_grains
from kernels.hedm.orientations import from_quaternions, to_bunge, to_quaternions
from kernels.hedm.strains import from_matrices, from_ubi, to_matrices, to_ubi

Floats = NDArray[np.float64]

_SQUARE = [f"{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3)]
_ORIENTATION = [f"O{ij}" for ij in _SQUARE]
_LATTICE = ["a", "b", "c", "alpha", "beta", "gamma"]
_FITTED, _OF_LATTICE = [f"eKen{ij}" for ij in _SQUARE], [f"eFab{ij}" for ij in _SQUARE]
_SIX = ["E11", "E22", "E33", "E23", "E13", "E12"]  # of older files, no millionths
_HEADER = [
    *(
        "GrainID",
        *_ORIENTATION,
        "X",
        "Y",
        "Z",
        *_LATTICE,
        "DiffPos",
        "DiffOme",
        "DiffAngle",
        "GrainRadius",
        "Confidence",
    ),
    *(*_OF_LATTICE, *_FITTED, "RMSErrorStrain", "PhaseNr", "Eul0", "Eul1", "Eul2"),
]


def read_midas_grains(path: str | Path, crystal: Crystal | None = None, *, rigid: bool = False) -> Grains:
    """The grains in `path`. The strain is that which MIDAS fits (`eKen`), or else that of the lattice of each grain.

    `crystal` is the unstrained one; not given, it is that of the file's heading.

    Orientations are taken to be those of the strained lattices, which is exact for what `write_midas_grains` writes and
    for programs that fit both together, as the FitPosOrStrains of MIDAS do. With `rigid` they are taken to be those of
    the unstrained lattice: midas-suite 0.12 fits them before the lattice and then holds them. No file says which it is;
    the wrong reading is off by as much as the strain, and by nothing where there is none.

    Raises
    ------
    KernelError
        Exit 66 when the file cannot be read; 65 when it is no table of grains, or has no crystal and none was given.
    """
    preamble, names, rows = _parsed(Path(path))
    unstrained = crystal or _crystal(path, preamble)
    have = {name: rows[:, n] for n, name in enumerate(names)}

    def block(wanted: list[str]) -> Floats | None:
        return np.stack([have[name] for name in wanted], 1) if all(name in have for name in wanted) else None

    def column(name: str, factor: float = 1.0) -> Floats:
        return have[name] * factor if name in have else np.full(len(rows), np.nan)

    theirs = block(_ORIENTATION)
    position = block(["X", "Y", "Z"])
    if theirs is None or position is None:
        raise bad(path, "it has no columns O11 to O33 and X, Y, Z; is it MIDAS's Grains.csv?")
    orientation, strain = _parted(unstrained, theirs.reshape(-1, 3, 3), block(_LATTICE), rigid=rigid)
    told = block(_FITTED) if block(_FITTED) is not None else block(_OF_LATTICE)
    older = block(_SIX)
    if told is not None:
        strain = from_matrices(told.reshape(-1, 3, 3) * 1e-6)
    elif older is not None:
        strain = older
    number = have.get("GrainID", have.get("ID", np.arange(1, len(rows) + 1)))
    return new_grains(
        unstrained,
        orientation,
        position_um=position,
        strain=strain,
        completeness=column("Confidence"),
        radius_um=column("GrainRadius"),
        residual_um=column("DiffPos"),
        residual_omega=column("DiffOme", np.pi / 180),
        residual_angle=column("DiffAngle", np.pi / 180),
        number=number.astype(np.int64),
    )


def write_midas_grains(part: Path, grains: Grains) -> None:
    """Write grains of one crystal in the 47 columns of MIDAS, to a staged `part`. What is not known is nan.

    Raises
    ------
    KernelError
        There are several crystals, of which the file can name one.
    """
    if len(grains.crystals) != 1:
        raise KernelError("Grains.csv has room for one crystal; write a file for each.")
    crystal = grains.crystals[0]
    ubi = to_ubi(crystal, grains.orientation, grains.strain)
    lattice = lattice_of(np.swapaxes(ubi, -1, -2))
    theirs = np.linalg.inv(ubi) @ np.linalg.inv(_their_b(lattice))
    strain = to_matrices(grains.strain).reshape(-1, 9) * 1e6
    degrees = 180 / np.pi
    blocks = [
        theirs.reshape(-1, 9),
        grains.position_um,
        lattice,
        np.stack([grains.residual_um, grains.residual_omega * degrees, grains.residual_angle * degrees], 1),
        np.stack([grains.radius_um, grains.completeness], 1),
        strain,
        strain,
        np.zeros((len(grains), 1)),
    ]
    lines = [
        f"%NumGrains {len(grains)}",
        "%BeamCenter 0.000000",
        "%BeamThickness 0.000000",
        "%GlobalPosition 0.000000",
        "%NumPhases 1",
        "%PhaseInfo",
        f"%\tSpaceGroup:{crystal.group.number}",
        "%\tLattice Parameter: " + " ".join(f"{value:.8f}" for value in crystal.lattice),
        "%" + "\t".join(_HEADER),
    ]
    euler = to_bunge(theirs)
    for number, row, angles in zip(
        grains.number.tolist(), np.concatenate(blocks, 1).tolist(), euler.tolist(), strict=True
    ):
        values = [f"{number}", *(f"{value:.9f}" for value in row), "1", *(f"{angle:.9f}" for angle in angles)]
        lines.append("\t".join(values))
    part.write_text("\n".join(lines) + "\n")


def _parsed(path: Path) -> tuple[list[str], list[str], Floats]:
    """The lines before the one that names the columns, those names, and the numbers (grains, columns)."""
    lines = read_text(path).splitlines()
    heading = next((n for n, line in enumerate(lines) if line.startswith("%") and "O11" in line.split()), None)
    if heading is None:
        raise bad(path, "it has no line that names the columns O11 to O33.")
    names = lines[heading].lstrip("%").split()
    rows = []
    for number, line in enumerate(lines[heading + 1 :], heading + 2):
        words = line.split()
        if not words or words[0].startswith("%"):
            continue
        try:
            rows.append([float(word) for word in words[: len(names)]])
        except ValueError as error:
            raise bad(path, f"line {number}: {error}.") from error
        if len(words) < len(names):
            raise bad(path, f"line {number}: {len(words)} values for {len(names)} columns; is it whole?")
    return lines[:heading], names, np.array(rows, np.float64).reshape(-1, len(names))


def _crystal(path: str | Path, preamble: list[str]) -> Crystal:
    told: dict[str, list[str]] = {}
    for line in preamble:
        name, _, rest = line.lstrip("%").strip().partition(":")
        told[name] = rest.split()
    try:
        group, lattice = int(told["SpaceGroup"][0]), [float(word) for word in told["Lattice Parameter"]]
    except (KeyError, IndexError, ValueError) as error:
        raise bad(path, "its heading does not tell the crystal; give it.") from error
    if not any(lattice):
        raise bad(path, "its heading has a lattice of 0; give the crystal.")
    return Crystal.of(lattice, group)


def _parted(crystal: Crystal, theirs: Floats, lattice: Floats | None, *, rigid: bool) -> tuple[Floats, Floats]:
    """Our orientations, and the strain of the grains' lattices; of no strain where these are not told."""
    unstrained = from_quaternions(to_quaternions(theirs)) @ crystal.busing_levy_rotation  # the file has them rounded
    if lattice is None or not lattice.any():
        return unstrained, np.zeros((len(theirs), 6))
    orientation, strain = from_ubi(crystal, np.asarray(np.linalg.inv(theirs @ _their_b(lattice)), np.float64))
    return unstrained if rigid else orientation, strain


def _their_b(lattice: Floats) -> Floats:
    """(n, 3, 3): the matrix B of lattices (n, 6), with x along a* and z along c (Busing and Levy)."""
    alpha, beta, gamma = np.radians(lattice[:, 3:]).T
    a, b, c = lattice[:, :3].T
    reciprocal = (np.cos(alpha) * np.cos(beta) - np.cos(gamma)) / (np.sin(alpha) * np.sin(beta))  # cos gamma*
    sine = np.sqrt(1 - reciprocal**2)
    zero = np.zeros_like(a)
    axes = [  # the lattice vectors, as columns
        [a * np.sin(beta) * sine, zero, zero],
        [-a * np.sin(beta) * reciprocal, b * np.sin(alpha), zero],
        [a * np.cos(beta), b * np.cos(alpha), c],
    ]
    metric = np.stack([np.stack(row, -1) for row in axes], -2)
    return np.asarray(np.swapaxes(np.linalg.inv(metric), -1, -2))
