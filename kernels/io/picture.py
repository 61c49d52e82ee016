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
    return (black, white) if white > black else (black, black + 1.0)


def write_slices(path: Path, slices: list[Floats], black: float, white: float) -> None:
    """Write 2-D `slices` side by side as a grey PNG, the values `black` to `white` mapped to 0 to 255.

    Small slices are magnified, a thin one (few rows) also in height alone to an eighth of its width, so that it can
    be seen; then its proportions are not true.
    """
    panels = [_panel(s, black, white) for s in slices]
    height = max(p.height for p in panels)
    whole = Image.new("L", (sum(p.width for p in panels) + _GAP * (len(panels) - 1), height), _BACKGROUND)
    left = 0
    for panel in panels:
        whole.paste(panel, (left, (height - panel.height) // 2))
        left += panel.width + _GAP
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
