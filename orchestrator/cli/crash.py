"""Keeps the traceback of a fault of ours in a file, for whoever mends it."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from pathlib import Path

from orchestrator import settings


def kept(error: BaseException) -> str:
    """Write the traceback; a sentence that says where it is."""
    text = "".join(traceback.format_exception(error))
    name = f"crash-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.log"
    home = Path(os.environ.get("BEAMWAY_HOME") or settings.default_home())
    for directory in (home / "logs", Path(tempfile.gettempdir())):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return f"Please report it with {directory / name}."
    return "Its traceback could not be written anywhere."
