"""What `xpcs.py` runs in the environment of a rival: python xpcs_rivals.py NAME FOLDER

FOLDER holds the events as `starts.npy`, `pixels.npy`, `counts.npy`, and the bins as `static.npy`, `dynamic.npy`. What
comes out is `NAME.npz` there: g2, and the CPU and wall seconds.
"""

import sys
import time
from pathlib import Path

import numpy as np


def boost_corr(folder, starts, pixels, counts, static, dynamic):
    import h5py
    import torch
    from boost_corr import MultitauCorrelator
    from boost_corr.xpcs_aps_8idi.xpcs_qpartitionmap import XpcsQPartitionMap

    with h5py.File(folder / "qmap.h5", "w") as file:
        file["/qmap/dynamic_roi_map"], file["/qmap/static_roi_map"] = dynamic, static
        file["/qmap/mask"] = file["/qmap/blemish"] = (static > 0).astype(np.int32)
    frames, batch = len(starts) - 1, 64
    bins = XpcsQPartitionMap(str(folder / "qmap.h5"), device="cpu")
    correlator = MultitauCorrelator(
        static.shape, frames, device="cpu", queue_size=batch, mask_crop=bins.mask_crop, max_memory=6.0
    )
    place = np.full(static.size, -1) if bins.mask_crop is not None else np.arange(static.size)
    if bins.mask_crop is not None:
        place[np.asarray(bins.mask_crop)] = np.arange(len(bins.mask_crop))
    cpu = wall = 0.0
    for first in range(0, frames, batch):
        last = min(first + batch, frames)
        part = slice(starts[first], starts[last])
        index, frame = place[pixels[part]], np.repeat(np.arange(last - first), np.diff(starts[first : last + 1]))
        seen = index >= 0
        given = [torch.from_numpy(array[seen]) for array in (index, frame, counts[part])]
        begun, on_wall = time.process_time(), time.perf_counter()
        # As its reader of events does; what the correlator has for that itself calls torch in a way that torch refuses.
        dense = torch.zeros((last - first, correlator.pixel_num), dtype=torch.uint8)
        dense[given[1], given[0]] = given[2]
        correlator.process(dense)
        cpu, wall = cpu + time.process_time() - begun, wall + time.perf_counter() - on_wall
    begun, on_wall = time.process_time(), time.perf_counter()
    correlator.post_process()
    made = bins.normalize_multitau(correlator.get_results()[1])
    cpu, wall = cpu + time.process_time() - begun, wall + time.perf_counter() - on_wall
    return {"lags": made["delay_list"], "g2": made["g2"], "g2_err": made["g2_err"], "cpu": cpu, "wall": wall}


def xpcs_correlator(folder, starts, pixels, counts, static, dynamic):
    from xpcscorr import correlator_sparse_pixel_chunked

    def work(last):
        """By pixel, as it wants them; not counted."""
        some = slice(0, starts[last])
        order = np.argsort(pixels[some], kind="stable")
        pointer = np.concatenate([[0], np.cumsum(np.bincount(pixels[some], minlength=static.size))])
        times = np.repeat(np.arange(last, dtype=np.uint32), np.diff(starts[: last + 1]))[order]
        given = (counts[some][order], times, pointer.astype(np.uint64), (last, *static.shape), dynamic.astype(np.int32))
        begun, on_wall = time.process_time(), time.perf_counter()
        made = correlator_sparse_pixel_chunked(*given, extra_options={"dask_cluster_type": None})
        return made, time.process_time() - begun, time.perf_counter() - on_wall

    work(20)  # compiles
    made, cpu, wall = work(len(starts) - 1)
    return {"g2": np.asarray(made.g2), "cpu": cpu, "wall": wall}


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    data = [np.load(folder / f"{word}.npy") for word in ("starts", "pixels", "counts", "static", "dynamic")]
    np.savez(
        folder / f"{name}.npz", **{"boost_corr": boost_corr, "xpcs_correlator": xpcs_correlator}[name](folder, *data)
    )
