"""Which files were decided: 16 bytes each, so that a million take 16 MB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]
LOOSE = 20_000  # those added last are in a set of their own until there are so many


class Known:
    """A set of digests of 16 bytes."""

    def __init__(self) -> None:
        self._high: Numbers = np.empty(0, np.uint64)  # sorted
        self._low: Numbers = np.empty(0, np.uint64)
        self._loose: set[bytes] = set()
        self._forgotten: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._high) + len(self._loose) - len(self._forgotten)

    def forget(self, place: bytes) -> None:
        """Of what is known; there are few of these."""
        self._loose.discard(place)
        if self.of([place])[0]:
            self._forgotten.add(place)

    def add(self, place: bytes) -> None:
        if place in self._forgotten:
            self._forgotten.discard(place)
            return
        self._loose.add(place)
        if len(self._loose) > max(LOOSE, len(self._high) // 8):
            high, low = _halves(sorted(self._loose))
            high, low = np.concatenate([self._high, high]), np.concatenate([self._low, low])
            order = np.argsort(high, kind="stable")
            self._high, self._low = high[order], low[order]
            self._loose = set()

    def of(self, places: Sequence[bytes]) -> list[bool]:
        """For each whether it is known.

        Two digests with the same first half may hide one another; the one that is not found is decided again, which
        changes nothing.
        """
        if not len(self._high) or not places:
            return [place in self._loose for place in places]
        high, low = _halves(places)
        at = np.minimum(np.searchsorted(self._high, high), len(self._high) - 1)
        found = ((self._high[at] == high) & (self._low[at] == low)).tolist()
        return [
            (there and place not in self._forgotten) or place in self._loose
            for there, place in zip(found, places, strict=True)
        ]


def _halves(places: Sequence[bytes]) -> tuple[Numbers, Numbers]:
    both = np.frombuffer(b"".join(places), np.dtype(np.uint64)).reshape(-1, 2)
    return both[:, 0].copy(), both[:, 1].copy()
