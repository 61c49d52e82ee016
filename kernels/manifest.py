"""The record beside an output: what made it, from what, with which result, and the checksums to prove it later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from kernels.errors import printable

FORMAT = "beamway-manifest/1"
_LIBRARIES = ("numpy", "scipy", "numba", "cupy-cuda12x", "h5py", "zarr", "pillow")


def checksum(path: Path) -> tuple[str, int]:
    """Checksum and size of an output.

    A file: `sha256:` of its bytes. A directory (Zarr): `sha256-tree:` of the lines `RELATIVE/PATH NUL SHA256 LF` of
    all files below it, sorted by path as bytes. So a single changed, missing or additional chunk shows.
    """
    if not path.is_dir():
        return f"sha256:{_digest(path)}", path.stat().st_size
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, files))
    total = sum(file.stat().st_size for file in files)
    lines = [
        os.fsencode(file.relative_to(path)) + b"\0" + digest.encode() + b"\n"
        for file, digest in zip(files, digests, strict=True)
    ]
    return f"sha256-tree:{hashlib.sha256(b''.join(sorted(lines))).hexdigest()}", total


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_facts(path: str) -> dict[str, Any]:
    facts = os.stat(path)
    modified = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat()
    return {"path": path, "bytes": facts.st_size, "modified": modified, "mtimeNs": facts.st_mtime_ns}


def provenance() -> dict[str, Any]:
    """Where and with what this process runs."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": printable(platform.platform()),
        "python": platform.python_version(),
        "executable": sys.executable,
        "libraries": versions,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def write(path: Path, record: dict[str, Any]) -> None:
    """Write `record` as JSON. Names that are not UTF-8 keep their bytes as lone surrogate escapes (PEP 383)."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=True, allow_nan=False) + "\n", encoding="ascii")
