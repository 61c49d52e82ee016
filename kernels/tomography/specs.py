"""The tomography kernels as data: what they are called, take and give. Imports nothing heavy."""

from __future__ import annotations

from kernels.spec import KernelArgument, KernelSpec

_VERSION = "1.0"

_FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann", "parzen")
_ALGORITHMS = (
    *("gridrec", "fbp", "sirt", "cgls", "os-sart", "tv", "huber"),
    *("sart", "art", "bart", "grad", "mlem", "osem", "ospml_hybrid", "ospml_quad", "pml_hybrid", "pml_quad", "tikh"),
)
_INPUT = KernelArgument(
    "input",
    "path",
    "the scan, a DXchange HDF5 file: /exchange/data, data_white, data_dark and theta (degrees).",
    required=True,
    role="input",
)
_ANGLES = KernelArgument(
    "angles",
    "string",
    "START:STOP in degrees, used in the place of /exchange/theta: that many equally spaced angles, STOP left out. "
    "For files without theta; a full half turn is 0:180.",
)
_FLOOR = KernelArgument(
    "transmissionFloor",
    "number",
    "least transmission; what lies below is set to it before the logarithm.",
    default=1e-4,
    minimum=1e-12,
    maximum=0.5,
)
_AIR = KernelArgument(
    "airColumns",
    "integer",
    "columns at each side of the detector that see only air; each row of each projection is scaled so that they "
    "show transmission 1, which removes beam drift. 0: no scaling.",
    default=0,
    minimum=0,
)
_MEMORY = KernelArgument(
    "memoryGB",
    "number",
    "memory for the data in work, in 10^9 bytes; it decides how many slices are in work at once.",
    default=2.0,
    minimum=0.01,
)
_PICTURE = KernelArgument("picture", "path", "a PNG with three slices through the middle; optional.", role="output")
_NEXUS = KernelArgument(
    "nexus",
    "path",
    "a NeXus file with the same slices and the parameters, for silx and h5web; optional.",
    role="output",
)
_FILTER = KernelArgument(
    "filter",
    "string",
    "ramp is the exact inverse; the others, in this order, damp high frequencies more and more.",
    default="ramp",
    choices=_FILTERS,
)
_CIRCLE = KernelArgument("circle", "boolean", "set what lies outside the inscribed circle to 0.", default=True)
_COMPRESSION = KernelArgument(
    "compression",
    "string",
    "of the volume's chunks: none is the fastest; lz4 saves a tenth or two.",
    default="none",
    choices=("none", "lz4"),
)
_BINNING = KernelArgument(
    "binning",
    "integer",
    "average this many rows and columns first.",
    default=1,
    choices=(1, 2, 4, 8),
)
_DISTANCES = (
    KernelArgument(
        "sourceDistance",
        "number",
        "cone beam: from the source to the axis, mm. Not given: the beam is parallel.",
        minimum=1e-6,
    ),
    KernelArgument("detectorDistance", "number", "cone beam: from the source to the detector, mm.", minimum=1e-6),
    KernelArgument(
        "pixelSize",
        "number",
        "micrometres of a pixel on the detector; needed for cone beams, else for the scale of the volume.",
        minimum=1e-6,
    ),
)
_TILT = KernelArgument(
    "tilt",
    "number",
    "degrees by which the axis leans from upright to the beam, in the plane of both: 30 where axis and beam make an "
    "angle of 60. Positive when its end at low rows leans to the source.",
    default=0.0,
)
_ROTATION = KernelArgument(
    "rotation",
    "string",
    "how the object turns with growing angles, seen from the axis' end at low rows, in projections as the source sees "
    "them. Matters for cone beams and tilted axes; if in doubt try both, one is blurred.",
    default="counterclockwise",
    choices=("counterclockwise", "clockwise"),
)
_TRUTH = "the true volume as `tomography.simulate` writes it (HDF5, /truth/volume)."

KERNELS: tuple[KernelSpec, ...] = (
    KernelSpec(
        "tomography.simulate",
        "make a scan of a known object, with noise, stripes, dead pixels and an axis off centre",
        "kernels.tomography.simulate:simulate",
        _VERSION,
        (
            KernelArgument(
                "output",
                "path",
                "the scan to write, a DXchange HDF5 file with uint16 counts; the truth is written beside it as "
                "<stem>_truth.h5.",
                required=True,
                role="output",
            ),
            KernelArgument("columns", "integer", "detector width, pixels.", default=512, minimum=16, maximum=16384),
            KernelArgument("rows", "integer", "detector height, pixels.", default=64, minimum=1, maximum=16384),
            KernelArgument("angles", "integer", "projections over the turn.", default=721, minimum=4, maximum=100000),
            KernelArgument(
                "turn",
                "number",
                "degrees. Over a full turn the axis may be near an edge of the detector, which then sees half of an "
                "object that is nearly twice as wide.",
                default=180.0,
                minimum=20,
            ),
            KernelArgument("axisOffset", "number", "axis minus the detector's middle, pixels.", default=6.4),
            *_DISTANCES,
            _TILT,
            _ROTATION,
            KernelArgument(
                "photons",
                "number",
                "counts of an open pixel, at most 60000.",
                default=20000,
                minimum=10,
                maximum=60000,
            ),
            KernelArgument(
                "absorption",
                "number",
                "line integral through the whole object's middle.",
                default=1.5,
                minimum=0.01,
                maximum=20,
            ),
            KernelArgument("noise", "boolean", "Poisson and read-out noise.", default=True),
            KernelArgument(
                "stripes",
                "number",
                "relative spread of a pixel's gain between flats and scan; gives rings.",
                default=0.0,
                minimum=0,
                maximum=0.5,
            ),
            KernelArgument(
                "deadPixels",
                "number",
                "fraction of pixels that are dead (0) or hot (full scale).",
                default=0.0005,
                minimum=0,
                maximum=0.2,
            ),
            KernelArgument(
                "beamDrift",
                "number",
                "relative slow change of the beam's intensity over the scan.",
                default=0.0,
                minimum=0,
                maximum=0.5,
            ),
            KernelArgument("flats", "integer", "flat fields, and darks.", default=20, minimum=1, maximum=1000),
            KernelArgument(
                "seed",
                "integer",
                "of the object and the noise; the same seed gives the same file.",
                default=1,
                minimum=0,
            ),
        ),
    ),
    KernelSpec(
        "tomography.inspect",
        "open a scan, check it as every other kernel would, and tell what is in it",
        "kernels.tomography.inspect:inspect",
        _VERSION,
        (_INPUT, _ANGLES),
    ),
    KernelSpec(
        "tomography.axis",
        "find the rotation axis",
        "kernels.tomography.locate:locate",
        _VERSION,
        (
            _INPUT,
            KernelArgument("output", "path", "a NeXus file with the search curves; optional.", role="output"),
            KernelArgument(
                "rows", "integer", "how many detector rows to search in.", default=5, minimum=1, maximum=100
            ),
            KernelArgument(
                "searchWidth",
                "number",
                "half width of the search around the detector's middle, as a fraction of the detector's width. "
                "Opposite projections of a full turn are compared over all of the detector.",
                default=0.3,
                minimum=0.001,
                maximum=0.45,
            ),
            _ANGLES,
            _FLOOR,
            _AIR,
        ),
    ),
    KernelSpec(
        "tomography.correct",
        "make a scan of clean transmissions: lost frames, zingers, flat fields, beam, lens and phase",
        "kernels.tomography.correct:correct",
        _VERSION,
        (
            _INPUT,
            KernelArgument(
                "output",
                "path",
                "the scan to write, a DXchange HDF5 file of float32 transmissions, with flats of 1 and darks of 0.",
                required=True,
                role="output",
            ),
            KernelArgument(
                "zingers",
                "number",
                "take bright spikes out that stand above their surroundings by so many times the noise; 8 is usual. "
                "Not given: none.",
                minimum=1,
            ),
            KernelArgument(
                "flatFields",
                "string",
                "mean of all; drifting from the first half of them, taken before the scan, to the second, after it; "
                "dynamic: a mixture of their principal components for each frame.",
                default="mean",
                choices=("mean", "drifting", "dynamic"),
            ),
            KernelArgument(
                "beam",
                "string",
                "make the beam steady by the airColumns at both sides, by the mass that all angles see (objects inside "
                "the view), or by its steps (jumps of the ring current).",
                default="none",
                choices=("none", "air", "mass", "steps"),
            ),
            _AIR,
            KernelArgument(
                "lens",
                "string",
                "ROW,COLUMN,K0,K1,…: centre of the lens' distortion, pixels, and the coefficients of its radius. Not "
                "given: no distortion.",
            ),
            KernelArgument("energy", "number", "photon energy, keV, for the phase.", minimum=1e-3),
            KernelArgument("distance", "number", "from sample to detector, mm, for the phase.", minimum=1e-6),
            KernelArgument("pixelSize", "number", "micrometres per pixel at the sample, for the phase.", minimum=1e-6),
            KernelArgument(
                "deltaBeta",
                "number",
                "delta / beta of the sample: retrieve its phase (Paganin). Not given: no phase.",
                minimum=0,
            ),
            _ANGLES,
            _MEMORY,
        ),
        parallel=True,
    ),
    KernelSpec(
        "tomography.preview",
        "show three slices through the middle of a scan, within seconds",
        "kernels.tomography.preview:preview",
        _VERSION,
        (
            _INPUT,
            KernelArgument("picture", "path", "the PNG to write.", required=True, role="output"),
            KernelArgument(
                "nexus",
                "path",
                "a NeXus file with the same slices, a histogram and the parameters; optional.",
                role="output",
            ),
            KernelArgument(
                "rotationAxis",
                "number",
                "column of the axis in detector pixels, from the middle of pixel 0. Not given: it is searched.",
            ),
            KernelArgument(
                "width",
                "integer",
                "at most so many columns: frames are averaged down to it, and as many angles are read as it needs.",
                default=512,
                minimum=16,
                maximum=4096,
            ),
            KernelArgument(
                "filter",
                "string",
                "as of tomography.reconstruct.",
                default="hann",
                choices=_FILTERS,
            ),
            KernelArgument(
                "padding",
                "string",
                "zero for objects inside the view, edge for wider ones.",
                default="edge",
                choices=("zero", "edge"),
            ),
            KernelArgument("pixelSize", "number", "micrometres per detector pixel, for the scale.", minimum=1e-6),
            _ANGLES,
            _FLOOR,
            _MEMORY,
        ),
    ),
    KernelSpec(
        "tomography.reconstruct",
        "reconstruct the volume, slab by slab",
        "kernels.tomography.reconstruct:reconstruct",
        _VERSION,
        (
            _INPUT,
            KernelArgument(
                "output",
                "path",
                "the volume to write, an OME-Zarr (NGFF 0.5) with a pyramid; array `0` is float32 (z, y, x), "
                "attenuation per detector pixel.",
                required=True,
                role="output",
            ),
            _PICTURE,
            _NEXUS,
            KernelArgument(
                "rotationAxis",
                "number",
                "column of the axis in detector pixels, counted from the middle of pixel 0: centred on 512 columns "
                "it is 255.5. Not given: it is searched.",
            ),
            KernelArgument(
                "backend",
                "string",
                "whose algorithm: native is ours; tomopy and astra are those of the packages TomoPy and ASTRA toolbox, "
                "which have to be installed; with the same geometry, gain and circle.",
                default="native",
                choices=("native", "tomopy", "astra"),
            ),
            KernelArgument(
                "algorithm",
                "string",
                "gridrec: direct, by gridding, exact to 1e-4 and by far the fastest; fbp: filtered back projection "
                "with linear interpolation; for few or noisy angles the iterative sirt, cgls, os-sart, and tv or "
                "huber, which prefer flat regions. Those from sart on are only with another backend: each says what "
                "it has.",
                default="gridrec",
                choices=_ALGORITHMS,
            ),
            KernelArgument(
                "device",
                "string",
                "what computes: gpu (gridrec only), cpu, or auto: a GPU that this process was given and can open, else "
                "the CPU.",
                default="auto",
                choices=("auto", "cpu", "gpu"),
            ),
            KernelArgument(
                "iterations",
                "integer",
                "at most so many iterations; not given: as many as suit the algorithm, and no more than help.",
                minimum=1,
                maximum=10000,
            ),
            KernelArgument("nonNegative", "boolean", "hold values at 0 or above, where iterative.", default=False),
            KernelArgument(
                "stripes",
                "string",
                "stripes of the sinograms, which would be rings, to remove: constant (the fastest), slow (Fourier and "
                "wavelets), partial, large, dead, or all three of these.",
                default="none",
                choices=("none", "constant", "slow", "partial", "large", "dead", "all"),
            ),
            KernelArgument(
                "hardening",
                "string",
                "MOST,C1,C2,…: undo the hardening of a beam of many energies in one material: line integrals p become "
                "C1 p + C2 p^2 + …, straight on from MOST. Not given: one energy.",
            ),
            _FILTER,
            KernelArgument(
                "padding",
                "string",
                "how a projection goes on outside the detector: zero for objects inside the view, edge for objects "
                "that are wider than the view.",
                default="zero",
                choices=("zero", "edge"),
            ),
            _CIRCLE,
            KernelArgument("dtype", "string", "number type of the volume.", default="float32", choices=("float32",)),
            _COMPRESSION,
            _BINNING,
            KernelArgument(
                "pixelSize",
                "number",
                "micrometres per detector pixel, for the scale of the volume.",
                minimum=1e-6,
            ),
            _ANGLES,
            _FLOOR,
            _AIR,
            _MEMORY,
        ),
        parallel=True,
    ),
    KernelSpec(
        "tomography.backproject",
        "reconstruct a scan with a cone beam, or with a tilted axis (laminography), slab by slab",
        "kernels.tomography.backproject:backproject",
        _VERSION,
        (
            _INPUT,
            KernelArgument(
                "output",
                "path",
                "the volume to write, an OME-Zarr (NGFF 0.5) with a pyramid; array `0` is float32 (z, y, x), "
                "attenuation per detector pixel as it is seen at the axis.",
                required=True,
                role="output",
            ),
            _PICTURE,
            _NEXUS,
            KernelArgument(
                "rotationAxis",
                "number",
                "column at which the axis is seen, in detector pixels from the middle of pixel 0. Not given: it is "
                "searched; look at axis_confidence then.",
            ),
            *_DISTANCES,
            KernelArgument(
                "middleColumn",
                "number",
                "cone beam: column of the ray that is perpendicular to the detector. Not given: that of the axis.",
            ),
            KernelArgument(
                "middleRow",
                "number",
                "row of the rays that are perpendicular to the axis (cone beam), or of the point of the axis about "
                "which the volume lies. Not given: the detector's middle.",
            ),
            _TILT,
            _ROTATION,
            KernelArgument(
                "height",
                "integer",
                "slices of the volume. Not given: as many as the detector has rows. Flat specimens need few.",
                minimum=1,
                maximum=100000,
            ),
            KernelArgument(
                "heightOffset",
                "number",
                "slices by which the middle of the volume lies off the plane that the middle row sees, positive "
                "towards high rows.",
                default=0.0,
            ),
            _FILTER,
            KernelArgument(
                "padding",
                "string",
                "how a projection goes on outside the detector: zero for objects inside the view, edge for objects "
                "that are wider than the view, as most in laminography.",
                default="zero",
                choices=("zero", "edge"),
            ),
            _CIRCLE,
            _COMPRESSION,
            _BINNING,
            _ANGLES,
            _FLOOR,
            _AIR,
            _MEMORY,
        ),
        parallel=True,
    ),
    KernelSpec(
        "tomography.compare",
        "measure a volume against the known truth",
        "kernels.tomography.compare:compare",
        _VERSION,
        (
            KernelArgument("input", "path", "the volume, an OME-Zarr.", required=True, role="input"),
            KernelArgument("truth", "path", _TRUTH, required=True, role="input"),
            KernelArgument("output", "path", "a JSON file with the figures; optional.", role="output"),
            KernelArgument("rotationAxis", "number", "the axis that was found, to compare with the true one."),
            KernelArgument(
                "maxError",
                "number",
                "bar for the relative RMSE; above it the run fails with exit 3.",
                minimum=0,
            ),
            KernelArgument("maxGainError", "number", "bar for |gain - 1|.", minimum=0),
            KernelArgument("maxAxisError", "number", "bar for the axis error, detector pixels.", minimum=0),
        ),
    ),
)
