"""One attempt on several ranks: started by the site's launcher, judged by what every rank has written down.

The worker or job that got the order starts `python -m orchestrator.agent.ranks FILE` on each rank. Each leaves its
outcome in a file; the attempt is well only when all of them are. The launcher's exit status alone proves nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from kernels import ranks
from orchestrator import codec
from orchestrator.agent import launch, output, processes
from orchestrator.agent.around import Around
from orchestrator.model import FailureClass, Order, Outcome, Resources, StageKind

# (rank, local rank, size) as the launchers say it, first one first
_RANKS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PALS_RANKID", "PALS_LOCAL_RANKID"),
    ("PMI_RANK", "MPI_LOCALRANKID"),
    ("SLURM_PROCID", "SLURM_LOCALID"),
)


class RankOrder(Struct, frozen=True):
    """The file that every rank reads."""

    order: Order
    around: Around


def several(order: Order) -> bool:
    """Does this order want a launcher? Transfers and child runs are one process always."""
    ranks = order.resources.nodes * order.resources.ranks_per_node
    return ranks > 1 and order.kind not in (StageKind.TRANSFER, StageKind.WORKFLOW)


def run(order: Order, around: Around, nodes: tuple[str, ...] = ()) -> Outcome:
    """Start the ranks, wait for them, and say what came of them all. Left by an exception it ends them."""
    try:
        words = launch.line(around, order.resources, nodes)
    except ValueError as error:
        return Outcome(FailureClass.SITE, str(error))
    stem = output.Paths(order).stem
    os.makedirs(order.log_dir, mode=0o700, exist_ok=True)
    for old in Path(order.log_dir).glob(f"{Path(stem).name}.rank.*"):
        old.unlink()
    path = f"{stem}.ranks"
    Path(path).write_text(codec.dumps(RankOrder(order, around)))
    argv = [*words, *around.program, "-m", __name__, path]
    environment = {**os.environ, processes.TOKEN: order.token, **started(order.resources)}
    if os.getuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    except OSError as error:
        return Outcome(FailureClass.SITE, f"the launcher {words[0]!r} cannot be started: {error.strerror or error}")
    status = processes.waited(process)
    outcome = _together(order, stem, status)
    for path_of_rank in Path(order.log_dir).glob(f"{Path(stem).name}.rank.*"):
        path_of_rank.unlink()
    with contextlib.suppress(OSError):
        os.unlink(path)
    return outcome


def started(resources: Resources) -> dict[str, str]:
    """What the ranks are told: how many they are, and how many threads each may use."""
    count = resources.nodes * resources.ranks_per_node
    return {ranks.EXPECTED: str(count), **dict.fromkeys(launch.THREADS, str(resources.cores_per_rank))}


def _together(order: Order, stem: str, status: int) -> Outcome:
    wanted = order.resources.nodes * order.resources.ranks_per_node
    outcomes: dict[int, Outcome] = {}
    for number in range(wanted):
        with contextlib.suppress(OSError, ValueError):
            outcomes[number] = codec.loads(Path(f"{stem}.rank.{number}").read_text(), Outcome)
    failed = [(n, o) for n, o in sorted(outcomes.items()) if o.failure is not None]
    # a rank that was ended because of another's failure is not the cause
    causes = [f for f in failed if f[1].failure is not FailureClass.CANCELLED]
    missing = [n for n in range(wanted) if n not in outcomes]
    if causes or (failed and not missing):
        number, outcome = (causes or failed)[0]
        return replace(outcome, reason=f"rank {number} of {wanted}: {outcome.reason}")
    if missing:
        which = f"rank {missing[0]}" if len(missing) == 1 else f"{len(missing)} ranks, {missing[0]} the first,"
        sentence = f"{which} of {wanted} left no result; the launcher ended with {status}"
        failure = FailureClass.LOST if outcomes else FailureClass.SITE
        return Outcome(failure, sentence, exit_status=status)
    if status:
        return Outcome(FailureClass.LOST, f"every rank ended well, but the launcher with {status}", exit_status=status)
    first = outcomes[0]
    products = {p.path: p for o in outcomes.values() for p in o.products}
    return replace(first, products=tuple(products.values()))


# ---------------------------------------------------------------------------------------------------- in each rank


def place(environment: Mapping[str, str]) -> tuple[int, int]:
    """(rank, local rank) of this process."""
    for rank, local in _RANKS:
        if rank in environment:
            return int(environment[rank]), int(environment.get(local, "0"))
    raise RuntimeError("no launcher has said which rank this is")


def pin(around: Around, order: Order, local_rank: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that let this rank see its own devices only. Raises ValueError when there are too few."""
    each = order.resources.gpus_per_rank
    if not each:
        return {}
    text = next((t for n in (around.variable, "SLURM_STEP_GPUS", "SLURM_JOB_GPUS") if (t := environment.get(n))), "")
    granted = [d for d in text.split(",") if d] or [str(n) for n in range(around.gpus)]
    mine = granted[local_rank * each : (local_rank + 1) * each]
    if len(mine) < each:
        raise ValueError(
            f"rank {local_rank} of its node should see {each} devices and {len(granted)} are granted to the node"
        )
    return {around.variable: ",".join(mine)}


def main(path: str) -> int:
    from orchestrator.agent import wrapper

    text = Path(path).read_text()
    job = codec.loads(text, RankOrder)
    rank, local_rank = place(os.environ)
    stem = output.Paths(job.order).stem
    try:
        os.environ.update(pin(job.around, job.order, local_rank, os.environ))
        signal.signal(signal.SIGTERM, wrapper.on_term)
        outcome = wrapper.attempt(job.order, None)
    except ValueError as error:
        outcome = Outcome(FailureClass.SITE, str(error))
    except wrapper.Ended:
        outcome = Outcome(FailureClass.CANCELLED, "ended")
    part = Path(f"{stem}.rank.{rank}.part")
    part.write_text(codec.dumps(outcome))
    os.replace(part, f"{stem}.rank.{rank}")
    return 0 if outcome.failure is None else 1


if __name__ == "__main__":
    ranks.leave(main(sys.argv[1]))
