"""Pictures as detectors store them against pictures as the experiment sees them: flips and transpositions.

The codes are those of MIDAS (`ImTransOpt`): 1 exchanges left and right, 2 up and down, 3 rows and columns; several are
done one after the other. Frames are never turned: dark and masks are kept as stored, and spots are turned at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError

_LEFT_RIGHT, _UP_DOWN, _TRANSPOSE = 1, 2, 3
_Matrix = NDArray[np.float64]


class Turn(NamedTuple):
    """Operations by MIDAS's codes, in their order. `Turn()` leaves pictures as they are."""

    codes: tuple[int, ...] = ()

    def picture(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A picture (rows, columns) as the experiment sees it, of one as it is stored."""
        for code in self.codes:
            stored = stored[:, ::-1] if code == _LEFT_RIGHT else stored[::-1] if code == _UP_DOWN else stored.T
        return stored

    def stored(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The other way round."""
        return Turn(self.codes[::-1]).picture(picture)

    def map(self, rows: int, columns: int) -> tuple[_Matrix, _Matrix]:
        """`matrix` (2, 2) and `shift` (2,): (row, column) of the picture are `matrix @ stored + shift`.

        `rows` and `columns` are those of the stored picture.
        """
        matrix, shift = np.eye(2), np.zeros(2)
        for code in self.codes:
            if code == _TRANSPOSE:
                matrix, shift = matrix[::-1], shift[::-1]
                rows, columns = columns, rows
                continue
            axis, length = (1, columns) if code == _LEFT_RIGHT else (0, rows)
            matrix, shift = matrix.copy(), shift.copy()
            matrix[axis] *= -1
            shift[axis] = length - 1 - shift[axis]
        return matrix, shift


def turned(codes: Sequence[int]) -> Turn:
    """The turn of these codes; 0 does nothing.

    Raises
    ------
    KernelError
        Exit 2 for a code that is not known.
    """
    for code in codes:
        if code not in (0, _LEFT_RIGHT, _UP_DOWN, _TRANSPOSE):
            raise KernelError(
                f"A turn is 0 (none), 1 (left and right), 2 (up and down) or 3 (rows and columns), not {code}."
            )
    return Turn(tuple(code for code in codes if code))
