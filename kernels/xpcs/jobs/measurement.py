"""A measurement as every kernel of XPCS opens it: the chosen frames, their bins, and what else is known."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from kernels.cautions import Caution, Code
from kernels.errors import KernelError
from kernels.ranks import Ranks
from kernels.xpcs.analysis.flags import bad_frames, beam_damage
from kernels.xpcs.analysis.scattering import Scattering
from kernels.xpcs.badpixels import BadPixels, by_pixel, judged
from kernels.xpcs.exchange import share_of_frames
from kernels.xpcs.lags import lags
from kernels.xpcs.metadata import Metadata, find_metadata, read_metadata
from kernels.xpcs.partition import Partition
from kernels.xpcs.qmap import Qmap, numbered, read_qmap
from kernels.xpcs.readers import Chosen, Selection, open_frames


class Measurement(NamedTuple):
    """`metadata` is the file of what is `known`, or None; `warnings` what is to be said before anything is computed."""

    frames: Chosen
    qmap: Qmap
    known: Metadata
    metadata: str | None
    warnings: list[Caution]

    @property
    def partition(self) -> Partition:
        return self.qmap.partition

    @property
    def left_out(self) -> dict[str, int]:
        """Complete when all frames have been read."""
        return self.qmap.left_out | self.frames.left_out


def open_measurement(
    *,
    input: str,
    qmap: str,
    metadata: str | None,
    frame_time: float | None,
    first_frame: int,
    last_frame: int | None,
    stride: int,
    average: int,
    bad_pixels: bool = False,
    ranks: Ranks | None = None,
) -> Measurement:
    """Open the frames `input` and the bins `qmap`; arguments as in the schema. Bad pixels need a reading of all frames,
    of which all `ranks` do a share.

    Raises
    ------
    KernelError
        Exit 66 or 65 for a file that is missing or not what it should be, 2 for frames that are not there.
    """
    path, known, warnings = _known(input, metadata, frame_time)
    beyond = None if last_frame is None else last_frame + 1
    selection = Selection(first_frame, beyond, stride, average)
    frames = open_frames(input, frame_time_s=known.frame_time_s, selection=selection)
    bins = read_qmap(qmap, (frames.rows, frames.columns))
    if path is None:
        known = _with_geometry(known, bins.partition)
    if bad_pixels:
        ranks = ranks or Ranks()
        own = by_pixel(share_of_frames(frames, ranks), bins.partition.static.size)
        bins = _without(bins, judged(ranks.summed(own), bins.partition))
    return Measurement(frames, bins, known, path, warnings)


def longest_lag(frames: int, per_level: int) -> int:
    """The longest delay of a multi-tau correlation.

    Raises
    ------
    KernelError
        Exit 2 when the frames are fewer than one level of delays needs.
    """
    if frames <= per_level:
        raise KernelError(
            f"{frames} frames are too few for {per_level} delays a level: the first level alone needs "
            f"{per_level + 1}. Take more frames, or fewer lagsPerLevel."
        )
    return int(lags(frames, per_level).frames[-1])


def suspicions(scattering: Scattering, pixels: int) -> tuple[dict[str, int], list[Caution]]:
    """Figures of what is not to be trusted, and what is to be said of it; see `kernels.xpcs.analysis.flags`."""
    bad, damage = bad_frames(scattering.intensity, pixels), beam_damage(scattering)
    figures = {"bad_frames": bad.total, "changing_bins": int(damage.significant.sum())}
    doubts = [Caution(Code.STRANGE_FRAMES, sentence) for sentence in bad.sentences()]
    return figures, [*doubts, *(Caution(Code.CHANGING, sentence) for sentence in damage.sentences())]


def _known(input: str, metadata: str | None, frame_time: float | None) -> tuple[str | None, Metadata, list[Caution]]:
    """The metadata file, what is known, and what is to be said of it."""
    try:
        path = metadata or find_metadata(input)
    except KernelError as error:
        if frame_time is None:
            raise error.with_hint(" Give metadata, or at least frameTime.") from error
        said = "There were no metadata: only the time of a frame, and what the qmap says of the geometry, is known."
        return None, Metadata(frame_time), [Caution(Code.METADATA, said)]
    known = read_metadata(path)
    if frame_time is None or frame_time == known.frame_time_s:
        return path, known, []
    said = f"The time of a frame is {frame_time:g} s as given, not {known.frame_time_s:g} s as in the metadata."
    return path, dataclasses.replace(known, frame_time_s=frame_time), [Caution(Code.METADATA, said)]


def _with_geometry(known: Metadata, partition: Partition) -> Metadata:
    geometry = partition.geometry
    pixel = geometry.get("pixel_size")
    x, y = geometry.get("beam_center_x"), geometry.get("beam_center_y")
    return dataclasses.replace(
        known,
        energy_kev=geometry.get("energy"),
        pixel_size_m=None if pixel is None else (pixel, pixel),
        distance_m=geometry.get("detector_distance"),
        beam_center=None if x is None or y is None else (x, y),
    )


def _without(qmap: Qmap, bad: BadPixels) -> Qmap:
    """The bins without dead and hot pixels; those that hold no other pixel are left out."""
    old, good = qmap.partition, np.ones(qmap.partition.static.size, bool)
    good[bad.all] = False
    keep = good.reshape(old.static.shape)
    static, static_left = numbered(np.where(keep, old.static, 0))
    dynamic, dynamic_left = numbered(np.where(keep, old.dynamic, 0))
    partition = dataclasses.replace(
        old,
        static=static,
        dynamic=dynamic,
        static_index=old.static_index[static_left - 1] if len(old.static_index) else old.static_index,
        dynamic_index=old.dynamic_index[dynamic_left - 1] if len(old.dynamic_index) else old.dynamic_index,
    )
    found = {
        "dead pixels": len(bad.dead),
        "hot pixels": len(bad.hot),
        "static bins of bad pixels alone": old.static_bins - partition.static_bins,
    }
    left_out = qmap.left_out | {name: count for name, count in found.items() if count}
    return dataclasses.replace(qmap, partition=partition, blemish=qmap.blemish & keep, left_out=left_out)
