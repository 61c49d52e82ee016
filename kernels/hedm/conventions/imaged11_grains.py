"""ImageD11's files of grains (`.map`, `.ubi`), both ways: three lines of UBI a grain, with `#translation:`, `#name` and
`#npks` before them.

Its frames and units are ours. UBI holds orientation and strain together; which crystal it is the file does not tell. A
left-handed UBI, which indexing may leave, is the mirror image that diffraction cannot tell apart: it is taken negated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kernels.errors import KernelError
from kernels.hedm.conventions.told import bad, read_text
from kernels.hedm.crystals import Crystal
from kernels.hedm.grains import Grains, new_grains
from kernels.hedm.strains import from_ubi, to_ubi


def read_imaged11_grains(path: str | Path, crystal: Crystal) -> Grains:
    """The grains in `path`, strained against `crystal`; the number is the first in each name, or the place in the file.

    Raises
    ------
    KernelError
        Exit 66 when the file cannot be read; 65 when it is no such file.
    """
    rows: list[list[float]] = []
    positions, spots, numbers = [], [], []
    told: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            if line.startswith("#"):
                name, _, value = line[1:].partition(" ")
                told[name] = value
            elif line.strip():
                rows.append([float(word) for word in line.split()])
                if len(rows) % 3 == 0:
                    positions.append([float(word) for word in told.get("translation:", "0 0 0").split()])
                    spots.append(int(told.get("npks", "0")))
                    first = told.get("name", "").partition(":")[0].strip()
                    numbers.append(int(first) if first.isdecimal() else len(rows) // 3)
                    told = {}
        except ValueError as error:
            raise bad(path, f"line {number}: {error}.") from error
    if len(rows) % 3 or any(len(row) != 3 for row in rows + positions):
        raise bad(path, "it is no file of grains: it has not three lines of three each.")
    ubi = np.array(rows, np.float64).reshape(-1, 3, 3)
    handed = np.linalg.det(ubi)
    if not handed.all():
        raise bad(path, "it has a UBI without a volume.")
    orientation, strain = from_ubi(crystal, ubi * np.sign(handed)[:, None, None])
    return new_grains(
        crystal,
        orientation,
        position_um=np.array(positions, np.float64).reshape(-1, 3),
        strain=strain,
        number=np.array(numbers, np.int64),
        spots=np.array(spots, np.int64),
    )


def write_imaged11_grains(part: Path, grains: Grains) -> None:
    """Write grains of one crystal to a staged `part`.

    Raises
    ------
    KernelError
        There are several crystals, whose grains the file cannot tell apart.
    """
    if len(grains.crystals) != 1:
        raise KernelError("A file of ImageD11 has room for one crystal; write a file for each.")
    lines = []
    for n, ubi in enumerate(to_ubi(grains.crystals[0], grains.orientation, grains.strain).tolist()):
        lines.append("#translation: " + " ".join(f"{value:.9g}" for value in grains.position_um[n].tolist()))
        lines += [f"#name {grains.number[n]}", f"#npks {grains.spots[n]}", "#UBI:"]
        lines += [" ".join(f"{value:.12g}" for value in row) for row in ubi]
        lines.append("")
    part.write_text("\n".join(lines) + "\n")
