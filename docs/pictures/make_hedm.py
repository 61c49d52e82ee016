"""Make the picture of `docs/hedm.md`: the keys of colours of all Laue classes.

python docs/pictures/make_hedm.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kernels.hedm.colours import colour_key
from kernels.hedm.crystals import Crystal
from kernels.io.plot import Map, write_figure

HERE = Path(__file__).parent
OF_CLASS = {
    "m-3m": Crystal(4, 4, 4, 90, 90, 90, "F m -3 m"),
    "6/mmm": Crystal(3, 3, 5, 90, 90, 120, "P 63/m m c"),
    "4/mmm": Crystal(4, 4, 6, 90, 90, 90, "P 42/m n m"),
    "mmm": Crystal(4, 5, 6, 90, 90, 90, "P n m a"),
    "-3m": Crystal(4.76, 4.76, 13, 90, 90, 120, "R -3 c:H"),
    "m-3": Crystal(4, 4, 4, 90, 90, 90, "P a -3"),
    "6/m": Crystal(9.4, 9.4, 6.9, 90, 90, 120, "P 63/m"),
    "4/m": Crystal(5.2, 5.2, 11.4, 90, 90, 90, "I 41/a"),
    "2/m": Crystal(5, 6, 7, 90, 100, 90, "P 1 21/c 1"),
    "-3": Crystal(5, 5, 14, 90, 90, 120, "R -3:H"),
    "-1": Crystal(5, 6, 7, 80, 95, 105, "P -1"),
}


def main() -> int:
    panels = []
    for laue, crystal in OF_CLASS.items():
        key = colour_key(crystal)
        panels.append(Map(laue, key.legend(crystal), "", key.image(600), None, None, image=True))
    path = HERE / "hedm_keys.png"
    write_figure(path, panels, 4)
    with Image.open(path) as image:
        small = image.resize((image.width * 3 // 5, image.height * 3 // 5), Image.Resampling.LANCZOS)
    small.save(path, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
