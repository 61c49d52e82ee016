"""Single-distance phase retrieval for a sample of one material (Paganin et al., J. Microsc. 206 (2002) 33).

At a distance d behind the sample its phase has sharpened the edges: to first order the transmission there is that at
the sample, times 1 + pi lambda d (delta / beta) |f|^2 in Fourier space. This is divided out, which gives thickness its
true course and takes away noise.

The transform is the cosine one. It goes on outside of the frame by mirroring it, so nothing wraps around and no frame
is padded; a side whose length has a large prime factor is made longer by its own edge.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.errors import KernelError

Floats = NDArray[np.float32]

_KEV_METRES = 1.239841984e-9  # energy times wavelength


def paganin(
    transmission: Floats, *, energy_kev: float, distance_mm: float, pixel_um: float, delta_beta: float
) -> Floats:
    """Transmission as it was at the sample, from that at a distance.

    Parameters
    ----------
    transmission : ndarray, shape (frames, rows, columns), float32
        Flat-corrected projections, whole frames, finite.
    energy_kev, distance_mm, pixel_um
        Photon energy, distance from sample to detector (for a cone beam, divided by the magnification), and size of a
        pixel in the sample's plane.
    delta_beta
        delta / beta of the refractive index 1 - delta + i beta. 0 changes nothing.

    Returns
    -------
    ndarray, shape (frames, rows, columns), float32
        Still a transmission, above 0 for a true one: -ln of it is the line integral of the attenuation, and that over
        the attenuation coefficient, 4 pi beta / lambda, the thickness. Its mean over a frame is that of the input.

    Raises
    ------
    KernelError
        For an energy, distance or pixel that is not above 0, or a negative delta / beta.

    Notes
    -----
    Harm: what is not of this delta / beta is blurred (too large a value) or keeps its fringes (too small), over about
    sqrt(lambda d delta / (4 pi beta)), see `blur_px`. Holds for a Fresnel number of a pixel of 1 or more.
    """
    for name, value, allowed in (
        ("the energy", energy_kev, energy_kev > 0),
        ("the distance", distance_mm, distance_mm > 0),
        ("the pixel size", pixel_um, pixel_um > 0),
        ("delta / beta", delta_beta, delta_beta >= 0),
    ):
        if not allowed:
            raise KernelError(f"Phase retrieval: {name} is {value:g}; it must be above 0.")
    if delta_beta == 0:
        return transmission.copy()
    _, rows, columns = transmission.shape
    sizes = (_fast(rows), _fast(columns))
    width = blur_px(energy_kev=energy_kev, distance_mm=distance_mm, pixel_um=pixel_um, delta_beta=delta_beta)
    y, x = (np.square(np.pi * np.arange(size) / size) for size in sizes)
    response = (1 / (1 + width**2 * (y[:, None] + x))).astype(np.float32)
    result = np.empty_like(transmission)
    for k, frame in enumerate(transmission):
        if sizes != (rows, columns):
            frame = np.pad(frame, ((0, sizes[0] - rows), (0, sizes[1] - columns)), mode="edge")
        spectrum = scipy.fft.dctn(frame, workers=threads())
        spectrum *= response
        result[k] = scipy.fft.idctn(spectrum, workers=threads(), overwrite_x=True)[:rows, :columns]
    return result


def blur_px(*, energy_kev: float, distance_mm: float, pixel_um: float, delta_beta: float) -> float:
    """The length over which the filter averages, pixels: its response is 1 / (1 + (2 pi f blur)^2), f per pixel."""
    wavelength = _KEV_METRES / energy_kev
    area = wavelength * 1e-3 * distance_mm * delta_beta / (4 * np.pi)
    return float(np.sqrt(area) / (1e-6 * pixel_um))


def _fast(size: int) -> int:
    """A length not below `size` that transforms fast."""
    return int(scipy.fft.next_fast_len(size, real=True))
