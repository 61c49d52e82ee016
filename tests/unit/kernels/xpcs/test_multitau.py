"""Multi-tau g2 against the plain definition in float64, and all ways to it against each other, bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.ranks import Ranks
from kernels.xpcs.events import Events
from kernels.xpcs.lags import lags
from kernels.xpcs.multitau import LiveMultiTau, MultiTau, multitau
from kernels.xpcs.multitau.work import Work
from kernels.xpcs.partition import Partition

ROWS, COLUMNS = 9, 31
ROOT = Path(__file__).resolve().parents[4]


class Cube:
    """Frames of an array (frames, rows, columns), given as events, some at a time."""

    frame_time_s = 1.0

    def __init__(self, counts: NDArray[Any], block: int = 7) -> None:
        self.counts, self.block, self.passes = counts, block, 0
        self.count, self.rows, self.columns = counts.shape
        self.largest = int(counts.max())

    def blocks(self) -> Iterator[Events]:
        self.passes += 1
        kind = np.min_scalar_type(self.largest)
        for first in range(0, self.count, self.block):
            frames = self.counts[first : first + self.block].reshape(-1, self.rows * self.columns)
            rows, pixels = np.nonzero(frames)
            starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(frames)))])
            yield Events(first, starts.astype(np.int64), pixels.astype(np.uint32), frames[rows, pixels].astype(kind))


def bins(rows: int = ROWS, columns: int = COLUMNS) -> Partition:
    """Three columns a static bin, three of those a dynamic one; the edges and one pixel within are masked."""
    static = np.zeros((rows, columns), np.int32)
    static[:, 2:29] = 1 + np.arange(27) // 3
    static[4, 5] = 0
    return Partition(static, np.where(static > 0, (static - 1) // 3 + 1, 0).astype(np.int32))


def reference(counts: NDArray[Any], partition: Partition, per_level: int) -> dict[str, NDArray[np.float64]]:
    """The definition, word for word."""
    levels = [counts.reshape(len(counts), -1).astype(np.float64)]
    while len(levels[-1]) > 1:
        pairs = len(levels[-1]) // 2
        levels.append(levels[-1][: 2 * pairs].reshape(pairs, 2, -1).sum(axis=1))
    means = []
    delays = lags(len(counts), per_level)
    for frames, level in zip(delays.frames, delays.level, strict=True):
        apart = frames >> level
        earlier, later = levels[level][:-apart], levels[level][apart:]
        means.append([(earlier * later).mean(axis=0), earlier.mean(axis=0), later.mean(axis=0)])
    products, a, b = np.moveaxis(np.array(means), 1, 0)
    static, dynamic = partition.static.ravel(), partition.dynamic.ravel()

    def over(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        return np.divide(x, y, out=np.zeros_like(x), where=y > 0)

    def of(values: NDArray[Any], number: int) -> NDArray[Any]:
        return values[:, static == number].mean(axis=1)

    partial = np.stack([over(of(products, k), of(a, k) * of(b, k)) for k in range(1, partition.static_bins + 1)], 1)
    own, g2, error = over(products, a * b), [], []
    for k in range(1, partition.dynamic_bins + 1):
        g2.append(partial[:, partition.owner == k].mean(axis=1))
        error.append(own[:, dynamic == k].std(axis=1, ddof=1) / np.sqrt((dynamic == k).sum()))
    return {"g2": np.stack(g2, 1), "g2_err": np.stack(error, 1), "partial": partial}


def light(frames: int, mean: float, seed: int = 0) -> NDArray[np.int64]:
    """Counts that are brighter here than there, and bunched."""
    random = np.random.default_rng(seed)
    rate = mean * random.exponential(size=(frames, 1, 1)) * random.uniform(0, 2, (ROWS, COLUMNS))
    return random.poisson(rate)


def by(cost: float, counts: NDArray[Any], partition: Partition, per_level: int) -> NDArray[np.int64]:
    """The sums when an event costs so much: 0 by events alone, infinite frame by frame."""
    work = Work(partition, per_level, None, cost)
    for events in Cube(counts).blocks():
        work.hold(events)
    return work.go_on(lags(len(counts), per_level))


@pytest.mark.parametrize(
    ("frames", "mean", "per_level"),
    [
        (2, 0.5, 4),
        (333, 0.01, 4),
        (1500, 0.3, 4),
        (130, 5, 3),
        (100, 300, 4),  # more than a byte
        (70, 30000, 4),  # more than half a word
        (64, 70000, 5),  # more than a half
        (65, 0.1, 1),
        (77, 0.1, 2),
        (90, 0.5, 9),
    ],
)
def test_all_ways_are_the_definition(frames: int, mean: float, per_level: int) -> None:
    counts, partition = light(frames, mean), bins()
    made, expected = multitau(Cube(counts), partition, per_level=per_level), reference(counts, partition, per_level)
    for name, values in expected.items():
        assert np.abs(getattr(made, name) - values).max() < 1e-12 * max(1.0, np.abs(values).max()), name
    assert (by(0.0, counts, partition, per_level) == made.sums).all()
    if mean < 65535:
        assert (by(np.inf, counts, partition, per_level) == made.sums).all()
    assert (by(3.0, counts, partition, per_level) == made.sums).all()


def test_a_single_event_and_pixels_without_any() -> None:
    partition, counts = bins(), np.zeros((40, ROWS, COLUMNS), np.int64)
    assert not multitau(Cube(counts), partition).g2.any()
    counts[[3, 11, 39], 2, 3] = 2
    made, expected = multitau(Cube(counts), partition), reference(counts, partition, 4)
    assert made.g2[7, 0] > 0  # 8 frames apart
    assert np.abs(made.g2 - expected["g2"]).max() < 1e-12
    assert np.abs(made.g2_err - expected["g2_err"]).max() < 1e-12


@pytest.mark.parametrize(("mean", "per_level", "block"), [(0.02, 4, 7), (0.4, 4, 11), (900.0, 3, 5)])
def test_live_is_at_every_moment_what_the_whole_is(mean: float, per_level: int, block: int) -> None:
    counts, partition = light(270, mean), bins()
    live = LiveMultiTau(partition, per_level=per_level)
    for n, events in enumerate(Cube(counts, block).blocks()):
        live.feed(events)
        if n in (0, 1, 4, 9, 20) or live.frames == 270:
            whole = multitau(Cube(counts[: live.frames]), partition, per_level=per_level)
            made = live.result()
            assert (made.sums == whole.sums).all()
            assert (made.g2 == whole.g2).all()


def test_live_goes_on_past_the_levels_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.xpcs.multitau.live.LEVELS", 1)
    monkeypatch.setattr("kernels.xpcs.multitau.live.READY_LEVELS", 1)
    monkeypatch.setattr("kernels.xpcs.multitau.live.HELD_FRAMES", 16)
    counts, partition = light(500, 0.1), bins()
    live = LiveMultiTau(partition)
    for events in Cube(counts).blocks():
        live.feed(events)
    assert (live.result().sums == multitau(Cube(counts), partition).sums).all()


def test_little_memory_changes_nothing() -> None:
    counts, partition = light(400, 0.4), bins(64)
    counts = np.repeat(counts, 8, axis=1)[:, :64]
    whole, once, twice = multitau(Cube(counts), partition), Cube(counts), Cube(counts)
    state = Work(partition, 4).state_bytes(whole.lags.levels)
    assert (multitau(once, partition, memory_bytes=2 * state).sums == whole.sums).all()
    assert once.passes == 1
    assert (multitau(twice, partition, memory_bytes=state).sums == whole.sums).all()
    assert twice.passes > 1
    with pytest.raises(KernelError, match="give it more"):
        multitau(Cube(counts), partition, memory_bytes=1000)


def test_what_is_held_stays_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, partition, held = light(1500, 0.4), bins(), []
    state = Work(partition, 4).state_bytes(lags(1500).levels)
    real = Work.hold

    def hold(work: Work, events: Events) -> None:
        held.append(work.held_bytes + (0 if work.state is None else work.state.nbytes))
        real(work, events)

    monkeypatch.setattr(Work, "hold", hold)
    multitau(Cube(counts), partition, memory_bytes=2 * state)
    assert state < max(held) <= 2 * state


class Watching:
    """Wants to see every g2."""

    def __init__(self) -> None:
        self.seen: list[MultiTau] = []

    def due(self) -> bool:
        return True

    def show(self, so_far: MultiTau) -> None:
        self.seen.append(so_far)


def test_g2_is_shown_while_frames_are_read_if_there_is_memory_for_all_sums() -> None:
    counts, partition, watching, blind = light(100, 0.2), bins(), Watching(), Watching()
    whole = multitau(Cube(counts), partition, watcher=watching)
    assert [made.frames for made in watching.seen] == list(range(7, 100, 7))
    for made in watching.seen[::4]:
        assert (made.sums == multitau(Cube(counts[: made.frames]), partition).sums).all()
    state = Work(partition, 4).state_bytes(whole.lags.levels)
    assert (multitau(Cube(counts), partition, watcher=blind, memory_bytes=2 * state - 2).sums == whole.sums).all()
    assert blind.seen == []


def test_any_number_of_threads_has_the_same_bits() -> None:
    counts, partition = light(200, 0.2), bins()
    before, made = numba.get_num_threads(), multitau(Cube(counts), partition)
    try:
        numba.set_num_threads(1)
        alone = multitau(Cube(counts), partition)
    finally:
        numba.set_num_threads(before)
    assert (alone.sums == made.sums).all()
    assert (alone.g2_err == made.g2_err).all()


def test_speckle_has_its_known_g2() -> None:
    """A field that forgets as exp(-t / 6) has g2 = 1 + exp(-2 t / 6), of single frames."""
    random, frames = np.random.default_rng(3), 3000
    keep = np.exp(-1 / 6)
    kicks = random.normal(size=(frames, ROWS, COLUMNS, 2)) * np.sqrt((1 - keep**2) / 2)
    field = np.empty_like(kicks)
    field[0] = random.normal(size=kicks.shape[1:]) * np.sqrt(0.5)
    for t in range(1, frames):
        field[t] = keep * field[t - 1] + kicks[t]
    made = multitau(Cube(random.poisson(0.5 * (field**2).sum(axis=-1))), bins())
    apart = np.abs(made.g2[:8] - 1 - np.exp(-made.lags.frames[:8, None] / 3)) / made.g2_err[:8]
    assert apart.max() < 5


def test_sums_beyond_32_bits_and_beyond_what_they_hold() -> None:
    """A pixel with 2^31 - 1 photons is still exact; one photon more is refused."""
    static = np.array([[1, 2]], np.int32)
    partition = Partition(static, static)
    counts = np.ones((2, 1, 2), np.int64)
    counts[:, 0, 0] = 2**30, 2**30 - 1
    made = multitau(Cube(counts), partition)
    low, high = (int(word) for word in made.sums[0, 0, :2])
    assert (high << 32) + low == 2**30 * (2**30 - 1)
    assert made.g2[0, 0] == 1
    counts[1, 0, 0] += 1
    with pytest.raises(KernelError, match="2147483648 photons"):
        multitau(Cube(counts), partition)


def test_bad_input_is_said() -> None:
    counts, partition = light(20, 0.2), bins()
    with pytest.raises(KernelError, match="has 1 frames; a delay needs two"):
        multitau(Cube(counts[:1]), partition)
    with pytest.raises(KernelError, match="both need the shape of the detector"):
        multitau(Cube(counts[:, 1:]), partition)
    with pytest.raises(KernelError, match="one at least"):
        multitau(Cube(counts), partition, per_level=0)
    short = Cube(counts)
    short.count = 21
    with pytest.raises(KernelError, match="has 20 frames and said that they are 21"):
        multitau(short, partition)
    live = LiveMultiTau(partition)
    with pytest.raises(KernelError, match="0 frames so far"):
        live.result()
    first, second, *_ = Cube(counts).blocks()
    with pytest.raises(KernelError, match="Frame 0 was to come, and frame 7 came"):
        live.feed(second)
    live.feed(first)
    with pytest.raises(KernelError, match="Frame 7 was to come, and frame 0 came"):
        live.feed(first)
    with pytest.raises(KernelError, match="not where the frames say"):
        live.feed(second._replace(pixels=second.pixels[:-1]))


class Shares(Ranks):
    """One of several ranks, without the others: what it gathers is what it gave."""

    def gathered(self, value: Any) -> list[Any]:
        return [value]

    def told(self, value: Any) -> Any:
        return value


def parts(counts: NDArray[Any], partition: Partition, size: int) -> list[MultiTau]:
    return [multitau(Cube(counts), partition, ranks=Shares(rank, size)) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 4, 300])
def test_shares_of_ranks_add_up(size: int) -> None:
    counts, partition = light(100, 0.2), bins()
    whole = multitau(Cube(counts), partition)
    together = sum(part.sums for part in parts(counts, partition, size))
    assert (together == whole.sums).all()


def main() -> None:
    """What each rank runs in the next test."""
    made = multitau(Cube(light(100, 0.2)), bins(), ranks=Ranks.here())
    np.save(f"{sys.argv[1]}.{Ranks.here().rank}.npy", made.g2)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_have_the_same_bits(size: int, tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMPI_ALLOW_RUN_AS_ROOT": "1", "BEAMWAY_RANKS": str(size)}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,vader,tcp", "NUMBA_NUM_THREADS": "1"}
    line = ["mpirun", "-n", str(size), "--oversubscribe", "--bind-to", "none", sys.executable, __file__]
    made = subprocess.run([*line, str(tmp_path / "g2")], env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    alone = multitau(Cube(light(100, 0.2)), bins())
    for rank in range(size):
        assert (np.load(tmp_path / f"g2.{rank}.npy") == alone.g2).all()


if __name__ == "__main__":
    main()
