"""An attempt as the agent gets it: the task, the stage's rules, and what earlier attempts have taught."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from orchestrator.engine import inputs
from orchestrator.model import FailureClass, Order, Placing, Resources, Run, StagePlan, Task, token

USES = ("realtime", "demand", "regular", "debug")
MORE = 2.0  # times the walltime or memory, after an attempt that had too little


def order(run: Run, task: Task, plan: StagePlan, runs: Path, *, adopt: bool) -> Order:
    """`runs`: the directory where runs keep logs and exit records."""
    known = inputs.known(run)
    codes = {r.failure: r.exit_codes for r in plan.retries if r.exit_codes}
    return Order(
        token(run.id, task.number, task.attempt),
        plan.kind,
        task.stage,
        command=task.command,
        call=task.call,
        arguments=task.arguments,
        working_dir=task.working_dir,
        captures=plan.captures,
        expect=task.expect,
        inputs=inputs.declared(run, task, plan, known),
        known=known,
        transient_codes=codes.get(FailureClass.TRANSIENT, ()),
        authentication_codes=codes.get(FailureClass.AUTHENTICATION, ()),
        timeout_s=plan.timeout_s,
        resources=_grown(plan.resources, task),
        placing=_placing(run, task, plan),
        experiment=run.variables.get("experimentName", ""),
        log_dir=f"{runs}/{run.id}/logs",  # pathlib would intern the id, and Python 3.12 keeps such strings for ever
        adopt=adopt,
    )


def _placing(run: Run, task: Task, plan: StagePlan) -> Placing:
    """What the stage asks for; where a site was chosen for it, what was chosen there."""
    stage, asked = run.stages[task.stage], plan.placing
    if asked.site == task.site:
        return asked
    # what was asked of one site by name means nothing at another; a use does everywhere
    queue = stage.queue or (asked.queue if asked.queue in USES else "")
    return replace(asked, site=task.site, queue=queue, reservation=stage.reservation, account="")


def _grown(asked: Resources, task: Task) -> Resources:
    """How much more than asked: the agent, who knows the queue, applies it and keeps it within the limits."""
    slow, fat = (task.used.get(str(f), 0) for f in (FailureClass.WALLTIME, FailureClass.MEMORY))
    return replace(asked, longer=MORE**slow, larger=MORE**fat) if slow or fat else asked
