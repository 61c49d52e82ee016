"""A local copy of ours, with XXH3 of every byte, read back, synced and renamed, beside `cp`, in this run.

Each round takes all of them in turn, on the same file of random bytes, then on a tree of small files:

    cp            what the page cache takes: nothing is on the disk when it ends
    cp_synced     `cp` and then `sync` of what it wrote, which is what ours promises, less the checksums
    ours          reads, makes a checksum, writes, reads back and compares, syncs, renames
    ours_disk     the same, read back from the disk and not from memory
    unchecked     ours with `checks: size`

    python benchmarks/local_copy.py [--gb 2] [--files 10000] [--rounds 5] [--place DIR] [--memory DIR]

Against `cp` the limit is the disk: `cp` ends before anything is written. So the file is also copied within `--memory`
(a tmpfs), where a sync costs nothing, and what is left is the price of the checksums alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BAR = 0.8


def ours(source: Path, target: Path, **options: str) -> None:
    from orchestrator.transfer import local

    report = local.copy(str(source), str(target), options=options)
    assert report.checksum.startswith("xxh3")
    assert not report.skipped


def unchecked(source: Path, target: Path) -> None:
    from orchestrator.transfer import local

    local.copy(str(source), str(target), checks=())


def cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", source, target], check=True)


def cp_synced(source: Path, target: Path) -> None:
    cp(source, target)
    if target.is_dir():
        paths = b"\0".join(os.fsencode(path) for path in (*target.iterdir(), target))
        subprocess.run(["xargs", "-0", "sync"], input=paths, check=True)
    else:
        subprocess.run(["sync", target, target.parent], check=True)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "cp": cp,
    "ours": ours,
    "cp_synced": cp_synced,
    "ours_disk": lambda source, target: ours(source, target, read_back="disk"),
    "unchecked": unchecked,
}


def measured(source: Path, target: Path, rounds: int, ways: tuple[str, ...]) -> dict[str, float]:
    """The median seconds of each way."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            os.sync()  # nobody pays for the one before
            begun = time.perf_counter()
            WAYS[way](source, target)
            taken[way].append(time.perf_counter() - begun)
        print(f"round {number + 1}: " + ", ".join(f"{w} {taken[w][-1]:.2f} s" for w in ways), flush=True)
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    return {way: statistics.median(some) for way, some in taken.items()}


def limits(place: Path, size: int) -> tuple[float, float]:
    """GB/s that the disk takes and gives, past the page cache."""
    path, block = place / "limit", 8 << 20
    words = ["bs=8M", f"count={max(1, size // block)}", "status=none"]
    try:
        rates = []
        for more in (["if=/dev/zero", f"of={path}", "oflag=direct"], [f"if={path}", "of=/dev/null", "iflag=direct"]):
            begun = time.perf_counter()
            if subprocess.run(["dd", *words, *more], stderr=subprocess.DEVNULL).returncode:
                return 0.0, 0.0  # a file system without: memory
            rates.append(max(1, size // block) * block / (time.perf_counter() - begun) / 1e9)
        return rates[0], rates[1]
    finally:
        path.unlink(missing_ok=True)


def noise(path: Path, size: int) -> Path:
    with path.open("wb") as out:
        while size > 0:
            size -= out.write(os.urandom(min(size, 8 << 20)))
    return path


def told(name: str, amount: float, unit: str, seconds: dict[str, float], **more: float) -> None:
    for rival in ("cp", "cp_synced"):
        if rival in seconds:
            extra = " ".join(f"{key}={value:.2f}" for key, value in more.items())
            print(
                f"RESULT name=local_{name}_vs_{rival}_{unit} ours={amount / seconds['ours']:.2f} "
                f"rival={amount / seconds[rival]:.2f} ratio={seconds[rival] / seconds['ours']:.2f} bar={BAR} {extra}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=2)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--place", default=tempfile.gettempdir())
    parser.add_argument("--memory", default="/dev/shm")
    options = parser.parse_args()
    size = int(options.gb * 1e9)
    with tempfile.TemporaryDirectory(prefix="bw-copy-", dir=options.place) as name:
        place = Path(name)
        write, read = limits(place, size)
        print(f"disk of {place}: writes {write:.2f} GB/s, reads {read:.2f} GB/s past the page cache", flush=True)
        source = noise(place / "file", size)
        seconds = measured(source, place / "copy", options.rounds, tuple(WAYS))
        told(
            "file",
            size / 1e9,
            "gb_per_s",
            seconds,
            disk_writes=write,
            disk_reads=read,
            from_disk=size / 1e9 / seconds["ours_disk"],
            unchecked=size / 1e9 / seconds["unchecked"],
        )
        source.unlink()
        tree = place / "tree"
        tree.mkdir()
        for number in range(options.files):
            noise(tree / f"{number:06}", 4096)
        seconds = measured(tree, place / "copy", max(1, options.rounds // 2), ("cp", "ours", "cp_synced"))
        told("tree", options.files, "files_per_s", seconds)
    if os.path.isdir(options.memory):
        with tempfile.TemporaryDirectory(prefix="bw-copy-", dir=options.memory) as name:
            # The file, its copy and what is between them have to fit.
            size = min(size, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
            source = noise(Path(name, "file"), size)
            told("memory", size / 1e9, "gb_per_s", measured(source, Path(name, "copy"), options.rounds, ("cp", "ours")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
