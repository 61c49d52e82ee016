# Back projection: scans with a cone beam or a tilted axis (laminography), from the scan to a checked volume.
#
# ruff: noqa: B018
#
#   cone beam       beamway run backprojection filePath:/data/a.h5 sourceDistance:120 detectorDistance:600 pixelSize:50
#   laminography    beamway run backprojection filePath:/data/a.h5 tilt:30 height:200 padding:edge
{
    "name": "backprojection",
    "owner": "beamway",
    "version": "1.0",
    "description": "Tomography with a cone beam or a tilted axis. Takes a DXchange scan, checks it, finds the rotation "
    "axis, reconstructs the volume and writes into outputDir: volume.zarr (OME-Zarr with a pyramid), slices.png and "
    "slices.nxs, and beside each a manifest with its checksum and provenance.",
    "arguments": {
        "filePath": {"required": True, "type": "path", "description": "The scan, a DXchange HDF5 file."},
        "outputDir": {
            "type": "path",
            "default": "$filePath.reconstruction",
            "description": "Folder for all outputs; made when it is missing.",
        },
        "sourceDistance": {
            "type": "string",
            "default": "",
            "description": "Cone beam: from the source to the axis, mm. Empty: the beam is parallel.",
        },
        "detectorDistance": {
            "type": "string",
            "default": "",
            "description": "Cone beam: from the source to the detector, mm.",
        },
        "pixelSize": {
            "type": "string",
            "default": "",
            "description": "Micrometres of a pixel on the detector; needed for cone beams.",
        },
        "tilt": {
            "type": "number",
            "default": "0",
            "description": "Laminography: degrees by which the axis leans from upright to the beam, positive when its "
            "end at low rows leans to the source.",
        },
        "rotation": {
            "type": "string",
            "choices": ["counterclockwise", "clockwise"],
            "default": "counterclockwise",
            "description": "How the object turns, seen from the axis' end at low rows. If in doubt try both.",
        },
        "rotationAxis": {
            "type": "string",
            "default": "",
            "description": "Column at which the axis is seen, from the middle of pixel 0. Empty: it is searched.",
        },
        "height": {"type": "string", "default": "", "description": "Slices. Empty: as many as there are rows."},
        "filter": {
            "type": "string",
            "choices": ["ramp", "shepp-logan", "cosine", "hamming", "hann", "parzen"],
            "default": "ramp",
            "description": "ramp is the exact inverse; the others damp noise and detail more and more.",
        },
        "padding": {
            "type": "string",
            "choices": ["zero", "edge"],
            "default": "zero",
            "description": "edge for objects that are wider than the field of view.",
        },
        "binning": {
            "type": "integer",
            "choices": ["1", "2", "4", "8"],
            "default": "1",
            "description": "Average this many detector rows and columns first: a quick look for little time.",
        },
        "memoryGB": {
            "type": "number",
            "default": "2",
            "description": "Memory for the data in work, in 10^9 bytes; more means fewer rows are read twice.",
        },
        "nodes": {
            "type": "integer",
            "default": "1",
            "description": "Nodes that reconstruct together (MPI). The volume is the same for any number.",
        },
        "coresPerRank": {"type": "integer", "default": "2", "description": "Cores of the process on each node."},
    },
    "stages": {
        "01-inspect": {
            "description": "Is it a scan that can be reconstructed?",
            "kernel": "tomography.inspect",
            "arguments": {"input": "$filePath"},
            "inputs": ["$filePath"],
            "resources": {"coresPerRank": 1, "walltime": 120},
            "retries": {"transient": 3},
            "timeout": 120,
        },
        "02-backproject": {
            "description": "Slab by slab within memoryGB; one that was killed goes on where it was.",
            "after": ["01-inspect"],
            "kernel": "tomography.backproject",
            "arguments": {
                "input": "$filePath",
                "output": "$outputDir/volume.zarr",
                "picture": "$outputDir/slices.png",
                "nexus": "$outputDir/slices.nxs",
                "rotationAxis": "$rotationAxis",
                "sourceDistance": "$sourceDistance",
                "detectorDistance": "$detectorDistance",
                "pixelSize": "$pixelSize",
                "tilt": "$tilt",
                "rotation": "$rotation",
                "height": "$height",
                "filter": "$filter",
                "padding": "$padding",
                "binning": "$binning",
                "memoryGB": "$memoryGB",
            },
            "inputs": ["$filePath"],
            "outputs": ["$outputDir/volume.zarr", "$outputDir/slices.png", "$outputDir/slices.nxs"],
            "outputVariableRegexList": [r"(?m)^metric rotation_axis (?P<rotationAxis>\S+)$"],
            "expect": {
                "$outputDir/volume.zarr": {
                    "opens": "zarr",
                    "dataset": "0",
                    "dtype": "float32",
                    "finite": 1.0,
                    "nonconstant": True,
                },
                "$outputDir/slices.png": {"opens": "png", "minSize": 1000},
                "$outputDir/slices.nxs": {"opens": "hdf5", "dataset": "/entry/horizontal/data", "finite": 1.0},
                "$outputDir/volume.zarr.manifest.json": {"opens": "json"},
            },
            "resources": {"nodes": "$nodes", "coresPerRank": "$coresPerRank", "memory": "4GB", "walltime": 7200},
            "retries": {"transient": 3, "bad output": 1},
            "timeout": 14400,
        },
    },
}
