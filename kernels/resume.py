"""What is done of an output that is written part by part, noted within it, so that a run that was killed goes on.

Beside the parts, in `.resume/`, lie one file that says which run this is (its fingerprint: whoever has the same would
write the same bytes) and one for each part that is wholly written and on the disk. `outputs.claim` keeps what a killed
run of the same fingerprint has left. The notes go before the output is published.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

FOLDER, RUN = ".resume", "run"


def fingerprint(**facts: Any) -> str:
    """Of all that decides what is written."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def is_of(part: Path, run: str) -> bool:
    """Whether a run of this fingerprint has left `part`."""
    try:
        return (part / FOLDER / RUN).read_text(encoding="ascii") == run
    except (OSError, UnicodeError):
        return False


def holds_any(part: Path) -> bool:
    """Whether any part is done, so that it is worth to go on."""
    return any(name.isdecimal() for name in os.listdir(part / FOLDER)) if (part / FOLDER).is_dir() else False


class Journal:
    """The notes in the output `part` of the run `run`; several processes may note different parts."""

    def __init__(self, part: Path, run: str) -> None:
        self._folder = part / FOLDER
        if not is_of(part, run):
            self._folder.mkdir(exist_ok=True)
            (self._folder / RUN).write_text(run, encoding="ascii")

    def done(self) -> dict[int, dict[str, int]]:
        """The parts that are done, by their number, and what was noted of each."""
        found = {}
        for file in self._folder.glob("[0-9]*"):
            if file.name.isdecimal():
                found[int(file.name)] = json.loads(file.read_text(encoding="ascii"))
        return found

    def note(self, number: int, **counts: int) -> None:
        """That a part is done and on the disk."""
        fresh = self._folder / f"new-{number}"
        fresh.write_text(json.dumps(counts), encoding="ascii")
        os.replace(fresh, self._folder / str(number))

    def forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
