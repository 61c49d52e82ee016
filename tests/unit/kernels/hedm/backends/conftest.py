"""What tests of the packages share with those of the far field and of the kernels lies beside those."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(place) for place in (HERE.parent, HERE.parent / "farfield", HERE.parent / "jobs")]
