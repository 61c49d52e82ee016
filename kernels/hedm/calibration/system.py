"""Normal equations in which each grain is eliminated, and what they do not determine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]

PARTS = {"rotation": slice(0, 3), "position": slice(3, 6), "strain": slice(6, 12)}
# Of what spots say of a parameter, the share that must be left when the grains have taken theirs.
_TOLD = 1e-9


class System:
    """Normal equations: of each grain a block with its own unknowns first, then those of the instrument."""

    def __init__(self, grains: Whole, total: int, free: Whole, normal: Vector, right: Vector) -> None:
        self.grains, self.total, self.free = grains, total, free
        k = len(free)
        self.own, self.mixed, self.own_right = normal[:, :k, :k], normal[:, :k, k:], right[:, :k]
        self.shared, self.shared_right = normal[:, k:, k:].sum(axis=0), right[:, k:].sum(axis=0)
        # Parameters differ by many powers of ten: each is counted by how well it is told alone.
        self.scale = 1.0 / np.sqrt(np.maximum(np.einsum("nii->ni", self.own), 1e-300))
        self.shared_scale = 1.0 / np.sqrt(np.maximum(np.diag(self.shared), 1e-300))

    def _eliminated(self, damping: float) -> tuple[Vector, Vector, Vector, Vector]:
        own = self.own * self.scale[:, :, None] * self.scale[:, None, :]
        own = own + damping * np.eye(len(self.free))
        mixed = self.mixed * self.scale[:, :, None] * self.shared_scale
        right = self.own_right * self.scale
        solved = np.linalg.solve(own, np.concatenate([mixed, right[:, :, None]], axis=2))
        reduced = self.shared * self.shared_scale[:, None] * self.shared_scale
        reduced = reduced + damping * np.eye(len(reduced)) - np.einsum("nki,nkj->ij", mixed, solved[:, :, :-1])
        reduced_right = self.shared_right * self.shared_scale - np.einsum("nki,nk->i", mixed, solved[:, :, -1])
        return 0.5 * (reduced + reduced.T), reduced_right, solved, own

    def step(self, damping: float) -> tuple[Vector, Vector]:
        """The change of the instrument (m,) and of all grains (grains, 12)."""
        reduced, right, solved, _ = self._eliminated(damping)
        shared = np.linalg.solve(reduced, right)
        own = (solved[:, :, -1] - solved[:, :, :-1] @ shared) * self.scale
        each = np.zeros((self.total, 12))
        each[np.ix_(self.grains, self.free)] = own
        return shared * self.shared_scale, each

    def refuse_undetermined(self, refine: tuple[str, ...], free: Whole) -> None:
        """Raise where a direction of the instrument's parameters is not seen, or is undone by the grains."""
        silent = [name for name, value in zip(refine, np.diag(self.shared), strict=True) if value < 1e-20]
        if silent:
            raise KernelError(f"The spots say nothing of {_listed(silent)}: hold what no spot depends on.")
        scaled = self.own * self.scale[:, :, None] * self.scale[:, None, :]
        weak = np.linalg.eigvalsh(scaled).min(axis=1, initial=1.0) < 1e-13
        if weak.any():
            raise KernelError(
                f"The spots of grain {int(self.grains[weak][0])} do not determine its own parameters: leave it out "
                f"(min_spots), or hold position or strain. This holds for {int(weak.sum())} of {len(weak)} grains."
            )
        reduced, _, solved, own = self._eliminated(0.0)
        values, vectors = np.linalg.eigh(reduced)
        if values[0] > _TOLD:
            return
        direction = vectors[:, 0]
        named = [name for name, part in zip(refine, direction, strict=True) if abs(part) > 0.05]
        answer = solved[:, :, :-1] @ direction
        weights = np.einsum("nk,nkj,nj->n", answer, own, answer).sum()
        parts = [
            part
            for part, where in PARTS.items()
            if (mine := (free >= where.start) & (free < where.stop)).any()
            and (answer[:, mine] ** 2).sum() > 0.01 * (answer**2).sum()
            and weights > 1e-3
        ]
        beside = f"the grains' {_listed(parts)}" if parts else ""
        raise KernelError(
            f"The spots do not tell {_listed([*named, beside] if beside else named)} apart: a change of one is undone "
            "by the others. Hold one of them" + (", or give strain_sigma." if "strain" in parts else ".")
        )

    def covariance(self, scatter: float) -> tuple[Vector, Vector]:
        """Of the instrument (m, m), and standard deviations of the grains (grains, 12)."""
        reduced, _, solved, own = self._eliminated(0.0)
        shared = np.linalg.inv(reduced)
        variance = np.einsum("nii->ni", np.linalg.inv(own)) + np.einsum(
            "nki,ij,nkj->nk", solved[:, :, :-1], shared, solved[:, :, :-1]
        )
        sigmas = np.full((self.total, 12), np.nan)
        sigmas[np.ix_(self.grains, self.free)] = np.sqrt(scatter * variance) * self.scale
        return scatter * shared * self.shared_scale[:, None] * self.shared_scale, sigmas


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
