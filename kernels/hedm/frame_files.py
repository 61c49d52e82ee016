"""Made frames to files: a NeXus stack of 16 bits, or HEXRD's sparse frame cache."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.exposure import Exposure
from kernels.io.nexus import add_entry, new_file


def write_stack(path: Path, exposure: Exposure, *, panel: int = 0, watch: Callable[[int], None] | None = None) -> None:
    """Write the frames of a panel as NeXus: `/entry/data/data` (frames, rows, columns), bitshuffle with LZ4, a chunk a
    frame, `omega` and `omega_end` in degrees beside it. `watch` is called with how many frames are written."""
    import hdf5plugin

    geometry, scan = exposure.geometry, exposure.scan
    rows, columns = geometry.panels[panel].shape
    with new_file(path) as file:
        entry = add_entry(file, f"made frames of panel {geometry.panels[panel].name}", "data")
        beam = entry.create_group("instrument/beam")
        entry["instrument"].attrs["NX_class"], beam.attrs["NX_class"] = "NXinstrument", "NXbeam"
        beam["incident_wavelength"] = geometry.wavelength_A
        beam["incident_wavelength"].attrs["units"] = "angstrom"
        group = entry.create_group("data")
        group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["omega", ".", "."]})
        frames = group.create_dataset(
            "data",
            (scan.frames, rows, columns),
            np.uint16,
            chunks=(1, rows, columns),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        frames.attrs["interpretation"] = "image"
        for name, edge in (("omega", 0), ("omega_end", 1)):
            group[name] = scan.edges_deg[:, edge]
            group[name].attrs["units"] = "degrees"
        for first, block in exposure.frames(panel):
            frames[first : first + len(block)] = block
            if watch:
                watch(first + len(block))


def write_cache(path: Path, exposure: Exposure, *, panel: int = 0, threshold: float = 0.0) -> None:
    """Write of the frames of a panel the pixels above `threshold` counts, as HEXRD's frame cache (.npz)."""
    geometry, scan = exposure.geometry, exposure.scan
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as members:

        def add(name: str, values: NDArray[Any]) -> None:
            with members.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)

        for frame, row, column, value in exposure.sparse(panel, threshold=threshold):
            add(f"{frame}_row", row)
            add(f"{frame}_col", column)
            add(f"{frame}_data", value)
        add("shape", np.array(geometry.panels[panel].shape))
        add("nframes", np.array(scan.frames))
        add("dtype", np.array(b"uint16"))
        add("omega", scan.edges_deg)
        add("panel_id", np.array(geometry.panels[panel].name))
