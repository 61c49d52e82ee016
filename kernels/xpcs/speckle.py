"""Speckle that fluctuates, of which g2 is known: a complex Ornstein-Uhlenbeck process in each pixel, and photons of it.

With a field E of mean square 1 that forgets itself as exp(-t / tau), the intensity rate · (1 - a + a |E|²), a² the
contrast, has g2 = 1 + contrast · exp(-2 t / tau) (Siegert). Photons are Poisson. Speckle wider than a pixel comes from
independent fields smoothed by a Gaussian and scaled to mean square 1, which leaves g2 as it is.

Each row of pixels draws from random streams of its own, so what comes out does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.xpcs.events import Events
from kernels.xpcs.readers import bitshuffle
from kernels.xpcs.readers.source import closed_up

Doubles = NDArray[np.float64]
_AT_ONCE = 1 << 24  # pixels of frames that are laid out
_MOST = (1 << 12) - 2  # photons of a pixel in a frame, the least that the formats hold


@dataclass(frozen=True)
class Speckle:
    """What is simulated, in frames and pixels.

    Attributes
    ----------
    rate : ndarray, shape (rows, columns), float64
        Photons per frame, on average; none where it is 0.
    tau : ndarray, shape (rows, columns), float64
        Time, in frames, in which the field forgets itself: g2 - 1 falls to exp(-2) of the contrast.
    contrast : float
        g2 - 1 at delay 0, at most 1.
    size : float
        Standard deviation of the Gaussian, in pixels; 0: pixels are independent.
    drift : float
        Relative change of the beam's intensity, half a period of a sine over all frames.
    ageing : float
        By which tau has grown, relatively, at the last frame.
    hot : ndarray of int, optional
        Numbers of the pixels that have `hot_photons` in every frame.
    """

    rate: Doubles
    tau: Doubles
    contrast: float = 1.0
    size: float = 0.0
    drift: float = 0.0
    ageing: float = 0.0
    hot: NDArray[np.int64] | None = None
    hot_photons: int = 100

    def g2(self, delays: Doubles, tau: float) -> Doubles:
        """What is expected at delays, in frames, without drift and ageing."""
        return np.asarray(1 + self.contrast * np.exp(-2 * np.asarray(delays) / tau))


def simulate(speckle: Speckle, frames: int, seed: int) -> Iterator[Events]:
    """Events of so many frames, the same for the same seed whatever the number of threads.

    Raises
    ------
    KernelError
        Exit 2 for a contrast beyond 0 to 1, rates that are negative or tau that is not positive; 65 for more photons
        in a pixel than files hold.
    """
    rows, columns = speckle.rate.shape
    if not (0 <= speckle.contrast <= 1 and (speckle.rate >= 0).all() and (speckle.tau > 0).all()):
        raise KernelError("The contrast must be from 0 to 1, rates at least 0 and tau more than 0.")
    if not np.isfinite([speckle.rate.max(), speckle.tau.max()]).all():
        raise KernelError("Rates and tau must be finite.")
    reach = math.ceil(4 * speckle.size)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(speckle.size, 1e-9)) ** 2)
    weights /= np.sqrt((weights**2).sum())  # fields are independent, so their squares add up
    pixels = rows * columns
    shape = rows + 2 * reach, columns + 2 * reach
    near = np.pad(speckle.tau, reach, mode="edge")
    needed = np.ones(shape, np.bool_) if reach else speckle.rate > 0
    field = np.zeros((2, *shape))
    streams = np.zeros((2, shape[0]), np.uint64)
    _seed(seed, streams)
    _evolve(field, near, 0.0, needed, streams[0], True)
    smooth = np.empty((2, *speckle.rate.shape))
    across = np.empty((2, shape[0], columns))
    keep = np.ones(pixels, np.uint8)
    share = math.sqrt(speckle.contrast)
    at_once = max(1, min(frames, _AT_ONCE // pixels))
    laid = np.zeros((at_once, rows, columns), np.uint16)
    for first in range(0, frames, at_once):
        here = min(at_once, frames - first)
        for n in range(here):
            part = (first + n) / max(1, frames - 1)
            if first + n:
                _evolve(field, near, 1.0 + speckle.ageing * part, needed, streams[0], False)
            if reach:
                _smooth(field, weights, across, smooth)
            beam = 1.0 + speckle.drift * math.sin(math.pi * part)
            shown = smooth if reach else field
            most = _expose(shown, speckle.rate, beam, share, streams[1], laid[n])
            if speckle.hot is not None:
                laid[n].reshape(-1)[speckle.hot] = speckle.hot_photons
            if most > _MOST:
                raise KernelError(
                    f"A pixel has {most} photons in frame {first + n}, more than files hold ({_MOST}): lower the rate.",
                    Exit.BAD_INPUT,
                )
        yield _events(laid[:here].reshape(here, -1), keep, first)


def _events(laid: NDArray[np.uint16], keep: NDArray[np.uint8], first: int) -> Events:
    full = np.count_nonzero(laid, axis=1)
    room = max(1, int(full.max()))
    pixels, counts = np.empty((len(laid), room), np.uint32), np.empty((len(laid), room), np.uint32)
    found, marked = np.zeros(len(laid), np.int64), np.zeros(len(laid), np.int64)
    bitshuffle.sparse_from_dense(laid, keep, 1 << 16, pixels, counts, found, marked)
    bounds = np.arange(len(laid) + 1, dtype=np.int64) * room
    events = closed_up(first, pixels.ravel(), counts.ravel(), bounds, found)
    return events._replace(counts=events.counts.astype(np.uint16))


@compiled()
def _next(stream: Any) -> tuple[Any, float]:
    """Splitmix64 (Steele, Lea and Flood, OOPSLA 2014): the stream's next state, and a number in (0, 1]."""
    stream = stream + np.uint64(0x9E3779B97F4A7C15)
    z = stream
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return stream, (np.float64(z >> np.uint64(11)) + 1.0) * 2.0**-53


@compiled()
def _seed(seed: int, streams: NDArray[np.uint64]) -> None:
    stream = np.uint64(seed)
    for kind in range(streams.shape[0]):
        for row in range(streams.shape[1]):
            stream, _ = _next(stream)
            mixed, _ = _next(stream * np.uint64(0xD1342543DE82EF95))
            streams[kind, row] = mixed ^ (mixed >> np.uint64(29))


@compiled(parallel=True)
def _evolve(
    field: Doubles, tau: Doubles, slower: float, needed: NDArray[np.bool_], streams: NDArray[np.uint64], new: bool
) -> None:
    """Let a frame go by for the field, shape (2, rows, columns), or make it anew."""
    for row in prange(field.shape[1]):
        stream = streams[row]
        last, kept, fresh = -1.0, 0.0, 1.0
        for column in range(field.shape[2]):
            if not needed[row, column]:
                continue
            if not new and tau[row, column] != last:
                last = tau[row, column]
                kept = math.exp(-1.0 / (last * slower))
                fresh = math.sqrt(1.0 - kept * kept)
            stream, u = _next(stream)
            stream, v = _next(stream)
            length = fresh * math.sqrt(-math.log(u))  # of a complex normal number of mean square fresh²
            field[0, row, column] = kept * field[0, row, column] + length * math.cos(2 * math.pi * v)
            field[1, row, column] = kept * field[1, row, column] + length * math.sin(2 * math.pi * v)
        streams[row] = stream


@compiled(parallel=True)
def _smooth(field: Doubles, weights: Doubles, across: Doubles, smooth: Doubles) -> None:
    """Along rows, into `across`, then along columns."""
    for row in prange(field.shape[1]):
        for part in range(2):
            for column in range(across.shape[2]):
                total = 0.0
                for k in range(weights.size):
                    total += weights[k] * field[part, row, column + k]
                across[part, row, column] = total
    for row in prange(smooth.shape[1]):
        for part in range(2):
            smooth[part, row] = 0.0
            for k in range(weights.size):
                for column in range(smooth.shape[2]):
                    smooth[part, row, column] += weights[k] * across[part, row + k, column]


@compiled(parallel=True)
def _expose(
    field: Doubles, rate: Doubles, beam: float, share: float, streams: NDArray[np.uint64], frame: NDArray[np.uint16]
) -> int:
    """Photons of a frame; the most of a pixel."""
    most = np.zeros(rate.shape[0], np.int64)
    for row in prange(rate.shape[0]):
        stream = streams[row]
        for column in range(rate.shape[1]):
            frame[row, column] = 0
            if rate[row, column] == 0:
                continue
            power = field[0, row, column] ** 2 + field[1, row, column] ** 2
            mean = beam * rate[row, column] * (1.0 - share + share * power)
            photons = 0
            while mean > 0:
                # Parts of at most 16, whose sum is Poisson as well, so that exp(-mean) is far from nothing.
                some = min(mean, 16.0)
                mean -= some
                stream, u = _next(stream)
                if u > some:  # P(any) < some: most pixels of most frames
                    continue
                u = 1.0 - u
                chance = math.exp(-some)
                below = chance
                k = 0
                while u >= below and k < 200:
                    k += 1
                    chance *= some / k
                    below += chance
                photons += k
            frame[row, column] = min(photons, 65535)
            most[row] = max(most[row], photons)
        streams[row] = stream
    return int(most.max())
