"""What attempts write, read piece by piece from the directory that services and agents share."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import Unavailable

PIECE = 1 << 20  # bytes


def piece(runs: Path, run_id: str, number: int, attempt: int, *, stderr: bool, after: int) -> bytes:
    """At most `PIECE` bytes of the stdout (or stderr) of an attempt after so many; none when there are no more yet.

    While it runs they are what it has written until now. Raises Unavailable when the directory is not to be seen.
    """
    path = runs / run_id / "logs" / f"{number}.{attempt}.{'err' if stderr else 'out'}"
    try:
        with path.open("rb") as file:
            file.seek(after)
            return file.read(PIECE)
    except FileNotFoundError:
        if runs.is_dir():
            return b""
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}.") from None
    raise Unavailable(
        f"The logs lie in {runs}, which is not there.",
        "The setting `runs` (BEAMWAY_RUNS) names the directory that all services and agents see.",
    )
