"""A collection at each end, what moves files between them, and a wait."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.settings import Secret
from orchestrator.transfer.base import TRANSFER_ENDED, Transfer, TransferRequest, TransferState, TransferStatus
from orchestrator.transfer.globus.transfer import GlobusTransfer
from tests.globus import CLIENT, SECRET, Globus
from tests.globus.world import Collection


@dataclass
class Ends:
    """A collection at each end, and what moves files between them."""

    globus: Globus
    raw: Collection
    archive: Collection
    folder: Path
    transfer: GlobusTransfer

    def fill(self, name: str, size: int = 100_000) -> Path:
        path = self.raw.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
        return path

    def request(self, source: str = "/a.h5", destination: str = "/in/a.h5", **options: Any) -> TransferRequest:
        to = f"globus://{self.archive.id}{destination}"
        return TransferRequest(f"globus://{self.raw.id}{source}", to, options=options)

    def arrived(self, name: str = "in/a.h5", source: str = "a.h5") -> bool:
        return (self.archive.root / name).read_bytes() == (self.raw.root / source).read_bytes()

    def parts(self) -> list[Path]:
        """What has no final name yet."""
        return list(self.archive.root.rglob("*.part"))

    def again(self) -> GlobusTransfer:
        """As another process would see it."""
        self.transfer.close()
        self.transfer = GlobusTransfer(CLIENT, Secret(SECRET), self.folder, retries=1)
        return self.transfer

    def polled(self, status: TransferStatus | None = None, token: str = "t.1") -> TransferState:
        """Its state when it is this, or has ended."""
        return polled(self.transfer, token, lambda s: s.status is status if status else s.status in TRANSFER_ENDED)


def polled(transfer: Transfer, token: str, until: Callable[[TransferState], bool]) -> TransferState:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        state = transfer.poll(token)
        if until(state):
            return state
        time.sleep(0.02)
    raise AssertionError(state)
