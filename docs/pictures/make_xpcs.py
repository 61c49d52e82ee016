"""Make the pictures of `docs/xpcs.md`: what the kernels draw of speckle that is known exactly.

    python docs/pictures/make_xpcs.py

The relaxation times that were simulated and those that were found are printed, so that the page can say them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kernels import contract

HERE = Path(__file__).parent
SAMPLE = {"rows": 128, "columns": 192, "photons": 0.1, "contrast": 0.3, "staticQ": 50, "dynamicQ": 5}


def run(name: str, **given: Any) -> None:
    contract.run(name, {key: str(value) for key, value in given.items()}, say=None)


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        still, ageing = Path(place, "still.h5"), Path(place, "ageing.h5")
        run("xpcs.simulate", output=still, frames=4000, tau=0.05, frameTime=1e-3, **SAMPLE)
        run(
            "xpcs.simulate",
            output=ageing,
            frames=1200,
            tau=0.05,
            frameTime=1e-3,
            ageing=8,
            **SAMPLE | {"contrast": 0.8},
        )
        result, qmap = Path(place, "still_results.hdf"), Path(place, "still_qmap.hdf")
        run("xpcs.multitau", input=still, qmap=qmap, output=result, picture=HERE / "xpcs_scattering.png")
        run("xpcs.fit", input=result, output=Path(place, "fit.nxs"), model="simple", picture=HERE / "xpcs_g2.png")
        two = {"output": Path(place, "ageing_results.hdf"), "picture": HERE / "xpcs_twotime.png", "bins": "1-3"}
        run("xpcs.twotime", input=ageing, qmap=Path(place, "ageing_qmap.hdf"), **two)
        with h5py.File(Path(place, "still_truth.h5")) as truth, h5py.File(Path(place, "fit.nxs")) as fit:
            group = fit["entry/g2"]
            for true, found, err in zip(truth["truth/tau_s"], group["tau"], group["tau_errors"], strict=True):
                print(f"simulated {true:.4g} s, found {found:.4g} ± {err:.2g} s")
            law = fit["entry/power_law"]
            print(f"exponent {law['exponent'][0]:.3f} ± {law['exponent_err'][0]:.2g}")
    for picture in HERE.glob("xpcs_*.png"):
        with Image.open(picture) as image:
            image.quantize(128, dither=Image.Dither.NONE).save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
