"""All tests in three lanes side by side: real schedulers, which are mostly waited for, kernels and after them what dies
and comes back, which take what is left of the processors, and everything else.

    python -m tests.lanes [options of pytest]

Each turn of a lane is a pytest of its own; the output of the first lane comes as it runs, that of the others when all
are over. Ends with the first status that is not 0. A plain `pytest` runs the same tests one after another.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

SCHEDULERS = ["tests/cluster", "tests/chaos/test_crash_points_on_slurm.py"]
KERNELS = ["tests/unit/kernels"]
DEATHS = ["tests/chaos/test_crash_points.py", "tests/chaos/test_storm.py"]
LANES = {
    "everything else": [[f"--ignore={path}" for path in (*SCHEDULERS, *KERNELS, *DEATHS)]],
    "real schedulers": [SCHEDULERS],
    "kernels, then deaths": [KERNELS, DEATHS],
}
YIELDS = 5  # kernels: what waits for an answer of others should not wait for them


def main() -> int:
    options, begun = sys.argv[1:], time.monotonic()
    running: list[subprocess.Popen[bytes]] = []
    over = threading.Event()

    def drive(turns: list[list[str]], output: IO[bytes] | None) -> tuple[int, float]:
        """The first status of the turns that is not 0, and after how many seconds the last was over."""
        statuses = []
        for words in turns:
            if over.is_set():
                break
            argv = [sys.executable, "-m", "pytest", "--durations=20", "--durations-min=5", *words, *options]
            if words is KERNELS:
                argv = ["nice", "-n", str(YIELDS), *argv]
            running.append(subprocess.Popen(argv, stdout=output, stderr=output))
            statuses.append(running[-1].wait())
        return next((status for status in statuses if status), 0), time.monotonic() - begun

    with (
        tempfile.TemporaryDirectory(prefix="bw-lanes-") as place,
        ExitStack() as files,
        ThreadPoolExecutor(len(LANES)) as pool,
    ):
        later = {name: files.enter_context(Path(place, name).open("wb")) for name in list(LANES)[1:]}
        try:
            driven = {name: pool.submit(drive, turns, later.get(name)) for name, turns in LANES.items()}
            ended = {name: each.result() for name, each in driven.items()}
        finally:
            over.set()
            for process in running:
                process.terminate()
        for name in later:
            sys.stdout.buffer.write(b"\n" + Path(place, name).read_bytes())
    for name, (status, seconds) in ended.items():
        print(f"{name}: {'passed' if status == 0 else f'pytest ended with {status}'} after {seconds:.0f} s")
    return next((status for status, _ in ended.values() if status), 0)


if __name__ == "__main__":
    sys.exit(main())
