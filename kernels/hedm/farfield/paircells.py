"""Friedel pairs sorted by the direction of their line, and what is asked of them: which belong to a grain?

A hemisphere is laid out flat as an octahedron, in square cells; a line near its rim is there twice, from both ends.
A pair belongs to a grain where the directions agree, the lengths agree within the strain, and the position of the
grain, seen along the pair's ray, is where the pair says.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.friedel import Pairs
from kernels.hedm.farfield.refinement import factor, substitute

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

LINE, RAY, OFFSET, LENGTH = 0, 3, 6, 9  # places in a row of `PairCells.pair`
_STEEPEST = math.sqrt(5.0)  # of the flat octahedron's coordinates by the direction
_RIM = 0.03
_MOST = 256


class PairCells(NamedTuple):
    """Pairs in cells of direction.

    Attributes
    ----------
    start : (shells · size² + 1,)
    item : (m + those near the rim,) which pair
    pair : (m, 10) unit vector of the line, ray, offset in µm, length in 1/Å
    size : cells along an edge
    """

    start: Ints
    item: Ints
    pair: Floats
    size: int


def sort_pairs(pairs: Pairs, shells: int) -> tuple[Pairs, PairCells]:
    """The pairs in the order of their cells, and the cells."""
    length = np.linalg.norm(pairs.g, axis=1)
    size = int(np.clip(math.sqrt(len(pairs) / max(shells, 1)), 8, _MOST))
    line = pairs.g / length[:, None]
    line *= np.where(line[:, 2] < 0.0, -1.0, 1.0)[:, None]
    order = np.argsort(_cell(line, pairs.shell, size), kind="stable")
    pairs, line, length = pairs.take(order), line[order], length[order]
    rim = np.flatnonzero(line[:, 2] < _RIM)
    item = np.concatenate([np.arange(len(line)), rim])
    key = np.concatenate([_cell(line, pairs.shell, size), _cell(-line[rim], pairs.shell[rim], size)])
    start = np.zeros(max(shells, 1) * size * size + 1, np.int32)
    np.cumsum(np.bincount(key, minlength=len(start) - 1), out=start[1:])
    item = item[np.argsort(key, kind="stable")].astype(np.int32)
    unit = pairs.g / length[:, None]
    return pairs, PairCells(start, item, np.column_stack([unit, pairs.ray, pairs.offset_um, length]), size)


def _cell(line: Floats, shell: Ints, size: int) -> NDArray[np.int64]:
    total = np.abs(line[:, 0]) + np.abs(line[:, 1]) + line[:, 2]
    a, b = (line[:, 0] + line[:, 1]) / total, (line[:, 0] - line[:, 1]) / total
    row, column = (np.clip(((each + 1.0) * (0.5 * size)).astype(np.int64), 0, size - 1) for each in (a, b))
    return (shell.astype(np.int64) * size + row) * size + column


@compiled()
def matches(
    cells: PairCells,
    used: NDArray[np.uint8],
    matrix: Floats,
    position: Floats,
    g0: Floats,
    shell: NDArray[np.int64],
    angle: float,
    strain: float,
    gate_um: float,
    found: Ints,
) -> int:
    """How many unused pairs belong to a grain; at most two of each line, since a line diffracts twice in half a turn.

    Parameters
    ----------
    matrix : (3, 3) takes `g0` to the sample
    position : (3,) µm
    g0, shell : (lines, 3) and (lines,) one reflection of each line
    angle, strain, gate_um : how far directions, relative lengths, and positions across the ray may lie
    found : (2 · lines,) which pairs; -1 none
    """
    size, pair = cells.size, cells.pair
    scale = 0.5 * size
    reach = _STEEPEST * angle
    least_cosine = 1.0 - 0.5 * angle * angle
    total = 0
    inverse_angle, inverse_gate = 2.0 / (angle * angle), 1.0 / (gate_um * gate_um)
    for k in range(g0.shape[0]):
        gx = matrix[0, 0] * g0[k, 0] + matrix[0, 1] * g0[k, 1] + matrix[0, 2] * g0[k, 2]
        gy = matrix[1, 0] * g0[k, 0] + matrix[1, 1] * g0[k, 1] + matrix[1, 2] * g0[k, 2]
        gz = matrix[2, 0] * g0[k, 0] + matrix[2, 1] * g0[k, 1] + matrix[2, 2] * g0[k, 2]
        length = math.sqrt(gx * gx + gy * gy + gz * gz)
        inverse = 1.0 / length if gz >= 0.0 else -1.0 / length
        x, y, z = gx * inverse, gy * inverse, gz * inverse
        whole = 1.0 / (abs(x) + abs(y) + z)
        a, b = ((x + y) * whole + 1.0) * scale, ((x - y) * whole + 1.0) * scale
        low, high = max(int(a - reach * scale), 0), min(int(a + reach * scale), size - 1)
        begin, end = max(int(b - reach * scale), 0), min(int(b + reach * scale), size - 1)
        low, begin = min(low, size - 1), min(begin, size - 1)
        best, second = 1e30, 1e30
        found[2 * k] = found[2 * k + 1] = -1
        for row in range(low, high + 1):
            base = (shell[k] * size + row) * size
            for n in range(cells.start[base + begin], cells.start[base + end + 1]):
                i = cells.item[n]
                cosine = abs(pair[i, 0] * x + pair[i, 1] * y + pair[i, 2] * z)
                if cosine < least_cosine or used[i] or abs(pair[i, LENGTH] - length) > strain * length:
                    continue
                along = pair[i, 3] * position[0] + pair[i, 4] * position[1] + pair[i, 5] * position[2]
                ex = position[0] - along * pair[i, 3] - pair[i, 6]
                ey = position[1] - along * pair[i, 4] - pair[i, 7]
                ez = position[2] - along * pair[i, 5] - pair[i, 8]
                off = (ex * ex + ey * ey + ez * ez) * inverse_gate
                if off > 1.0:
                    continue
                off += (1.0 - cosine) * inverse_angle
                if off < best:
                    second, found[2 * k + 1] = best, found[2 * k]
                    best, found[2 * k] = off, i
                elif off < second and i != found[2 * k]:
                    second, found[2 * k + 1] = off, i
        total += int(found[2 * k] >= 0) + int(found[2 * k + 1] >= 0)
    return total


@compiled()
def fit(
    cells: PairCells, found: Ints, g0: Floats, stiffness: float, matrix: Floats, position: Floats, scratch: Floats
) -> bool:
    """The matrix and position that fit the pairs `found` best; False where they do not tell.

    The matrix is the nearest rotation, and then what else the directions and lengths ask for, held back by
    `stiffness`, the squared noise of a reciprocal vector over that of the strain.

    Parameters
    ----------
    scratch : (6, 3, 3)
        Space to work in.
    """
    sums, hh, across, lower, turn = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    right = scratch[5, 0]
    sums[:, :] = 0.0
    hh[:, :] = 0.0
    across[:, :] = 0.0
    right[:] = 0.0
    for n in range(found.size):
        i = found[n]
        if i < 0:
            continue
        k = n // 2
        square = g0[k, 0] * g0[k, 0] + g0[k, 1] * g0[k, 1] + g0[k, 2] * g0[k, 2]
        inverse = 1.0 / math.sqrt(square)
        dot = 0.0
        for a in range(3):
            for b in range(3):
                dot += cells.pair[i, a] * matrix[a, b] * g0[k, b]
        length = cells.pair[i, LENGTH] * inverse if dot >= 0.0 else -cells.pair[i, LENGTH] * inverse
        for a in range(3):
            for b in range(3):
                sums[a, b] += length * cells.pair[i, a] * g0[k, b] * inverse
                hh[a, b] += g0[k, a] * g0[k, b] * inverse * inverse
                across[a, b] -= cells.pair[i, RAY + a] * cells.pair[i, RAY + b]
            across[a, a] += 1.0
            right[a] += cells.pair[i, OFFSET + a]
    if not factor(across, 3):
        return False
    substitute(across, 3, right, position)
    if not nearest_rotation(sums, turn):
        return False
    for a in range(3):
        hh[a, a] += stiffness
        for b in range(3):
            sums[a, b] += stiffness * turn[a, b]
    for a in range(3):
        for b in range(3):
            lower[a, b] = hh[a, b]
    if not factor(lower, 3):
        return False
    for a in range(3):
        substitute(lower, 3, sums[a], matrix[a])
    return True


@compiled()
def nearest_rotation(matrix: Floats, out: Floats) -> bool:
    """The rotation nearest to a matrix (Newton's iteration of the polar decomposition); False where it has none."""
    size = 0.0
    for a in range(3):
        for b in range(3):
            size += matrix[a, b] * matrix[a, b]
    if size <= 0.0:
        return False
    scale = math.sqrt(3.0 / size)
    for a in range(3):
        for b in range(3):
            out[a, b] = matrix[a, b] * scale
    for _ in range(40):
        c00 = out[1, 1] * out[2, 2] - out[1, 2] * out[2, 1]
        c01 = out[1, 2] * out[2, 0] - out[1, 0] * out[2, 2]
        c02 = out[1, 0] * out[2, 1] - out[1, 1] * out[2, 0]
        determinant = out[0, 0] * c00 + out[0, 1] * c01 + out[0, 2] * c02
        if determinant < 1e-9:
            return False
        c10 = out[0, 2] * out[2, 1] - out[0, 1] * out[2, 2]
        c11 = out[0, 0] * out[2, 2] - out[0, 2] * out[2, 0]
        c12 = out[0, 1] * out[2, 0] - out[0, 0] * out[2, 1]
        c20 = out[0, 1] * out[1, 2] - out[0, 2] * out[1, 1]
        c21 = out[0, 2] * out[1, 0] - out[0, 0] * out[1, 2]
        c22 = out[0, 0] * out[1, 1] - out[0, 1] * out[1, 0]
        inverse = 0.5 / determinant
        change = 0.0
        for a in range(3):
            for b in range(3):
                if a == 0:
                    cofactor = c00 if b == 0 else (c01 if b == 1 else c02)
                elif a == 1:
                    cofactor = c10 if b == 0 else (c11 if b == 1 else c12)
                else:
                    cofactor = c20 if b == 0 else (c21 if b == 1 else c22)
                new = 0.5 * out[a, b] + inverse * cofactor
                change = max(change, abs(new - out[a, b]))
                out[a, b] = new
        if change < 1e-12:
            return True
    return True


def polar(matrix: Floats) -> tuple[Floats, Floats]:
    """Rotations (n, 3, 3) and small strains (n, 6) of matrices (n, 3, 3) that take g0 to strained g: (1 + eps)^-1 U."""
    left, stretch, right = np.linalg.svd(matrix)
    rotation = left @ right
    tensor = (left / stretch[:, None, :]) @ left.transpose(0, 2, 1) - np.eye(3)
    return rotation, tensor[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
