"""Rings and their reflections, against gemmi's list, xfab's, powder tables and hand-known spacings."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest
from elsewhere import xfab_tools

from kernels.errors import KernelError
from kernels.hedm.crystals import Atom, Crystal
from kernels.hedm.reflections import list_reflections

GOLD = Crystal(4.0782, 4.0782, 4.0782, 90, 90, 90, 225)
RUBY = Crystal(4.7608, 4.7608, 12.99568, 90, 90, 120, 167, (Atom("Al", 0, 0, 0.35219), Atom("O", 0.30624, 0, 0.25)))
PLAIN_RUBY = Crystal(4.7608, 4.7608, 12.99568, 90, 90, 120, 167)
SILICON = Crystal(5.43102, 5.43102, 5.43102, 90, 90, 90, "F d -3 m:1", (Atom("Si", 0, 0, 0, 1, 0.006),))


def test_rings_of_gold() -> None:
    found = list_reflections(GOLD, 0.22291, rings=8)
    assert found.labels == ("{111}", "{200}", "{220}", "{311}", "{222}", "{400}", "{331}", "{420}")
    assert found.multiplicity.tolist() == [8, 6, 12, 24, 8, 6, 24, 24]
    np.testing.assert_allclose(found.d_A, 4.0782 / np.sqrt([3, 4, 8, 11, 12, 16, 19, 20]), rtol=1e-12)
    np.testing.assert_allclose(found.two_theta, 2 * np.arcsin(0.22291 / (2 * found.d_A)), rtol=1e-12)
    assert np.bincount(found.ring).tolist() == found.multiplicity.tolist()
    np.testing.assert_allclose(found.g0, found.hkl / 4.0782, atol=1e-15)
    np.testing.assert_allclose(found.length * found.d_A[found.ring], 1, rtol=1e-12)
    np.testing.assert_allclose(found.intensity, found.multiplicity / 24)
    assert len(found) == 112


def test_both_of_each_friedel_pair_are_there() -> None:
    found = list_reflections(PLAIN_RUBY, 0.3, rings=12)
    listed = {tuple(one) for one in found.hkl.tolist()}
    assert len(listed) == len(found)
    assert listed == {tuple(-index for index in one) for one in listed}


@pytest.mark.parametrize(
    ("lattice", "group"),
    [
        ((4.7608, 4.7608, 12.99568, 90, 90, 120), "R -3 c:H"),
        ((5.1282, 5.1282, 5.1282, 55.28, 55.28, 55.28), "R -3 c:R"),
        ((5.431, 5.431, 5.431, 90, 90, 90), "F d -3 m:2"),
        ((2.9505, 2.9505, 4.6826, 90, 90, 120), "P 63/m m c"),
        ((4.5937, 4.5937, 2.9587, 90, 90, 90), "P 42/m n m"),
        ((5.15, 5.21, 5.31, 90, 99.2, 90), "P 1 21/c 1"),
        ((5.15, 5.21, 5.31, 90, 90, 99.2), "P 1 1 21/b"),
        ((6.3, 7.2, 8.1, 85, 95, 101), "P -1"),
        ((8.3, 8.3, 8.3, 90, 90, 90), "I a -3"),
    ],
)
def test_all_that_is_not_extinct_is_listed(lattice: tuple[float, ...], group: str) -> None:
    """gemmi lists one of each family; with all equivalents of those the list must be ours."""
    crystal = Crystal.of(lattice, group)
    wavelength, limit = 0.3, np.radians(20)
    found = list_reflections(crystal, wavelength, max_two_theta=limit)
    spacing = wavelength / (2 * np.sin(limit / 2))
    cell, space = gemmi.UnitCell(*lattice), gemmi.find_spacegroup_by_name(group)
    operations = space.operations().sym_ops
    expected = set()
    for one in gemmi.make_miller_array(cell, space, spacing, 0, True).tolist():
        for operation in operations:
            turned = operation.apply_to_hkl(one)
            expected |= {tuple(turned), tuple(-index for index in turned)}
    assert {tuple(one) for one in found.hkl.tolist()} == expected - {(0, 0, 0)}
    assert found.two_theta.max() <= limit
    np.testing.assert_allclose(found.length, [1 / cell.calculate_d(one) for one in found.hkl.tolist()], rtol=1e-9)


@pytest.mark.parametrize(("crystal", "number"), [(PLAIN_RUBY, 167), (GOLD, 225)])
def test_rings_are_those_of_xfab(crystal: Crystal, number: int) -> None:
    found = list_reflections(crystal, 0.3, max_two_theta=np.radians(15))
    most = np.sin(np.radians(7.5)) / 0.3
    theirs = xfab_tools().genhkl_all(list(crystal.lattice), 0, most, sgno=number)
    assert {tuple(one) for one in theirs.astype(int).tolist()} == {tuple(one) for one in found.hkl.tolist()}


def test_corundum_as_powder_tables_have_it() -> None:
    """The strong lines at Cu K alpha, with their angles (ICDD 46-1212, a 4.7587 Å, c 12.993 Å) and their order."""
    found = list_reflections(RUBY, 1.54056, max_two_theta=np.radians(70), min_intensity=0.2)
    assert found.labels == ("{012}", "{104}", "{110}", "{113}", "{024}", "{116}", "{214}", "{300}")
    angles = [25.578, 35.152, 37.776, 43.355, 52.549, 57.496, 66.519, 68.212]
    np.testing.assert_allclose(np.degrees(found.two_theta), angles, atol=0.04)
    order = [found.labels[n] for n in np.argsort(-found.intensity)]
    assert order[:3] == ["{116}", "{113}", "{104}"]
    assert found.intensity.max() == 1


def test_silicon_has_no_222_where_its_atoms_are_known() -> None:
    plain = Crystal(5.43102, 5.43102, 5.43102, 90, 90, 90, 227)
    limit = np.radians(8)
    assert "{222}" in list_reflections(plain, 0.2, max_two_theta=limit).labels
    known = list_reflections(SILICON, 0.2, max_two_theta=limit)
    assert known.intensity[known.labels.index("{222}")] < 1e-12
    assert "{222}" not in list_reflections(SILICON, 0.2, max_two_theta=limit, min_intensity=1e-6).labels
    assert np.degrees(known.two_theta[0]) == pytest.approx(3.6557, abs=2e-3)  # d(111) = 3.1356 Å
    np.testing.assert_allclose(known.strength[known.ring == 0] ** 0.5, 58.87, atol=0.05)


def test_families_that_coincide_share_a_ring() -> None:
    found = list_reflections(GOLD, 0.2, max_two_theta=np.radians(16))
    ring = found.labels.index("{333} {511}")
    assert found.multiplicity[ring] == 8 + 24
    assert (np.diff(found.two_theta) > 1e-4).all()


def test_limits_work_together() -> None:
    by_count = list_reflections(PLAIN_RUBY, 0.3, rings=5)
    by_angle = list_reflections(PLAIN_RUBY, 0.3, max_two_theta=by_count.two_theta[-1] + 1e-9)
    np.testing.assert_array_equal(by_count.hkl, by_angle.hkl)
    strong = list_reflections(RUBY, 0.3, rings=5, min_intensity=0.1)
    assert strong.rings == 5
    assert strong.intensity.min() >= 0.1
    both = list_reflections(RUBY, 0.3, rings=50, max_two_theta=np.radians(8))
    assert both.two_theta.max() <= np.radians(8)


def test_the_largest_angle_there_is() -> None:
    few = list_reflections(GOLD, 4.2, rings=10)  # half of it is below the spacing of 111, and above that of 200
    assert few.labels == ("{111}",)
    assert np.isfinite(few.two_theta).all()
    assert np.isfinite(few.intensity).all()


def test_rings_that_spots_cannot_tell_apart_are_told() -> None:
    found = list_reflections(PLAIN_RUBY, 0.3, max_two_theta=np.radians(12))
    close = found.close_rings(np.radians(0.05))
    assert close
    for first, second, apart in close:
        assert second == first + 1
        assert found.two_theta[second] - found.two_theta[first] == pytest.approx(apart)
        assert apart < np.radians(0.05)
    assert not found.close_rings(1e-9)


def test_some_rings_alone() -> None:
    found = list_reflections(GOLD, 0.2, rings=6)
    some = found.of_rings([4, 1])
    assert some.labels == ("{200}", "{222}")
    assert np.bincount(some.ring).tolist() == [6, 8]
    assert {abs(index) for index in some.hkl[some.ring == 1].ravel().tolist()} == {2}
    with pytest.raises(KernelError, match="rings 0 to 5"):
        found.of_rings([6])


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "Give a limit"),
        ({"max_two_theta": 0.01}, "No reflection of F m -3 m"),
        ({"max_two_theta": 3.0}, "give a smaller two theta"),
    ],
)
def test_limits_that_are_none(limits: dict[str, float], says: str) -> None:
    wavelength = 0.001 if limits.get("max_two_theta") == 3.0 else 0.2
    with pytest.raises(KernelError, match=says):
        list_reflections(GOLD, wavelength, **limits)  # type: ignore[arg-type]


def test_a_wavelength_is_above_0() -> None:
    with pytest.raises(KernelError, match="wavelength"):
        list_reflections(GOLD, 0.0, rings=3)
