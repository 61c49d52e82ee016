"""g2 of the frames that have been read so far, in a small file that is replaced again and again: for those who steer a
measurement while the sample still moves.

It is always whole, since it gets its name when it is complete. It opens in silx and h5web, which draw g2 of each bin
over the delay, and `xpcs.fit` takes it as it takes a result.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import h5py

from kernels import outputs
from kernels.errors import KernelError
from kernels.io.nexus import add_entry, new_file
from kernels.xpcs.multitau import MultiTau
from kernels.xpcs.partition import Partition
from kernels.xpcs.qmap import lists

_SHARE = 0.1  # of the time may go into partial results


class About(NamedTuple):
    """What partial results are of: `frames` in all, of which the first come first."""

    partition: Partition
    frames: int
    frame_time_s: float  # before frames were chosen, as in a result
    stride: int
    average: int


class Partial:
    """Writes g2 to `path` every `every_s` seconds, or less often where it takes long (see `Watcher` of multitau)."""

    def __init__(self, path: str, every_s: float, about: About) -> None:
        self._path, self._every_s, self._about = path, every_s, about
        self.failed = ""  # why there are none any more
        self._asked = time.monotonic()
        self._next = self._asked + every_s

    def due(self) -> bool:
        """Whether it is time."""
        self._asked = time.monotonic()
        return not self.failed and self._asked >= self._next

    def show(self, so_far: MultiTau) -> None:
        """Put it into the place of the last. Where that cannot be, there are no more: the result matters, not these."""
        try:
            staged = outputs.claim(self._path)
            try:
                write_partial(staged.part, so_far, self._about)
                outputs.publish(staged)
            finally:
                outputs.discard(staged)
        except (OSError, KernelError) as error:
            self.failed = str(error)
        now = time.monotonic()
        self._next = self._asked + max(self._every_s, (now - self._asked) / _SHARE)


def write_partial(part: Path, so_far: MultiTau, about: About) -> None:
    """Write g2 and what it is of into a staged part."""
    partition, step_s = about.partition, about.frame_time_s * about.stride * about.average
    with new_file(part) as file:
        title = f"g2 of {so_far.frames} of {about.frames} frames"
        _add_curves(add_entry(file, title, "g2"), so_far, title, step_s)
        file["entry/instrument/detector_1/frame_time"] = about.frame_time_s
        file["entry/instrument/detector_1/frame_time"].attrs["units"] = "s"
        file["entry/frames"], file["entry/frames_in_all"] = so_far.frames, about.frames
        group = file.create_group("xpcs/multitau")
        group["delay_list"] = so_far.lags.frames
        group["normalized_g2"], group["normalized_g2_err"] = so_far.g2, so_far.g2_err
        group["config/stride_frame"], group["config/avg_frame"] = about.stride, about.average
        file["xpcs"].create_group("qmap").update(lists(partition))


def _add_curves(entry: h5py.Group, so_far: MultiTau, title: str, step_s: float) -> None:
    group = entry.create_group("g2")
    group.attrs.update({"NX_class": "NXdata", "signal": "g2", "axes": ["bin", "delay"], "title": title})
    group.attrs["SILX_style"] = '{"axes_scale_types": ["linear", "log"]}'
    group["g2"], group["g2_errors"] = so_far.g2.T, so_far.g2_err.T
    group["g2"].attrs["interpretation"] = "spectrum"
    group["bin"] = range(1, so_far.g2.shape[1] + 1)
    group["delay"] = so_far.lags.frames * step_s
    group["delay"].attrs["units"] = "s"


__all__ = ["Partial", "About", "write_partial"]
