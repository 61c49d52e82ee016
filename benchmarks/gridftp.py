"""A GridFTP copy of ours, verified and published by rename, beside plain `globus-url-copy`, in this run.

Both move the same file of random bytes between two GridFTP servers that this starts on 127.0.0.1, and from one of them
to this host, with the same number of streams. Ours compares every byte at both ends before it renames (Adler-32 of
pieces, and XXH3 of the whole where it comes to this host); the rival checks nothing. Each round takes both in turn, and
beside them `-verify-checksum` of `globus-url-copy` itself.

    python benchmarks/gridftp.py [--mb 1024] [--rounds 3] [--streams 4] [--gbit 8]

On loopback the limit is the processor: both servers, the program and the checksums share the cores, so the seconds of
processor that each takes are told, too. With `--gbit` it all runs in a network namespace of its own, whose loopback
lets through so much (`tc`, by root): a network, which is what GridFTP is for.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.gridftp import Gridftp, missing

BAR = 0.8


def plain(source: str, destination: str, streams: int, *words: str) -> float:
    begun = time.perf_counter()
    subprocess.run(["globus-url-copy", "-fast", "-p", str(streams), *words, source, destination], check=True)
    return time.perf_counter() - begun


def shaped(gbit: float) -> int:
    """This again, where loopback is a network of such a rate."""
    words = [word for word in sys.argv if not word.startswith("--gbit")]
    inner = [sys.executable, *(word for word in words if word != f"{gbit:g}"), "--shaped", f"{gbit:g}"]
    shape = f"ip link set lo up && tc qdisc add dev lo root tbf rate {gbit}gbit burst 4mb latency 100ms"
    return subprocess.run(["unshare", "--net", "sh", "-c", f'{shape} && exec "$@"', "sh", *inner]).returncode


def processors(servers: tuple[Gridftp, ...]) -> float:
    """Seconds that these servers, our programs and we have taken of processors."""
    time.sleep(0.2)  # until ended connections are counted
    taken = sum(server.processor_s() for server in servers)
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(whose)
        taken += used.ru_utime + used.ru_stime
    return taken


def ours(source: str, destination: str, streams: int, number: int) -> float:
    from orchestrator.transfer import gridftp

    begun = time.perf_counter()
    report = gridftp.copy(source, destination, token=f"bench.{number}", options={"streams": streams})
    seconds = time.perf_counter() - begun
    assert report.checksum.startswith(("adler32", "xxh3"))
    assert not report.skipped
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--gbit", type=float, default=0)
    parser.add_argument("--shaped", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.gbit:
        return shaped(options.gbit)
    if reason := missing():
        print(f"not measured: {reason}")
        return 0
    taken: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    with Gridftp() as one, Gridftp() as other:
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
                for name, seconds in (
                    ("plain", lambda a=address: plain(source, a, options.streams)),
                    ("ours", lambda t=target, n=number: ours(source, t, options.streams, n)),
                    ("verifying", lambda a=address: plain(source, a, options.streams, "-verify-checksum")),
                ):
                    where.unlink(missing_ok=True)
                    os.sync()  # nobody pays for the one before
                    before = processors((one, other))
                    taken.setdefault(f"{way} {name}", []).append(seconds())
                    used.setdefault(f"{way} {name}", []).append(processors((one, other)) - before)
                    assert where.stat().st_size == file.stat().st_size
                last = ", ".join(f"{n} {taken[f'{way} {n}'][-1]:.2f} s" for n in ("plain", "ours", "verifying"))
                print(f"round {number + 1}, {way}: {last}", flush=True)
    network = f"_at_{options.shaped:g}_gbit" if options.shaped else ""
    for way in ("third_party", "get"):
        processor = {n: statistics.median(used[f"{way} {n}"]) / options.mb * 1024 for n in ("plain", "ours")}
        rates = {n: options.mb / statistics.median(taken[f"{way} {n}"]) for n in ("plain", "ours", "verifying")}
        print(
            f"RESULT name=gridftp_{way}{network}_mib_per_s ours={rates['ours']:.0f} rival={rates['plain']:.0f} "
            f"ratio={rates['ours'] / rates['plain']:.2f} bar={BAR} verifying_rival={rates['verifying']:.0f} "
            f"processor_s_per_gib={processor['ours']:.2f} rival_processor_s_per_gib={processor['plain']:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
