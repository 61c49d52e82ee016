"""A picture of a volume: three slices through its middle, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kernels.errors import Exit, KernelError

Floats = NDArray[np.float32]

_LEAST_PANEL, _MOST_PANEL, _GAP = 256, 1024, 8
_BACKGROUND = 24


def window(slices: list[Floats], *, low: float = 0.5, high: float = 99.8) -> tuple[float, float]:
    """The values shown black and white: percentiles of what is not exactly 0, which is what a mask left out."""
    values = np.concatenate([s.ravel() for s in slices])
    values = values[values != 0]
    if not values.size:
        return 0.0, 1.0
    black, white = (float(v) for v in np.percentile(values, [low, high]))
    return (black, white) if white > black else (min(black, 0.0), max(white, 0.0))


def write_slices(path: Path, slices: list[Floats], black: float, white: float) -> None:
    """Write the horizontal slice, and right of it the front and the side one, as a grey PNG.

    The values `black` to `white` are mapped to 0 to 255. The two upright slices stand above each other where they
    are low enough. Small slices are magnified; a thin one (few rows) in height alone too, to an eighth of its width,
    so that it can be seen: then its proportions are not true.
    """
    first, *others = (_panel(s, black, white) for s in slices)
    stacked = sum(p.height + _GAP for p in others) - _GAP <= first.height
    places, left, top = [(first, 0, 0)], first.width + _GAP, 0
    for panel in others:
        places.append((panel, left, top))
        left, top = (left, top + panel.height + _GAP) if stacked else (left + panel.width + _GAP, 0)
    size = max(x + p.width for p, x, _ in places), max(y + p.height for p, _, y in places)
    whole = Image.new("L", size, _BACKGROUND)
    for panel, x, y in places:
        whole.paste(panel, (x, y))
    with path.open("wb") as file:
        whole.save(file, "PNG")


def check_picture(path: Path) -> None:
    """Raise `KernelError` (exit 3) when the file is not a whole PNG."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError) as error:
        raise KernelError(f"The written picture {str(path)!r} is damaged.", Exit.BAD_OUTPUT) from error


def _panel(values: Floats, black: float, white: float) -> Image.Image:
    grey = np.clip((values - black) * (255.0 / (white - black)), 0, 255).astype(np.uint8)
    image = Image.fromarray(grey)
    rows, columns = grey.shape
    width = min(max(columns, _LEAST_PANEL), _MOST_PANEL)
    height = max(round(rows * width / columns), width // 8)
    if (width, height) == (columns, rows):
        return image
    magnified = width >= columns and height >= rows
    return image.resize((width, height), Image.Resampling.NEAREST if magnified else Image.Resampling.BOX)
