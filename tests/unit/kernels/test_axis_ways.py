"""Each way to find the rotation axis by itself, and what follows when they agree, contradict each other or fail."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.errors import KernelError
from kernels.tomography import phantom
from kernels.tomography.axis import Estimate, find_axis
from kernels.tomography.axis.choose import choose
from kernels.tomography.axis.estimate import uniqueness, weighted_median
from kernels.tomography.axis.moment import centre_of_mass
from kernels.tomography.axis.registration import register
from kernels.tomography.axis.sharpness import Sharpness, joined
from kernels.tomography.axis.turn import opposite_pairs, turn
from kernels.tomography.axis.wedge import least_wedge

COLUMNS, MIDDLE = 192, 95.5

Scan = tuple[np.ndarray, np.ndarray, float]


def scan(
    off: float,
    *,
    angles: int = 241,
    over: float = 180.0,
    reach: float | None = None,
    noise: float = 0.02,
    stripes: float = 0.0,
    rows: int = 3,
    seed: int = 1,
) -> Scan:
    """Exact sinograms with noise, the angles and the axis; `reach` is how far from the axis the object goes."""
    axis = MIDDLE + off
    margin = reach or min(axis, COLUMNS - 1 - axis) + 0.5
    theta = np.arange(angles) * over / angles
    parts = phantom.sample_object(COLUMNS, 48, margin=margin, absorption=1.5, seed=seed)
    exact = phantom.project_rows(parts, theta, COLUMNS, 48, axis, 24 - rows // 2, 24 + (rows + 1) // 2)
    random = np.random.default_rng(seed)
    exact += (noise * random.standard_normal(exact.shape)).astype(np.float32)
    return exact + (stripes * random.standard_normal((rows, 1, COLUMNS))).astype(np.float32), theta, axis


@pytest.mark.parametrize("off", [0.0, 0.05, -0.05, 0.15, -0.15, 0.25, -0.25])
@pytest.mark.parametrize("fault", [{"noise": 0.0}, {"noise": 0.03, "stripes": 0.03}], ids=["clean", "faulty"])
def test_within_a_quarter_of_a_pixel_up_to_a_quarter_of_the_width_off(off: float, fault: dict[str, float]) -> None:
    sinograms, theta, axis = scan(round(off * COLUMNS) + 0.3, **fault)
    found = find_axis(sinograms, theta)
    assert found.position == pytest.approx(axis, abs=0.25 if any(fault.values()) else 0.03)
    assert found.level == "high"
    assert not found.warning


@pytest.mark.parametrize("off", [0.3, -0.37, 0.4])
def test_half_acquisition(off: float) -> None:
    """The axis near the detector's edge, the object seen by halves: only opposite projections know of the axis."""
    off *= COLUMNS
    sinograms, theta, axis = scan(off + 0.2, angles=480, over=360.0, reach=0.5 * COLUMNS + abs(off), stripes=0.02)
    found = find_axis(sinograms, theta)
    assert found.position == pytest.approx(axis, abs=0.25)
    assert found.method == "pairs"
    assert found.confidence > 0.5
    sharp = found.by("sharpness")
    assert sharp is not None
    assert sharp.position == pytest.approx(axis, abs=1.0), "trial slices of the joined halves say the same"


@pytest.mark.parametrize("off", [-12.3, 40.2])
def test_full_turn(off: float) -> None:
    sinograms, theta, axis = scan(off, angles=400, over=360.0, stripes=0.05)
    found = find_axis(sinograms, theta)
    assert found.position == pytest.approx(axis, abs=0.15)
    assert found.level == "high"


@pytest.mark.parametrize(("angles", "bar"), [(60, 0.1), (24, 0.15), (12, 0.2)])
def test_few_angles(angles: int, bar: float) -> None:
    sinograms, theta, axis = scan(-20.4, angles=angles, noise=0.01)
    found = find_axis(sinograms, theta)
    assert found.position == pytest.approx(axis, abs=bar)
    assert found.confidence > 0.5


def test_a_missing_wedge_leaves_the_centres_of_mass() -> None:
    sinograms, theta, axis = scan(13.7, over=130.0)
    found = find_axis(sinograms, theta)
    assert found.method == "moment"
    assert found.position == pytest.approx(axis, abs=0.25)
    assert found.level != "high", "nothing else says the same"
    assert "no other way" in found.reason


def test_a_missing_wedge_of_an_object_wider_than_the_view_is_refused() -> None:
    sinograms, theta, _ = scan(13.7, over=130.0, reach=150.0)
    with pytest.raises(KernelError, match=r"130 degrees of a half turn, an object wider than the view") as caught:
        find_axis(sinograms, theta)
    assert caught.value.exit_code == 65
    with pytest.raises(KernelError, match="cover only 60 of 180"):
        find_axis(*scan(1.0, over=60.0)[:2])


def test_dropped_frames() -> None:
    sinograms, theta, axis = scan(-9.6)
    keep = np.delete(np.arange(len(theta)), [100, 101, 102, 103])
    assert find_axis(sinograms[:, keep], theta[keep]).position == pytest.approx(axis, abs=0.2)


def test_neither_the_order_of_the_angles_nor_where_they_begin_counts() -> None:
    sinograms, theta, axis = scan(17.9)
    for shown, angles in ((sinograms[:, ::-1], theta[::-1]), (sinograms, theta - 90)):
        assert find_axis(shown, angles).position == pytest.approx(axis, abs=0.15)


@pytest.mark.parametrize("off", [0.3, 19.6, -28.8])
def test_an_object_wider_than_the_view(off: float) -> None:
    sinograms, theta, axis = scan(off, reach=0.65 * COLUMNS, rows=5)
    found = find_axis(sinograms, theta)
    assert found.position == pytest.approx(axis, abs=0.3)
    assert found.by("moment") is None


def test_a_disc_centred_on_the_axis_has_it_in_its_middle() -> None:
    x = np.arange(COLUMNS)
    disc = 2 * np.sqrt(np.maximum(45.0**2 - (x - 101.3) ** 2, 0)) / 45
    sinograms = np.tile(disc, (3, 241, 1)) + 0.01 * np.random.default_rng(0).standard_normal((3, 241, COLUMNS))
    found = find_axis(sinograms.astype(np.float32), np.arange(241) * 180 / 241)
    assert found.position == pytest.approx(101.3, abs=0.2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("level", "stripes"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.05)])
def test_where_there_is_nothing_to_see_no_axis_is_given_without_a_word(seed: int, level: float, stripes: float) -> None:
    random = np.random.default_rng(seed)
    nothing = level + 0.03 * random.standard_normal((3, 241, COLUMNS))
    nothing += stripes * random.standard_normal((3, 1, COLUMNS))
    said = ""
    try:
        said = find_axis(nothing.astype(np.float32), np.arange(241) * 180 / 241).warning
    except KernelError as error:
        said = str(error)
    assert "give rotationAxis" in said
    assert "\n" not in said


def test_one_row_of_noise_takes_no_confidence() -> None:
    sinograms, theta, axis = scan(8.4)
    sinograms[1] = np.random.default_rng(3).normal(0, 0.3, sinograms[1].shape)
    found = find_axis(sinograms, theta)
    assert found.position == pytest.approx(axis, abs=0.25)
    assert found.confidence > 0.5


@pytest.mark.parametrize("off", [-21.3, 30.7])
def test_each_way_by_itself(off: float) -> None:
    sinograms, theta, axis = scan(off)
    angles = turn(theta)
    wedge = least_wedge(sinograms, 0.3 * COLUMNS, inside=True)
    pairs = register(sinograms, theta, angles, 0.2 * COLUMNS, 0.8 * COLUMNS)
    moment = centre_of_mass(sinograms, theta)
    sharp = Sharpness(sinograms, theta, angles, inside=True, seen=COLUMNS).sharpest(axis + 3.1)
    assert wedge is not None
    for way, bar in ((wedge[0], 0.1), (pairs, 0.2), (moment, 0.1), (sharp, 0.2)):
        assert way is not None
        assert way.position == pytest.approx(axis, abs=bar), way.method
        assert abs(way.position - axis) < 4 * way.uncertainty, f"{way.method} does not say it is surer than it is"
        if len(way.candidates):
            assert way.candidates[way.curve.argmin()] == pytest.approx(axis, abs=1.0)


def test_centres_of_mass_do_not_apply_to_what_leaves_the_view() -> None:
    sinograms, theta, _ = scan(10.0, reach=140.0)
    assert centre_of_mass(sinograms, theta) is None


def test_entropy_judges_an_object_wider_than_the_view() -> None:
    sinograms, theta, axis = scan(-6.2, reach=0.65 * COLUMNS, noise=0.01)
    found = Sharpness(sinograms, theta, turn(theta), inside=False, seen=80.0).sharpest(axis - 2.6)
    assert found is not None
    assert found.position == pytest.approx(axis, abs=0.5)


@pytest.mark.parametrize("off", [0.31, -0.38])
def test_joined_halves_are_the_scan_of_a_wide_detector(off: float) -> None:
    off *= COLUMNS
    sinograms, theta, axis = scan(off, angles=360, over=360.0, reach=0.5 * COLUMNS + abs(off), noise=0.0)
    wide, at = joined(sinograms, opposite_pairs(theta, 180), axis)
    assert wide.shape[:2] == (3, 180)
    # what a detector would see that has the axis in its middle
    parts = phantom.sample_object(COLUMNS, 48, margin=0.5 * COLUMNS + abs(off), absorption=1.5, seed=1)
    begin = theta[:180] if off > 0 else theta[:180] + 180
    exact = phantom.project_rows(parts, begin, wide.shape[2], 48, at, 23, 26)
    assert np.abs(wide - exact).mean() < 0.01 * exact.max()


def test_opposite_pairs() -> None:
    step_short = opposite_pairs(np.arange(0.0, 180.0), 9)
    assert [(p.here, p.left, p.right, p.part) for p in step_short] == [(0, 178, 179, 2.0)]
    exact = opposite_pairs(np.arange(0.0, 181.0), 9)
    assert [(p.here, p.right, p.part) for p in exact] == [(0, 180, 1.0)]
    between = opposite_pairs(np.arange(0.0, 182.0, 0.7), 9)
    assert all(0 <= p.part <= 1 and p.left + 1 == p.right for p in between)
    assert len(opposite_pairs(np.arange(0.0, 360.0), 60)) == 60
    assert opposite_pairs(np.arange(0.0, 150.0), 9) == []
    assert not [p for p in opposite_pairs(np.r_[0:170.0, 190:200.0], 99) if p.here < 10], "not across a gap"


def said(method: str, position: float, quality: float = 1.0, uncertainty: float = 0.1) -> Estimate:
    return Estimate(method, position, uncertainty, quality, "seen")


def test_what_agrees_is_averaged_and_what_does_not_takes_confidence_away() -> None:
    alone = choose([said("wedge", 100.0)])
    both = choose([said("wedge", 100.0), said("pairs", 100.2, uncertainty=0.2)])
    against = choose([said("wedge", 100.0), said("pairs", 100.2), said("moment", 120.0)])
    torn = choose([said("wedge", 100.0), said("pairs", 120.0)])
    assert both.position == pytest.approx(100.04)
    assert both.method == "wedge"
    assert both.confidence > alone.confidence > against.confidence > torn.confidence
    assert alone.level == "high"
    assert against.position == pytest.approx(100.1)
    assert "moment contradicts (120.00)" in against.reason
    assert torn.level == "low"
    assert torn.warning.startswith("The rotation axis 1")
    assert choose([said("wedge", 100.0, 0.1), said("pairs", 120.0, 0.9)]).position == 120.0


def test_a_second_dip_makes_the_first_less_unique() -> None:
    x = np.arange(100.0)
    one = 1 - np.exp(-((x - 30) ** 2) / 20)
    assert uniqueness(one, 30, 5) == pytest.approx(1.0, abs=0.01)
    assert uniqueness(one - 0.5 * np.exp(-((x - 70) ** 2) / 20), 30, 5) == pytest.approx(0.5, abs=0.01)
    assert uniqueness(np.ones(100), 30, 5) == 0


def test_weighted_median() -> None:
    assert weighted_median(np.array([5.0, 1.0, 3.0]), np.ones(3)) == 3.0
    assert weighted_median(np.array([1.0, 2.0, 50.0]), np.array([1.0, 1.0, 0.001])) < 2.0
