"""Figures show what the numbers say, where the axes say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kernels.io.picture import check_picture
from kernels.io.plot import Curve, Discs, Map, Plot, colours, ticks, write_figure

BLUE, RED = (31, 119, 180), (214, 39, 40)


def _image(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def _pixels(path: Path, colour: tuple[int, int, int], within: int = 6) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Columns and rows of the pixels of a colour, from the lower left."""
    values = _image(path)
    rows, columns = np.nonzero(np.abs(values - colour).max(2) < within)
    return columns, len(values) - rows


@pytest.mark.parametrize("log", [False, True])
def test_a_curve_lies_where_its_numbers_are(tmp_path: Path, log: bool) -> None:
    x = np.array([1.0, 10.0, 100.0]) if log else np.array([0.0, 5.0, 10.0])
    y = x**2 if log else 3 * x - 7
    bad = Curve(np.append(x, [20, np.nan]), np.append(y, [np.nan, 1]))
    write_figure(tmp_path / "a.png", [Plot("t", "x", "y", [bad], x_log=log, y_log=log)])
    check_picture(tmp_path / "a.png")
    across, up = _pixels(tmp_path / "a.png", BLUE)
    groups = np.split(np.arange(len(across)), np.flatnonzero(np.diff(np.sort(across)) > 20) + 1)
    order = np.argsort(across, kind="stable")
    found = np.array([(across[order[g]].mean(), up[order[g]].mean()) for g in groups])
    assert len(found) == 3
    steps = np.diff(found, axis=0)
    np.testing.assert_allclose(steps[0], steps[1], atol=1.5)
    assert (steps > 50).all()


def test_error_bars_reach_as_far_as_the_errors(tmp_path: Path) -> None:
    curve = Curve(np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([0.5, 0.25]))
    write_figure(tmp_path / "a.png", [Plot("", "", "", [curve])])
    image = _image(tmp_path / "a.png")
    blue = (image[:, :, 2] - image[:, :, 0] > 30).any(1).sum() - 1
    columns = np.flatnonzero((image[:, :, 2] - image[:, :, 0] > 30).any(0))
    right = (image[:, columns.max() - 8 :, 2] - image[:, columns.max() - 8 :, 0] > 30).any(1).sum() - 1
    assert right / blue == pytest.approx(0.5, abs=0.02)


def test_a_line_and_points_beside_each_other_and_panels_in_rows(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 30)
    curves = [Curve(x, x, label="one"), Curve(x, 1 - x, line=True, label="two", colour=1)]
    write_figure(tmp_path / "a.png", [Plot("", "", "", curves)] * 3, columns=2)
    size = _image(tmp_path / "a.png").shape
    write_figure(tmp_path / "b.png", [Plot("", "", "", curves)])
    one = _image(tmp_path / "b.png").shape
    assert size == (2 * one[0], 2 * one[1], 3)
    assert len(_pixels(tmp_path / "b.png", RED, 70)[0]) > 100


def test_a_map_is_bright_where_values_are_high_and_grey_where_there_are_none(tmp_path: Path) -> None:
    values = np.zeros((10, 40))
    values[0, :20], values[5:, 20:] = 1.0, np.nan
    for image, top in ((False, False), (True, True)):
        write_figure(tmp_path / "a.png", [Map("", "x", "y", values, (0, 40), (0, 10), limits=(0, 1), image=image)])
        columns, rows = _pixels(tmp_path / "a.png", (253, 231, 37))
        left = columns < _image(tmp_path / "a.png").shape[1] // 2
        grey = _pixels(tmp_path / "a.png", (236, 236, 236))
        assert (rows[left].mean() > np.median(grey[1])) == top
        assert columns[left].max() <= np.median(grey[0])


def test_what_holds_nothing_is_drawn_too(tmp_path: Path) -> None:
    nothing = np.zeros(0)
    plots = [Plot("", "", "", [Curve(nothing, nothing, nothing)], x_log=log, y_log=log) for log in (False, True)]
    same = Plot("", "", "", [Curve(np.ones(2), np.ones(2))])
    empty = Map("", "", "", np.full((3, 3), np.nan), (0, 1), (0, 1), log=True)
    write_figure(tmp_path / "a.png", [*plots, same, empty], 2)
    check_picture(tmp_path / "a.png")


@given(st.floats(1e-12, 1e12), st.floats(1.01, 1e9), st.booleans())
def test_ticks_are_few_round_numbers_inside(low: float, wide: float, log: bool) -> None:
    found = ticks(low, low * wide, log=log)
    assert len(found) <= 20
    assert all(low * (1 - 1e-9) <= v <= low * wide * (1 + 1e-9) for v in found)
    if not log:
        assert len(found) >= 2
    elif wide > 10:
        assert found


def test_colours_grow_brighter() -> None:
    light = colours(np.linspace(0, 1, 50)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) > 0).all()
    assert colours(np.array([-3.0, 7.0])).tolist() == colours(np.array([0.0, 1.0])).tolist()


def test_discs_lie_where_they_are_as_large_as_they_are(tmp_path: Path) -> None:
    shades = np.array([BLUE, RED], np.uint8)
    discs = Discs("t", "x", "y", np.array([0.0, 60.0]), np.array([0.0, 30.0]), np.array([10.0, 5.0]), shades)
    write_figure(tmp_path / "a.png", [discs])
    check_picture(tmp_path / "a.png")
    (x1, y1), (x2, y2) = (_pixels(tmp_path / "a.png", colour) for colour in (BLUE, RED))
    scale = (x2.mean() - x1.mean()) / 60
    assert (y2.mean() - y1.mean()) / 30 == pytest.approx(scale, rel=0.02)
    assert np.ptp(x1) / 2 == pytest.approx(10 * scale, abs=1.5)
    assert np.ptp(y2) / 2 == pytest.approx(5 * scale, abs=1.5)


def test_no_discs_at_all(tmp_path: Path) -> None:
    none = np.zeros(0)
    write_figure(tmp_path / "a.png", [Discs("t", "x", "y", none, none, none, np.zeros((0, 3), np.uint8))])
    check_picture(tmp_path / "a.png")


def test_a_map_of_colours_shows_them(tmp_path: Path) -> None:
    shades = np.zeros((4, 8, 3), np.uint8)
    shades[:2], shades[2:] = RED, BLUE
    write_figure(tmp_path / "a.png", [Map("t", "x", "y", shades, (0, 8), (0, 4), image=True)])
    (_, upper), (_, lower) = (_pixels(tmp_path / "a.png", colour) for colour in (RED, BLUE))
    assert upper.min() > lower.max()
    write_figure(tmp_path / "a.png", [Map("t", "x", "y", shades, (0, 8), (0, 4))])
    (_, first), (_, last) = (_pixels(tmp_path / "a.png", colour) for colour in (RED, BLUE))
    assert first.max() < last.min()
