"""The HEDM kernels as data: what they are called, take and give. Imports nothing heavy."""

from __future__ import annotations

from kernels.spec import KernelArgument, KernelSpec, Value

_VERSION = "1.0"
_BACKENDS: tuple[Value, ...] = ("own", "imaged11", "midas")  # kernels.hedm.backends.packages imports


def _path(name: str, what: str, role: str = "input", *, required: bool = False) -> KernelArgument:
    return KernelArgument(name, "path", what, required=required, role="output" if role == "output" else "input")


def _text(name: str, what: str, default: Value = None, choices: tuple[Value, ...] = ()) -> KernelArgument:
    return KernelArgument(name, "string", what, default=default, choices=choices)


def _count(
    name: str, what: str, default: int | None = None, minimum: int = 1, maximum: float | None = None
) -> KernelArgument:
    return KernelArgument(name, "integer", what, default=default, minimum=minimum, maximum=maximum)


def _number(
    name: str, what: str, default: float | None = None, minimum: float | None = 0, maximum: float | None = None
) -> KernelArgument:
    return KernelArgument(name, "number", what, default=default, minimum=minimum, maximum=maximum)


_CRYSTAL = (
    _path("cif", "the crystal, with its atoms; or else lattice and spaceGroup."),
    _text(
        "lattice", "a,b,c,alpha,beta,gamma of the unstrained crystal in angstrom and degrees; a alone if it is cubic."
    ),
    _text("spaceGroup", "its number, or its symbol, such as Fm-3m or 'R -3 c:H'."),
)
_GEOMETRY = _path(
    "geometry",
    "the instrument: HEXRD's .yml, MIDAS's parameters (.txt), or ImageD11's .par.",
    required=True,
)
_SAMPLE = (
    _number("sampleRadius", "grains lie within so many µm of the rotation axis.", 500.0, 1e-3, 1e6),
    _number("sampleHeight", "and within this height, µm, half of it above z = 0.", 200.0, 1e-3, 1e6),
)
_RINGS = (
    _number(
        "maxTwoTheta", "rings up to here are used, degrees. Not given: all that reach the detector.", None, 0.1, 180
    ),
    _count("rings", "only so many of them, those of the smallest angles. Not given: all."),
    _number("minEta", "spots nearer to the rotation axis than this are not used, degrees.", 6.0, 0, 80),
)
_SCAN = KernelArgument(
    "input",
    "string",
    "the frames: HDF5, .ge*, .tif, .cbf (a pattern such as scan_*.tif), or HEXRD's .npz. Of several panels "
    "NAME=FILE,NAME=FILE by the names of the geometry.",
    required=True,
)
_OMEGAS = (
    _number("omegaStart", "of the first frame, degrees; for files that do not say it.", None, -720, 720),
    _number("omegaStep", "of a frame, degrees; for files that do not say it.", None, -10, 10),
)
_FRAMES = (
    _count("firstFrame", "the first that counts, from 0.", 0, 0),
    _count("lastFrame", "the last that counts. Not given: the last there is.", None, 0),
)
_IMAGES = KernelArgument(
    "input",
    "string",
    "the images of each distance, with commas between the files; near ones first.",
    required=True,
)
_INSTRUMENTS = KernelArgument(
    "geometry", "string", "the instrument at each distance, with commas between the files.", required=True
)
_SEEDS = _path("seeds", "grains of the far field, near which orientations are looked for. Not given: everywhere.")
_HEIGHT = _number("height", "of the layer above z = 0, µm.", 0.0, -1e6, 1e6)
_SPOTS = _path("input", "the spots, as hedm.peaks writes them.", required=True)
_MATCHING = (
    _number("maxStrain", "the largest strain that is looked for.", 2e-3, 1e-6, 0.05),
    _number("minCompleteness", "the least share of its expected spots that a grain must have.", 0.5, 0.05, 0.99),
    _number("spotNoise", "standard deviation of a spot's place, pixels; measured anew on the way.", 0.1, 1e-3, 20),
    _number(
        "omegaNoise",
        "standard deviation of a spot's omega, degrees; measured anew. Not given: 0.15 of a frame, and at least 0.03.",
        None,
        1e-4,
        5,
    ),
)


def _device(what: str) -> KernelArgument:
    return _text("device", f"what computes: {what} The result is the same.", "auto", ("auto", "cpu", "gpu"))


KERNELS: tuple[KernelSpec, ...] = (
    KernelSpec(
        "hedm.simulate",
        "make frames of a turning polycrystal of which all grains are known",
        "kernels.hedm.jobs.simulate:simulate",
        _VERSION,
        (
            _path(
                "output",
                "the frames to write (HDF5); beside them <stem>_geometry.yml and <stem>_truth.h5.",
                "output",
                required=True,
            ),
            *_CRYSTAL,
            _count("grains", "in the sample.", 20, maximum=1_000_000),
            _number("diameter", "of the grains, µm; their volumes scatter by a half.", 40.0, 0.1, 1e5),
            *_SAMPLE,
            _number("strain", "root mean square of each component.", 5e-4, 0, 0.05),
            _count("rows", "of the detector.", 1024, 16, 16384),
            _count("columns", "of the detector.", 1024, 16, 16384),
            _number("pixelSize", "µm.", 200.0, 0.01, 10_000),
            _number("distance", "from the sample to the detector, mm.", 1000.0, 0.1, 100_000),
            _number("energy", "of the beam, keV.", 71.676, 1, 1000),
            _number("tilt", "of the detector about each of its axes, degrees.", 0.0, -30, 30),
            _number("wedge", "by which the rotation axis leans, degrees.", 0.0, -30, 30),
            _count("frames", "of the scan.", 720, 2, 1_000_000),
            _number("omegaStart", "where the first frame begins, degrees.", -180.0, -720, 720),
            _number("omegaStep", "of a frame, degrees.", 0.5, -10, 10),
            _number("counts", "of the median spot.", 20_000.0, 1, 1e9),
            _number("background", "counts per pixel and frame.", 5.0, 0, 10_000),
            _count("offset", "what a dark frame reads.", 20, 0, 30_000),
            _number("mosaicity", "spread of orientations in a grain, degrees.", 0.05, 1e-4, 5),
            _count("seed", "of all chances; the same seed gives the same files.", 1, 0),
        ),
    ),
    KernelSpec(
        "hedm.inspect",
        "open the frames, instrument and crystal of a far field, check that they belong together, and tell what is "
        "there",
        "kernels.hedm.jobs.inspect:inspect",
        _VERSION,
        (_SCAN, _GEOMETRY, *_CRYSTAL, *_OMEGAS, *_FRAMES, *_RINGS[:2]),
    ),
    KernelSpec(
        "hedm.peaks",
        "find and measure spots in frames of a turning sample",
        "kernels.hedm.jobs.peaks:peaks",
        _VERSION,
        (
            _SCAN,
            _path("output", "the spots to write (HDF5).", "output", required=True),
            _GEOMETRY,
            _text(
                "dark", "a file of dark frames, first (the median of the first frames), or a number of counts.", "first"
            ),
            _number("threshold", "counts above the dark.", None, 1e-6),
            _number("sigmas", "the same in standard deviations of the dark; the greater one counts.", None, 0.5, 1000),
            _count("leastPixels", "spots of fewer pixels are left out.", 3),
            _number("saturation", "counts from which on a pixel is saturated.", None, 1),
            KernelArgument("gaussians", "boolean", "fit a Gaussian to each spot, too.", default=False),
            *_OMEGAS,
            *_FRAMES,
            _device(
                "gpu, cpu, or auto: a GPU that this process was given and can open where that takes less time, which "
                "is seldom."
            ),
        ),
        parallel=True,
    ),
    KernelSpec(
        "hedm.farfield",
        "find the grains that made spots: orientation, position and strain of each",
        "kernels.hedm.jobs.farfield:farfield",
        _VERSION,
        (
            _SPOTS,
            _path("output", "the grains to write (NeXus).", "output", required=True),
            _path("csv", "the same as Grains.csv in the columns of MIDAS.", "output"),
            _path("picture", "a map of the grains and histograms (PNG).", "output"),
            _GEOMETRY,
            *_CRYSTAL,
            *_SAMPLE,
            _text(
                "illuminatedVolume",
                "what all grains fill together, µm³, or `sample`, the cylinder of sampleRadius and sampleHeight; for "
                "radii of grains. Not given: they are not known, and intensity compares volumes.",
            ),
            *_RINGS,
            *_MATCHING,
            _text("backend", "which program finds the grains; others must be installed.", "own", _BACKENDS),
            _device("gpu (backend own only), cpu, or auto: a GPU that this process was given and can open."),
        ),
        parallel=True,
    ),
    KernelSpec(
        "hedm.calibrate",
        "refine an instrument's geometry from the spots of grains",
        "kernels.hedm.jobs.calibrate:calibrate",
        _VERSION,
        (
            _SPOTS,
            _path("output", "the geometry to write (HEXRD's .yml).", "output", required=True),
            _GEOMETRY,
            *_CRYSTAL,
            _text(
                "refine",
                "parameters with commas between them, such as distance,centre_row,centre_column,tilt_x,tilt_y,tilt_z,"
                "wedge. Not given: all that can be determined at once.",
            ),
            *_SAMPLE,
            *_RINGS,
            *_MATCHING,
        ),
    ),
    KernelSpec(
        "hedm.compare",
        "compare grains with those that should be there",
        "kernels.hedm.jobs.compare:compare",
        _VERSION,
        (
            _path("input", "the grains, as hedm.farfield writes them.", required=True),
            _path("truth", "those that should be there, in the same form.", required=True),
            _number("angle", "grains are the same up to this misorientation, degrees.", 0.5, 1e-3, 30),
            _number("distance", "and this distance, µm.", 50.0, 1e-3, 1e5),
            _number("minFound", "fail below this share of found grains.", 0.0, 0, 1),
            _count("maxFalse", "fail with more false grains.", None, 0),
        ),
    ),
    KernelSpec(
        "hedm.simulate-layer",
        "make near-field images of a layer of which all grains are known",
        "kernels.hedm.jobs.layer:simulate_layer",
        _VERSION,
        (
            _path(
                "output",
                "the grains to write; beside them <stem>_near.h5, <stem>_far.h5 and their instruments .yml.",
                "output",
                required=True,
            ),
            *_CRYSTAL,
            _count("grains", "in the layer.", 12, maximum=100_000),
            _number("width", "diameter of the layer, µm.", 200.0, 1, 1e5),
            _number("voxelSize", "µm.", 4.0, 0.05, 1000),
            _count("rows", "of the detector.", 512, 16, 16384),
            _count("columns", "of the detector.", 512, 16, 16384),
            _number("pixelSize", "µm.", 4.0, 0.01, 1000),
            _number("near", "distance of the detector, mm.", 5.0, 0.1, 1000),
            _number("far", "the other distance, mm.", 7.0, 0.1, 1000),
            _number("energy", "of the beam, keV.", 65.351, 1, 1000),
            _count("frames", "of the scan.", 180, 2, 1_000_000),
            _number("omegaStart", "where the first frame begins, degrees.", -90.0, -720, 720),
            _number("omegaStep", "of a frame, degrees.", 1.0, -10, 10),
            _number("counts", "of a lit pixel.", 100.0, 1, 50_000),
            _number("background", "counts per pixel.", 5.0, 0, 10_000),
            *_RINGS[:2],
            _count("seed", "of all chances; the same seed gives the same files.", 1, 0),
        ),
    ),
    KernelSpec(
        "hedm.inspect-layer",
        "open the images, instruments and crystal of a near field, check that they belong together, and tell what is "
        "there",
        "kernels.hedm.jobs.inspect:inspect_layer",
        _VERSION,
        (_IMAGES, _INSTRUMENTS, *_CRYSTAL, _SEEDS, _HEIGHT, *_OMEGAS, *_RINGS),
    ),
    KernelSpec(
        "hedm.nearfield",
        "map the orientations in a layer from images close behind it",
        "kernels.hedm.jobs.nearfield:nearfield",
        _VERSION,
        (
            _IMAGES,
            _path("output", "the map to write (NeXus).", "output", required=True),
            _path("mic", "the same as MIDAS's .mic.", "output"),
            _path("picture", "the map in the colours of an inverse pole figure (PNG).", "output"),
            _path("confidencePicture", "its confidence, and the sizes of grains (PNG).", "output"),
            _INSTRUMENTS,
            *_CRYSTAL,
            _SEEDS,
            _number("seedRadius", "how far from a seed, degrees.", 1.0, 0.01, 20),
            _number("width", "diameter of the layer, µm.", 200.0, 1e-2, 1e6),
            _number("voxelSize", "a square's side, a triangle's edge, from hexagon to hexagon, µm.", 4.0, 1e-3, 1e5),
            _text("voxels", "their shape.", "squares", ("squares", "triangles", "hexagons")),
            _HEIGHT,
            _number("threshold", "counts above the background that a pixel of a spot has.", 20.0, 1e-6),
            _number(
                "edgeWidth",
                "above 0, spots end where the image's curvature changes, smoothed by this, pixels.",
                0.0,
                0,
                50,
            ),
            _count("leastPixels", "smaller groups of pixels are noise.", 4),
            *_OMEGAS,
            *_RINGS,
            _number("grainAngle", "neighbours with a smaller misorientation are one grain, degrees.", 1.0, 0.01, 30),
            _device("gpu, cpu, or auto: a GPU that this process was given, can open and is large enough."),
        ),
        parallel=True,
    ),
)
