"""Lattices, symmetry and structure factors, against gemmi's cell, xfab, and what is known by heart."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import pytest
from elsewhere import xfab_tools

from kernels.errors import Exit, KernelError
from kernels.hedm.crystals import Atom, Crystal, lattice_of

RUBY = (4.7608, 4.7608, 12.99568, 90.0, 90.0, 120.0)
TRICLINIC = (5.1, 6.2, 7.3, 81.0, 95.0, 107.0)
ROTATIONS = {"-1": 1, "2/m": 2, "mmm": 4, "4/m": 4, "4/mmm": 8, "-3": 3, "-3m": 6, "6/m": 6, "6/mmm": 12, "m-3": 12}
SETTINGS = [group.xhm() for group in gemmi.spacegroup_table()]


def fitting(group: gemmi.SpaceGroup) -> Crystal:
    """A crystal of this space group whose lattice is as general as the group allows."""
    turns = np.array([operation.rot for operation in group.operations().sym_ops]) / gemmi.Op.DEN
    general = Crystal.of(TRICLINIC, 1).a0
    metric = (turns.transpose(0, 2, 1) @ (general.T @ general) @ turns).mean(0)
    return Crystal.of(lattice_of(np.linalg.cholesky(metric).T), group.xhm())


@pytest.mark.parametrize("lattice", [RUBY, TRICLINIC, (8.0, 7.0, 6.0, 90.0, 110.0, 90.0)])
def test_axes_lie_where_the_frame_says(lattice: tuple[float, ...]) -> None:
    crystal = Crystal.of(lattice, 1)
    cell = gemmi.UnitCell(*lattice)
    a, b, c = crystal.a0.T
    assert a[1] == a[2] == b[2] == 0
    assert a[0] > 0
    assert b[1] > 0
    assert c[2] > 0
    np.testing.assert_allclose(lattice_of(crystal.a0), lattice, rtol=1e-12)
    np.testing.assert_allclose(crystal.b0.T @ crystal.a0, np.eye(3), atol=1e-14)
    assert abs(crystal.b0[:, 2][:2]).max() < 1e-15  # c* along z
    hkl = np.array([[1, 2, -3], [0, -4, 5]])
    expected = [1 / cell.calculate_d(one) for one in hkl.tolist()]
    np.testing.assert_allclose(np.linalg.norm(hkl @ crystal.b0.T, axis=1), expected, rtol=1e-12)
    assert crystal.volume_A3 == pytest.approx(cell.volume, rel=1e-12)


def test_reciprocal_axes_of_ruby_are_those_of_hexrd() -> None:
    b0 = Crystal.of(RUBY, 167).b0
    np.testing.assert_allclose(b0[:, 0], [1 / 4.7608, 1 / (4.7608 * 3**0.5), 0], atol=1e-15)
    np.testing.assert_allclose(b0[:, 2], [0, 0, 1 / 12.99568], atol=1e-15)


@pytest.mark.parametrize("lattice", [RUBY, TRICLINIC])
def test_the_other_frame_is_that_of_xfab(lattice: tuple[float, ...]) -> None:
    crystal = Crystal.of(lattice, 1)
    theirs = xfab_tools().form_b_mat(lattice) / (2 * np.pi)
    np.testing.assert_allclose(crystal.busing_levy_rotation @ crystal.b0, theirs, atol=1e-14)


@pytest.mark.parametrize("symbol", SETTINGS)
def test_every_setting_of_every_space_group_has_the_rotations_of_its_laue_class(symbol: str) -> None:
    group = gemmi.find_spacegroup_by_name(symbol)
    crystal = fitting(group)
    assert crystal.name == symbol
    assert crystal.laue_class == group.laue_str()
    turns = crystal.rotations
    assert len(turns) == (ROTATIONS | {"m-3m": 24})[crystal.laue_class]
    np.testing.assert_array_equal(crystal.fractional_rotations[0], np.eye(3))
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-12)
    products = (turns[:, None] @ turns).reshape(-1, 9)
    apart = np.abs(products[:, None] - turns.reshape(-1, 9)).max(-1)
    assert (apart.min(1) < 1e-12).all(), "not closed"
    assert ((apart < 1e-12).sum(0) == len(turns)).all()


def test_both_axes_of_a_rhombohedral_crystal_are_the_same_crystal() -> None:
    hexagonal = Crystal.of(RUBY, "R -3 c:H")
    obverse = np.array([[2, 1, 1], [-1, 1, 1], [-1, -2, 1]]).T / 3
    rhombohedral = Crystal.of(lattice_of(hexagonal.a0 @ obverse), 167)
    assert rhombohedral.name == "R -3 c:R"
    assert rhombohedral.lattice[0] == pytest.approx(5.13, abs=0.01)
    assert rhombohedral.lattice[3] == pytest.approx(55.29, abs=0.02)
    turn = hexagonal.a0 @ obverse @ np.linalg.inv(rhombohedral.a0)  # between the two cartesian frames
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    back = turn @ rhombohedral.rotations @ turn.T
    apart = np.abs(back[:, None] - hexagonal.rotations).max((-1, -2)).min(1)
    assert apart.max() < 1e-12


@pytest.mark.parametrize(
    ("lattice", "group", "says"),
    [
        (
            (4, 4.1, 4, 90, 90, 90),
            225,
            "cubic space group F m -3 m (number 225); the nearest that does is a = 4.03361 Å",
        ),
        ((4.76, 4.76, 13, 90, 90, 90), 194, "hexagonal space group P 63/m m c"),
        ((4.76, 4.76, 13, 90, 90, 120), "R -3 c:R", "axes can be named, as in 'R -3 c:R' or 'R -3 c:H'"),
        ((5, 6, 7, 90, 90, 100), 14, "space group P 1 21/c 1 (number 14)"),
        ((5, 6, 7, 90, 91, 90), 62, "orthorhombic"),
        ((5, 5, 7, 90, 90, 90), 231, "no space group 231"),
        ((5, 5, 7, 90, 90, 90), "F m m m m", "no space group 'F m m m m'"),
        ((5, 5, 5, 10, 20, 170), 1, "No lattice has the angles 10°, 20°, 170°"),
        ((5, -5, 5, 90, 90, 90), 1, "a length that is not above 0"),
        ((5, 5, float("nan"), 90, 90, 90), 1, "a length that is not above 0"),
        ((5, 5, 5), 1, "six parameters, not 3"),
    ],
)
def test_what_is_no_crystal_is_refused(lattice: tuple[float, ...], group: int | str, says: str) -> None:
    with pytest.raises(KernelError) as failed:
        Crystal.of(lattice, group)
    assert says in str(failed.value)
    assert failed.value.exit_code == Exit.BAD_INPUT


def test_settings_that_are_not_standard_are_understood() -> None:
    assert Crystal(5, 6, 7, 90, 90, 100, "P 1 1 21/n").laue_class == "2/m"
    assert Crystal(5, 6, 7, 90, 100, 90, "P 21/n").name == "P 1 21/n 1"
    assert Crystal(5.1, 5.1, 5.1, 55, 55, 55, "R -3 c").name == "R -3 c:R"
    assert Crystal(5, 5, 5, 90, 90, 90, "225").name == "F m -3 m"


@pytest.mark.parametrize(
    ("lattice", "group", "there", "absent"),
    [
        ((4.0782,) * 3 + (90.0,) * 3, 225, [[1, 1, 1], [2, 0, 0], [3, 1, 1]], [[1, 0, 0], [2, 1, 1], [2, 2, 1]]),
        ((5.43102,) * 3 + (90.0,) * 3, 227, [[1, 1, 1], [2, 2, 0], [4, 0, 0]], [[2, 0, 0], [4, 2, 0], [0, 0, 2]]),
        (RUBY, 167, [[0, 1, 2], [1, 0, 4], [0, 0, 6]], [[0, 0, 3], [1, 0, 1], [1, 0, 0], [0, 1, 5]]),
        ((2.95, 2.95, 4.68, 90.0, 90.0, 120.0), 194, [[0, 0, 2], [1, 0, 1], [1, 1, 2]], [[0, 0, 1], [1, 1, 1]]),
        ((5.0, 6.0, 7.0, 90.0, 100.0, 90.0), 14, [[0, 2, 0], [1, 0, 2]], [[0, 1, 0], [1, 0, 1], [0, 0, 3]]),
    ],
)
def test_extinctions(lattice: tuple[float, ...], group: int, there: list[list[int]], absent: list[list[int]]) -> None:
    crystal = Crystal.of(lattice, group)
    assert not crystal.absent(np.array(there)).any()
    assert crystal.absent(np.array(absent)).all()


def test_structure_factors_are_sums_over_all_atoms_of_the_cell() -> None:
    """Sodium chloride: 4 (f_Na + f_Cl) where all indices are even, 4 (f_Na - f_Cl) where they are odd."""
    salt = Crystal(5.6402, 5.6402, 5.6402, 90, 90, 90, 225, (Atom("Na", 0, 0, 0), Atom("Cl", 0.5, 0.5, 0.5)))
    hkl = np.array([[1, 1, 1], [2, 0, 0], [2, 2, 0], [3, 1, 1]])
    found = salt.structure_factors(hkl, 0.2)

    def form(element: str, one: list[int]) -> float:
        quarter = (salt.b0 @ one) @ (salt.b0 @ one) / 4
        atom = gemmi.Element(element)
        dispersion = gemmi.cromer_liberman(atom.atomic_number, 12398.42 / 0.2)[0]
        return float(atom.it92.calculate_sf(quarter) + dispersion)

    expected = [4 * (form("Na", one) + (-1) ** one[0] * form("Cl", one)) for one in hkl.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_equivalent_reflections_have_equal_structure_factors() -> None:
    ruby = Crystal.of(RUBY, 167)
    ruby = Crystal(*RUBY, 167, (Atom("Al", 0, 0, 0.35219), Atom("O", 0.30624, 0, 0.25, 1.0, 0.004)))
    family = np.array([1, 0, 4]) @ ruby.fractional_rotations
    np.testing.assert_allclose(
        np.abs(ruby.structure_factors(family, 0.3)), np.abs(ruby.structure_factors(family[:1], 0.3))[0], rtol=1e-9
    )
    strengths = np.abs(ruby.structure_factors(np.array([[0, 0, 3], [1, 0, 1], [1, 0, 4]]), 0.3))
    assert strengths[:2].max() < 1e-6 < strengths[2]


def test_a_cif_is_read_with_its_atoms(tmp_path: Path) -> None:
    path = tmp_path / "corundum.cif"
    path.write_text(
        "data_empty\n_nothing 1\ndata_corundum\n_cell_length_a 4.7608\n_cell_length_b 4.7608\n_cell_length_c 12.99568\n"
        "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 120\n_symmetry_space_group_name_H-M 'R -3 c'\n"
        "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        "_atom_site_U_iso_or_equiv\nAl1 0 0 0.35219(3) 1 0.0033\nO1 0.30624(4) 0 0.25 0.98 0.0041\n"
    )
    crystal = Crystal.from_cif(path)
    assert crystal.name == "R -3 c:H"
    assert crystal.lattice == RUBY
    assert crystal.atoms == (Atom("Al", 0, 0, 0.35219, 1.0, 0.0033), Atom("O", 0.30624, 0, 0.25, 0.98, 0.0041))


CELL = (
    "data_a\n"
    + "".join(f"_cell_length_{one} 4.0782(2)\n" for one in "abc")
    + "".join(f"_cell_angle_{one} 90.\n" for one in ("alpha", "beta", "gamma"))
)
SITES = "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("_space_group_IT_number 225\n", "F m -3 m"),
        ("_symmetry_space_group_name_Hall '-F 4 2 3'\n", "F m -3 m"),
        ("_space_group_name_H-M_alt 'P m -3 m'\n", "P m -3 m"),
        ("loop_\n_space_group_symop_operation_xyz\nx,y,z\n-x,-y,-z\n", "P -1"),
    ],
)
def test_cifs_name_the_group_in_many_ways(tmp_path: Path, group: str, name: str) -> None:
    path = tmp_path / "a.cif"
    sites = SITES + "Au1 Au1+ 0 0 0\nX Vac 0.1 0.2 0.3\n"
    aniso = "loop_\n_atom_site_aniso_label\n" + "".join(f"_atom_site_aniso_U_{ij}\n" for ij in ("11", "22", "33"))
    aniso += "".join(f"_atom_site_aniso_U_{ij}\n" for ij in ("12", "13", "23")) + "Au1 0.006 0.006 0.006 0 0 0\n"
    path.write_text(CELL + group + sites + aniso)
    crystal = Crystal.from_cif(path)
    assert crystal.name == name
    assert [atom.element for atom in crystal.atoms] == ["Au"]
    assert crystal.atoms[0].u_iso_A2 == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data_a\n_nothing 1\n", "has no lattice"),
        ("this is no CIF", "Cannot read the CIF"),
        (None, "Cannot read the CIF"),
        (
            "data_a\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 5\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
            "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'rubbish'\n",
            "no space group that is known",
        ),
    ],
)
def test_cifs_that_say_too_little(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "a.cif"
    if text is not None:
        path.write_text(text)
    with pytest.raises(KernelError, match=says):
        Crystal.from_cif(path)


def test_without_atoms_there_are_no_structure_factors() -> None:
    with pytest.raises(KernelError, match="atoms of the crystal are not known"):
        Crystal.of(RUBY, 167).structure_factors(np.array([[1, 0, 4]]), 0.3)


def test_crystals_are_values() -> None:
    one, other = Crystal.of(RUBY, 167), Crystal.of(RUBY, 167)
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(ValueError, match="read-only"):
        one.b0[0, 0] = 1
