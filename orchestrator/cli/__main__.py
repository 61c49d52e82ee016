"""`python -m orchestrator.cli` is `beamway`."""

import sys

from orchestrator.cli import main

sys.exit(main())
