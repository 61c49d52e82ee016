"""`python -m orchestrator.agent.leash PID PROGRAM …`: be PROGRAM, and end when the process PID, our parent, ends.

Parsl's interchange was seen to live on for ever, with its ports and 70 MB, after its agent had been killed. It renames
itself over its own environment, so that it cannot even be found by what is in there. The kernel ends it instead.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # survives the exec below
    if os.getppid() != parent:  # it had ended before we asked
        sys.exit(1)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
