"""Notes of transfers by Globus: kept as long as somebody may ask."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.transfer.base import TransferRequest, TransferState, TransferStatus
from orchestrator.transfer.globus.notes import KEPT_S, Note, Notes


def test_notes_of_transfers_that_were_over_long_ago_go(tmp_path: Path) -> None:
    notes = Notes(tmp_path)

    def keep(token: str, status: TransferStatus | None) -> None:
        verdict = TransferState(token, status) if status else None
        notes.keep(Note(token, TransferRequest("a", "b"), 0.0, verdict=verdict))

    kinds = {"done": TransferStatus.DONE, "failed": TransferStatus.FAILED, "held": TransferStatus.HELD, "open": None}
    for token, status in kinds.items():
        keep(token, status)
    (tmp_path / "odd.json").write_text("{")
    long_ago = time.time() - KEPT_S - 60
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    keep("new", TransferStatus.DONE)
    left = {token for token in (*kinds, "new") if notes.read(token) is not None}
    assert left == {"held", "open", "new"}
    assert (tmp_path / "odd.json").exists()  # nobody knows what it says
