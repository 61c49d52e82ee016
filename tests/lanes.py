"""All tests in two lanes side by side: real schedulers, which are mostly waited for, and everything else.

    python -m tests.lanes [options of pytest]

Each lane is a pytest of its own; the output of the second comes when it is over. Ends with the first status that is not
0. A plain `pytest` runs the same tests one after another.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

SCHEDULERS = ["tests/cluster", "tests/chaos/test_crash_points_on_slurm.py"]
LANES = {"everything else": [f"--ignore={path}" for path in SCHEDULERS], "real schedulers": SCHEDULERS}


def main() -> int:
    options, begun = sys.argv[1:], time.monotonic()
    running: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryFile() as later:
        for name, words in LANES.items():
            output = None if not running else later
            argv = [sys.executable, "-m", "pytest", *words, *options]
            running[name] = subprocess.Popen(argv, stdout=output, stderr=output)
        try:
            statuses = {name: process.wait() for name, process in running.items()}
        finally:
            for process in running.values():
                process.terminate()
        later.seek(0)
        sys.stdout.buffer.write(b"\n" + later.read())
    for name, status in statuses.items():
        print(f"{name}: {'passed' if status == 0 else f'pytest ended with {status}'}")
    print(f"both lanes: {time.monotonic() - begun:.0f} s")
    return next((status for status in statuses.values() if status), 0)


if __name__ == "__main__":
    sys.exit(main())
