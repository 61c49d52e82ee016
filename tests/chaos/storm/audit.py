"""What is left after the storm, looked at from outside: the store, the scheduler, the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from orchestrator.agent.checks import check, verdict
from orchestrator.jobs import ALIVE
from orchestrator.model import Run, RunStatus
from orchestrator.store import runs as store
from orchestrator.store import search
from orchestrator.store.database import Database
from slurm.client import Slurm
from tests.chaos.storm.plant import Plant
from tests.chaos.storm.work import marks

TWICE = "this token is claimed by job"


def audit(plant: Plant, asked: Sequence[str], acknowledged: Sequence[str]) -> list[str]:
    """Sentences about what is wrong; none when requests are runs, and everything happened once."""
    wrong: list[str] = []
    with Database(plant.url) as database:
        there = {line.id for line in search.listing(database, search.Wanted(), limit=10 * len(asked) + 100)}
        wrong += [f"{i} was acknowledged and is not in the store" for i in set(acknowledged) - there]
        wrong += [f"{i} is in the store and nobody asked for it" for i in there - set(asked)]
        runs = [store.load(database, i) for i in there]
    done = Counter(marks(plant.marks))
    for run in runs:
        wrong += _of_run(plant, run, done)
    wrong += _on_disk(plant)
    wrong += _at_scheduler(plant)
    return wrong


def blind(plant: Plant, asked: Sequence[str], acknowledged: Sequence[str]) -> list[str]:
    """What the audit fails to see when it is done to what the storm has left, which was in order."""
    with (plant.marks / f"{acknowledged[0]}.01").open("a") as file:
        file.write("x\n")
    (plant.work / f"{acknowledged[-1]}.out.part").touch()
    (out := next(plant.work.glob("*.out"))).write_text("spoilt")
    seen = audit(plant, asked, [*acknowledged, "never-written"])
    wanted = {
        "a stage carried out twice": "carried out",
        "a file left over": "left over",
        f"{out.name} spoilt": out.name,
        "an acknowledged run that is not there": "is not in the store",
    }
    return [f"the audit does not see {what}" for what, words in wanted.items() if not any(words in s for s in seen)]


def _of_run(plant: Plant, run: Run, done: Counter[str]) -> list[str]:
    wrong = []
    if run.status is not RunStatus.DONE:
        wrong.append(f"{run.id} ({run.plan.workflow}) is {run.status.value}: {run.error}")
    for task in run.tasks.values():
        times = done[f"{run.id}.{task.stage}"]
        if task.command or task.call.startswith("tests."):
            if times > task.attempt:
                wrong.append(f"{run.id} {task.stage} was carried out {times} times in {task.attempt} attempts")
            if times == 0 and run.status is RunStatus.DONE:
                wrong.append(f"{run.id} {task.stage} is done and was never carried out")
        if run.status is RunStatus.DONE and (reason := verdict(check(task.expect, since=0.0, base=task.working_dir))):
            wrong.append(f"{run.id} {task.stage} is done, and does not verify again: {reason}")
        for product in task.outcome.products if task.outcome else ():
            path = Path(product.path)
            if not path.exists() or (path.is_file() and path.stat().st_size != product.bytes):
                wrong.append(f"{run.id}: {path} is not as it was when it was checked")
    if run.plan.workflow == "storm-transfer" and run.status is RunStatus.DONE:
        copy = plant.work / f"{run.id}.copy"
        if not copy.exists() or copy.read_bytes() != (plant.work / f"{run.id}.out").read_bytes():
            wrong.append(f"{copy} is not its source")
    return wrong


def _on_disk(plant: Plant) -> list[str]:
    return [f"left over: {path}" for path in plant.work.rglob("*.part*")]


def _at_scheduler(plant: Plant) -> list[str]:
    slurm = Slurm(environment=plant.cluster.environment)
    left = [job for job in slurm.mine("bw-") + slurm.mine("bwp-") if job.state in ALIVE]
    wrong = [f"job {job.id} ({job.token}) is {job.state.value} and nobody waits for it" for job in left]
    # Of two jobs of one token the second finds it claimed, and says so on its stderr.
    wrong += [
        f"{e} is of a second job of its token"
        for e in plant.runs.rglob("*.err")
        if TWICE in e.read_text("utf-8", "replace")
    ]
    return wrong
