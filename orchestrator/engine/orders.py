"""An attempt as the agent gets it: the task, the stage's rules, and what earlier attempts have taught."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from orchestrator.model import FailureClass, Order, Resources, Run, StagePlan, Task, token

MORE = 2.0  # times the walltime or memory, after an attempt that had too little


def order(run: Run, task: Task, plan: StagePlan, home: Path, *, adopt: bool) -> Order:
    codes = next((r.exit_codes for r in plan.retries if r.failure is FailureClass.TRANSIENT), ())
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
        transient_codes=codes,
        timeout_s=plan.timeout_s,
        resources=_grown(plan.resources, task),
        placing=plan.placing,
        experiment=run.variables.get("experimentName", ""),
        log_dir=str(home / "runs" / run.id / "logs"),
        adopt=adopt,
    )


def _grown(asked: Resources, task: Task) -> Resources:
    """How much more than asked: the agent, who knows the queue, applies it and keeps it within the limits."""
    slow, fat = (task.used.get(str(f), 0) for f in (FailureClass.WALLTIME, FailureClass.MEMORY))
    return replace(asked, longer=MORE**slow, larger=MORE**fat) if slow or fat else asked
