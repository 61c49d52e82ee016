"""Each CUDA kernel, run on the processor, against the same thing said plainly in double precision."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from kernels.tomography.cuda.steps import SOURCE, options
from kernels.tomography.cuda.tiles import TILE, samples_by_tile
from kernels.tomography.direct.spreading import DEGREE, Spreading
from kernels.tomography.field import Field
from kernels.tomography.prepare import transmission
from tests.unit.kernels.cuda.emulated import Device

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

RANDOM = np.random.default_rng(5)


class Gpu:
    """Kernels by name, on arrays of NumPy."""

    def __init__(self, taps: int = 5) -> None:
        self.device = Device(seed=taps)
        self.cupy = self.device.modules()["cupy"]
        self._module = self.cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=options(taps))

    def call(self, name: str, threads: tuple[int, int], block: int, *arguments: Any) -> list[Any]:
        """The arguments, as the kernel has left them."""
        given = [self.cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        self._module.get_function(name)((-(-threads[0] // block), threads[1], 1), (block, 1, 1), tuple(given))
        self.device.finish()
        return [a.host if hasattr(a, "host") else a for a in given]


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    return Gpu()


def complex_noise(*shape: int) -> np.ndarray[Any, np.dtype[np.complex64]]:
    return (RANDOM.normal(size=shape) + 1j * RANDOM.normal(size=shape)).astype(np.complex64)


def nothing(*shape: int) -> np.ndarray[Any, np.dtype[np.complex64]]:
    return np.full(shape, np.nan + 0j, np.complex64)


@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize("count", [3, 4])
def test_sinograms_become_padded_pairs(gpu: Gpu, edge: int, count: int) -> None:
    angles, columns, padded = 3, 21, 48
    sinograms = RANDOM.normal(size=(count, angles, columns)).astype(np.float32)
    weights = RANDOM.uniform(size=columns).astype(np.float32)
    sizes = [np.int32(n) for n in (count, angles, columns, padded, edge)]
    cells = gpu.call("take_lines", (angles * padded, 2), 64, sinograms, *sizes, weights, nothing(2, angles, padded))[-1]
    wanted = np.zeros((4, angles, padded))
    wanted[:count, :, :columns] = sinograms * weights.astype(float)
    if edge:
        taper = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, padded - columns + 1) / (padded - columns + 1))
        left, right = wanted[:, :, :4].mean(2), wanted[:, :, columns - 4 : columns].mean(2)
        wanted[:, :, columns:] = right[..., None] * taper + left[..., None] * (1 - taper)
    np.testing.assert_allclose(cells.real, wanted[0::2], atol=1e-6)
    np.testing.assert_allclose(cells.imag, wanted[1::2], atol=1e-6)


def test_lines_are_filtered_and_turned_to_the_axis(gpu: Gpu) -> None:
    pairs, angles, padded = 3, 5, 32
    cells = complex_noise(pairs, angles, padded)
    response = RANDOM.normal(size=padded + 1).astype(np.float32)
    weights = RANDOM.uniform(size=angles).astype(np.float32)
    shifts = RANDOM.uniform(-3000, 3000, size=angles)
    sizes = [np.int32(n) for n in (pairs, angles, padded)]
    threads = (angles * (padded + 1), 1)
    lines = gpu.call(
        "filter_lines", threads, 64, cells, *sizes, response, weights, shifts, nothing(pairs, angles, padded + 1)
    )[-1]
    frequencies = np.arange(-padded // 2, padded // 2 + 1)
    turned = np.exp(2j * np.pi * shifts[:, None] * frequencies / padded)
    wanted = cells[:, :, frequencies % padded].astype(complex) * response * weights[:, None] * turned
    np.testing.assert_allclose(lines, wanted, atol=5e-6)


@pytest.mark.parametrize(("taps", "length", "pairs"), [(4, 80, 1), (5, 64, 5), (5, 96, 3), (6, 80, 4)])
def test_samples_are_spread_over_the_grid_and_around_its_ends(taps: int, length: int, pairs: int) -> None:
    gpu, angles, padded = Gpu(taps), 7, 96
    ratio, theta = length / padded, RANDOM.uniform(0, np.pi, angles)
    theta[:3] = 0, np.pi / 2, np.pi / 4  # straight along the cells, and across
    across, down = ratio * np.cos(theta), ratio * np.sin(theta)
    samples = samples_by_tile(across, down, padded, length, taps)
    table = Spreading(taps, 1.25, DEGREE).table()
    lines = complex_noise(pairs, angles, padded + 1)
    sizes = [np.int32(n) for n in (pairs, angles, padded)]
    group, block = 4, 4 * taps**2
    grid = gpu.call(
        "spread_lines",
        (len(samples.order) * block, -(-pairs // group)),
        block,
        lines,
        *sizes,
        across,
        down,
        table,
        *samples,
        np.int32(length),
        nothing(pairs, length, length),
    )[-1]
    wanted = np.zeros((pairs, length, length), complex)
    for k in range(angles):
        for n in range(padded + 1):
            cells, weights = [], []
            for step in (across[k], down[k]):
                first = np.ceil((n - padded // 2) * step - taps / 2)
                t = 2 * (first - ((n - padded // 2) * step - taps / 2)) - 1
                cells.append((int(first) + length // 2 + np.arange(taps)) % length)
                weights.append(np.array([np.polyval(table.reshape(-1, 8)[:, tap], t) for tap in range(taps)]))
            window = np.outer(weights[1], weights[0])
            wanted[:, cells[1][:, None], cells[0]] += window * lines[:, k, n, None, None]
    np.testing.assert_allclose(grid, wanted, atol=2e-5)


@pytest.mark.parametrize(("length", "taps"), [(64, 5), (80, 4), (112, 6)])
def test_tiles_list_exactly_the_samples_that_reach_them(length: int, taps: int) -> None:
    angles, padded = 9, 128
    theta = RANDOM.uniform(0, 2 * np.pi, angles)
    across, down = length / padded * np.cos(theta), length / padded * np.sin(theta)
    samples = samples_by_tile(across, down, padded, length, taps)
    tiles = -(-length // TILE)
    n = np.arange(padded + 1) - padded // 2

    def touched(step: Any) -> Any:
        first = np.ceil(step[:, None] * n - 0.5 * taps).astype(int).ravel()
        return ((first[:, None] + np.arange(taps) + length // 2) % length) // TILE

    columns, rows = touched(across), touched(down)
    for tile in range(tiles**2):
        wanted = np.flatnonzero((rows == tile // tiles).any(1) & (columns == tile % tiles).any(1))
        found = samples.numbers[samples.starts[tile] : samples.starts[tile + 1]]
        np.testing.assert_array_equal(found, wanted)
    assert (np.diff(np.diff(samples.starts)[samples.order]) <= 0).all()


@pytest.mark.parametrize("size", [11, 16])
@pytest.mark.parametrize("circle", [True, False])
def test_slices_are_cut_out_and_the_kernel_divided_out(gpu: Gpu, size: int, circle: bool) -> None:
    count, length = 3, 32
    grid = complex_noise(2, length, length)
    shape = RANDOM.uniform(1, 2, size).astype(np.float32)
    reach = size**2 if circle else 2**31 - 1
    given = [np.int32(n) for n in (count, size, length)]
    out = np.full((count, size, size), np.nan, np.float32)
    made = gpu.call("finish_slices", (size**2, 2), 64, grid, *given, shape, np.int32(reach), out)[-1]
    at = (np.arange(size) - size // 2) % length
    cut = grid[:, at[:, None], at]
    wanted = np.stack((cut[0].real, cut[0].imag, cut[1].real)) * shape * shape[:, None]
    from_middle = np.arange(size) - 0.5 * (size - 1)
    if circle:
        wanted *= from_middle**2 + from_middle[:, None] ** 2 <= (0.5 * size) ** 2
    np.testing.assert_allclose(made, wanted, rtol=1e-6)


def test_counts_become_line_integrals_as_in_the_preparation(gpu: Gpu) -> None:
    """Bad pixels in the middle, at both ends and over a whole row; the field is of more rows than the counts."""
    angles, count, columns, padded, first, floor = 5, 3, 24, 48, 2, 0.2
    counts = RANDOM.integers(100, 2000, (angles, count, columns)).astype(np.uint16)
    counts[1, 0, 7:9] = 0
    dark = RANDOM.uniform(80, 120, (first + count, columns)).astype(np.float32)
    response = RANDOM.uniform(900, 1100, dark.shape).astype(np.float32)
    good = np.ones(dark.shape, bool)
    good[first, [0, 1, 9, 10, -1]] = good[first + 1] = False
    good[first + 2, 4] = False
    here = np.arange(columns, dtype=np.int32)
    left = np.maximum.accumulate(np.where(good, here, -1), axis=1).astype(np.int32)
    right = np.minimum.accumulate(np.where(good, here, columns)[:, ::-1], axis=1)[:, ::-1].astype(np.int32)
    right[right == columns] = -1
    field = Field(dark[first:], response[first:], left[first:], right[first:], 0, 0)
    values = transmission(counts, field)[0].swapaxes(0, 1)
    wanted = -np.log(np.maximum(values, floor))
    given = [np.int32(n) for n in (count, angles, columns, padded, 0)]
    *_, floored, _, _, _, _, _, _, cells = gpu.call(
        "take_counts",
        (angles * padded, 2),
        64,
        counts,
        *(dark, response, left, right),
        np.int32(first),
        np.float32(floor),
        np.zeros(1, np.uint32),
        *given,
        np.ones(columns, np.float32),
        nothing(2, angles, padded),
    )
    made = np.stack((cells[0].real, cells[0].imag, cells[1].real))[:, :, :columns]
    np.testing.assert_allclose(made, wanted, atol=2e-6)
    assert not cells[:, :, columns:].any()
    assert not cells[1].imag.any()
    assert floored[0] == (values < floor).sum() > 0
