"""The qmap file as others write and read it, and rings made from the geometry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kernels.errors import Exit, KernelError
from kernels.xpcs.partition import Partition
from kernels.xpcs.qmap import GROUP, Qmap, numbered, read_qmap, write_qmap
from kernels.xpcs.rings import Geometry, make_qmap

SHAPE = (40, 56)
GEOMETRY = Geometry((20.3, 17.8), 7.5e-5, 2.5, 11.0)
VIEWER = (  # what pyXPCSViewer looks for, under its own names of /xpcs/qmap
    "mask dynamic_roi_map static_roi_map dynamic_v_list_dim0 static_v_list_dim0 dynamic_v_list_dim1 static_v_list_dim1 "
    "beam_center_y beam_center_x detector_distance pixel_size energy static_index_mapping dynamic_index_mapping "
    "static_num_pts dynamic_num_pts map_names map_units"
)


def written(path: Path, qmap: Qmap) -> Path:
    with h5py.File(path, "w") as file:
        write_qmap(file.create_group(GROUP), qmap, source="run.h5")
    return path


def same(one: Partition, other: Partition) -> None:
    np.testing.assert_array_equal(one.static, other.static)
    np.testing.assert_array_equal(one.dynamic, other.dynamic)
    np.testing.assert_array_equal(one.static_index, other.static_index)
    np.testing.assert_array_equal(one.dynamic_index, other.dynamic_index)
    assert one.geometry == other.geometry
    for a, b in zip(one.axes, other.axes, strict=True):
        assert (a.name, a.unit) == (b.name, b.unit)
        np.testing.assert_array_equal(a.static, b.static)
        np.testing.assert_array_equal(a.dynamic, b.dynamic)


@pytest.fixture
def made() -> Qmap:
    mask = np.ones(SHAPE, bool)
    mask[:, 30:33] = False
    blemish = np.ones(SHAPE, bool)
    blemish[5, 5] = False
    return make_qmap(
        SHAPE, GEOMETRY, static_q=12, dynamic_q=4, static_phi=4, dynamic_phi=2, mask=mask, blemish=blemish, beam_stop=3
    )


def test_round_trip(made: Qmap, tmp_path: Path) -> None:
    path = str(written(tmp_path / "qmap.hdf", made))
    back = read_qmap(path, SHAPE)
    same(made.partition, back.partition)
    np.testing.assert_array_equal(back.mask, made.mask)
    np.testing.assert_array_equal(back.blemish, made.blemish)
    assert back.left_out == {}


def test_the_file_has_what_viewers_look_for(made: Qmap, tmp_path: Path) -> None:
    with h5py.File(written(tmp_path / "qmap.hdf", made)) as file:
        group = file[GROUP]
        assert set(VIEWER.split()) <= set(group)
        steps = group["dynamic_num_pts"][()]
        assert group["dynamic_index_mapping"][()].max() < np.prod(steps)
        assert len(group["dynamic_index_mapping"]) == made.partition.dynamic_bins
        assert [len(group[f"dynamic_v_list_dim{n}"]) for n in range(2)] == list(steps)
        assert [name.decode() for name in group["map_names"][()]] == ["q", "phi"]
        assert group["static_v_list_dim0"].attrs["unit"] == "1/A"
        assert len(group.attrs["hash"]) == 64


def test_a_partition_without_axes_is_written_and_read(tmp_path: Path) -> None:
    bins, _ = numbered(np.arange(12).reshape(3, 4) // 4)
    known = Qmap(Partition(bins, bins), bins > 0, bins > 0)
    back = read_qmap(str(written(tmp_path / "qmap.hdf", known)))
    np.testing.assert_array_equal(back.partition.static, bins)
    assert back.partition.geometry == {}


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_rings_are_where_their_middles_say(scale: Any) -> None:
    """Each pixel's q and phi lies in the step that its bin names, worked out pixel by pixel here."""
    made = make_qmap(SHAPE, GEOMETRY, static_q=10, dynamic_q=5, static_phi=6, dynamic_phi=3, scale=scale, beam_stop=2)
    partition = made.partition
    rows, columns = np.nonzero(partition.static)
    x, y = GEOMETRY.beam_center
    two_theta = np.arctan(np.hypot(rows - y, columns - x) * GEOMETRY.pixel_size_m / GEOMETRY.distance_m)
    q = 4 * np.pi / (12.39841984 / GEOMETRY.energy_kev) * np.sin(two_theta / 2)
    phi = np.rad2deg(np.arctan2(y - rows, columns - x))
    for kind in ("static", "dynamic"):
        bins, index = getattr(partition, kind)[rows, columns], getattr(partition, f"{kind}_index")
        q_axis, phi_axis = (getattr(axis, kind) for axis in partition.axes)
        step_q, step_phi = np.divmod(index[bins - 1], len(phi_axis))
        if scale == "log":
            assert np.abs(np.log(q / q_axis[step_q])).max() <= 0.5 * np.log(q_axis[1] / q_axis[0]) * (1 + 1e-9)
        else:
            assert np.abs(q - q_axis[step_q]).max() <= 0.5 * (q_axis[1] - q_axis[0]) * (1 + 1e-9)
        assert np.abs(phi - phi_axis[step_phi]).max() <= 180 / len(phi_axis) + 1e-9
    assert (np.hypot(rows - y, columns - x) >= 2).all()


def test_steps_without_pixels_have_no_bin_and_are_told() -> None:
    """The beam is far outside, so that most sectors are empty."""
    made = make_qmap(SHAPE, Geometry((-300.0, 20.0), 7.5e-5, 2.5, 11.0), static_q=4, dynamic_q=4, static_phi=36)
    assert made.left_out["empty static bins"] == 4 * 36 - made.partition.static_bins > 0
    assert (np.bincount(made.partition.static.ravel())[1:] > 0).all()


def test_empty_bins_are_left_out_and_the_others_move_up(made: Qmap, tmp_path: Path) -> None:
    path = written(tmp_path / "qmap.hdf", made)
    with h5py.File(path, "r+") as file:
        mask = file[GROUP]["mask"][()]
        static = file[GROUP]["static_roi_map"][()]
        mask[static == 7] = 0
        file[GROUP]["mask"][...] = mask
    back = read_qmap(str(path))
    assert back.empty == {"static": (7,), "dynamic": ()}
    assert back.left_out == {"masked pixels in a bin": int((static == 7).sum()), "empty static bins": 1}
    same_bins = static - (static > 7)
    same_bins[static == 7] = 0
    np.testing.assert_array_equal(back.partition.static, same_bins)
    np.testing.assert_array_equal(back.partition.static_index, np.delete(made.partition.static_index, 6))


def replaced(name: str, value: Any) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]
        if value is not None:
            group[name] = value

    return change


def crossing(group: h5py.Group) -> None:
    static = group["static_roi_map"][()]
    static[static > 0] = 1
    group["static_roi_map"][...] = static


BROKEN: list[tuple[str, Callable[[h5py.Group], None], str]] = [
    ("no bins", replaced("static_roi_map", None), "/qmap/static_roi_map is missing; in /qmap there is"),
    ("shapes", replaced("dynamic_roi_map", np.ones((3, 4), int)), r"static_roi_map is of \(40, 56\) pixels and dynam"),
    ("masked", replaced("mask", np.zeros(SHAPE, int)), "leaves no pixel: all are masked"),
    ("mask shape", replaced("mask", np.ones((4, 5), int)), r"/qmap/mask is of \(4, 5\) pixels"),
    ("halves", replaced("static_roi_map", np.full(SHAPE, 0.5)), "not whole"),
    ("negative", replaced("static_roi_map", np.full(SHAPE, -1)), "negative numbers of bins"),
    ("huge", replaced("static_roi_map", np.full(SHAPE, 2**40)), "more than there are pixels"),
    ("nan", replaced("static_roi_map", np.full(SHAPE, np.nan)), "not whole"),
    ("text", replaced("static_roi_map", "bins"), "holds object, not numbers"),
    ("crossing", crossing, "Static bin 1 lies in more than one dynamic bin"),
    ("index", replaced("static_index_mapping", np.arange(3)), "tells the steps of 3 bins"),
    ("geometry", replaced("energy", np.nan), "/qmap/energy is nan"),
]


@pytest.mark.parametrize(("change", "sentence"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_unusable_files(made: Qmap, tmp_path: Path, change: Callable[[h5py.Group], None], sentence: str) -> None:
    path = written(tmp_path / "qmap.hdf", made)
    with h5py.File(path, "r+") as file:
        change(file[GROUP])
    with pytest.raises(KernelError, match=sentence) as caught:
        read_qmap(str(path))
    assert caught.value.exit_code == Exit.BAD_INPUT
    assert "\n" not in str(caught.value)


def test_another_shape_than_the_detector(made: Qmap, tmp_path: Path) -> None:
    path = str(written(tmp_path / "qmap.hdf", made))
    with pytest.raises(KernelError, match=r"it is of \(40, 56\) pixels and the detector of \(41, 56\)"):
        read_qmap(path, (41, 56))
    with pytest.raises(KernelError, match="turned by 90 degrees"):
        read_qmap(path, (56, 40))


def test_rings_that_cannot_be() -> None:
    for arguments in (
        {"static_q": 10, "dynamic_q": 4},
        {"q_range": (0.1, 0.05)},
        {"q_range": (5.0, 6.0)},
        {"mask": np.zeros(SHAPE, bool)},
        {"mask": np.ones((3, 3), bool)},
        {"beam_stop": 1e6},
    ):
        with pytest.raises(KernelError):
            make_qmap(SHAPE, GEOMETRY, **({"static_q": 8, "dynamic_q": 4} | arguments))  # type: ignore[arg-type]
    with pytest.raises(KernelError, match="distance must be more than 0"):
        Geometry((1.0, 1.0), 7.5e-5, 0.0, 11.0)
