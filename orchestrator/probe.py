"""Runs on a node of a site, prints one JSON object, and says what is there: Python, kernels, ranks, devices, scratch.

`beamway site check --live` copies this file to the site and runs it there by its path, so it needs the standard library
alone and no Beamway, whose absence it is to report. `--rank` is what the launcher starts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

RANKS = ("SLURM_PROCID", "PALS_RANKID", "PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")
VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "ROCR_VISIBLE_DEVICES", "level-zero": "ZE_AFFINITY_MASK"}
LISTS = {"cuda": ["nvidia-smi", "--list-gpus"], "rocm": ["rocm-smi", "--showid"]}
MARK = "beamway-rank "


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", action="store_true")
    parser.add_argument("--launch", default="[]", help="Words that start two ranks of what follows, as JSON.")
    parser.add_argument("--accelerator", default="")
    parser.add_argument("--scratch", default="")
    parser.add_argument("--output", default="")
    options = parser.parse_args()
    if options.rank:
        print(MARK + json.dumps(rank()), flush=True)
        return 0
    begun = time.monotonic()
    found: dict[str, Any] = {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "cores": len(os.sched_getaffinity(0)),
        "kernels": kernels(),
        "ranks": ranks(json.loads(options.launch)),
        "devices": devices(options.accelerator),
        "scratch": scratch(options.scratch),
    }
    found["seconds"] = round(time.monotonic() - begun, 3)
    text = json.dumps(found)
    if options.output:
        with open(options.output + ".part", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(options.output + ".part", options.output)
    print(text)
    return 0


def kernels() -> dict[str, Any]:
    """The names of all kernels, and why those that cannot be loaded cannot: the list alone needs no NumPy."""
    try:
        registry = importlib.import_module("kernels.registry")
        names = list(registry.names())
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a foreign environment is what is asked for
        return {"error": f"{type(error).__name__}: {error}"}
    broken = {}
    for name in names:
        try:
            importlib.import_module(registry.get(name).call.partition(":")[0])
        except Exception as error:  # noqa: BLE001 - as above
            broken[name] = f"{type(error).__name__}: {error}"
    return {"names": names, "broken": broken}


def rank() -> dict[str, Any]:
    """Who I am among those that the launcher has started."""
    mine = next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), -1)
    try:
        world = importlib.import_module("mpi4py.MPI").COMM_WORLD
        return {"rank": world.Get_rank(), "size": world.Get_size(), "mpi4py": ""}
    except Exception as error:  # noqa: BLE001 - a library that does not fit raises what it likes
        return {"rank": mine, "size": 0, "mpi4py": f"{type(error).__name__}: {error}"}


def ranks(launch: list[str]) -> dict[str, Any]:
    """What two ranks of a trivial program say of each other."""
    if not launch:
        return {}
    words = [*launch, sys.executable, os.path.abspath(__file__), "--rank"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=90, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    # ranks write at once, so one line may hold the words of two
    answers = [_first(part) for part in said.stdout.split(MARK)[1:]]
    last = said.stderr.strip().splitlines()[-1:] if said.returncode else []
    return {"answers": [a for a in answers if a], "status": said.returncode, "said": "".join(last)[:300]}


def _first(text: str) -> dict[str, Any]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def devices(kind: str) -> dict[str, Any]:
    """How many, by the variable that says which are visible, else by the vendor's program; -1: nobody says."""
    if not kind:
        return {}
    visible = os.environ.get(VISIBLE.get(kind, ""))
    if visible is not None:
        words = [w for w in visible.split(",") if w.strip() not in ("", "-1", "NoDevFiles")]
        return {"count": len(words), "by": f"{VISIBLE[kind]}={visible}"}
    if kind not in LISTS:
        return {"count": -1, "by": ""}
    try:
        said = subprocess.run(LISTS[kind], capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "no answer in time"
        return {"count": 0, "by": f"{LISTS[kind][0]}: {reason}"}
    lines = [line for line in said.stdout.splitlines() if line.startswith("GPU")]
    count = len({line.split(":")[0] for line in lines}) if said.returncode == 0 else 0
    return {"count": count, "by": LISTS[kind][0]}


def scratch(folder: str) -> dict[str, Any]:
    if not folder:
        return {}
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="node-") as file:
            file.write(b"beamway")
            file.flush()
            os.fsync(file.fileno())
            with open(file.name, "rb") as again:
                if again.read() != b"beamway":
                    return {"error": "what is read is not what was written"}
    except OSError as error:
        return {"error": str(error)}
    return {"folder": folder}


if __name__ == "__main__":
    sys.exit(main())
