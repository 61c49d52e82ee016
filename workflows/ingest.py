# Ingest: a file that has arrived gets a verified copy where it is kept.
#
# One expression, a dict: comments are allowed, assignments and imports are not. Copy it, rename it, change it.
#
# ruff: noqa: B018
#
#   run it      beamway run ingest filePath:/data/scan_001.h5 destination:/archive/2026-3-smith
#   for all     beamway watch /data --experiment 2026-3-smith destDirectory:/archive/2026-3-smith
{
    "name": "ingest",
    "owner": "beamway",
    "version": "1.0",
    "description": "Copies a file into a folder or to another site, compares the copy by checksum, and gives it its "
    "name when it is whole. The catalog then knows both copies, and retention may remove the first one by its rules.",
    "arguments": {
        "filePath": {"required": True, "type": "path", "description": "The file, or a folder (a Zarr store)."},
        "destination": {
            "required": True,
            "description": "Folder, made when it is missing, or its address: site://, gsiftp://, ssh://, globus://.",
        },
        "inputChecksum": {
            "default": "",
            "description": "Checksum of the file as it arrived; another content is not copied. A watch gives it.",
        },
    },
    "stages": {
        "01-copy": {
            "description": "Copy and compare; what broke off goes on where it was.",
            "transfer": {"from": "$filePath", "to": "$destination/"},
            "retries": {"transient": {"most": 5, "delay": "10 s"}},
        },
    },
}
