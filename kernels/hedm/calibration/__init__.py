"""The instrument from spots of grains: geometry and grains refined together by sparse least squares.

Unknown are the chosen numbers of the instrument and up to twelve of each grain: rotation, position, strain. Spots of a
grain know nothing of other grains, so that each grain's block is eliminated first (Schur complement), as in the bundle
adjustment of photogrammetry (Triggs et al., Vision Algorithms: Theory and Practice, 2000, 298). Residuals are in the
plane of the panel, where measured pixels have their distortion taken away, and in omega. Steps are those of Levenberg
and Marquardt; spots beyond three standard deviations count less (Huber).

What the spots cannot tell apart is refused: the wavelength from the grains' common strain, the detector's height from
that of all grains, a panel's shift from that of all panels.
"""

from kernels.hedm.calibration.parameters import parameters
from kernels.hedm.calibration.refine import Calibration, calibrate
from kernels.hedm.calibration.residuals import Measured

__all__ = ["Calibration", "Measured", "calibrate", "parameters"]
