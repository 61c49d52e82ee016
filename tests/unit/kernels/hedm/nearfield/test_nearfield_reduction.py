"""Bits of frames: the median in blocks is that of all frames, and spots are the groups that another library labels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from kernels.errors import Exit, KernelError
from kernels.hedm.nearfield.reduction import median, reduce
from kernels.hedm.nearfield.spots import Spots, from_lists

Counts = NDArray[np.uint16]


def frames(count: int = 41, rows: int = 70, columns: int = 93, seed: int = 0) -> Counts:
    """A background that differs from pixel to pixel, noise, and in each frame spots elsewhere."""
    rng = np.random.default_rng(seed)
    made = rng.integers(90, 700, (rows, columns)) + rng.integers(-4, 5, (count, rows, columns))
    for frame in made:
        for _ in range(3):
            r, c = rng.integers(0, rows - 9), rng.integers(0, columns - 9)
            frame[r : r + rng.integers(1, 9), c : c + rng.integers(1, 9)] += 200
    return made.astype(np.uint16)


def unpacked(spots: Spots) -> NDArray[np.bool_]:
    bits = np.unpackbits(spots.bits.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    assert not bits[..., spots.columns :].any()
    return bits[..., : spots.columns]


class Watched:
    """Frames that know the largest block that was asked for."""

    def __init__(self, values: Counts) -> None:
        self.values, self.shape, self.largest = values, values.shape, 0

    def __getitem__(self, key: Any) -> Counts:
        part = self.values[key]
        self.largest = max(self.largest, part.nbytes)
        return part


@pytest.mark.parametrize("count", [1, 2, 41, 42])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_median(count: int, kind: type) -> None:
    values = frames(count).astype(kind)
    made = median(values, block_bytes=20_000)
    np.testing.assert_array_equal(made, np.sort(values, axis=0)[(count - 1) // 2].astype(np.float32))


def test_median_leaves_frames_out() -> None:
    values = frames(9)
    values[[2, 5]] = 60_000
    np.testing.assert_array_equal(median(values, leave=[2, 5]), median(np.delete(values, [2, 5], axis=0)))


def test_memory_is_bounded_by_blocks() -> None:
    """No block that is read is larger than asked for, whatever there is in all."""
    watched = Watched(frames(64, 64, 96))
    reduce([watched], threshold=50, block_bytes=100_000)
    assert watched.values.nbytes > 700_000
    assert watched.largest <= 100_000


@pytest.mark.parametrize("least", [1, 4, 12])
def test_spots_are_groups_of_touching_pixels(least: int) -> None:
    values = frames()
    made = unpacked(reduce([values], threshold=50, least_pixels=least))[0]
    above = values - median(values) > 50
    for image, frame in zip(made, above, strict=True):
        labels, count = ndimage.label(frame, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        sizes[0] = 0
        np.testing.assert_array_equal(image, sizes[labels] >= least)
    assert made.any()


def test_groups_that_meet_late() -> None:
    """A spiral and a comb: runs that are joined only many rows further down, and at corners."""
    image = np.zeros((9, 40), np.uint16)
    image[0, ::2] = image[1, ::2] = image[2, 1::2] = image[5:, 20] = 100
    made = unpacked(reduce([image[None]], threshold=50, least_pixels=20, backgrounds=[np.zeros((9, 40))]))[0, 0]
    labels, _ = ndimage.label(image, np.ones((3, 3)))
    np.testing.assert_array_equal(made, labels == labels[0, 0])


def test_edges_do_not_depend_on_how_bright_a_spot_is() -> None:
    """Blurred squares ten and a hundred times as bright: cut at their edges both have their true size."""
    image = np.zeros((2, 80, 80))
    image[0, 20:40, 15:45] = 400
    image[1, 20:40, 15:45] = 4000
    blurred = ndimage.gaussian_filter(image, (0, 2, 2))
    backgrounds = [np.zeros((80, 80))]
    plain = unpacked(reduce([blurred], threshold=20, backgrounds=backgrounds))[0].sum(axis=(1, 2))
    cut = unpacked(reduce([blurred], threshold=20, backgrounds=backgrounds, sigma=2.0))[0].sum(axis=(1, 2))
    assert plain[1] > plain[0] + 60 > 600 + 60
    np.testing.assert_allclose(cut, 20 * 30, rtol=0.12)
    assert abs(int(cut[1]) - int(cut[0])) < 20


def test_frames_in_hdf5(tmp_path: Any) -> None:
    values = frames()
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["data"] = values
        made = reduce([file["data"]], threshold=50, block_bytes=50_000)
    np.testing.assert_array_equal(made.bits, reduce([values], threshold=50).bits)


def test_frames_that_are_missing() -> None:
    values = frames()
    values[7] = 0
    made = reduce([values, values], threshold=50, missing=[[], [3, 40]])
    assert np.flatnonzero(~made.present[0]).tolist() == [7]
    assert np.flatnonzero(~made.present[1]).tolist() == [3, 7, 40]
    assert not made.bits[~made.present].any()


@pytest.mark.parametrize(
    ("sources", "sentence", "code"),
    [
        ([], "no frames", Exit.NO_INPUT),
        ([np.zeros((0, 5, 5))], "no frames", Exit.NO_INPUT),
        ([frames(5), frames(6)], "5 x 70 x 93, 6 x 70 x 93", Exit.BAD_INPUT),
        ([frames(5), frames(5, rows=71)], "different shape", Exit.BAD_INPUT),
        ([np.full((5, 20, 20), 7, np.uint16)], "No pixel of any frame at distance 1", Exit.BAD_INPUT),
        ([np.zeros((5, 20, 20), np.uint16)], "There are no frames", Exit.NO_INPUT),
    ],
)
def test_bad_frames(sources: list[Counts], sentence: str, code: int) -> None:
    with pytest.raises(KernelError, match=sentence) as error:
        reduce(sources, threshold=50)
    assert error.value.exit_code == code


def test_lists() -> None:
    rows, columns = np.array([0, 3, 9]), np.array([0, 31, 40])
    made = from_lists(10, 41, [[(rows, columns), None], [(rows[:1], columns[:1]), (rows, columns)]])
    bits = unpacked(made)
    assert np.argwhere(bits[0, 0]).tolist() == [[0, 0], [3, 31], [9, 40]]
    assert bits.sum() == 7
    assert made.present.tolist() == [[True, False], [True, True]]
    with pytest.raises(KernelError, match="1 pixels outside of 9 rows"):
        from_lists(9, 41, [[(rows, columns)]])
    with pytest.raises(KernelError, match="2, 1 frames"):
        from_lists(10, 41, [[(rows, columns), None], [(rows, columns)]])
    with pytest.raises(KernelError, match="no frames at distance 2"):
        from_lists(10, 41, [[(rows, columns)], [None]])


_FAILING = """
import numpy as np
from kernels.errors import KernelError
from kernels.ranks import Ranks
ranks = Ranks.here()
def fill(array, which, of):
    assert of == 3
    array[which::of] = which
    if array.shape == (6,) and which == 1:
        raise KernelError("no room")
made = ranks.shared((7, 2), np.int32, fill)
assert made[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
try:
    ranks.shared((6,), np.int32, fill)
except KernelError as error:
    print("SAID", ranks.fail(error), flush=True)
    ranks.part()
"""


def test_ranks_share_an_array_and_its_failures() -> None:
    """Each sees what all have filled; of one that fails all the others hear, and none waits for ever."""
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    line = ["mpirun", "-n", "3", "--oversubscribe", "--bind-to", "none", sys.executable, "-c", _FAILING]
    said = subprocess.run(line, env=environment, check=True, timeout=60, capture_output=True, text=True)
    lines = sorted(one for one in said.stdout.splitlines() if one.startswith("SAID"))
    assert lines == ["SAID no room", "SAID rank 1 failed: no room", "SAID rank 1 failed: no room"]
