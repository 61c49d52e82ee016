"""The table of grains and its file: what goes in comes out, viewers find the map, and damage is told."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from kernels import outputs
from kernels.cautions import Caution, Code
from kernels.errors import Exit, KernelError
from kernels.hedm.crystals import Atom, Crystal
from kernels.hedm.grains import COLUMNS, Grains, check_grains, new_grains, read_grains, write_grains
from kernels.hedm.orientations import random_orientations
from kernels.hedm.pictures import draw_grains
from kernels.io.picture import check_picture

GOLD = Crystal(4.0782, 4.0782, 4.0782, 90, 90, 90, 225, (Atom("Au", 0, 0, 0, 1.0, 0.007),))
RUBY = Crystal(5.13, 5.13, 5.13, 55.3, 55.3, 55.3, "R -3 c")


def table(n: int = 12) -> Grains:
    random = np.random.default_rng(1)
    return new_grains(
        (GOLD, RUBY),
        random_orientations(n, random),
        position_um=random.uniform(-300, 300, (n, 3)),
        strain=random.normal(0, 1e-3, (n, 6)),
        number=np.arange(n) * 3 + 7,
        crystal=np.arange(n) % 2,
        completeness=random.uniform(0.5, 1, n),
        spots=random.integers(50, 90, n),
        unique=random.integers(30, 50, n),
        expected=np.full(n, 90),
        log_false=random.uniform(-90, -9, n),
        intensity=random.uniform(1e3, 1e5, n),
        radius_um=random.uniform(5, 40, n),
        residual_um=random.uniform(0, 40, n),
        residual_omega=random.uniform(0, 1e-3, n),
        residual_angle=random.uniform(0, 1e-3, n),
        covariance=random.normal(size=(n, 12, 12)),
    )


def write(path: Path, grains: Grains) -> None:
    staged = outputs.claim(path)
    given = {"input": "spots.h5", "picture": None}
    warning = Caution(Code.METADATA, "Something is missing.")
    write_grains(staged.part, grains, title="gold", program="test", version="1", parameters=given, warnings=[warning])
    check_grains(staged.part)
    outputs.publish(staged)


def same(one: Grains, other: Grains) -> None:
    assert one.crystals == other.crystals
    for name in (*COLUMNS, "covariance"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        if getattr(one, name) is not None:
            assert getattr(one, name).dtype == getattr(other, name).dtype


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "grains.h5", table())
    same(read_grains(tmp_path / "grains.h5"), table())
    assert [one.name for one in tmp_path.iterdir()] == ["grains.h5"]


def test_a_table_without_grains(tmp_path: Path) -> None:
    none = new_grains(GOLD, np.zeros((0, 3, 3)))
    write(tmp_path / "grains.h5", none)
    same(read_grains(tmp_path / "grains.h5"), none)
    draw_grains(tmp_path / "a.png", none)
    check_picture(tmp_path / "a.png")


def test_viewers_find_the_map_and_units(tmp_path: Path) -> None:
    write(tmp_path / "grains.h5", table())
    with h5py.File(tmp_path / "grains.h5") as file:
        entry = file[file.attrs["default"]]
        shown = entry[entry.attrs["default"]]
        assert shown.attrs["NX_class"] == "NXdata"
        np.testing.assert_array_equal(shown[shown.attrs["signal"]], table().completeness)
        assert [list(shown[axis]) for axis in shown.attrs["axes"]] == table().position_um.T[:2].tolist()
        assert file["entry/grains/position_um"].attrs["units"] == "um"
        assert file["entry/crystal_1/space_group"][()] == b"R -3 c:R"
        assert file["entry/process/warnings"][0] == b"metadata: Something is missing."
        assert file["entry/process/parameters/input"][()] == b"spots.h5"


def test_what_is_not_given_is_unknown() -> None:
    plain = new_grains(GOLD, np.stack([np.eye(3)] * 2))
    assert plain.number.tolist() == [1, 2]
    assert np.isnan(plain.completeness).all()
    assert not plain.position_um.any()
    assert plain.covariance is None


def test_some_grains_in_another_order() -> None:
    some = table().take(np.array([3, 1]))
    assert some.number.tolist() == [16, 10]
    np.testing.assert_array_equal(some.covariance, table().covariance[[3, 1]])  # type: ignore[index]
    assert len(table().take(table().crystal == 0)) == 6


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"position_um": np.zeros((3, 3))}, r"position_um of 2 grains has shape \(3, 3\), not \(2, 3\)"),
        ({"covariance": np.zeros((2, 6, 6))}, "covariance of 2 grains"),
        ({"crystal": np.array([0, 1])}, "Grains are of crystals 0 to 1, and there are 1"),
        ({"centroid": np.zeros(2)}, "no column 'centroid'"),
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, np.ndarray], says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(KernelError, match=says):
        new_grains(GOLD, np.stack([np.eye(3)] * 2), **columns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file["entry/grains"].__delitem__("strain"), "strain is missing"),
        (lambda file: file["entry"].attrs.__delitem__("format"), "no table of grains"),
        (lambda file: file["entry/crystal_0"].__delitem__("space_group"), "space_group is missing"),
        (lambda file: file["entry"].__delitem__("grains"), "orientation is missing"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, damage: object, says: str) -> None:
    write(tmp_path / "grains.h5", table())
    with h5py.File(tmp_path / "grains.h5", "r+") as file:
        damage(file)  # type: ignore[operator]
    with pytest.raises(KernelError, match=says) as failed:
        read_grains(tmp_path / "grains.h5")
    assert failed.value.exit_code == Exit.BAD_INPUT
    with pytest.raises(KernelError) as failed:
        check_grains(tmp_path / "grains.h5")
    assert failed.value.exit_code == Exit.BAD_OUTPUT


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(KernelError) as failed:
        read_grains(tmp_path / "nothing.h5")
    assert failed.value.exit_code == Exit.NO_INPUT


def test_figures_of_grains(tmp_path: Path) -> None:
    draw_grains(tmp_path / "a.png", table())
    check_picture(tmp_path / "a.png")
    plain = new_grains(GOLD, random_orientations(3, np.random.default_rng(2)))  # all in one place, of unknown size
    draw_grains(tmp_path / "b.png", plain)
    check_picture(tmp_path / "b.png")
    apart = np.array([[0.0, 0, 0], [100, 0, 0], [0, 0, 50]])
    bright = new_grains(GOLD, plain.orientation, position_um=apart, intensity=np.array([1.0, 8, 27]))
    draw_grains(tmp_path / "c.png", bright)
    dim = new_grains(GOLD, plain.orientation, position_um=apart, intensity=np.array([1.0, 1, 1]))
    draw_grains(tmp_path / "d.png", dim)
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "d.png").read_bytes()
