# XPCS: from a series of frames to g2, two-time correlations, relaxation times and pictures.
#
# One expression, a dict: comments are allowed, assignments and imports are not. Stage names are sorted as strings, and
# that is their order. Copy it, rename it, change it.
#
# ruff: noqa: B018
#
#   run it      beamway run xpcs filePath:/data/a0012.h5 qmapPath:/data/qmap.hdf
#   both        beamway run xpcs filePath:/data/a0012.h5 qmapPath:/data/qmap.hdf route:both bins:1,5,9
#   try it      beamway explain xpcs filePath:/data/a0012.h5
{
    "name": "xpcs",
    "owner": "beamway",
    "version": "1.0",
    "description": "X-ray photon correlation spectroscopy. Takes frames (HDF5, Rigaku, IMM, Timepix4), their bins (a "
    "qmap of pySimpleMask) and metadata, checks that they belong together, correlates and fits, and writes into "
    "outputDir: multitau_results.hdf and twotime_results.hdf (in the layout of APS 8-ID; they open in pyXPCSViewer), "
    "fit.nxs (relaxation times and their power law; opens in silx and h5web), pictures of each (scattering.png, "
    "twotime.png, g2.png), and beside each output a manifest with its checksum and provenance.",
    "arguments": {
        "filePath": {"required": True, "type": "path", "description": "The frames: .h5, .bin, .bin.000, .imm or .tpx."},
        "qmapPath": {
            "type": "path",
            "default": "",
            "description": "The bins, a qmap file. Empty: rings about the beam are made, by what the metadata say.",
        },
        "metadataPath": {
            "type": "path",
            "default": "",
            "description": "The *_metadata.hdf of the measurement. Empty: the one beside the frames.",
        },
        "outputDir": {
            "type": "path",
            "default": "$filePath.xpcs",
            "description": "Folder for all outputs; made when it is missing.",
        },
        "route": {
            "type": "string",
            "choices": ["multitau", "twotime", "both"],
            "default": "multitau",
            "description": "multitau: g2 at delays of all lengths, for samples in equilibrium. twotime: each two "
            "frames, for samples that change.",
        },
        "model": {
            "type": "string",
            "choices": ["simple", "stretched", "double"],
            "default": "stretched",
            "description": "Of g2: one exponential, a stretched one, or two.",
        },
        "frameTime": {
            "type": "string",
            "default": "",
            "description": "Seconds from one frame to the next. Empty: as the metadata say.",
        },
        "firstFrame": {"type": "integer", "default": "0", "description": "The first frame that counts, from 0."},
        "lastFrame": {"type": "string", "default": "", "description": "The last frame that counts. Empty: of all."},
        "stride": {"type": "integer", "default": "1", "description": "Take every so many-th frame."},
        "average": {"type": "integer", "default": "1", "description": "Then take so many neighbours as one frame."},
        "badPixels": {
            "type": "string",
            "choices": ["true", "false"],
            "default": "false",
            "description": "Look for dead and hot pixels first, and leave them out. The frames are read once more.",
        },
        "lagsPerLevel": {
            "type": "integer",
            "default": "4",
            "description": "Delays at each level of multi-tau; at the next they are twice as far apart.",
        },
        "bins": {
            "type": "string",
            "default": "",
            "description": "Dynamic bins for two times, such as 1,3,5-7: one of n frames takes 2 n² bytes. Empty: all.",
        },
        "scheme": {
            "type": "string",
            "choices": ["full", "multitau"],
            "default": "full",
            "description": "Of two times: full for each two frames; multitau for long series, by delay and time.",
        },
        "slices": {
            "type": "integer",
            "default": "5",
            "description": "Of two times, g2 is also given of so many parts of the series.",
        },
        "staticQ": {"type": "integer", "default": "270", "description": "Without qmapPath: static rings."},
        "dynamicQ": {"type": "integer", "default": "27", "description": "Without qmapPath: dynamic rings."},
        "beamStop": {
            "type": "number",
            "default": "0",
            "description": "Without qmapPath: radius about the beam in which pixels do not count, pixels.",
        },
        "memoryGB": {
            "type": "number",
            "default": "4",
            "description": "Memory for frames and sums of multi-tau, in 10^9 bytes.",
        },
        "device": {
            "choices": ["auto", "cpu", "gpu"],
            "default": "auto",
            "description": "auto takes a GPU where the stage was given one (gpusPerRank). The result is the same.",
        },
        "nodes": {
            "type": "integer",
            "default": "1",
            "description": "Nodes that correlate together (MPI). The result is the same for any number.",
        },
        "ranksPerNode": {"type": "integer", "default": "1", "description": "Processes on each of these nodes."},
        "coresPerRank": {"type": "integer", "default": "2", "description": "Cores of each process."},
    },
    "stages": {
        "01-qmap": {
            "description": "Rings about the beam, unless qmapPath has the bins.",
            "runIf": '"$qmapPath" == ""',
            "kernel": "xpcs.qmap",
            "arguments": {
                "input": "$filePath",
                "output": "$outputDir/qmap.hdf",
                "metadata": "$metadataPath",
                "staticQ": "$staticQ",
                "dynamicQ": "$dynamicQ",
                "beamStop": "$beamStop",
            },
            "inputs": ["$filePath"],
            "outputs": ["$outputDir/qmap.hdf"],
            "outputVariableRegexList": [r"(?m)^product (?P<qmapPath>\S.*)$"],
            "expect": {"$outputDir/qmap.hdf": {"opens": "hdf5", "dataset": "/qmap/dynamic_roi_map"}},
            "resources": {"coresPerRank": 1, "walltime": 300},
            "retries": {"transient": 3},
            "timeout": 300,
        },
        "02-inspect": {
            "description": "Do frames, bins and metadata belong together, and are they enough? What is cut short, "
            "of another detector or incomplete is refused here, in a sentence, before any computer is asked for.",
            "after": ["01-qmap"],
            "kernel": "xpcs.inspect",
            "arguments": {
                "input": "$filePath",
                "qmap": "$qmapPath",
                "metadata": "$metadataPath",
                "frameTime": "$frameTime",
                "firstFrame": "$firstFrame",
                "lastFrame": "$lastFrame",
                "stride": "$stride",
                "average": "$average",
                "lagsPerLevel": "$lagsPerLevel",
            },
            "inputs": ["$filePath"],
            "outputVariableRegexList": [
                r"(?m)^metric frames (?P<frames>\d+)$",
                r"(?m)^metric dynamic_bins (?P<dynamicBins>\d+)$",
                r"(?m)^metric occupancy (?P<occupancy>\S+)$",
            ],
            "resources": {"coresPerRank": 1, "walltime": 120},
            "retries": {"transient": 3},
            "timeout": 120,
        },
        "03-multitau": {
            "description": "g2 of each dynamic bin, and the scattering. Frames without light and a scattering that "
            "changes its shape are warnings in the result (/xpcs/process).",
            "runIf": '"$route" != "twotime"',
            "after": ["02-inspect"],
            "kernel": "xpcs.multitau",
            "arguments": {
                "input": "$filePath",
                "qmap": "$qmapPath",
                "output": "$outputDir/multitau_results.hdf",
                "picture": "$outputDir/scattering.png",
                "preview": "$outputDir/preview.h5",
                "metadata": "$metadataPath",
                "frameTime": "$frameTime",
                "firstFrame": "$firstFrame",
                "lastFrame": "$lastFrame",
                "stride": "$stride",
                "average": "$average",
                "badPixels": "$badPixels",
                "lagsPerLevel": "$lagsPerLevel",
                "memoryGB": "$memoryGB",
                "device": "$device",
            },
            "inputs": ["$filePath"],
            "outputs": [
                "$outputDir/multitau_results.hdf",
                "$outputDir/scattering.png",
                "$outputDir/preview.h5",
            ],
            "outputVariableRegexList": [
                r"(?m)^metric contrast (?P<contrast>\S+)$",
                r"(?m)^metric bad_frames (?P<badFrames>\d+)$",
                r"(?m)^metric changing_bins (?P<changingBins>\d+)$",
            ],
            "expect": {
                "$outputDir/multitau_results.hdf": {
                    "opens": "hdf5",
                    "dataset": "/xpcs/multitau/normalized_g2",
                    "finite": 1.0,
                    "nonconstant": True,
                },
                "$outputDir/scattering.png": {"opens": "png", "minSize": 1000},
                "$outputDir/preview.h5": {"opens": "hdf5", "dataset": "/entry/g2/g2", "finite": 1.0},
                "$outputDir/multitau_results.hdf.manifest.json": {"opens": "json"},
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
        "04-twotime": {
            "description": "The correlation of each two frames, and g2 of parts of the series.",
            "runIf": '"$route" != "multitau"',
            "after": ["02-inspect"],
            "kernel": "xpcs.twotime",
            "arguments": {
                "input": "$filePath",
                "qmap": "$qmapPath",
                "output": "$outputDir/twotime_results.hdf",
                "picture": "$outputDir/twotime.png",
                "metadata": "$metadataPath",
                "frameTime": "$frameTime",
                "firstFrame": "$firstFrame",
                "lastFrame": "$lastFrame",
                "stride": "$stride",
                "average": "$average",
                "badPixels": "$badPixels",
                "bins": "$bins",
                "slices": "$slices",
                "scheme": "$scheme",
                "lagsPerLevel": "$lagsPerLevel",
                "device": "$device",
            },
            "inputs": ["$filePath"],
            "outputs": ["$outputDir/twotime_results.hdf", "$outputDir/twotime.png"],
            "outputVariableRegexList": [r"(?m)^metric contrast (?P<twotimeContrast>\S+)$"],
            "expect": {
                "$outputDir/twotime_results.hdf": {
                    "opens": "hdf5",
                    "dataset": "/xpcs/twotime/normalized_g2",
                    "finite": 1.0,
                    "nonconstant": True,
                },
                "$outputDir/twotime.png": {"opens": "png", "minSize": 1000},
                "$outputDir/twotime_results.hdf.manifest.json": {"opens": "json"},
            },
            "resources": {
                "nodes": "$nodes",
                "ranksPerNode": "$ranksPerNode",
                "coresPerRank": "$coresPerRank",
                "memory": "8GB",
                "walltime": 3600,
            },
            "retries": {"transient": 3, "bad output": 1},
            "timeout": 7200,
        },
        "05-fit": {
            "description": "Relaxation times with their uncertainties, and how they depend on q. A bin that cannot be "
            "fitted says why in fit.nxs, and fails nothing.",
            "runIf": '"$route" != "twotime"',
            "after": ["03-multitau"],
            "kernel": "xpcs.fit",
            "arguments": {
                "input": "$outputDir/multitau_results.hdf",
                "output": "$outputDir/fit.nxs",
                "picture": "$outputDir/g2.png",
                "model": "$model",
            },
            "inputs": ["$outputDir/multitau_results.hdf"],
            "outputs": ["$outputDir/fit.nxs", "$outputDir/g2.png"],
            "outputVariableRegexList": [
                r"(?m)^metric fitted (?P<fitted>\d+)$",
                r"(?m)^metric tau_exponent (?P<tauExponent>\S+)$",
                r"(?m)^metric tau_exponent_error (?P<tauExponentError>\S+)$",
            ],
            "expect": {
                "$outputDir/fit.nxs": {"opens": "hdf5", "dataset": "/entry/g2/g2", "finite": 1.0},
                "$outputDir/g2.png": {"opens": "png", "minSize": 1000},
            },
            "resources": {"coresPerRank": 1, "walltime": 300},
            "retries": {"transient": 3},
            "timeout": 600,
        },
        "06-fit-twotime": {
            "description": "The same of the g2 that two times have, where there is no other.",
            "runIf": '"$route" == "twotime"',
            "after": ["04-twotime"],
            "kernel": "xpcs.fit",
            "arguments": {
                "input": "$outputDir/twotime_results.hdf",
                "output": "$outputDir/fit.nxs",
                "picture": "$outputDir/g2.png",
                "model": "$model",
            },
            "inputs": ["$outputDir/twotime_results.hdf"],
            "outputs": ["$outputDir/fit.nxs", "$outputDir/g2.png"],
            "outputVariableRegexList": [
                r"(?m)^metric fitted (?P<fitted>\d+)$",
                r"(?m)^metric tau_exponent (?P<tauExponent>\S+)$",
                r"(?m)^metric tau_exponent_error (?P<tauExponentError>\S+)$",
            ],
            "expect": {
                "$outputDir/fit.nxs": {"opens": "hdf5", "dataset": "/entry/g2/g2", "finite": 1.0},
                "$outputDir/g2.png": {"opens": "png", "minSize": 1000},
            },
            "resources": {"coresPerRank": 1, "walltime": 300},
            "retries": {"transient": 3},
            "timeout": 600,
        },
    },
}
