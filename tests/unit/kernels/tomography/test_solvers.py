"""The iterative methods against the truth, against filtered back projection, and against slow plain mathematics."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numba
import numpy as np
import pytest

from kernels.compiled import threads
from kernels.errors import KernelError
from kernels.tomography import fbp
from kernels.tomography.iterative.noise import noise_level
from kernels.tomography.iterative.problem import Reason
from kernels.tomography.iterative.projector import Projector
from kernels.tomography.iterative.reconstructor import ALGORITHMS, IterativeReconstructor, Method, Solution
from kernels.tomography.iterative.solvers import spectral_bound, subsets_of
from kernels.tomography.iterative.variation import Denoiser
from kernels.tomography.lanes import LANES
from kernels.tomography.phantom import project_rows, truth_rows

SIZE, AXIS = 96, 45.2
PARTS = np.array(  # density, x, y, z, a, b, c, phi: nowhere below 0, and flat but for edges
    [
        (0.02, 0.0, 0.0, 0.0, 38.0, 31.0, 500.0, 0.3),
        (0.03, 12.0, -9.0, 0.0, 9.0, 6.0, 500.0, -0.7),
        (-0.02, -15.0, 4.0, 0.0, 7.0, 10.0, 500.0, 0.4),
        (0.02, 5.0, 16.0, 0.0, 4.0, 4.0, 500.0, 0.0),
    ]
)
TRUTH = truth_rows(PARTS, SIZE, 1, 0, 1)
MANY, FEW, WEDGE = np.arange(120) * 1.5, np.arange(20) * 9.0 + 0.4, np.arange(0.0, 120.0, 2.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of small steps, each of which would wait for a second thread on a busy machine."""
    most = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(most)


def exact(theta: np.ndarray) -> np.ndarray:
    return project_rows(PARTS, theta, SIZE, 1, AXIS, 0, 1)


def noisy(theta: np.ndarray, level: float, seed: int = 3) -> np.ndarray:
    clean = exact(theta)
    return (clean + level * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)


def error(volume: np.ndarray) -> float:
    return float(np.linalg.norm(volume[0] - TRUTH[0]) / np.linalg.norm(TRUTH[0]))


def made(theta: np.ndarray, sinograms: np.ndarray, algorithm: str, **how: float | str | None) -> Solution:
    return IterativeReconstructor(theta, SIZE, axis=AXIS, method=Method(algorithm, **how)).solve(sinograms)


def filtered(theta: np.ndarray, sinograms: np.ndarray, windows: tuple[str, ...] = ("ramp",)) -> float:
    """The error of filtered back projection, with whichever window suits best."""
    return min(error(fbp.Reconstructor(theta, SIZE, axis=AXIS, window=each).slices(sinograms)) for each in windows)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("theta", "noise"),
    [(FEW, 0.0), (FEW, 0.02), (WEDGE, 0.01), (MANY, 0.05)],
    ids=["few", "few-noisy", "wedge", "noisy"],
)
def test_nearer_to_the_truth_than_filtered_back_projection(algorithm: str, theta: np.ndarray, noise: float) -> None:
    sinograms = noisy(theta, noise)
    windows = fbp.FILTERS if algorithm in ("tv", "huber") else ("ramp",)
    assert error(made(theta, sinograms, algorithm).volume) < 0.9 * filtered(theta, sinograms, windows)


def test_total_variation_is_by_far_the_best_for_few_views_of_what_is_flat() -> None:
    sinograms = noisy(FEW, 0.01)
    best = error(made(FEW, sinograms, "tv").volume)
    assert best < 0.5 * filtered(FEW, sinograms, fbp.FILTERS)
    assert best < 0.5 * error(made(FEW, sinograms, "cgls").volume)
    assert error(made(FEW, sinograms, "huber").volume) < 0.7 * filtered(FEW, sinograms, fbp.FILTERS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_clean_data_come_out_as_with_filtered_back_projection(algorithm: str, scale: float) -> None:
    reconstructor = IterativeReconstructor(MANY, SIZE, axis=AXIS, method=Method(algorithm), scale=scale)
    volume = reconstructor.slices(exact(MANY))
    assert error(volume * scale) < filtered(MANY, exact(MANY))
    assert (volume * scale).sum() == pytest.approx(TRUTH.sum(), rel=1e-3)  # gain 1


@pytest.mark.parametrize("algorithm", ["sirt", "os-sart", "tv", "huber"])
def test_nonnegative_is_kept_and_helps(algorithm: str) -> None:
    sinograms = noisy(FEW, 0.01)
    free, held = (made(FEW, sinograms, algorithm, nonnegative=yes).volume for yes in (False, True))
    assert free.min() < 0 <= held.min()
    assert error(held) < error(free)


@pytest.mark.parametrize("algorithm", ["sirt", "cgls", "os-sart"])
def test_stops_at_the_noise(algorithm: str) -> None:
    sinograms = noisy(MANY, 0.05)
    solution = made(MANY, sinograms, algorithm, tolerance=0.0, noise=0.05)
    assert solution.reasons == (Reason.NOISE,)
    assert solution.residuals[-1, 0] <= 0.05 < solution.residuals[-2, 0]
    assert solution.iterations == (len(solution.residuals),)
    fitted = made(MANY, sinograms, algorithm, tolerance=0.0, noise=0.0, iterations=8 * solution.iterations[0])
    assert fitted.reasons == (Reason.ITERATIONS,)
    assert error(solution.volume) < error(fitted.volume)


@pytest.mark.parametrize("algorithm", ["sirt", "cgls", "os-sart"])
def test_stops_when_settled(algorithm: str) -> None:
    tolerance = 0.02
    solution = made(MANY, noisy(MANY, 0.01), algorithm, tolerance=tolerance, noise=0.0)
    assert solution.reasons == (Reason.SETTLED,)
    changes = -np.diff(solution.residuals[:, 0]) / solution.residuals[1:, 0]
    assert (np.abs(changes[-3:]) <= tolerance).all()
    assert not (np.abs(changes[-4:]) <= tolerance).all()


@pytest.mark.parametrize("algorithm", ["tv", "huber"])
@pytest.mark.parametrize("theta", [FEW, MANY])
def test_a_penalised_slice_is_near_its_minimum_when_settled(algorithm: str, theta: np.ndarray) -> None:
    sinograms = noisy(theta, 0.01)
    solution = made(theta, sinograms, algorithm)
    assert solution.reasons == (Reason.SETTLED,)
    begun = made(theta, sinograms, algorithm, iterations=1).volume
    further = made(theta, sinograms, algorithm, iterations=4 * solution.iterations[0], tolerance=0.0).volume
    left = np.linalg.norm(solution.volume - further)
    assert left < 0.2 * np.linalg.norm(begun - further)
    assert left < 0.02 * np.linalg.norm(further)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stops_after_as_many_as_allowed(algorithm: str) -> None:
    solution = made(MANY, noisy(MANY, 0.01), algorithm, iterations=3, tolerance=0.0, noise=0.0)
    assert solution.reasons == (Reason.ITERATIONS,)
    assert solution.iterations == (3,)
    assert solution.residuals.shape == (3, 1)


@pytest.mark.parametrize("algorithm", ["sirt", "cgls"])
def test_the_residual_falls(algorithm: str) -> None:
    residuals = made(FEW, noisy(FEW, 0.01), algorithm, iterations=15, noise=0.0, tolerance=0.0).residuals[:, 0]
    assert (np.diff(residuals) < 0).all()


def test_more_subsets_go_faster() -> None:
    one, more = (made(MANY, exact(MANY), "os-sart", subsets=subsets, iterations=4, noise=0.0) for subsets in (1, 10))
    assert error(more.volume) < 0.5 * error(one.volume)


def test_a_good_start_saves_iterations() -> None:
    sinograms = exact(MANY)
    reconstructor = IterativeReconstructor(MANY, SIZE, axis=AXIS, method=Method("sirt", noise=0.02))
    begun = fbp.Reconstructor(MANY, SIZE, axis=AXIS).slices(sinograms)
    cold, warm = reconstructor.solve(sinograms), reconstructor.solve(sinograms, start=begun)
    assert cold.reasons == warm.reasons == (Reason.NOISE,)
    assert warm.iterations[0] < 0.3 * cold.iterations[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_missing_does_not_matter(algorithm: str) -> None:
    """Two dead columns and a dozen lost frames, full of rubbish, against the same scan with nothing missing."""
    sinograms, weights = exact(MANY), np.ones((1, len(MANY), SIZE), np.float32)
    weights[:, :, [30, 61]] = 0
    weights[:, 5::10] = 0
    spoilt = np.where(weights > 0, sinograms, np.float32(np.nan))
    reconstructor = IterativeReconstructor(MANY, SIZE, axis=AXIS, method=Method(algorithm))
    whole = error(reconstructor.slices(sinograms))
    assert error(reconstructor.solve(spoilt, weights=weights).volume) < 1.4 * whole
    assert error(reconstructor.slices(np.nan_to_num(spoilt))) > 2 * whole


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_does_not_matter_which_slices_share_a_group(algorithm: str) -> None:
    """Slices that need different numbers of iterations, together and alone: the same bits."""
    sinograms = np.concatenate([noisy(FEW, 0.005), 3 * noisy(FEW, 0.05), 0 * exact(FEW)])
    reconstructor = IterativeReconstructor(FEW, SIZE, axis=AXIS, method=Method(algorithm, iterations=60))
    together = reconstructor.solve(sinograms)
    assert len(set(together.iterations)) > 1
    assert not together.volume[2].any()
    for n in range(3):
        alone = reconstructor.solve(sinograms[n : n + 1])
        np.testing.assert_array_equal(together.volume[n], alone.volume[0])
        assert together.iterations[n] == alone.iterations[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_for_any_number_of_threads(algorithm: str) -> None:
    reconstructor = IterativeReconstructor(FEW, SIZE, axis=AXIS, method=Method(algorithm, iterations=10))
    one = reconstructor.slices(noisy(FEW, 0.01))
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert threads() == numba.config.NUMBA_NUM_THREADS
    np.testing.assert_array_equal(reconstructor.slices(noisy(FEW, 0.01)), one)


def dense(projector: Projector) -> np.ndarray:
    """A as a matrix, column by column."""
    size = projector.columns
    units = np.eye(size * size, dtype=np.float32).reshape(-1, size, size)
    rows = []
    for first in range(0, len(units), LANES):
        group = units[first : first + LANES]
        cast = projector.forward(projector.lanes_of(group), projector.sinogram())
        rows.append(np.moveaxis(cast, 2, 0)[: len(group)].reshape(len(group), -1))
    return np.concatenate(rows).T.astype(np.float64)


def test_conjugate_gradients_find_the_least_squares() -> None:
    theta, random = np.arange(24) * 7.5, np.random.default_rng(1)
    reconstructor = IterativeReconstructor(
        theta, 12, axis=5.7, circle=False, method=Method("cgls", iterations=150, noise=0.0, tolerance=0.0)
    )
    sinogram = random.standard_normal((1, 24, 12), np.float32)
    weights = random.random((1, 24, 12), np.float32)
    roots = np.sqrt(weights.ravel())
    matrix = roots[:, None] * dense(reconstructor.projector)
    least = np.linalg.norm(matrix @ np.linalg.lstsq(matrix, roots * sinogram.ravel())[0] - roots * sinogram.ravel())
    solution = reconstructor.solve(sinogram, weights=weights)
    reached = np.linalg.norm(matrix @ solution.volume.ravel() - roots * sinogram.ravel())
    assert least <= reached < 1.001 * least
    assert solution.residuals[-1, 0] == pytest.approx(reached / np.sqrt(weights.sum()), rel=1e-3)


def test_the_spectral_bound_is_one_and_close() -> None:
    projector = Projector(np.arange(24) * 7.5, 16, axis=7.1)
    largest = np.linalg.norm(dense(projector), 2) ** 2
    assert largest <= spectral_bound(projector) <= 1.05 * largest


@pytest.mark.parametrize(("threshold", "nonnegative"), [(0.0, False), (0.0, True), (0.3, False)])
def test_denoising_is_the_minimum_that_it_should_be(threshold: float, nonnegative: bool) -> None:
    """Against subgradient-free plain mathematics: no small change of the result lowers what is minimised."""
    random, size, strength = np.random.default_rng(2), 14, 0.4
    projector = Projector(np.array([0.0]), size, axis=6.0, circle=False)
    noise = random.standard_normal((1, size, size), np.float32)
    noise[0, 3:9, 4:11] += 2

    def height(u: np.ndarray) -> float:
        across = np.diff(u, axis=1, append=u[:, -1:])
        down = np.diff(u, axis=0, append=u[-1:])
        slope = np.hypot(across, down)
        penalty = (
            slope if threshold == 0 else np.where(slope <= threshold, slope**2 / (2 * threshold), slope - threshold / 2)
        )
        return float(0.5 * ((u - noise[0]) ** 2).sum() + strength * penalty.sum())

    levels = np.full(LANES, threshold)
    denoise = Denoiser(projector, threshold=levels, nonnegative=nonnegative, inner=1000)
    image = projector.lanes_of(noise)
    out = projector.image()
    denoise(image, projector.image(), 0.0, np.full(LANES, strength), out)
    result = projector.slices_of(out, 1)[0].astype(np.float64)
    assert result.min() >= 0 or not nonnegative
    lowest = height(result)
    assert lowest < 0.8 * height(np.maximum(noise[0], 0) if nonnegative else noise[0])
    for scale in (0.3, 0.03, 0.003):
        for _ in range(60):
            other = result + scale * random.standard_normal() * (random.random((size, size)) < random.random())
            assert height(np.maximum(other, 0) if nonnegative else other) > lowest - 1e-4


@pytest.mark.parametrize("level", [0.03, 0.1])
def test_the_noise_is_estimated(level: float) -> None:
    assert noise_level(noisy(MANY, level)[0]) == pytest.approx(level, rel=0.15)
    assert noise_level(exact(MANY)[0]) < 0.005
    assert noise_level(np.zeros((4, 2), np.float32)) == 0


def test_subsets_hold_each_angle_once() -> None:
    for angles, count in ((721, 26), (20, 4), (7, 7), (5, 1)):
        parts = subsets_of(angles, count)
        assert len(parts) == count
        assert sorted(np.concatenate(parts)) == list(range(angles))
        assert {len(part) for part in parts} <= {angles // count, angles // count + 1}


def test_progress_is_told_and_can_end_the_work() -> None:
    class GivenUp(Exception):
        pass

    told = []

    def listen(number: int, residuals: np.ndarray) -> None:
        told.append((number, residuals.shape))
        if number == 4:
            raise GivenUp

    reconstructor = IterativeReconstructor(FEW, SIZE, axis=AXIS, method=Method("sirt", noise=0.0))
    with pytest.raises(GivenUp):
        reconstructor.solve(noisy(FEW, 0.01), on_iteration=listen)
    assert told == [(n, (1,)) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_memory_is_foretold(algorithm: str) -> None:
    sinograms = np.repeat(noisy(MANY, 0.01), LANES, 0)
    weights = np.ones_like(sinograms)
    method = Method(algorithm, iterations=2)
    IterativeReconstructor(MANY, SIZE, axis=AXIS, method=method).solve(sinograms, weights=weights)  # compiled
    tracemalloc.start()
    try:
        reconstructor = IterativeReconstructor(MANY, SIZE, axis=AXIS, method=method)
        volume = reconstructor.solve(sinograms, weights=weights).volume
        peak = tracemalloc.get_traced_memory()[1] - volume.nbytes
    finally:
        tracemalloc.stop()
    assert 0.4 * reconstructor.fixed_bytes < peak < 1.05 * reconstructor.fixed_bytes


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"algorithm": "sirrt"}, "Did you mean 'sirt'"),
        ({"start": "ones"}, "zero or fbp"),
        ({"algorithm": "cgls", "nonnegative": True}, "choose sirt"),
        ({"iterations": 0}, "iterations is 0"),
        ({"relaxation": 2.0}, "below 2"),
        ({"noise": -1.0}, "noise is -1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"tolerance": 1.0}, "tolerance is 1"),
    ],
)
def test_a_method_that_cannot_be(how: dict[str, float | str], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence):
        replace(Method(), **how)


def test_data_that_cannot_be() -> None:
    reconstructor, good = IterativeReconstructor(FEW, SIZE, axis=AXIS), exact(FEW)
    with pytest.raises(KernelError, match="20 angles and 96 columns; these are 1 x 20 x 95"):
        reconstructor.slices(good[:, :, 1:])
    with pytest.raises(KernelError, match="1 to 8 sinograms"):
        reconstructor.slices(np.repeat(good, LANES + 1, 0))
    with pytest.raises(KernelError, match="1 line integrals are not finite"):
        reconstructor.slices(np.where(np.arange(good.size).reshape(good.shape) == 77, np.float32(np.nan), good))
    with pytest.raises(KernelError, match="do not fit"):
        reconstructor.solve(good, weights=np.ones((3, 4), np.float32))
    with pytest.raises(KernelError, match="between 0"):
        reconstructor.solve(good, weights=2 * np.ones_like(good))
    with pytest.raises(KernelError, match="start from"):
        reconstructor.solve(good, start=np.zeros((2, SIZE, SIZE), np.float32))
    with pytest.raises(KernelError, match="more than the 20 angles"):
        IterativeReconstructor(FEW, SIZE, axis=AXIS, method=Method("os-sart", subsets=21))
