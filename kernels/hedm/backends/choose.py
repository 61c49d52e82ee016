"""The grains of another package, and in words what found them."""

from __future__ import annotations

import shutil

from kernels.hedm.backends.imaged11 import imaged11
from kernels.hedm.backends.midas import midas
from kernels.hedm.backends.packages import described
from kernels.hedm.backends.task import Task, judged
from kernels.hedm.farfield.find import Found


def find_with(backend: str, task: Task) -> tuple[Found, str]:
    """What `backend` finds, with our columns, and how: `ImageD11 2.1.3: orientation by …`.

    Raises
    ------
    KernelError
        Exit 2 for a package that is not there or cannot do it; 65 when it fails.
    """
    what = described(backend)
    shutil.rmtree(task.folder, ignore_errors=True)  # of a run that was killed
    try:
        answer = (imaged11 if backend == "imaged11" else midas)(task)
    finally:
        shutil.rmtree(task.folder, ignore_errors=True)
    return judged(task, answer), f"{what}: {answer.says}"
