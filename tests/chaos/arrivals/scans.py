"""Scans as detectors write them, small and each with its own content. As a program: one that can be killed in its work.

python -m tests.chaos.arrivals.scans PATH SEED FRAMES
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

ROWS, COLUMNS, FLATS = 4, 32, 2
END = b"\nEND OF SCAN\n"
Frames = NDArray[np.uint16]


def frames(seed: int, count: int) -> Frames:
    return np.random.default_rng(seed).integers(2000, 18000, (count, ROWS, COLUMNS), np.uint16)


def proof(*data: Frames) -> str:
    """What only these frames give."""
    total = xxhash.xxh3_128()
    for some in data:
        total.update(np.ascontiguousarray(some))
    return total.hexdigest()


def proof_of_bytes(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)


def checksum(path: Path) -> str:
    return f"xxh3:{xxhash.xxh3_128_hexdigest(path.read_bytes())}"


def dxchange(
    path: Path, data: Frames, *, after: Callable[[int], None] = lambda number: None, swmr: bool = False
) -> None:
    """Frame by frame, in place; `after` is called when one is on the disk."""
    with h5py.File(path, "w", libver="latest" if swmr else None) as file:
        exchange = file.create_group("exchange")
        exchange["theta"] = np.linspace(0.0, 180.0, len(data), endpoint=False)
        exchange["data_white"] = np.full((FLATS, ROWS, COLUMNS), 20000, np.uint16)
        exchange["data_dark"] = np.full((FLATS, ROWS, COLUMNS), 100, np.uint16)
        shape = (ROWS, COLUMNS)
        written = exchange.create_dataset("data", (0, *shape), "u2", maxshape=(None, *shape), chunks=(1, *shape))
        file.flush()
        if swmr:
            file.swmr_mode = True
        for number, frame in enumerate(data):
            written.resize(number + 1, 0)
            written[number] = frame
            file.flush()
            after(number)


def eiger_part(path: Path, data: Frames) -> None:
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = data


def eiger_master(path: Path, parts: list[str]) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        for number, part in enumerate(parts, 1):
            group[f"data_{number:06}"] = h5py.ExternalLink(part, "/entry/data/data")


def read(path: str) -> list[Frames]:
    """All frames of a scan, of whichever kind."""
    with h5py.File(path, "r", locking=False) as file:
        if "exchange" in file:
            return [file["exchange/data"][()]]
        links = file["entry/data"]
        return [links[name][()] for name in sorted(links)]


def raw(seed: int) -> bytes:
    return random.Random(seed).randbytes(500 + seed % 1000)


def main() -> None:
    path, seed, count = sys.argv[1:]

    def after(number: int) -> None:
        print(number, flush=True)
        time.sleep(0.02)

    dxchange(Path(path), frames(int(seed), int(count)), after=after, swmr=bool(int(seed) % 2))


if __name__ == "__main__":
    main()
