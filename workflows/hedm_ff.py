# Far-field HEDM: from frames of a turning polycrystal to the orientation, position and strain of each grain.
#
# One expression, a dict: comments are allowed, assignments and imports are not. Stage names are sorted as strings, and
# that is their order. Copy it, rename it, change it.
#
# ruff: noqa: B018
#
#   run it      beamway run hedm_ff filePath:/data/layer7.h5 geometryPath:/data/ge.yml cifPath:/data/ti7.cif
#   a cubic one beamway run hedm_ff filePath:/data/au.h5 geometryPath:/data/ge.yml lattice:4.0782 spaceGroup:Fm-3m
#   panels      beamway run hedm_ff filePath:/data/ff1.h5 panels:ff1=/data/ff1.h5,ff2=/data/ff2.h5 …
#   try it      beamway explain hedm_ff filePath:/data/layer7.h5 geometryPath:/data/ge.yml cifPath:/data/ti7.cif
{
    "name": "hedm_ff",
    "owner": "beamway",
    "version": "1.0",
    "description": "Far-field high-energy diffraction microscopy (3DXRD). Takes frames of a turning polycrystal (HDF5, "
    "GE, TIFF, CBF, HEXRD's frame caches), the instrument (HEXRD, MIDAS or ImageD11) and the crystal, finds spots and "
    "the grains that made them, and writes into outputDir: spots.h5, grains.nxs (orientation, position, strain, their "
    "covariance; opens in silx and h5web), Grains.csv in the columns of MIDAS, grains.png (a map and histograms), and "
    "beside each output a manifest with its checksum and provenance. Where nothing can be indexed it fails and says "
    "which rings were found and which were expected.",
    "arguments": {
        "filePath": {
            "required": True,
            "type": "path",
            "description": "The frames; of several panels those of one of them.",
        },
        "panels": {
            "type": "string",
            "default": "$filePath",
            "description": "The frames of several panels, by their names in geometryPath: NAME=FILE,NAME=FILE.",
        },
        "geometryPath": {
            "required": True,
            "type": "path",
            "description": "The instrument: HEXRD's .yml, MIDAS's parameters (.txt) or ImageD11's .par.",
        },
        "outputDir": {
            "type": "path",
            "default": "$filePath.hedm",
            "description": "Folder for all outputs; made when it is missing.",
        },
        "cifPath": {"type": "path", "default": "", "description": "The crystal. Empty: lattice and spaceGroup."},
        "lattice": {
            "type": "string",
            "default": "",
            "description": "Without cifPath: a,b,c,alpha,beta,gamma in angstrom and degrees; a alone if it is cubic.",
        },
        "spaceGroup": {"type": "string", "default": "", "description": "Without cifPath: number or symbol."},
        "dark": {
            "type": "string",
            "default": "first",
            "description": "A file of dark frames, first (the median of the first frames), or a number of counts.",
        },
        "threshold": {"type": "string", "default": "", "description": "Counts above the dark. Empty: by sigmas."},
        "sigmas": {
            "type": "string",
            "default": "",
            "description": "The same in standard deviations of the dark. Both empty: 8.",
        },
        "gaussians": {
            "type": "string",
            "choices": ["true", "false"],
            "default": "false",
            "description": "Fit a Gaussian to each spot.",
        },
        "omegaStart": {"type": "string", "default": "", "description": "Degrees, where the frames do not say it."},
        "omegaStep": {"type": "string", "default": "", "description": "Degrees, where the frames do not say it."},
        "sampleRadius": {
            "type": "number",
            "default": "500",
            "description": "Grains lie within so many µm of the rotation axis.",
        },
        "sampleHeight": {"type": "number", "default": "200", "description": "And within this height, µm."},
        "maxStrain": {"type": "number", "default": "0.002", "description": "The largest strain that is looked for."},
        "minCompleteness": {
            "type": "number",
            "default": "0.5",
            "description": "The least share of its expected spots that a grain must have.",
        },
        "maxTwoTheta": {"type": "string", "default": "", "description": "Rings up to here, degrees. Empty: all."},
        "rings": {"type": "string", "default": "", "description": "Only so many rings. Empty: all."},
        "illuminatedVolume": {
            "type": "string",
            "default": "",
            "description": "What the grains fill together, for their radii: µm³, or sample for the cylinder above.",
        },
        "spotNoise": {"type": "number", "default": "0.1", "description": "Of a spot's place, pixels; measured anew."},
        "omegaNoise": {
            "type": "string",
            "default": "",
            "description": "Of its omega, degrees; measured anew. Empty: 0.15 of a frame.",
        },
        "calibrate": {
            "type": "string",
            "choices": ["true", "false"],
            "default": "false",
            "description": "Refine distance, tilts and wedge from the grains first.",
        },
        "refinedPath": {
            "type": "path",
            "default": "$geometryPath",
            "description": "The instrument with which grains are looked for; calibrate puts its own here.",
        },
        "device": {
            "choices": ["auto", "cpu", "gpu"],
            "default": "auto",
            "description": "What looks for grains; auto takes a GPU where it was given one (gpusPerRank). The result is "
            "the same.",
        },
        "nodes": {
            "type": "integer",
            "default": "1",
            "description": "Nodes that work together (MPI). The result is the same for any number.",
        },
        "ranksPerNode": {"type": "integer", "default": "1", "description": "Processes on each of these nodes."},
        "coresPerRank": {"type": "integer", "default": "2", "description": "Cores of each process."},
        "gpusPerRank": {
            "type": "integer",
            "default": "0",
            "description": "GPUs of each process that looks for grains.",
        },
    },
    "stages": {
        "01-inspect": {
            "description": "Do frames, instrument and crystal belong together? What does not is refused here, in a "
            "sentence, before any computer is asked for.",
            "kernel": "hedm.inspect",
            "arguments": {
                "input": "$panels",
                "geometry": "$geometryPath",
                "cif": "$cifPath",
                "lattice": "$lattice",
                "spaceGroup": "$spaceGroup",
                "omegaStart": "$omegaStart",
                "omegaStep": "$omegaStep",
                "maxTwoTheta": "$maxTwoTheta",
                "rings": "$rings",
            },
            "inputs": ["$filePath", "$geometryPath"],
            "outputVariableRegexList": [
                r"(?m)^metric frames (?P<frames>\d+)$",
                r"(?m)^metric rings (?P<ringsThere>\d+)$",
            ],
            "resources": {"coresPerRank": 1, "walltime": 120},
            "retries": {"transient": 3},
            "timeout": 120,
        },
        "02-peaks": {
            "description": "Spots: darkness, threshold, labelling over neighbouring frames, centroids.",
            "after": ["01-inspect"],
            "kernel": "hedm.peaks",
            "arguments": {
                "input": "$panels",
                "output": "$outputDir/spots.h5",
                "geometry": "$geometryPath",
                "dark": "$dark",
                "threshold": "$threshold",
                "sigmas": "$sigmas",
                "gaussians": "$gaussians",
                "omegaStart": "$omegaStart",
                "omegaStep": "$omegaStep",
            },
            "inputs": ["$filePath", "$geometryPath"],
            "outputs": ["$outputDir/spots.h5"],
            "outputVariableRegexList": [
                r"(?m)^metric spots (?P<spots>\d+)$",
                r"(?m)^metric saturated (?P<saturated>\d+)$",
            ],
            "expect": {
                "$outputDir/spots.h5": {"opens": "hdf5", "dataset": "/entry/spots/row", "finite": 1.0},
                "$outputDir/spots.h5.manifest.json": {"opens": "json"},
            },
            "resources": {
                "nodes": "$nodes",
                "ranksPerNode": "$ranksPerNode",
                "coresPerRank": "$coresPerRank",
                "memory": "6GB",
                "walltime": 1800,
            },
            "retries": {"transient": 3, "bad output": 1},
            "timeout": 3600,
        },
        "03-calibrate": {
            "description": "The instrument from the grains that are there.",
            "runIf": '"$calibrate" == "true"',
            "after": ["02-peaks"],
            "kernel": "hedm.calibrate",
            "arguments": {
                "input": "$outputDir/spots.h5",
                "output": "$outputDir/geometry.yml",
                "geometry": "$geometryPath",
                "cif": "$cifPath",
                "lattice": "$lattice",
                "spaceGroup": "$spaceGroup",
                "sampleRadius": "$sampleRadius",
                "sampleHeight": "$sampleHeight",
                "maxTwoTheta": "$maxTwoTheta",
                "rings": "$rings",
                "maxStrain": "$maxStrain",
                "minCompleteness": "$minCompleteness",
                "spotNoise": "$spotNoise",
                "omegaNoise": "$omegaNoise",
            },
            "inputs": ["$outputDir/spots.h5", "$geometryPath"],
            "outputs": ["$outputDir/geometry.yml"],
            "outputVariableRegexList": [
                r"(?m)^product (?P<refinedPath>\S.*)$",
                r"(?m)^metric rms_px (?P<calibratedRmsPx>\S+)$",
            ],
            "expect": {"$outputDir/geometry.yml": {"minSize": 100}},
            "resources": {"coresPerRank": 2, "memory": "4GB", "walltime": 1800},
            "retries": {"transient": 3},
            "timeout": 3600,
        },
        "04-farfield": {
            "description": "Grains: indexed, refined (12 numbers each with their covariance), each spot given to one "
            "of them, and those that chance explains refused.",
            "after": ["02-peaks", "03-calibrate"],
            "kernel": "hedm.farfield",
            "arguments": {
                "input": "$outputDir/spots.h5",
                "output": "$outputDir/grains.nxs",
                "csv": "$outputDir/Grains.csv",
                "picture": "$outputDir/grains.png",
                "geometry": "$refinedPath",
                "cif": "$cifPath",
                "lattice": "$lattice",
                "spaceGroup": "$spaceGroup",
                "sampleRadius": "$sampleRadius",
                "sampleHeight": "$sampleHeight",
                "illuminatedVolume": "$illuminatedVolume",
                "maxTwoTheta": "$maxTwoTheta",
                "rings": "$rings",
                "maxStrain": "$maxStrain",
                "minCompleteness": "$minCompleteness",
                "spotNoise": "$spotNoise",
                "omegaNoise": "$omegaNoise",
                "device": "$device",
            },
            "inputs": ["$outputDir/spots.h5", "$refinedPath"],
            "outputs": ["$outputDir/grains.nxs", "$outputDir/Grains.csv", "$outputDir/grains.png"],
            "outputVariableRegexList": [
                r"(?m)^metric grains (?P<grains>\d+)$",
                r"(?m)^metric indexed (?P<indexed>\S+)$",
                r"(?m)^metric completeness (?P<completeness>\S+)$",
                r"(?m)^metric position_error_um (?P<positionError>\S+)$",
            ],
            "expect": {
                "$outputDir/grains.nxs": {"opens": "hdf5", "dataset": "/entry/grains/orientation", "finite": 1.0},
                "$outputDir/Grains.csv": {"minSize": 200},
                "$outputDir/grains.png": {"opens": "png", "minSize": 1000},
                "$outputDir/grains.nxs.manifest.json": {"opens": "json"},
            },
            "resources": {
                "nodes": "$nodes",
                "ranksPerNode": "$ranksPerNode",
                "coresPerRank": "$coresPerRank",
                "gpusPerRank": "$gpusPerRank",
                "memory": "6GB",
                "walltime": 1800,
            },
            "retries": {"transient": 3, "bad output": 1},
            "timeout": 3600,
        },
    },
}
