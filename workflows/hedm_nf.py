# Near-field HEDM: from images close behind a layer to the orientation of each of its voxels.
#
# One expression, a dict: comments are allowed, assignments and imports are not. Copy it, rename it, change it.
#
# ruff: noqa: B018
#
#   run it      beamway run hedm_nf filePath:/data/near.h5 geometryPath:/data/near.yml lattice:4.0782 spaceGroup:Fm-3m \
#                   farPaths:/data/far.h5 farGeometryPaths:/data/far.yml
#   after the far field, within a degree of its grains
#               beamway run hedm_nf … seedsPath:/data/layer7.h5.hedm/grains.nxs
{
    "name": "hedm_nf",
    "owner": "beamway",
    "version": "1.0",
    "description": "Near-field high-energy diffraction microscopy. Takes the images of a layer at one or more "
    "distances, the instrument at each (HEXRD, MIDAS or ImageD11) and the crystal, and writes into outputDir: map.nxs "
    "(orientation, confidence and grain of each voxel; opens in silx and h5web), map.mic as MIDAS writes it, "
    "orientations.png, confidence.png, and beside each output a manifest with its checksum and provenance. What "
    "confidence chance alone gives is measured with a mirrored detector; where nothing is above it the run fails and "
    "says what would fit better.",
    "arguments": {
        "filePath": {"required": True, "type": "path", "description": "The images at the nearest distance."},
        "geometryPath": {
            "required": True,
            "type": "path",
            "description": "The instrument there: HEXRD's .yml, MIDAS's parameters (.txt) or ImageD11's .par.",
        },
        "farPaths": {
            "type": "string",
            "default": "",
            "description": "The images of each further distance, with commas between the files; near ones first.",
        },
        "farGeometryPaths": {
            "type": "string",
            "default": "",
            "description": "The instrument at each of these, with commas between the files.",
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
        "seedsPath": {
            "type": "path",
            "default": "",
            "description": "grains.nxs of the far field, near which orientations lie. Empty: all are searched.",
        },
        "seedRadius": {"type": "number", "default": "1", "description": "How far from a seed, degrees."},
        "width": {"type": "number", "default": "200", "description": "Diameter of the layer, µm."},
        "voxelSize": {"type": "number", "default": "4", "description": "µm."},
        "voxels": {
            "type": "string",
            "choices": ["squares", "triangles", "hexagons"],
            "default": "squares",
            "description": "Their shape.",
        },
        "height": {"type": "number", "default": "0", "description": "Of the layer above z = 0, µm."},
        "threshold": {
            "type": "number",
            "default": "20",
            "description": "Counts above the background that a pixel of a spot has.",
        },
        "edgeWidth": {
            "type": "number",
            "default": "0",
            "description": "Above 0, spots end where the image's curvature changes, smoothed by this, pixels.",
        },
        "omegaStart": {"type": "string", "default": "", "description": "Degrees, where the images do not say it."},
        "omegaStep": {"type": "string", "default": "", "description": "Degrees, where the images do not say it."},
        "maxTwoTheta": {"type": "string", "default": "", "description": "Rings up to here, degrees. Empty: all."},
        "rings": {"type": "string", "default": "", "description": "Only so many rings. Empty: all."},
        "device": {
            "choices": ["auto", "cpu", "gpu"],
            "default": "auto",
            "description": "auto takes a GPU where the stage was given one (gpusPerRank). The result is the same.",
        },
        "memory": {
            "type": "string",
            "default": "16GB",
            "description": "For the search on each node: a bit for each pixel of the images, and half as much again.",
        },
        "nodes": {
            "type": "integer",
            "default": "1",
            "description": "Nodes that search together (MPI). The result is the same for any number.",
        },
        "ranksPerNode": {"type": "integer", "default": "1", "description": "Processes on each of these nodes."},
        "coresPerRank": {"type": "integer", "default": "2", "description": "Cores of each process."},
        "gpusPerRank": {"type": "integer", "default": "0", "description": "GPUs of each process."},
    },
    "stages": {
        "01-inspect": {
            "description": "Do images, instruments, crystal and seeds belong together? What does not is refused here, "
            "in a sentence, before any computer is asked for.",
            "kernel": "hedm.inspect-layer",
            "arguments": {
                "input": "$filePath,$farPaths",
                "geometry": "$geometryPath,$farGeometryPaths",
                "cif": "$cifPath",
                "lattice": "$lattice",
                "spaceGroup": "$spaceGroup",
                "seeds": "$seedsPath",
                "height": "$height",
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
        "02-nearfield": {
            "description": "Images to bits, orientations searched from coarse to fine, refined, and spread over the "
            "layer.",
            "after": ["01-inspect"],
            "kernel": "hedm.nearfield",
            "arguments": {
                "input": "$filePath,$farPaths",
                "output": "$outputDir/map.nxs",
                "mic": "$outputDir/map.mic",
                "picture": "$outputDir/orientations.png",
                "confidencePicture": "$outputDir/confidence.png",
                "geometry": "$geometryPath,$farGeometryPaths",
                "cif": "$cifPath",
                "lattice": "$lattice",
                "spaceGroup": "$spaceGroup",
                "seeds": "$seedsPath",
                "seedRadius": "$seedRadius",
                "width": "$width",
                "voxelSize": "$voxelSize",
                "voxels": "$voxels",
                "height": "$height",
                "threshold": "$threshold",
                "edgeWidth": "$edgeWidth",
                "omegaStart": "$omegaStart",
                "omegaStep": "$omegaStep",
                "maxTwoTheta": "$maxTwoTheta",
                "rings": "$rings",
                "device": "$device",
            },
            "inputs": ["$filePath", "$geometryPath"],
            "outputs": [
                "$outputDir/map.nxs",
                "$outputDir/map.mic",
                "$outputDir/orientations.png",
                "$outputDir/confidence.png",
            ],
            "outputVariableRegexList": [
                r"(?m)^metric grains (?P<grains>\d+)$",
                r"(?m)^metric accepted (?P<accepted>\S+)$",
                r"(?m)^metric confidence (?P<confidence>\S+)$",
            ],
            "expect": {
                "$outputDir/map.nxs": {"opens": "hdf5", "dataset": "/entry/voxels/orientation", "finite": 1.0},
                "$outputDir/map.mic": {"minSize": 100},
                "$outputDir/orientations.png": {"opens": "png", "minSize": 200},
                "$outputDir/confidence.png": {"opens": "png", "minSize": 1000},
                "$outputDir/map.nxs.manifest.json": {"opens": "json"},
            },
            "resources": {
                "nodes": "$nodes",
                "ranksPerNode": "$ranksPerNode",
                "coresPerRank": "$coresPerRank",
                "gpusPerRank": "$gpusPerRank",
                "memory": "$memory",
                "walltime": 7200,
            },
            "retries": {"transient": 3, "bad output": 1},
            "timeout": 14400,
        },
    },
}
