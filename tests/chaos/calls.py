"""Functions that the chaos tests have called in workers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def mark(directory: str, name: str, seconds: float = 0.0) -> None:
    with (Path(directory) / name).open("a") as file:
        file.write("x\n")
    time.sleep(float(seconds))


def die_once(directory: str) -> None:
    path = Path(directory) / "died"
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def start_child(directory: str) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    (Path(directory) / "child").write_text(f"{child.pid}\n")
    child.wait()
