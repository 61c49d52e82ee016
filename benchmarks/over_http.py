"""Runs of three no-op stages over HTTP beside the same in process: what the network interface costs, in this run.

Both ask for the same runs with `Client.start_all`. Over HTTP the definition and the arguments of each run are posted to
a service (`beamway service`), which compiles it, and an agent of another process fetches the tasks and brings the
outcomes over HTTP as well. In process they speak over the home's Unix socket and the client compiles, as in
`benchmarks/orchestration.py`. Both commit every transition to SQLite before acting on it.

    python benchmarks/over_http.py [--runs 600] [--rounds 3]

The physical limit here is the processor: client, service, agent and workers share the cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from orchestration import STAGES, beamway, finish, our_latency_ms, plan

BAR = 0.7
START_S = 60.0


@contextlib.contextmanager
def over_http(home: Path) -> Iterator[Any]:
    from orchestrator.client import Client
    from orchestrator.settings import Secret, Settings, ensure_home
    from orchestrator.store import tokens
    from orchestrator.store.database import Database

    ensure_home(home)
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    now, texts = time.time(), {}
    with Database(Settings(home=home).database_url) as database:
        database.upgrade()
        for role, site in (("operator", ""), ("agent", "local")):
            _, texts[role] = tokens.create(database, name=role, role=role, site=site, now=now, expires_at=now + 86400)
    url = f"http://127.0.0.1:{port}"
    there = {"BEAMWAY_HOME": str(home)}
    far = {**there, "BEAMWAY_URL": url, "BEAMWAY_TOKEN": texts["agent"]}
    running = [_spawn(home, there, "service", "--listen", f"127.0.0.1:{port}"), _spawn(home, far, "agent", "local")]
    try:
        settings = Settings(home=home / "client", url=url, token=Secret(texts["operator"]))
        with Client(settings) as client:
            client.ensure_service()
            for _ in range(5):
                finish(client, [client.submit(plan(client))])
            yield client
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(30.0)


def _spawn(home: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    with (home / f"{words[0]}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *words],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def our_rate(client: Any, runs: int) -> float:
    """From the first wish to the last run done; each run has arguments of its own and is compiled on its own."""
    from orchestrator.definition import loader

    stages = {f"{i:02d}-noop": {"function": "builtins:dict", "arguments": {"n": "$number"}} for i in range(STAGES)}
    definition = loader.load({"name": "noop", "owner": "benchmark", "stages": stages})
    begun = time.perf_counter()
    ids = client.start_all(definition, ({"number": str(number)} for number in range(runs)))
    finish(client, ids)
    seconds = time.perf_counter() - begun
    for run_id in (ids[0], ids[-1]):
        run = client.run(run_id)
        assert run.status == "done", run.error
        assert len(run.tasks) == STAGES
    return runs / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    rates: dict[str, list[float]] = {"here": [], "http": []}
    gaps: dict[str, list[float]] = {"here": [], "http": []}
    with tempfile.TemporaryDirectory(prefix="beamway-bench-") as scratch:
        for number in range(options.rounds):
            for name, way in (("here", beamway), ("http", over_http)):
                with way(Path(scratch) / f"{name}-{number}") as client:
                    gaps[name] += our_latency_ms(client, 20)
                    rates[name].append(our_rate(client, options.runs))
            print(
                f"round {number + 1}: in process {rates['here'][-1]:.0f}, HTTP {rates['http'][-1]:.0f} runs/s",
                flush=True,
            )
    ours, rival = statistics.median(rates["http"]), statistics.median(rates["here"])
    our_gap, rival_gap = statistics.median(gaps["http"]), statistics.median(gaps["here"])
    print(f"RESULT name=http_runs_per_s ours={ours:.0f} rival={rival:.0f} ratio={ours / rival:.2f} bar={BAR}")
    print(
        f"RESULT name=http_stage_gap_p50_ms ours={our_gap:.2f} rival={rival_gap:.2f} "
        f"ratio={our_gap / rival_gap:.2f} bar=-"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
