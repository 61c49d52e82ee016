"""The table of spots goes into HDF5 and comes back."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from spotted import expected, searched

from kernels.errors import Exit, KernelError
from kernels.hedm.peaks import Spots, read_spots, save_spots


@pytest.fixture
def spots() -> Spots:
    truth = np.array([(20.0, 20.0 + 25 * k, 3.0 + k, 1.2, 1.4, 1.0 + 0.1 * k, 2e4) for k in range(4)])
    stack = np.random.default_rng(1).poisson(expected((12, 40, 120), truth)).astype(np.uint16)
    return searched(stack, gaussians=True).spots


def test_round_trip(spots: Spots, tmp_path: Path) -> None:
    assert len(spots) == 4
    save_spots(tmp_path / "spots.h5", spots, panels=["ff1"])
    back, panels = read_spots(tmp_path / "spots.h5")
    assert panels == ("ff1",)
    for field in fields(Spots):
        ours, theirs = getattr(spots, field.name), getattr(back, field.name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, err_msg=field.name)
    assert [path.name for path in tmp_path.iterdir()] == ["spots.h5"]


def test_units_and_flags_are_told(spots: Spots, tmp_path: Path) -> None:
    save_spots(tmp_path / "spots.h5", spots)
    with h5py.File(tmp_path / "spots.h5") as file:
        table = file["entry/spots"]
        assert table["omega"].attrs["units"] == "deg"
        np.testing.assert_allclose(np.deg2rad(table["omega"][()]), spots.omega)
        np.testing.assert_allclose(table["variance_omega"][()] * np.deg2rad(1) ** 2, spots.moments[:, 2])
        assert "8 saturated" in list(table["flags"].attrs["bits"])
        assert all("units" in table[name].attrs for name in ("row", "intensity", "error_width_omega"))


def test_an_empty_table(tmp_path: Path) -> None:
    save_spots(tmp_path / "spots.h5", searched(np.ones((3, 9, 9), np.uint16)).spots)
    assert len(read_spots(tmp_path / "spots.h5")[0]) == 0


def test_a_table_of_others_may_lack_gaussians(spots: Spots, tmp_path: Path) -> None:
    save_spots(tmp_path / "spots.h5", spots)
    with h5py.File(tmp_path / "spots.h5", "r+") as file:
        for name in list(file["entry/spots"]):
            if name.startswith(("fit_", "error_")):
                del file["entry/spots"][name]
    back, _ = read_spots(tmp_path / "spots.h5")
    assert np.isnan(back.fit).all()
    np.testing.assert_allclose(back.row, spots.row)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda group: group.__delitem__("row"), "no table of spots"),
        (lambda group: group.__delitem__("omega"), "omega is missing"),
        (lambda group: (group.__delitem__("flags"), group.create_dataset("flags", data=[1, 2])), "flags has \\(2,\\)"),
    ],
)
def test_tables_that_are_not_usable(harm: object, said: str, spots: Spots, tmp_path: Path) -> None:
    save_spots(tmp_path / "spots.h5", spots)
    with h5py.File(tmp_path / "spots.h5", "r+") as file:
        harm(file["entry/spots"])  # type: ignore[operator]
    with pytest.raises(KernelError, match=said) as caught:
        read_spots(tmp_path / "spots.h5")
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_choosing_rows(spots: Spots) -> None:
    some = spots[spots.column > 40]
    assert len(some) == 3
    assert some.fit.shape == (3, 7)


def test_the_best_positions_are_those_of_the_gaussians(spots: Spots) -> None:
    best = spots.best()
    np.testing.assert_array_equal(best.row, spots.fit[:, 1])
    np.testing.assert_array_equal(best.intensity, spots.fit[:, 0])
