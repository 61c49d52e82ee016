"""A real Slurm on this machine (`slurm.cluster`): pilots beside raw Parsl, a warm reservation, a thousand batch jobs.

Raw Parsl is its HighThroughputExecutor with its own SlurmProvider on the same cluster, driven by chains of three no-op
apps that depend on each other through futures; it writes nothing down. Beamway runs the same chains as runs of three
stages at a site whose workers sit in a Slurm job, and commits every transition to the disk.

    python benchmarks/clusters.py [--runs 300] [--jobs 1000] [--rounds 2]

The physical limits: of the rate the processor, which raw Parsl alone uses fully; of the latency one flush and Parsl's
own way to a warm worker and back; of the cold start the same, as a worker waits already; of the scheduler's calls one
a look, and a look every `poll_s`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orchestration as plain

BAR_RATIO, BAR_ADDED_MS, BAR_COLD_S, BAR_CALLS_PER_S = 0.5, 5.0, 1.0, 1.0
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "sinfo", "scontrol", "sacctmgr")


def noop(previous: object = None) -> tuple[float, float]:
    """The app of the rival: (its start, its end)."""
    import time

    now = time.time()
    return now, time.time()


# ------------------------------------------------------------------------------------------------------ raw Parsl


def slurm_provider(cluster: Any) -> Any:
    from parsl.launchers import SimpleLauncher
    from parsl.providers import SlurmProvider

    os.environ |= cluster.environment
    return SlurmProvider(
        partition="regular",
        nodes_per_block=1,
        cores_per_node=cluster.plan.cpus,
        init_blocks=1,
        max_blocks=1,
        walltime="00:30:00",
        exclusive=False,
        launcher=SimpleLauncher(),
    )


# -------------------------------------------------------------------------------------------------------- Beamway


@contextmanager
def beamway(home: Path, profile: str) -> Iterator[Any]:
    """A service that stays, with the trial cluster as its default site."""
    from orchestrator.client import Client
    from orchestrator.settings import Settings

    (home / "sites").mkdir(parents=True)
    (home / "sites" / "trial.toml").write_text(profile)
    environment = {**os.environ, "BEAMWAY_HOME": str(home), "BEAMWAY_SITE": "trial"}
    with (home / "service.log").open("wb") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.service"], env=environment, stdout=log, stderr=log
        )
    try:
        with Client(Settings(home=home, site="trial")) as client:
            deadline = time.monotonic() + 30
            while client.service() is None:
                assert time.monotonic() < deadline, "the service has not started"
                time.sleep(0.05)
            yield client
            client.stop_service()
    finally:
        service.terminate()
        service.wait()


def plan(client: Any, stages: dict[str, Any], **placing: str) -> Any:
    from orchestrator.definition import loader
    from orchestrator.model import Placing

    definition = {"name": "noop", "owner": "benchmark", "stages": stages}
    return client.plan(loader.load(definition), {}, placing=Placing(site="trial", **placing))


NOOPS = {f"{i:02d}-noop": {"function": "builtins:dict"} for i in range(plain.STAGES)}


def our_rate(client: Any, runs: int) -> float:
    begun = time.perf_counter()
    ids = client.submit_all(plan(client, NOOPS) for _ in range(runs))
    plain.finish(client, ids)
    seconds = time.perf_counter() - begun
    for run_id in (ids[0], ids[-1]):
        run = client.run(run_id)
        assert run.status == "done", run.error
    return runs / seconds


def our_latency_ms(client: Any, runs: int) -> list[float]:
    gaps = []
    for _ in range(runs):
        run_id = client.submit(plan(client, NOOPS))
        plain.finish(client, [run_id])
        tasks = sorted(client.run(run_id).tasks.values(), key=lambda t: t.number)
        gaps += [(b.started_at - a.ended_at) * 1e3 for a, b in itertools.pairwise(tasks)]
    return gaps


# -------------------------------------------------------------------------------------------------- the three figures


def pilot(place: Path, cluster: Any, runs: int, rounds: int) -> None:
    from slurm.cluster import profile_toml

    raw_rates, our_rates, raw_gaps, our_gaps = [], [], [], []
    for number in range(rounds):
        raw = plain.parsl_apps(
            place / f"parsl-{number}", provider=slurm_provider(cluster), function=noop, workers=cluster.plan.cpus
        )
        with raw as app:
            raw_gaps += plain.raw_latency_ms(app, 30)
            raw_rates.append(plain.raw_rate(app, runs))
        text = profile_toml(cluster, execution={"blocks": 1})
        with beamway(place / f"home-{number}", text) as client:
            plain.finish(client, [client.submit(plan(client, NOOPS)) for _ in range(5)])
            our_gaps += our_latency_ms(client, 30)
            our_rates.append(our_rate(client, runs))
        print(f"round {number + 1}: raw Parsl {raw_rates[-1]:.0f} runs/s, Beamway {our_rates[-1]:.0f}", flush=True)
    tasks = plain.STAGES
    ours, rival = statistics.median(our_rates) * tasks, statistics.median(raw_rates) * tasks
    result("slurm_pilot_tasks_per_s", f"{ours:.0f}", f"{rival:.0f}", f"{ours / rival:.2f}", BAR_RATIO)
    ours, rival = statistics.median(our_gaps), statistics.median(raw_gaps)
    print(f"from the end of a task to the start of the next: {ours:.2f} ms, raw Parsl {rival:.2f} ms")
    result("slurm_pilot_added_ms_per_task", f"{ours - rival:.2f}", "-", "-", BAR_ADDED_MS)


def cold_start(place: Path, cluster: Any, times: int) -> None:
    """Submit → the function of a run's first stage runs, in a reservation whose workers are warm."""
    from slurm import reservations
    from slurm.client import Slurm
    from slurm.cluster import profile_toml

    slurm, now = Slurm(environment=cluster.environment), time.time()
    reservations.create(slurm, "beam", from_at=now, until_at=now + 3600, nodes=1, users=[cluster.plan.user])
    text = profile_toml(cluster, reservations=[{"name": "beam", "warm": True}])
    seconds = []
    with beamway(place / "home-warm", text) as client:
        deadline = time.monotonic() + 60
        while not any(job.started_at for job in slurm.mine("bwp-")):
            assert time.monotonic() < deadline, "no warm workers came"
            time.sleep(0.2)
        time.sleep(8)  # for the workers in the job to report in
        for number in range(times):
            stages = {"01-work": {"function": "builtins:dict", "resources": {"coresPerRank": 1}}}
            begun = time.time()
            run_id = client.submit(plan(client, stages))
            plain.finish(client, [run_id])
            seconds.append(client.run(run_id).tasks[0].started_at - begun)
            print(f"cold start {number + 1}: {seconds[-1] * 1e3:.0f} ms", flush=True)
    print(f"median of {times}: {statistics.median(seconds):.3f} s; the first counts")
    result("cold_start_in_warm_reservation_s", f"{seconds[0]:.3f}", "-", "-", BAR_COLD_S)
    slurm.cancel([job.id for job in slurm.mine("bwp-")])


def thousand(place: Path, cluster: Any, jobs: int) -> None:
    """Batch jobs, all of them at once: what the scheduler is asked while they are tracked."""
    import shutil

    from slurm.cluster import profile_toml

    commands, calls = place / "bin", place / "calls"
    commands.mkdir()
    for name in COMMANDS:
        (commands / name).write_text(
            f'#!/bin/sh\necho "$(date +%s.%N) {name}" >>{calls}\nexec {shutil.which(name)} "$@"\n'
        )
        (commands / name).chmod(0o755)
    text = profile_toml(cluster, scheduler={"bin": str(commands)}, execution={"mode": "batch"})
    stage = {"command": "true", "resources": {"coresPerRank": 1}}
    with beamway(place / "home-batch", text) as client:
        begun = time.time()
        ids = client.submit_all(plan(client, {"01-true": stage}, mode="batch") for _ in range(jobs))
        left = set(ids)
        while left:
            left -= client.ended(left)
            time.sleep(1)
            if int(time.time() - begun) % 30 == 0:
                print(f"{jobs - len(left)} of {jobs} done", flush=True)
        ended = time.time()
        states = [client.run(run_id).status for run_id in ids]
    seen = [line.split() for line in calls.read_text().splitlines()]
    tracking = [float(at) for at, name in seen if name != "sbatch" and begun <= float(at) <= ended]
    rate = len(tracking) / (ended - begun)
    done = sum(status == "done" for status in states)
    submits = sum(name == "sbatch" for _, name in seen)
    print(f"{done} of {jobs} jobs done in {ended - begun:.0f} s; {len(tracking)} calls beside {submits} of sbatch")
    result("scheduler_calls_per_s", f"{rate:.2f}", "-", "-", BAR_CALLS_PER_S)


def result(name: str, ours: str, rival: str, ratio: str, bar: float) -> None:
    """`-`: there is no rival for it."""
    print(f"RESULT name={name} ours={ours} rival={rival} ratio={ratio} bar={bar:g}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", choices=["pilot", "cold", "jobs"])
    options = parser.parse_args()
    from slurm import cluster

    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(prefix="bw-bench-") as scratch:
        place = Path(scratch)
        here = cluster.up(place / "slurm")
        try:
            if options.only in (None, "pilot"):
                pilot(place, here, options.runs, options.rounds)
            if options.only in (None, "cold"):
                cold_start(place, here, options.times)
            if options.only in (None, "jobs"):
                thousand(place, here, options.jobs)
        finally:
            cluster.down(place / "slurm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
