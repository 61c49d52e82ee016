"""An emulated GPU counts what the CPU counts, in any batches, parts and order of threads, and climbs to the very same
orientations; and what cannot be is one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gold_layers import cubic, cubic_rotations, layer, random_orientations, scan
from numpy.typing import NDArray
from test_nearfield_reconstruct import near
from test_nearfield_search import G0, case

from kernels.cuda import sources
from kernels.cuda.device import choose
from kernels.errors import Exit, KernelError
from kernels.hedm.distortion import GeDistortion
from kernels.hedm.nearfield.cuda import search as cuda
from kernels.hedm.nearfield.ideal import ideal_images
from kernels.hedm.nearfield.ladder import widened
from kernels.hedm.nearfield.reconstruct import reconstruct
from kernels.hedm.nearfield.refine import Fit, climb, spread
from kernels.hedm.nearfield.search import Found, screen
from kernels.hedm.nearfield.setup import Setup, facing
from kernels.hedm.nearfield.simulate import Layer, simulate, voronoi
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import Voxels, hexagons, squares, triangles
from tests.unit.kernels.cuda.emulated import Device

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

Floats = NDArray[np.float64]
CLIMB = {"step_deg": 0.4, "least_deg": 0.1}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device().install(monkeypatch)


def same(made: Found | Fit, expected: Found | Fit) -> None:
    for name in ("best", "orientations", "hits", "counted"):
        if hasattr(expected, name):
            np.testing.assert_array_equal(getattr(made, name), getattr(expected, name), err_msg=name)


def small(
    make: Callable[..., Voxels] = squares, *, absent: bool = False, start_deg: float = -90.0, step_deg: float = 2.0
) -> tuple[Spots, Setup, Layer]:
    """Images of three grains in few voxels, on a detector at whose edges many of the spots end."""
    setup = facing(
        0.18, [5000.0, 6500.0], [(370.0, 140.3), (371.0, 141.1)], pixel_um=4.0, rows=384, columns=280,
        omega_start_deg=start_deg, omega_step_deg=step_deg, frames=180, tilts_deg=(0.4, -0.7, 0.3),
    )  # fmt: skip
    grains = voronoi(make(60.0, 10.0, pixel_um=4.0), random_orientations(3, seed=7), seed=8)
    images = simulate(grains, setup, G0, noise=2e-3, missing=0.1, seed=9)
    if absent:
        images.present[0, 10:40] = images.present[1, 30:60] = False
        images.bits[~images.present] = 0
    return images, setup, grains


@pytest.mark.parametrize("keep", [1, 4])
@pytest.mark.parametrize("missing_frames", [False, True])
def test_the_best_are_those_of_the_cpu(gpu: Device, missing_frames: bool, keep: int) -> None:
    images, setup, grains, candidates = case(missing_frames=missing_frames)
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    found = ready.screen(images, setup, grains.voxels, candidates, G0, keep=keep)
    same(found, screen(images, setup, grains.voxels, candidates, G0, keep=keep))
    assert (found.best[:, 0] < 35).mean() > 0.9


def test_of_triangles_too(gpu: Device) -> None:
    images, setup, grains = small(triangles)
    candidates = np.concatenate([random_orientations(40, seed=3), grains.orientations])
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    found = ready.screen(images, setup, grains.voxels, candidates, G0, keep=2)
    same(found, screen(images, setup, grains.voxels, candidates, G0, keep=2))
    starts = candidates[found.best]
    same(
        ready.climb(images, setup, grains.voxels, starts, G0, step_deg=0.1, least_deg=0.1),
        climb(images, setup, grains.voxels, starts, G0, step_deg=0.1, least_deg=0.1),
    )


@pytest.mark.parametrize(("batch", "busy", "each"), [(7, 1, 1), (64, 20, 1), (70, 10_000, 1)])
@pytest.mark.parametrize("backwards", [0, 1])  # of the lot by which streams and threads run
def test_batches_and_parts_change_nothing(
    monkeypatch: pytest.MonkeyPatch, batch: int, busy: int, each: int, backwards: int
) -> None:
    """Parts of all orientations of a batch, of some, and of two: of two equals one is here and one there."""
    images, setup, grains, candidates = case()
    Device(seed=backwards).install(monkeypatch)
    monkeypatch.setattr(cuda, "LEAST", 1)
    monkeypatch.setattr(cuda, "BATCH", batch)
    monkeypatch.setattr(cuda, "_BUSY", busy)
    monkeypatch.setattr(cuda, "_EACH", each)
    some = grains.voxels.chosen(np.arange(0, len(grains.voxels.places_um), 3))
    ready = cuda.prepare(images, setup, some, G0)
    same(ready.screen(images, setup, some, candidates, G0, keep=2), screen(images, setup, some, candidates, G0, keep=2))


@pytest.mark.parametrize("count", [1, 2, 5, 17, 33])
def test_voxels_share_a_warp(gpu: Device, count: int) -> None:
    """One, of which all lanes take spots; some; and more than a warp has lanes."""
    images, setup, grains, candidates = case()
    some = grains.voxels.chosen(np.arange(count))
    ready = cuda.prepare(images, setup, some, G0)
    same(ready.screen(images, setup, some, candidates, G0, keep=3), screen(images, setup, some, candidates, G0, keep=3))


def test_only_what_is_above_the_least(gpu: Device) -> None:
    images, setup, grains, candidates = case()
    every = screen(images, setup, grains.voxels, candidates, G0)
    least = round(float(np.median(every.confidence)), 4)
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    found = ready.screen(images, setup, grains.voxels, candidates, G0, least=least)
    same(found, screen(images, setup, grains.voxels, candidates, G0, least=least))
    assert 0 < (found.best < 0).sum() < len(found.best)


def test_on_coarse_images_and_a_mirrored_detector(gpu: Device) -> None:
    images, setup, grains, candidates = case()
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    for wide, other in ((widened(images, setup, 2.0), setup), (images, setup.mirrored())):
        same(
            ready.screen(wide, other, grains.voxels, candidates, G0, keep=3),
            screen(wide, other, grains.voxels, candidates, G0, keep=3),
        )
        starts = candidates[30 + grains.grain][:, None][:5]
        some = grains.voxels.chosen(np.arange(5))
        same(ready.climb(wide, other, some, starts, G0, **CLIMB), climb(wide, other, some, starts, G0, **CLIMB))


@pytest.mark.parametrize(("start", "step"), [(-90.0, 2.0), (90.0, -2.0), (30.0, 1.5)])
def test_omega_either_way_from_anywhere(gpu: Device, start: float, step: float) -> None:
    """Omega of a reflection is folded into the turn, and may be of none of the frames."""
    images, setup, grains = small(start_deg=start, step_deg=step)
    candidates = np.concatenate([random_orientations(50, seed=3), grains.orientations])
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    found = ready.screen(images, setup, grains.voxels, candidates, G0)
    same(found, screen(images, setup, grains.voxels, candidates, G0))
    assert (found.best >= 0).mean() > 0.9


def test_no_orientations(gpu: Device) -> None:
    images, setup, grains = small()
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    none = np.empty((0, 3, 3))
    same(ready.screen(images, setup, grains.voxels, none, G0), screen(images, setup, grains.voxels, none, G0))


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_climbing_ends_where_it_does_on_the_cpu(monkeypatch: pytest.MonkeyPatch, centre: bool, seed: int) -> None:
    """From two starts each, in parts of some voxels."""
    images, setup, grains = small()
    Device(seed=seed).install(monkeypatch)
    monkeypatch.setattr(cuda, "VOXELS", 13)
    true = grains.orientations[grains.grain]
    starts = np.stack([near(true, 1.5, seed=1), near(true, 0.3, seed=2)], axis=1)
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    made = ready.climb(images, setup, grains.voxels, starts, G0, centre=centre, **CLIMB)
    expected = climb(images, setup, grains.voxels, starts, G0, centre=centre, **CLIMB)
    same(made, expected)
    assert np.median(made.confidence) > 0.7
    assert (made.orientations != starts[:, 0]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("part", [None, np.array([3, 4, 5, 11, 20])])
def test_spreading_changes_what_it_does_on_the_cpu(
    gpu: Device, monkeypatch: pytest.MonkeyPatch, part: NDArray[np.int64] | None
) -> None:
    images, setup, grains = small()
    monkeypatch.setattr(cuda, "VOXELS", 7)
    count = len(grains.grain)
    begin = np.where(np.arange(count) % 2 == 0, grains.grain, 0)  # every other one has its own grain
    starts = near(grains.orientations[begin], 0.1, seed=3)
    fit = climb(images, setup, grains.voxels, starts[:, None], G0, step_deg=0.1, least_deg=0.1, centre=False)
    changed = np.arange(count) % 3 > 0
    how = {"mine": part, "changed": changed, **CLIMB}
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    made, new = ready.spread(images, setup, grains.voxels, fit, G0, **how)
    expected, expected_new = spread(images, setup, grains.voxels, fit, G0, **how)
    same(made, expected)
    np.testing.assert_array_equal(new, expected_new)
    assert 0 < new.sum() < count


@pytest.mark.parametrize("bent", [False, True])
def test_the_whole_map_is_that_of_the_cpu(gpu: Device, bent: bool) -> None:
    """Of hexagons behind optics that bend space, too."""
    setup = replace(scan(), distortion=(GeDistortion((0.0, 0.0, 6.0, 1.0, 1.0, 1.0)), None)) if bent else scan()
    voxels = hexagons(70.0, 12.0, pixel_um=4.0) if bent else layer(12.0, 70.0)
    grains = voronoi(voxels, random_orientations(3, seed=1), seed=2)
    images, rotations = simulate(grains, setup, G0, noise=1e-3, spread=int(bent), seed=3), cubic_rotations()
    images, setup = ideal_images(images, setup)
    how: dict[str, Any] = {"seeds": near(grains.orientations, 0.4, seed=9), "least_deg": 0.1, "gap_deg": 0.5}
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    made = reconstruct(images, setup, grains.voxels, G0, rotations, way=ready, **how)
    expected = reconstruct(images, setup, grains.voxels, G0, rotations, **how)
    assert made.chance == expected.chance
    for name in ("orientations", "confidence", "expected"):
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))
    np.testing.assert_array_equal(made.segments.grain, expected.segments.grain)
    assert made.accepted.mean() > 0.9


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("all_counted + more + missed * points", "all_counted + more + 2 * missed * points"),
        ("    __syncwarp();\n    for (int n = place.lane", "    for (int n = place.lane"),
        ("number % shares != share", "number % shares != 0"),
        ("one.which > other.which", "one.which < other.which"),
        ("return lit || !inside ? POSSIBLE : MISSED;", "return lit && inside ? POSSIBLE : MISSED;"),
        ("n += parts, amount++", "n += parts + 1, amount++"),
        ("spot.whole || is_on(scene, spot, x, y)", "true"),
        ("ALL >> (31 - (high - low))", "ALL >> (32 - (high - low))"),
        (
            "middles + 5 * ((reach[0] * (FARTHEST + 1) + reach[1])",
            "middles + 5 * ((reach[1] * (FARTHEST + 1) + reach[0])",
        ),
        ("if (!scene.present[image])\n      continue;", ""),
        ("angle = 0.5 * PI - angle;", "angle = PI - angle;"),
    ],
)
def test_a_mistake_in_the_source_shows(monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    before = sources.text
    assert any(right in before(source) for source in cuda.KERNELS)
    monkeypatch.setattr(sources, "text", lambda source: before(source).replace(right, wrong))
    images, setup, grains = small(absent=True)
    some = grains.voxels
    candidates = np.concatenate([random_orientations(40, seed=4), *[near(grains.orientations, 0.2, seed=5)] * 3])
    starts = near(grains.orientations[grains.grain], 0.5, seed=1)[:15, None]
    few = some.chosen(np.arange(15))
    searches = [(some, 2), (some, 5), (few, 2)]
    found = [screen(images, setup, each, candidates, G0, keep=keep) for each, keep in searches]
    fit = climb(images, setup, few, starts, G0, **CLIMB)

    def shows(seed: int) -> bool:
        Device(seed=seed).install(monkeypatch)
        try:
            ready = cuda.prepare(images, setup, some, G0)
            for (each, keep), expected in zip(searches, found, strict=True):
                same(ready.screen(images, setup, each, candidates, G0, keep=keep), expected)
            same(ready.climb(images, setup, few, starts, G0, **CLIMB), fit)
        except AssertionError:  # not the same, or it wrote beyond an array
            return True
        return False

    assert any(shows(seed) for seed in range(3))


def test_batches_are_as_large_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    images, setup, grains, candidates = case()
    some = grains.voxels.chosen(np.arange(0, len(grains.grain), 5))
    monkeypatch.setattr(cuda, "BATCH", 64)
    monkeypatch.setattr(cuda, "LEAST", 8)
    most, sizes = Device().install(monkeypatch), {}
    ready = cuda.prepare(images, setup, some, G0)
    assert ready._batch == 64
    spare = 64 * cuda._Room.bytes_of(1, len(G0), images.distances)
    for share in (0.6, 0.3):
        device = Device(int(most.peak - (1 - share) * spare)).install(monkeypatch)
        ready = cuda.prepare(images, setup, some, G0)
        sizes[share] = ready._batch
        same(ready.screen(images, setup, some, candidates, G0), screen(images, setup, some, candidates, G0))
        assert device.peak <= device.memory
    assert sizes == {0.6: 32, 0.3: 16}


def test_images_that_are_not_needed_now_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has memory for the images of one angle, and is asked to go to and fro between two."""
    images, setup, grains = small()
    monkeypatch.setattr(cuda, "BATCH", 32)
    wide = Spots(images.bits.copy(), images.rows, images.columns, images.present)
    device = Device().install(monkeypatch)
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    held = device.used
    candidates = random_orientations(20, seed=3)
    tight = Device(device.peak + held // 2).install(monkeypatch)
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    expected = screen(images, setup, grains.voxels, candidates, G0)
    for each in (images, wide, images):
        same(ready.screen(each, setup, grains.voxels, candidates, G0), expected)
        assert list(ready._images) == [each]
    assert tight.peak <= tight.memory


def test_voxels_are_refined_in_as_many_parts_as_memory_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    images, setup, grains = small()
    starts = near(grains.orientations[grains.grain], 0.3, seed=2)[:, None]
    device = Device().install(monkeypatch)
    ready = cuda.prepare(images, setup, grains.voxels, G0)
    expected, device.peak = climb(images, setup, grains.voxels, starts, G0, **CLIMB), 0
    same(ready.climb(images, setup, grains.voxels, starts, G0, **CLIMB), expected)
    device.memory, launched = device.peak - 4000, []
    launch = ready._launch

    def noted(kernel: str, warps: int, *arguments: Any) -> None:
        launched.append(warps)
        launch(kernel, warps, *arguments)

    monkeypatch.setattr(ready, "_launch", noted)
    same(ready.climb(images, setup, grains.voxels, starts, G0, **CLIMB), expected)
    assert launched == [16, 8, 8, 8, 8]  # the second half of 16 has not fitted beside the first


def test_what_does_not_fit_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    images, setup, grains = small()
    Device(20_000).install(monkeypatch)
    choice = choose("auto", lambda: cuda.prepare(images, setup, grains.voxels, G0))
    assert (choice.kind, choice.ready) == ("cpu", None)
    assert choice.reason.startswith("The images of 180 frames at 2 distances need about 0.0")
    assert choice.reason.endswith("has 2e-05 GB: take device cpu.")


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((9, 100, 4), "9 distances are more than the 8 that the GPU takes: take device cpu."),
        ((2, 20_000, 1), "20000 reflections are more than the 16383 "),
        ((2, 16_000, 64), "2048000 sample points of reflections are more than the 1048575 "),
    ],
)
def test_more_than_the_gpu_counts_is_the_cpus(sizes: tuple[int, int, int], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        cuda._check_sizes(*sizes)
    assert caught.value.exit_code == Exit.USAGE


def test_confidences_differ_where_the_gpu_compares_them() -> None:
    """The nearest fractions that may be counted differ in the bits that are compared, and equal ones do not."""
    most = cuda._MOST_COUNTED - 1
    share = [(hits << cuda._SHARE) // counted for hits, counted in ((most - 2, most - 1), (most - 1, most))]
    assert share[0] < share[1]
    assert (5 << cuda._SHARE) // 7 == (50_000 << cuda._SHARE) // 70_000
    assert ((most << cuda._SHARE) // most) * most < 1 << 63


def test_a_device_that_fails_is_one_sentence(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    images, setup, grains = small()
    ready = cuda.prepare(images, setup, grains.voxels, G0)

    def fail(*_: object) -> None:
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered\nand more")

    for name in ready._kernels:
        monkeypatch.setitem(ready._kernels, name, fail)
    starts = grains.orientations[grains.grain][:, None]
    fit = Fit(starts[:, 0], *np.ones((2, len(starts)), np.int64))
    for work in (
        lambda: ready.screen(images, setup, grains.voxels, starts[:, 0], G0),
        lambda: ready.climb(images, setup, grains.voxels, starts, G0, **CLIMB),
        lambda: ready.spread(images, setup, grains.voxels, fit, G0, **CLIMB),
    ):
        with pytest.raises(KernelError, match=r"illegal memory access was encountered\): try again") as caught:
            work()
        assert caught.value.exit_code == Exit.TRANSIENT


def test_images_of_another_scan_are_refused(gpu: Device) -> None:
    images, setup, grains = small()
    ready = cuda.prepare(images, setup, grains.voxels, cubic(0.5))
    with pytest.raises(KernelError, match="180 frames at each distance, but the scan has 90"):
        ready.screen(images, replace(setup, frames=90), grains.voxels, np.eye(3)[None], G0)
