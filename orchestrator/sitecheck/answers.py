"""What the probe has said, held against what the profile promises."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.sitecheck.record import Check, NotDone, Wrong, made

if TYPE_CHECKING:
    from sites.schema import Queue, SiteProfile

NAMES = ("python there", "kernels there", "MPI there", "GPUs there", "scratch there")


def checks(profile: SiteProfile, queue: Queue | None, found: dict[str, Any]) -> Iterator[Check]:
    python, kernels, mpi, gpus, scratch = NAMES
    yield made(python, lambda: _python(found))
    yield made(kernels, lambda: _kernels(found))
    yield made(mpi, lambda: _mpi(profile, found.get("ranks", {})))
    yield made(gpus, lambda: _gpus(profile, queue, found.get("devices", {})))
    yield made(scratch, lambda: _scratch(profile, found.get("scratch", {})))


def _python(found: dict[str, Any]) -> str:
    ours, theirs = sys.version_info[:2], str(found.get("python", ""))
    seen = f"{theirs} at {found.get('executable', '')}"
    if theirs.split(".")[:2] != [str(part) for part in ours]:
        wanted = ".".join(map(str, ours))
        raise Wrong(
            f"{seen}, and the agent has {wanted}: what one writes the other may not read",
            f"Set environment.python to a Python {wanted}.",
        )
    return seen


def _kernels(found: dict[str, Any]) -> str:
    kernels = found.get("kernels", {})
    if "names" not in kernels:
        raise Wrong(
            f"they cannot be imported: {kernels.get('error', 'no answer')}",
            "Install Beamway into environment.python, or activate where it is in environment.worker_init.",
        )
    broken = kernels.get("broken", {})
    if broken:
        name, reason = next(iter(broken.items()))
        raise Wrong(
            f"{len(broken)} of {len(kernels['names'])} cannot be loaded, {name}: {reason}",
            "Install Beamway with all that it needs into environment.python.",
        )
    return f"{len(kernels['names'])}: {', '.join(kernels['names'])}"


def _mpi(profile: SiteProfile, ranks: dict[str, Any]) -> str:
    launcher = profile.launcher.kind
    if launcher == "none":
        raise NotDone("the profile promises none: launcher.kind is none")
    if "error" in ranks:
        raise Wrong(
            f"{launcher} could not start two ranks: {ranks['error']}",
            "Set launcher.command to its full path on the node, or bring it in by environment.modules.",
        )
    answers = ranks.get("answers", [])
    if len(answers) != 2:
        ended = f"ended with {ranks.get('status')}: {ranks.get('said', '')}"
        raise Wrong(
            f"{launcher} started {len(answers)} of two ranks and {ended}",
            "Change launcher.kind, launcher.command or launcher.options.",
        )
    lacking = next((a["mpi4py"] for a in answers if a.get("mpi4py")), "")
    if lacking:
        raise Wrong(
            f"{launcher} starts two ranks, but mpi4py cannot be imported: {lacking}",
            "Install mpi4py, built with the site's own MPI, into environment.python.",
        )
    if sorted((a.get("rank"), a.get("size")) for a in answers) != [(0, 2), (1, 2)]:
        raise Wrong(
            "two ranks start, but each believes it is alone: mpi4py is built with another MPI than the launcher's",
            "Build mpi4py with the site's own MPI, or change launcher.kind or launcher.options (Slurm: --mpi=…).",
        )
    return f"{launcher} starts two ranks, and they see each other"


def _gpus(profile: SiteProfile, queue: Queue | None, devices: dict[str, Any]) -> str:
    node = profile.node_of(queue)
    table = "queue's node" if queue is not None and queue.node is not None else "table [node]"
    if not node.gpus:
        raise NotDone("the profile promises none there: gpus is 0")
    count = int(devices.get("count", -1))
    if count < 0:
        raise NotDone("the node has no program that counts such devices, and no variable names them")
    if count < node.gpus:
        raise Wrong(
            f"{count} are visible to a job ({devices.get('by', '')}), and the profile says {node.gpus}",
            f"Set gpus in the {table} to what a job gets, or add the words that ask for them to options of the queue.",
        )
    return f"{count} ({devices.get('by', '')})"


def _scratch(profile: SiteProfile, scratch: dict[str, Any]) -> str:
    if "error" in scratch:
        raise Wrong(
            f"{profile.paths.scratch} cannot be written on the node: {scratch['error']}",
            f"Set paths.scratch to a folder that nodes see too, or call {profile.identity.contact}.",
        )
    return f"{profile.paths.scratch} is written and read on the node"
