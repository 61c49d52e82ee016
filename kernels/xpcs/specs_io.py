"""The kernels that make what XPCS starts from, as data. Imports nothing heavy."""

from __future__ import annotations

from kernels.spec import KernelArgument, KernelSpec

_VERSION = "1.0"
_FORMATS = ("hdf5", "rigaku-500k", "rigaku-3m", "imm", "imm-dense", "timepix4")


def _count(
    name: str, what: str, default: int | None, maximum: float | None = None, *, minimum: int = 1
) -> KernelArgument:
    return KernelArgument(name, "integer", what, default=default, minimum=minimum, maximum=maximum)


def _number(
    name: str, what: str, default: float | None = None, minimum: float | None = 0, maximum: float | None = None
) -> KernelArgument:
    return KernelArgument(name, "number", what, default=default, minimum=minimum, maximum=maximum)


_STATIC = _count("staticQ", "static rings.", 270, 1_000_000)
_DYNAMIC = _count("dynamicQ", "dynamic rings, each of some static ones.", 27, 1_000_000)

KERNELS: tuple[KernelSpec, ...] = (
    KernelSpec(
        "xpcs.simulate",
        "make speckle frames of which g2 is known, with their qmap and metadata",
        "kernels.xpcs.simulate:simulate",
        _VERSION,
        (
            KernelArgument(
                "output",
                "path",
                "the frames to write; beside it <stem>_qmap.hdf, <stem>_metadata.hdf and <stem>_truth.h5.",
                required=True,
                role="output",
            ),
            KernelArgument(
                "form",
                "string",
                "of the file: its name ends in .bin for rigaku-500k, .bin.000 (of six) for rigaku-3m, .imm and .tpx.",
                default="hdf5",
                choices=_FORMATS,
            ),
            _count("rows", "of the detector.", 516, 16384, minimum=16),
            _count("columns", "of the detector.", 1556, 16384, minimum=16),
            _count("frames", "of the series.", 1000, 1e7),
            _number("photons", "per pixel and frame, on average over the rings.", 0.01, 1e-6, 1000),
            _number(
                "tau", "relaxation time of the field in the middle ring, s; g2 - 1 falls twice as fast.", 0.01, 1e-9
            ),
            _number("tauPower", "tau falls with q to this power; 2 is diffusion.", 2.0, 0, 10),
            _number("contrast", "g2 - 1 at delay 0.", 0.2, 0, 1),
            _number("speckleSize", "standard deviation of the speckle, pixels; 0: pixels are independent.", 0.0, 0, 20),
            _number("drift", "relative change of the beam's intensity, up and down again.", 0.0, -0.9, 10),
            _number("ageing", "by which tau grows until the end, relatively.", 0.0, 0, 1000),
            _number("deadPixels", "fraction of pixels that never count.", 0.0, 0, 0.2),
            _number("hotPixels", "fraction of pixels that count 100 in every frame.", 0.0, 0, 0.2),
            _STATIC,
            _DYNAMIC,
            _number("frameTime", "from one frame to the next, s.", 1e-3, 2.5e-8),
            KernelArgument(
                "seed", "integer", "of all chances; the same seed gives the same files.", default=1, minimum=0
            ),
        ),
    ),
    KernelSpec(
        "xpcs.qmap",
        "divide a detector into static and dynamic bins: rings of q, sectors of phi",
        "kernels.xpcs.partitioning:qmap",
        _VERSION,
        (
            KernelArgument("output", "path", "the qmap file to write (HDF5).", required=True, role="output"),
            KernelArgument(
                "input", "path", "frames of the detector; not given: rows and columns tell its shape.", role="input"
            ),
            _count("rows", "of the detector.", None, 65536),
            _count("columns", "of the detector.", None, 65536),
            KernelArgument(
                "metadata",
                "path",
                "a *_metadata.hdf, for what of the geometry is not given; looked for beside the input.",
                role="input",
            ),
            KernelArgument(
                "mask",
                "path",
                "a qmap file, of which /qmap/mask and /qmap/blemish are taken: 0 where a pixel does not count.",
                role="input",
            ),
            _STATIC,
            _DYNAMIC,
            _count("staticPhi", "static sectors.", 1, 3600),
            _count("dynamicPhi", "dynamic sectors, each of some static ones.", 1, 3600),
            KernelArgument(
                "scale", "string", "how rings follow each other in q.", default="linear", choices=("linear", "log")
            ),
            _number("qMin", "where rings begin, 1/angstrom; not given: at the first pixel."),
            _number("qMax", "where rings end, 1/angstrom; not given: at the last pixel."),
            _number("beamStop", "radius about the beam in which pixels do not count, pixels.", 0.0),
            _number("beamCenterX", "column of the beam, pixels from the middle of the first.", None, None),
            _number("beamCenterY", "row of the beam, pixels from the middle of the first.", None, None),
            _number("pixelSize", "m.", None, 1e-9),
            _number("distance", "from the sample to the detector, m.", None, 1e-6),
            _number("energy", "of the beam, keV.", None, 1e-3),
            KernelArgument(
                "findBadPixels",
                "boolean",
                "read all frames and mark pixels as blemish that are dead or hot beyond what speckle can be.",
                default=False,
            ),
        ),
    ),
)
