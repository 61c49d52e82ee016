"""Made frames: where spots are, how much they count, noise, saturation, and files that others read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 -- registers its filters
import numpy as np
import pytest
from known_grains import face_centred, orientations, positions_um, strains
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.exposure import Camera, Exposure, Scan, expose
from kernels.hedm.forward import Spots
from kernels.hedm.frame_files import write_cache, write_stack
from kernels.hedm.geometry import Geometry, Panel

DEG = math.pi / 180
SCAN = Scan(-10 * DEG, 0.25 * DEG, 80)
PANEL = Panel.tilted("one", shape=(256, 300), pixel_um=(800.0, 800.0), distance_um=4e5, beam_centre=(127.0, 150.0))
GEOMETRY = Geometry(0.2229, (PANEL,))


def spots(row: list[float], column: list[float], omega_deg: list[float]) -> Spots:
    n = len(row)
    zero = np.zeros(n, np.int32)
    return Spots(zero, zero, zero.astype(np.int8), zero.astype(np.int16), np.array(row), np.array(column),
                 np.array(omega_deg) * DEG, np.ones(n), np.ones(n))  # fmt: skip


PLAIN = Camera()


def exposure(of: Spots, counts: float = 1e5, camera: Camera = PLAIN, width: float = 1.2) -> Exposure:
    n = len(of)
    return Exposure(GEOMETRY, SCAN, of, np.full(n, counts), np.tile([width, width, 0.3 * DEG], (n, 1)), camera)


def stack(one: Exposure, panel: int = 0, at_once: int | None = None) -> NDArray[np.uint16]:
    return np.concatenate([block for _, block in one.frames(panel, at_once=at_once)])


def moments(frames: NDArray[np.uint16]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Sum, centroid and standard deviations in (frame, row, column)."""
    values = frames.astype(float)
    total = values.sum()
    axes = [np.arange(n) for n in values.shape]
    sides = [values.sum(axis=tuple(b for b in range(3) if b != a)) for a in range(3)]
    centre = np.array([(axis * side).sum() / total for axis, side in zip(axes, sides, strict=True)])
    spread = [
        math.sqrt((side * (axis - c) ** 2).sum() / total) for axis, side, c in zip(axes, sides, centre, strict=True)
    ]
    return float(total), centre, np.array(spread)


def test_a_spot_keeps_its_counts_place_and_width() -> None:
    frames = stack(exposure(spots([100.3], [201.8], [-1.3]), 1e6, Camera(noise=False)))
    total, centre, spread = moments(frames)
    assert total == pytest.approx(1e6, rel=1e-3)
    # The frame that covers 0 to 1 is frame 0: its middle is half a step on.
    assert centre == pytest.approx([(-1.3 + 10) / 0.25 - 0.5, 100.3, 201.8], abs=2e-3)
    # A pixel adds 1/12 to the variance.
    wide = math.sqrt(1.2**2 + 1 / 12)
    assert spread == pytest.approx([math.sqrt((0.3 / 0.25) ** 2 + 1 / 12), wide, wide], rel=2e-3)


def test_overlapping_spots_add_up() -> None:
    camera = Camera(noise=False)
    both = stack(exposure(spots([100.0, 102.0], [50.0, 51.0], [0.0, 0.3]), 1e5, camera)).astype(int)
    one = stack(exposure(spots([100.0], [50.0], [0.0]), 1e5, camera)).astype(int)
    other = stack(exposure(spots([102.0], [51.0], [0.3]), 1e5, camera)).astype(int)
    assert np.abs(both - one - other).max() <= 1


def test_noise_is_that_of_counting_and_reading() -> None:
    camera = Camera(background=9.0, offset=100.0, read_noise=4.0)
    frames = stack(replace(exposure(spots([], [], []), camera=camera), scan=replace(SCAN, frames=4))).astype(float)
    assert frames.mean() == pytest.approx(109.0, abs=0.05)
    # Rounding adds 1/12.
    assert frames.var() == pytest.approx(9.0 + 16.0 + 1 / 12, rel=0.02)
    assert abs(np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("background", "read_noise"), [(0.0, 0.0), (0.3, 0.0), (2.5, 1.5), (0.0, 3.0), (400.0, 5.0)])
def test_dark_pixels_have_the_distribution_of_their_sum(background: float, read_noise: float) -> None:
    """Against NumPy's own draws of the three parts, clipped at 0 as a pixel is."""
    camera = Camera(background=background, offset=4.2, read_noise=read_noise)
    ours = stack(replace(exposure(spots([], [], []), camera=camera), scan=replace(SCAN, frames=4))).ravel()
    random = np.random.default_rng(5)
    drawn = 4.2 + random.poisson(background, ours.size) + random.normal(0, 1, ours.size) * read_noise
    theirs = np.clip(np.floor(drawn + 0.5), 0, 65535).astype(int)
    top = max(ours.max(), theirs.max()) + 1
    a, b = np.bincount(ours, minlength=top), np.bincount(theirs, minlength=top)
    often = a + b > 50
    assert ((a - b)[often] ** 2 / (a + b)[often]).sum() < often.sum() + 6 * math.sqrt(2 * often.sum())
    assert abs(int(ours.max()) - int(theirs.max())) <= 0.3 * math.sqrt(background + read_noise**2) * 6 + 1


def test_counts_of_many_spots_scatter_as_poisson() -> None:
    rows, columns = np.meshgrid(np.arange(20, 236, 16.0), np.arange(20, 280, 16.0), indexing="ij")
    one = exposure(spots(list(rows.ravel()), list(columns.ravel()), [0.0] * rows.size), 400.0)
    frames = stack(one).astype(float).sum(axis=0)
    sums = np.array([
        frames[int(r) - 8 : int(r) + 8, int(c) - 8 : int(c) + 8].sum()
        for r, c in zip(rows.ravel(), columns.ravel(), strict=True)
    ])  # fmt: skip
    assert sums.mean() == pytest.approx(400.0, abs=4.0)
    assert sums.var() == pytest.approx(400.0, rel=0.35)


def test_frames_do_not_depend_on_how_many_are_made_at_once() -> None:
    one = exposure(spots([100.3, 20.0], [201.8, 30.0], [-1.3, 5.0]), camera=Camera(2.0, 50.0, 1.0))
    assert np.array_equal(stack(one, at_once=1), stack(one, at_once=7))
    assert not np.array_equal(stack(one), stack(replace(one, seed=1)))
    few = [np.concatenate(part) for part in zip(*[f[1:] for f in one.sparse(at_once=3)], strict=True)]
    many = [np.concatenate(part) for part in zip(*[f[1:] for f in one.sparse(at_once=50)], strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(few, many, strict=True))


def test_a_bright_spot_saturates() -> None:
    frames = stack(exposure(spots([100.0], [100.0], [0.0]), 1e8, Camera(saturation=14000, noise=False)))
    assert frames.max() == 14000


def test_sparse_frames_are_the_dense_ones_where_spots_are() -> None:
    one = exposure(spots([100.0, 102.5, -1.0], [50.0, 51.0, 299.0], [0.0, 0.3, 1.0]), 1e5, Camera(noise=False))
    dense = stack(one)
    for frame, row, column, value in one.sparse(threshold=5):
        laid_out = np.zeros(PANEL.shape, int)
        laid_out[row, column] = value
        assert np.array_equal(laid_out, np.where(dense[frame] > 5, dense[frame], 0))
        assert (np.diff(row.astype(int) * 300 + column) > 0).all()


def test_a_scan_may_go_backwards() -> None:
    back = replace(
        exposure(spots([100.0], [50.0], [5.0]), 1e6, Camera(noise=False)), scan=Scan(10 * DEG, -0.25 * DEG, 80)
    )
    assert moments(stack(back))[1][0] == pytest.approx((10 - 5) / 0.25 - 0.5, abs=2e-3)
    assert back.scan.range() == pytest.approx((-10 * DEG, 10 * DEG))


def exposed(count: int = 3, **changes: object) -> Exposure:
    g0 = face_centred(4.08, 4)
    told: dict[str, object] = {
        "strength": np.arange(1.0, len(g0) + 1),
        "orientation": orientations(count),
        "position_um": positions_um(count),
        "strain": strains(count),
        "diameter_um": np.array([50.0, 100.0, 200.0])[:count],
    }
    return expose(GEOMETRY, Scan(-math.pi, math.pi / 180, 360), g0, **(told | changes))  # type: ignore[arg-type]


def test_counts_go_as_strength_lorentz_factor_and_volume() -> None:
    one = exposed()
    expected = (1.0 + one.spots.reflection) * one.spots.lorentz * np.array([50.0, 100.0, 200.0])[one.spots.grain] ** 3
    assert np.ptp(one.counts / expected) < 1e-9 * (one.counts / expected).max()
    assert np.median(one.counts) == pytest.approx(2e4)


def test_large_grains_make_wide_spots_and_spots_near_the_axis_last() -> None:
    one = exposed()
    rows = [one.widths[one.spots.grain == n, 0].mean() for n in range(3)]
    assert rows[0] == pytest.approx(math.hypot(0.8, 50 / 800 / math.sqrt(20)), rel=1e-12)
    assert rows[0] < rows[1] < rows[2]
    assert np.allclose(one.widths[:, 2] * np.abs(np.sin(one.spots.eta)), 0.05 * DEG)


def test_spots_at_the_seam_of_a_full_turn_are_in_the_first_and_the_last_frame() -> None:
    one = exposed()
    folded = np.sort(np.mod(one.spots.omega, 2 * math.pi))
    again = np.flatnonzero(np.diff(folded) < 1e-12)
    outside = (np.abs(one.spots.omega) > math.pi).sum()
    assert outside == len(again)


def test_a_stack_is_read_as_it_was_made(tmp_path: Path) -> None:
    one = replace(exposure(spots([100.0], [50.0], [0.0]), camera=Camera(1.0, 20.0, 1.0)), scan=replace(SCAN, frames=9))
    write_stack(tmp_path / "made.h5", one)
    with h5py.File(tmp_path / "made.h5") as file:
        assert np.array_equal(file["/entry/data/data"][()], stack(one))
        assert file["/entry/data/data"].chunks == (1, 256, 300)
        assert np.allclose(file["/entry/data/omega"][()], -10 + 0.25 * np.arange(9))
        assert np.allclose(file["/entry/data/omega_end"][()], -9.75 + 0.25 * np.arange(9))
        assert file["/entry/data/omega"].attrs["units"] == "degrees"
        assert file["/entry/data"].attrs["signal"] == "data"


def test_a_cache_has_the_members_of_hexrd(tmp_path: Path) -> None:
    one = exposure(spots([100.0], [50.0], [0.0]))
    write_cache(tmp_path / "made.npz", one, threshold=3)
    with np.load(tmp_path / "made.npz", allow_pickle=False) as cache:
        assert cache["shape"].tolist() == [256, 300]
        assert int(cache["nframes"]) == 80
        assert np.allclose(cache["omega"], SCAN.edges_deg)
        assert str(cache["panel_id"]) == "one"
        for frame, row, column, value in one.sparse(threshold=3):
            for name, values in (("row", row), ("col", column), ("data", value)):
                assert np.array_equal(cache[f"{frame}_{name}"], values)
        assert cache["40_data"].min() > 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Scan(0.0, 0.0, 5), "steps that are not 0"),
        (lambda: Scan(0.0, 0.1, 0), "at least one frame"),
        (lambda: Camera(saturation=70000), "between 1 and 65535"),
        (lambda: Camera(background=-1.0), "background"),
        (lambda: exposure(spots([1.0], [1.0], [0.0]), -5.0), "counts"),
        (lambda: exposure(spots([1.0], [1.0], [0.0]), width=0.0), "widths"),
        (lambda: exposed(diameter_um=np.array([50.0, 0.0, 10.0])), "diameter above 0"),
        (lambda: exposed(strength=np.ones(3)), "has a strength"),
    ],
)
def test_what_cannot_be_is_refused(make: object, said: str) -> None:
    with pytest.raises(KernelError, match=said):
        make()  # type: ignore[operator]
