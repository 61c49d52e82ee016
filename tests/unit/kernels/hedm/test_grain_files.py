"""Tables of grains of MIDAS, HEXRD and ImageD11, against xfab, ImageD11 and lines as those programs write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from elsewhere import imaged11, xfab_tools

from kernels.errors import Exit, KernelError
from kernels.hedm.conventions.hexrd_grains import read_hexrd_grains, write_hexrd_grains
from kernels.hedm.conventions.imaged11_grains import read_imaged11_grains, write_imaged11_grains
from kernels.hedm.conventions.midas_grains import read_midas_grains, write_midas_grains
from kernels.hedm.crystals import Crystal
from kernels.hedm.grains import Grains, new_grains
from kernels.hedm.orientations import from_bunge, random_orientations
from kernels.hedm.strains import to_ubi

RUBY = Crystal(4.7608, 4.7608, 12.99568, 90, 90, 120, 167)
GOLD = Crystal(4.0782, 4.0782, 4.0782, 90, 90, 90, 225)

NAMES = "O11 O12 O13 O21 O22 O23 O31 O32 O33 X Y Z"
LATTICE = "a b c alpha beta gamma"


def grains(crystal: Crystal = RUBY, n: int = 10) -> Grains:
    random = np.random.default_rng(1)
    return new_grains(
        crystal,
        random_orientations(n, random),
        position_um=random.uniform(-300, 300, (n, 3)),
        strain=random.normal(0, 1e-3, (n, 6)),
        number=np.arange(n) * 2 + 5,
        completeness=random.uniform(0.5, 1, n),
        radius_um=random.uniform(5, 40, n),
        residual_um=random.uniform(5, 40, n),
        residual_omega=random.uniform(0, 1e-3, n),
        residual_angle=random.uniform(0, 1e-3, n),
    )


@pytest.mark.parametrize("crystal", [RUBY, GOLD, Crystal(5.1, 6.2, 7.3, 81, 95, 107, 2)])
def test_midas_both_ways(tmp_path: Path, crystal: Crystal) -> None:
    path, there = tmp_path / "Grains.csv", grains(crystal)
    write_midas_grains(path, there)
    back = read_midas_grains(path)
    assert back.crystals[0].lattice == crystal.lattice
    np.testing.assert_array_equal(back.number, there.number)
    for name in ("orientation", "position_um", "completeness", "radius_um", "residual_um"):
        np.testing.assert_allclose(getattr(back, name), getattr(there, name), atol=1e-8, err_msg=name)
    for name in ("strain", "residual_omega", "residual_angle"):
        np.testing.assert_allclose(getattr(back, name), getattr(there, name), atol=1e-10, err_msg=name)


def test_an_orientation_of_the_unstrained_lattice_has_the_same_strain(tmp_path: Path) -> None:
    """As midas-suite 0.12 leaves it; here in a file that tells the lattices of grains, and not their strain."""
    there = grains()
    write_midas_grains(tmp_path / "a.csv", there)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    names, rows = lines[8].lstrip("%").split(), np.array([line.split() for line in lines[9:]], float)
    rows[:, 1:10] = (there.orientation @ RUBY.busing_levy_rotation.T).reshape(-1, 9)
    names = ["left" if name.startswith(("eKen", "eFab")) else name for name in names]
    rewritten = "\n".join([*lines[:8], "%" + "\t".join(names), *("\t".join(map(repr, row)) for row in rows.tolist())])
    (tmp_path / "b.csv").write_text(rewritten)
    found = read_midas_grains(tmp_path / "b.csv", rigid=True)
    np.testing.assert_allclose(found.orientation, there.orientation, atol=1e-12)
    np.testing.assert_allclose(found.strain, there.strain, atol=1e-5)  # turned by less than the strain
    other = read_midas_grains(tmp_path / "b.csv")
    off = np.linalg.norm(other.orientation - there.orientation, axis=(1, 2))
    assert 1e-4 < off.max() < 5e-3
    zero = new_grains(RUBY, there.orientation)
    write_midas_grains(tmp_path / "c.csv", zero)
    for rigid in (False, True):
        one = read_midas_grains(tmp_path / "c.csv", rigid=rigid).orientation
        np.testing.assert_allclose(one, there.orientation, atol=1e-8)


def test_what_midas_makes_of_the_file_has_our_reciprocal_vectors(tmp_path: Path) -> None:
    """`O B(lattice) hkl` with the matrix of xfab, which is MIDAS's."""
    tools = xfab_tools()
    write_midas_grains(tmp_path / "Grains.csv", grains())
    lines = (tmp_path / "Grains.csv").read_text().splitlines()
    names = lines[8].lstrip("%").split("\t")
    assert (len(names), names[0], names[-1], names[23]) == (47, "GrainID", "Eul2", "Confidence")
    rows = np.array([line.split("\t") for line in lines[9:]], float)
    assert rows.shape == (10, 47)
    ours = np.linalg.inv(to_ubi(RUBY, grains().orientation, grains().strain))
    for row, ub in zip(rows, ours, strict=True):
        theirs = row[1:10].reshape(3, 3) @ tools.form_b_mat(row[13:19]) / (2 * np.pi)
        np.testing.assert_allclose(theirs, ub, atol=2e-9)
        np.testing.assert_allclose(from_bunge(row[44:]), row[1:10].reshape(3, 3), atol=2e-9)
    np.testing.assert_allclose(rows[:, 33], grains().strain[:, 0] * 1e6, atol=1e-6)
    np.testing.assert_allclose(rows[:, 34], grains().strain[:, 5] * 1e6, atol=1e-6)


def _file(path: Path, names: str, values: str, heading: bool = True) -> Path:
    lines = ["%NumGrains 1", "%BeamCenter 0.000000", "%BeamThickness 100.000000", "%GlobalPosition 0.000000"]
    lines += ["%NumPhases 1", "%PhaseInfo"]
    if heading:
        lines += ["%\tSpaceGroup:225", "%\tLattice Parameter: 4.080000 4.080000 4.080000 90.000000 90.000000 90.000000"]
    path.write_text("\n".join([*lines, "%" + "\t".join(names.split()), "\t".join(values.split()) + "\t"]) + "\n")
    return path


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    quarter = "0 -1 0 1 0 0 0 0 1"
    few = _file(tmp_path / "a.csv", f"ID {NAMES} E11 E22 E33 E12 E13 E23 GrainRadius Confidence",
                f"9 {quarter} 1 2 3 1e-4 2e-4 3e-4 4e-4 5e-4 6e-4 33 0.75")  # fmt: skip
    found = read_midas_grains(few)
    np.testing.assert_allclose(found.orientation[0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(found.strain[0], np.array([1, 2, 3, 6, 5, 4]) * 1e-4)
    assert (found.number[0], found.radius_um[0], found.completeness[0]) == (9, 33, 0.75)
    assert np.isnan(found.residual_um).all()

    lattice = _file(tmp_path / "b.csv", f"GrainID {NAMES} {LATTICE}", f"1 {quarter} 1 2 3 4.08408 4.08 4.08 90 90 90")
    found = read_midas_grains(lattice)
    np.testing.assert_allclose(found.strain[0], [0, 1e-3, 0, 0, 0, 0], atol=1e-12)  # a lies along y of the sample
    np.testing.assert_array_equal(found.position_um, [[1, 2, 3]])

    both = _file(
        tmp_path / "c.csv",
        f"GrainID {NAMES} {LATTICE} "
        + " ".join(f"e{who}{i}{j}" for who in ("Fab", "Ken") for i in "123" for j in "123"),
        f"1 {quarter} 1 2 3 4.08408 4.08 4.08 90 90 90 {'7 ' * 9} 100 1 2 1 200 3 2 3 300",
    )
    np.testing.assert_allclose(read_midas_grains(both).strain[0], np.array([100, 200, 300, 3, 2, 1]) * 1e-6)


@pytest.mark.parametrize(
    ("names", "values", "heading", "says"),
    [
        (f"GrainID {NAMES}", "1 1 0 0 0 1 0 0 0 1 0 0", True, r"line 10: 12 values for 13 columns; is it whole\?"),
        (
            f"GrainID {NAMES}",
            "1 1 0 0 0 1 0 0 0 1 0 0 here",
            True,
            "line 10: could not convert string to float: 'here'",
        ),
        ("GrainID O11 O12", "1 1 0", True, r"no columns O11 to O33 and X, Y, Z"),
        ("GrainID X Y Z", "1 1 0 0", True, "no line that names the columns"),
        (f"GrainID {NAMES}", "1 1 0 0 0 1 0 0 0 1 0 0 0", False, "does not tell the crystal; give it"),
    ],
)
def test_files_that_are_no_table_of_midas(tmp_path: Path, names: str, values: str, heading: bool, says: str) -> None:
    with pytest.raises(KernelError, match=says) as failed:
        read_midas_grains(_file(tmp_path / "a.csv", names, values, heading))
    assert failed.value.exit_code == Exit.BAD_INPUT


def test_a_crystal_can_be_given(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.csv", f"GrainID {NAMES}", "1 1 0 0 0 1 0 0 0 1 0 0 0", heading=False)
    assert read_midas_grains(path, GOLD).crystals == (GOLD,)
    with pytest.raises(KernelError, match="Cannot read"):
        read_midas_grains(tmp_path / "nothing.csv")
    with pytest.raises(KernelError, match="one crystal"):
        write_midas_grains(path, new_grains((GOLD, RUBY), np.eye(3)[None]))


def test_hexrd_both_ways(tmp_path: Path) -> None:
    path, there = tmp_path / "grains.out", grains()
    write_hexrd_grains(path, there)
    back = read_hexrd_grains(path, RUBY)
    np.testing.assert_array_equal(back.number, there.number)
    for name in ("orientation", "position_um", "strain", "completeness"):
        np.testing.assert_allclose(getattr(back, name), getattr(there, name), atol=1e-6, err_msg=name)


def test_a_line_of_hexrd(tmp_path: Path) -> None:
    """Y up, X right and Z against the beam; ln V is what the inverse of V says it is."""
    line = (
        "0             1.000000      1.174290e-04  0.0e+00  1.5707963267948966e+00  0.0e+00  1.0e-01  2.0e-01  3.0e-01 "
        " 1.0001790115667917e+00  1.0001779962708608e+00  1.0001936547581616e+00  "
        "-1.0958010675725486e-06  5.2726899612292163e-06   7.4800638218912037e-06  "
        "-1.7899552520236116e-04  -1.7798041712088698e-04  -1.9363600225173909e-04  "
        "7.7471426212444082e-07  -3.7276622885141345e-06  -5.2882613208036980e-06"
    )
    path = tmp_path / "grains.out"
    path.write_text("# grain ID    completeness\n" + line + "\n")
    found = read_hexrd_grains(path, RUBY)
    np.testing.assert_allclose(found.position_um[0], [-300, -100, 200])
    # a quarter turn about Y, which is our z, of a crystal whose x lay along X, which is our -y, turns it to -Z: our x
    np.testing.assert_allclose(found.orientation[0] @ [1, 0, 0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.orientation[0] @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    theirs = np.array(line.split()[15:], float)
    order, signs = [2, 0, 1, 5, 3, 4], np.array([1, 1, 1, -1, -1, 1])
    np.testing.assert_allclose(found.strain[0], theirs[order] * signs, atol=5e-8)
    write_hexrd_grains(path, found)
    again = np.array(path.read_text().splitlines()[1].split(), float)
    np.testing.assert_allclose(again[3:], np.array(line.split()[3:], float), atol=1e-12)
    assert len(path.read_text().splitlines()[0].split("  ")) > 21


@pytest.mark.parametrize(("text", "says"), [("0 1 2\n", "has 21 columns"), ("0 a\n", "could not convert")])
def test_files_that_are_no_table_of_hexrd(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.out").write_text(text)
    with pytest.raises(KernelError, match=says):
        read_hexrd_grains(tmp_path / "a.out", RUBY)
    with pytest.raises(KernelError, match="Cannot read"):
        read_hexrd_grains(tmp_path / "b.out", RUBY)


def test_imaged11_both_ways(tmp_path: Path) -> None:
    path, there = tmp_path / "grains.map", grains()
    write_imaged11_grains(path, there)
    back = read_imaged11_grains(path, RUBY)
    np.testing.assert_array_equal(back.number, there.number)
    np.testing.assert_allclose(back.position_um, there.position_um, rtol=1e-8)
    np.testing.assert_allclose(back.orientation, there.orientation, atol=1e-10)
    np.testing.assert_allclose(back.strain, there.strain, atol=1e-10)


def test_imaged11_reads_what_is_written(tmp_path: Path) -> None:
    theirs = imaged11("grain")
    write_imaged11_grains(tmp_path / "grains.map", grains())
    read = theirs.read_grain_file(str(tmp_path / "grains.map"))
    ubi = to_ubi(RUBY, grains().orientation, grains().strain)
    np.testing.assert_allclose([one.ubi for one in read], ubi, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose([one.translation for one in read], grains().position_um, rtol=1e-8)
    theirs.write_grain_file(str(tmp_path / "again.map"), read)
    again = read_imaged11_grains(tmp_path / "again.map", RUBY)
    np.testing.assert_array_equal(again.number, grains().number)
    np.testing.assert_allclose(again.strain, grains().strain, atol=1e-8)
    np.testing.assert_allclose([one.U for one in read], _rotations_of_busing_and_levy(ubi), atol=1e-7)


def _rotations_of_busing_and_levy(ubi: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The rotation left of UB when the upper triangular matrix of the strained lattice is taken off its right."""
    rotation, triangle = np.linalg.qr(np.linalg.inv(ubi))
    return np.asarray(rotation * np.sign(np.diagonal(triangle, axis1=1, axis2=2))[:, None, :])


def test_a_left_handed_ubi_is_its_mirror_image(tmp_path: Path) -> None:
    (tmp_path / "a.ubi").write_text("-4.0782 0 0\n0 -4.0782 0\n0 0 -4.0782\n\n")
    found = read_imaged11_grains(tmp_path / "a.ubi", GOLD)
    np.testing.assert_allclose(found.orientation[0], np.eye(3), atol=1e-12)
    assert found.number.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 0 0\n0 1 0\n", "not three lines of three"),
        ("1 0\n0 1\n1 1\n", "not three lines of three"),
        ("1 0 0\n0 one 0\n0 0 1\n", "line 2: could not convert"),
        ("1 0 0\n1 0 0\n0 0 1\n", "without a volume"),
    ],
)
def test_files_that_are_none_of_imaged11(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.ubi").write_text(text)
    with pytest.raises(KernelError, match=says):
        read_imaged11_grains(tmp_path / "a.ubi", GOLD)
    with pytest.raises(KernelError, match="Cannot read"):
        read_imaged11_grains(tmp_path / "b.ubi", GOLD)
    with pytest.raises(KernelError, match="one crystal"):
        write_imaged11_grains(tmp_path / "c.ubi", new_grains((GOLD, RUBY), np.eye(3)[None]))
