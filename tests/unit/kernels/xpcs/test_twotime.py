"""Two-time correlations are those of the definition, bit by bit the same whatever way they are worked out."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from counted import Counted, partition, twotime_plainly
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.ranks import Ranks
from kernels.xpcs.events import Events
from kernels.xpcs.partition import Partition
from kernels.xpcs.twotime import cost, series, vnni
from kernels.xpcs.twotime.correlate import Found, OneTime, correlate, strips, twotime
from kernels.xpcs.twotime.series import Series, gather
from kernels.xpcs.twotime.slices import Slice, segments
from kernels.xpcs.twotime.together import planned, twotime_together

needs_vnni = pytest.mark.skipif(not vnni.available(), reason="this processor has no AVX-512 VNNI")
WAYS = ["pairs", "blas", pytest.param("vnni", marks=needs_vnni)]
BINS = partition(1, 23, 31, 13)


def counts(largest: int, frames: int = 83, *, shape: tuple[int, int] = (23, 31)) -> NDArray[np.int64]:
    """Counts of up to `largest` in a fifth of the pixels; nothing in one frame, and in one more nothing in bin 4."""
    rng = np.random.default_rng(largest)
    made = rng.integers(1, largest + 1, (frames, *shape)) * (rng.random((frames, *shape)) < 0.2)
    made[frames // 2] = 0
    made[3, BINS.static == 4] = 0
    return np.asarray(made)


def whole(of: Series, **how: object) -> tuple[NDArray[np.float32], OneTime]:
    """All of C2, shape (bins, frames, frames), NaN where no tile came."""
    made = np.full((int(of.bins.max()), of.frames, of.frames), np.nan, np.float32)

    def write(number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        place = made[number - 1, row : row + tile.shape[0], column : column + tile.shape[1]]
        assert np.isnan(place).all(), "a tile came twice"
        place[...] = tile

    return made, twotime(of, write, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("largest", [255, 256])
def test_counts_are_sorted_by_pixel_and_time(largest: int) -> None:
    frames = counts(largest)
    found = gather(Counted(frames), BINS)
    order = np.lexsort((np.arange(23 * 31), BINS.static.ravel(), BINS.dynamic.ravel()))
    order = order[BINS.static.ravel()[order] > 0]
    times, seen = np.divmod(found.words.astype(np.int64), 1 << found.bits)
    assert found.bits == (8 if largest < 256 else 32)
    flat = frames.reshape(len(frames), -1)
    for pixel, begin, end in zip(order, found.starts[:-1], found.starts[1:], strict=True):
        np.testing.assert_array_equal(times[begin:end], np.flatnonzero(flat[:, pixel]))
        np.testing.assert_array_equal(seen[begin:end], flat[times[begin:end], pixel])
    static = BINS.static.ravel()[order[found.pixels[:-1]]]
    np.testing.assert_array_equal(found.totals, [flat[:, BINS.static.ravel() == n].sum(axis=1) for n in static])


@pytest.mark.parametrize(
    ("largest", "way"),
    [
        *itertools.product([1, 127], ["pairs", "blas"]),
        *(pytest.param(largest, "vnni", marks=needs_vnni) for largest in (1, 127)),
        *itertools.product([255, 3000], ["pairs", "blas"]),
    ],
)
def test_every_way_is_the_definition_to_the_last_bit_of_float32(largest: int, way: str) -> None:
    frames = counts(largest)
    made, _ = whole(gather(Counted(frames), BINS), way=way)
    truth = twotime_plainly(frames, BINS)
    assert (made.max() > 1) & (truth.max() > 1)
    assert (np.abs(made - truth) <= np.spacing(np.abs(truth).astype(np.float32)) * 0.5001).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tile", [7, 32, 50, 83])
def test_tiles_of_any_size_have_the_same_bits(way: str, tile: int) -> None:
    found = gather(Counted(counts(9)), BINS)
    expected, means = whole(found, way="pairs")
    made, again = whole(found, way=way, tile=tile)
    below = np.isnan(made)  # only where all of a tile is below the diagonal
    assert not np.triu(below).any()
    np.testing.assert_array_equal(np.where(below, 0, made), expected)
    np.testing.assert_allclose(again.g2, means.g2, rtol=1e-13)


def test_tiles_come_row_by_row_from_the_diagonal_on() -> None:
    places: list[tuple[int, int, int]] = []
    found = gather(Counted(counts(3)), BINS, [2, 4])
    twotime(found, lambda number, row, column, tile: places.append((number, row, column)), tile=40)
    assert places == [(n, r, c) for n in (2, 4) for r in (0, 40, 80) for c in (0, 40, 80) if c >= r]


@pytest.mark.parametrize("way", WAYS)
def test_any_number_of_threads_gives_the_same_bits(way: str) -> None:
    most = numba.get_num_threads()
    results = []
    try:
        for threads in {1, most}:
            numba.set_num_threads(threads)
            made, means = whole(gather(Counted(counts(9)), BINS), way=way, slices=segments(83))
            results.append((made.tobytes(), means.g2.tobytes(), means.slices.tobytes()))
    finally:
        numba.set_num_threads(most)
    assert len(set(results)) == 1


@pytest.mark.parametrize("way", WAYS)
def test_large_static_bins_are_taken_in_groups(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = whole(gather(Counted(counts(9)), BINS))
    monkeypatch.setattr(series, "GROUP", 21)
    grouped = gather(Counted(counts(9)), BINS)
    assert len(grouped.sizes) > BINS.static_bins
    made, _ = whole(grouped, way=way)
    np.testing.assert_allclose(made, expected, rtol=2e-7)


@pytest.mark.parametrize("tile", [20, 83])
@pytest.mark.parametrize("size", [1, 2, 4, 7, 30])
def test_ranks_have_all_strips_once_and_the_same_bits(size: int, tile: int) -> None:
    frames = Counted(counts(9))
    expected, means = whole(gather(frames, BINS), slices=segments(83), tile=tile)
    bins = np.arange(1, BINS.dynamic_bins + 1)
    plan = planned(bins, np.array([5.0, 1, 1, 1, 0]), 83, size, tile)
    assert list(itertools.chain(*plan.strips)) == strips(bins, 83, tile)
    found, made = Found(bins, 83, segments(83), tile), np.full_like(expected, np.nan)

    def write(number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        made[number - 1, row : row + tile.shape[0], column : column + tile.shape[1]] = tile

    takers = plan.takers(BINS)
    for rank in reversed(range(size)):  # so that sums wait for their turn
        mine = plan.bins_of(rank)
        needed = (takers[:, 0] <= rank) & (rank < takers[:, 1])
        np.testing.assert_array_equal(needed, np.isin(BINS.dynamic.ravel(), mine))
        if mine:
            series = gather(frames, BINS, mine)
            correlate(series, plan.strips[rank], write, found.take, slices=segments(83), tile=tile)
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(found.one_time.g2, means.g2)
    np.testing.assert_array_equal(found.one_time.slices, means.slices)


def test_strips_are_shared_out_by_what_they_cost() -> None:
    bins, costs = np.array([3, 5, 8]), np.array([1.0, 6.0, 1.0])
    plan = planned(bins, costs, 1000, 4, 100)
    loads = [sum(costs[bins == s.bin][0] * (1000 - s.first - 50) * 100 for s in share) for share in plan.strips]
    assert max(loads) < 1.1 * sum(loads) / 4
    assert [plan.bins_of(rank) for rank in range(4)] == [[3, 5], [5], [5], [5, 8]]


def test_what_bins_cost_is_told_by_a_few_frames() -> None:
    frames = counts(3, 200)
    frames[:, BINS.dynamic == 2] = 0
    few = next(Counted(frames).blocks())
    costs = cost.expected(few, BINS, 200)
    assert costs[1] < 0.01 * costs[0]
    assert cost.expected(few, BINS, 400)[0] > 1.9 * costs[0]


def test_g2_is_the_mean_along_the_diagonals_of_all_frames_and_of_slices() -> None:
    frames = counts(9)
    slices = [*segments(83, 4), Slice(10, 30, "start"), Slice(10, 30, "middle")]
    _, means = whole(gather(Counted(frames), BINS), slices=slices, tile=30)
    truth = twotime_plainly(frames, BINS)
    first, second = np.triu_indices(83)
    inside = [(first >= s.first) & (second < s.last) for s in slices[:4]]
    inside += [(first >= 10) & (first < 30), (first + second >= 20) & (first + second < 60)]
    for delay in (0, 1, 19, 20, 25, 39, 40, 72, 82):
        chosen = second - first == delay
        np.testing.assert_allclose(means.g2[delay], truth[:, first[chosen], second[chosen]].mean(1), rtol=1e-6)
        for n, within in enumerate(inside):
            pairs = truth[:, first[chosen & within], second[chosen & within]]
            if pairs.size:
                np.testing.assert_allclose(means.slices[delay, n], pairs.mean(1), rtol=1e-6)
            else:
                assert np.isnan(means.slices[delay, n]).all()


def test_ageing_is_seen_as_it_was_put_in() -> None:
    # Speckle whose field forgets at a rate that falls as the sample ages: C2 = 1 + exp(-2 * the rate's integral).
    frames, pixels, rng = 120, (80, 80), np.random.default_rng(5)
    rate = 0.4 / (1 + np.arange(frames) / 15)
    keep = np.exp(-rate)
    field = np.empty((frames, *pixels), np.complex128)
    field[0] = rng.normal(size=pixels) + 1j * rng.normal(size=pixels)
    for n in range(1, frames):
        fresh = rng.normal(size=pixels) + 1j * rng.normal(size=pixels)
        field[n] = keep[n] * field[n - 1] + np.sqrt(1 - keep[n] ** 2) * fresh
    seen = rng.poisson(np.abs(field) ** 2 / 2)
    one = Partition(np.ones(pixels, np.int32), np.ones(pixels, np.int32))
    slices = [Slice(0, 20, "start"), Slice(60, 80, "start")]
    made, means = whole(gather(Counted(seen), one), slices=slices)
    age = np.cumsum(rate)
    truth = 1 + np.exp(-2 * np.abs(age[:, None] - age))
    off = np.triu_indices(frames, 1)
    # Of one pixel the product of two frames varies by about 5, so its mean over the pixels by 5 / 80.
    assert np.abs(made[0][off] - truth[off]).max() < 6 * 5 / 80
    for n, part in enumerate(slices):
        begin = np.arange(part.first, part.last)
        for delay in (1, 4, 10):
            assert means.slices[delay, n, 0] == pytest.approx(truth[begin, begin + delay].mean(), abs=0.06)
    assert means.slices[10, 1, 0] - means.slices[10, 0, 0] > 0.15  # older is slower


@pytest.mark.parametrize(("occupied", "expected"), [(0.02, {"pairs"}), (0.9, {"vnni", "blas"})])
def test_the_way_is_chosen_by_how_much_was_counted(occupied: float, expected: set[str]) -> None:
    frames = (np.random.default_rng(0).random((500, 23, 31)) < occupied).astype(int)
    found = gather(Counted(frames), BINS)
    assert {cost.cheapest(found, which) for which in range(len(found.bins))} <= expected


def one_block(events: Events, count: int = 2) -> Counted:
    frames = Counted(np.ones((count, 2, 2), int))
    frames.blocks = lambda: iter([events])  # type: ignore[method-assign]
    return frames


def events(pixels: list[int], *, first: int = 0, count: int = 1, starts: tuple[int, ...] = (0, 2, 3)) -> Events:
    return Events(first, np.array(starts), np.array(pixels, np.uint32), np.full(len(pixels), count, np.uint32))


SQUARE = Partition(np.array([[1, 1], [2, 0]], np.int32), np.array([[1, 1], [2, 0]], np.int32))


@pytest.mark.parametrize(
    ("attempt", "sentence", "code"),
    [
        (lambda: gather(Counted(counts(1)), SQUARE), "2 x 2 pixels, and the frames have 23 x 31", Exit.BAD_INPUT),
        (lambda: gather(Counted(counts(1)[:1]), BINS), "There are 1 frames", Exit.BAD_INPUT),
        (lambda: gather(one_block(events([0, 1, 4])), SQUARE), "name 1 pixels out of order", Exit.BAD_INPUT),
        (lambda: gather(one_block(events([1, 0, 2])), SQUARE), "name 1 pixels out of order", Exit.BAD_INPUT),
        (lambda: gather(one_block(events([1, 1, 2])), SQUARE), "name 1 pixels out of order", Exit.BAD_INPUT),
        (lambda: gather(one_block(events([0, 1, 2], first=3)), SQUARE), "Frame 3 follows", Exit.BAD_INPUT),
        (lambda: gather(one_block(events([0, 1, 2]), 5), SQUARE), "5 frames were announced and 2", Exit.BAD_INPUT),
        (lambda: gather(one_block(events([0, 1, 2], count=2**24)), SQUARE), "Mask the pixel", Exit.BAD_INPUT),
        (lambda: gather(Counted(counts(1)), BINS, [0]), "numbered 1 to 5", Exit.USAGE),
        (lambda: gather(Counted(counts(1)), BINS, [6]), "numbered 1 to 5", Exit.USAGE),
        (lambda: whole(gather(Counted(counts(1)), BINS), way="magic"), "'magic' is not known", Exit.USAGE),
        (lambda: whole(gather(Counted(counts(1)), BINS), tile=0), "0 frames is none", Exit.USAGE),
        (lambda: segments(4, 5), "cannot be cut into 5", Exit.USAGE),
        (lambda: whole(gather(Counted(counts(1)), BINS), slices=[Slice(5, 84)]), "no frames 5 to 83", Exit.USAGE),
        (lambda: whole(gather(Counted(counts(1)), BINS), slices=[Slice(0, 2, "old")]), "'old'", Exit.USAGE),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_one_sentence(attempt: Callable[[], object], sentence: str, code: Exit) -> None:
    with pytest.raises(KernelError, match=sentence.replace("(", "\\(")) as failed:
        attempt()
    assert failed.value.exit_code == code


@needs_vnni
def test_counts_too_large_for_vnni_are_refused_by_it() -> None:
    with pytest.raises(KernelError, match="too large for the way vnni"):
        whole(gather(Counted(counts(200)), BINS), way="vnni")


def test_without_vnni_it_is_refused_and_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnni, "available", lambda: False)
    found = gather(Counted(counts(9)), BINS)
    assert cost.cheapest(found, 0) != "vnni"
    with pytest.raises(KernelError, match="no AVX-512 VNNI"):
        whole(found, way="vnni")


def test_a_hot_pixel_outside_of_all_bins_does_no_harm() -> None:
    frames = counts(3)
    expected, _ = whole(gather(Counted(frames), BINS))
    hot = frames.copy()
    hot[:, BINS.static == 0] = 2**31
    made, _ = whole(gather(Counted(hot), BINS))
    np.testing.assert_array_equal(made, expected)


def main() -> None:
    """What each rank runs in the next test."""
    ranks, bins = Ranks.here(), np.arange(1, BINS.dynamic_bins + 1)
    plan = planned(bins, np.ones(len(bins)), 83, ranks.size, 20)
    mine = plan.bins_of(ranks.rank)
    made = np.zeros((len(bins), 83, 83), np.float32)

    def write(number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        made[number - 1, row : row + tile.shape[0], column : column + tile.shape[1]] = tile

    series = gather(Counted(counts(9)), BINS, mine) if mine else None
    if found := twotime_together(series, plan, write, ranks, slices=segments(83)):
        np.savez(sys.argv[1], made=made, g2=found.g2, slices=found.slices)


@pytest.mark.parametrize("size", [2, 9])
def test_ranks_of_mpi_bring_together_what_one_process_finds(size: int, tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    output = tmp_path / "found.npz"
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "NUMBA_NUM_THREADS": "1"}
    path = os.pathsep.join([str(Path(__file__).parents[4]), os.environ.get("PYTHONPATH", "")])
    argv = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(size), sys.executable, __file__, str(output)]
    environment = {**os.environ, **allowed, "PYTHONPATH": path}
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100)
    assert said.returncode == 0, said.stderr
    expected, means = whole(gather(Counted(counts(9)), BINS), slices=segments(83), tile=20)
    with np.load(output) as file:
        np.testing.assert_array_equal(file["made"], np.nan_to_num(expected))
        np.testing.assert_array_equal(file["g2"], means.g2)
        np.testing.assert_array_equal(file["slices"], means.slices)


if __name__ == "__main__":
    main()
