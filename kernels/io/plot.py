"""Figures as PNG: curves with error bars on linear or logarithmic axes, maps in colours with their scale, and discs.

Small on purpose: what a beamline looks at while a sample is still in the beam, without a plotting library to install on
compute nodes. What is to be published is drawn from the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float64]
Range = tuple[float, float]
Box = tuple[int, int, int, int]

_FINE = 2  # drawn so many times larger and averaged down, for smooth lines
_WIDTH, _HEIGHT = 460, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 28, 46
_BAR, _BAR_GAP, _BAR_RIGHT = 14, 10, 58
_TICK, _MARK = 4, 3
_FACTORS = ((1,), (1, 3), (1, 2, 5), range(1, 10))  # of a power of ten: as few as will do
_BLACK, _GREY, _LIGHT, _WHITE = (20, 20, 20), (120, 120, 120), (226, 226, 226), (255, 255, 255)
_COLOURS = [
    (31, 119, 180),
    (214, 39, 40),
    (44, 160, 44),
    (148, 103, 189),
    (255, 127, 14),
    (23, 150, 170),
    (140, 86, 75),
]
_SCALE = np.array([(48, 8, 84), (62, 74, 137), (38, 130, 142), (53, 183, 121), (170, 220, 50), (253, 231, 37)], float)
_NOTHING = (236, 236, 236)


@dataclass(frozen=True)
class Curve:
    """Points, or a line, of one colour. What is not finite, or not above 0 on a logarithmic axis, is left out."""

    x: Floats
    y: Floats
    err: Floats | None = None
    label: str = ""
    line: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Plot:
    """Curves over one pair of axes."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    x_log: bool = False
    y_log: bool = False


@dataclass(frozen=True)
class Map:
    """Values over a plane as colours; NaN is grey.

    `x` and `y` are what the axes say at the outer edges, or None for no numbers; `limits` the values of the darkest and
    the brightest colour (not given: percentiles 1 and 99 of what is finite). Row 0 is at the bottom; of a detector's
    `image` at the top, and its pixels are square. Values (rows, columns, 3) of 8 bits are colours themselves, and have
    no scale.
    """

    title: str
    x_label: str
    y_label: str
    values: NDArray[np.floating] | NDArray[np.uint8]
    x: Range | None
    y: Range | None
    log: bool = False
    limits: Range | None = None
    image: bool = False


@dataclass(frozen=True)
class Discs:
    """Discs of their own radius and colour over a plane with equal scales of its axes; the last lie on top."""

    title: str
    x_label: str
    y_label: str
    x: Floats
    y: Floats
    radius: Floats
    colours: NDArray[np.uint8]


def write_figure(path: Path, panels: Sequence[Plot | Map | Discs], columns: int = 1) -> None:
    """Write the panels, row by row, as a PNG."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    whole = Image.new("RGB", (columns * _WIDTH, rows * _HEIGHT), _WHITE)
    for n, panel in enumerate(panels):
        page = Image.new("RGB", (_WIDTH * _FINE, _HEIGHT * _FINE), _WHITE)
        if isinstance(panel, Plot):
            _plot(page, panel)
        elif isinstance(panel, Discs):
            _discs(page, panel)
        else:
            _map(page, panel)
        whole.paste(
            page.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX), (n % columns * _WIDTH, n // columns * _HEIGHT)
        )
    with path.open("wb") as file:
        whole.save(file, "PNG", optimize=True)


def ticks(low: float, high: float, *, log: bool, most: int = 7) -> list[float]:
    """Round numbers between `low` and `high`."""
    low, high = min(low, high), max(low, high)
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        every = max(1, -(-(last - first) // most))
        values = []
        for factors in _FACTORS:
            values = [f * 10.0**n for n in range(first, last + 1, every) for f in factors]
            if sum(low <= v <= high for v in values) > 2:
                break
    else:
        rough = (high - low) / (most - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
        values = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [v for v in values if low - 1e-12 * abs(low) <= v <= high + 1e-12 * abs(high)]


class _Axes:
    """One pair of axes on a page: where its numbers lie, in fine pixels."""

    def __init__(self, page: Image.Image, box: Box, x: Range, y: Range, *, x_log: bool, y_log: bool) -> None:
        self.page, self.pen = page, ImageDraw.Draw(page)
        left, top, right, bottom = (n * _FINE for n in box)
        self.box: Box = left, top, right, bottom
        self.x, self.y, self.x_log, self.y_log = x, y, x_log, y_log

    def across(self, values: Floats) -> Floats:
        left, _, right, _ = self.box
        return left + _share(values, self.x, log=self.x_log) * (right - left)

    def up(self, values: Floats) -> Floats:
        _, top, _, bottom = self.box
        return bottom - _share(values, self.y, log=self.y_log) * (bottom - top)

    def grid(self) -> None:
        left, top, right, bottom = self.box
        for x in self.across(np.array(ticks(*self.x, log=self.x_log))):
            self.pen.line([(x, top), (x, bottom)], _LIGHT, 1)
        for y in self.up(np.array(ticks(*self.y, log=self.y_log))):
            self.pen.line([(left, y), (right, y)], _LIGHT, 1)

    def frame(self, title: str, x_label: str, y_label: str, *, numbers: bool = True) -> None:
        left, top, right, bottom = self.box
        long = _TICK * _FINE
        for value in ticks(*self.x, log=self.x_log) if numbers else ():
            x = float(self.across(np.array(value)))
            self.pen.line([(x, bottom), (x, bottom + long)], _BLACK, _FINE)
            _text(self.page, (x, bottom + long + 3 * _FINE), f"{value:.6g}", "mt")
        for value in ticks(*self.y, log=self.y_log) if numbers else ():
            y = float(self.up(np.array(value)))
            self.pen.line([(left - long, y), (left, y)], _BLACK, _FINE)
            _text(self.page, (left - long - 3 * _FINE, y), f"{value:.6g}", "rm")
        self.pen.rectangle(self.box, outline=_BLACK, width=_FINE)
        _text(self.page, ((left + right) / 2, bottom + 24 * _FINE), x_label, "mt", size=13)
        _text(self.page, ((left + right) / 2, top - 8 * _FINE), title, "mb", size=13)
        _upright(self.page, (6 * _FINE, (top + bottom) / 2), y_label)


def _plot(page: Image.Image, plot: Plot) -> None:
    curves = [_shown(curve, plot) for curve in plot.curves]
    x = _limits([c.x for c in curves], log=plot.x_log, margin=0.03)
    spread = [c.y for c in curves] + [v for c in curves if c.err is not None for v in (c.y - c.err, c.y + c.err)]
    y = _limits(spread, log=plot.y_log, margin=0.06)
    axes = _Axes(page, (_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM), x, y, x_log=plot.x_log, y_log=plot.y_log)
    axes.grid()
    inside = page.copy()  # what goes over the edges is cut off
    pen = ImageDraw.Draw(inside)
    for curve in curves:
        _curve(pen, axes, curve)
    page.paste(inside.crop(axes.box), axes.box[:2])
    axes.frame(plot.title, plot.x_label, plot.y_label)
    _legend(axes, curves)


def _curve(pen: ImageDraw.ImageDraw, axes: _Axes, curve: Curve) -> None:
    colour = _COLOURS[curve.colour % len(_COLOURS)]
    across, up = axes.across(curve.x), axes.up(curve.y)
    if curve.line:
        if len(across) > 1:
            pen.line(list(zip(across.tolist(), up.tolist(), strict=True)), colour, 2 * _FINE, joint="curve")
        return
    size = _MARK * _FINE if len(across) < 400 else _FINE
    if curve.err is not None:
        low = curve.y - curve.err
        floor = np.where(low > 0, low, axes.y[0]) if axes.y_log else low
        for x, bottom, top in zip(across, axes.up(floor), axes.up(curve.y + curve.err), strict=True):
            pen.line([(x, bottom), (x, top)], colour, _FINE)
    for x, y in zip(across, up, strict=True):
        pen.ellipse([x - size, y - size, x + size, y + size], fill=colour)


def _legend(axes: _Axes, curves: Sequence[Curve]) -> None:
    named = [curve for curve in curves if curve.label]
    _, top, right, _ = axes.box
    for n, curve in enumerate(named):
        y = top + (12 + 15 * n) * _FINE
        _text(axes.page, (right - 8 * _FINE, y), curve.label, "rm", colour=_COLOURS[curve.colour % len(_COLOURS)])


def _discs(page: Image.Image, plot: Discs) -> None:
    wide = plot.radius.max(initial=0)
    (left, right), (low, high) = (
        _limits([values - wide, values + wide], log=False, margin=0.03) for values in (plot.x, plot.y)
    )
    box = _fitting((_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM), (right - left) / (high - low))
    x, y = _equal(box, (left, right), (low, high))
    axes = _Axes(page, box, x, y, x_log=False, y_log=False)
    axes.grid()
    sizes = np.maximum(axes.across(plot.radius) - axes.across(np.zeros(1)), 2 * _FINE)
    inside = page.copy()
    pen = ImageDraw.Draw(inside)
    for across, up, size, colour in zip(
        axes.across(plot.x), axes.up(plot.y), sizes, plot.colours.tolist(), strict=True
    ):
        pen.ellipse([across - size, up - size, across + size, up + size], fill=tuple(colour), outline=_GREY)
    page.paste(inside.crop(axes.box), axes.box[:2])
    axes.frame(plot.title, plot.x_label, plot.y_label)


def _equal(box: Box, x: Range, y: Range) -> tuple[Range, Range]:
    """Limits about the same middles, so that a unit is as long along both sides of the box."""
    scale = max((x[1] - x[0]) / (box[2] - box[0]), (y[1] - y[0]) / (box[3] - box[1])) / 2
    middles = (x[0] + x[1]) / 2, (y[0] + y[1]) / 2
    halves = scale * (box[2] - box[0]), scale * (box[3] - box[1])
    first, second = ((middle - half, middle + half) for middle, half in zip(middles, halves, strict=True))
    return first, second


def _map(page: Image.Image, picture: Map) -> None:
    if picture.values.ndim == 3:
        _filled(page, picture, np.asarray(picture.values, np.uint8))
        return
    values = np.asarray(picture.values, float)
    if picture.log:
        values = np.where(values > 0, values, np.nan)
    finite = values[np.isfinite(values)]
    low, high = picture.limits or (np.percentile(finite, [1, 99]) if finite.size else (0.1, 1.0))
    low, high = _apart(float(low), float(high), log=picture.log)
    axes = _filled(page, picture, colours(_share(values, (low, high), log=picture.log)))
    _, top, right, bottom = axes.box
    _bar(page, right + _BAR_GAP * _FINE, top, bottom, (low, high), log=picture.log)


def _filled(page: Image.Image, picture: Map, values: NDArray[np.uint8]) -> _Axes:
    """Draw the axes of a map with its colours (rows, columns, 3) in them."""
    box = _LEFT, _TOP, _WIDTH - _BAR_RIGHT - _BAR - _BAR_GAP, _HEIGHT - _BOTTOM
    if picture.image:
        box = _fitting(box, values.shape[1] / values.shape[0])
    x, y = picture.x or (0.0, 1.0), picture.y or (0.0, 1.0)
    axes = _Axes(page, box, x, y, x_log=False, y_log=False)
    left, top, right, bottom = axes.box
    image = Image.fromarray(values if picture.image else np.ascontiguousarray(values[::-1]))
    shrunk = image.width > right - left or image.height > bottom - top
    how = Image.Resampling.BOX if shrunk else Image.Resampling.NEAREST
    page.paste(image.resize((right - left, bottom - top), how), (left, top))
    axes.y = y[::-1] if picture.image else y
    numbers = not (picture.x is None and picture.y is None)
    axes.frame(picture.title, picture.x_label, picture.y_label, numbers=numbers)
    return axes


def _fitting(box: Box, shape: float) -> Box:
    """The largest part of a box that is `shape` times as wide as high, in its middle, and not thinner than a tenth."""
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    if shape > wide / high:
        less = (high - max(int(wide / shape), high // 10)) // 2
        return left, top + less, right, bottom - less
    less = (wide - max(int(high * shape), wide // 10)) // 2
    return left + less, top, right - less, bottom


def _bar(page: Image.Image, left: int, top: int, bottom: int, limits: Range, *, log: bool) -> None:
    share = np.linspace(1, 0, bottom - top)[:, None].repeat(_BAR * _FINE, axis=1)
    page.paste(Image.fromarray(colours(share)), (left, top))
    right = left + _BAR * _FINE
    pen = ImageDraw.Draw(page)
    pen.rectangle([left, top, right, bottom], outline=_BLACK, width=_FINE)
    for value in ticks(*limits, log=log):
        y = bottom - float(_share(np.array(value), limits, log=log)) * (bottom - top)
        pen.line([(right, y), (right + _TICK * _FINE, y)], _BLACK, _FINE)
        _text(page, (right + (_TICK + 3) * _FINE, y), f"{value:.4g}", "lm")


def colours(share: Floats) -> NDArray[np.uint8]:
    """The colour of each value from 0 (dark) to 1 (bright): shape (…, 3). NaN is grey."""
    place = np.clip(np.nan_to_num(share), 0, 1) * (len(_SCALE) - 1)
    low = np.minimum(place.astype(int), len(_SCALE) - 2)
    part = (place - low)[..., None]
    mixed = (_SCALE[low] * (1 - part) + _SCALE[low + 1] * part).round().astype(np.uint8)
    return np.where(np.isnan(share)[..., None], np.array(_NOTHING, np.uint8), mixed)


def _share(values: Floats, limits: Range, *, log: bool) -> Floats:
    """0 at the lower limit, 1 at the upper."""
    low, high = limits
    if log:
        return np.asarray(np.log(values / low) / math.log(high / low))
    return np.asarray((values - low) / (high - low))


def _shown(curve: Curve, plot: Plot) -> Curve:
    good = np.isfinite(curve.x) & np.isfinite(curve.y)
    if plot.x_log:
        good &= curve.x > 0
    if plot.y_log:
        good &= curve.y > 0
    err = None if curve.err is None else np.nan_to_num(curve.err[good])
    return replace(curve, x=curve.x[good], y=curve.y[good], err=err)


def _limits(values: Sequence[Floats], *, log: bool, margin: float) -> Range:
    every = np.concatenate([*values, np.zeros(0)])
    if log:
        every = every[every > 0]
    if not every.size:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = _apart(float(every.min()), float(every.max()), log=log)
    if log:
        wide = (high / low) ** margin
        return low / wide, high * wide
    wide = (high - low) * margin
    return low - wide, high + wide


def _apart(low: float, high: float, *, log: bool) -> Range:
    """Limits with something between them."""
    if log:
        return (low, high) if high > low * 1.001 else (low / 2, low * 2)
    least = 1e-9 * max(abs(low), abs(high), 1e-300)
    return (low, high) if high - low > least else (low - (abs(low) or 1.0) / 2, low + (abs(low) or 1.0) / 2)


def _text(
    page: Image.Image,
    place: tuple[float, float],
    text: str,
    anchor: str,
    *,
    size: int = 11,
    colour: tuple[int, ...] = _BLACK,
) -> None:
    ImageDraw.Draw(page).text(place, text, colour, ImageFont.load_default(size * _FINE), anchor)


def _upright(page: Image.Image, place: tuple[float, float], text: str) -> None:
    """Text that is read from below to above, its left edge at `place`."""
    font = ImageFont.load_default(13 * _FINE)
    left, top, right, bottom = font.getbbox(text)
    label = Image.new("RGB", (int(right - left) + 4, int(bottom - top) + 4), _WHITE)
    ImageDraw.Draw(label).text((2 - left, 2 - top), text, _BLACK, font)
    turned = label.rotate(90, expand=True)
    page.paste(turned, (int(place[0]), int(place[1] - turned.height / 2)))
