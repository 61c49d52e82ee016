"""The XPCS kernels as data: what they are called, take and give. Imports nothing heavy."""

from __future__ import annotations

from kernels.spec import KernelArgument, KernelSpec
from kernels.xpcs.specs_io import KERNELS as _MAKING

_VERSION = "1.0"

_QMAP = KernelArgument(
    "qmap",
    "path",
    "the bins, an HDF5 file as pySimpleMask writes it: /qmap/dynamic_roi_map, static_roi_map and mask.",
    required=True,
    role="input",
)
_METADATA = KernelArgument(
    "metadata",
    "path",
    "the *_metadata.hdf of the measurement, with which the result begins. Not given: the one beside the frames.",
    role="input",
)
_FRAME_TIME = KernelArgument(
    "frameTime",
    "number",
    "seconds from one frame to the next; goes before what the metadata say. For Timepix4: seconds that make a frame.",
    minimum=1e-12,
)
_FRAMES: tuple[KernelArgument, ...] = (
    KernelArgument("firstFrame", "integer", "the first frame that counts, from 0.", default=0, minimum=0),
    KernelArgument("lastFrame", "integer", "the last frame that counts. Not given: the last there is.", minimum=0),
    KernelArgument("stride", "integer", "take every so many-th frame.", default=1, minimum=1),
    KernelArgument("average", "integer", "then take so many neighbouring frames as one.", default=1, minimum=1),
)
_BAD = KernelArgument(
    "badPixels",
    "boolean",
    "look for dead and hot pixels first, which reads all frames once more, and leave them out.",
    default=False,
)
_LAGS = KernelArgument(
    "lagsPerLevel",
    "integer",
    "delays at each level of the multi-tau correlation; at the next level they are twice as far apart.",
    default=4,
    minimum=1,
    maximum=64,
)
_DEVICE = KernelArgument(
    "device",
    "string",
    "what computes: gpu, cpu, or auto: a GPU that this process was given, can open, and that is large enough, else the "
    "CPU. The result is the same.",
    default="auto",
    choices=("auto", "cpu", "gpu"),
)
_RESULT = KernelArgument(
    "output",
    "path",
    "the result to write, *_results.hdf in the layout of APS 8-ID, for pyXPCSViewer.",
    required=True,
    role="output",
)


def _frames(
    what: str = "the frames: HDF5, Rigaku .bin or .bin.000 (of six), Timepix4 .tpx, or .imm.",
) -> KernelArgument:
    return KernelArgument("input", "path", what, required=True, role="input")


KERNELS: tuple[KernelSpec, ...] = (
    *_MAKING,
    KernelSpec(
        "xpcs.inspect",
        "open frames, bins and metadata, check them as the others would, and tell what is there",
        "kernels.xpcs.jobs.inspect:inspect",
        _VERSION,
        (_frames(), _QMAP, _METADATA, _FRAME_TIME, *_FRAMES, _LAGS),
    ),
    KernelSpec(
        "xpcs.multitau",
        "correlate frames at delays of all lengths: g2 of each bin, and the scattering",
        "kernels.xpcs.jobs.multitau:multitau",
        _VERSION,
        (
            _frames(),
            _QMAP,
            _RESULT,
            KernelArgument("picture", "path", "a PNG of the scattering and of what changes; optional.", role="output"),
            KernelArgument(
                "preview",
                "path",
                "a small HDF5 file with g2 of the frames read so far, replaced while they are read; silx, h5web and "
                "xpcs.fit open it. Optional.",
                role="output",
            ),
            KernelArgument("previewEvery", "number", "seconds from one such g2 to the next.", default=10.0, minimum=0),
            _METADATA,
            _FRAME_TIME,
            *_FRAMES,
            _BAD,
            _LAGS,
            KernelArgument(
                "memoryGB",
                "number",
                "memory for the frames in work and the sums, in 10^9 bytes; with too little the file is read several "
                "times.",
                default=4.0,
                minimum=0.01,
            ),
            KernelArgument(
                "backend",
                "string",
                "native, or boost-corr where it is installed: as many delays, with the rounding of float32.",
                default="native",
                choices=("native", "boost-corr"),
            ),
            _DEVICE,
        ),
        parallel=True,
    ),
    KernelSpec(
        "xpcs.twotime",
        "correlate each two frames: how g2 changes while the sample ages",
        "kernels.xpcs.jobs.twotime:twotime",
        _VERSION,
        (
            _frames(),
            _QMAP,
            _RESULT,
            KernelArgument("picture", "path", "a PNG of the correlations of up to nine bins; optional.", role="output"),
            _METADATA,
            _FRAME_TIME,
            *_FRAMES,
            _BAD,
            KernelArgument("bins", "string", "numbers of dynamic bins, from 1, such as 1,3,5-7. Not given: all."),
            KernelArgument(
                "slices",
                "integer",
                "g2 is also given of so many parts of the series, one after another.",
                default=5,
                minimum=1,
                maximum=1000,
            ),
            KernelArgument(
                "scheme",
                "string",
                "full: each two frames, which grows with the square of their number. multitau: for long series, how "
                "correlations at delays of all lengths change with time; viewers do not show it.",
                default="full",
                choices=("full", "multitau"),
            ),
            _LAGS,
            _DEVICE,
        ),
        parallel=True,
    ),
    KernelSpec(
        "xpcs.fit",
        "fit g2: relaxation times with their uncertainties, and how they depend on q",
        "kernels.xpcs.jobs.fit:fit",
        _VERSION,
        (
            KernelArgument(
                "input",
                "path",
                "a result of xpcs.multitau or xpcs.twotime, or of boost-corr.",
                required=True,
                role="input",
            ),
            KernelArgument(
                "output",
                "path",
                "a NeXus file with all parameters, their errors, and why a bin was not fitted.",
                required=True,
                role="output",
            ),
            KernelArgument("picture", "path", "a PNG of g2 with its fits, and of tau over q; optional.", role="output"),
            KernelArgument(
                "model",
                "string",
                "simple: one exponential; stretched: exp(-(t/tau)^stretch); double: two exponentials.",
                default="stretched",
                choices=("simple", "stretched", "double"),
            ),
            KernelArgument("firstDelay", "number", "leave shorter delays out, seconds.", minimum=0),
            KernelArgument("lastDelay", "number", "leave longer delays out, seconds.", minimum=0),
        ),
    ),
)
