"""What was measured, as records: how long attempts took, how fast data moved, how good predictions were.

Apart from `history`, which stores them, so that the choice of a site needs no database. Times are epoch seconds (UTC).
"""

from __future__ import annotations

from msgspec import Struct


class Timing(Struct, frozen=True):
    """One attempt that ended well."""

    workflow: str
    stage: str
    site: str
    compute_s: float
    input_bytes: int = 0
    nodes: int = 1
    ranks: int = 1  # on all nodes together
    gpus: int = 0  # on all nodes together
    transfer_s: float = 0.0
    queue_s: float = 0.0
    call: str = ""  # the kernel or function, empty for a command
    at: float = 0.0


class Moved(Struct, frozen=True):
    """One transfer that ended well."""

    from_site: str
    to_site: str
    bytes: int
    seconds: float
    at: float = 0.0


class Rate(Struct, frozen=True):
    """How fast data went from one site to another of late."""

    bytes_per_s: float
    count: int = 1  # transfers behind it


class PlacementRow(Struct, frozen=True):
    """One choice of a site: what was predicted, and, once it is known, what came of it."""

    run_id: str
    stage: str
    attempt: int
    at: float
    chosen: str  # site; empty: none could take it
    doc: str  # the whole `Placement` as JSON
    queue: str = ""
    reservation: str = ""
    predicted_transfer_s: float = 0.0
    predicted_queue_s: float = 0.0
    predicted_compute_s: float = 0.0
    raw_queue_s: float = -1.0  # before the correction; below 0: nothing to learn from it
    transfer_s: float | None = None  # what it took
    queue_s: float | None = None
    compute_s: float | None = None


class Wait(Struct, frozen=True):
    """A wait in a queue as it was predicted, before any correction, and as it was."""

    site: str
    predicted_s: float
    actual_s: float
