"""Compare two tables of grains: which are the same, which are missing or false, and how far the same are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from kernels.errors import KernelError
from kernels.hedm.crystals import Crystal
from kernels.hedm.grains import Grains
from kernels.hedm.orientations import misorientation_table, misorientations

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROWS = 2_000_000  # pairs of orientations looked at together


@dataclass(frozen=True, eq=False)
class Match:
    """Pairs (p) of grains that are the same, and the rest.

    Attributes
    ----------
    found, true : (p,) rows of the grains in the table that was found and in the one it is compared with
    missed : rows of the true grains that were not found
    false : rows of the found grains that are none of the true
    orientation : (p,) angles between the pairs under symmetry, radians
    position_um : (p, 3) found less true
    strain : (p, 6) found less true
    """

    found: Ints
    true: Ints
    missed: Ints
    false: Ints
    orientation: Floats
    position_um: Floats
    strain: Floats

    @property
    def distance_um(self) -> Floats:
        """(p,): distances between the pairs."""
        return np.asarray(np.linalg.norm(self.position_um, axis=1))

    def summary(self) -> dict[str, float]:
        """The counts, and medians and 95 of a hundred (`_p95`) of the errors; NaN where there are no pairs.

        Strain is the root of the mean square of single components.
        """
        angles, distances = np.degrees(self.orientation), self.distance_um
        squares = (self.strain**2).mean() if self.strain.size else math.nan
        return {
            "true": len(self.true) + len(self.missed),
            "found": len(self.found),
            "missed": len(self.missed),
            "false": len(self.false),
            "orientation_deg": _quantile(angles, 0.5),
            "orientation_deg_p95": _quantile(angles, 0.95),
            "position_um": _quantile(distances, 0.5),
            "position_um_p95": _quantile(distances, 0.95),
            "strain_rms": math.sqrt(squares),
        }


def match_grains(
    found: Grains, true: Grains, *, max_angle: float = math.radians(0.5), max_distance_um: float | None = 50.0
) -> Match:
    """Pair each found grain with at most one of `true`, both of the same crystal, no more than `max_angle` (radians)
    and `max_distance_um` apart (None: wherever they lie).

    Of all ways to pair them it is the one with the most pairs, and of those the one with the least sum of squares of
    angle and distance in units of the limits.

    Raises
    ------
    KernelError
        The crystals of the tables differ.
    """
    if len(found.crystals) != len(true.crystals) or not all(map(_same, found.crystals, true.crystals)):
        raise KernelError("Grains of other crystals cannot be compared: their symmetry differs.")
    pairs = [np.zeros((3, 0))]
    for n, crystal in enumerate(found.crystals):
        pairs.append(_near(found, true, n, crystal.rotations, max_angle, max_distance_um))
    first, second, cost = np.concatenate(pairs, 1)
    rows, columns = _assigned(first.astype(np.int64), second.astype(np.int64), cost, len(found), len(true))
    angles = np.zeros(len(rows))
    for n, crystal in enumerate(found.crystals):
        mine = found.crystal[rows] == n
        if mine.any():
            one, other = found.orientation[rows[mine]], true.orientation[columns[mine]]
            angles[mine] = misorientations(one, other, crystal.rotations)
    return Match(
        rows,
        columns,
        np.setdiff1d(np.arange(len(true)), columns),
        np.setdiff1d(np.arange(len(found)), rows),
        angles,
        found.position_um[rows] - true.position_um[columns],
        found.strain[rows] - true.strain[columns],
    )


def _near(
    found: Grains, true: Grains, which: int, rotations: Floats, max_angle: float, max_distance_um: float | None
) -> Floats:
    """(3, pairs): rows in both tables, and cost, of the pairs within the limits."""
    mine, theirs = np.flatnonzero(found.crystal == which), np.flatnonzero(true.crystal == which)
    if not (len(mine) and len(theirs)):
        return np.zeros((3, 0))
    if max_distance_um is None:
        parts = []
        rows = max(1, _ROWS // len(theirs))
        for start in range(0, len(mine), rows):
            some = mine[start : start + rows]
            table = misorientation_table(found.orientation[some], true.orientation[theirs], rotations)
            one, other = np.nonzero(table <= max_angle)
            parts.append(np.stack([some[one], theirs[other], (table[one, other] / max_angle) ** 2]))
        return np.concatenate(parts, 1)
    here, there = cKDTree(found.position_um[mine]), cKDTree(true.position_um[theirs])
    close = here.sparse_distance_matrix(there, max_distance_um, output_type="ndarray")
    one, other = mine[close["i"]], theirs[close["j"]]
    angles = misorientations(found.orientation[one], true.orientation[other], rotations) if len(one) else np.zeros(0)
    alike = angles <= max_angle
    distance = np.linalg.norm(found.position_um[one] - true.position_um[other], axis=1)
    cost = (angles / max_angle) ** 2 + (distance / max_distance_um) ** 2
    return np.stack([one, other, cost])[:, alike]


def _assigned(first: Ints, second: Ints, cost: Floats, n: int, m: int) -> tuple[Ints, Ints]:
    """The pairs chosen of those that may be, sorted by `first`. What shares no grain is decided apart."""
    graph = coo_array((np.ones(len(first)), (first, n + second)), (n + m, n + m))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[first], kind="stable")
    starts = np.flatnonzero(np.diff(group[first][order], prepend=-1))
    chosen = []
    for part in np.split(order, starts[1:]) if len(order) else []:
        rows, row = np.unique(first[part], return_inverse=True)
        columns, column = np.unique(second[part], return_inverse=True)
        none = 1.0 + 3.0 * len(part)  # dearer than all pairs together
        table = np.full((len(rows), len(columns)), none)
        table[row, column] = cost[part]
        i, j = linear_sum_assignment(table)
        real = table[i, j] < none
        chosen.append(np.stack([rows[i[real]], columns[j[real]]]))
    pairs = np.concatenate(chosen, 1) if chosen else np.zeros((2, 0), np.int64)
    return pairs[0][pairs[0].argsort()], pairs[1][pairs[0].argsort()]


def _same(one: Crystal, other: Crystal) -> bool:
    """Whether orientations of both have the same equivalents."""
    shapes = one.rotations.shape == other.rotations.shape
    return shapes and bool(np.allclose(one.rotations, other.rotations, atol=1e-6))


def _quantile(values: Floats, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else math.nan
