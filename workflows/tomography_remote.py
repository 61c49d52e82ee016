# Tomography at another site: the scan goes there, is reconstructed, and the volume comes home.
#
# One expression, a dict: comments are allowed, assignments and imports are not. Stage names are sorted as strings, and
# that is their order. Copy it, rename it, change it.
#
# ruff: noqa: B018
#
#   run it      beamway run tomography_remote filePath:/data/scan_001.h5 site:perlmutter stageIn:/pscratch/sd/b/beam
#   try it      beamway explain tomography_remote filePath:/data/scan_001.h5 site:… stageIn:…
#
# How data get there and back is in the profiles of the two sites, as [[doors]]: docs/bridge.md.
{
    "name": "tomography_remote",
    "owner": "beamway",
    "version": "1.0",
    "description": "The workflow 'tomography' on the computers of another site. The scan is moved there, reconstructed "
    "in the reservation or queue that is asked for, and everything that it made is moved home into stageOut, where it "
    "appears at once when it is whole, and is read again and compared with the checksums of its makers. Only then are "
    "the copies at the site removed. What moves is compared by checksum, and what broke off goes on where it was.",
    "arguments": {
        "filePath": {
            "required": True,
            "type": "path",
            "description": "The scan, a DXchange HDF5 file at home; or its address (gsiftp://…, globus://…).",
        },
        "site": {"required": True, "description": "The site that computes."},
        "stageIn": {
            "required": True,
            "description": "Folder at that site, from the root on; its nodes see it. Each run has its own in it.",
        },
        "stageOut": {
            "type": "path",
            "default": "$filePath.reconstruction",
            "description": "Folder at home for all products; made when it is missing. Or an address.",
        },
        "home": {
            "default": "local",
            "description": "The site where the scan lies, the products go, and the transfers are driven from.",
        },
        "reservation": {"default": "", "description": "Reservation there. Empty: that of the run, if any."},
        "queue": {"default": "", "description": "Queue there, by name or use, such as realtime."},
        "keepStaged": {
            "default": "no",
            "choices": ["no", "yes"],
            "description": "yes leaves the copies at the site, to look at or to reconstruct once more.",
        },
        "inputChecksum": {
            "default": "",
            "description": "Checksum of the scan as it arrived (xxh3:…, sha256:…): what reads another content, here or "
            "there, fails. A watch gives it.",
        },
        "rotationAxis": {"default": "", "description": "As in tomography. Empty: it is searched."},
        "filter": {
            "choices": ["ramp", "shepp-logan", "cosine", "hamming", "hann", "parzen"],
            "default": "ramp",
            "description": "As in tomography.",
        },
        "binning": {"type": "integer", "choices": ["1", "2", "4", "8"], "default": "1", "description": "As there."},
        "angles": {"default": "", "description": "As in tomography: START:STOP, for files without theta."},
        "pixelSize": {"default": "", "description": "As in tomography: micrometres per pixel."},
        "memoryGB": {"type": "number", "default": "2", "description": "As in tomography."},
        "nodes": {"type": "integer", "default": "1", "description": "Nodes that reconstruct together."},
        "ranksPerNode": {"type": "integer", "default": "1", "description": "Processes on each of them."},
        "coresPerRank": {"type": "integer", "default": "2", "description": "Cores of each process."},
        "gpusPerRank": {"type": "integer", "default": "0", "description": "GPUs of each process."},
        "truthPath": {
            "type": "path",
            "default": "",
            "description": "At home, the true volume of a simulated scan. Empty: there is nothing to compare with.",
        },
        "maxError": {"type": "number", "default": "0.15", "description": "With truthPath: the largest error allowed."},
    },
    "stages": {
        "01-stage-in": {
            "description": "Move the scan to a folder of this run at the site.",
            "site": "$home",
            "transfer": {"from": "$filePath", "to": "site://$site/$stageIn/$id/scan.h5"},
            "retries": {"transient": {"most": 5, "delay": "10 s"}},
        },
        "02-reconstruct": {
            "description": "The workflow 'tomography' there; it is done when its products have passed their checks.",
            "workflow": "tomography",
            "site": "$site",
            "reservation": "$reservation",
            "queue": "$queue",
            "workingDir": "/",
            "arguments": {
                "filePath": "site://$site/$stageIn/$id/scan.h5",
                "outputDir": "site://$site/$stageIn/$id/products",
                "inputChecksum": "$inputChecksum",
                "rotationAxis": "$rotationAxis",
                "filter": "$filter",
                "binning": "$binning",
                "angles": "$angles",
                "pixelSize": "$pixelSize",
                "memoryGB": "$memoryGB",
                "nodes": "$nodes",
                "ranksPerNode": "$ranksPerNode",
                "coresPerRank": "$coresPerRank",
                "gpusPerRank": "$gpusPerRank",
            },
        },
        "03-stage-out": {
            "description": "Bring everything that was made home; it appears there when it is whole.",
            "site": "$home",
            "transfer": {"from": "site://$site/$stageIn/$id/products", "to": "$stageOut"},
            "retries": {"transient": {"most": 5, "delay": "10 s"}},
        },
        "04-verify": {
            "description": "Read the products at home, and compare each with the checksum that its maker wrote beside "
            "it. At an address they are those of the transfer alone.",
            "runIf": '"ftp://" not in "$stageOut" and "ssh://" not in "$stageOut" and "globus://" not in "$stageOut"',
            "site": "$home",
            "kernel": "products.verify",
            "arguments": {"input": "$stageOut"},
            "outputVariableRegexList": [r"(?m)^metric products (?P<productsVerified>\d+)$"],
        },
        "05-compare": {
            "description": "For simulated scans: the volume that has come home against the truth.",
            "runIf": '"$truthPath" != ""',
            "site": "$home",
            "kernel": "tomography.compare",
            "arguments": {
                "input": "$stageOut/volume.zarr",
                "truth": "$truthPath",
                "output": "$stageOut/error.json",
                "maxError": "$maxError",
                "maxGainError": "0.02",
            },
            "outputs": ["$stageOut/error.json"],
            "outputVariableRegexList": [r"(?m)^metric relative_rmse (?P<relativeError>\S+)$"],
        },
        "06-clean": {
            "description": "Remove the folder of this run at the site: its products are at home, and verified.",
            "runIf": '"$keepStaged" != "yes"',
            "site": "$site",
            "reservation": "$reservation",
            "queue": "$queue",
            "workingDir": "/",
            "command": 'rm -rf -- "$stageIn/$id"',
        },
    },
}
