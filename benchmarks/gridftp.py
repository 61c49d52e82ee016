"""A GridFTP copy of ours, verified and published by rename, beside plain `globus-url-copy`, in this run.

Both move the same file of random bytes between two GridFTP servers that this starts, and from one of them to this host,
with the same number of streams, in turn. Ours compares every byte at both ends before it renames (Adler-32 of pieces,
and XXH3 of the whole where it comes to this host), and what comes to this host it brings to the disk; the rival does
neither. Beside them run `-verify-checksum` of `globus-url-copy` itself and, to this host, the plain one and `sync`.

    python benchmarks/gridftp.py [--over network,far,loopback] [--mb 1024] [--rounds 3] [--streams 4]

* `network`: through a loopback that lets through `--gbit` (8), which is what GridFTP is for. By root.
* `far`: from a host whose packets take `--delay-ms` (25) each way, at `--far-gbit` (2). By root.
* `loopback`: the limit is the processor. Both servers, the program and the checksums share the cores; the seconds that
  each kind takes of them are told in the same line. `sums_s_per_gib` are those of the bare checksums at both ends;
  `at_most` is the ratio of a copy that costs the rival's seconds and these, and never lets a core rest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.cluster import distance
from tests.gridftp import Gridftp, missing

BAR = 0.8
PARTS = ("network", "far", "loopback")


def plain(source: str, destination: str, streams: int, *words: str) -> float:
    begun = time.perf_counter()
    subprocess.run(["globus-url-copy", "-fast", "-p", str(streams), *words, source, destination], check=True)
    return time.perf_counter() - begun


def apart(part: str) -> int:
    """This again for one part, with a network of its own where that is shaped."""
    inner = [sys.executable, *sys.argv, "--part", part]
    if part == "network":
        shape = 'ip link set lo up && tc qdisc add dev lo root tbf rate "$1"gbit burst 4mb latency 100ms'
        inner = ["unshare", "--net", "sh", "-c", f'{shape} && shift && exec "$@"', "sh", f"{_options().gbit:g}", *inner]
    return subprocess.run(inner).returncode


@contextlib.contextmanager
def servers(options: argparse.Namespace) -> Iterator[tuple[Gridftp, Gridftp]]:
    """The one that has the file, and the other one."""
    with contextlib.ExitStack() as stack:
        first: dict[str, Any] = {}
        second: dict[str, Any] = {}
        if options.part == "far":
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            network = distance.far(place, delay_s=options.delay_ms / 1000, gbit=options.far_gbit)
            host, here, there = stack.enter_context(network)
            first, second = {"host": host, "address": there}, {"address": here}
        yield stack.enter_context(Gridftp(**first)), stack.enter_context(Gridftp(**second))


def processors(both: tuple[Gridftp, ...]) -> float:
    """Seconds that these servers, our programs and we have taken of processors."""
    time.sleep(0.2)  # until ended connections are counted
    taken = sum(server.processor_s() for server in both)
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(whose)
        taken += used.ru_utime + used.ru_stime
    return taken


def kept(source: str, destination: str, streams: int, file: Path) -> float:
    """The plain one, until the file is on the disk."""
    begun = time.perf_counter()
    plain(source, destination, streams)
    subprocess.run(["sync", file], check=True)
    return time.perf_counter() - begun


def ours(source: str, destination: str, streams: int, number: int) -> float:
    from orchestrator.transfer import gridftp

    begun = time.perf_counter()
    report = gridftp.copy(source, destination, token=f"bench.{number}", options={"streams": streams})
    seconds = time.perf_counter() - begun
    assert report.checksum.startswith(("adler32", "xxh3"))
    assert not report.skipped
    return seconds


def bare_sums(source: str, target: str, size: int, both: tuple[Gridftp, ...]) -> float:
    """Seconds of processors for the checksums that any compared copy needs, of both files, one after the other."""
    from orchestrator.transfer.ends import local_end
    from orchestrator.transfer.gridftp_server import ServerEnd, address, is_address

    before = processors(both)
    digests = set()
    for place in (source, target):
        found = address(place) if is_address(place) else None
        end, path = (ServerEnd(found), found.path) if found else local_end(place, "xxh3")
        digests.add(end.digest(path, "adler32", 0, size))
        end.close()
    assert len(digests) == 1, "the two files differ"
    return processors(both) - before


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--over", default=",".join(PARTS))
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--gbit", type=float, default=8)
    parser.add_argument("--delay-ms", type=float, default=25)
    parser.add_argument("--far-gbit", type=float, default=2)
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.over.split(",")) - set(PARTS):
        parser.error(f"--over is of {', '.join(PARTS)}, and not {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = _options()
    if reason := missing():
        print(f"not measured: {reason}")
        return 0
    if options.part:
        return measured(options)
    for part in options.over.split(","):
        reasons = {"network": "only root makes networks" if os.geteuid() else "", "far": distance.missing()}
        if reason := reasons.get(part, ""):
            print(f"{part}: not measured: {reason}")
        elif failed := apart(part):
            return failed
    return 0


def measured(options: argparse.Namespace) -> int:
    taken: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    with servers(options) as (one, other):
        file = one.root / "file"
        with file.open("wb") as out:
            for _ in range(options.mb):
                out.write(os.urandom(1 << 20))
        here = other.root / "here"
        here.mkdir()
        source = one.url("file")
        for number in range(options.rounds):
            for way, target, where in (
                ("third_party", other.url("copy"), other.root / "copy"),
                ("get", f"{here}/copy", here / "copy"),
            ):
                address = f"file://{target}" if way == "get" else target
                runs: dict[str, Callable[[], float]] = {
                    "plain": lambda a=address: plain(source, a, options.streams),
                    "ours": lambda t=target, n=number: ours(source, t, options.streams, n),
                    "verifying": lambda a=address: plain(source, a, options.streams, "-verify-checksum"),
                }
                if way == "get":
                    runs["kept"] = lambda a=address, w=where: kept(source, a, options.streams, w)
                for name, seconds in runs.items():
                    where.unlink(missing_ok=True)
                    os.sync()  # nobody pays for the one before
                    before = processors((one, other))
                    taken.setdefault(f"{way} {name}", []).append(seconds())
                    used.setdefault(f"{way} {name}", []).append(processors((one, other)) - before)
                    assert where.stat().st_size == file.stat().st_size
                used.setdefault(f"{way} sums", []).append(bare_sums(source, target, file.stat().st_size, (one, other)))
                last = ", ".join(f"{name} {taken[f'{way} {name}'][-1]:.2f} s" for name in runs)
                print(f"{options.part}, round {number + 1}, {way}: {last}", flush=True)
    told = {
        "network": f"at_{options.gbit:g}_gbit",
        "far": f"{2 * options.delay_ms:g}_ms_away_at_{options.far_gbit:g}_gbit",
    }
    for way in ("third_party", "get"):
        processor = {n: statistics.median(used[f"{way} {n}"]) / options.mb * 1024 for n in ("plain", "ours", "sums")}
        plain_s = statistics.median(taken[f"{way} plain"]) / options.mb * 1024
        least_s = (processor["plain"] + processor["sums"]) / len(os.sched_getaffinity(0))
        rates = {n.split()[1]: options.mb / statistics.median(taken[n]) for n in taken if n.startswith(way)}
        print(
            f"RESULT name=gridftp_{way}_{told.get(options.part, options.part)}_mib_per_s ours={rates['ours']:.0f} "
            f"rival={rates['plain']:.0f} ratio={rates['ours'] / rates['plain']:.2f} bar={BAR} "
            f"verifying_rival={rates['verifying']:.0f} "
            + (f"rival_and_sync={rates['kept']:.0f} " if "kept" in rates else "")
            + f"processor_s_per_gib={processor['ours']:.2f} rival_processor_s_per_gib={processor['plain']:.2f} "
            f"sums_s_per_gib={processor['sums']:.2f} at_most={min(1.0, plain_s / least_s):.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
