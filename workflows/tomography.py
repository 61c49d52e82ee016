# Tomography: from a scan as it lands to a checked volume.
#
# One expression, a dict: comments are allowed, assignments and imports are not. Stage names are sorted as strings, and
# that is their order. Copy it, rename it, change it.
#
# ruff: noqa: B018
#
#   run it      beamway run tomography filePath:/data/scan_001.h5
#   try it      beamway explain tomography filePath:/data/scan_001.h5
{
    "name": "tomography",
    "owner": "beamway",
    "version": "1.0",
    "description": "Parallel-beam tomography. Takes a DXchange scan (HDF5: /exchange/data, data_white, data_dark, "
    "theta in degrees), checks it, finds the rotation axis, shows a quick look within seconds, reconstructs the volume "
    "and writes into outputDir: preview.png (three slices, coarse), volume.zarr (OME-Zarr with a pyramid; opens in "
    "napari, neuroglancer and Fiji), slices.png (three slices through the middle), preview.nxs, slices.nxs and "
    "axis.nxs (NeXus; open in silx and h5web), and beside them manifests with checksums and provenance. Where a "
    "correction is asked for (zingers, flatFields, beam, lens, deltaBeta), a clean scan is made first, corrected.h5, "
    "and all else is made of that. With truthPath, the volume is also compared with the truth.",
    "arguments": {
        "filePath": {"required": True, "type": "path", "description": "The scan, a DXchange HDF5 file."},
        "outputDir": {
            "type": "path",
            "default": "$filePath.reconstruction",
            "description": "Folder for all outputs; made when it is missing.",
        },
        "rotationAxis": {
            "type": "string",
            "default": "",
            "description": "Column of the rotation axis in detector pixels, counted from the middle of pixel 0 (512 "
            "columns, centred: 255.5). Empty: it is searched, and the search shows how sure it is.",
        },
        "searchWidth": {
            "type": "number",
            "default": "0.3",
            "description": "How far from the detector's middle to search for the axis, as a fraction of its width. In "
            "a full turn all of the detector is searched.",
        },
        "zingers": {
            "type": "number",
            "default": "",
            "description": "Take out bright spikes above so many times the noise; 8 is usual. Empty: leave them.",
        },
        "flatFields": {
            "choices": ["mean", "drifting", "dynamic"],
            "default": "mean",
            "description": "drifting when half of the flats were taken before the scan and half after it; dynamic for "
            "a beam that changes its shape all the time.",
        },
        "beam": {
            "choices": ["none", "air", "mass", "steps"],
            "default": "none",
            "description": "Make a beam of changing strength steady: by airColumns that see only air, by the mass that "
            "all angles see (objects inside the view), or by its steps (top-up of the ring).",
        },
        "lens": {
            "default": "",
            "description": "Straighten what a lens has bent: ROW,COLUMN,K0,K1,… of a calibration. Empty: not done.",
        },
        "deltaBeta": {
            "type": "number",
            "default": "",
            "description": "Retrieve the phase, for a sample of this delta / beta; with energy, distance and "
            "pixelSize. Empty: not done.",
        },
        "energy": {"type": "number", "default": "", "description": "For the phase: photon energy, keV."},
        "distance": {"type": "number", "default": "", "description": "For the phase: from sample to detector, mm."},
        "hardening": {
            "default": "",
            "description": "Undo the hardening of a white beam in one material: MOST,C1,C2,… of its curve (manual: "
            "tomography). Empty: not done.",
        },
        "scanPath": {
            "default": "$filePath",
            "description": "Leave it out: the scan that axis, preview and volume are made of, which is the corrected "
            "one where there is one.",
        },
        "scanTheta": {
            "default": "$angles",
            "description": "Leave it out: the angles for that scan; a corrected one has its own.",
        },
        "backend": {
            "choices": ["native", "tomopy", "astra"],
            "default": "native",
            "description": "Who reconstructs: Beamway itself, or TomoPy or the ASTRA toolbox where they are installed; "
            "place, scale and circle of the volume are the same.",
        },
        "algorithm": {
            "type": "string",
            "choices": [
                "gridrec",
                "fbp",
                "sirt",
                "cgls",
                "os-sart",
                "tv",
                "huber",
                "sart",
                "art",
                "bart",
                "grad",
                "mlem",
                "osem",
                "ospml_hybrid",
                "ospml_quad",
                "pml_hybrid",
                "pml_quad",
                "tikh",
            ],
            "default": "gridrec",
            "description": "gridrec is exact and by far the fastest. For few or noisy angles tv and huber are best, "
            "and take some hundred times as long; sirt, cgls and os-sart stand between. Those from sart on are only "
            "with another backend, which says what it has.",
        },
        "device": {
            "choices": ["auto", "cpu", "gpu"],
            "default": "auto",
            "description": "auto takes a GPU where the stage was given one (gpusPerRank) and gridrec can use it.",
        },
        "stripes": {
            "type": "string",
            "choices": ["none", "constant", "slow", "partial", "large", "dead", "all"],
            "default": "none",
            "description": "Remove what would be rings: constant takes hardly any time; all takes longer, and deals "
            "with partial, large and dead stripes.",
        },
        "filter": {
            "type": "string",
            "choices": ["ramp", "shepp-logan", "cosine", "hamming", "hann", "parzen"],
            "default": "ramp",
            "description": "Filter of gridrec and fbp. ramp is the exact inverse; the others, in this order, damp "
            "noise and detail more and more.",
        },
        "padding": {
            "type": "string",
            "choices": ["zero", "edge"],
            "default": "zero",
            "description": "edge for objects that are wider than the field of view: takes away the bright rim.",
        },
        "binning": {
            "type": "integer",
            "choices": ["1", "2", "4", "8"],
            "default": "1",
            "description": "Average this many detector rows and columns first: a quick look for little time.",
        },
        "airColumns": {
            "type": "integer",
            "default": "0",
            "description": "Columns at each side that see only air, to take out drift of the beam. 0: not done.",
        },
        "pixelSize": {
            "type": "string",
            "default": "",
            "description": "Micrometres per detector pixel at the sample. Empty: the volume has no length scale.",
        },
        "angles": {
            "type": "string",
            "default": "",
            "description": "START:STOP in degrees in the place of /exchange/theta (0:180), for files without it.",
        },
        "memoryGB": {
            "type": "number",
            "default": "2",
            "description": "Memory for the data in work, in 10^9 bytes; more means fewer passes over the file.",
        },
        "nodes": {
            "type": "integer",
            "default": "1",
            "description": "Nodes that reconstruct together (MPI). The volume is the same for any number.",
        },
        "ranksPerNode": {
            "type": "integer",
            "default": "1",
            "description": "Processes on each of these nodes; they share memoryGB.",
        },
        "coresPerRank": {
            "type": "integer",
            "default": "2",
            "description": "Cores of each process.",
        },
        "gpusPerRank": {
            "type": "integer",
            "default": "0",
            "description": "GPUs that each process sees, and nobody else.",
        },
        "truthPath": {
            "type": "path",
            "default": "",
            "description": "The true volume of a simulated scan. Empty: there is nothing to compare with.",
        },
        "maxError": {
            "type": "number",
            "default": "0.15",
            "description": "With truthPath: the largest relative error of the volume that passes. Noise counts too.",
        },
    },
    "stages": {
        "01-inspect": {
            "description": "Is it a scan that can be reconstructed? A file that is cut short, has no flats or no "
            "angles is refused here, in a sentence, before any computer is asked for.",
            "kernel": "tomography.inspect",
            "arguments": {"input": "$filePath", "angles": "$angles"},
            "inputs": ["$filePath"],
            "outputVariableRegexList": [
                r"(?m)^metric angles (?P<scanAngles>\d+)$",
                r"(?m)^metric rows (?P<scanRows>\d+)$",
                r"(?m)^metric columns (?P<scanColumns>\d+)$",
            ],
            "resources": {"coresPerRank": 1, "walltime": 120},
            "retries": {"transient": 3},
            "timeout": 120,
        },
        "02-correct": {
            "description": "Only where a correction is asked for: corrected.h5, a scan of clean transmissions, which "
            "stands for the scan in all that follows.",
            "runIf": '"$zingers" != "" or "$flatFields" != "mean" or "$beam" != "none" or "$lens" != "" '
            'or "$deltaBeta" != "" or "$energy" != "" or "$distance" != ""',
            "after": ["01-inspect"],
            "kernel": "tomography.correct",
            "arguments": {
                "input": "$filePath",
                "output": "$outputDir/corrected.h5",
                "zingers": "$zingers",
                "flatFields": "$flatFields",
                "beam": "$beam",
                "airColumns": "$airColumns",
                "lens": "$lens",
                "energy": "$energy",
                "distance": "$distance",
                "pixelSize": "$pixelSize",
                "deltaBeta": "$deltaBeta",
                "angles": "$angles",
                "memoryGB": "$memoryGB",
            },
            "inputs": ["$filePath"],
            "outputs": ["$outputDir/corrected.h5"],
            # The corrected scan has its angles, without those of dropped frames: none are to be given from here on.
            "outputVariableRegexList": [
                r"(?m)^product (?P<scanPath>.+)$",
                r"(?m)^product .+(?P<scanTheta>)$",
                r"(?m)^metric dropped_frames (?P<droppedFrames>\d+)$",
            ],
            "expect": {
                "$outputDir/corrected.h5": {"opens": "hdf5", "dataset": "/exchange/data", "dtype": "float32"},
                "$outputDir/corrected.h5.manifest.json": {"opens": "json"},
            },
            "resources": {
                "nodes": "$nodes",
                "ranksPerNode": "$ranksPerNode",
                "coresPerRank": "$coresPerRank",
                "memory": "4GB",
                "walltime": 3600,
            },
            "retries": {"transient": 3},
            "timeout": 7200,
        },
        "03-axis": {
            "description": "Find the rotation axis by several ways, unless rotationAxis says where it is. axis.nxs "
            "holds what each says, with its search curve; below a confidence of 0.5 look there before believing the "
            "volume.",
            "runIf": '"$rotationAxis" == ""',
            "after": ["02-correct"],
            "kernel": "tomography.axis",
            "arguments": {
                "input": "$scanPath",
                "output": "$outputDir/axis.nxs",
                "searchWidth": "$searchWidth",
                "angles": "$scanTheta",
                "airColumns": "$airColumns",
            },
            "inputs": ["$scanPath"],
            "outputs": ["$outputDir/axis.nxs"],
            "outputVariableRegexList": [
                r"(?m)^metric rotation_axis (?P<rotationAxis>\S+)$",
                r"(?m)^metric axis_spread (?P<axisSpread>\S+)$",
                r"(?m)^metric axis_confidence (?P<axisConfidence>\S+)$",
            ],
            "expect": {"$outputDir/axis.nxs": {"opens": "hdf5", "dataset": "/entry/axis_metric/value", "finite": 1.0}},
            "resources": {"coresPerRank": 2, "walltime": 600},
            "retries": {"transient": 3},
            "timeout": 900,
        },
        "04-preview": {
            "description": "A picture within seconds, beside the reconstruction: few angles, averaged pixels.",
            "after": ["03-axis"],
            "kernel": "tomography.preview",
            "arguments": {
                "input": "$scanPath",
                "picture": "$outputDir/preview.png",
                "nexus": "$outputDir/preview.nxs",
                "rotationAxis": "$rotationAxis",
                "padding": "$padding",
                "pixelSize": "$pixelSize",
                "angles": "$scanTheta",
            },
            "inputs": ["$scanPath"],
            "outputs": ["$outputDir/preview.png", "$outputDir/preview.nxs"],
            "expect": {
                "$outputDir/preview.png": {"opens": "png", "minSize": 1000},
                "$outputDir/preview.nxs": {"opens": "hdf5", "dataset": "/entry/horizontal/data", "finite": 1.0},
                "$outputDir/preview.png.manifest.json": {"opens": "json"},
            },
            "resources": {"coresPerRank": 2, "walltime": 600},
            "retries": {"transient": 3},
            "timeout": 900,
        },
        "05-reconstruct": {
            "description": "Slab by slab within memoryGB; one that was killed goes on where it was. Refuses to write a "
            "volume with values that are not finite.",
            "after": ["03-axis"],
            "kernel": "tomography.reconstruct",
            "arguments": {
                "input": "$scanPath",
                "output": "$outputDir/volume.zarr",
                "picture": "$outputDir/slices.png",
                "nexus": "$outputDir/slices.nxs",
                "rotationAxis": "$rotationAxis",
                "backend": "$backend",
                "algorithm": "$algorithm",
                "device": "$device",
                "stripes": "$stripes",
                "hardening": "$hardening",
                "filter": "$filter",
                "padding": "$padding",
                "binning": "$binning",
                "airColumns": "$airColumns",
                "pixelSize": "$pixelSize",
                "angles": "$scanTheta",
                "memoryGB": "$memoryGB",
            },
            "inputs": ["$scanPath"],
            "outputs": ["$outputDir/volume.zarr", "$outputDir/slices.png", "$outputDir/slices.nxs"],
            "outputVariableRegexList": [r"(?m)^metric slices (?P<slices>\d+)$", r"(?m)^metric size (?P<size>\d+)$"],
            "expect": {
                "$outputDir/volume.zarr": {
                    "opens": "zarr",
                    "dataset": "0",
                    "dtype": "float32",
                    "finite": 1.0,
                    "minSize": 1000,
                    "nonconstant": True,
                },
                "$outputDir/slices.png": {"opens": "png", "minSize": 1000},
                "$outputDir/slices.nxs": {"opens": "hdf5", "dataset": "/entry/horizontal/data", "finite": 1.0},
                "$outputDir/volume.zarr.manifest.json": {"opens": "json"},
            },
            "resources": {
                "nodes": "$nodes",
                "ranksPerNode": "$ranksPerNode",
                "coresPerRank": "$coresPerRank",
                "gpusPerRank": "$gpusPerRank",
                "memory": "4GB",
                "walltime": 3600,
            },
            "retries": {"transient": 3, "bad output": 1},
            "timeout": 7200,
        },
        "06-compare": {
            "description": "For simulated scans: error, gain and axis against the truth; fails above maxError.",
            "runIf": '"$truthPath" != ""',
            "after": ["05-reconstruct"],
            "kernel": "tomography.compare",
            "arguments": {
                "input": "$outputDir/volume.zarr",
                "truth": "$truthPath",
                "output": "$outputDir/error.json",
                "rotationAxis": "$rotationAxis",
                "maxError": "$maxError",
                "maxGainError": "0.02",
                "maxAxisError": "0.5",
            },
            "inputs": ["$filePath", "$outputDir/volume.zarr", "$truthPath"],
            "outputs": ["$outputDir/error.json"],
            "outputVariableRegexList": [
                r"(?m)^metric relative_rmse (?P<relativeError>\S+)$",
                r"(?m)^metric gain (?P<gain>\S+)$",
                r"(?m)^metric axis_error (?P<axisError>\S+)$",
            ],
            "expect": {"$outputDir/error.json": {"opens": "json"}},
            "resources": {"coresPerRank": 1, "walltime": 600},
            "retries": {"transient": 3},
            "timeout": 600,
        },
    },
}
