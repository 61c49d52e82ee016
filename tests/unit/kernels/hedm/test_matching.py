"""Two tables of grains: which are the same, and how far apart."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.errors import KernelError
from kernels.hedm.crystals import Crystal
from kernels.hedm.grains import Grains, new_grains
from kernels.hedm.matching import match_grains
from kernels.hedm.orientations import from_rotation_vectors, random_orientations

GOLD = Crystal(4.0782, 4.0782, 4.0782, 90, 90, 90, 225)
RUBY = Crystal(4.7608, 4.7608, 12.99568, 90, 90, 120, 167)
N = 60


def true(seed: int = 1) -> Grains:
    random = np.random.default_rng(seed)
    return new_grains(
        (GOLD, RUBY),
        random_orientations(N, random),
        position_um=random.uniform(-500, 500, (N, 3)),
        strain=random.normal(0, 1e-3, (N, 6)),
        crystal=np.arange(N) % 2,
    )


def moved(grains: Grains, seed: int = 2) -> tuple[Grains, np.ndarray]:  # type: ignore[type-arg]
    """The same grains a little off, as other equivalents and in another order; and where each came from."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(grains))
    some = grains.take(order)
    turned = from_rotation_vectors(np.array([0, 1e-3, 0])) @ some.orientation
    for n, crystal in enumerate(grains.crystals):
        mine = some.crystal == n
        turned[mine] = turned[mine] @ crystal.rotations[random.integers(len(crystal.rotations), size=mine.sum())]
    shift = np.array([3.0, 0, 4.0])
    columns = {"position_um": some.position_um + shift, "strain": some.strain + 1e-4, "crystal": some.crystal}
    return new_grains(grains.crystals, turned, **columns), order


@pytest.mark.parametrize("distance", [50.0, None])
def test_grains_are_found_again(distance: float | None) -> None:
    found, order = moved(true())
    match = match_grains(found, true(), max_distance_um=distance)
    np.testing.assert_array_equal(match.found, np.arange(N))
    np.testing.assert_array_equal(match.true, order)
    np.testing.assert_allclose(match.orientation, 1e-3, rtol=1e-6)
    np.testing.assert_allclose(match.position_um, np.broadcast_to([3.0, 0, 4.0], (N, 3)), atol=1e-9)
    np.testing.assert_allclose(match.strain, 1e-4, rtol=1e-6)
    summary = match.summary()
    assert (summary["true"], summary["found"], summary["missed"], summary["false"]) == (N, N, 0, 0)
    assert summary["orientation_deg"] == pytest.approx(np.degrees(1e-3))
    assert summary["position_um"] == summary["position_um_p95"] == pytest.approx(5)
    assert summary["strain_rms"] == pytest.approx(1e-4)


def test_missed_and_false() -> None:
    found, order = moved(true())
    far = found.position_um.copy()
    far[:4] += 200
    found = new_grains(found.crystals, found.orientation, position_um=far, crystal=found.crystal)
    match = match_grains(found, true().take(np.arange(N) != order[10]))
    assert match.false.tolist() == [0, 1, 2, 3, 10]
    assert len(match.missed) == 4
    assert match.summary()["found"] == N - 5


def test_the_same_table() -> None:
    match = match_grains(true(), true())
    np.testing.assert_array_equal(match.found, match.true)
    assert match.orientation.max() < 1e-12
    assert match.distance_um.max() == 0


def test_a_grain_is_paired_once_and_none_is_lost_to_a_greedy_choice() -> None:
    """Two grains found where the nearest to both is one true grain, and the other is in reach of the first alone."""
    true_at, found_at = [[0.0, 0, 0], [40.0, 0, 0]], [[5.0, 0, 0], [-30.0, 0, 0], [1000.0, 0, 0]]
    cubes = np.stack([np.eye(3)] * 3)
    match = match_grains(
        new_grains(GOLD, cubes, position_um=np.array(found_at)),
        new_grains(GOLD, cubes[:2], position_um=np.array(true_at)),
    )
    assert match.found.tolist() == [0, 1]
    assert match.true.tolist() == [1, 0]
    assert match.false.tolist() == [2]


def test_crystals_are_not_mixed_up() -> None:
    cubes, other = np.stack([np.eye(3)] * 2), Crystal(4.0782, 4.0782, 4.0782, 90, 90, 90, 229)
    one = new_grains((GOLD, other), cubes, crystal=np.array([0, 1]))
    two = new_grains((GOLD, other), cubes, crystal=np.array([1, 1]))
    match = match_grains(one, two)
    assert (match.found.tolist(), match.false.tolist()) == ([1], [0])


def test_tables_without_grains() -> None:
    none = true().take(np.zeros(N, bool))
    assert match_grains(none, true()).summary()["missed"] == N
    assert match_grains(true(), none).summary()["false"] == N
    assert np.isnan(match_grains(none, none).summary()["orientation_deg"])


def test_other_crystals_are_refused() -> None:
    with pytest.raises(KernelError, match="their symmetry differs"):
        match_grains(new_grains(GOLD, np.eye(3)[None]), new_grains(RUBY, np.eye(3)[None]))
