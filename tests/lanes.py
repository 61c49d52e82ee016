"""All tests in three lanes side by side: real schedulers, which are mostly waited for, kernels, which take what is left
of the processors, and everything else.

    python -m tests.lanes [options of pytest]

Each lane is a pytest of its own; the output of the first comes as it runs, that of the others when they are over. Ends
with the first status that is not 0. A plain `pytest` runs the same tests one after another.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

SCHEDULERS = ["tests/cluster", "tests/chaos/test_crash_points_on_slurm.py"]
KERNELS = ["tests/unit/kernels"]
LANES = {
    "everything else": [f"--ignore={path}" for path in (*SCHEDULERS, *KERNELS)],
    "real schedulers": SCHEDULERS,
    "kernels": KERNELS,
}
YIELDS = 5  # kernels: what waits for an answer of others should not wait for them


def main() -> int:
    options, begun = sys.argv[1:], time.monotonic()
    running: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory(prefix="bw-lanes-") as place:
        later = {name: Path(place, name) for name in list(LANES)[1:]}
        for name, words in LANES.items():
            argv = [sys.executable, "-m", "pytest", "--durations=20", "--durations-min=5", *words, *options]
            if name == "kernels":
                argv = ["nice", "-n", str(YIELDS), *argv]
            with later[name].open("wb") if name in later else nullcontext() as output:
                running[name] = subprocess.Popen(argv, stdout=output, stderr=output)
        try:
            statuses = ended(running, begun)
        finally:
            for process in running.values():
                process.terminate()
        for path in later.values():
            sys.stdout.buffer.write(b"\n" + path.read_bytes())
    for name, (status, seconds) in statuses.items():
        print(f"{name}: {'passed' if status == 0 else f'pytest ended with {status}'} after {seconds:.0f} s")
    return next((status for status, _ in statuses.values() if status), 0)


def ended(running: dict[str, subprocess.Popen[bytes]], begun: float) -> dict[str, tuple[int, float]]:
    """The status of each, and after how many seconds it came."""
    statuses: dict[str, tuple[int, float]] = {}
    while len(statuses) < len(running):
        time.sleep(0.5)
        for name, process in running.items():
            if name not in statuses and (status := process.poll()) is not None:
                statuses[name] = status, time.monotonic() - begun
    return statuses


if __name__ == "__main__":
    sys.exit(main())
