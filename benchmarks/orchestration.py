"""Runs of three no-op stages: Beamway (store, engine, agent, Parsl) beside raw Parsl, on this machine, in this run.

Raw Parsl is the same executor with the same settings (HighThroughputExecutor, encrypted, one worker a core, no logging)
driven by chains of three apps that depend on each other through futures. It writes nothing down: what it submits is
gone with its process. Beamway commits every transition to SQLite (WAL, synchronous=FULL) before it acts on it.

    python benchmarks/orchestration.py [--runs 1000] [--rounds 3]

The physical limit of the rate here is the processor: raw Parsl alone uses all cores. The limit of the latency is one
disk flush (printed) and Parsl's own way from the agent to a warm worker and back (printed as raw latency).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAGES = 3
BAR_RATE, BAR_RATIO, BAR_LATENCY_MS = 150.0, 0.5, 5.0


def noop(previous: object = None) -> tuple[float, float]:
    """The app of the rival: (its start, its end)."""
    import time

    now = time.time()
    return now, time.time()


# ------------------------------------------------------------------------------------------------------ raw Parsl


@contextmanager
def parsl_apps(directory: Path, *, provider: Any = None, function: Any = noop, workers: int = 0) -> Iterator[Any]:
    """A warm app of raw Parsl; `provider` None: on this host, with a worker a core."""
    from parsl import Config, python_app
    from parsl.dataflow.dflow import DataFlowKernel
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="raw",
        address="127.0.0.1",
        max_workers_per_node=workers or len(os.sched_getaffinity(0)),
        encrypted=True,
        provider=provider or LocalProvider(init_blocks=1, max_blocks=1),
    )
    kernel = DataFlowKernel(
        Config(executors=[executor], run_dir=str(directory), strategy_period=1, initialize_logging=False)
    )
    app = python_app(function, data_flow_kernel=kernel)
    try:
        for future in [app() for _ in range(20)]:
            future.result()
        yield app
    finally:
        kernel.cleanup()


def raw_rate(app: Any, runs: int) -> float:
    begun = time.perf_counter()
    last = []
    for _ in range(runs):
        future = None
        for _ in range(STAGES):
            future = app(future)
        last.append(future)
    for future in last:
        future.result()
    return runs / (time.perf_counter() - begun)


def raw_latency_ms(app: Any, runs: int) -> list[float]:
    gaps = []
    for _ in range(runs):
        futures = [app()]
        for _ in range(STAGES - 1):
            futures.append(app(futures[-1]))
        times = [f.result() for f in futures]
        gaps += [(b[0] - a[1]) * 1e3 for a, b in itertools.pairwise(times)]
    return gaps


# -------------------------------------------------------------------------------------------------------- Beamway


@contextmanager
def beamway(home: Path) -> Iterator[Any]:
    from orchestrator.client import Client
    from orchestrator.settings import Settings

    with Client(Settings(home=home)) as client:
        client.ensure_service()
        for _ in range(5):
            finish(client, [client.submit(plan(client))])
        try:
            yield client
        finally:
            client.stop_service()


def plan(client: Any) -> Any:
    stages = {f"{i:02d}-noop": {"function": "builtins:dict"} for i in range(STAGES)}
    definition = {"name": "noop", "owner": "benchmark", "stages": stages}
    from orchestrator.definition import loader

    return client.plan(loader.load(definition), {})


def finish(client: Any, ids: list[str]) -> None:
    """Wait until the store says that each of these runs is done."""
    left = set(ids)
    while left:
        left -= client.ended(left)
        if left:
            time.sleep(0.05)


def our_rate(client: Any, runs: int) -> float:
    """From the first definition to the last run done; each run is compiled and accepted on its own."""
    begun = time.perf_counter()
    ids = client.submit_all(plan(client) for _ in range(runs))
    finish(client, ids)
    seconds = time.perf_counter() - begun
    for run_id in (ids[0], ids[-1]):
        run = client.run(run_id)
        assert run.status == "done", run.error
        assert len(run.tasks) == STAGES
    return runs / seconds


def our_latency_ms(client: Any, runs: int) -> list[float]:
    gaps = []
    for _ in range(runs):
        run_id = client.submit(plan(client))
        finish(client, [run_id])
        tasks = sorted(client.run(run_id).tasks.values(), key=lambda t: t.number)
        gaps += [(b.started_at - a.ended_at) * 1e3 for a, b in itertools.pairwise(tasks)]
    return gaps


def flush_ms(directory: Path) -> float:
    """The median time of one flush of 4 KiB to this disk."""
    times = []
    with (directory / "flush").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    raw_rates, our_rates, raw_gaps, our_gaps = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="beamway-bench-") as scratch:
        place = Path(scratch)
        print(f"cores {len(os.sched_getaffinity(0))}; one disk flush {flush_ms(place):.2f} ms (median)", flush=True)
        for round_number in range(options.rounds):
            with parsl_apps(place / f"parsl-{round_number}") as app:
                raw_gaps += raw_latency_ms(app, 40)
                raw_rates.append(raw_rate(app, options.runs))
            with beamway(place / f"home-{round_number}") as client:
                our_gaps += our_latency_ms(client, 40)
                our_rates.append(our_rate(client, options.runs))
            print(
                f"round {round_number + 1}: raw Parsl {raw_rates[-1]:.0f} runs/s, Beamway {our_rates[-1]:.0f} runs/s",
                flush=True,
            )
    ours, rival = statistics.median(our_rates), statistics.median(raw_rates)
    our_gap, raw_gap = statistics.median(our_gaps), statistics.median(raw_gaps)
    print(f"RESULT name=runs_per_s ours={ours:.0f} rival={rival:.0f} ratio={ours / rival:.2f} bar={BAR_RATIO}")
    print(
        f"RESULT name=runs_per_s_absolute ours={ours:.0f} rival={rival:.0f} ratio={ours / rival:.2f} bar={BAR_RATE:g}"
    )
    print(
        f"RESULT name=stage_gap_p50_ms ours={our_gap:.2f} rival={raw_gap:.2f} "
        f"ratio={our_gap / raw_gap:.2f} bar={BAR_LATENCY_MS:g}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
